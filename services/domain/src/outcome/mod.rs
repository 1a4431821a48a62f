//! What one contact's events mean for the measures: every measure, old and new, is
//! recomputed from the same log, each with its denominator.
//!
//! # Design
//! - [`ContactState`] takes one contact's events in order and turns each into changes of
//!   counters, a [`Tally`]. Changes are sums: they can be merged, added in any order and
//!   stored anywhere, so the shell is free in how it batches.
//! - A contact is counted where it came in: in the half hour of its first arrival, under
//!   the line, topic, language and channel of its first event and the first queue it
//!   entered. So every ratio of a group has numerator and denominator from the same
//!   contacts, whatever transfers did to them later.
//! - Resolution looks across contacts. An [`Issue`] holds the visits of one caller about
//!   one family of topics; what it counts is a function of the *set* of visits, so the
//!   order in which partitions of the log are read does not matter.
//! - [`definitions`] are versioned code with prose: what a measure counts, what it is
//!   divided by, what it leaves out.
//!
//! Two traps of the field are built out, and tested: accepting a callback does not stop
//! the clock (SSA counted such callers as zero wait), and hanging up on a recording is
//! not an answer (HMRC counted it as one).
//!
//! Rejected: averages or percentiles stored as such (they cannot be merged), counting at
//! the group of the moment (ratios over different contacts), exact percentiles (would
//! keep every wait).

mod contact;
mod counter;
mod definition;
mod histogram;
mod resolution;
mod rules;
mod tally;
#[cfg(test)]
mod tests;

pub use contact::{Applied, ContactState, Effects};
pub use counter::{Counter, Histogram, Slot, UnknownSlot};
pub use definition::{DEFINITIONS_VERSION, Definition, Measured, Unit, Value, definitions};
pub use histogram::{bucket_of, bucket_range, quantile};
pub use resolution::{Answered, Issue, IssueKey, VISITS_MAX, Visit, WINDOWS_DAYS};
pub use rules::Rules;
pub use tally::{Cell, Counts, DAY_MS, Grouping, HALF_HOUR_MS, Keys, NO_GROUP, OTHER_GROUP, Tally};
