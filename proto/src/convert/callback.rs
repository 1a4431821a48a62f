//! Conversions of trunkline.callback.v1, and of what callback says to routing.
//!
//! A fault never carries the number to call, not even encrypted: only how long it is.

use bytes::Bytes;
use domain::callback::{Booking, DialEnd, NewBooking, Report, ReportBody, Zone};
use domain::id::FieldError;
use domain::pool::{CallbackEnd, CallbackStep, NoticeKind, Window};
use domain::{CallerId, ContactId, SwitchId, TimeMs};

use crate::callback::v1;
use crate::{cti, routing};

/// Shortest number that was really encrypted, in bytes: key id, nonce, one digit, tag.
const NUMBER_BYTES_MIN: usize = 1 + 12 + 1 + 16;
/// Longest encrypted number, in bytes; a device has up to 128.
const NUMBER_BYTES_MAX: usize = 256;
/// Longest window, in ms: one within one day's hours cannot be longer.
const WINDOW_MS_MAX: u64 = 86_400_000;
/// Longest announced wait, in ms: a day. Beyond it no forecast means anything.
const EXPECTED_MS_MAX: u64 = 86_400_000;
/// Latest moment taken (year 2200): a sender that counts in microseconds is refused.
const TIME_MS_MAX: u64 = 7_258_118_400_000;
/// Length of a spoken code.
const CODE_BYTES: usize = 6;

/// What a gateway asks for, checked as far as it can be without policy: `family` is left
/// empty, `time_zone` may be, and `arrived_at` is 0 if the gateway does not know it.
///
/// # Errors
/// The first field outside its limits.
pub fn new_booking(wire: &v1::Book, traceparent: &str) -> Result<NewBooking, FieldError> {
    let number_bytes = wire.number.len();
    if !(NUMBER_BYTES_MIN..=NUMBER_BYTES_MAX).contains(&number_bytes) {
        return Err(FieldError::new(
            "number",
            format!("{NUMBER_BYTES_MIN} to {NUMBER_BYTES_MAX} bytes of ciphertext"),
            format!("{number_bytes} bytes"),
        ));
    }
    if !wire.time_zone.is_empty() {
        Zone::parse(&wire.time_zone)?;
    }
    if wire.expected_callback_ms > EXPECTED_MS_MAX {
        return Err(FieldError::new(
            "expected_callback_ms",
            format!("at most {EXPECTED_MS_MAX}"),
            wire.expected_callback_ms,
        ));
    }
    if traceparent.len() > 128 || !traceparent.is_ascii() {
        return Err(FieldError::new(
            "traceparent",
            "at most 128 bytes of ASCII",
            format!("{} bytes", traceparent.len()),
        ));
    }
    Ok(NewBooking {
        contact: ContactId::from_bytes(&wire.contact_id)?,
        pool: token("pool", &wire.pool)?,
        switch: SwitchId::parse(&wire.switch_id)?,
        caller: caller(&wire.caller)?,
        number: wire.number.to_vec(),
        window: wire.window.as_ref().map(window).transpose()?,
        time_zone: wire.time_zone.clone(),
        line: token_or_empty("line", &wire.line)?,
        topic: token_or_empty("topic", &wire.topic)?,
        family: String::new(),
        language: token_or_empty("language", &wire.language)?,
        arrived_at: match wire.arrived_at_ms {
            0 => TimeMs(0),
            at_ms => time("arrived_at_ms", at_ms)?,
        },
        expected_callback_ms: wire.expected_callback_ms,
        traceparent: traceparent.to_owned(),
    })
}

/// Whom a cancellation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelTarget {
    /// The contact's booking.
    Contact(ContactId),
    /// The caller's booking with this code.
    Code {
        /// Pseudonym.
        caller: CallerId,
        /// Six digits.
        code: String,
    },
}

/// Whom a cancellation is about.
///
/// # Errors
/// Neither a contact nor a caller with a code.
pub fn cancel_target(wire: &v1::Cancel) -> Result<CancelTarget, FieldError> {
    if !wire.contact_id.is_empty() {
        return ContactId::from_bytes(&wire.contact_id).map(CancelTarget::Contact);
    }
    if wire.code.len() != CODE_BYTES || !wire.code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldError::new(
            "code",
            "6 digits",
            format!("{} bytes", wire.code.len()),
        ));
    }
    Ok(CancelTarget::Code {
        caller: caller(&wire.caller)?,
        code: wire.code.clone(),
    })
}

/// What became of a dial: the contact, the attempt, the end.
///
/// # Errors
/// The first field outside its limits.
pub fn dial_result(wire: &v1::DialResult) -> Result<(ContactId, u32, DialEnd), FieldError> {
    let contact = ContactId::from_bytes(&wire.contact_id)?;
    if wire.attempt == 0 {
        return Err(FieldError::new("attempt", "from 1", 0));
    }
    if wire.not_placed {
        return Ok((contact, wire.attempt, DialEnd::NotPlaced));
    }
    let number = i32::try_from(wire.outcome).unwrap_or(-1);
    let end = match cti::v1::DialOutcome::try_from(number) {
        Ok(cti::v1::DialOutcome::Answered) => DialEnd::Answered,
        Ok(cti::v1::DialOutcome::NoAnswer) => DialEnd::NoAnswer,
        Ok(cti::v1::DialOutcome::Busy) => DialEnd::Busy,
        Ok(cti::v1::DialOutcome::Voicemail) => DialEnd::Voicemail,
        Ok(cti::v1::DialOutcome::Failed) => DialEnd::Failed,
        Ok(cti::v1::DialOutcome::Unspecified) | Err(_) => {
            return Err(FieldError::new(
                "outcome",
                "1 to 5, unless not_placed",
                wire.outcome,
            ));
        }
    };
    Ok((contact, wire.attempt, end))
}

/// A refusal for nonsense.
#[must_use]
pub fn refused_invalid(fault: &FieldError) -> v1::Refused {
    v1::Refused {
        reason: v1::RefusalReason::Invalid.into(),
        field: fault.field.to_owned(),
        limit: fault.limit.clone(),
        value: fault.value.clone(),
    }
}

/// A booking as a gateway is told of it.
#[must_use]
pub fn accepted(booking: &Booking, existing: bool) -> v1::Accepted {
    v1::Accepted {
        code: booking.code.clone(),
        window: booking.window.map(|window| v1::Window {
            from_ms: window.from.0,
            until_ms: window.until.0,
        }),
        existing,
        contact_id: contact_bytes(booking.contact),
    }
}

/// A call to place on `switch`.
#[must_use]
pub fn dial(booking: &Booking, attempt: u32, ring_ms: u64, switch: &SwitchId) -> v1::Dial {
    v1::Dial {
        contact_id: contact_bytes(booking.contact),
        attempt,
        pool: booking.pool.clone(),
        switch_id: switch.to_string(),
        number: Bytes::copy_from_slice(&booking.number),
        line: booking.line.clone(),
        ring_ms: u32::try_from(ring_ms).unwrap_or(u32::MAX),
        code: booking.code.clone(),
        language: booking.language.clone(),
        traceparent: booking.traceparent.clone(),
    }
}

/// A report as routing takes it; the stream gives it its `request_id`.
#[must_use]
pub fn report(booking: &Booking, report: &Report, ring_ms: u64, now: TimeMs) -> routing::v1::Input {
    use routing::v1::input::Body;

    let report_sequence = report.sequence;
    let progress = |attempt: u32, step: routing::v1::CallbackStep, next_at: Option<TimeMs>| {
        Body::CallbackProgress(routing::v1::CallbackProgress {
            attempt,
            step: step.into(),
            next_at_ms: next_at.map_or(0, |at| at.0),
            report_sequence,
        })
    };
    let body = match &report.body {
        ReportBody::Register { window } => Body::RegisterVirtual(routing::v1::RegisterVirtual {
            window: window.is_some(),
            from_ms: window.map_or(0, |window| window.from.0),
            until_ms: window.map_or(0, |window| window.until.0),
            ring_ms: u32::try_from(ring_ms).unwrap_or(u32::MAX),
            code: booking.code.clone(),
            route: route(booking),
            report_sequence,
        }),
        ReportBody::Progress {
            attempt,
            step,
            next_at,
        } => progress(*attempt, step_to_wire(*step), *next_at),
        // No step of an attempt: the last one's number, and when the next may be made.
        ReportBody::CarriedOver { attempt, next_at } => progress(
            attempt.saturating_sub(1),
            routing::v1::CallbackStep::Failed,
            Some(*next_at),
        ),
        ReportBody::Ended { end } => Body::CancelVirtual(routing::v1::CancelVirtual {
            end: end_to_wire(*end).into(),
            report_sequence,
        }),
    };
    routing::v1::Input {
        request_id: 0,
        pool: booking.pool.clone(),
        contact_id: contact_bytes(booking.contact),
        switch_id: String::new(),
        boot_id: 0,
        occurred_at_ms: now.0,
        traceparent: booking.traceparent.clone(),
        body: Some(body),
    }
}

/// To rebuild the entry, where the booking knows enough of it.
fn route(booking: &Booking) -> Option<routing::v1::Route> {
    if booking.line.is_empty() || booking.topic.is_empty() {
        return None;
    }
    Some(routing::v1::Route {
        // There is no call and no dialogue: the leg is gone, or soon will be.
        call_id: "callback".to_owned(),
        cross_ref_id: "callback".to_owned(),
        line: booking.line.clone(),
        topic: booking.topic.clone(),
        topic_confidence: 0.0,
        other_topics: Vec::new(),
        language: if booking.language.is_empty() {
            "en".to_owned()
        } else {
            booking.language.clone()
        },
        channel: 0,
        caller: Bytes::copy_from_slice(&booking.caller.0.to_be_bytes()),
        authenticated: false,
        person_asked: false,
        arrived_at_ms: booking.arrived_at.0,
        deadline_at_ms: booking.arrived_at.0,
    })
}

/// A notice's kind.
///
/// # Errors
/// Not a kind.
pub fn notice_kind(number: i32) -> Result<NoticeKind, FieldError> {
    match routing::v1::CallbackNoticeKind::try_from(number) {
        Ok(routing::v1::CallbackNoticeKind::Connected) => Ok(NoticeKind::Connected),
        Ok(routing::v1::CallbackNoticeKind::LegLost) => Ok(NoticeKind::LegLost),
        Ok(routing::v1::CallbackNoticeKind::Unspecified) | Err(_) => {
            Err(FieldError::new("notice.kind", "1 or 2", number))
        }
    }
}

fn step_to_wire(step: CallbackStep) -> routing::v1::CallbackStep {
    match step {
        CallbackStep::Dialled => routing::v1::CallbackStep::Dialled,
        CallbackStep::Answered => routing::v1::CallbackStep::Answered,
        CallbackStep::NoAnswer => routing::v1::CallbackStep::NoAnswer,
        CallbackStep::Busy => routing::v1::CallbackStep::Busy,
        CallbackStep::Voicemail => routing::v1::CallbackStep::Voicemail,
        CallbackStep::Failed => routing::v1::CallbackStep::Failed,
    }
}

fn end_to_wire(end: CallbackEnd) -> routing::v1::CallbackEnd {
    match end {
        CallbackEnd::Connected => routing::v1::CallbackEnd::Connected,
        CallbackEnd::Exhausted => routing::v1::CallbackEnd::Exhausted,
        CallbackEnd::Cancelled => routing::v1::CallbackEnd::Cancelled,
    }
}

/// The wire form of a contact.
fn contact_bytes(contact: ContactId) -> Bytes {
    Bytes::copy_from_slice(&contact.to_bytes())
}

fn caller(bytes: &[u8]) -> Result<CallerId, FieldError> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
        FieldError::new(
            "caller",
            "exactly 16 bytes",
            format!("{} bytes", bytes.len()),
        )
    })?;
    Ok(CallerId(u128::from_be_bytes(bytes)))
}

fn window(wire: &v1::Window) -> Result<Window, FieldError> {
    let from = time("window.from_ms", wire.from_ms)?;
    let until = time("window.until_ms", wire.until_ms)?;
    let length_ms = until.since(from);
    if length_ms == 0 || length_ms > WINDOW_MS_MAX {
        return Err(FieldError::new(
            "window.until_ms",
            format!("1 to {WINDOW_MS_MAX} after from_ms"),
            wire.until_ms,
        ));
    }
    Ok(Window { from, until })
}

fn time(field: &'static str, at_ms: u64) -> Result<TimeMs, FieldError> {
    if at_ms == 0 || at_ms > TIME_MS_MAX {
        return Err(FieldError::new(field, format!("1 to {TIME_MS_MAX}"), at_ms));
    }
    Ok(TimeMs(at_ms))
}

fn token(field: &'static str, text: &str) -> Result<String, FieldError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        return Err(FieldError::new(
            field,
            "1 to 64 bytes of [A-Za-z0-9._-]",
            text.escape_default(),
        ));
    }
    Ok(text.to_owned())
}

fn token_or_empty(field: &'static str, text: &str) -> Result<String, FieldError> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        token(field, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> v1::Book {
        v1::Book {
            contact_id: Bytes::from_static(&[1; 16]),
            pool: "tax".to_owned(),
            switch_id: "switch-1".to_owned(),
            caller: Bytes::from_static(&[2; 16]),
            number: Bytes::from_static(&[3; 48]),
            window: None,
            time_zone: "America/New_York".to_owned(),
            line: "main".to_owned(),
            topic: "REFUND_STATUS".to_owned(),
            language: "es".to_owned(),
            arrived_at_ms: 1_776_092_400_000,
            expected_callback_ms: 600_000,
        }
    }

    #[test]
    fn a_sound_booking_is_taken_as_it_is() {
        let booking = new_booking(&book(), "").expect("sound");
        assert_eq!(booking.contact.to_bytes(), [1; 16]);
        assert_eq!(booking.number, vec![3; 48]);
        assert_eq!(booking.language, "es");
    }

    #[test]
    fn nonsense_names_the_field_the_limit_and_the_value() {
        type Spoil = fn(&mut v1::Book);
        let cases: [(&str, Spoil); 12] = [
            ("contact_id", |book| {
                book.contact_id = Bytes::from_static(&[1; 15])
            }),
            ("pool", |book| book.pool = String::new()),
            ("pool", |book| book.pool = "a b".to_owned()),
            ("switch_id", |book| book.switch_id = "x".repeat(65)),
            ("caller", |book| book.caller = Bytes::new()),
            ("number", |book| {
                book.number = Bytes::from_static(b"+15550100")
            }),
            ("number", |book| book.number = Bytes::from(vec![0; 257])),
            ("time_zone", |book| book.time_zone = "Moon/Base".to_owned()),
            ("topic", |book| book.topic = "a topic".to_owned()),
            ("arrived_at_ms", |book| book.arrived_at_ms = u64::MAX),
            ("expected_callback_ms", |book| {
                book.expected_callback_ms = u64::MAX
            }),
            ("window.until_ms", |book| {
                book.window = Some(v1::Window {
                    from_ms: 9,
                    until_ms: 9,
                })
            }),
        ];
        for (field, spoil) in cases {
            let mut spoilt = book();
            spoil(&mut spoilt);
            let fault = new_booking(&spoilt, "").expect_err(field);
            assert_eq!(fault.field, field);
            assert!(
                !fault.limit.is_empty() && !fault.value.contains("5550100"),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_dial_result_needs_an_outcome_unless_it_was_not_placed() {
        let mut wire = v1::DialResult {
            contact_id: Bytes::from_static(&[1; 16]),
            attempt: 2,
            outcome: 0,
            not_placed: false,
        };
        assert_eq!(dial_result(&wire).expect_err("no outcome").field, "outcome");
        wire.not_placed = true;
        assert_eq!(dial_result(&wire).expect("sound").2, DialEnd::NotPlaced);
        wire.not_placed = false;
        wire.outcome = 4;
        assert_eq!(dial_result(&wire).expect("sound").2, DialEnd::Voicemail);
        wire.attempt = 0;
        assert_eq!(dial_result(&wire).expect_err("no attempt").field, "attempt");
    }

    #[test]
    fn a_cancellation_is_by_contact_or_by_caller_and_code() {
        let mut wire = v1::Cancel {
            contact_id: Bytes::new(),
            caller: Bytes::from_static(&[2; 16]),
            code: "12345".to_owned(),
        };
        assert_eq!(cancel_target(&wire).expect_err("five digits").field, "code");
        wire.code = "123456".to_owned();
        assert!(matches!(
            cancel_target(&wire),
            Ok(CancelTarget::Code { .. })
        ));
        wire.contact_id = Bytes::from_static(&[1; 16]);
        assert!(matches!(cancel_target(&wire), Ok(CancelTarget::Contact(_))));
    }
}
