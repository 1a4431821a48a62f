//! The wall clock as the domain wants it: epoch milliseconds that never go back.
//!
//! Anchored at the start and carried on by the monotonic clock, so that a jump of the
//! system's clock does not jump the waits of everybody in line. The difference is worked
//! off slowly: by at most 50 ms in each second, which is below what any timer here minds.
//! Rejected: reading `SystemTime` each time (jumps), and the monotonic clock alone
//! (drifts away from the other replicas over weeks).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use domain::TimeMs;

use crate::LogLimit;

const SYNC_EVERY_MS: u64 = 1_000;
const SLEW_MAX_MS: i64 = 50;
const JUMP_WORTH_A_WARNING_MS: i64 = 1_000;

/// A cheap handle on one process-wide notion of time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    anchor: Instant,
    anchor_ms: u64,
    offset_ms: AtomicI64,
    synced_ms: AtomicU64,
    last_ms: AtomicU64,
    limit: LogLimit,
}

fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock set to the system's time.
    #[must_use]
    pub fn new() -> Self {
        let anchor_ms = wall_ms();
        Self(Arc::new(Inner {
            anchor: Instant::now(),
            anchor_ms,
            offset_ms: AtomicI64::new(0),
            synced_ms: AtomicU64::new(anchor_ms),
            last_ms: AtomicU64::new(anchor_ms),
            limit: LogLimit::new(Duration::from_secs(60)),
        }))
    }

    /// Now. Never before an earlier answer of this clock.
    #[must_use]
    pub fn now(&self) -> TimeMs {
        let elapsed_ms = u64::try_from(self.0.anchor.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.advance(self.0.anchor_ms.saturating_add(elapsed_ms), wall_ms)
    }

    fn advance(&self, monotonic_ms: u64, wall: impl FnOnce() -> u64) -> TimeMs {
        let inner = &*self.0;
        let synced_ms = inner.synced_ms.load(Ordering::Relaxed);
        if monotonic_ms.saturating_sub(synced_ms) >= SYNC_EVERY_MS
            && inner
                .synced_ms
                .compare_exchange(
                    synced_ms,
                    monotonic_ms,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
        {
            let offset_ms = inner.offset_ms.load(Ordering::Relaxed);
            let shown_ms = monotonic_ms.saturating_add_signed(offset_ms);
            let difference_ms =
                i64::try_from(i128::from(wall()) - i128::from(shown_ms)).unwrap_or(0);
            if difference_ms.abs() > JUMP_WORTH_A_WARNING_MS
                && let Some(suppressed) = inner.limit.check()
            {
                tracing::warn!(
                    difference_ms,
                    suppressed,
                    "the system clock jumped, following it slowly"
                );
            }
            let step_ms = difference_ms.clamp(-SLEW_MAX_MS, SLEW_MAX_MS);
            inner
                .offset_ms
                .store(offset_ms + step_ms, Ordering::Relaxed);
        }
        let shown_ms = monotonic_ms.saturating_add_signed(inner.offset_ms.load(Ordering::Relaxed));
        TimeMs(
            inner
                .last_ms
                .fetch_max(shown_ms, Ordering::Relaxed)
                .max(shown_ms),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_system_clock_is_followed_slowly_and_never_backwards() {
        let clock = Clock::new();
        let start_ms = clock.0.anchor_ms;
        let mut earlier = clock.advance(start_ms, || start_ms);
        for second in 1..=100u64 {
            let monotonic_ms = start_ms + second * 1_000;
            let now = clock.advance(monotonic_ms, || monotonic_ms - 3_600_000);
            assert!(now >= earlier);
            assert!(
                now.since(earlier) >= 900,
                "slewed faster than 50 ms a second"
            );
            earlier = now;
        }
        assert_eq!(earlier.0, start_ms + 100_000 - 100 * 50);
    }
}
