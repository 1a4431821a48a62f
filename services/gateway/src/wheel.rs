//! Deadlines by the thousand: a wheel of buckets.
//!
//! Adding is a push, firing is a drain; what was answered in time is skipped when its
//! bucket comes round, so nothing is ever removed early. A heap would cost a logarithm
//! each way and a timer per call a task each; the deadline's precision here is a bucket
//! (4 ms) early, never late.

use domain::TimeMs;

/// Width of a bucket.
const BUCKET_MS: u64 = 4;
/// The wheel spans 8.2 s: more than the longest reply timeout.
const BUCKETS: usize = 2_048;

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    buckets: Vec<Vec<T>>,
    /// The next bucket to fire, as its absolute number (time / width).
    next: u64,
}

impl<T> Wheel<T> {
    /// An empty wheel.
    pub(crate) fn new(now: TimeMs) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            next: now.0 / BUCKET_MS,
        }
    }

    /// Fires at or just before `at`; at the next turn if that is past; at the wheel's end if
    /// it is further than the wheel reaches.
    pub(crate) fn add(&mut self, at: TimeMs, item: T) {
        let last = self.next + BUCKETS as u64 - 1;
        let bucket = (at.0 / BUCKET_MS).clamp(self.next, last);
        self.buckets[Self::slot(bucket)].push(item);
    }

    /// Moves everything due by `now` to `due`.
    pub(crate) fn advance(&mut self, now: TimeMs, due: &mut Vec<T>) {
        let current = now.0 / BUCKET_MS;
        if current.saturating_sub(self.next) >= BUCKETS as u64 {
            // The clock leapt over the whole wheel: everything is due.
            for bucket in &mut self.buckets {
                due.append(bucket);
            }
            self.next = current + 1;
            return;
        }
        while self.next <= current {
            let bucket = &mut self.buckets[Self::slot(self.next)];
            due.append(bucket);
            self.next += 1;
        }
    }

    /// Items that have not fired.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    fn slot(bucket: u64) -> usize {
        usize::try_from(bucket % BUCKETS as u64).expect("below the number of buckets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fires_once_in_time_and_never_late() {
        let start = TimeMs(10_000);
        let mut wheel = Wheel::new(start);
        for after_ms in [0, 1, 7, 100, 434, 5_000, 60_000] {
            wheel.add(start.plus(after_ms), after_ms);
        }
        let mut fired = Vec::new();
        for ms in 0..=9_000 {
            let mut due = Vec::new();
            wheel.advance(start.plus(ms), &mut due);
            fired.extend(due.into_iter().map(|after_ms| (after_ms, ms)));
        }
        assert_eq!(fired.len(), 7);
        assert_eq!(wheel.len(), 0);
        for (after_ms, at_ms) in fired {
            assert!(
                at_ms <= after_ms || after_ms == 0,
                "{after_ms} fired at {at_ms}"
            );
            assert!(
                at_ms + BUCKET_MS > after_ms.min(8_000),
                "{after_ms} fired at {at_ms}"
            );
        }
    }

    #[test]
    fn a_clock_that_leaps_fires_all_and_the_wheel_goes_on() {
        let mut wheel = Wheel::new(TimeMs(0));
        wheel.add(TimeMs(100), 1);
        wheel.add(TimeMs(3), 2);
        let mut due = Vec::new();
        wheel.advance(TimeMs(1_000_000_000), &mut due);
        due.sort_unstable();
        assert_eq!(due, [1, 2]);
        wheel.add(TimeMs(5), 3);
        due.clear();
        wheel.advance(TimeMs(1_000_000_008), &mut due);
        assert_eq!(due, [3]);
    }
}
