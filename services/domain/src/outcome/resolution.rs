//! Resolution across contacts: was the caller's issue settled by the first conversation?
//!
//! An issue is a run of contacts of one caller (by pseudonym) about one family of topics.
//! For a window of N days:
//! - a conversation opens an issue unless an earlier conversation about the same ended
//!   less than N days before this contact arrived (then it is that issue's second try);
//! - the issue is resolved on first contact if the last agent marked it resolved, the
//!   survey, where answered, does not say otherwise, and **no** contact about the same
//!   (answered or not: somebody who calls again and gives up needed to call again) arrived
//!   within N days after the conversation ended.
//!
//! Contacts that arrived before the conversation ended (a redial while waiting for a
//! callback) are not repeats. Attempts before the first conversation are a matter of
//! access, counted there, not of resolution.
//!
//! What is counted is a function of the set of visits and of nothing else: contacts of
//! one caller lie in different partitions of the log, read in no common order. Each visit
//! carries two bits a window, "second try" and "repeated"; a pair of visits can only set
//! them, so the order of pairs does not matter, and a visit dropped for want of
//! room leaves its marks behind.

use serde::{Deserialize, Serialize};

use super::counter::{Counter, Slot};
use super::tally::{DAY_MS, Keys, Tally};
use crate::{CallerId, ContactId, TimeMs};

/// The windows, in days.
pub const WINDOWS_DAYS: [u64; 3] = [7, 14, 30];
/// Visits kept for an issue; beyond this the oldest go. Someone who calls more often than
/// this about one thing is no case of first-contact resolution.
pub const VISITS_MAX: usize = 32;

const COUNTERS: [(Counter, Counter); 3] = [
    (Counter::Issues7, Counter::Resolved7),
    (Counter::Issues14, Counter::Resolved14),
    (Counter::Issues30, Counter::Resolved30),
];

/// Whose issue, about what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssueKey {
    /// The pseudonym.
    pub caller: CallerId,
    /// The family of topics.
    pub family: String,
}

/// One closed contact of an issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The contact.
    pub contact: ContactId,
    /// First arrival.
    pub arrived_at: TimeMs,
    /// What came of it; `None`: it reached no person.
    pub answered: Option<Answered>,
}

/// A visit that reached a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// End of the last conversation.
    pub ended_at: TimeMs,
    /// By the agent and, where answered, the survey.
    pub resolved: bool,
    /// Where it is counted.
    pub keys: Keys,
    /// A bit a window: an earlier conversation had opened the issue.
    second_try: u8,
    /// A bit a window: the caller came again.
    repeated: u8,
}

impl Answered {
    /// A conversation that ended at `ended_at`.
    #[must_use]
    pub const fn new(ended_at: TimeMs, resolved: bool, keys: Keys) -> Self {
        Self {
            ended_at,
            resolved,
            keys,
            second_try: 0,
            repeated: 0,
        }
    }

    /// Whether it opens an issue, and whether that is resolved, in a window.
    const fn verdict(&self, window: usize) -> (bool, bool) {
        let issue = self.second_try & (1 << window) == 0;
        (
            issue,
            issue && self.resolved && self.repeated & (1 << window) == 0,
        )
    }
}

/// The visits of an issue, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    visits: Vec<Visit>,
}

/// A bit for each window in which a contact that arrived at `arrived_at` follows a
/// conversation that ended at `ended_at`.
fn follows(ended_at: TimeMs, arrived_at: TimeMs) -> u8 {
    let mut bits = 0;
    for (window, days) in WINDOWS_DAYS.into_iter().enumerate() {
        if arrived_at > ended_at && arrived_at.since(ended_at) <= days * DAY_MS {
            bits |= 1 << window;
        }
    }
    bits
}

/// Counts the difference between two verdicts on a visit; no `earlier`: it is new.
fn count_difference(earlier: Option<&Answered>, now: &Answered, tally: &mut Tally) {
    let mut changes = Vec::new();
    for (window, (issues, resolved)) in COUNTERS.into_iter().enumerate() {
        let (was_issue, was_resolved) =
            earlier.map_or((false, false), |answered| answered.verdict(window));
        let (is_issue, is_resolved) = now.verdict(window);
        changes.push((
            Slot::Count(issues),
            i64::from(is_issue) - i64::from(was_issue),
        ));
        changes.push((
            Slot::Count(resolved),
            i64::from(is_resolved) - i64::from(was_resolved),
        ));
    }
    changes.retain(|(_, amount)| *amount != 0);
    tally.add(now.ended_at, &now.keys, &changes);
}

impl Issue {
    /// Adds a visit and counts what changes by it; a visit that is there already changes
    /// nothing. Returns how many old visits were dropped for want of room.
    pub fn add(&mut self, mut visit: Visit, tally: &mut Tally) -> usize {
        if self
            .visits
            .iter()
            .any(|known| known.contact == visit.contact)
        {
            return 0;
        }
        for known in &mut self.visits {
            let visit_follows = known
                .answered
                .as_ref()
                .map_or(0, |answered| follows(answered.ended_at, visit.arrived_at));
            let visit_precedes = visit
                .answered
                .as_ref()
                .map_or(0, |answered| follows(answered.ended_at, known.arrived_at));
            if let Some(new) = &mut visit.answered {
                new.second_try |= visit_follows;
                new.repeated |= visit_precedes;
            }
            if let Some(answered) = &mut known.answered
                && visit_follows | visit_precedes != 0
            {
                let earlier = answered.clone();
                answered.repeated |= visit_follows;
                answered.second_try |= visit_precedes;
                count_difference(Some(&earlier), answered, tally);
            }
        }
        if let Some(new) = &visit.answered {
            count_difference(None, new, tally);
        }
        let place = self.visits.partition_point(|known| {
            (known.arrived_at, known.contact) < (visit.arrived_at, visit.contact)
        });
        self.visits.insert(place, visit);
        self.prune()
    }

    /// Drops the oldest beyond the limit. Not by age: whoever recomputes the log reads one
    /// partition far ahead of another, and then the old visit is the one that comes last.
    fn prune(&mut self) -> usize {
        let excess = self.visits.len().saturating_sub(VISITS_MAX);
        self.visits.drain(..excess);
        excess
    }
}
