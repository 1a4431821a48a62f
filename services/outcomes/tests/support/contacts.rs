//! Made-up contacts: every way to end, a few callers who come again, drawn from a seed.

use domain::pool::{
    CallbackEnd, CallbackStep, Disposition, Event, EventBody, QueuedReason, RoutedBy,
    SurveyAnswers, Window,
};
use domain::{AgentId, CallerId, ContactId, TimeMs};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const HOUR_MS: u64 = 3_600_000;

struct Writer {
    contact: ContactId,
    arrived_at: TimeMs,
    at: TimeMs,
    caller: Option<CallerId>,
    line: &'static str,
    topic: &'static str,
    queue: &'static str,
    language: &'static str,
    events: Vec<Event>,
}

impl Writer {
    fn then(&mut self, after_ms: u64, body: EventBody) {
        self.at = self.at.plus(after_ms);
        let sequence = self.events.len() as u64 + 1;
        self.events.push(Event {
            contact: self.contact,
            sequence,
            at: self.at,
            traceparent: if sequence == 1 {
                trace(self.contact).as_str().into()
            } else {
                "".into()
            },
            line: self.line.into(),
            topic: self.topic.into(),
            queue: self.queue.into(),
            language: self.language.into(),
            channel: 1,
            caller: self.caller,
            arrived_at: self.arrived_at,
            switch: "east-1".into(),
            body,
        });
    }

    fn waited_ms(&self, after_ms: u64) -> u64 {
        self.at.plus(after_ms).since(self.arrived_at)
    }

    fn established(&mut self, after_ms: u64, by: &AgentId, callback: bool, first: bool) {
        let waited_ms = self.waited_ms(after_ms);
        let (nuisance_hold_ms, agent_held_ms) = if callback { (1_500, 700) } else { (0, 0) };
        let agent = by.clone();
        self.then(
            after_ms,
            EventBody::Established {
                agent,
                waited_ms,
                callback,
                first,
                nuisance_hold_ms,
                agent_held_ms,
            },
        );
    }

    fn talked(&mut self, talk_ms: u64, by: &AgentId, disposition: Disposition) {
        self.then(
            talk_ms,
            EventBody::Disconnected {
                agent: by.clone(),
                talk_ms,
            },
        );
        self.then(
            9_000,
            EventBody::WrappedUp {
                agent: by.clone(),
                disposition,
                handle_ms: talk_ms + 9_000,
                timed_out: false,
            },
        );
    }
}

/// The traceparent of a contact's first event.
pub(crate) fn trace(contact: ContactId) -> String {
    format!("00-{:032x}-{:016x}-00", contact.0 | 1, 7)
}

/// When contacts arrive, and how many callers they are of.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) from: TimeMs,
    pub(crate) until: TimeMs,
    pub(crate) callers: u128,
}

/// The events of `count` contacts of the two days before `now`, of few callers: they come
/// again, and their contacts lie in different partitions.
pub(crate) fn contacts(seed: u64, count: u64, now: TimeMs) -> Vec<Event> {
    let crowd = Crowd {
        from: now.minus(48 * HOUR_MS),
        until: now.minus(3 * HOUR_MS),
        callers: 60,
    };
    crowded(seed, count, crowd)
}

/// The events of `count` contacts, those of each in order, contacts interleaved.
pub(crate) fn crowded(seed: u64, count: u64, crowd: Crowd) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut all: Vec<Vec<Event>> = (0..count).map(|_| contact(&mut random, crowd)).collect();
    let mut mixed = Vec::new();
    // A window of some forty live contacts, as on a busy line.
    let mut live: Vec<std::collections::VecDeque<Event>> = Vec::new();
    while !all.is_empty() || !live.is_empty() {
        while live.len() < 40
            && let Some(events) = all.pop()
        {
            live.push(events.into());
        }
        let index = random.random_range(0..live.len());
        if let Some(event) = live[index].pop_front() {
            mixed.push(event);
        }
        if live[index].is_empty() {
            live.swap_remove(index);
        }
    }
    mixed
}

fn pick<'a, T: ?Sized>(random: &mut StdRng, from: &[&'a T]) -> &'a T {
    from[random.random_range(0..from.len())]
}

fn contact(random: &mut StdRng, crowd: Crowd) -> Vec<Event> {
    let arrived_at = TimeMs(random.random_range(crowd.from.0..crowd.until.0));
    let topic = pick(
        random,
        &["REF_STATUS", "REF_DELAY", "COL_BALANCE", "META_OPERATOR"],
    );
    let mut writer = Writer {
        contact: ContactId(random.random()),
        arrived_at,
        at: arrived_at,
        caller: random
            .random_bool(0.9)
            .then(|| CallerId(random.random_range(0..crowd.callers))),
        line: pick(random, &["individual", "business", "practitioner"]),
        topic,
        queue: "",
        language: pick(random, &["en", "en", "es", "fr"]),
        events: Vec::new(),
    };
    let agent = AgentId::parse(&format!("agent-{}", random.random_range(1..30))).expect("an id");
    let way = random.random_range(0..20);
    if way == 0 {
        // Never heard of while it lived.
        writer.then(
            0,
            EventBody::DefaultRouted {
                by: RoutedBy::DefaultNoLink,
            },
        );
        writer.then(0, EventBody::Closed);
        return writer.events;
    }
    writer.then(
        0,
        EventBody::Offered {
            topic_confidence: 0.8,
            person_asked: false,
            authenticated: false,
        },
    );
    if way == 1 {
        writer.then(
            0,
            EventBody::Blocked {
                reason: random.random_range(1..5),
            },
        );
        writer.then(0, EventBody::Closed);
        return writer.events;
    }
    if way > 4 {
        wait(&mut writer, random, way, &agent);
    } else {
        writer.then(
            100,
            EventBody::Assigned {
                agent: agent.clone(),
                assignment: 1,
                waited_ms: 100,
            },
        );
        writer.established(2_000, &agent, false, true);
    }
    let answered = writer
        .events
        .iter()
        .any(|event| matches!(event.body, EventBody::Established { .. }));
    if answered {
        converse(&mut writer, random, &agent);
    }
    writer.then(1_000, EventBody::Closed);
    writer.events
}

/// In line: held, given up, or called back.
fn wait(writer: &mut Writer, random: &mut StdRng, way: u64, agent: &AgentId) {
    let expected_wait_ms = random.random_range(10_000..HOUR_MS);
    writer.queue = "refunds";
    writer.then(
        200,
        EventBody::Queued {
            position: 4,
            expected_wait_ms,
            low_ms: expected_wait_ms / 2,
            high_ms: expected_wait_ms * 2,
            reason: QueuedReason::Arrival,
            place_from: writer.arrived_at,
        },
    );
    let waited_ms = random.random_range(1_000..HOUR_MS);
    if way > 15 {
        writer.then(
            waited_ms,
            EventBody::Abandoned {
                waited_ms: writer.waited_ms(waited_ms),
                ringing: false,
            },
        );
        return;
    }
    if way > 10 {
        writer.then(
            50,
            EventBody::OfferMade {
                virtual_hold: true,
                windows: 2,
            },
        );
        if way == 11 {
            writer.then(3_000, EventBody::OfferDeclined);
        } else {
            let window = (way == 12).then(|| Window {
                from: writer.at,
                until: writer.at.plus(2 * HOUR_MS),
            });
            writer.then(3_000, EventBody::CallbackBooked { window });
            writer.then(
                waited_ms,
                EventBody::CallbackAttempted {
                    attempt: 1,
                    step: CallbackStep::Dialled,
                },
            );
            if way == 13 {
                writer.then(
                    30_000,
                    EventBody::CallbackAttempted {
                        attempt: 1,
                        step: CallbackStep::Voicemail,
                    },
                );
                writer.then(
                    0,
                    EventBody::CallbackEnded {
                        end: CallbackEnd::Exhausted,
                        attempts: 1,
                    },
                );
                return;
            }
            writer.then(
                9_000,
                EventBody::CallbackAttempted {
                    attempt: 1,
                    step: CallbackStep::Answered,
                },
            );
            writer.established(4_000, agent, true, true);
            writer.then(
                0,
                EventBody::CallbackEnded {
                    end: CallbackEnd::Connected,
                    attempts: 1,
                },
            );
            return;
        }
    }
    writer.then(
        waited_ms,
        EventBody::Assigned {
            agent: agent.clone(),
            assignment: 1,
            waited_ms,
        },
    );
    writer.then(
        100,
        EventBody::Delivered {
            agent: agent.clone(),
        },
    );
    writer.established(2_000, agent, false, true);
}

/// Talks, is transferred perhaps, is surveyed perhaps.
fn converse(writer: &mut Writer, random: &mut StdRng, agent: &AgentId) {
    let resolved = if random.random_bool(0.6) {
        Disposition::Resolved
    } else {
        Disposition::Unresolved
    };
    let talk_ms = random.random_range(20_000..1_200_000);
    if random.random_bool(0.2) {
        let next = AgentId::parse("agent-99").expect("an id");
        writer.then(
            60_000,
            EventBody::TransferRequested {
                from: agent.clone(),
                from_topic: writer.topic.to_owned(),
                to_topic: "COL_BALANCE".to_owned(),
                warm: true,
            },
        );
        writer.topic = "COL_BALANCE";
        writer.then(
            20_000,
            EventBody::Transferred {
                from: agent.clone(),
                to: next.clone(),
            },
        );
        writer.established(0, &next, false, false);
        writer.talked(talk_ms, &next, resolved);
    } else {
        writer.talked(talk_ms, agent, resolved);
    }
    if random.random_bool(0.3) {
        let answers = SurveyAnswers {
            calls_about_this: random.random_range(1..4),
            all_answered: Some(random.random_bool(0.8)),
            no_more_calls: random.random_bool(0.5).then_some(true),
        };
        writer.then(5_000, EventBody::SurveyAnswered(answers));
    }
}
