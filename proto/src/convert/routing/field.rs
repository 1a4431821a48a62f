//! Single fields of trunkline.routing.v1, checked.

use domain::id::FieldError;
use domain::pool::{CallbackEnd, CallbackStep, Cause, Disposition, SwitchAgentState};
use domain::{AgentId, CallId, CallerId, TimeMs};

use crate::routing::v1;

/// Longest traceparent taken, in bytes; W3C's version 00 is 55.
const TRACEPARENT_BYTES_MAX: usize = 128;
/// Latest moment taken, epoch milliseconds (year 2200): a sender that counts in
/// microseconds is refused, not believed.
const TIME_MS_MAX: u64 = 7_258_118_400_000;

pub(super) fn renamed(field: &'static str) -> impl Fn(FieldError) -> FieldError {
    move |fault| FieldError { field, ..fault }
}

pub(super) fn agent(field: &'static str, text: &str) -> Result<AgentId, FieldError> {
    AgentId::parse(text).map_err(renamed(field))
}

pub(super) fn optional_agent(
    field: &'static str,
    text: &str,
) -> Result<Option<AgentId>, FieldError> {
    if text.is_empty() {
        Ok(None)
    } else {
        agent(field, text).map(Some)
    }
}

pub(super) fn call(field: &'static str, text: &str) -> Result<CallId, FieldError> {
    CallId::parse(text).map_err(renamed(field))
}

pub(super) fn time(field: &'static str, at_ms: u64) -> Result<TimeMs, FieldError> {
    if at_ms > TIME_MS_MAX {
        let limit = format!("epoch milliseconds, at most {TIME_MS_MAX}");
        return Err(FieldError::new(field, limit, at_ms));
    }
    Ok(TimeMs(at_ms))
}

pub(super) fn at_most(field: &'static str, value: u32, max: u32) -> Result<u32, FieldError> {
    if value > max {
        return Err(FieldError::new(field, format!("at most {max}"), value));
    }
    Ok(value)
}

pub(super) fn report(field: &'static str, sequence: u32) -> Result<u32, FieldError> {
    if sequence == 0 {
        return Err(FieldError::new(field, "from 1", 0));
    }
    Ok(sequence)
}

/// A name in policy: a line, a topic, a skill.
pub(super) fn name(field: &'static str, text: String) -> Result<String, FieldError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        let limit = "1 to 64 bytes of [A-Za-z0-9._-]";
        return Err(FieldError::new(field, limit, text.escape_default()));
    }
    Ok(text)
}

pub(super) fn optional_name(
    field: &'static str,
    text: String,
) -> Result<Option<String>, FieldError> {
    if text.is_empty() {
        Ok(None)
    } else {
        name(field, text).map(Some)
    }
}

pub(super) fn printable(
    field: &'static str,
    text: String,
    bytes_max: usize,
) -> Result<String, FieldError> {
    let fits = (1..=bytes_max).contains(&text.len())
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !fits {
        let limit = format!("1 to {bytes_max} bytes of printable ASCII");
        return Err(FieldError::new(field, limit, text.escape_default()));
    }
    Ok(text)
}

pub(super) fn printable_or_empty(
    field: &'static str,
    text: String,
    bytes_max: usize,
) -> Result<String, FieldError> {
    if text.is_empty() {
        Ok(text)
    } else {
        printable(field, text, bytes_max)
    }
}

/// A device, which unlike other fields may be a number: its value is not shown.
pub(super) fn device(field: &'static str, text: String) -> Result<String, FieldError> {
    if text.len() > 128 || text.chars().any(char::is_control) {
        let value = format!("{} bytes", text.len());
        return Err(FieldError::new(
            field,
            "at most 128 bytes without control characters",
            value,
        ));
    }
    Ok(text)
}

pub(super) fn traceparent(text: String) -> Result<String, FieldError> {
    if text.is_empty() {
        return Ok(text);
    }
    printable("traceparent", text, TRACEPARENT_BYTES_MAX)
}

/// The primary subtag in lower case; empty when not known.
pub(super) fn language(field: &'static str, text: &str) -> Result<String, FieldError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.len() > 35 || !text.bytes().all(allowed) {
        let limit = "a BCP 47 tag of at most 35 bytes";
        return Err(FieldError::new(field, limit, text.escape_default()));
    }
    let primary = text.split_once('-').map_or(text, |(primary, _)| primary);
    Ok(primary.to_ascii_lowercase())
}

pub(super) fn caller(field: &'static str, bytes: &[u8]) -> Result<Option<CallerId>, FieldError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|_| FieldError::new(field, "0 or 16 bytes", format!("{} bytes", bytes.len())))?;
    Ok(Some(CallerId(u128::from_be_bytes(bytes))))
}

/// Unknown channels count as "not said", which is voice.
pub(super) fn channel(number: u32) -> u8 {
    u8::try_from(number)
        .ok()
        .filter(|channel| *channel <= 3)
        .unwrap_or(0)
}

pub(super) fn cause(number: u32) -> Cause {
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

pub(super) fn disposition(number: u32) -> Disposition {
    match number {
        1 => Disposition::Resolved,
        2 => Disposition::Unresolved,
        3 => Disposition::Referred,
        4 => Disposition::OutOfScope,
        _ => Disposition::Unspecified,
    }
}

pub(super) fn yes_or_no(field: &'static str, number: u32) -> Result<Option<bool>, FieldError> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(true)),
        2 => Ok(Some(false)),
        other => Err(FieldError::new(field, "0 to 2", other)),
    }
}

pub(super) fn agent_state(number: u32) -> Result<SwitchAgentState, FieldError> {
    match number {
        1 => Ok(SwitchAgentState::Null),
        2 => Ok(SwitchAgentState::NotReady),
        3 => Ok(SwitchAgentState::Ready),
        4 => Ok(SwitchAgentState::Busy),
        5 => Ok(SwitchAgentState::WorkingAfterCall),
        other => Err(FieldError::new("agent.state", "1 to 5", other)),
    }
}

pub(super) fn callback_end(number: i32) -> Result<CallbackEnd, FieldError> {
    match v1::CallbackEnd::try_from(number) {
        Ok(v1::CallbackEnd::Connected) => Ok(CallbackEnd::Connected),
        Ok(v1::CallbackEnd::Exhausted) => Ok(CallbackEnd::Exhausted),
        Ok(v1::CallbackEnd::Cancelled) => Ok(CallbackEnd::Cancelled),
        Ok(v1::CallbackEnd::Unspecified) | Err(_) => {
            Err(FieldError::new("cancel_virtual.end", "1 to 3", number))
        }
    }
}

pub(super) fn callback_step(number: i32) -> Result<CallbackStep, FieldError> {
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
