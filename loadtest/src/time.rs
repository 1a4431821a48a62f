//! The harness's own clock: microseconds since the Unix epoch, monotone.
//!
//! One instant is read at start and everything is counted from it, so the record never
//! runs backwards even if the wall clock is set. The mesh stamps its events with the wall
//! clock of the same machine, so the two can be compared (see the checker's tolerances).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment: microseconds since the Unix epoch.
pub(crate) type Us = u64;

/// A second.
pub(crate) const SECOND: Us = 1_000_000;
/// A millisecond.
pub(crate) const MILLISECOND: Us = 1_000;

/// Reads the time for the driver; the cores get it passed in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    began_us: Us,
}

impl Clock {
    /// A clock that starts at the wall clock's time.
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            began: Instant::now(),
            began_us: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Us {
        self.began_us + u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant at which this clock shows `at`; the start if `at` is earlier.
    pub(crate) fn instant(&self, at: Us) -> Instant {
        self.began + Duration::from_micros(at.saturating_sub(self.began_us))
    }
}
