//! The promises, by name. Checked in simulation, in the load harness under faults, and
//! counted in production (`trunkline_invariant_violations_total{invariant}`).

use serde::{Deserialize, Serialize};

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Invariant {
    /// Every route request gets exactly one answer before the route deadline.
    NeverSilent,
    /// No call is assigned to two agents; no agent holds more contacts than its capacity.
    OneCallOneAgent,
    /// Nothing ever costs a caller their arrival time.
    PlaceKept,
    /// An accepted callback ends in exactly one of connected, exhausted, cancelled; never
    /// two attempts at once.
    CallbackKept,
    /// Each contact's events are written, in order, without a gap.
    EveryOutcomeCounted,
    /// Nobody is overtaken for longer than the bound that policy states.
    BoundedOvertaking,
    /// No number, name or free text in a log, event, metric, trace or key.
    NoPlainPii,
    /// Waiting runs to a human.
    HonestClock,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 8] = [
        Invariant::NeverSilent,
        Invariant::OneCallOneAgent,
        Invariant::PlaceKept,
        Invariant::CallbackKept,
        Invariant::EveryOutcomeCounted,
        Invariant::BoundedOvertaking,
        Invariant::NoPlainPii,
        Invariant::HonestClock,
    ];

    /// The name used in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Invariant::NeverSilent => "NeverSilent",
            Invariant::OneCallOneAgent => "OneCallOneAgent",
            Invariant::PlaceKept => "PlaceKept",
            Invariant::CallbackKept => "CallbackKept",
            Invariant::EveryOutcomeCounted => "EveryOutcomeCounted",
            Invariant::BoundedOvertaking => "BoundedOvertaking",
            Invariant::NoPlainPii => "NoPlainPii",
            Invariant::HonestClock => "HonestClock",
        }
    }
}

/// A broken promise: always an output, never a panic, so that production counts it and
/// a test fails on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// What was seen: ids and numbers only.
    pub detail: String,
}
