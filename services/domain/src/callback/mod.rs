//! The life of one booked callback, as a state machine.
//!
//! ```text
//!            turn              a gateway dials          a person answers
//!  Booked ---------> Due ---------------------> Dialling ---------------> Answered
//!    ^                ^ not placed                |  |                      |   |
//!    |                +---------------------------+  | no answer, busy,     |   | connected
//!    |                                               | voicemail, silence   |   v
//!    +-----------------------------------------------+----------------------+  Ended
//!                        (place kept; after the last attempt: exhausted)
//! ```
//!
//! Routing holds the place and says whose turn it is; this machine decides whether and
//! when the call is made, and ends each booking in exactly one of connected, exhausted,
//! cancelled. Whatever comes late, twice or never, two attempts are never in flight at
//! once: an attempt is over only when its result came, or when its ring time and the
//! lease after it have passed in silence.
//!
//! Every change that routing must hear of becomes a numbered [`Report`] that is part of the
//! record: it is written with the change and sent until acknowledged, so neither can be
//! lost without the other.
//!
//! The shell (service `callback`) writes the record after [`Booking::handle`] and only then
//! carries out the outputs. It writes with a compare-and-set, so of two workers who decide
//! at once, one loses and decides again on what the other wrote.

mod booking;
mod capacity;
mod hours;
mod input;
mod life;
mod report;
#[cfg(test)]
mod tests;

pub use booking::Booking;
pub use capacity::{Forecast, window_capacity, window_has_room};
pub use hours::{Hours, Zone};
pub use input::{DialEnd, Input, NewBooking, Output, Place, State};
pub use report::{Report, ReportBody};

use crate::policy::CallbackPolicy;

/// What a booking's life is governed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Attempts before a callback is exhausted.
    pub attempts_max: u32,
    /// From a missed attempt to the next, in ms.
    pub attempt_spacing_ms: u64,
    /// How long it rings, in ms.
    pub ring_ms: u64,
    /// How long after the ring time a result is waited for, and how long a worker may hold
    /// a due entry, in ms.
    pub lease_ms: u64,
    /// When people may be called, by their own clock.
    pub hours: Hours,
    /// A dial that could not be placed is tried again after this, doubling to 32 times it,
    /// in ms. No attempt is counted.
    pub not_placed_retry_ms: u64,
    /// A booking without news from routing is registered there again after this, in ms:
    /// routing's store may lose its last second, callback's may not.
    pub look_after_ms: u64,
    /// An answered caller of whom routing says nothing for this long counts as lost, in ms.
    pub answered_max_ms: u64,
    /// No booking is older than this, in ms: then it is exhausted.
    pub life_max_ms: u64,
}

impl Rules {
    /// The rules of a policy, with this role's own bounds.
    #[must_use]
    pub fn new(policy: &CallbackPolicy) -> Self {
        Self {
            attempts_max: policy.attempts_max.max(1),
            attempt_spacing_ms: policy.attempt_spacing_ms,
            ring_ms: policy.ring_ms,
            lease_ms: policy.lease_ms,
            hours: Hours {
                from_hour: policy.callable_from_hour,
                until_hour: policy.callable_until_hour,
            },
            not_placed_retry_ms: 1_000,
            look_after_ms: 300_000,
            answered_max_ms: 3_600_000,
            life_max_ms: 14 * 86_400_000,
        }
    }
}
