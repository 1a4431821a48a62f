//! `NoPlainPii`: no phone number, taxpayer number, name or free text where it does not
//! belong.
//!
//! Callers' numbers come from a range that no country has, and some callers say a name, an
//! address and a taxpayer number made of words that occur nowhere else. Every byte of every
//! Kafka record, key and header, of every log file of the roles, of every Redis key and
//! value, and of every `/metrics` page is searched for them, whatever the case. A number is
//! reported only if it is one that was dialled from: a hash in hexadecimal may by chance
//! begin like one.

use std::collections::BTreeMap;

use domain::invariant::Invariant;
use serde::{Deserialize, Serialize};

use super::{Evidence, Verdict};
use crate::scenario::words::{MARKERS, NUMBER_DIGITS, NUMBER_PREFIX};

/// Searches bytes for planted personal data.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    /// Callers' numbers with an index below this are in use.
    callers: u32,
}

/// What was searched and found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sightings {
    /// Bytes searched, by kind of place.
    pub(crate) bytes: BTreeMap<String, u64>,
    /// Finds.
    pub(crate) found: u64,
    /// The first of them: (place, what).
    pub(crate) first: Vec<(String, String)>,
}

impl Sightings {
    /// Adds what another one saw.
    pub(crate) fn add(&mut self, other: &Sightings) {
        for (place, bytes) in &other.bytes {
            *self.bytes.entry(place.clone()).or_default() += bytes;
        }
        self.found += other.found;
        self.first.extend(
            other
                .first
                .iter()
                .take(10usize.saturating_sub(self.first.len()))
                .cloned(),
        );
    }

    fn find(&mut self, place: &str, what: String) {
        self.found += 1;
        if self.first.len() < 10 {
            self.first.push((place.to_owned(), what));
        }
    }
}

impl Scanner {
    /// A scanner for a run with that many callers.
    pub(crate) const fn new(callers: u32) -> Self {
        Self { callers }
    }

    /// Searches some bytes; `place` is the kind of place.
    pub(crate) fn scan(&self, place: &str, bytes: &[u8], sightings: &mut Sightings) {
        match sightings.bytes.get_mut(place) {
            Some(seen) => *seen += bytes.len() as u64,
            None => drop(sightings.bytes.insert(place.to_owned(), bytes.len() as u64)),
        }
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if byte == NUMBER_PREFIX.as_bytes()[0]
                && let Some(caller) = self.number_at(&bytes[at..])
            {
                sightings.find(place, format!("the number of caller {caller}"));
            }
            for marker in MARKERS {
                let first = marker.as_bytes()[0];
                if byte.eq_ignore_ascii_case(&first)
                    && bytes
                        .get(at..at + marker.len())
                        .is_some_and(|part| part.eq_ignore_ascii_case(marker.as_bytes()))
                {
                    sightings.find(place, format!("{marker:?}, which a caller said"));
                }
            }
            at += 1;
        }
    }

    fn number_at(&self, bytes: &[u8]) -> Option<u32> {
        let digits = bytes
            .strip_prefix(NUMBER_PREFIX.as_bytes())?
            .get(..NUMBER_DIGITS)?;
        let digits = std::str::from_utf8(digits).ok()?;
        let caller: u32 = digits
            .bytes()
            .all(|digit| digit.is_ascii_digit())
            .then(|| digits.parse().ok())??;
        (caller < self.callers).then_some(caller)
    }
}

pub(super) fn verdict(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new(
        Invariant::NoPlainPii,
        "bytes of Kafka records, logs, Redis and metrics",
    );
    let mut all = evidence.log.personal.clone();
    if let Some(live) = evidence.live {
        all.add(&live.personal);
    }
    verdict.checked = all.bytes.values().sum();
    for (place, what) in &all.first {
        verdict.violation(place, "nothing personal", what.clone());
    }
    verdict.violations = all.found;
    let mut places: Vec<String> = all
        .bytes
        .iter()
        .map(|(place, bytes)| format!("{place} {bytes}"))
        .collect();
    places.sort();
    verdict.note(format!("bytes searched: {}", places.join(", ")));
    if evidence.live.is_none() {
        verdict.note("logs, Redis and metrics were not searched".to_owned());
    }
    verdict
}
