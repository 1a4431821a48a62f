//! From a record of the topic to the domain's event. What comes out can be trusted.
//!
//! Unknown enum values become "not said": a newer writer must not stop an older reader.
//! What cannot be counted at all (no protobuf, no contact, no number, an unknown body) is
//! [`Malformed`]: counted and skipped by the caller, so that it never blocks what follows.

use domain::id::FieldError;
use domain::pool::{
    CallbackEnd, CallbackStep, Cause, Disposition, Event, EventBody, QueuedReason, RoutedBy,
    SurveyAnswers, Window,
};
use domain::{AgentId, CallerId, ContactId, TimeMs};
use prost::Message as _;
use proto::event::v1::contact_event::Body;
use proto::event::v1::{self, ContactEvent};

/// Longest record read: an event is some 300 bytes, and policy bounds its names.
const RECORD_BYTES_MAX: usize = 64 * 1024;

/// A record that cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Nothing in it.
    #[error("the record has no value")]
    Empty,
    /// Too long.
    #[error("the record has {0} bytes, at most {RECORD_BYTES_MAX}")]
    TooLong(usize),
    /// Not protobuf.
    #[error("no ContactEvent: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field that is needed is missing or outside its limits.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Decodes one record.
///
/// # Errors
/// It cannot be counted.
pub fn decode(payload: Option<&[u8]>) -> Result<Event, Malformed> {
    let payload = payload.ok_or(Malformed::Empty)?;
    if payload.len() > RECORD_BYTES_MAX {
        return Err(Malformed::TooLong(payload.len()));
    }
    Ok(event(ContactEvent::decode(payload)?)?)
}

fn event(wire: ContactEvent) -> Result<Event, FieldError> {
    let contact = contact_id(&wire.contact_id)?;
    if wire.sequence == 0 {
        return Err(FieldError::new("sequence", "from 1", 0));
    }
    let body = wire
        .body
        .ok_or_else(|| FieldError::new("body", "one that is known", "none"))?;
    if let Body::Closed(closed) = &body
        && closed.events != wire.sequence
    {
        return Err(FieldError::new(
            "closed.events",
            "the event's own sequence",
            closed.events,
        ));
    }
    let caller = match wire.caller.len() {
        0 => None,
        16 => {
            let bytes: [u8; 16] = wire.caller.as_ref().try_into().expect("16 bytes");
            Some(CallerId(u128::from_be_bytes(bytes)))
        }
        length => return Err(FieldError::new("caller", "0 or 16 bytes", length)),
    };
    Ok(Event {
        contact,
        sequence: wire.sequence,
        at: time("occurred_at", wire.occurred_at)?,
        traceparent: wire.traceparent.into(),
        line: wire.line.into(),
        topic: wire.topic.into(),
        queue: wire.queue.into(),
        language: wire.language.into(),
        channel: u8::try_from(wire.channel).unwrap_or(u8::MAX),
        caller,
        arrived_at: time("arrived_at", wire.arrived_at)?,
        switch: wire.switch_id.into(),
        body: event_body(body)?,
    })
}

/// All that is said of a text that was refused: it could be anything, a number or a name.
fn length(text: &str) -> String {
    format!("{} bytes", text.len())
}

fn agent(text: &str) -> Result<AgentId, FieldError> {
    AgentId::parse(text).map_err(|error| FieldError {
        value: length(text),
        ..error
    })
}

/// A UUID as text.
fn contact_id(text: &str) -> Result<ContactId, FieldError> {
    let refuse = || FieldError::new("contact_id", "a UUID as text", length(text));
    let hyphens = [8, 13, 18, 23];
    if text.len() != 36 || !hyphens.iter().all(|place| text.as_bytes()[*place] == b'-') {
        return Err(refuse());
    }
    let mut value: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        if hyphens.contains(&place) {
            continue;
        }
        let digit = char::from(byte).to_digit(16).ok_or_else(refuse)?;
        value = value << 4 | u128::from(digit);
    }
    Ok(ContactId(value))
}

fn time(
    field: &'static str,
    timestamp: Option<prost_types::Timestamp>,
) -> Result<TimeMs, FieldError> {
    let timestamp = timestamp.ok_or_else(|| FieldError::new(field, "set", "absent"))?;
    let refuse = || {
        let value = format!("{} s {} ns", timestamp.seconds, timestamp.nanos);
        FieldError::new(field, "a moment from 1970 on", value)
    };
    let seconds = u64::try_from(timestamp.seconds).map_err(|_| refuse())?;
    let nanos = u64::try_from(timestamp.nanos).map_err(|_| refuse())?;
    if nanos >= 1_000_000_000 {
        return Err(refuse());
    }
    let ms = seconds
        .checked_mul(1_000)
        .and_then(|ms| ms.checked_add(nanos / 1_000_000));
    Ok(TimeMs(ms.ok_or_else(refuse)?))
}

fn event_body(body: Body) -> Result<EventBody, FieldError> {
    Ok(match body {
        Body::Offered(v1::Offered {
            topic_confidence,
            person_asked,
            authenticated,
        }) => EventBody::Offered {
            topic_confidence,
            person_asked,
            authenticated,
        },
        Body::Queued(queued) => EventBody::Queued {
            position: queued.position,
            expected_wait_ms: queued.expected_wait_ms,
            low_ms: queued.expected_wait_low_ms,
            high_ms: queued.expected_wait_high_ms,
            reason: match queued.reason() {
                v1::QueuedReason::NotAnswered => QueuedReason::NotAnswered,
                v1::QueuedReason::Transfer => QueuedReason::Transfer,
                v1::QueuedReason::Callback => QueuedReason::Callback,
                v1::QueuedReason::Recovered => QueuedReason::Recovered,
                v1::QueuedReason::Unspecified | v1::QueuedReason::Arrival => QueuedReason::Arrival,
            },
            place_from: TimeMs(queued.place_from_ms),
        },
        Body::OfferMade(v1::OfferMade {
            virtual_hold,
            windows,
        }) => EventBody::OfferMade {
            virtual_hold,
            windows,
        },
        Body::OfferDeclined(v1::OfferDeclined {}) => EventBody::OfferDeclined,
        Body::Assigned(v1::Assigned {
            agent_id,
            assignment,
            waited_ms,
        }) => EventBody::Assigned {
            agent: agent(&agent_id)?,
            assignment,
            waited_ms,
        },
        Body::Delivered(v1::Delivered { agent_id }) => EventBody::Delivered {
            agent: agent(&agent_id)?,
        },
        Body::Established(established) => EventBody::Established {
            agent: agent(&established.agent_id)?,
            waited_ms: established.waited_ms,
            callback: established.callback,
            first: established.first,
            nuisance_hold_ms: established.nuisance_hold_ms,
            agent_held_ms: established.agent_held_ms,
        },
        Body::NotAnswered(v1::NotAnswered { agent_id, cause: _ }) => EventBody::NotAnswered {
            agent: agent(&agent_id)?,
            // No measure looks at the cause.
            cause: Cause::Unspecified,
        },
        Body::TransferRequested(transfer) => EventBody::TransferRequested {
            from: agent(&transfer.from_agent_id)?,
            from_topic: transfer.from_topic,
            to_topic: transfer.to_topic,
            warm: transfer.warm,
        },
        Body::Transferred(v1::Transferred {
            from_agent_id,
            to_agent_id,
        }) => EventBody::Transferred {
            from: agent(&from_agent_id)?,
            to: agent(&to_agent_id)?,
        },
        Body::Disconnected(v1::Disconnected { agent_id, talk_ms }) => EventBody::Disconnected {
            agent: agent(&agent_id)?,
            talk_ms,
        },
        Body::WrappedUp(wrapped_up) => EventBody::WrappedUp {
            agent: agent(&wrapped_up.agent_id)?,
            disposition: match wrapped_up.disposition {
                1 => Disposition::Resolved,
                2 => Disposition::Unresolved,
                3 => Disposition::Referred,
                4 => Disposition::OutOfScope,
                _ => Disposition::Unspecified,
            },
            handle_ms: wrapped_up.handle_ms,
            timed_out: wrapped_up.timed_out,
        },
        Body::Abandoned(v1::Abandoned { waited_ms, ringing }) => {
            EventBody::Abandoned { waited_ms, ringing }
        }
        other => ending_body(other)?,
    })
}

/// Callbacks and the ways to end.
fn ending_body(body: Body) -> Result<EventBody, FieldError> {
    let answer = |answer: u32| match answer {
        1 => Some(true),
        2 => Some(false),
        _ => None,
    };
    Ok(match body {
        Body::CallbackBooked(v1::CallbackBooked {
            window,
            from_ms,
            until_ms,
        }) => EventBody::CallbackBooked {
            window: window.then_some(Window {
                from: TimeMs(from_ms),
                until: TimeMs(until_ms),
            }),
        },
        Body::CallbackAttempted(v1::CallbackAttempted { attempt, step }) => {
            EventBody::CallbackAttempted {
                attempt,
                step: match step {
                    1 => CallbackStep::Dialled,
                    2 => CallbackStep::Answered,
                    3 => CallbackStep::NoAnswer,
                    4 => CallbackStep::Busy,
                    5 => CallbackStep::Voicemail,
                    _ => CallbackStep::Failed,
                },
            }
        }
        Body::CallbackEnded(v1::CallbackEnded { end, attempts }) => EventBody::CallbackEnded {
            end: match end {
                1 => CallbackEnd::Connected,
                2 => CallbackEnd::Exhausted,
                3 => CallbackEnd::Cancelled,
                other => {
                    return Err(FieldError::new("callback_ended.end", "1 to 3", other));
                }
            },
            attempts,
        },
        Body::DefaultRouted(v1::DefaultRouted { by }) => EventBody::DefaultRouted {
            by: match by {
                1 => RoutedBy::Mesh,
                2 => RoutedBy::DefaultTimer,
                3 => RoutedBy::DefaultMesh,
                4 => RoutedBy::DefaultNoLink,
                _ => RoutedBy::Nobody,
            },
        },
        Body::Blocked(v1::Blocked { reason }) => EventBody::Blocked {
            reason: u8::try_from(reason).unwrap_or(0),
        },
        Body::SurveyAnswered(survey) => EventBody::SurveyAnswered(SurveyAnswers {
            calls_about_this: survey.calls_about_this,
            all_answered: answer(survey.all_answered),
            no_more_calls: answer(survey.no_more_calls),
        }),
        Body::Closed(v1::Closed { events: _ }) => EventBody::Closed,
        _ => return Err(FieldError::new("body", "one that is known", "another")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(sequence: u64, body: Option<Body>) -> ContactEvent {
        let at = Some(prost_types::Timestamp {
            seconds: 1_760_000_000,
            nanos: 5_000_000,
        });
        ContactEvent {
            contact_id: ContactId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).to_string(),
            sequence,
            occurred_at: at,
            arrived_at: at,
            body,
            ..ContactEvent::default()
        }
    }

    #[test]
    fn an_event_comes_out_as_it_was_written() {
        let wire = wire(
            3,
            Some(Body::Delivered(v1::Delivered {
                agent_id: "a1".to_owned(),
            })),
        );
        let event = decode(Some(&wire.encode_to_vec())).expect("an event");
        assert_eq!(
            event.contact,
            ContactId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)
        );
        assert_eq!(event.at, TimeMs(1_760_000_000_005));
        assert_eq!(
            event.body,
            EventBody::Delivered {
                agent: AgentId::parse("a1").expect("an id")
            }
        );
    }

    #[test]
    fn what_cannot_be_counted_is_refused_with_field_limit_and_value() {
        let refused = |wire: ContactEvent| {
            decode(Some(&wire.encode_to_vec()))
                .expect_err("refused")
                .to_string()
        };
        let closed = |events| Some(Body::Closed(v1::Closed { events }));
        assert!(refused(wire(0, closed(0))).starts_with("sequence:"));
        assert!(refused(wire(4, closed(5))).starts_with("closed.events: \"5\""));
        assert!(refused(wire(1, None)).starts_with("body:"));
        let mut spoilt = wire(1, closed(1));
        spoilt.contact_id = "zz345678-89ab-cdef-0123-456789abcdef".to_owned();
        assert!(refused(spoilt.clone()).starts_with("contact_id:"));
        spoilt = wire(1, closed(1));
        spoilt.caller = bytes::Bytes::from_static(b"5550100");
        assert_eq!(
            refused(spoilt.clone()),
            "caller: \"7\" is outside the limit: 0 or 16 bytes"
        );
        spoilt = wire(1, closed(1));
        spoilt.occurred_at = Some(prost_types::Timestamp {
            seconds: -1,
            nanos: 0,
        });
        assert!(refused(spoilt).starts_with("occurred_at:"));
        let nameless = wire(
            1,
            Some(Body::Delivered(v1::Delivered {
                agent_id: "J. Doe".to_owned(),
            })),
        );
        let text = refused(nameless);
        assert!(
            text.starts_with("agent_id:") && !text.contains("Doe"),
            "{text}"
        );
        assert!(matches!(decode(None), Err(Malformed::Empty)));
        assert!(matches!(
            decode(Some(&[0xff; 40])),
            Err(Malformed::Protobuf(_))
        ));
        assert!(matches!(
            decode(Some(&[0; 70_000])),
            Err(Malformed::TooLong(70_000))
        ));
    }
}
