//! Routing's words to the switch's.

use bytes::Bytes;
use proto::cti::v1 as cti;
use proto::routing::v1 as wire;

use crate::metrics::Answered;

/// Whether the answer holds an agent or a place.
pub(super) fn holds(answer: &wire::Answer) -> bool {
    matches!(
        answer.body,
        Some(wire::answer::Body::Agent(_) | wire::answer::Body::Queue(_))
    )
}

/// An answer as RouteSelect, its kind, and whether it holds anything; `None`: the default
/// route.
pub(super) fn select(
    cross_ref: &str,
    correlator: Bytes,
    answer: wire::Answer,
) -> Option<(Answered, bool, cti::RouteSelect)> {
    let decision = answer.decision_id;
    match answer.body? {
        wire::answer::Body::Agent(agent) => {
            let (device, treatment) = agent_treatment(agent);
            let treatment = cti::route_select::Treatment::Agent(treatment);
            Some((
                Answered::Agent,
                true,
                route_select(cross_ref, correlator, decision, device, treatment),
            ))
        }
        wire::answer::Body::Queue(queue) => {
            let (device, treatment) = queue_treatment(queue);
            let treatment = cti::route_select::Treatment::Queue(treatment);
            Some((
                Answered::Queue,
                true,
                route_select(cross_ref, correlator, decision, device, treatment),
            ))
        }
        wire::answer::Body::Message(found) => {
            let reason = i32::try_from(found.reason).unwrap_or(0);
            Some((
                Answered::Message,
                false,
                message(cross_ref, correlator, &found.announcement, reason, decision),
            ))
        }
        wire::answer::Body::DefaultRoute(_) => None,
    }
}

fn route_select(
    cross_ref: &str,
    correlator_data: Bytes,
    decision_id: String,
    device: String,
    treatment: cti::route_select::Treatment,
) -> cti::RouteSelect {
    cti::RouteSelect {
        cross_ref_id: cross_ref.to_owned(),
        route_selected: Some(cti::Device { id: device }),
        alternate_routes: Vec::new(),
        // What became of the call comes as events; RouteUsed would only repeat it.
        route_used_requested: false,
        correlator_data,
        decision_id,
        treatment: Some(treatment),
    }
}

/// A message: its announcement is the device that plays it.
pub(super) fn message(
    cross_ref: &str,
    correlator_data: Bytes,
    announcement: &str,
    reason: i32,
    decision_id: String,
) -> cti::RouteSelect {
    let treatment = cti::MessageTreatment {
        announcement: announcement.to_owned(),
        reason,
    };
    let treatment = cti::route_select::Treatment::Message(treatment);
    route_select(
        cross_ref,
        correlator_data,
        decision_id,
        announcement.to_owned(),
        treatment,
    )
}

/// The agent's device and what the caller meets there.
pub(super) fn agent_treatment(agent: wire::AgentAnswer) -> (String, cti::AgentTreatment) {
    let context = agent.context.map(|context| cti::ContactContext {
        topic: context.topic,
        topic_confidence: context.topic_confidence,
        other_topics: context.other_topics,
        language: context.language,
        waited_ms: context.waited_ms,
        transfers: context.transfers,
        authenticated: context.authenticated,
        callback_code: context.callback_code,
    });
    (
        agent.device,
        cti::AgentTreatment {
            agent_id: agent.agent_id,
            context,
        },
    )
}

/// The queue's device, the place, and what is offered: virtual hold first, then windows.
pub(super) fn queue_treatment(queue: wire::QueueAnswer) -> (String, cti::QueueTreatment) {
    let mut offers = Vec::new();
    if queue.offer_virtual_hold {
        let hold = cti::VirtualHoldOffer {
            expected_callback_ms: queue.expected_wait_ms,
        };
        offers.push(cti::offer::Kind::VirtualHold(hold));
    }
    offers.extend(queue.windows.iter().map(|window| {
        cti::offer::Kind::Window(cti::WindowOffer {
            from_ms: window.from_ms,
            until_ms: window.until_ms,
        })
    }));
    let offers = (1..).zip(offers).map(|(offer_id, kind)| cti::Offer {
        offer_id,
        kind: Some(kind),
    });
    let treatment = cti::QueueTreatment {
        queue: queue.queue,
        position: queue.position,
        expected_wait_ms: queue.expected_wait_ms,
        expected_wait_low_ms: queue.expected_wait_low_ms,
        expected_wait_high_ms: queue.expected_wait_high_ms,
        offers: offers.collect(),
    };
    (queue.device, treatment)
}

/// The agent a command is about; empty: none.
pub(super) fn agent_of(command: &wire::SwitchCommand) -> String {
    use wire::switch_command::Body;
    match &command.body {
        Some(Body::DeflectToAgent(agent)) => agent.agent_id.clone(),
        Some(Body::TransferToAgent(to)) => to
            .agent
            .as_ref()
            .map(|agent| agent.agent_id.clone())
            .unwrap_or_default(),
        Some(Body::SetAgentState(set)) => set.agent_id.clone(),
        _ => String::new(),
    }
}

/// A command of routing as the switch is told it.
pub(super) fn command_body(body: wire::switch_command::Body) -> cti::command::Body {
    use wire::switch_command::Body;
    let device = |id: String| Some(cti::Device { id });
    match body {
        Body::DeflectToAgent(agent) => {
            let (id, treatment) = agent_treatment(agent);
            let treatment = Some(cti::deflect_call::Treatment::Agent(treatment));
            cti::command::Body::Deflect(cti::DeflectCall {
                new_destination: device(id),
                treatment,
            })
        }
        Body::DeflectToQueue(queue) => {
            let (id, treatment) = queue_treatment(queue);
            let treatment = Some(cti::deflect_call::Treatment::Queue(treatment));
            cti::command::Body::Deflect(cti::DeflectCall {
                new_destination: device(id),
                treatment,
            })
        }
        Body::DeflectToMessage(message) => {
            let treatment = Some(cti::deflect_call::Treatment::Message(
                cti::MessageTreatment {
                    announcement: message.announcement.clone(),
                    reason: i32::try_from(message.reason).unwrap_or(0),
                },
            ));
            cti::command::Body::Deflect(cti::DeflectCall {
                new_destination: device(message.announcement),
                treatment,
            })
        }
        Body::TransferToAgent(to) => {
            let (id, treatment) = agent_treatment(to.agent.unwrap_or_default());
            let treatment = Some(cti::single_step_transfer::Treatment::Agent(treatment));
            cti::command::Body::Transfer(cti::SingleStepTransfer {
                transferred_to: device(id),
                warm: to.warm,
                treatment,
            })
        }
        Body::TransferToQueue(to) => {
            let (id, treatment) = queue_treatment(to.queue.unwrap_or_default());
            let treatment = Some(cti::single_step_transfer::Treatment::Queue(treatment));
            cti::command::Body::Transfer(cti::SingleStepTransfer {
                transferred_to: device(id),
                warm: to.warm,
                treatment,
            })
        }
        Body::SetAgentState(set) => cti::command::Body::SetAgentState(cti::SetAgentState {
            agent_id: set.agent_id,
            state: i32::try_from(set.state).unwrap_or(0),
            reason: set.reason,
        }),
    }
}
