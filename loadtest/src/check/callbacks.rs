//! `CallbackKept`: an accepted callback ends once, as connected, exhausted or cancelled.
//!
//! Accepted is what the caller heard: the switch's record has `booked`. For each such
//! booking (a second call of the same caller that was told the code of the first is that
//! booking) the log has `CallbackBooked`, and at most one `CallbackEnded`; if none, the
//! callback role, asked at the end of the run, still has it. A callback that ended as
//! connected did reach a person, by the switch's record. And no two dials of one contact
//! overlap, each with the leg it led to.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::invariant::Invariant;
use proto::cti::v1::DialOutcome;
use proto::event::v1::contact_event::Body;
use proto::routing::v1::CallbackEnd;

use super::facts::{Booking, Dial, Facts};
use super::log::Log;
use super::{Evidence, Verdict};
use crate::time::{MILLISECOND, Us};

/// States of a booking that is over, as `GetBooking` words them.
const OVER: [&str; 3] = ["connected", "exhausted", "cancelled"];

/// Contacts that hold a booking of which a caller was told, with what the caller was told.
///
/// A caller who has one already (for the same need) is told of that one: the holder is then
/// an earlier contact of the same caller, also if the first telling did not reach them
/// because they had hung up.
pub(crate) fn holders<'a>(facts: &'a Facts, log: &'a Log) -> Vec<(&'a str, &'a Booking)> {
    let mut by_caller: HashMap<u32, Vec<&str>> = HashMap::new();
    for call in facts.calls.values().filter(|call| !call.contact.is_empty()) {
        by_caller
            .entry(call.caller)
            .or_default()
            .push(&call.contact);
    }
    let mut seen: HashSet<&str> = HashSet::new();
    let mut holders = Vec::new();
    for booking in &facts.bookings {
        let told_ms = booking.at / MILLISECOND;
        let open_then = |id: &&&str| {
            log.contacts
                .get(**id)
                .is_some_and(|contact| contact.booked_at(told_ms))
        };
        let holder = match log.contacts.get(&booking.contact) {
            Some(contact) if contact.booked_at(u64::MAX) || contact.callback_to_come() => {
                booking.contact.as_str()
            }
            _ => by_caller
                .get(&booking.caller)
                .and_then(|ids| ids.iter().find(open_then))
                .copied()
                .unwrap_or(&booking.contact),
        };
        if seen.insert(holder) {
            holders.push((holder, booking));
        }
    }
    holders
}

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let facts = evidence.facts;
    let mut verdict = Verdict::new(
        Invariant::CallbackKept,
        "callbacks promised to callers, and dials",
    );
    let mut ended: BTreeMap<&str, u64> = BTreeMap::new();
    let mut alive = 0;
    for (id, booking) in holders(facts, evidence.log) {
        verdict.checked += 1;
        let Some(contact) = evidence.log.contacts.get(id) else {
            verdict.violation(
                id,
                format!(
                    "a callback, code {} told at {}",
                    booking.code,
                    booking.at / MILLISECOND
                ),
                "the log does not know the contact",
            );
            continue;
        };
        let booked = contact
            .events
            .iter()
            .filter(|event| matches!(event.body, Body::CallbackBooked(_)))
            .count();
        let ends: Vec<CallbackEnd> = contact
            .bodies(|body| {
                if let Body::CallbackEnded(body) = body {
                    CallbackEnd::try_from(body.end as i32).ok()
                } else {
                    None
                }
            })
            .map(|(_, end)| end)
            .collect();
        if booked == 0 {
            verdict.violation(id, "CallbackBooked in the log", "none");
        }
        match ends.as_slice() {
            [] => match facts.pending.get(id) {
                Some((true, state)) if !OVER.contains(&state.as_str()) => alive += 1,
                Some((found, state)) => verdict.violation(
                    id,
                    "ended in the log, or alive in the callback role",
                    format!("found {found}, state {state:?}"),
                ),
                None => verdict.violation(
                    id,
                    "ended in the log, or alive in the callback role",
                    "not ended; the callback role was not asked",
                ),
            },
            [end] => {
                *ended.entry(end.as_str_name()).or_default() += 1;
                let person = facts
                    .contacts
                    .get(id)
                    .into_iter()
                    .flatten()
                    .filter_map(|call| facts.calls.get(call))
                    .any(|call| call.established.iter().any(|(at, _)| *at > booking.at));
                if *end == CallbackEnd::Connected && !person {
                    verdict.violation(
                        id,
                        "a person before the callback counts as connected",
                        "none, by the switch's record",
                    );
                }
            }
            // Booked again after it had ended (the caller called anew in the same contact).
            several if several.len() <= booked => {}
            several => verdict.violation(id, "one end", format!("{several:?}")),
        }
    }
    overlapping_dials(facts, &mut verdict);
    let outcomes = facts.dials.values().fold(
        BTreeMap::new(),
        |mut outcomes: BTreeMap<&str, u64>, dial| {
            let name =
                DialOutcome::try_from(dial.outcome).map_or("?", |outcome| outcome.as_str_name());
            *outcomes.entry(name).or_default() += 1;
            outcomes
        },
    );
    let windows = facts
        .bookings
        .iter()
        .filter(|booking| booking.window.is_some())
        .count();
    verdict.note(format!("booked {} ({windows} for a window), refused {}, ended {ended:?}, alive at the end of the run {alive}", facts.bookings.len(), facts.counts.booking_failed));
    verdict.note(format!("dials: {outcomes:?}"));
    verdict
}

fn overlapping_dials(facts: &Facts, verdict: &mut Verdict) {
    let mut by_contact: BTreeMap<&str, Vec<(&Dial, Us)>> = BTreeMap::new();
    for dial in facts.dials.values() {
        let leg = dial.call.and_then(|call| facts.calls.get(&call));
        let until = match leg {
            Some(leg) => leg.cleared.unwrap_or(facts.span.1),
            None => dial.ended.unwrap_or(facts.span.1),
        };
        by_contact
            .entry(&dial.contact)
            .or_default()
            .push((dial, until));
    }
    for (contact, mut dials) in by_contact {
        dials.sort_by_key(|(dial, _)| dial.from);
        verdict.checked += dials.len() as u64;
        for pair in dials.windows(2) {
            let [(earlier, until), (later, _)] = pair else {
                continue;
            };
            if later.from < *until {
                verdict.violation(
                    contact,
                    format!(
                        "no dial before {}, when the one of {} had ended",
                        until / MILLISECOND,
                        earlier.from / MILLISECOND
                    ),
                    format!("another at {}", later.from / MILLISECOND),
                );
            }
        }
    }
}
