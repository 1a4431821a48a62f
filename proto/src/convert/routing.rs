//! Conversions of trunkline.routing.v1.
//!
//! [`input`] checks everything a peer may say about one contact or agent, and names the
//! field, the limit and the value of the first fault; a bad input never touches the frame
//! it came in. Enumerations that a newer peer may have extended fall back to
//! "unspecified" where nothing hangs on them (causes, channels, dispositions) and are
//! refused where the pool would have to guess (agent states, callback steps and ends,
//! snapshot places, notice kinds).

mod field;
mod output;

pub use output::{answer, command, notice, reply, virtual_due};

use domain::id::FieldError;
use domain::pool::{
    AgentSkill, AgentUpdate, Cleared, Input, InputBody, NoticeKind, RouteInput, RoutedBy,
    SnapshotCall, SnapshotPlace, SurveyAnswers, SwitchRef, VirtualRegistration,
};
use domain::{BootId, ContactId, SwitchId, TimeMs};

use self::field::{
    agent, agent_state, at_most, call, callback_end, callback_step, caller, cause, channel, device,
    disposition, language, name, optional_agent, optional_name, printable, printable_or_empty,
    report, time, traceparent, yes_or_no,
};
use crate::routing::v1;
use crate::routing::v1::input::Body;

/// Most skills of one log-on.
const SKILLS_MAX: usize = 64;
/// Most languages of one log-on.
const LANGUAGES_MAX: usize = 16;
/// Most contacts an agent may hold at once.
const CAPACITY_MAX: u32 = 8;
/// Most other topics of a route.
const OTHER_TOPICS_MAX: usize = 8;
/// Longest ring of a callback, in milliseconds.
const RING_MS_MAX: u32 = 300_000;

/// Everything about one input but its reply: checked, and ready for the pool.
///
/// `token` takes the place of `request_id`, which is unique on one stream only.
///
/// # Errors
/// The first field outside its limits.
pub fn input(wire: v1::Input, token: u64) -> Result<Input, FieldError> {
    let contact = match wire.contact_id.len() {
        0 => None,
        _ => Some(ContactId::from_bytes(&wire.contact_id)?),
    };
    let source = source(&wire.switch_id, wire.boot_id)?;
    let occurred_at = time("occurred_at_ms", wire.occurred_at_ms)?;
    let traceparent = traceparent(wire.traceparent)?;
    let body = wire
        .body
        .ok_or_else(|| FieldError::new("body", "exactly one body", "none"))?;
    if contact.is_none() && needs_contact(&body) {
        return Err(FieldError::new("contact_id", "exactly 16 bytes", "0 bytes"));
    }
    let body = input_body(body)?;
    if source.is_none() && needs_switch(&body) {
        return Err(FieldError::new(
            "switch_id",
            "1 to 64 bytes of [A-Za-z0-9._-]",
            "",
        ));
    }
    Ok(Input {
        token,
        contact,
        source,
        occurred_at,
        traceparent,
        body,
    })
}

/// What became of a command, as an input.
///
/// # Errors
/// The contact or the agent cannot be understood.
pub fn command_outcome(wire: v1::CommandOutcome, now: TimeMs) -> Result<Input, FieldError> {
    let contact = match wire.contact_id.len() {
        0 => None,
        _ => Some(ContactId::from_bytes(&wire.contact_id)?),
    };
    Ok(Input {
        token: 0,
        contact,
        source: None,
        occurred_at: now,
        traceparent: String::new(),
        body: InputBody::CommandDone {
            command: wire.command_id,
            agent: optional_agent("agent_id", &wire.agent_id)?,
            failed: wire.error != 0,
        },
    })
}

/// A notice that callback holds, as an input.
///
/// # Errors
/// The contact or the kind cannot be understood.
pub fn notice_acknowledgement(
    wire: &v1::NoticeAcknowledgement,
    now: TimeMs,
) -> Result<Input, FieldError> {
    let kind = match v1::CallbackNoticeKind::try_from(wire.kind) {
        Ok(v1::CallbackNoticeKind::Connected) => NoticeKind::Connected,
        Ok(v1::CallbackNoticeKind::LegLost) => NoticeKind::LegLost,
        Ok(v1::CallbackNoticeKind::Unspecified) | Err(_) => {
            return Err(FieldError::new(
                "kind",
                "a kind of notice, 1 or 2",
                wire.kind,
            ));
        }
    };
    Ok(Input {
        token: 0,
        contact: Some(ContactId::from_bytes(&wire.contact_id)?),
        source: None,
        occurred_at: now,
        traceparent: String::new(),
        body: InputBody::NoticeAcknowledged {
            kind,
            turn: wire.turn,
        },
    })
}

fn input_body(body: Body) -> Result<InputBody, FieldError> {
    Ok(match body {
        Body::Route(route) => InputBody::Route(route_input(route)?),
        Body::Reroute(reroute) => InputBody::Reroute {
            cause: cause(reroute.cause),
            deadline: time("reroute.deadline_at_ms", reroute.deadline_at_ms)?,
        },
        Body::RouteFailed(failed) => InputBody::RouteFailed {
            caller_gave_up: failed.error == crate::cti::v1::RouteEndError::CallCancelled as u32,
        },
        Body::Delivered(delivered) => InputBody::Delivered {
            agent: agent("delivered.agent_id", &delivered.agent_id)?,
        },
        Body::Established(established) => InputBody::Established {
            agent: agent("established.agent_id", &established.agent_id)?,
        },
        Body::Failed(failed) => InputBody::Failed {
            agent: optional_agent("failed.agent_id", &failed.agent_id)?,
            cause: cause(failed.cause),
        },
        Body::Cleared(wire) => InputBody::Cleared(cleared(wire)?),
        Body::Agent(update) => InputBody::Agent(agent_update(update)?),
        Body::WrappedUp(wrapped) => InputBody::WrappedUp {
            agent: agent("wrapped_up.agent_id", &wrapped.agent_id)?,
            disposition: disposition(wrapped.disposition),
            topic: optional_name("wrapped_up.topic", wrapped.topic)?,
        },
        Body::Survey(survey) => InputBody::Survey(SurveyAnswers {
            calls_about_this: at_most("survey.calls_about_this", survey.calls_about_this, 1_000)?,
            all_answered: yes_or_no("survey.all_answered", survey.all_answered)?,
            no_more_calls: yes_or_no("survey.no_more_calls", survey.no_more_calls)?,
        }),
        Body::Transfer(transfer) => InputBody::Transfer {
            from: agent("transfer.from_agent_id", &transfer.from_agent_id)?,
            topic: name("transfer.topic", transfer.topic)?,
            warm: transfer.warm,
            authenticated: transfer.authenticated,
        },
        Body::Moved(moved) => InputBody::Moved {
            from: agent("moved.from_agent_id", &moved.from_agent_id)?,
            to: optional_agent("moved.to_agent_id", &moved.to_agent_id)?,
        },
        Body::Snapshot(part) => snapshot_part(part)?,
        Body::RegisterVirtual(wire) => InputBody::RegisterVirtual(registration(wire)?),
        Body::CancelVirtual(cancel) => InputBody::CancelVirtual {
            end: callback_end(cancel.end)?,
            report: report("cancel_virtual.report_sequence", cancel.report_sequence)?,
        },
        Body::CallbackProgress(progress) => InputBody::CallbackProgress {
            attempt: progress.attempt,
            step: callback_step(progress.step)?,
            next_at: match progress.next_at_ms {
                0 => None,
                at_ms => Some(time("callback_progress.next_at_ms", at_ms)?),
            },
            report: report(
                "callback_progress.report_sequence",
                progress.report_sequence,
            )?,
        },
        Body::OfferDeclined(_) => InputBody::OfferDeclined,
        Body::SwitchBoot(_) => InputBody::SwitchBoot,
        Body::AtQueue(_) => InputBody::AtQueue,
    })
}

/// Agent, boot and snapshot inputs go without a contact; a snapshot's call has one.
fn needs_contact(body: &Body) -> bool {
    match body {
        Body::Agent(_) | Body::SwitchBoot(_) => false,
        Body::Snapshot(part) => matches!(part.body, Some(v1::snapshot_part::Body::Call(_))),
        _ => true,
    }
}

/// What only a switch can tell.
fn needs_switch(body: &InputBody) -> bool {
    !matches!(
        body,
        InputBody::RegisterVirtual(_)
            | InputBody::CancelVirtual { .. }
            | InputBody::CallbackProgress { .. }
            | InputBody::NoticeAcknowledged { .. }
            | InputBody::CommandDone { .. }
    )
}

fn source(switch: &str, boot: u64) -> Result<Option<SwitchRef>, FieldError> {
    if switch.is_empty() {
        return Ok(None);
    }
    if boot == 0 {
        return Err(FieldError::new("boot_id", "never 0 with a switch", 0));
    }
    Ok(Some(SwitchRef {
        switch: SwitchId::parse(switch)?,
        boot: BootId(boot),
    }))
}

fn route_input(route: v1::Route) -> Result<RouteInput, FieldError> {
    if !(0.0..=1.0).contains(&route.topic_confidence) {
        return Err(FieldError::new(
            "route.topic_confidence",
            "0 to 1",
            route.topic_confidence,
        ));
    }
    if route.other_topics.len() > OTHER_TOPICS_MAX {
        return Err(FieldError::new(
            "route.other_topics",
            format!("at most {OTHER_TOPICS_MAX}"),
            route.other_topics.len(),
        ));
    }
    let mut other_topics = Vec::with_capacity(route.other_topics.len());
    for topic in route.other_topics {
        other_topics.push(name("route.other_topics", topic)?);
    }
    Ok(RouteInput {
        call: call("route.call_id", &route.call_id)?,
        cross_ref: printable("route.cross_ref_id", route.cross_ref_id, 64)?,
        // Empty for a leg of a known contact that was dialled to another number; the pool
        // refuses it for a new one.
        line: optional_name("route.line", route.line)?.unwrap_or_default(),
        topic: name("route.topic", route.topic)?,
        topic_confidence: route.topic_confidence,
        other_topics,
        language: language("route.language", &route.language)?,
        channel: channel(route.channel),
        caller: caller("route.caller", &route.caller)?,
        authenticated: route.authenticated,
        person_asked: route.person_asked,
        arrived_at: time("route.arrived_at_ms", route.arrived_at_ms)?,
        deadline: time("route.deadline_at_ms", route.deadline_at_ms)?,
    })
}

fn cleared(wire: v1::Cleared) -> Result<Cleared, FieldError> {
    Ok(Cleared {
        cause: cause(wire.cause),
        agent: optional_agent("cleared.agent_id", &wire.agent_id)?,
        call: match wire.call_id.as_str() {
            "" => None,
            text => Some(call("cleared.call_id", text)?),
        },
        routed_by: match crate::cti::v1::RoutedBy::try_from(
            i32::try_from(wire.routed_by).unwrap_or(-1),
        ) {
            Ok(crate::cti::v1::RoutedBy::Unspecified) => RoutedBy::Nobody,
            Ok(crate::cti::v1::RoutedBy::Mesh) => RoutedBy::Mesh,
            Ok(crate::cti::v1::RoutedBy::DefaultTimer) => RoutedBy::DefaultTimer,
            Ok(crate::cti::v1::RoutedBy::DefaultMesh) => RoutedBy::DefaultMesh,
            Ok(crate::cti::v1::RoutedBy::DefaultNoLink) => RoutedBy::DefaultNoLink,
            // How a call was routed decides which measure it counts in: no guess.
            Err(_) => {
                return Err(FieldError::new(
                    "cleared.routed_by",
                    "0 to 4",
                    wire.routed_by,
                ));
            }
        },
        blocked: u8::try_from(wire.blocked)
            .map_err(|_| FieldError::new("cleared.blocked", "0 to 255", wire.blocked))?,
        line: optional_name("cleared.line", wire.line)?.unwrap_or_default(),
        arrived_at: time("cleared.arrived_at_ms", wire.arrived_at_ms)?,
        caller: caller("cleared.caller", &wire.caller)?,
        language: language("cleared.language", &wire.language)?,
        channel: channel(wire.channel),
    })
}

fn agent_update(update: v1::AgentChanged) -> Result<AgentUpdate, FieldError> {
    if update.skills.len() > SKILLS_MAX {
        let limit = format!("at most {SKILLS_MAX}");
        return Err(FieldError::new("agent.skills", limit, update.skills.len()));
    }
    if update.languages.len() > LANGUAGES_MAX {
        let limit = format!("at most {LANGUAGES_MAX}");
        return Err(FieldError::new(
            "agent.languages",
            limit,
            update.languages.len(),
        ));
    }
    let mut skills = Vec::with_capacity(update.skills.len());
    for skill in update.skills {
        let proficiency = u8::try_from(skill.proficiency)
            .ok()
            .filter(|proficiency| (1..=10).contains(proficiency))
            .ok_or_else(|| {
                FieldError::new("agent.skills.proficiency", "1 to 10", skill.proficiency)
            })?;
        skills.push(AgentSkill {
            skill: name("agent.skills.skill", skill.skill)?,
            proficiency,
        });
    }
    let mut languages = Vec::with_capacity(update.languages.len());
    for tag in &update.languages {
        languages.push(language("agent.languages", tag)?);
    }
    let capacity = at_most("agent.capacity", update.capacity, CAPACITY_MAX)?.max(1);
    Ok(AgentUpdate {
        agent: agent("agent.agent_id", &update.agent_id)?,
        device: device("agent.device", update.device)?,
        state: agent_state(update.state)?,
        skills,
        languages,
        capacity: u8::try_from(capacity).expect("at most 8"),
        reason: printable_or_empty("agent.reason", update.reason, 32)?,
    })
}

fn snapshot_part(part: v1::SnapshotPart) -> Result<InputBody, FieldError> {
    use v1::snapshot_part::Body as Part;
    Ok(match part.body {
        Some(Part::Begin(_)) => InputBody::SnapshotBegin,
        Some(Part::Agent(update)) => InputBody::SnapshotAgent(agent_update(update)?),
        Some(Part::End(_)) => InputBody::SnapshotEnd,
        Some(Part::Call(wire)) => InputBody::SnapshotCall(SnapshotCall {
            place: match wire.place {
                0 => SnapshotPlace::Dialogue,
                1 => SnapshotPlace::Queued,
                2 => SnapshotPlace::Alerting,
                3 => SnapshotPlace::Connected,
                4 => SnapshotPlace::DefaultRouted,
                other => return Err(FieldError::new("snapshot.call.place", "0 to 4", other)),
            },
            agent: optional_agent("snapshot.call.agent_id", &wire.agent_id)?,
            call: call("snapshot.call.call_id", &wire.call_id)?,
            arrived_at: time("snapshot.call.arrived_at_ms", wire.arrived_at_ms)?,
            line: optional_name("snapshot.call.line", wire.line)?.unwrap_or_default(),
            caller: caller("snapshot.call.caller", &wire.caller)?,
            language: language("snapshot.call.language", &wire.language)?,
        }),
        None => return Err(FieldError::new("snapshot.body", "exactly one body", "none")),
    })
}

fn registration(wire: v1::RegisterVirtual) -> Result<VirtualRegistration, FieldError> {
    let window = if wire.window {
        let from = time("register_virtual.from_ms", wire.from_ms)?;
        let until = time("register_virtual.until_ms", wire.until_ms)?;
        if until <= from {
            return Err(FieldError::new(
                "register_virtual.until_ms",
                "after from_ms",
                until,
            ));
        }
        Some((from, until))
    } else {
        None
    };
    Ok(VirtualRegistration {
        window,
        ring_ms: u64::from(at_most(
            "register_virtual.ring_ms",
            wire.ring_ms,
            RING_MS_MAX,
        )?),
        code: printable_or_empty("register_virtual.code", wire.code, 16)?,
        route: wire.route.map(route_input).transpose()?,
        report: report("register_virtual.report_sequence", wire.report_sequence)?,
    })
}

#[cfg(test)]
mod tests;
