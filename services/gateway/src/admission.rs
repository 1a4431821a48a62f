//! Admission: how many new calls are let in, and what the switches are told about it.
//!
//! Two token buckets (node, switch) and a count of requests in flight. A call that is
//! refused is answered at once with a message: shedding costs a few hundred nanoseconds
//! and keeps nothing, so memory stays flat however many come. Queueing the excess was
//! rejected: a 500 ms dialogue that waits is a default-routed call.

use domain::TimeMs;
use proto::cti::v1::SystemCondition;

/// Tokens that refill at a rate, up to a burst. Counted in thousandths, so that a
/// millisecond at any rate is a whole number.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_second: u64,
    burst_milli: u64,
    tokens_milli: u64,
    at: TimeMs,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, burst: u32, now: TimeMs) -> Self {
        let burst_milli = u64::from(burst) * 1_000;
        Self {
            per_second: per_second.into(),
            burst_milli,
            tokens_milli: burst_milli,
            at: now,
        }
    }

    fn refill(&mut self, now: TimeMs) {
        let elapsed_ms = now.since(self.at);
        self.at = self.at.max(now);
        let gained_milli = elapsed_ms.saturating_mul(self.per_second);
        self.tokens_milli = self
            .tokens_milli
            .saturating_add(gained_milli)
            .min(self.burst_milli);
    }

    /// Takes one token if there is one.
    pub(crate) fn take(&mut self, now: TimeMs) -> bool {
        self.refill(now);
        let enough = self.tokens_milli >= 1_000;
        if enough {
            self.tokens_milli -= 1_000;
        }
        enough
    }

    /// How full it is, in percent.
    pub(crate) fn percent(&mut self, now: TimeMs) -> u64 {
        self.refill(now);
        self.tokens_milli * 100 / self.burst_milli.max(1)
    }
}

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// The node's rate.
    NodeRate,
    /// The switch's rate.
    SwitchRate,
    /// Requests in flight.
    InFlight,
}

/// The node's admission.
#[derive(Debug)]
pub(crate) struct Admission {
    node: Bucket,
    in_flight_max: usize,
    condition: SystemCondition,
    shed_at: Option<TimeMs>,
}

/// Without a refusal for this long, the overload is over.
const RELIEVED_AFTER_MS: u64 = 1_000;

impl Admission {
    /// A node that is at rest.
    pub(crate) fn new(per_second: u32, burst: u32, in_flight_max: usize, now: TimeMs) -> Self {
        Self {
            node: Bucket::new(per_second, burst, now),
            in_flight_max,
            condition: SystemCondition::Normal,
            shed_at: None,
        }
    }

    /// Lets a new call in, or says why not.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn admit(
        &mut self,
        now: TimeMs,
        in_flight: usize,
        switch: Option<&mut Bucket>,
    ) -> Result<(), Shed> {
        let shed = if in_flight >= self.in_flight_max {
            Shed::InFlight
        } else if switch.is_some_and(|bucket| !bucket.take(now)) {
            Shed::SwitchRate
        } else if !self.node.take(now) {
            Shed::NodeRate
        } else {
            return Ok(());
        };
        if shed != Shed::SwitchRate {
            self.shed_at = Some(now);
        }
        Err(shed)
    }

    /// Tokens left, in percent.
    pub(crate) fn percent(&mut self, now: TimeMs) -> u64 {
        self.node.percent(now)
    }

    /// The condition to tell the switches, when it has changed.
    pub(crate) fn changed(&mut self, now: TimeMs, in_flight: usize) -> Option<SystemCondition> {
        let percent = self.node.percent(now);
        let shedding = self
            .shed_at
            .is_some_and(|at| now.since(at) < RELIEVED_AFTER_MS);
        let near = percent < 20 || in_flight * 5 > self.in_flight_max * 4;
        let next = if shedding {
            SystemCondition::OverloadReached
        } else if self.condition == SystemCondition::OverloadReached {
            SystemCondition::OverloadRelieved
        } else if near {
            SystemCondition::OverloadImminent
        } else if self.condition == SystemCondition::OverloadImminent {
            SystemCondition::OverloadRelieved
        } else {
            self.condition
        };
        (next != self.condition).then(|| {
            self.condition = next;
            next
        })
    }

    /// The condition now, for heartbeats.
    pub(crate) fn condition(&self) -> SystemCondition {
        match self.condition {
            SystemCondition::OverloadRelieved => SystemCondition::Normal,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_and_then_it_is_relieved() {
        let start = TimeMs(1_000_000);
        let mut admission = Admission::new(100, 10, 1_000, start);
        let admitted = (0..50)
            .filter(|_| admission.admit(start, 0, None).is_ok())
            .count();
        assert_eq!(admitted, 10);
        assert_eq!(
            admission.changed(start, 0),
            Some(SystemCondition::OverloadReached)
        );
        assert_eq!(admission.changed(start, 0), None);
        let later = start.plus(50);
        let admitted = (0..50)
            .filter(|_| admission.admit(later, 0, None).is_ok())
            .count();
        assert_eq!(admitted, 5);
        assert_eq!(
            admission.changed(later.plus(2_000), 0),
            Some(SystemCondition::OverloadRelieved)
        );
        assert_eq!(admission.condition(), SystemCondition::Normal);
    }

    #[test]
    fn requests_in_flight_and_a_switch_of_its_own_are_limits_too() {
        let now = TimeMs(5);
        let mut admission = Admission::new(1_000, 1_000, 3, now);
        assert_eq!(admission.admit(now, 3, None), Err(Shed::InFlight));
        let mut switch = Bucket::new(1, 1, now);
        assert_eq!(admission.admit(now, 0, Some(&mut switch)), Ok(()));
        assert_eq!(
            admission.admit(now, 0, Some(&mut switch)),
            Err(Shed::SwitchRate)
        );
    }

    #[test]
    fn a_clock_that_stands_still_or_leaps_gives_no_more_than_a_burst() {
        let mut bucket = Bucket::new(10, 2, TimeMs(100));
        assert!(bucket.take(TimeMs(50)) && bucket.take(TimeMs(50)) && !bucket.take(TimeMs(50)));
        assert!(
            bucket.take(TimeMs(u64::MAX))
                && bucket.take(TimeMs(u64::MAX))
                && !bucket.take(TimeMs(u64::MAX))
        );
    }
}
