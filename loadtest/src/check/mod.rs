//! The checker: holds the switch's own record and the mesh's log on Kafka against every
//! promise, by name.
//!
//! The two were written by different processes that share nothing but the contract, so a
//! promise is never checked against the word of the one who gave it. What each check takes
//! for a violation, and what it only reports, stands at the head of its module.

pub(crate) mod answers;
pub(crate) mod callbacks;
pub(crate) mod clock;
pub(crate) mod exclusive;
pub(crate) mod facts;
pub(crate) mod live;
pub(crate) mod log;
pub(crate) mod outcomes;
pub(crate) mod overtaking;
pub(crate) mod pii;
pub(crate) mod place;
#[cfg(test)]
mod tests;

use domain::invariant::Invariant;
use domain::policy::Policy;
use serde::{Deserialize, Serialize};

use crate::scenario::Expect;
use facts::Facts;
use live::Live;
use log::Log;

/// Violations that are shown in full, a promise.
const SHOWN_MAX: usize = 10;

/// Everything there is to judge by.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    /// From the switch's record.
    pub(crate) facts: &'a Facts,
    /// From Kafka.
    pub(crate) log: &'a Log,
    /// Asked of the mesh at the end of the run; absent when only a record is checked.
    pub(crate) live: Option<&'a Live>,
    /// Policy.
    pub(crate) policy: &'a Policy,
    /// What the scenario expects.
    pub(crate) expect: &'a Expect,
}

/// What became of one promise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The promise; absent for what the scenario expects beside the promises.
    pub(crate) promise: String,
    /// What was checked, in words.
    pub(crate) what: String,
    /// How many times.
    pub(crate) checked: u64,
    /// Violations.
    pub(crate) violations: u64,
    /// The first of them.
    pub(crate) first: Vec<Finding>,
    /// What is reported without being a violation.
    pub(crate) notes: Vec<String>,
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// The contact, or what stands for it.
    pub(crate) contact: String,
    /// What was promised.
    pub(crate) expected: String,
    /// What was seen.
    pub(crate) seen: String,
}

impl Verdict {
    pub(crate) fn new(promise: Invariant, what: &str) -> Self {
        Self::named(promise.name(), what)
    }

    pub(crate) fn named(promise: &str, what: &str) -> Self {
        Self {
            promise: promise.to_owned(),
            what: what.to_owned(),
            checked: 0,
            violations: 0,
            first: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn violation(
        &mut self,
        contact: &str,
        expected: impl Into<String>,
        seen: impl Into<String>,
    ) {
        self.violations += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push(Finding {
                contact: contact.to_owned(),
                expected: expected.into(),
                seen: seen.into(),
            });
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

/// Every promise, in the order of the design.
pub(crate) fn every_promise(evidence: &Evidence<'_>) -> Vec<Verdict> {
    vec![
        answers::check(evidence),
        exclusive::check(evidence),
        place::check(evidence),
        callbacks::check(evidence),
        outcomes::check(evidence),
        overtaking::check(evidence),
        pii::verdict(evidence),
        clock::check(evidence),
        expectations(evidence),
    ]
}

/// What the scenario expects beside the promises.
fn expectations(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::named("Scenario", "what the scenario file expects");
    let (expect, counts) = (evidence.expect, &evidence.facts.counts);
    let mut least = |what: &str, seen: u64, least: u64| {
        verdict.checked += 1;
        if seen < least {
            verdict.violation(
                "(all)",
                format!("at least {least} {what}"),
                seen.to_string(),
            );
        }
    };
    least(
        "calls answered by an agent",
        counts.established,
        expect.established_min,
    );
    least("callbacks booked", counts.booked, expect.booked_min);
    let mut most = |what: &str, seen: u64, most: Option<u64>| {
        let Some(most) = most else { return };
        verdict.checked += 1;
        if seen > most {
            verdict.violation("(all)", format!("at most {most} {what}"), seen.to_string());
        }
    };
    most(
        "calls on the default route",
        counts.defaults(),
        expect.default_routed_max,
    );
    most(
        "calls refused for overload",
        counts.overload,
        expect.blocked_max,
    );
    verdict
}
