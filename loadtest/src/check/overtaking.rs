//! `BoundedOvertaking`: nobody is overtaken for longer than policy says.
//!
//! Priority is start + acceleration x seconds waited, up to the cap. So among contacts of
//! one queue, language and start the order is strictly that of arrival; and past
//! (cap - start) / acceleration seconds nobody who came later goes first, whatever queue
//! they are in. Both are checked at every `Assigned`: no contact that the same agent could
//! have served (skill, proficiency, language) was in line, had come earlier and was left.
//!
//! In line means: the last event says so and the caller had not hung up, by the switch's
//! record, from some time before to some time after, the clock tolerance apart, since events of one moment may be written in either order.
//! Not compared: places held by callbacks (their turn is a prediction), and contacts put
//! back after a command failed at the switch, which the pool holds off for a while.

use std::collections::{BTreeMap, HashMap};

use domain::invariant::Invariant;
use domain::policy::Policy;
use proto::event::v1::QueuedReason;
use proto::event::v1::contact_event::Body;

use super::log::Contact;
use super::{Evidence, Verdict};

/// Contacts that keep their order for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    queue: String,
    language: String,
    start: u32,
}

#[derive(Debug)]
struct Wait {
    lane: usize,
    place_ms: u64,
    from_ms: u64,
    until_ms: u64,
    contact: usize,
}

#[derive(Debug)]
struct Given {
    lane: usize,
    place_ms: u64,
    at_ms: u64,
    contact: usize,
    agent: String,
}

/// What policy says of a lane.
#[derive(Debug)]
struct Rule {
    lane: Lane,
    skill: String,
    proficiency_min: u32,
    bound_ms: u64,
}

#[derive(Debug, Default)]
struct Lines {
    rules: Vec<Rule>,
    index: BTreeMap<Lane, usize>,
    waits: Vec<Wait>,
    given: Vec<Given>,
}

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new(
        Invariant::BoundedOvertaking,
        "agents given to contacts, against everybody whom they could have served instead",
    );
    let tolerance_ms = evidence.expect.clock_tolerance_ms.max(200);
    let contacts = evidence.log.in_order();
    let mut lines = Lines::default();
    for (index, (_, contact)) in contacts.iter().enumerate() {
        let first = lines.waits.len();
        lines.take(index, contact, evidence.policy);
        // A caller who hung up is not in line any more, whatever the log says later: a
        // callback's leg that is lost is not an event of its own.
        let ended = evidence.facts.legs_ended_ms(contacts[index].0);
        for wait in &mut lines.waits[first..] {
            if let Some(ended_ms) = ended.iter().find(|ended_ms| **ended_ms >= wait.from_ms) {
                wait.until_ms = wait.until_ms.min(*ended_ms);
            }
        }
    }
    lines.waits.sort_by_key(|wait| wait.from_ms);
    lines.given.sort_by_key(|given| given.at_ms);
    let mut in_line: Vec<BTreeMap<(u64, usize), (u64, u64)>> =
        lines.rules.iter().map(|_| BTreeMap::new()).collect();
    let mut next = 0;
    let mut compared = 0u64;
    for given in &lines.given {
        while let Some(wait) = lines
            .waits
            .get(next)
            .filter(|wait| wait.from_ms <= given.at_ms)
        {
            in_line[wait.lane].insert((wait.place_ms, wait.contact), (wait.from_ms, wait.until_ms));
            next += 1;
        }
        verdict.checked += 1;
        let agent = evidence.facts.agents.get(&given.agent);
        for (lane, rule) in lines.rules.iter().enumerate() {
            let same = lane == given.lane;
            let serves = same
                || agent.is_some_and(|agent| {
                    agent.languages.contains(&rule.lane.language)
                        && agent.skills.iter().any(|(skill, level)| {
                            *skill == rule.skill && *level >= rule.proficiency_min
                        })
                });
            if !serves || in_line[lane].is_empty() {
                continue;
            }
            let mut gone = Vec::new();
            for (key, (from_ms, until_ms)) in &in_line[lane] {
                let (place_ms, contact) = *key;
                let past_bound =
                    given.at_ms.saturating_sub(place_ms) > rule.bound_ms + tolerance_ms;
                if place_ms + tolerance_ms >= given.place_ms || !(same || past_bound) {
                    break;
                }
                if *until_ms < given.at_ms {
                    gone.push(*key);
                    continue;
                }
                compared += 1;
                let in_line_all_along =
                    from_ms + tolerance_ms < given.at_ms && *until_ms > given.at_ms + tolerance_ms;
                if contact != given.contact && in_line_all_along {
                    verdict.violation(
                        contacts[contact].0,
                        format!(
                            "{} before anybody of {} {} who came after {place_ms}",
                            given.agent, rule.lane.queue, rule.lane.language
                        ),
                        format!(
                            "given to {}, who came {} ms later, at {}",
                            contacts[given.contact].0,
                            given.place_ms - place_ms,
                            given.at_ms
                        ),
                    );
                    break;
                }
            }
            for key in gone {
                in_line[lane].remove(&key);
            }
        }
    }
    verdict.note(format!("{compared} contacts that had come earlier were looked at; order of arrival within a queue, language and start"));
    let bounds: Vec<u64> = lines
        .rules
        .iter()
        .map(|rule| rule.bound_ms / 1000)
        .collect();
    if let (Some(least), Some(most)) = (bounds.iter().min(), bounds.iter().max()) {
        verdict.note(format!("stated bounds across queues: {least} to {most} s"));
    }
    verdict
}

impl Lines {
    fn take(&mut self, index: usize, contact: &Contact, policy: &Policy) {
        let mut open: Option<(usize, u64, u64)> = None;
        let mut booked = false;
        for event in &contact.events {
            match &event.body {
                Body::Queued(queued) => {
                    let lane = self.lane(&event.queue, &event.language, &event.topic, policy);
                    self.end(index, open.take(), event.at_ms);
                    let held_off = queued.reason() == QueuedReason::Recovered;
                    if let Some(lane) = lane.filter(|_| !held_off) {
                        open = Some((lane, queued.place_from_ms, event.at_ms));
                    }
                }
                Body::Assigned(assigned) => {
                    self.end(index, open.take(), event.at_ms);
                    let lane = self.lane(&event.queue, &event.language, &event.topic, policy);
                    if let Some(lane) = lane.filter(|_| !booked) {
                        self.given.push(Given {
                            lane,
                            place_ms: contact.arrived_ms,
                            at_ms: event.at_ms,
                            contact: index,
                            agent: assigned.agent_id.clone(),
                        });
                    }
                }
                Body::CallbackBooked(_) => {
                    booked = true;
                    self.end(index, open.take(), event.at_ms);
                }
                Body::Established(_)
                | Body::Abandoned(_)
                | Body::DefaultRouted(_)
                | Body::Blocked(_)
                | Body::Closed(_) => {
                    self.end(index, open.take(), event.at_ms);
                }
                _ => {}
            }
        }
        // Still in line when the log ends.
        self.end(index, open, u64::MAX);
    }

    fn end(&mut self, contact: usize, open: Option<(usize, u64, u64)>, until_ms: u64) {
        if let Some((lane, place_ms, from_ms)) = open {
            self.waits.push(Wait {
                lane,
                place_ms,
                from_ms,
                until_ms,
                contact,
            });
        }
    }

    fn lane(&mut self, queue: &str, language: &str, topic: &str, policy: &Policy) -> Option<usize> {
        let known = policy.queue(policy.queue_index(queue)?);
        let start = known.priority_start
            + policy
                .topics
                .get(topic)
                .map_or(0, |topic| topic.priority_start);
        let lane = Lane {
            queue: queue.to_owned(),
            language: language.to_owned(),
            start,
        };
        if let Some(index) = self.index.get(&lane) {
            return Some(*index);
        }
        let cap = policy.pool(&known.pool).map_or(0, |pool| pool.priority_cap);
        let points = u64::from(cap.saturating_sub(start));
        let bound_ms = (points * 1000).div_ceil(u64::from(known.priority_acceleration.max(1)));
        self.rules.push(Rule {
            lane: lane.clone(),
            skill: known.skill.clone(),
            proficiency_min: u32::from(known.proficiency_min),
            bound_ms,
        });
        self.index.insert(lane, self.rules.len() - 1);
        Some(self.rules.len() - 1)
    }
}

/// Stated bounds by queue, for the report.
pub(crate) fn bounds(policy: &Policy) -> HashMap<String, u64> {
    let mut bounds = HashMap::new();
    for queue in &policy.queues {
        let cap = policy.pool(&queue.pool).map_or(0, |pool| pool.priority_cap);
        let points = u64::from(cap.saturating_sub(queue.priority_start));
        bounds.insert(
            queue.name.clone(),
            points / u64::from(queue.priority_acceleration.max(1)),
        );
    }
    bounds
}
