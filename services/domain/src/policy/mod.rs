//! Policy is data: pools, lines, topics, queues, callbacks.
//!
//! The same documents come as YAML files (`deploy/policy/`) and, later, as Kubernetes
//! resources. [`Policy::parse`] takes texts (never paths: this crate does no IO),
//! validates the whole set and gives every fault with its document, line and reason; a
//! set is taken whole or not at all. Names are resolved to dense indexes here, once, so
//! that the pool never looks a name up.

mod check;
mod document;
mod parse;

pub(crate) use check::is_language;
pub use parse::{Fault, Faults};

use std::collections::BTreeMap;

/// The topic that stands for "a person, please": the operator's.
pub const OPERATOR_TOPIC: &str = "META_OPERATOR";

/// Index of a queue in [`Policy::queues`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct QueueIndex(pub u16);

/// A valid, compiled set of policy documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// A hash of the documents: names the version in logs and metrics.
    pub version: u64,
    /// Pools, by name.
    pub pools: BTreeMap<String, PoolPolicy>,
    /// Lines, by name.
    pub lines: BTreeMap<String, Line>,
    /// Topics, by id.
    pub topics: BTreeMap<String, Topic>,
    /// Queues, in order of name; [`QueueIndex`] points here.
    pub queues: Vec<QueuePolicy>,
    /// Callback policy.
    pub callback: CallbackPolicy,
    /// Dialled number to line name.
    pub line_by_number: BTreeMap<String, String>,
}

/// A set of agents and queues that can reach each other; one writer at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPolicy {
    /// Name, 1 to 64 bytes of `[A-Za-z0-9._-]`.
    pub name: String,
    /// How long a call rings at an agent before it counts as not answered, in ms.
    pub no_answer_ms: u64,
    /// How long an agent may wrap up before the pool closes it, in ms.
    pub wrap_up_max_ms: u64,
    /// How long a reservation waits for any news from the switch, in ms; then the call is
    /// put back in line.
    pub reservation_max_ms: u64,
    /// Most contacts waiting in the pool, live and virtual.
    pub waiting_max: u32,
    /// Most agents logged on.
    pub agents_max: u32,
    /// Priority never rises above this, in points.
    pub priority_cap: u32,
    /// Agents known in advance: their skills are added to what the switch says at log-on.
    pub agents: BTreeMap<String, AgentPolicy>,
    /// How long a contact that ended is remembered, so that late events find it, in ms.
    pub remember_ended_ms: u64,
    /// How long a contact that talked to a person stays open for the survey after its call
    /// and its wrap-ups are over, in ms.
    pub survey_wait_ms: u64,
}

/// An agent known in advance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentPolicy {
    /// Skill to proficiency, 1 to 10.
    pub skills: BTreeMap<String, u8>,
    /// Languages, BCP 47.
    pub languages: Vec<String>,
    /// Contacts held at once, 1 to 8.
    pub capacity: u8,
}

/// A number that people dial.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Name.
    pub name: String,
    /// Numbers dialled, as the switch gives them.
    pub numbers: Vec<String>,
    /// The pool whose queues serve it.
    pub pool: String,
    /// Topic when intent knows nothing: the operator's.
    pub default_topic: String,
    /// Number shown when calling back: published, dedicated to callbacks.
    pub callback_number: String,
    /// IANA time zone of the line.
    pub time_zone: String,
    /// Most contacts of one caller waiting at once; numbers in `shared_numbers` are exempt.
    pub caller_places_max: u32,
}

/// What a caller can need.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Id in the taxonomy.
    pub id: String,
    /// The name for people.
    pub title: String,
    /// The queue that serves it.
    pub queue: QueueIndex,
    /// A callback may be offered.
    pub callback: bool,
    /// Points added to the queue's starting priority.
    pub priority_start: u32,
    /// Family for repeat-contact linking: topics of one family are the same issue.
    pub family: String,
}

/// A line of people waiting for one skill.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuePolicy {
    /// Name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// The skill needed.
    pub skill: String,
    /// Proficiency needed, 1 to 10.
    pub proficiency_min: u8,
    /// The treatment device where its callers wait on the switch.
    pub device: String,
    /// Starting priority, in points.
    pub priority_start: u32,
    /// Points gained in each second of waiting.
    pub priority_acceleration: u32,
    /// Most contacts waiting, live and virtual.
    pub waiting_max: u32,
    /// Service level threshold, in ms.
    pub service_level_ms: u64,
    /// Mean handle time assumed until measured, in ms.
    pub handle_time_prior_ms: u64,
    /// Mean patience assumed until measured, in ms.
    pub patience_prior_ms: u64,
    /// Announcement played when it is full or closed.
    pub announcement: String,
}

/// How callbacks are offered and made. Published to the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct CallbackPolicy {
    /// Virtual hold is offered from this expected wait on, in ms. No upper limit: those
    /// who wait longest need it most.
    pub offer_from_expected_wait_ms: u64,
    /// Attempts before a callback is exhausted, 1 to 10.
    pub attempts_max: u32,
    /// From a missed attempt to the next, in ms.
    pub attempt_spacing_ms: u64,
    /// How long it rings, in ms.
    pub ring_ms: u64,
    /// How long a worker may hold a due entry without news, in ms.
    pub lease_ms: u64,
    /// Length of a bookable window, in ms.
    pub window_ms: u64,
    /// Windows offered at once, 0 to 8.
    pub windows_offered: u32,
    /// Share of a window's forecast agent time that callbacks may take, in percent.
    pub window_capacity_percent: u32,
    /// Earliest local hour to call, 0 to 23.
    pub callable_from_hour: u32,
    /// Local hour from which nobody is called, 1 to 24.
    pub callable_until_hour: u32,
}

impl Policy {
    /// The pool, if there is one.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&PoolPolicy> {
        self.pools.get(name)
    }

    /// The line on which a number is dialled; the number may carry a leading `+`.
    #[must_use]
    pub fn line_of_number(&self, number: &str) -> Option<&Line> {
        let name = self.line_by_number.get(number.trim_start_matches('+'))?;
        self.lines.get(name)
    }

    /// The queue at an index given out by this policy.
    #[must_use]
    pub fn queue(&self, index: QueueIndex) -> &QueuePolicy {
        &self.queues[usize::from(index.0)]
    }

    /// The index of a queue by name.
    #[must_use]
    pub fn queue_index(&self, name: &str) -> Option<QueueIndex> {
        let position = self
            .queues
            .binary_search_by(|queue| queue.name.as_str().cmp(name))
            .ok()?;
        u16::try_from(position).ok().map(QueueIndex)
    }
}
