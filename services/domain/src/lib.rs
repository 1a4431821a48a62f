//! The decisions of Trunkline, and nothing else: no async, no IO, no clock, no
//! environment, no global randomness (`clippy.toml` in this folder keeps it so).
//!
//! Every component is a plain state machine: `handle(now, input, &mut outputs)` and
//! `next_deadline()`. Services own a driver that feeds it and carries out its
//! outputs; the simulator runs the same code in virtual time.
//!
//! | module | decides |
//! |---|---|
//! | [`pool`] | who waits, who is ready, who gets whom, expected waits |
//! | [`callback`] | when a booked callback is dialled, retried, given up |
//! | [`outcome`] | what one contact's events mean for the measures |
//! | [`policy`] | lines, topics, queues, skills: data, validated |
//! | [`invariant`] | the promises, by name |

pub mod callback;
pub mod id;
pub mod invariant;
pub mod outcome;
pub mod policy;
pub mod pool;
mod time;

pub use id::{AgentId, BootId, CallId, CallerId, ContactId, SwitchId};
pub use time::TimeMs;
