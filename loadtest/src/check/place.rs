//! `PlaceKept`: nothing costs a caller their arrival time.
//!
//! Checked on every `Queued` event: `place_from` is the contact's first arrival (for a
//! booked window: the window's start, from the booking on). On every contact: all events
//! carry the same first arrival, and it is the moment at which the switch saw the first of
//! the contact's calls, within the clock tolerance; callback legs, transfers, unanswered
//! rings and lost processes included. Who is served in which order is `BoundedOvertaking`.

use domain::invariant::Invariant;
use proto::event::v1::contact_event::Body;

use super::{Evidence, Verdict};
use crate::time::MILLISECOND;

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new(
        Invariant::PlaceKept,
        "places in line and first arrivals, against the switch's own record",
    );
    let tolerance_ms = evidence.expect.clock_tolerance_ms;
    let mut kept_over = [0u64; 6];
    for (id, contact) in evidence.log.in_order() {
        let mut window_from = None;
        for event in &contact.events {
            match &event.body {
                Body::CallbackBooked(booked) if booked.window => window_from = Some(booked.from_ms),
                Body::Queued(queued) => {
                    verdict.checked += 1;
                    let reason = usize::try_from(queued.reason).unwrap_or(0).min(5);
                    kept_over[reason] += 1;
                    let right = queued.place_from_ms == contact.arrived_ms
                        || window_from == Some(queued.place_from_ms);
                    if !right {
                        verdict.violation(
                            id,
                            format!(
                                "place counted from {} at sequence {}",
                                contact.arrived_ms, event.sequence
                            ),
                            format!(
                                "from {}, {} ms later",
                                queued.place_from_ms,
                                queued
                                    .place_from_ms
                                    .wrapping_sub(contact.arrived_ms)
                                    .cast_signed()
                            ),
                        );
                    }
                }
                _ => {}
            }
        }
        for (sequence, arrived_ms) in &contact.other_arrivals {
            verdict.violation(
                id,
                format!("first arrival {} in every event", contact.arrived_ms),
                format!("{arrived_ms} at sequence {sequence}"),
            );
        }
        let Some(call) = evidence.facts.first_call(id) else {
            continue;
        };
        verdict.checked += 1;
        let seen_ms = call.arrived / MILLISECOND;
        if contact.arrived_ms.abs_diff(seen_ms) > tolerance_ms {
            verdict.violation(
                id,
                format!("first arrival {seen_ms}, as the switch saw it, within {tolerance_ms} ms"),
                contact.arrived_ms.to_string(),
            );
        }
    }
    verdict.note(format!(
        "places kept after: {} unanswered rings, {} transfers, {} callbacks, {} recoveries",
        kept_over[2], kept_over[3], kept_over[4], kept_over[5]
    ));
    verdict
}
