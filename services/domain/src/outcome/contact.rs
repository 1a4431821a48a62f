//! One contact's events, in order, to changes of the measures.

mod bodies;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::counter::{Counter, Histogram, Slot};
use super::histogram::bucket_of;
use super::resolution::{Answered, IssueKey, Visit};
use super::rules::Rules;
use super::tally::{Grouping, Keys, NO_GROUP, Tally, group_name};
use crate::invariant::{Invariant, Violation};
use crate::pool::{Event, EventBody};
use crate::{AgentId, CallerId, TimeMs};

/// Runs of missing sequence numbers remembered for one contact; a contact with more holes
/// has lost its events for good.
const MISSING_MAX: usize = 8;
/// An event's own waiting time may differ this much from its time stamps, in ms.
const CLOCK_TOLERANCE_MS: u64 = 1_000;
/// Errors of an announced wait beyond this are counted as this, so that one broken clock
/// cannot overflow the sum of squares.
const ANNOUNCED_ERROR_MAX_MS: i64 = 24 * 60 * 60 * 1_000;
/// Durations beyond a year are counted as a year: sums stay far from overflow whatever an
/// event says.
const DURATION_MAX_MS: u64 = 366 * 24 * 60 * 60 * 1_000;
/// cti.v1.MessageReason CLOSED.
const REASON_CLOSED: u8 = 3;

/// What events mean, to be made durable together with the contacts' states.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Changes of the counters.
    pub tally: Tally,
    /// Closed contacts, to be added to their [`super::Issue`]s.
    pub visits: Vec<(IssueKey, Visit)>,
    /// Promises found broken.
    pub violations: Vec<Violation>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It counts.
    Counted,
    /// It had been applied before: nothing changed.
    Repeated,
    /// It came after the contact was closed: nothing changed, a promise is broken.
    AfterClosed,
}

/// How an event's number stands to those before it.
enum Place {
    InOrder,
    Repeated,
    Gap { expected: u64 },
    Late,
}

/// Things seen once in a contact's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Seen(u32);

impl Seen {
    const QUEUED: u32 = 1;
    const ANSWERED: u32 = 1 << 1;
    const ABANDONED: u32 = 1 << 2;
    const BLOCKED: u32 = 1 << 3;
    const DEFAULT_ROUTED: u32 = 1 << 4;
    const OFFERED_CALLBACK: u32 = 1 << 5;
    const DECLINED_CALLBACK: u32 = 1 << 6;
    /// A callback is booked and has not ended.
    const BOOKED: u32 = 1 << 7;
    /// A callback was booked at some time: the contact is a callback taker for good.
    const TOOK_CALLBACK: u32 = 1 << 8;
    const CALLBACK_ENDED: u32 = 1 << 9;
    const CLOSED: u32 = 1 << 10;
    const SURVEY_DENIES: u32 = 1 << 11;

    const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Sets the bit; whether it was not set before.
    const fn first(&mut self, bit: u32) -> bool {
        let first = !self.has(bit);
        self.0 |= bit;
        first
    }
}

/// A wait as it was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Announced {
    at: TimeMs,
    expected_ms: u64,
    low_ms: u64,
    high_ms: u64,
}

/// All that must be remembered of a contact from one event to the next. Small: of a closed
/// contact only the number of its last event is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactState {
    /// Highest sequence applied.
    sequence: u64,
    /// Runs below it that have not been seen: first and last.
    missing: Vec<(u64, u64)>,
    seen: Seen,
    keys: Option<Keys>,
    arrived_at: TimeMs,
    caller: Option<CallerId>,
    /// As last known: the issue the contact turned out to be about.
    topic: Option<Arc<str>>,
    /// What belongs to the queue's group, until the queue is known.
    held_back: Vec<(Slot, i64)>,
    announced: Option<Announced>,
    window_until: Option<TimeMs>,
    transfers: u32,
    /// Hash of the agent who talked last: whose disposition counts.
    last_agent: u64,
    resolved: Option<bool>,
    conversation_ended_at: Option<TimeMs>,
}

/// FNV-1a: to compare agents without keeping their ids.
fn agent_hash(agent: &AgentId) -> u64 {
    agent
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

fn channel_name(channel: u8) -> &'static str {
    match channel {
        0 => NO_GROUP,
        1 => "voice",
        2 => "chat",
        3 => "video",
        _ => super::tally::OTHER_GROUP,
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The changes one event makes.
#[derive(Default)]
struct Changes(Vec<(Slot, i64)>);

impl Changes {
    fn one(&mut self, counter: Counter) {
        self.0.push((Slot::Count(counter), 1));
    }

    fn one_if(&mut self, happened: bool, counter: Counter) {
        if happened {
            self.one(counter);
        }
    }

    fn sum(&mut self, counter: Counter, amount: u64) {
        self.0
            .push((Slot::Count(counter), signed(amount.min(DURATION_MAX_MS))));
    }

    fn value(&mut self, histogram: Histogram, value: u64) {
        self.0.push((Slot::Bucket(histogram, bucket_of(value)), 1));
    }
}

impl ContactState {
    /// Highest sequence applied; 0: none.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Nothing more will come.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.seen.has(Seen::CLOSED)
    }

    /// Applies one event. A repeat changes nothing; a gap or a late event is a broken
    /// promise and is counted all the same.
    pub fn apply(&mut self, event: &Event, rules: &Rules, effects: &mut Effects) -> Applied {
        let violate = |effects: &mut Effects, what: String| {
            effects.violations.push(Violation {
                invariant: Invariant::EveryOutcomeCounted,
                detail: format!(
                    "contact {} sequence {}: {what}",
                    event.contact, event.sequence
                ),
            });
        };
        match self.place(event.sequence) {
            Place::Repeated => return Applied::Repeated,
            Place::InOrder | Place::Gap { .. } if self.is_closed() => {
                violate(effects, "came after the contact was closed".to_owned());
                return Applied::AfterClosed;
            }
            Place::InOrder => {}
            Place::Gap { expected } => violate(effects, format!("expected {expected}")),
            Place::Late => violate(effects, "came late".to_owned()),
        }
        let mut changes = Changes::default();
        if self.keys.is_none() {
            self.keys = Some(Keys {
                line: group_name(&event.line),
                topic: group_name(&event.topic),
                queue: None,
                language: group_name(&event.language),
                channel: channel_name(event.channel).into(),
            });
            self.arrived_at = event.arrived_at;
            changes.one(Counter::Offered);
        }
        if !event.queue.is_empty() {
            self.queue_known(group_name(&event.queue), effects);
        }
        if !event.topic.is_empty() {
            self.topic = Some(group_name(&event.topic));
        }
        self.caller = event.caller.or(self.caller);
        self.body(event, rules, &mut changes, effects);
        self.count(&changes, effects);
        if matches!(event.body, EventBody::Closed) {
            self.close(event, rules, effects);
        }
        // Holes may still be filled; then the keys are needed.
        if self.is_closed() && self.missing.is_empty() {
            *self = Self {
                sequence: self.sequence,
                seen: Seen(Seen::CLOSED),
                ..Self::default()
            };
        }
        Applied::Counted
    }

    /// Takes the number in.
    fn place(&mut self, sequence: u64) -> Place {
        if sequence > self.sequence {
            let expected = self.sequence + 1;
            self.sequence = sequence;
            if sequence == expected {
                return Place::InOrder;
            }
            if self.missing.len() < MISSING_MAX {
                self.missing.push((expected, sequence - 1));
            }
            return Place::Gap { expected };
        }
        let hole = self
            .missing
            .iter()
            .position(|(first, last)| (*first..=*last).contains(&sequence));
        let Some(index) = hole else {
            return Place::Repeated;
        };
        let (first, last) = self.missing.swap_remove(index);
        if first < sequence {
            self.missing.push((first, sequence - 1));
        }
        if sequence < last {
            self.missing.push((sequence + 1, last));
        }
        Place::Late
    }

    /// Counts what was held back for the queue's group.
    fn queue_known(&mut self, queue: Arc<str>, effects: &mut Effects) {
        let Some(keys) = &mut self.keys else { return };
        if keys.queue.is_some() {
            return;
        }
        let held_back = std::mem::take(&mut self.held_back);
        if !held_back.is_empty() {
            effects
                .tally
                .add_group(self.arrived_at, Grouping::Queue, &queue, &held_back);
        }
        keys.queue = Some(queue);
    }

    fn count(&mut self, changes: &Changes, effects: &mut Effects) {
        let Some(keys) = &self.keys else { return };
        effects.tally.add(self.arrived_at, keys, &changes.0);
        if keys.queue.is_none() {
            self.held_back.extend_from_slice(&changes.0);
        }
    }

    fn legacy(&self, rules: &Rules) -> bool {
        self.keys
            .as_ref()
            .is_some_and(|keys| rules.is_legacy(&keys.line))
    }

    fn threshold_ms(&self, rules: &Rules) -> u64 {
        rules.threshold_ms(self.keys.as_ref().and_then(|keys| keys.queue.as_deref()))
    }

    /// Nothing more will come: how did it end, was it resolved?
    fn close(&mut self, event: &Event, rules: &Rules, effects: &mut Effects) {
        if !self.seen.first(Seen::CLOSED) {
            return;
        }
        self.queue_known(NO_GROUP.into(), effects);
        let answered = self.seen.has(Seen::ANSWERED);
        let mut changes = Changes::default();
        changes.one(if answered {
            Counter::EndedAnswered
        } else if self.seen.has(Seen::TOOK_CALLBACK) {
            Counter::EndedCallbackUnreached
        } else if self.seen.has(Seen::DEFAULT_ROUTED) {
            Counter::EndedDefaultRouted
        } else if self.seen.has(Seen::BLOCKED) {
            Counter::EndedBlocked
        } else if self.seen.has(Seen::ABANDONED) {
            Counter::EndedAbandoned
        } else {
            Counter::EndedOther
        });
        if self.transfers > 0 {
            changes.one(Counter::TransferredContacts);
        }
        if self.transfers == 1 {
            changes.one(Counter::TransferredOnce);
        }
        self.count(&changes, effects);
        let Some(keys) = self.keys.clone() else {
            return;
        };
        let agent_resolved = self.resolved == Some(true);
        let issue = self
            .caller
            .zip(self.topic.clone())
            .map(|(caller, topic)| IssueKey {
                caller,
                family: rules.family(&topic),
            });
        let ended_at = self.conversation_ended_at.unwrap_or(event.at);
        if answered {
            let mut changes = Changes::default();
            changes.one(Counter::ResolutionAnswered);
            if issue.is_some() {
                changes.one(Counter::ResolutionMeasurable);
            }
            if agent_resolved {
                changes.one(Counter::AgentResolved);
                changes.sum(Counter::TimeToResolutionMs, ended_at.since(self.arrived_at));
            }
            // Where the conversation ended: that is where its windows start.
            effects.tally.add(ended_at, &keys, &changes.0);
        }
        if let Some(issue) = issue {
            let resolved = agent_resolved && !self.seen.has(Seen::SURVEY_DENIES);
            let visit = Visit {
                contact: event.contact,
                arrived_at: self.arrived_at,
                answered: answered.then(|| Answered::new(ended_at, resolved, keys)),
            };
            effects.visits.push((issue, visit));
        }
    }
}
