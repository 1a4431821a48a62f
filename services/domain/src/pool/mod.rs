//! A pool: who waits, who is ready, who gets whom.
//!
//! (Header, state and matching: owned by the pool builder.)

mod input;
mod output;

pub use input::{
    AgentSkill, AgentUpdate, CallbackEnd, CallbackStep, Cause, Cleared, Disposition, Input,
    InputBody, NoticeKind, RouteInput, RoutedBy, SnapshotCall, SnapshotPlace, SurveyAnswers,
    SwitchAgentState, SwitchRef, VirtualRegistration,
};
pub use output::{
    Answer, Command, CommandBody, ContactContext, Event, EventBody, Output, Outputs, QueuePlace,
    QueuedReason, Reply, ReplyBody, Window,
};
