//! Conversions of trunkline.routing.v1.
//!
//! [`input`] checks everything a peer may say about one contact or agent, and names the
//! field, the limit and the value of the first fault; a bad input never touches the frame
//! it came in. Enumerations that a newer peer may have extended fall back to
//! "unspecified" where nothing hangs on them (causes, channels, dispositions) and are
//! refused where the pool would have to guess (agent states, callback steps and ends,
//! snapshot places, notice kinds).

mod output;

pub use output::{answer, command, notice, reply, virtual_due};

use domain::id::FieldError;
use domain::pool::{
    AgentSkill, AgentUpdate, CallbackEnd, CallbackStep, Cause, Cleared, Disposition, Input,
    InputBody, NoticeKind, RouteInput, RoutedBy, SnapshotCall, SnapshotPlace, SurveyAnswers,
    SwitchAgentState, SwitchRef, VirtualRegistration,
};
use domain::{AgentId, BootId, CallId, CallerId, ContactId, SwitchId, TimeMs};

use crate::routing::v1;
use crate::routing::v1::input::Body;

/// Longest traceparent taken, in bytes; W3C's version 00 is 55.
const TRACEPARENT_BYTES_MAX: usize = 128;
/// Most skills of one log-on.
const SKILLS_MAX: usize = 64;
/// Most languages of one log-on.
const LANGUAGES_MAX: usize = 16;
/// Most contacts an agent may hold at once.
const CAPACITY_MAX: u32 = 8;
/// Most other topics of a route.
const OTHER_TOPICS_MAX: usize = 8;
/// Latest moment taken, epoch milliseconds (year 2200): a sender that counts in
/// microseconds is refused, not believed.
const TIME_MS_MAX: u64 = 7_258_118_400_000;
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
    let body = wire.body.ok_or_else(|| FieldError::new("body", "exactly one body", "none"))?;
    if contact.is_none() && needs_contact(&body) {
        return Err(FieldError::new("contact_id", "exactly 16 bytes", "0 bytes"));
    }
    let body = input_body(body)?;
    if source.is_none() && needs_switch(&body) {
        return Err(FieldError::new("switch_id", "1 to 64 bytes of [A-Za-z0-9._-]", ""));
    }
    Ok(Input { token, contact, source, occurred_at, traceparent, body })
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
pub fn notice_acknowledgement(wire: &v1::NoticeAcknowledgement, now: TimeMs) -> Result<Input, FieldError> {
    let kind = match v1::CallbackNoticeKind::try_from(wire.kind) {
        Ok(v1::CallbackNoticeKind::Connected) => NoticeKind::Connected,
        Ok(v1::CallbackNoticeKind::LegLost) => NoticeKind::LegLost,
        Ok(v1::CallbackNoticeKind::Unspecified) | Err(_) => {
            return Err(FieldError::new("kind", "a kind of notice, 1 or 2", wire.kind));
        }
    };
    Ok(Input {
        token: 0,
        contact: Some(ContactId::from_bytes(&wire.contact_id)?),
        source: None,
        occurred_at: now,
        traceparent: String::new(),
        body: InputBody::NoticeAcknowledged { kind, turn: wire.turn },
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
        Body::Delivered(delivered) => {
            InputBody::Delivered { agent: agent("delivered.agent_id", &delivered.agent_id)? }
        }
        Body::Established(established) => {
            InputBody::Established { agent: agent("established.agent_id", &established.agent_id)? }
        }
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
            report: report("callback_progress.report_sequence", progress.report_sequence)?,
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
    Ok(Some(SwitchRef { switch: SwitchId::parse(switch)?, boot: BootId(boot) }))
}

fn route_input(route: v1::Route) -> Result<RouteInput, FieldError> {
    if !(0.0..=1.0).contains(&route.topic_confidence) {
        return Err(FieldError::new("route.topic_confidence", "0 to 1", route.topic_confidence));
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
        line: name("route.line", route.line)?,
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
        routed_by: match crate::cti::v1::RoutedBy::try_from(i32::try_from(wire.routed_by).unwrap_or(-1)) {
            Ok(crate::cti::v1::RoutedBy::Unspecified) => RoutedBy::Nobody,
            Ok(crate::cti::v1::RoutedBy::Mesh) => RoutedBy::Mesh,
            Ok(crate::cti::v1::RoutedBy::DefaultTimer) => RoutedBy::DefaultTimer,
            Ok(crate::cti::v1::RoutedBy::DefaultMesh) => RoutedBy::DefaultMesh,
            Ok(crate::cti::v1::RoutedBy::DefaultNoLink) => RoutedBy::DefaultNoLink,
            // How a call was routed decides which measure it counts in: no guess.
            Err(_) => return Err(FieldError::new("cleared.routed_by", "0 to 4", wire.routed_by)),
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
        return Err(FieldError::new("agent.languages", limit, update.languages.len()));
    }
    let mut skills = Vec::with_capacity(update.skills.len());
    for skill in update.skills {
        let proficiency = u8::try_from(skill.proficiency)
            .ok()
            .filter(|proficiency| (1..=10).contains(proficiency))
            .ok_or_else(|| FieldError::new("agent.skills.proficiency", "1 to 10", skill.proficiency))?;
        skills.push(AgentSkill { skill: name("agent.skills.skill", skill.skill)?, proficiency });
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
            return Err(FieldError::new("register_virtual.until_ms", "after from_ms", until));
        }
        Some((from, until))
    } else {
        None
    };
    Ok(VirtualRegistration {
        window,
        ring_ms: u64::from(at_most("register_virtual.ring_ms", wire.ring_ms, RING_MS_MAX)?),
        code: printable_or_empty("register_virtual.code", wire.code, 16)?,
        route: wire.route.map(route_input).transpose()?,
        report: report("register_virtual.report_sequence", wire.report_sequence)?,
    })
}

// ------------------------------------------------------------------ single fields

fn renamed(field: &'static str) -> impl Fn(FieldError) -> FieldError {
    move |fault| FieldError { field, ..fault }
}

fn agent(field: &'static str, text: &str) -> Result<AgentId, FieldError> {
    AgentId::parse(text).map_err(renamed(field))
}

fn optional_agent(field: &'static str, text: &str) -> Result<Option<AgentId>, FieldError> {
    if text.is_empty() { Ok(None) } else { agent(field, text).map(Some) }
}

fn call(field: &'static str, text: &str) -> Result<CallId, FieldError> {
    CallId::parse(text).map_err(renamed(field))
}

fn time(field: &'static str, at_ms: u64) -> Result<TimeMs, FieldError> {
    if at_ms > TIME_MS_MAX {
        let limit = format!("epoch milliseconds, at most {TIME_MS_MAX}");
        return Err(FieldError::new(field, limit, at_ms));
    }
    Ok(TimeMs(at_ms))
}

fn at_most(field: &'static str, value: u32, max: u32) -> Result<u32, FieldError> {
    if value > max {
        return Err(FieldError::new(field, format!("at most {max}"), value));
    }
    Ok(value)
}

fn report(field: &'static str, sequence: u32) -> Result<u32, FieldError> {
    if sequence == 0 {
        return Err(FieldError::new(field, "from 1", 0));
    }
    Ok(sequence)
}

/// A name in policy: a line, a topic, a skill.
fn name(field: &'static str, text: String) -> Result<String, FieldError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        let limit = "1 to 64 bytes of [A-Za-z0-9._-]";
        return Err(FieldError::new(field, limit, text.escape_default()));
    }
    Ok(text)
}

fn optional_name(field: &'static str, text: String) -> Result<Option<String>, FieldError> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

fn printable(field: &'static str, text: String, bytes_max: usize) -> Result<String, FieldError> {
    let fits = (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !fits {
        let limit = format!("1 to {bytes_max} bytes of printable ASCII");
        return Err(FieldError::new(field, limit, text.escape_default()));
    }
    Ok(text)
}

fn printable_or_empty(field: &'static str, text: String, bytes_max: usize) -> Result<String, FieldError> {
    if text.is_empty() { Ok(text) } else { printable(field, text, bytes_max) }
}

/// A device, which unlike other fields may be a number: its value is not shown.
fn device(field: &'static str, text: String) -> Result<String, FieldError> {
    if text.len() > 128 || text.chars().any(char::is_control) {
        let value = format!("{} bytes", text.len());
        return Err(FieldError::new(field, "at most 128 bytes without control characters", value));
    }
    Ok(text)
}

fn traceparent(text: String) -> Result<String, FieldError> {
    if text.is_empty() {
        return Ok(text);
    }
    printable("traceparent", text, TRACEPARENT_BYTES_MAX)
}

/// The primary subtag in lower case; empty when not known.
fn language(field: &'static str, text: &str) -> Result<String, FieldError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.len() > 35 || !text.bytes().all(allowed) {
        let limit = "a BCP 47 tag of at most 35 bytes";
        return Err(FieldError::new(field, limit, text.escape_default()));
    }
    let primary = text.split_once('-').map_or(text, |(primary, _)| primary);
    Ok(primary.to_ascii_lowercase())
}

fn caller(field: &'static str, bytes: &[u8]) -> Result<Option<CallerId>, FieldError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|_| FieldError::new(field, "0 or 16 bytes", format!("{} bytes", bytes.len())))?;
    Ok(Some(CallerId(u128::from_be_bytes(bytes))))
}

/// Unknown channels count as "not said", which is voice.
fn channel(number: u32) -> u8 {
    u8::try_from(number).ok().filter(|channel| *channel <= 3).unwrap_or(0)
}

fn cause(number: u32) -> Cause {
    match number {
        1 => Cause::NormalClearing,
        2 => Cause::Busy,
        3 => Cause::CallNotAnswered,
        4 => Cause::CallCancelled,
        5 => Cause::DestNotObtainable,
        6 => Cause::DestOutOfOrder,
        7 => Cause::NetworkCongestion,
        8 => Cause::SingleStepTransfer,
        9 => Cause::SwitchRestart,
        10 => Cause::LegDropped,
        11 => Cause::Voicemail,
        _ => Cause::Unspecified,
    }
}

fn disposition(number: u32) -> Disposition {
    match number {
        1 => Disposition::Resolved,
        2 => Disposition::Unresolved,
        3 => Disposition::Referred,
        4 => Disposition::OutOfScope,
        _ => Disposition::Unspecified,
    }
}

fn yes_or_no(field: &'static str, number: u32) -> Result<Option<bool>, FieldError> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(true)),
        2 => Ok(Some(false)),
        other => Err(FieldError::new(field, "0 to 2", other)),
    }
}

fn agent_state(number: u32) -> Result<SwitchAgentState, FieldError> {
    match number {
        1 => Ok(SwitchAgentState::Null),
        2 => Ok(SwitchAgentState::NotReady),
        3 => Ok(SwitchAgentState::Ready),
        4 => Ok(SwitchAgentState::Busy),
        5 => Ok(SwitchAgentState::WorkingAfterCall),
        other => Err(FieldError::new("agent.state", "1 to 5", other)),
    }
}

fn callback_end(number: i32) -> Result<CallbackEnd, FieldError> {
    match v1::CallbackEnd::try_from(number) {
        Ok(v1::CallbackEnd::Connected) => Ok(CallbackEnd::Connected),
        Ok(v1::CallbackEnd::Exhausted) => Ok(CallbackEnd::Exhausted),
        Ok(v1::CallbackEnd::Cancelled) => Ok(CallbackEnd::Cancelled),
        Ok(v1::CallbackEnd::Unspecified) | Err(_) => {
            Err(FieldError::new("cancel_virtual.end", "1 to 3", number))
        }
    }
}

fn callback_step(number: i32) -> Result<CallbackStep, FieldError> {
    match v1::CallbackStep::try_from(number) {
        Ok(v1::CallbackStep::Dialled) => Ok(CallbackStep::Dialled),
        Ok(v1::CallbackStep::Answered) => Ok(CallbackStep::Answered),
        Ok(v1::CallbackStep::NoAnswer) => Ok(CallbackStep::NoAnswer),
        Ok(v1::CallbackStep::Busy) => Ok(CallbackStep::Busy),
        Ok(v1::CallbackStep::Voicemail) => Ok(CallbackStep::Voicemail),
        Ok(v1::CallbackStep::Failed) => Ok(CallbackStep::Failed),
        Ok(v1::CallbackStep::Unspecified) | Err(_) => {
            Err(FieldError::new("callback_progress.step", "1 to 6", number))
        }
    }
}

#[cfg(test)]
mod tests;
