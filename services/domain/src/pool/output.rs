//! What a pool asks its shell to do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::input::{
    CallbackEnd, CallbackStep, Cause, Disposition, NoticeKind, RoutedBy, SurveyAnswers,
    SwitchAgentState, SwitchRef,
};
use crate::id::FieldError;
use crate::invariant::Violation;
use crate::{AgentId, CallId, CallerId, ContactId, TimeMs};

/// The caller's reused buffer.
pub type Outputs = Vec<Output>;

/// One output. Replies, commands and notices may be carried out only when the changes and
/// events of the same batch are durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Answers one input.
    Reply(Reply),
    /// Tells a switch.
    Command(Command),
    /// A virtual entry's turn nears: tell callback.
    VirtualDue {
        /// The contact.
        contact: ContactId,
        /// An agent is held for it.
        agent_held: bool,
        /// Numbers the turns of this contact, from 1.
        turn: u32,
        /// W3C trace context.
        traceparent: String,
    },
    /// Tell callback, until it acknowledges.
    Notice {
        /// The contact.
        contact: ContactId,
        /// What.
        kind: NoticeKind,
        /// About which turn.
        turn: u32,
    },
    /// An event of a contact, to be written with the batch.
    Event(Event),
    /// A promise was broken: count it.
    Violation(Violation),
}

/// Answers the input with the same token.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// As in the input.
    pub token: u64,
    /// The answer.
    pub body: ReplyBody,
}

/// The answer to one input.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyBody {
    /// To `Route` and `Reroute`.
    Answer {
        /// Numbers the contact's decisions, from 1.
        decision: u32,
        /// Who takes it.
        answer: Answer,
    },
    /// Done, or known already.
    Acknowledged,
    /// Nonsense; nothing changed.
    Refused(FieldError),
}

/// Who takes the contact.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A person now.
    Agent {
        /// Who.
        agent: AgentId,
        /// Where.
        device: String,
        /// What the agent sees.
        context: ContactContext,
    },
    /// A place in line.
    Queue(QueuePlace),
    /// A message.
    Message {
        /// Name in policy.
        announcement: String,
        /// cti.v1.MessageReason.
        reason: u8,
    },
    /// Nothing that could be answered (too late, or gone): the default route.
    DefaultRoute,
}

/// What the agent sees.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactContext {
    /// Topic id.
    pub topic: String,
    /// Confidence.
    pub topic_confidence: f32,
    /// Second and third guess.
    pub other_topics: Vec<String>,
    /// Language.
    pub language: String,
    /// Since first arrival, in ms.
    pub waited_ms: u64,
    /// Transfers so far.
    pub transfers: u32,
    /// Authenticated.
    pub authenticated: bool,
    /// Callback code; empty: not a callback.
    pub callback_code: String,
}

/// A place in line.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuePlace {
    /// Queue's name.
    pub queue: String,
    /// Its treatment device.
    pub device: String,
    /// 1 is next.
    pub position: u32,
    /// Expected wait, in ms.
    pub expected_wait_ms: u64,
    /// Lower end of the 80 % interval.
    pub expected_wait_low_ms: u64,
    /// Upper end.
    pub expected_wait_high_ms: u64,
    /// Virtual hold may be offered.
    pub offer_virtual_hold: bool,
    /// Windows that may be offered.
    pub windows: Vec<Window>,
}

/// A callback window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Start.
    pub from: TimeMs,
    /// End.
    pub until: TimeMs,
}

/// A command for a switch.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Correlates the result: unique in this pool's life.
    pub id: u64,
    /// The switch.
    pub target: SwitchRef,
    /// The call; `None` for agent commands.
    pub call: Option<CallId>,
    /// The contact; `None` for agent commands.
    pub contact: Option<ContactId>,
    /// W3C trace context.
    pub traceparent: String,
    /// What to do.
    pub body: CommandBody,
}

/// What the switch is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandBody {
    /// Move a waiting call to an agent; `Answer::Agent`, `Answer::Queue` or `Answer::Message`.
    Deflect(Answer),
    /// Move a connected call (transfer); `Answer::Agent` or `Answer::Queue`.
    Transfer {
        /// Where.
        to: Answer,
        /// The first agent stays until the next person answers.
        warm: bool,
    },
    /// Set an agent's state.
    SetAgentState {
        /// The agent.
        agent: AgentId,
        /// The state.
        state: SwitchAgentState,
        /// Why.
        reason: &'static str,
    },
}

/// One event of a contact: what is written to the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The contact.
    pub contact: ContactId,
    /// From 1, without gap.
    pub sequence: u64,
    /// When.
    pub at: TimeMs,
    /// W3C trace context.
    pub traceparent: Arc<str>,
    /// Line's name.
    pub line: Arc<str>,
    /// Topic id at this event.
    pub topic: Arc<str>,
    /// Queue; empty: none yet.
    pub queue: Arc<str>,
    /// Language.
    pub language: Arc<str>,
    /// Channel.
    pub channel: u8,
    /// Pseudonym.
    pub caller: Option<CallerId>,
    /// First arrival.
    pub arrived_at: TimeMs,
    /// The switch; empty: none.
    pub switch: Arc<str>,
    /// What happened.
    pub body: EventBody,
}

/// Why a contact is in line; numbered as event.v1.QueuedReason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueuedReason {
    /// Nobody was free.
    Arrival,
    /// The agent did not answer.
    NotAnswered,
    /// Transferred.
    Transfer,
    /// The callback's caller answered.
    Callback,
    /// The leg dropped, or a process was lost.
    Recovered,
}

/// What happened; the variants are event.v1's bodies, where each field is explained.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are explained once, in event.v1")]
pub enum EventBody {
    Offered {
        topic_confidence: f32,
        person_asked: bool,
        authenticated: bool,
    },
    Queued {
        position: u32,
        expected_wait_ms: u64,
        low_ms: u64,
        high_ms: u64,
        reason: QueuedReason,
        place_from: TimeMs,
    },
    OfferMade {
        virtual_hold: bool,
        windows: u32,
    },
    OfferDeclined,
    Assigned {
        agent: AgentId,
        assignment: u32,
        waited_ms: u64,
    },
    Delivered {
        agent: AgentId,
    },
    Established {
        agent: AgentId,
        waited_ms: u64,
        callback: bool,
        first: bool,
        nuisance_hold_ms: u64,
        agent_held_ms: u64,
    },
    NotAnswered {
        agent: AgentId,
        cause: Cause,
    },
    TransferRequested {
        from: AgentId,
        from_topic: String,
        to_topic: String,
        warm: bool,
    },
    Transferred {
        from: AgentId,
        to: AgentId,
    },
    Disconnected {
        agent: AgentId,
        talk_ms: u64,
    },
    WrappedUp {
        agent: AgentId,
        disposition: Disposition,
        handle_ms: u64,
        timed_out: bool,
    },
    Abandoned {
        waited_ms: u64,
        ringing: bool,
    },
    CallbackBooked {
        window: Option<Window>,
    },
    CallbackAttempted {
        attempt: u32,
        step: CallbackStep,
    },
    CallbackEnded {
        end: CallbackEnd,
        attempts: u32,
    },
    DefaultRouted {
        by: RoutedBy,
    },
    Blocked {
        reason: u8,
    },
    SurveyAnswered(SurveyAnswers),
    Closed,
}
