//! What a pool can be told. Together with [`super::Output`] this is its specification.

use serde::{Deserialize, Serialize};

use crate::{AgentId, BootId, CallId, CallerId, ContactId, SwitchId, TimeMs};

/// The switch an input comes from, at one boot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SwitchRef {
    /// The switch.
    pub switch: SwitchId,
    /// Its boot.
    pub boot: BootId,
}

/// One input. Every input is answered by exactly one [`super::Reply`] with the same token.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Names the reply; opaque to the pool.
    pub token: u64,
    /// The contact; `None` for agent, snapshot and boot inputs.
    pub contact: Option<ContactId>,
    /// Where it comes from; `None`: from callback.
    pub source: Option<SwitchRef>,
    /// When it happened by the sender's clock. The pool clamps it to `now`.
    pub occurred_at: TimeMs,
    /// W3C trace context; kept on the contact when it first carries one. Empty: none.
    pub traceparent: String,
    /// What happened.
    pub body: InputBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum InputBody {
    /// Who takes this contact? Idempotent by contact.
    Route(RouteInput),
    /// The destination failed; another, on the same dialogue.
    Reroute {
        /// Why.
        cause: Cause,
        /// The switch default-routes after this.
        deadline: TimeMs,
    },
    /// The dialogue ended with an error: the answer was not used, the reservation is freed.
    RouteFailed {
        /// The caller gave up (else the switch default-routed the call).
        caller_gave_up: bool,
    },
    /// The call sits at its queue's device.
    AtQueue,
    /// It rings at an agent.
    Delivered {
        /// The agent.
        agent: AgentId,
    },
    /// An agent answered. Accepted without `Delivered`.
    Established {
        /// The agent.
        agent: AgentId,
    },
    /// An agent (or, `None`, a queue or the caller's side) could not be reached.
    Failed {
        /// The agent.
        agent: Option<AgentId>,
        /// Why.
        cause: Cause,
    },
    /// The call is over; also for contacts the pool has never heard of.
    Cleared(Cleared),
    /// An agent changed state.
    Agent(AgentUpdate),
    /// The agent closed the wrap-up.
    WrappedUp {
        /// The agent.
        agent: AgentId,
        /// Outcome by the agent.
        disposition: Disposition,
        /// Topic as the agent found it; `None`: as classified.
        topic: Option<String>,
    },
    /// The survey was answered.
    Survey(SurveyAnswers),
    /// An agent asks for a transfer by topic.
    Transfer {
        /// Who asks; must hold the contact.
        from: AgentId,
        /// The topic as the agent found it.
        topic: String,
        /// The agent stays until the next person answers.
        warm: bool,
        /// The agent has authenticated the caller.
        authenticated: bool,
    },
    /// The switch moved the call by itself.
    Moved {
        /// From.
        from: AgentId,
        /// To; `None`: not an agent.
        to: Option<AgentId>,
    },
    /// A snapshot of `source` starts.
    SnapshotBegin,
    /// A live call of the snapshot.
    SnapshotCall(SnapshotCall),
    /// A logged-on agent of the snapshot.
    SnapshotAgent(AgentUpdate),
    /// The snapshot is complete: what was not in it is gone.
    SnapshotEnd,
    /// `source` restarted: calls of its earlier boots are gone, its agents logged off.
    SwitchBoot,
    /// A callback is booked durably: keep the place without the leg. Rebuilds the entry if
    /// the pool lost it.
    RegisterVirtual(VirtualRegistration),
    /// The booking is gone.
    CancelVirtual {
        /// How it ended.
        end: CallbackEnd,
        /// Numbers the contact's reports from callback, from 1; repeats are dropped.
        report: u32,
    },
    /// A callback attempt went a step further.
    CallbackProgress {
        /// The attempt, from 1.
        attempt: u32,
        /// What happened.
        step: CallbackStep,
        /// When the next attempt may be made; `None`: none.
        next_at: Option<TimeMs>,
        /// As above.
        report: u32,
    },
    /// The caller declined what was offered.
    OfferDeclined,
    /// Callback holds the notice durably.
    NoticeAcknowledged {
        /// The notice.
        kind: NoticeKind,
        /// Its turn.
        turn: u32,
    },
    /// A command failed on the switch (`failed`) or was carried out.
    CommandDone {
        /// The command.
        command: u64,
        /// The agent it was about.
        agent: Option<AgentId>,
        /// It failed.
        failed: bool,
    },
}

/// A route request, past admission and intent.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteInput {
    /// The switch's call id.
    pub call: CallId,
    /// The dialogue.
    pub cross_ref: String,
    /// Line's name in policy.
    pub line: String,
    /// Topic id.
    pub topic: String,
    /// Confidence, 0 to 1.
    pub topic_confidence: f32,
    /// Second and third guess.
    pub other_topics: Vec<String>,
    /// Language, BCP 47 primary tag.
    pub language: String,
    /// Channel, as in cti.v1.
    pub channel: u8,
    /// Pseudonym; `None`: number withheld.
    pub caller: Option<CallerId>,
    /// Authenticated.
    pub authenticated: bool,
    /// Asked for a person, or intent was unsure.
    pub person_asked: bool,
    /// First arrival.
    pub arrived_at: TimeMs,
    /// The switch default-routes after this: nothing is reserved any more.
    pub deadline: TimeMs,
}

/// The end of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Cleared {
    /// Why.
    pub cause: Cause,
    /// Who had it last.
    pub agent: Option<AgentId>,
    /// The switch's call id.
    pub call: Option<CallId>,
    /// How it was routed.
    pub routed_by: RoutedBy,
    /// The gateway answered with a message itself: cti.v1.MessageReason, 0: it did not.
    pub blocked: u8,
    /// For contacts never heard of: the line.
    pub line: String,
    /// For contacts never heard of: first arrival.
    pub arrived_at: TimeMs,
    /// For contacts never heard of: pseudonym.
    pub caller: Option<CallerId>,
    /// For contacts never heard of: language.
    pub language: String,
    /// For contacts never heard of: channel.
    pub channel: u8,
}

/// How a call was routed in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoutedBy {
    /// Gave up before an answer.
    Nobody,
    /// By an answer of the mesh.
    Mesh,
    /// Default route: the timer ran out.
    DefaultTimer,
    /// Default route: the mesh said so.
    DefaultMesh,
    /// Default route: no link or no credit.
    DefaultNoLink,
}

/// Causes, CSTA's most used; numbered as cti.v1.Cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Not said, or not known here.
    Unspecified,
    /// After a conversation.
    NormalClearing,
    /// Busy.
    Busy,
    /// Rang out.
    CallNotAnswered,
    /// The caller gave up.
    CallCancelled,
    /// Cannot be reached.
    DestNotObtainable,
    /// Out of order.
    DestOutOfOrder,
    /// Congestion.
    NetworkCongestion,
    /// Single-step transfer.
    SingleStepTransfer,
    /// The switch restarted.
    SwitchRestart,
    /// The leg dropped without anyone hanging up.
    LegDropped,
    /// A machine answered.
    Voicemail,
}

/// Agent states as a switch reports and sets them; CSTA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SwitchAgentState {
    /// Logged off.
    Null,
    /// Logged on, takes no calls.
    NotReady,
    /// Takes calls.
    Ready,
    /// Has a call. Reported, never set.
    Busy,
    /// Wraps up.
    WorkingAfterCall,
}

/// An agent as the switch sees it now.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentUpdate {
    /// The agent.
    pub agent: AgentId,
    /// The device.
    pub device: String,
    /// The state.
    pub state: SwitchAgentState,
    /// Log-on: skills; policy's are added.
    pub skills: Vec<AgentSkill>,
    /// Log-on: languages; empty: "en".
    pub languages: Vec<String>,
    /// Log-on: contacts held at once, 1 to 8.
    pub capacity: u8,
    /// Not ready: why.
    pub reason: String,
}

/// A skill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSkill {
    /// Name in policy.
    pub skill: String,
    /// 1 to 10.
    pub proficiency: u8,
}

/// A live call in a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotCall {
    /// Where it is.
    pub place: SnapshotPlace,
    /// The agent, if any.
    pub agent: Option<AgentId>,
    /// The switch's call id.
    pub call: CallId,
    /// First arrival.
    pub arrived_at: TimeMs,
    /// Line's name in policy.
    pub line: String,
    /// Pseudonym.
    pub caller: Option<CallerId>,
    /// Language.
    pub language: String,
}

/// Where a live call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPlace {
    /// In a dialogue.
    Dialogue,
    /// At a queue's device.
    Queued,
    /// Rings at an agent.
    Alerting,
    /// Connected to an agent.
    Connected,
    /// On the default route.
    DefaultRouted,
}

/// Outcome by the agent; numbered as cti.v1.Disposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// Not said.
    Unspecified,
    /// Resolved.
    Resolved,
    /// Not resolved.
    Unresolved,
    /// Referred in writing.
    Referred,
    /// Out of scope.
    OutOfScope,
}

/// The three survey answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveyAnswers {
    /// Calls about this, today included; 0: not answered.
    pub calls_about_this: u32,
    /// All questions answered? `None`: not answered.
    pub all_answered: Option<bool>,
    /// No more calls needed? `None`: not answered.
    pub no_more_calls: Option<bool>,
}

/// A booked callback's place.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualRegistration {
    /// `None`: virtual hold, the place as it is. A window: the entry joins at its start.
    pub window: Option<(TimeMs, TimeMs)>,
    /// How long the callback rings, in ms: decides caller first or agent first.
    pub ring_ms: u64,
    /// The booking's code, shown to the agent.
    pub code: String,
    /// To rebuild the entry if the pool lost it.
    pub route: Option<RouteInput>,
    /// Numbers the contact's reports from callback, from 1.
    pub report: u32,
}

/// How a callback ended; numbered as routing.v1.CallbackEnd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallbackEnd {
    /// Connected to a person.
    Connected,
    /// All attempts used.
    Exhausted,
    /// Cancelled.
    Cancelled,
}

/// Steps of an attempt; numbered as routing.v1.CallbackStep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallbackStep {
    /// Placed.
    Dialled,
    /// A person answered.
    Answered,
    /// Rang out.
    NoAnswer,
    /// Busy.
    Busy,
    /// A machine answered.
    Voicemail,
    /// Could not be completed.
    Failed,
}

/// What callback is told until it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeKind {
    /// The caller talks to a person.
    Connected,
    /// The caller answered and was gone before a person came.
    LegLost,
}
