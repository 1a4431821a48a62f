//! What of a pool is kept outside the process: one record a contact, one an agent, and a
//! small one for the pool itself.
//!
//! The records *are* the state: [`super::Pool`] adds only indexes that follow from them,
//! so that a restored pool cannot differ from the one that wrote them. Names are shared
//! (`Arc<str>`), so cloning a record into [`Changes`] copies about half a kilobyte and
//! allocates next to nothing. Every field has a default: older records load.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::input::{AgentSkill, Disposition, NoticeKind, SwitchAgentState, SwitchRef};
use super::output::Window;
use crate::{AgentId, CallId, CallerId, ContactId, TimeMs};

/// What changed since the last call of [`super::Pool::take_changes`]. Reused by the
/// caller: cleared and filled at each call. `None`: delete. An id may occur twice; the
/// later entry counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Contacts.
    pub contacts: Vec<(ContactId, Option<ContactRecord>)>,
    /// Agents.
    pub agents: Vec<(AgentId, Option<AgentRecord>)>,
    /// The pool itself; `None`: unchanged.
    pub meta: Option<MetaRecord>,
}

impl Changes {
    /// Nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contacts.is_empty() && self.agents.is_empty() && self.meta.is_none()
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.contacts.clear();
        self.agents.clear();
        self.meta = None;
    }
}

/// A contact as kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "records are moved in reused buffers; a box would allocate for each change"
)]
pub enum ContactRecord {
    /// In progress.
    Open(OpenContact),
    /// Over: remembered so that a late event does not start it anew.
    Ended(EndedContact),
}

/// A contact that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndedContact {
    /// When it was closed.
    pub closed_at: TimeMs,
    /// Events it had.
    pub events: u64,
}

/// Where a contact is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// In line, live or virtual.
    #[default]
    Waiting,
    /// An agent is reserved; no news from the switch yet.
    Assigned,
    /// Rings at the agent.
    Alerting,
    /// Talks with the agent.
    Talking,
    /// Refused with a message; the switch clears it.
    Blocked,
    /// On the switch's default route.
    DefaultRouted,
    /// Moved by the switch to where no agent of ours is.
    Elsewhere,
    /// The leg is gone while an offer was open: a booking may be on its way.
    Leaving,
    /// The call is over; wrap-ups or the survey are outstanding.
    Over,
}

/// A contact in progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenContact {
    /// Line's name.
    pub line: Arc<str>,
    /// Topic id now.
    pub topic: Arc<str>,
    /// The queue it is or was last in.
    pub queue: Arc<str>,
    /// Second and third guess.
    pub other_topics: Arc<[Arc<str>]>,
    /// Confidence.
    pub topic_confidence: f32,
    /// Language.
    pub language: Arc<str>,
    /// Channel.
    pub channel: u8,
    /// Pseudonym.
    pub caller: Option<CallerId>,
    /// Authenticated.
    pub authenticated: bool,
    /// First arrival. Its place in line is counted from here, and nothing changes it.
    pub arrived_at: TimeMs,
    /// W3C trace context.
    pub traceparent: Arc<str>,
    /// The switch that has its leg, or had the last one.
    pub source: Option<SwitchRef>,
    /// Its name, as events carry it.
    pub switch_name: Arc<str>,
    /// The call of that leg.
    pub call: Option<CallId>,
    /// The dialogue of that leg.
    pub cross_ref: Arc<str>,
    /// A leg is alive.
    pub leg_live: bool,
    /// When that leg was first seen.
    pub leg_since: TimeMs,
    /// Events written.
    pub sequence: u64,
    /// When the last one happened.
    pub last_event_at: TimeMs,
    /// Answers given.
    pub decisions: u32,
    /// Agents reserved.
    pub assignments: u32,
    /// Transfers.
    pub transfers: u32,
    /// Persons talked to.
    pub persons: u32,
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub phase_since: TimeMs,
    /// The agent reserved, ringing or talking.
    pub agent: Option<AgentId>,
    /// Warm transfer: the agent who stays until the next answers.
    pub staying: Option<AgentId>,
    /// A transfer is under way: who sent it; told in `Transferred`.
    pub sent_by: Option<AgentId>,
    /// The switch has not yet moved the call away from who sent it.
    pub connected: bool,
    /// Agents still wrapping up.
    pub wrapping: u32,
    /// Why it was refused: cti.v1.MessageReason.
    pub blocked: u8,
    /// What was announced with the last place.
    pub announced: Option<Announced>,
    /// An offer is open.
    pub offered: bool,
    /// The command that moves the call, not yet answered.
    pub command: Option<u64>,
    /// Commands that failed in a row.
    pub command_failures: u32,
    /// Not matched before this: the last command failed, or the caller is leaving.
    pub hold_off_until: Option<TimeMs>,
    /// The callback booked.
    pub callback: Option<VirtualPlace>,
    /// Notices that callback has not acknowledged.
    pub notices: Vec<(NoticeKind, u32)>,
    /// When they are told again.
    pub notices_at: TimeMs,
    /// The survey was answered.
    pub surveyed: bool,
    /// All events are written; kept for its notices.
    pub closed: bool,
}

/// What was announced with a place in line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Announced {
    /// 1 is next.
    pub position: u32,
    /// Expected wait, in ms.
    pub expected_wait_ms: u64,
    /// Lower end.
    pub low_ms: u64,
    /// Upper end.
    pub high_ms: u64,
    /// Virtual hold was offered.
    pub virtual_hold: bool,
    /// Windows that were offered.
    pub windows: Vec<Window>,
}

/// How far a callback's place is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtualState {
    /// Its window has not begun.
    Window,
    /// In line.
    #[default]
    InLine,
    /// Its turn: callback has been told.
    Due,
    /// Missed: the place is kept, the next attempt is later.
    Missed,
    /// The caller answered and is on the line.
    Live,
    /// It ended.
    Ended,
}

/// A callback's place in line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtualPlace {
    /// The window; `None`: virtual hold.
    pub window: Option<Window>,
    /// How long it rings, in ms.
    pub ring_ms: u64,
    /// The booking's code.
    pub code: Arc<str>,
    /// Highest report taken.
    pub report: u32,
    /// Turns so far.
    pub turn: u32,
    /// State.
    pub state: VirtualState,
    /// Since when.
    pub since: TimeMs,
    /// Missed: not before this; `None`: until callback says more.
    pub next_at: Option<TimeMs>,
    /// Due: told again then.
    pub repeat_at: TimeMs,
    /// Due: the attempt was placed.
    pub dialled: bool,
    /// Due: an agent who frees is held for it.
    pub hold_wanted: bool,
    /// The agent held.
    pub held: Option<AgentId>,
    /// Since when.
    pub held_since: TimeMs,
    /// Attempts placed.
    pub attempts: u32,
    /// The caller answered then.
    pub answered_at: Option<TimeMs>,
    /// Agents were held that long for it, in ms.
    pub agent_held_ms: u64,
}

/// What an agent does for one contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldPhase {
    /// Reserved or ringing.
    #[default]
    Reserved,
    /// Held for a callback that is being dialled.
    Held,
    /// Talks.
    Talking,
    /// Wraps up.
    WrapUp,
}

/// An agent's tie to one contact: takes one of the agent's places.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hold {
    /// The contact.
    pub contact: ContactId,
    /// The queue in whose name the agent is busy: a transfer moves the contact on, not this.
    pub queue: Arc<str>,
    /// The lane of that queue: an index, rebuilt when loaded.
    #[serde(skip)]
    pub(super) lane: u32,
    /// What the agent does for it.
    pub phase: HoldPhase,
    /// Since when.
    pub since: TimeMs,
    /// Talked, in ms (wrap-up).
    pub talk_ms: u64,
    /// The wrap-up came before the end of the call.
    pub wrapped_early: Option<Disposition>,
}

/// An agent as kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// The device.
    #[serde(default)]
    pub device: Arc<str>,
    /// The switch.
    #[serde(default)]
    pub source: Option<SwitchRef>,
    /// Skills of the log-on; policy's are added when loaded.
    #[serde(default)]
    pub skills: Arc<[AgentSkill]>,
    /// Languages of the log-on.
    #[serde(default)]
    pub languages: Arc<[Arc<str>]>,
    /// Contacts at once.
    #[serde(default)]
    pub capacity: u8,
    /// The state as last reported or set.
    pub state: SwitchAgentState,
    /// Would take calls.
    #[serde(default)]
    pub willing: bool,
    /// Busy with something that the pool does not know.
    #[serde(default)]
    pub busy_elsewhere: bool,
    /// Logged off, kept until its calls are over.
    #[serde(default)]
    pub leaving: bool,
    /// Free since.
    #[serde(default)]
    pub idle_since: TimeMs,
    /// Orders agents that became free in the same millisecond.
    #[serde(default)]
    pub idle_sequence: u64,
    /// When its state was last reported.
    #[serde(default)]
    pub reported_at: TimeMs,
    /// Its contacts.
    #[serde(default)]
    pub holds: Vec<Hold>,
    /// A state to set that the switch has not confirmed.
    #[serde(default)]
    pub command: Option<(u64, SwitchAgentState)>,
    /// When that command was last told.
    #[serde(default)]
    pub command_at: TimeMs,
    /// How often it has been repeated.
    #[serde(default)]
    pub command_repeats: u8,
}

/// The pool's own record: small, and written seldom.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaRecord {
    /// Command ids below this may have been used.
    pub command_ids_until: u64,
    /// Idle sequences below this may have been used.
    pub idle_sequences_until: u64,
    /// What was measured, by queue.
    pub measured: Vec<(Arc<str>, Measured)>,
}

/// What was measured of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Mean handle time, in ms.
    pub handle_ms: f64,
    /// Handle times seen.
    pub handled: u64,
    /// Live waiting seen, in ms, fading.
    pub waited_ms: f64,
    /// Callers who gave up, fading.
    pub abandoned: f64,
}
