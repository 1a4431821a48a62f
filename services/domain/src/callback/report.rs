//! What routing must hear of, until it has acknowledged it.

use serde::{Deserialize, Serialize};

use crate::TimeMs;
use crate::pool::{CallbackEnd, CallbackStep, Window};

/// A report to routing. Sent one at a time a contact, in order, until acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Numbers the contact's reports, from 1. Routing drops repeats by it.
    pub sequence: u32,
    /// What happened.
    pub body: ReportBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportBody {
    /// The booking is durable: keep its place.
    Register {
        /// The entry joins at the window's start; `None`: it keeps its place now.
        window: Option<Window>,
    },
    /// An attempt went a step further.
    Progress {
        /// The attempt, from 1.
        attempt: u32,
        /// What happened.
        step: CallbackStep,
        /// When the next attempt may be made; `None`: nothing follows by itself.
        next_at: Option<TimeMs>,
    },
    /// Its turn came outside callable hours: carried over, place kept.
    CarriedOver {
        /// The attempt that will be made then.
        attempt: u32,
        /// The next callable moment.
        next_at: TimeMs,
    },
    /// The booking is over.
    Ended {
        /// How.
        end: CallbackEnd,
    },
}
