//! What the plots show, second by second and wait by wait.

use std::collections::{HashMap, HashSet};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::progress::new_latency;
use crate::record::{CallNumber, Entry, Leg};
use crate::run::play::Judged;
use crate::time::{MILLISECOND, SECOND};

/// Points for the plots. A second is one after the first entry of the record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Calls that reached the switch, a second.
    pub(crate) calls: Vec<u64>,
    /// Calls that an agent answered, a second.
    pub(crate) established: Vec<u64>,
    /// Callers who gave up, a second.
    pub(crate) gave_up: Vec<u64>,
    /// Default routes and overload messages, a second.
    pub(crate) turned_away: Vec<u64>,
    /// Calls in line at the end of the second.
    pub(crate) waiting: Vec<u64>,
    /// Callers who wait to be called, at the end of the second.
    pub(crate) to_be_called: Vec<u64>,
    /// Longest answer of the second, in microseconds.
    pub(crate) latency_max_us: Vec<u64>,
    /// (quantile, microseconds).
    pub(crate) latency: Vec<(f64, u64)>,
    /// Waits to a person of those who held: (share, milliseconds).
    pub(crate) waits_holders: Vec<(f64, u64)>,
    /// Of callback takers.
    pub(crate) waits_callbacks: Vec<(f64, u64)>,
    /// Of everybody.
    pub(crate) waits_everyone: Vec<(f64, u64)>,
}

/// From a record; with the histogram of latencies.
pub(super) fn of(judged: &Judged) -> anyhow::Result<(Series, Histogram<u64>)> {
    let facts = &judged.facts;
    let seconds = usize::try_from((facts.span.1 - facts.span.0) / SECOND)
        .unwrap_or(0)
        .min(86_400)
        + 1;
    let mut series = Series::default();
    for points in series.by_second() {
        points.resize(seconds, 0);
    }
    let mut histogram = new_latency()?;
    let mut waiting: HashSet<CallNumber> = HashSet::new();
    let mut to_be_called: HashSet<&str> = HashSet::new();
    for line in &judged.lines {
        let second = usize::try_from(line.at.saturating_sub(facts.span.0) / SECOND)
            .unwrap_or(0)
            .min(seconds - 1);
        match &line.entry {
            Entry::Call { .. } => series.calls[second] += 1,
            Entry::Answer { us, .. } => {
                histogram.saturating_record((*us).max(1));
                series.latency_max_us[second] = series.latency_max_us[second].max(*us);
            }
            Entry::Queued { call, .. } => {
                waiting.insert(*call);
            }
            Entry::Established { call, contact, .. } => {
                series.established[second] += 1;
                waiting.remove(call);
                to_be_called.remove(contact.as_str());
            }
            Entry::Cleared { call, .. }
                if waiting.remove(call)
                    && facts.calls.get(call).is_some_and(|call| !call.booked) =>
            {
                series.gave_up[second] += 1;
            }
            Entry::Default { .. } => series.turned_away[second] += 1,
            Entry::Booked { call, contact, .. } => {
                waiting.remove(call);
                to_be_called.insert(contact);
            }
            _ => {}
        }
        series.waiting[second] = waiting.len() as u64;
        series.to_be_called[second] = to_be_called.len() as u64;
    }
    series.latency = [
        0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0,
    ]
    .map(|quantile| (quantile, histogram.value_at_quantile(quantile)))
    .to_vec();
    waits(judged, &mut series);
    Ok((series, histogram))
}

/// Waits from a contact's first arrival to its first person.
fn waits(judged: &Judged, series: &mut Series) {
    let facts = &judged.facts;
    // First arrival, and the first person: when, and whether through a callback.
    type Reached = (u64, Option<(u64, bool)>);
    let mut by_contact: HashMap<&str, Reached> = HashMap::new();
    for (number, call) in &facts.calls {
        let key = if call.contact.is_empty() {
            continue;
        } else {
            call.contact.as_str()
        };
        let entry = by_contact.entry(key).or_insert((call.arrived, None));
        entry.0 = entry.0.min(call.arrived);
        if let Some((at, _)) = call.established.first()
            && entry.1.is_none_or(|(known, _)| at < &known)
        {
            entry.1 = Some((*at, facts.calls[number].leg == Leg::Callback));
        }
    }
    let (mut holders, mut callbacks) = (Vec::new(), Vec::new());
    for (arrived, person) in by_contact.into_values() {
        if let Some((at, callback)) = person {
            let wait = (at - arrived) / MILLISECOND;
            if callback {
                callbacks.push(wait)
            } else {
                holders.push(wait)
            }
        }
    }
    let mut everyone: Vec<u64> = holders.iter().chain(&callbacks).copied().collect();
    series.waits_holders = shares(&mut holders);
    series.waits_callbacks = shares(&mut callbacks);
    series.waits_everyone = shares(&mut everyone);
}

fn shares(waits: &mut [u64]) -> Vec<(f64, u64)> {
    waits.sort_unstable();
    if waits.is_empty() {
        return Vec::new();
    }
    (0..=100)
        .map(|percent| {
            (
                f64::from(percent) / 100.0,
                waits[(waits.len() - 1) * percent as usize / 100],
            )
        })
        .collect()
}

impl Series {
    fn by_second(&mut self) -> [&mut Vec<u64>; 7] {
        [
            &mut self.calls,
            &mut self.established,
            &mut self.gave_up,
            &mut self.turned_away,
            &mut self.waiting,
            &mut self.to_be_called,
            &mut self.latency_max_us,
        ]
    }
}
