//! Conversions of trunkline.event.v1: what is written to the log.

use bytes::Bytes;
use domain::TimeMs;
use domain::pool::{
    CallbackEnd, CallbackStep, Cause, Disposition, Event, EventBody, QueuedReason, RoutedBy,
};

use crate::event::v1;
use crate::event::v1::contact_event::Body;

/// Version of the event schema written now.
pub const SCHEMA: u32 = 1;

/// An event of a contact in `pool`, as it goes to the outbox and from there to Kafka.
#[must_use]
pub fn contact_event(pool: &str, event: Event) -> v1::ContactEvent {
    let contact_id = event.contact.to_string();
    v1::ContactEvent {
        event_id: format!("{contact_id}/{}", event.sequence),
        contact_id,
        sequence: event.sequence,
        occurred_at: Some(timestamp(event.at)),
        schema: SCHEMA,
        traceparent: event.traceparent.to_string(),
        pool: pool.to_owned(),
        line: event.line.to_string(),
        topic: event.topic.to_string(),
        queue: event.queue.to_string(),
        language: event.language.to_string(),
        channel: u32::from(event.channel),
        caller: event
            .caller
            .map(|caller| Bytes::copy_from_slice(&caller.0.to_be_bytes()))
            .unwrap_or_default(),
        arrived_at: Some(timestamp(event.arrived_at)),
        switch_id: event.switch.to_string(),
        body: Some(body(event.body, event.sequence)),
    }
}

/// Epoch milliseconds as a protobuf timestamp.
#[must_use]
pub fn timestamp(at: TimeMs) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(at.0 / 1_000).expect("a u64 of milliseconds fits in i64 seconds"),
        nanos: i32::try_from(at.0 % 1_000 * 1_000_000).expect("below one thousand million"),
    }
}

/// A protobuf timestamp as epoch milliseconds; before the epoch counts as the epoch.
#[must_use]
pub fn time(timestamp: &prost_types::Timestamp) -> TimeMs {
    let seconds = u64::try_from(timestamp.seconds).unwrap_or(0);
    let milliseconds = u64::try_from(timestamp.nanos / 1_000_000).unwrap_or(0);
    TimeMs(seconds.saturating_mul(1_000).saturating_add(milliseconds))
}

fn body(body: EventBody, sequence: u64) -> Body {
    match body {
        EventBody::Offered {
            topic_confidence,
            person_asked,
            authenticated,
        } => Body::Offered(v1::Offered {
            topic_confidence,
            person_asked,
            authenticated,
        }),
        EventBody::Queued {
            position,
            expected_wait_ms,
            low_ms,
            high_ms,
            reason,
            place_from,
        } => Body::Queued(v1::Queued {
            position,
            expected_wait_ms,
            expected_wait_low_ms: low_ms,
            expected_wait_high_ms: high_ms,
            reason: queued_reason(reason).into(),
            place_from_ms: place_from.0,
        }),
        EventBody::OfferMade {
            virtual_hold,
            windows,
        } => Body::OfferMade(v1::OfferMade {
            virtual_hold,
            windows,
        }),
        EventBody::OfferDeclined => Body::OfferDeclined(v1::OfferDeclined {}),
        EventBody::Assigned {
            agent,
            assignment,
            waited_ms,
        } => Body::Assigned(v1::Assigned {
            agent_id: agent.to_string(),
            assignment,
            waited_ms,
        }),
        EventBody::Delivered { agent } => Body::Delivered(v1::Delivered {
            agent_id: agent.to_string(),
        }),
        EventBody::Established {
            agent,
            waited_ms,
            callback,
            first,
            nuisance_hold_ms,
            agent_held_ms,
        } => Body::Established(v1::Established {
            agent_id: agent.to_string(),
            waited_ms,
            callback,
            first,
            nuisance_hold_ms,
            agent_held_ms,
        }),
        EventBody::NotAnswered { agent, cause: why } => Body::NotAnswered(v1::NotAnswered {
            agent_id: agent.to_string(),
            cause: cause(why),
        }),
        EventBody::TransferRequested {
            from,
            from_topic,
            to_topic,
            warm,
        } => {
            let from_agent_id = from.to_string();
            Body::TransferRequested(v1::TransferRequested {
                from_agent_id,
                from_topic,
                to_topic,
                warm,
            })
        }
        EventBody::Transferred { from, to } => Body::Transferred(v1::Transferred {
            from_agent_id: from.to_string(),
            to_agent_id: to.to_string(),
        }),
        EventBody::Disconnected { agent, talk_ms } => Body::Disconnected(v1::Disconnected {
            agent_id: agent.to_string(),
            talk_ms,
        }),
        EventBody::WrappedUp {
            agent,
            disposition: outcome,
            handle_ms,
            timed_out,
        } => Body::WrappedUp(v1::WrappedUp {
            agent_id: agent.to_string(),
            disposition: disposition(outcome),
            handle_ms,
            timed_out,
        }),
        EventBody::Abandoned { waited_ms, ringing } => {
            Body::Abandoned(v1::Abandoned { waited_ms, ringing })
        }
        EventBody::CallbackBooked { window } => Body::CallbackBooked(v1::CallbackBooked {
            window: window.is_some(),
            from_ms: window.map_or(0, |window| window.from.0),
            until_ms: window.map_or(0, |window| window.until.0),
        }),
        EventBody::CallbackAttempted { attempt, step } => {
            Body::CallbackAttempted(v1::CallbackAttempted {
                attempt,
                step: callback_step(step),
            })
        }
        EventBody::CallbackEnded { end, attempts } => Body::CallbackEnded(v1::CallbackEnded {
            end: callback_end(end),
            attempts,
        }),
        EventBody::DefaultRouted { by } => {
            Body::DefaultRouted(v1::DefaultRouted { by: routed_by(by) })
        }
        EventBody::Blocked { reason } => Body::Blocked(v1::Blocked {
            reason: u32::from(reason),
        }),
        EventBody::SurveyAnswered(survey) => Body::SurveyAnswered(v1::SurveyAnswered {
            calls_about_this: survey.calls_about_this,
            all_answered: yes_or_no(survey.all_answered),
            no_more_calls: yes_or_no(survey.no_more_calls),
        }),
        EventBody::Closed => Body::Closed(v1::Closed { events: sequence }),
    }
}

fn queued_reason(reason: QueuedReason) -> v1::QueuedReason {
    match reason {
        QueuedReason::Arrival => v1::QueuedReason::Arrival,
        QueuedReason::NotAnswered => v1::QueuedReason::NotAnswered,
        QueuedReason::Transfer => v1::QueuedReason::Transfer,
        QueuedReason::Callback => v1::QueuedReason::Callback,
        QueuedReason::Recovered => v1::QueuedReason::Recovered,
    }
}

fn cause(cause: Cause) -> u32 {
    match cause {
        Cause::Unspecified => 0,
        Cause::NormalClearing => 1,
        Cause::Busy => 2,
        Cause::CallNotAnswered => 3,
        Cause::CallCancelled => 4,
        Cause::DestNotObtainable => 5,
        Cause::DestOutOfOrder => 6,
        Cause::NetworkCongestion => 7,
        Cause::SingleStepTransfer => 8,
        Cause::SwitchRestart => 9,
        Cause::LegDropped => 10,
        Cause::Voicemail => 11,
    }
}

fn disposition(disposition: Disposition) -> u32 {
    match disposition {
        Disposition::Unspecified => 0,
        Disposition::Resolved => 1,
        Disposition::Unresolved => 2,
        Disposition::Referred => 3,
        Disposition::OutOfScope => 4,
    }
}

fn callback_step(step: CallbackStep) -> u32 {
    match step {
        CallbackStep::Dialled => 1,
        CallbackStep::Answered => 2,
        CallbackStep::NoAnswer => 3,
        CallbackStep::Busy => 4,
        CallbackStep::Voicemail => 5,
        CallbackStep::Failed => 6,
    }
}

fn callback_end(end: CallbackEnd) -> u32 {
    match end {
        CallbackEnd::Connected => 1,
        CallbackEnd::Exhausted => 2,
        CallbackEnd::Cancelled => 3,
    }
}

fn routed_by(by: RoutedBy) -> u32 {
    match by {
        RoutedBy::Nobody => 0,
        RoutedBy::Mesh => 1,
        RoutedBy::DefaultTimer => 2,
        RoutedBy::DefaultMesh => 3,
        RoutedBy::DefaultNoLink => 4,
    }
}

fn yes_or_no(answer: Option<bool>) -> u32 {
    match answer {
        None => 0,
        Some(true) => 1,
        Some(false) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_the_timestamp() {
        for at in [0, 1, 999, 1_000, 1_764_000_000_123] {
            assert_eq!(time(&timestamp(TimeMs(at))), TimeMs(at));
        }
    }
}
