//! Domain to wire: replies, commands, turns and notices.

use bytes::Bytes;
use domain::ContactId;
use domain::pool::{
    Answer, Command, CommandBody, ContactContext, NoticeKind, QueuePlace, ReplyBody,
    SwitchAgentState,
};

use crate::routing::v1;
use crate::routing::v1::reply::Body as ReplyOneof;
use crate::routing::v1::switch_command::Body as CommandOneof;

fn contact_bytes(contact: ContactId) -> Bytes {
    Bytes::copy_from_slice(&contact.to_bytes())
}

/// The reply to the input named `request_id` on its stream. `contact` names the decision.
#[must_use]
pub fn reply(request_id: u64, contact: Option<ContactId>, body: ReplyBody) -> v1::Reply {
    let body = match body {
        ReplyBody::Answer {
            decision,
            answer: taken,
        } => {
            let contact = contact.unwrap_or_default();
            ReplyOneof::Answer(answer(format!("{contact}/{decision}"), taken))
        }
        ReplyBody::Acknowledged => ReplyOneof::Acknowledged(v1::Acknowledged {}),
        ReplyBody::Refused(fault) => ReplyOneof::Refused(v1::Refused {
            field: fault.field.to_owned(),
            limit: fault.limit,
            value: fault.value,
        }),
    };
    v1::Reply {
        request_id,
        body: Some(body),
    }
}

/// Who takes the contact.
#[must_use]
pub fn answer(decision_id: String, answer: Answer) -> v1::Answer {
    use v1::answer::Body;
    let body = match answer {
        Answer::Agent {
            agent,
            device,
            context,
        } => Body::Agent(agent_answer(agent.as_str(), device, context)),
        Answer::Queue(place) => Body::Queue(queue_answer(place)),
        Answer::Message {
            announcement,
            reason,
        } => Body::Message(v1::MessageAnswer {
            announcement,
            reason: u32::from(reason),
        }),
        Answer::DefaultRoute => Body::DefaultRoute(v1::DefaultRoute {}),
    };
    v1::Answer {
        decision_id,
        body: Some(body),
    }
}

fn agent_answer(agent: &str, device: String, context: ContactContext) -> v1::AgentAnswer {
    v1::AgentAnswer {
        agent_id: agent.to_owned(),
        device,
        context: Some(v1::Context {
            topic: context.topic,
            topic_confidence: context.topic_confidence,
            other_topics: context.other_topics,
            language: context.language,
            waited_ms: context.waited_ms,
            transfers: context.transfers,
            authenticated: context.authenticated,
            callback_code: context.callback_code,
        }),
    }
}

fn queue_answer(place: QueuePlace) -> v1::QueueAnswer {
    v1::QueueAnswer {
        queue: place.queue,
        device: place.device,
        position: place.position,
        expected_wait_ms: place.expected_wait_ms,
        expected_wait_low_ms: place.expected_wait_low_ms,
        expected_wait_high_ms: place.expected_wait_high_ms,
        offer_virtual_hold: place.offer_virtual_hold,
        windows: place
            .windows
            .iter()
            .map(|window| v1::Window {
                from_ms: window.from.0,
                until_ms: window.until.0,
            })
            .collect(),
    }
}

/// A command for the gateway on which its switch is attached. `None`: a body that has no
/// place on the wire (a transfer to a message or to the default route).
#[must_use]
pub fn command(pool: &str, command: Command) -> Option<v1::SwitchCommand> {
    let body = match command.body {
        CommandBody::Deflect(Answer::Agent {
            agent,
            device,
            context,
        }) => CommandOneof::DeflectToAgent(agent_answer(agent.as_str(), device, context)),
        CommandBody::Deflect(Answer::Queue(place)) => {
            CommandOneof::DeflectToQueue(queue_answer(place))
        }
        CommandBody::Deflect(Answer::Message {
            announcement,
            reason,
        }) => CommandOneof::DeflectToMessage(v1::MessageAnswer {
            announcement,
            reason: u32::from(reason),
        }),
        CommandBody::Transfer {
            to:
                Answer::Agent {
                    agent,
                    device,
                    context,
                },
            warm,
        } => {
            let agent = Some(agent_answer(agent.as_str(), device, context));
            CommandOneof::TransferToAgent(v1::TransferToAgent { agent, warm })
        }
        CommandBody::Transfer {
            to: Answer::Queue(place),
            warm,
        } => {
            let queue = Some(queue_answer(place));
            CommandOneof::TransferToQueue(v1::TransferToQueue { queue, warm })
        }
        CommandBody::SetAgentState {
            agent,
            state,
            reason,
        } => CommandOneof::SetAgentState(v1::SetAgentState {
            agent_id: agent.as_str().to_owned(),
            state: agent_state(state),
            reason: reason.to_owned(),
        }),
        CommandBody::Deflect(Answer::DefaultRoute)
        | CommandBody::Transfer {
            to: Answer::Message { .. } | Answer::DefaultRoute,
            ..
        } => return None,
    };
    Some(v1::SwitchCommand {
        command_id: command.id,
        pool: pool.to_owned(),
        switch_id: command.target.switch.as_str().to_owned(),
        boot_id: command.target.boot.0,
        call_id: command
            .call
            .map(|call| call.as_str().to_owned())
            .unwrap_or_default(),
        contact_id: command.contact.map(contact_bytes).unwrap_or_default(),
        traceparent: command.traceparent,
        body: Some(body),
    })
}

/// A virtual entry's turn.
#[must_use]
pub fn virtual_due(
    pool: &str,
    contact: ContactId,
    agent_held: bool,
    turn: u32,
    traceparent: String,
) -> v1::VirtualDue {
    v1::VirtualDue {
        pool: pool.to_owned(),
        contact_id: contact_bytes(contact),
        agent_held,
        turn,
        traceparent,
    }
}

/// What became of a callback.
#[must_use]
pub fn notice(pool: &str, contact: ContactId, kind: NoticeKind, turn: u32) -> v1::CallbackNotice {
    let kind = match kind {
        NoticeKind::Connected => v1::CallbackNoticeKind::Connected,
        NoticeKind::LegLost => v1::CallbackNoticeKind::LegLost,
    };
    v1::CallbackNotice {
        pool: pool.to_owned(),
        contact_id: contact_bytes(contact),
        kind: kind.into(),
        turn,
    }
}

fn agent_state(state: SwitchAgentState) -> u32 {
    match state {
        SwitchAgentState::Null => 1,
        SwitchAgentState::NotReady => 2,
        SwitchAgentState::Ready => 3,
        SwitchAgentState::Busy => 4,
        SwitchAgentState::WorkingAfterCall => 5,
    }
}
