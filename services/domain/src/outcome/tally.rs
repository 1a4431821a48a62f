//! Sums by group: the changes that events make, ready to be added to whatever is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::counter::{Counter, Histogram, Slot};
use crate::TimeMs;

/// A half hour: the interval of the field.
pub const HALF_HOUR_MS: u64 = 30 * 60 * 1_000;
/// A day.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The group of contacts that have none (no queue, no topic).
pub const NO_GROUP: &str = "(none)";
/// The group of names that are no names: too long, or with odd characters.
pub const OTHER_GROUP: &str = "(other)";
/// Longest group name, in bytes; policy's names are no longer.
const GROUP_BYTES_MAX: usize = 64;

/// By what contacts are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Grouping {
    /// One group.
    All,
    /// The line dialled.
    Line,
    /// The topic at arrival.
    Topic,
    /// The first queue.
    Queue,
    /// The language.
    Language,
    /// The channel.
    Channel,
}

impl Grouping {
    /// All of them.
    pub const ALL: [Grouping; 6] = [
        Grouping::All,
        Grouping::Line,
        Grouping::Topic,
        Grouping::Queue,
        Grouping::Language,
        Grouping::Channel,
    ];

    /// The stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Grouping::All => "all",
            Grouping::Line => "line",
            Grouping::Topic => "topic",
            Grouping::Queue => "queue",
            Grouping::Language => "language",
            Grouping::Channel => "channel",
        }
    }
}

/// The groups a contact is counted in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The line.
    pub line: Arc<str>,
    /// The topic at arrival.
    pub topic: Arc<str>,
    /// The first queue; `None`: not yet known, and what belongs to it is held back.
    pub queue: Option<Arc<str>>,
    /// The language.
    pub language: Arc<str>,
    /// The channel.
    pub channel: Arc<str>,
}

/// A group's name from an event: empty is [`NO_GROUP`], and what could not be a name of
/// policy is [`OTHER_GROUP`], so that no free text ever becomes a key.
pub(super) fn group_name(text: &str) -> Arc<str> {
    if text.is_empty() {
        return NO_GROUP.into();
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.len() > GROUP_BYTES_MAX || !text.bytes().all(allowed) {
        return OTHER_GROUP.into();
    }
    text.into()
}

/// A group in a half hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Half hours since the epoch.
    pub half_hour: u64,
    /// By what.
    pub grouping: Grouping,
    /// Which; empty for [`Grouping::All`].
    pub group: Arc<str>,
}

/// The numbers of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Slot, i64>);

impl Counts {
    /// Adds `amount`, holding at the ends of the range rather than wrapping.
    pub fn add(&mut self, slot: Slot, amount: i64) {
        let count = self.0.entry(slot).or_insert(0);
        *count = count.saturating_add(amount);
        if *count == 0 {
            // So that equal sums are equal, however they came about.
            self.0.remove(&slot);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Counts) {
        for (slot, amount) in &other.0 {
            self.add(*slot, *amount);
        }
    }

    /// The counter as it is, negative ones too.
    #[must_use]
    pub fn signed(&self, counter: Counter) -> i64 {
        self.0.get(&Slot::Count(counter)).copied().unwrap_or(0)
    }

    /// The counter; 0 if it is negative.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        u64::try_from(self.signed(counter)).unwrap_or(0)
    }

    /// The buckets of some distributions, merged.
    #[must_use]
    pub fn buckets(&self, histograms: &[Histogram]) -> BTreeMap<u16, u64> {
        let mut merged = BTreeMap::new();
        for (slot, amount) in &self.0 {
            if let Slot::Bucket(histogram, bucket) = slot
                && histograms.contains(histogram)
            {
                *merged.entry(*bucket).or_insert(0) += u64::try_from(*amount).unwrap_or(0);
            }
        }
        merged
    }

    /// Every slot that is not 0, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, i64)> + '_ {
        self.0.iter().map(|(slot, amount)| (*slot, *amount))
    }

    /// Nothing but zeros.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Changes by group and half hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Cell, Counts>);

impl Tally {
    /// Adds `changes` to every group of `keys` in the half hour of `at`; the queue's group
    /// is left out while the queue is not known.
    pub fn add(&mut self, at: TimeMs, keys: &Keys, changes: &[(Slot, i64)]) {
        if changes.is_empty() {
            return;
        }
        self.add_group(at, Grouping::All, &Arc::from(""), changes);
        self.add_group(at, Grouping::Line, &keys.line, changes);
        self.add_group(at, Grouping::Topic, &keys.topic, changes);
        if let Some(queue) = &keys.queue {
            self.add_group(at, Grouping::Queue, queue, changes);
        }
        self.add_group(at, Grouping::Language, &keys.language, changes);
        self.add_group(at, Grouping::Channel, &keys.channel, changes);
    }

    /// Adds `changes` to one group.
    pub(super) fn add_group(
        &mut self,
        at: TimeMs,
        grouping: Grouping,
        group: &Arc<str>,
        changes: &[(Slot, i64)],
    ) {
        let cell = Cell {
            half_hour: at.0 / HALF_HOUR_MS,
            grouping,
            group: Arc::clone(group),
        };
        let counts = self.0.entry(cell.clone()).or_default();
        for (slot, amount) in changes {
            counts.add(*slot, *amount);
        }
        if counts.is_empty() {
            self.0.remove(&cell);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Tally) {
        for (cell, counts) in &other.0 {
            self.0.entry(cell.clone()).or_default().merge(counts);
        }
    }

    /// Every group with its changes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Cell, &Counts)> {
        self.0.iter()
    }

    /// The sums over all half hours.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<(Grouping, Arc<str>), Counts> {
        let mut totals: BTreeMap<_, Counts> = BTreeMap::new();
        for (cell, counts) in &self.0 {
            totals
                .entry((cell.grouping, Arc::clone(&cell.group)))
                .or_default()
                .merge(counts);
        }
        totals
    }

    /// No changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Counts::is_empty)
    }
}
