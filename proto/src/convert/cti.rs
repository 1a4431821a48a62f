//! Checks of trunkline.cti.v1 at the mesh's edge.
//!
//! Messages are checked in place and stay wire types: the gateway turns them into other
//! wire types (routing.v1, callback.v1), so a detour through domain types would only
//! copy strings. What has passed a check here can be trusted by what follows.
//!
//! Enumerations that only inform (causes, channels, dispositions) pass through unread,
//! known or not (rule 11 of the contract); one that the mesh must act on, an agent's
//! state, is refused when it is not known.
//!
//! Values in errors are described and never quoted where they could hold what a caller
//! said, pressed or is called from: see [`stripped`].

use bytes::Bytes;
use domain::id::FieldError;
use domain::{AgentId, BootId, ContactId, SwitchId};
use prost::Message as _;

use crate::cti::v1::{
    AgentEvent, AgentSkill, CallRef, Correlator, Device, Hello, OfferAnswered, ReRoute,
    RouteRequest, Snapshot, SwitchEvent, snapshot, switch_event,
};

/// Longest utterance, in bytes.
pub const UTTERANCE_BYTES_MAX: usize = 2_048;
/// Most keys pressed at the first choice.
pub const DIGITS_MAX: usize = 32;
/// Longest cross reference, in bytes.
pub const CROSS_REF_BYTES_MAX: usize = 64;
/// Longest device, in bytes.
pub const DEVICE_BYTES_MAX: usize = 128;
/// Shortest reply timeout, in ms.
pub const REPLY_TIMEOUT_MIN_MS: u32 = 100;
/// Longest reply timeout, in ms.
pub const REPLY_TIMEOUT_MAX_MS: u32 = 5_000;
/// Reply timeout when the switch gives none, in ms.
pub const REPLY_TIMEOUT_DEFAULT_MS: u32 = 500;
/// Most messages in a frame of dialogues.
pub const DIALOGUE_MESSAGES_MAX: usize = 256;
/// Most events in a frame.
pub const EVENTS_MAX: usize = 512;
/// Most results in a frame of commands.
pub const RESULTS_MAX: usize = 256;
/// Longest correlator data that we send: version, contact, pool of 64 bytes and reason.
pub const CORRELATOR_BYTES_MAX: u32 = 96;
/// A switch's timer tick when it names none, in ms.
pub const TICK_DEFAULT_MS: u32 = 62;
/// The layout of [`Correlator`] that is written and read here.
pub const CORRELATOR_VERSION: u32 = 1;

/// Replaces each run of digits that is long enough to be a telephone or tax number: seven
/// or more, with separators between them. A field at fault may hold what belongs in another.
#[must_use]
pub fn stripped(value: &str) -> String {
    let is_separator = |character: char| matches!(character, ' ' | '-' | '.' | '(' | ')' | '/');
    let characters: Vec<char> = value.chars().take(256).collect();
    let mut out = String::with_capacity(characters.len());
    let mut start = 0;
    while start < characters.len() {
        let mut end = start;
        let mut digits = 0;
        while end < characters.len()
            && (characters[end].is_ascii_digit() || (digits > 0 && is_separator(characters[end])))
        {
            digits += usize::from(characters[end].is_ascii_digit());
            end += 1;
        }
        if digits >= 7 {
            out.push_str("[digits]");
            start = end;
        } else {
            let last = end.max(start + 1);
            out.extend(&characters[start..last]);
            start = last;
        }
    }
    out
}

fn error(field: &'static str, limit: impl Into<String>, value: &str) -> FieldError {
    FieldError::new(field, limit, stripped(value).escape_default())
}

fn length(field: &'static str, text: &str, most: usize) -> Result<(), FieldError> {
    if text.len() > most {
        return Err(FieldError::new(
            field,
            format!("at most {most} bytes"),
            format!("{} bytes", text.len()),
        ));
    }
    Ok(())
}

/// Checks who speaks.
///
/// # Errors
/// The first field outside its limits.
pub fn hello(hello: &Hello) -> Result<(SwitchId, BootId), FieldError> {
    let switch = SwitchId::parse(&hello.switch_id).map_err(|mut fault| {
        fault.field = "hello.switch_id";
        fault
    })?;
    if hello.boot_id == 0 {
        return Err(FieldError::new("hello.boot_id", "not 0", 0));
    }
    length("hello.adapter_id", &hello.adapter_id, 64)?;
    length("hello.session_id", &hello.session_id, 64)?;
    if let Some(capabilities) = &hello.capabilities {
        let most = capabilities.correlator_data_bytes_max;
        if most != 0 && most < CORRELATOR_BYTES_MAX {
            return Err(FieldError::new(
                "hello.capabilities.correlator_data_bytes_max",
                format!("at least {CORRELATOR_BYTES_MAX}"),
                most,
            ));
        }
        if capabilities.tick_ms > 1_000 {
            return Err(FieldError::new(
                "hello.capabilities.tick_ms",
                "at most 1000",
                capabilities.tick_ms,
            ));
        }
    }
    Ok((switch, BootId(hello.boot_id)))
}

/// Checks a cross reference: 1 to 64 bytes without control characters.
///
/// # Errors
/// Names `field`.
pub fn cross_ref(field: &'static str, text: &str) -> Result<(), FieldError> {
    if text.is_empty()
        || text.len() > CROSS_REF_BYTES_MAX
        || text.bytes().any(|byte| byte.is_ascii_control())
    {
        return Err(error(
            field,
            format!("1 to {CROSS_REF_BYTES_MAX} bytes, no control characters"),
            text,
        ));
    }
    Ok(())
}

/// Checks a call's reference.
///
/// # Errors
/// The call id is empty, too long or not printable; the other ids are too long.
pub fn call(call: Option<&CallRef>) -> Result<&CallRef, FieldError> {
    let Some(call) = call else {
        return Err(FieldError::new("call", "required", "absent"));
    };
    let id = &call.call_id;
    if id.is_empty() || id.len() > 128 || !id.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err(error(
            "call.call_id",
            "1 to 128 bytes of printable ASCII",
            id,
        ));
    }
    length("call.sip_call_id", &call.sip_call_id, 256)?;
    length("call.global_call_id", &call.global_call_id, 64)?;
    Ok(call)
}

/// Checks a reply timeout and gives what it means, in ms.
///
/// # Errors
/// It is outside 100 to 5000 and not 0.
pub fn reply_timeout(field: &'static str, timeout_ms: u32) -> Result<u32, FieldError> {
    match timeout_ms {
        0 => Ok(REPLY_TIMEOUT_DEFAULT_MS),
        REPLY_TIMEOUT_MIN_MS..=REPLY_TIMEOUT_MAX_MS => Ok(timeout_ms),
        _ => Err(FieldError::new(
            field,
            format!(
                "{REPLY_TIMEOUT_MIN_MS} to {REPLY_TIMEOUT_MAX_MS}, or 0 for {REPLY_TIMEOUT_DEFAULT_MS}"
            ),
            timeout_ms,
        )),
    }
}

fn device(field: &'static str, device: Option<&Device>) -> Result<(), FieldError> {
    device.map_or(Ok(()), |device| length(field, &device.id, DEVICE_BYTES_MAX))
}

fn language(field: &'static str, text: &str) -> Result<(), FieldError> {
    let allowed = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.len() > 35 || !allowed {
        return Err(error(field, "BCP 47, at most 35 bytes", text));
    }
    Ok(())
}

/// Checks every field of a route request but the line, which only policy knows.
///
/// # Errors
/// The first field outside its limits.
pub fn route_request(request: &RouteRequest) -> Result<(), FieldError> {
    cross_ref("request.cross_ref_id", &request.cross_ref_id)?;
    call(request.call.as_ref()).map_err(within_request)?;
    let Some(route) = request
        .current_route
        .as_ref()
        .filter(|device| !device.id.is_empty())
    else {
        return Err(FieldError::new(
            "request.current_route",
            "required",
            "absent",
        ));
    };
    length("request.current_route.id", &route.id, DEVICE_BYTES_MAX)?;
    device("request.calling_device.id", request.calling_device.as_ref())?;
    reply_timeout("request.reply_timeout_ms", request.reply_timeout_ms)?;
    language("request.language", &request.language)?;
    length("request.utterance", &request.utterance, UTTERANCE_BYTES_MAX)?;
    let keys = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'*' | b'#' | b'A'..=b'D');
    if request.digits.len() > DIGITS_MAX || !request.digits.bytes().all(keys) {
        return Err(FieldError::new(
            "request.digits",
            format!("at most {DIGITS_MAX} of [0-9*#A-D]"),
            format!("{} bytes", request.digits.len()),
        ));
    }
    if !(0..=255).contains(&request.channel) {
        return Err(FieldError::new(
            "request.channel",
            "0 to 255",
            request.channel,
        ));
    }
    if request.private_data.len() > 16 {
        let count = request.private_data.len();
        return Err(FieldError::new(
            "request.private_data",
            "at most 16 entries",
            format!("{count} entries"),
        ));
    }
    for (key, value) in &request.private_data {
        if key.len() + value.len() > 256 {
            let bytes = key.len() + value.len();
            return Err(FieldError::new(
                "request.private_data",
                "256 bytes an entry",
                format!("{bytes} bytes"),
            ));
        }
    }
    correlator("request.correlator_data", &request.correlator_data).map(|_| ())
}

fn within_request(mut fault: FieldError) -> FieldError {
    fault.field = match fault.field {
        "call" => "request.call",
        "call.call_id" => "request.call.call_id",
        "call.sip_call_id" => "request.call.sip_call_id",
        "call.global_call_id" => "request.call.global_call_id",
        other => other,
    };
    fault
}

/// Checks a re-route.
///
/// # Errors
/// The first field outside its limits.
pub fn reroute(reroute: &ReRoute) -> Result<(), FieldError> {
    cross_ref("reroute.cross_ref_id", &reroute.cross_ref_id)?;
    reply_timeout("reroute.reply_timeout_ms", reroute.reply_timeout_ms)?;
    correlator("reroute.correlator_data", &reroute.correlator_data).map(|_| ())
}

/// What correlator data names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correlated {
    /// The contact.
    pub contact: ContactId,
    /// Its pool.
    pub pool: String,
    /// The gateway answered with a message itself: cti.v1.MessageReason; 0: it did not.
    pub blocked: u32,
    /// The line's name; empty: not known where it was written.
    pub line: String,
    /// The topic id; empty: not known where it was written.
    pub topic: String,
    /// The language; empty: not known where it was written.
    pub language: String,
    /// First arrival, epoch milliseconds; 0: not known where it was written.
    pub arrived_at_ms: u64,
}

/// Reads correlator data; `None` if there is none.
///
/// # Errors
/// It is not what the mesh wrote: names `field`.
pub fn correlator(field: &'static str, data: &Bytes) -> Result<Option<Correlated>, FieldError> {
    if data.is_empty() {
        return Ok(None);
    }
    let fault = || {
        FieldError::new(
            field,
            "what the mesh gave for this call",
            format!("{} bytes", data.len()),
        )
    };
    if data.len() > 256 {
        return Err(fault());
    }
    let read = Correlator::decode(data.clone()).map_err(|_| fault())?;
    let contact = ContactId::from_bytes(&read.contact_id).map_err(|_| fault())?;
    let names = [&read.pool, &read.line, &read.topic, &read.language];
    let too_long = names.iter().any(|name| name.len() > 64);
    if read.version != CORRELATOR_VERSION || read.pool.is_empty() || too_long {
        return Err(fault());
    }
    Ok(Some(Correlated {
        contact,
        pool: read.pool,
        blocked: u32::try_from(read.blocked).unwrap_or(0),
        line: read.line,
        topic: read.topic,
        language: read.language,
        arrived_at_ms: read.arrived_at_ms,
    }))
}

/// Writes correlator data that names a contact and its pool alone; `blocked` is
/// cti.v1.MessageReason or 0.
#[must_use]
pub fn correlator_data(contact: ContactId, pool: &str, blocked: i32) -> Bytes {
    correlator_data_of(Correlated {
        contact,
        pool: pool.to_owned(),
        blocked: u32::try_from(blocked).unwrap_or(0),
        ..Correlated::default()
    })
}

/// Writes correlator data.
#[must_use]
pub fn correlator_data_of(correlated: Correlated) -> Bytes {
    let written = Correlator {
        version: CORRELATOR_VERSION,
        contact_id: Bytes::copy_from_slice(&correlated.contact.to_bytes()),
        pool: correlated.pool,
        blocked: i32::try_from(correlated.blocked).unwrap_or(0),
        line: correlated.line,
        topic: correlated.topic,
        language: correlated.language,
        arrived_at_ms: correlated.arrived_at_ms,
    };
    written.encode_to_vec().into()
}

fn agent(field: &'static str, id: &str, required: bool) -> Result<(), FieldError> {
    if id.is_empty() && !required {
        return Ok(());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if id.is_empty() || id.len() > AgentId::BYTES_MAX || !id.bytes().all(allowed) {
        return Err(error(
            field,
            format!("1 to {} bytes of [A-Za-z0-9._-]", AgentId::BYTES_MAX),
            id,
        ));
    }
    Ok(())
}

fn skill(skill: &AgentSkill) -> Result<(), FieldError> {
    if skill.skill.is_empty() || skill.skill.len() > 64 {
        return Err(error("agent.skills.skill", "1 to 64 bytes", &skill.skill));
    }
    if !(1..=10).contains(&skill.proficiency) {
        return Err(FieldError::new(
            "agent.skills.proficiency",
            "1 to 10",
            skill.proficiency,
        ));
    }
    Ok(())
}

fn agent_event(event: &AgentEvent) -> Result<(), FieldError> {
    agent("agent.agent_id", &event.agent_id, true)?;
    device("agent.device.id", event.device.as_ref())?;
    if !(1..=5).contains(&event.state) {
        return Err(FieldError::new("agent.state", "1 to 5", event.state));
    }
    length("agent.pool", &event.pool, 64)?;
    if event.skills.len() > 64 {
        return Err(FieldError::new(
            "agent.skills",
            "at most 64",
            format!("{} skills", event.skills.len()),
        ));
    }
    event.skills.iter().try_for_each(skill)?;
    if event.languages.len() > 64 {
        let count = event.languages.len();
        return Err(FieldError::new(
            "agent.languages",
            "at most 64",
            format!("{count} languages"),
        ));
    }
    event
        .languages
        .iter()
        .try_for_each(|text| language("agent.languages", text))?;
    if event.capacity > 8 {
        return Err(FieldError::new("agent.capacity", "0 to 8", event.capacity));
    }
    length("agent.reason", &event.reason, 32)
}

fn offer(offer: &OfferAnswered) -> Result<(), FieldError> {
    device(
        "offer_answered.callback_device.id",
        offer.callback_device.as_ref(),
    )?;
    let named = offer
        .callback_device
        .as_ref()
        .is_some_and(|device| !device.id.is_empty());
    if offer.offer_id != 0 && !named {
        return Err(FieldError::new(
            "offer_answered.callback_device",
            "required unless declined",
            "absent",
        ));
    }
    if let Some(window) = &offer.window
        && window.until_ms <= window.from_ms
    {
        let length_ms = i128::from(window.until_ms) - i128::from(window.from_ms);
        return Err(FieldError::new(
            "offer_answered.window",
            "until_ms after from_ms",
            format!("{length_ms} ms"),
        ));
    }
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+');
    if offer.time_zone.len() > 64 || !offer.time_zone.bytes().all(allowed) {
        return Err(error(
            "offer_answered.time_zone",
            "an IANA name of at most 64 bytes",
            &offer.time_zone,
        ));
    }
    Ok(())
}

fn topic(field: &'static str, text: &str, required: bool) -> Result<(), FieldError> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if (text.is_empty() && required) || text.len() > 64 || !text.bytes().all(allowed) {
        return Err(error(field, "a topic id of at most 64 bytes", text));
    }
    Ok(())
}

fn snapshot_part(part: &Snapshot) -> Result<(), FieldError> {
    match &part.body {
        None => Err(FieldError::new("snapshot.body", "required", "absent")),
        Some(snapshot::Body::Agent(event)) => agent_event(event),
        Some(snapshot::Body::Call(found)) => {
            agent("snapshot.call.agent_id", &found.agent_id, false)?;
            if !(0..=4).contains(&found.place) {
                return Err(FieldError::new(
                    "snapshot.call.place",
                    "0 to 4",
                    found.place,
                ));
            }
            device(
                "snapshot.call.current_route.id",
                found.current_route.as_ref(),
            )?;
            device(
                "snapshot.call.calling_device.id",
                found.calling_device.as_ref(),
            )?;
            language("snapshot.call.language", &found.language)?;
            length(
                "snapshot.call.cross_ref_id",
                &found.cross_ref_id,
                CROSS_REF_BYTES_MAX,
            )
        }
        Some(snapshot::Body::Begin(_) | snapshot::Body::End(_)) => Ok(()),
    }
}

/// Checks every field of an event but its place in the sequence and what only policy or
/// memory know (line, pool, contact).
///
/// # Errors
/// The first field outside its limits.
pub fn event(event: &SwitchEvent) -> Result<(), FieldError> {
    use switch_event::Body;
    let about_call = !matches!(event.body, Some(Body::Agent(_) | Body::Snapshot(_)));
    if about_call || event.call.is_some() {
        call(event.call.as_ref())?;
    }
    match &event.body {
        None => Err(FieldError::new(
            "body",
            "a kind of event that this version knows",
            "absent or unknown",
        )),
        Some(Body::Delivered(body)) => agent("delivered.agent_id", &body.agent_id, true),
        Some(Body::Established(body)) => agent("established.agent_id", &body.agent_id, true),
        Some(Body::Failed(body)) => agent("failed.agent_id", &body.agent_id, false),
        Some(Body::Queued(body)) => length("queued.queue", &body.queue, 64),
        Some(Body::Transferred(body)) => {
            agent("transferred.from_agent_id", &body.from_agent_id, true)?;
            agent("transferred.to_agent_id", &body.to_agent_id, false)
        }
        Some(Body::Cleared(body)) => {
            agent("cleared.agent_id", &body.agent_id, false)?;
            device("cleared.current_route.id", body.current_route.as_ref())?;
            device("cleared.calling_device.id", body.calling_device.as_ref())?;
            length(
                "cleared.cross_ref_id",
                &body.cross_ref_id,
                CROSS_REF_BYTES_MAX,
            )?;
            if !(0..=255).contains(&body.channel) {
                return Err(FieldError::new("cleared.channel", "0 to 255", body.channel));
            }
            language("cleared.language", &body.language)
        }
        Some(Body::Agent(body)) => agent_event(body),
        Some(Body::OfferAnswered(body)) => offer(body),
        Some(Body::WrapUp(body)) => {
            agent("wrap_up.agent_id", &body.agent_id, true)?;
            topic("wrap_up.topic", &body.topic, false)
        }
        Some(Body::Survey(_)) => Ok(()),
        Some(Body::TransferRequested(body)) => {
            agent(
                "transfer_requested.from_agent_id",
                &body.from_agent_id,
                true,
            )?;
            topic("transfer_requested.topic", &body.topic, true)
        }
        Some(Body::Snapshot(part)) => snapshot_part(part),
        Some(Body::CallbackCancelled(body)) => {
            let digits = body.code.bytes().all(|byte| byte.is_ascii_digit());
            if !body.code.is_empty() && (body.code.len() != 6 || !digits) {
                let bytes = body.code.len();
                return Err(FieldError::new(
                    "callback_cancelled.code",
                    "6 digits",
                    format!("{bytes} bytes"),
                ));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RouteRequest {
        RouteRequest {
            cross_ref_id: "x1".to_owned(),
            call: Some(CallRef {
                call_id: "c1".to_owned(),
                ..CallRef::default()
            }),
            current_route: Some(Device {
                id: "18005551212".to_owned(),
            }),
            ..RouteRequest::default()
        }
    }

    fn refused(change: impl FnOnce(&mut RouteRequest)) -> FieldError {
        let mut changed = request();
        change(&mut changed);
        route_request(&changed).expect_err("must be refused")
    }

    #[test]
    fn a_plain_request_is_taken_and_each_field_is_checked_by_name() {
        assert_eq!(route_request(&request()), Ok(()));
        assert_eq!(
            refused(|r| r.cross_ref_id.clear()).field,
            "request.cross_ref_id"
        );
        assert_eq!(refused(|r| r.call = None).field, "request.call");
        assert_eq!(
            refused(|r| r.current_route = None).field,
            "request.current_route"
        );
        assert_eq!(refused(|r| r.reply_timeout_ms = 99).value, "99");
        assert_eq!(
            refused(|r| r.reply_timeout_ms = 5_001).field,
            "request.reply_timeout_ms"
        );
        assert_eq!(
            refused(|r| r.digits = "12x".to_owned()).field,
            "request.digits"
        );
        assert_eq!(
            refused(|r| r.language = "e n".to_owned()).field,
            "request.language"
        );
        let fault = refused(|r| r.utterance = "a".repeat(65_536));
        assert_eq!(
            (fault.field, fault.value.as_str()),
            ("request.utterance", "65536 bytes")
        );
        assert_eq!(
            refused(|r| r.correlator_data = Bytes::from_static(b"zz")).field,
            "request.correlator_data"
        );
    }

    #[test]
    fn a_correlator_comes_back_as_it_was_written_within_its_bound() {
        let contact = ContactId(7);
        let pool = "p".repeat(64);
        let data = correlator_data(contact, &pool, 4);
        assert!(
            data.len() <= CORRELATOR_BYTES_MAX as usize,
            "{}",
            data.len()
        );
        let read = correlator("correlator_data", &data)
            .expect("ours")
            .expect("present");
        assert_eq!(
            read,
            Correlated {
                contact,
                pool,
                blocked: 4,
                ..Correlated::default()
            }
        );
    }

    #[test]
    fn numbers_do_not_survive_in_the_value_of_an_error() {
        assert_eq!(stripped("+1 (206) 555-1234x"), "+[digits]x");
        assert_eq!(stripped("call 123-45-6789 now"), "call [digits]now");
        assert_eq!(stripped("agent-1234"), "agent-1234");
        assert_eq!(stripped(""), "");
    }

    #[test]
    fn an_unknown_agent_state_is_refused_and_an_unknown_cause_passes() {
        let mut agent = AgentEvent {
            agent_id: "a1".to_owned(),
            state: 99,
            ..AgentEvent::default()
        };
        let wrap = |agent: &AgentEvent| SwitchEvent {
            event_seq: 1,
            body: Some(switch_event::Body::Agent(agent.clone())),
            ..SwitchEvent::default()
        };
        assert_eq!(
            event(&wrap(&agent)).expect_err("unknown").field,
            "agent.state"
        );
        agent.state = 3;
        assert_eq!(event(&wrap(&agent)), Ok(()));
        let failed = SwitchEvent {
            call: Some(CallRef {
                call_id: "c".to_owned(),
                ..CallRef::default()
            }),
            body: Some(switch_event::Body::Failed(crate::cti::v1::Failed {
                agent_id: String::new(),
                cause: 77,
            })),
            ..SwitchEvent::default()
        };
        assert_eq!(event(&failed), Ok(()));
    }
}
