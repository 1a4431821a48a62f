//! The whole set checked, and compiled: ranges, references, uniqueness, and what would
//! leave a caller without a person.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{CallbackSpec, LineSpec, PoolSpec, QueueSpec, TopicSpec};
use super::parse::{Fault, Named, Source};
use super::{
    AgentPolicy, CallbackPolicy, Line, OPERATOR_TOPIC, Policy, PoolPolicy, QueueIndex, QueuePolicy,
    Topic,
};

/// The documents read, by kind.
#[derive(Default)]
pub(super) struct Set<'a> {
    pub(super) pools: Vec<Named<'a, PoolSpec>>,
    pub(super) lines: Vec<Named<'a, LineSpec>>,
    pub(super) topics: Vec<Named<'a, TopicSpec>>,
    pub(super) queues: Vec<Named<'a, QueueSpec>>,
    pub(super) callbacks: Vec<Named<'a, CallbackSpec>>,
    /// Every (kind, name) seen, also of documents that could not be read: a reference to
    /// one of those is not a second fault.
    declared: BTreeSet<(String, String)>,
}

impl Set<'_> {
    /// Notes a document; false if there was one of this kind and name.
    pub(super) fn declare(&mut self, kind: &str, name: &str) -> bool {
        self.declared.insert((kind.to_owned(), name.to_owned()))
    }

    /// Every document of this kind could be read: what is not among them is not there.
    fn is_whole(&self, kind: &str, read: usize) -> bool {
        read == self
            .declared
            .iter()
            .filter(|(declared, _)| declared == kind)
            .count()
    }

    fn is_declared(&self, kind: &str, name: &str) -> bool {
        self.declared.contains(&(kind.to_owned(), name.to_owned()))
    }
}

/// Longest duration in a policy: a day.
const DAY_MS: u64 = 86_400_000;

struct Checker<'f> {
    faults: &'f mut Vec<Fault>,
}

impl Checker<'_> {
    fn range(
        &mut self,
        source: &Source<'_>,
        field: &str,
        value: impl Into<u64>,
        from: u64,
        to: u64,
    ) {
        let value = value.into();
        if value < from || value > to {
            self.faults
                .push(source.fault(field, format!("spec.{field}: {from} to {to}, is {value}")));
        }
    }

    fn text(&mut self, source: &Source<'_>, field: &str, value: &str, bytes_max: usize) {
        if value.is_empty() || value.len() > bytes_max || value.chars().any(char::is_control) {
            let value: String = value.chars().take(40).collect();
            self.faults.push(source.fault(
                field,
                format!("spec.{field}: 1 to {bytes_max} bytes of text, is {value:?}"),
            ));
        }
    }

    fn reference(
        &mut self,
        source: &Source<'_>,
        set: &Set<'_>,
        field: &str,
        kind: &str,
        name: &str,
    ) {
        if !set.is_declared(kind, name) {
            self.faults
                .push(source.fault(field, format!("spec.{field}: there is no {kind} {name:?}")));
        }
    }

    fn number(&mut self, source: &Source<'_>, field: &str, number: &str) {
        if number.len() < 3
            || number.len() > 32
            || !number.bytes().all(|byte| byte.is_ascii_digit())
        {
            self.faults.push(source.fault(
                field,
                format!("spec.{field}: 3 to 32 digits, is {number:?}"),
            ));
        }
    }
}

/// Checks everything; a policy comes out if nothing that it needs is missing. With any
/// fault the caller must not use it.
pub(super) fn compile(set: Set<'_>, version: u64, faults: &mut Vec<Fault>) -> Option<Policy> {
    let mut checker = Checker { faults };
    let queues = queues(&set, &mut checker);
    let topics = topics(&set, &queues, &mut checker);
    let pools = pools(&set, &mut checker);
    let (lines, line_by_number) = lines(&set, &topics, &queues, &mut checker);
    let callback = callback(&set, &mut checker);
    for (kind, missing) in [
        ("Pool", set.pools.is_empty()),
        ("CallbackPolicy", callback.is_none()),
    ] {
        if missing && !set.declared.iter().any(|(declared, _)| declared == kind) {
            let reason = format!(
                "the set has no {kind}: exactly one CallbackPolicy and at least one Pool are needed"
            );
            checker.faults.push(Fault {
                document: "set".to_owned(),
                line: 1,
                reason,
            });
        }
    }
    Some(Policy {
        version,
        pools,
        lines,
        topics,
        queues,
        callback: callback?,
        line_by_number,
    })
}

fn queues(set: &Set<'_>, checker: &mut Checker<'_>) -> Vec<QueuePolicy> {
    let mut queues = Vec::new();
    let mut devices = BTreeSet::new();
    for Named { source, name, spec } in &set.queues {
        checker.reference(source, set, "pool", "Pool", &spec.pool);
        checker.text(source, "skill", &spec.skill, 64);
        checker.range(source, "proficiencyMin", spec.proficiency_min, 1, 10);
        checker.text(source, "device", &spec.device, 128);
        checker.range(source, "priorityStart", spec.priority_start, 0, 1_000_000);
        // 0 would let a queue be overtaken for ever: there would be no bound to state.
        checker.range(
            source,
            "priorityAcceleration",
            spec.priority_acceleration,
            1,
            10_000,
        );
        checker.range(source, "waitingMax", spec.waiting_max, 1, 1_000_000);
        checker.range(source, "serviceLevelMs", spec.service_level_ms, 1, DAY_MS);
        checker.range(
            source,
            "handleTimePriorMs",
            spec.handle_time_prior_ms,
            100,
            DAY_MS,
        );
        checker.range(
            source,
            "patiencePriorMs",
            spec.patience_prior_ms,
            100,
            DAY_MS,
        );
        checker.text(source, "announcement", &spec.announcement, 64);
        if !devices.insert(spec.device.as_str()) {
            let reason = format!(
                "spec.device: {:?} is another queue's device already",
                spec.device
            );
            checker.faults.push(source.fault("device", reason));
        }
        queues.push(QueuePolicy {
            name: name.clone(),
            pool: spec.pool.clone(),
            skill: spec.skill.clone(),
            proficiency_min: spec.proficiency_min,
            device: spec.device.clone(),
            priority_start: spec.priority_start,
            priority_acceleration: spec.priority_acceleration,
            waiting_max: spec.waiting_max,
            service_level_ms: spec.service_level_ms,
            handle_time_prior_ms: spec.handle_time_prior_ms,
            patience_prior_ms: spec.patience_prior_ms,
            announcement: spec.announcement.clone(),
        });
        if queues.len() > usize::from(u16::MAX) {
            checker
                .faults
                .push(source.fault("name", format!("at most {} queues", u16::MAX)));
            break;
        }
    }
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    queues
}

fn index_of(queues: &[QueuePolicy], name: &str) -> Option<QueueIndex> {
    let position = queues
        .binary_search_by(|queue| queue.name.as_str().cmp(name))
        .ok()?;
    u16::try_from(position).ok().map(QueueIndex)
}

fn topics(
    set: &Set<'_>,
    queues: &[QueuePolicy],
    checker: &mut Checker<'_>,
) -> BTreeMap<String, Topic> {
    let mut topics = BTreeMap::new();
    for Named { source, spec, .. } in &set.topics {
        let id_is_good = !spec.id.is_empty()
            && spec.id.len() <= 64
            && spec
                .id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !id_is_good {
            checker.faults.push(source.fault(
                "id",
                format!("spec.id: 1 to 64 of [A-Za-z0-9_], is {:?}", spec.id),
            ));
        }
        checker.text(source, "title", &spec.title, 128);
        checker.text(source, "family", &spec.family, 64);
        checker.range(source, "priorityStart", spec.priority_start, 0, 1_000_000);
        checker.reference(source, set, "queue", "Queue", &spec.queue);
        let Some(queue) = index_of(queues, &spec.queue) else {
            continue;
        };
        let topic = Topic {
            id: spec.id.clone(),
            title: spec.title.clone(),
            queue,
            callback: spec.callback,
            priority_start: spec.priority_start,
            family: spec.family.clone(),
        };
        if topics.insert(spec.id.clone(), topic).is_some() {
            checker.faults.push(source.fault(
                "id",
                format!("spec.id: {:?} is another topic's id already", spec.id),
            ));
        }
    }
    topics
}

fn pools(set: &Set<'_>, checker: &mut Checker<'_>) -> BTreeMap<String, PoolPolicy> {
    let mut pools = BTreeMap::new();
    for Named { source, name, spec } in &set.pools {
        checker.range(source, "noAnswerMs", spec.no_answer_ms, 100, 600_000);
        checker.range(source, "wrapUpMaxMs", spec.wrap_up_max_ms, 100, DAY_MS);
        checker.range(
            source,
            "reservationMaxMs",
            spec.reservation_max_ms,
            100,
            600_000,
        );
        checker.range(source, "waitingMax", spec.waiting_max, 1, 2_000_000);
        checker.range(source, "agentsMax", spec.agents_max, 1, 200_000);
        checker.range(source, "priorityCap", spec.priority_cap, 1, 1_000_000);
        checker.range(
            source,
            "rememberEndedMs",
            spec.remember_ended_ms,
            1_000,
            DAY_MS,
        );
        checker.range(
            source,
            "surveyWaitMs",
            spec.survey_wait_ms,
            0,
            3_600_000_u64,
        );
        let mine: Vec<_> = set
            .queues
            .iter()
            .filter(|queue| queue.spec.pool == *name)
            .collect();
        let skills_are_whole = set.is_whole("Queue", set.queues.len());
        let skills: BTreeSet<&str> = mine.iter().map(|queue| queue.spec.skill.as_str()).collect();
        for queue in &mine {
            if queue.spec.priority_start > spec.priority_cap {
                let reason = format!(
                    "spec.priorityStart: at most the pool's priorityCap {}, is {}",
                    spec.priority_cap, queue.spec.priority_start
                );
                checker
                    .faults
                    .push(queue.source.fault("priorityStart", reason));
            }
        }
        for (id, agent) in &spec.agents {
            let where_ = |what: &str, reason: String| {
                source.fault(id, format!("spec.agents.{id}{what}: {reason}"))
            };
            if let Err(error) = crate::AgentId::parse(id) {
                checker
                    .faults
                    .push(where_("", format!("{}, is {}", error.limit, error.value)));
            }
            if agent.capacity < 1 || agent.capacity > 8 {
                checker.faults.push(where_(
                    ".capacity",
                    format!("1 to 8, is {}", agent.capacity),
                ));
            }
            for (skill, proficiency) in &agent.skills {
                if skills_are_whole && !skills.contains(skill.as_str()) {
                    checker.faults.push(where_(
                        ".skills",
                        format!("no queue of the pool needs {skill:?}"),
                    ));
                }
                if !(1..=10).contains(proficiency) {
                    checker.faults.push(where_(
                        ".skills",
                        format!("proficiency 1 to 10, {skill:?} is {proficiency}"),
                    ));
                }
            }
            for language in &agent.languages {
                if !is_language(language) {
                    checker
                        .faults
                        .push(where_(".languages", format!("BCP 47, is {language:?}")));
                }
            }
        }
        let agent = |agent: &super::document::AgentSpec| AgentPolicy {
            skills: agent.skills.clone(),
            languages: agent.languages.clone(),
            capacity: agent.capacity,
        };
        pools.insert(
            name.clone(),
            PoolPolicy {
                name: name.clone(),
                no_answer_ms: spec.no_answer_ms,
                wrap_up_max_ms: spec.wrap_up_max_ms,
                reservation_max_ms: spec.reservation_max_ms,
                waiting_max: spec.waiting_max,
                agents_max: spec.agents_max,
                priority_cap: spec.priority_cap,
                agents: spec
                    .agents
                    .iter()
                    .map(|(id, spec)| (id.clone(), agent(spec)))
                    .collect(),
                remember_ended_ms: spec.remember_ended_ms,
                survey_wait_ms: spec.survey_wait_ms,
            },
        );
    }
    pools
}

/// A BCP 47 tag, by shape: 2 to 35 letters, digits and inner hyphens.
pub(crate) fn is_language(tag: &str) -> bool {
    (2..=35).contains(&tag.len())
        && tag.split('-').all(|part| {
            !part.is_empty()
                && part.len() <= 8
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

type Lines = (BTreeMap<String, Line>, BTreeMap<String, String>);

fn lines(
    set: &Set<'_>,
    topics: &BTreeMap<String, Topic>,
    queues: &[QueuePolicy],
    checker: &mut Checker<'_>,
) -> Lines {
    let mut lines = BTreeMap::new();
    let mut line_by_number = BTreeMap::new();
    let topics_are_whole = set.is_whole("Topic", set.topics.len());
    let ids: BTreeSet<&str> = set
        .topics
        .iter()
        .map(|topic| topic.spec.id.as_str())
        .collect();
    for Named { source, name, spec } in &set.lines {
        checker.reference(source, set, "pool", "Pool", &spec.pool);
        match topics.get(&spec.default_topic) {
            None if topics_are_whole && !ids.contains(spec.default_topic.as_str()) => {
                let reason = format!(
                    "spec.defaultTopic: there is no topic with the id {:?}",
                    spec.default_topic
                );
                checker.faults.push(source.fault("defaultTopic", reason));
            }
            Some(topic) if queues[usize::from(topic.queue.0)].pool != spec.pool => {
                let reason = format!(
                    "spec.defaultTopic: {:?} is served by another pool than the line's",
                    spec.default_topic
                );
                checker.faults.push(source.fault("defaultTopic", reason));
            }
            _ => {}
        }
        if topics_are_whole && !ids.contains(OPERATOR_TOPIC) {
            let reason = format!(
                "a caller on this line could not reach a person: there is no topic {OPERATOR_TOPIC:?}"
            );
            checker.faults.push(source.fault("name", reason));
        }
        checker.number(source, "callbackNumber", &spec.callback_number);
        checker.range(source, "callerPlacesMax", spec.caller_places_max, 1, 10_000);
        if jiff::tz::TimeZone::get(&spec.time_zone).is_err() {
            let reason = format!("spec.timeZone: an IANA time zone, is {:?}", spec.time_zone);
            checker.faults.push(source.fault("timeZone", reason));
        }
        if spec.numbers.is_empty() || spec.numbers.len() > 256 {
            let reason = format!("spec.numbers: 1 to 256, are {}", spec.numbers.len());
            checker.faults.push(source.fault("numbers", reason));
        }
        for number in &spec.numbers {
            checker.number(source, "numbers", number);
            if let Some(other) = line_by_number.insert(number.clone(), name.clone()) {
                let reason =
                    format!("spec.numbers: {number:?} is dialled on line {other:?} already");
                checker.faults.push(source.fault("numbers", reason));
            }
        }
        lines.insert(
            name.clone(),
            Line {
                name: name.clone(),
                numbers: spec.numbers.clone(),
                pool: spec.pool.clone(),
                default_topic: spec.default_topic.clone(),
                callback_number: spec.callback_number.clone(),
                time_zone: spec.time_zone.clone(),
                caller_places_max: spec.caller_places_max,
            },
        );
    }
    (lines, line_by_number)
}

fn callback(set: &Set<'_>, checker: &mut Checker<'_>) -> Option<CallbackPolicy> {
    for extra in set.callbacks.iter().skip(1) {
        checker.faults.push(
            extra
                .source
                .fault("name", "there may be one CallbackPolicy only"),
        );
    }
    let Named { source, spec, .. } = set.callbacks.first()?;
    checker.range(
        source,
        "offerFromExpectedWaitMs",
        spec.offer_from_expected_wait_ms,
        0,
        DAY_MS,
    );
    checker.range(source, "attemptsMax", spec.attempts_max, 1, 10);
    checker.range(
        source,
        "attemptSpacingMs",
        spec.attempt_spacing_ms,
        100,
        DAY_MS,
    );
    checker.range(source, "ringMs", spec.ring_ms, 100, 120_000);
    checker.range(source, "leaseMs", spec.lease_ms, 100, 3_600_000);
    checker.range(source, "windowMs", spec.window_ms, 1_000, DAY_MS);
    checker.range(source, "windowsOffered", spec.windows_offered, 0, 8);
    checker.range(
        source,
        "windowCapacityPercent",
        spec.window_capacity_percent,
        0,
        100,
    );
    checker.range(source, "callableFromHour", spec.callable_from_hour, 0, 23);
    checker.range(
        source,
        "callableUntilHour",
        spec.callable_until_hour,
        u64::from(spec.callable_from_hour) + 1,
        24,
    );
    Some(CallbackPolicy {
        offer_from_expected_wait_ms: spec.offer_from_expected_wait_ms,
        attempts_max: spec.attempts_max,
        attempt_spacing_ms: spec.attempt_spacing_ms,
        ring_ms: spec.ring_ms,
        lease_ms: spec.lease_ms,
        window_ms: spec.window_ms,
        windows_offered: spec.windows_offered,
        window_capacity_percent: spec.window_capacity_percent,
        callable_from_hour: spec.callable_from_hour,
        callable_until_hour: spec.callable_until_hour,
    })
}
