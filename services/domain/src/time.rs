//! Time as the domain knows it: epoch milliseconds, always passed in.

use serde::{Deserialize, Serialize};

/// A moment: milliseconds since the Unix epoch, UTC.
///
/// Wall-clock milliseconds and not an opaque instant, because a pool's state outlives
/// the process: another one loads it and goes on. Subtraction saturates at zero, so a
/// clock that jumps back makes a wait short and never wraps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TimeMs(pub u64);

impl TimeMs {
    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: TimeMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment and `milliseconds` more, at most the end of time.
    #[must_use]
    pub const fn plus(self, milliseconds: u64) -> TimeMs {
        TimeMs(self.0.saturating_add(milliseconds))
    }

    /// This moment less `milliseconds`, at least the epoch.
    #[must_use]
    pub const fn minus(self, milliseconds: u64) -> TimeMs {
        TimeMs(self.0.saturating_sub(milliseconds))
    }
}

impl std::fmt::Display for TimeMs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)
    }
}
