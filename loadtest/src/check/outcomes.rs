//! `EveryOutcomeCounted`: every contact's events reach Kafka, in order, without a gap, and
//! are counted once.
//!
//! Each contact of the switch's record is in the log with sequences 1 to n without a gap,
//! the first time each in order; a repeat is the same bytes; once its last call is cleared
//! the last event is `Closed` with n events (a contact with a callback that is still to
//! come is open). Calls that the mesh never named are matched by number: as many contacts
//! of the log are unknown to the record as calls are without a name. The mesh has
//! acknowledged every event of the switch. And the totals counted from the log here are
//! those of the outcomes role's query API.

use std::collections::BTreeMap;

use domain::invariant::Invariant;
use proto::event::v1::contact_event::Body;

use super::log::{Contact, Log};
use super::{Evidence, Verdict};

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let (facts, log) = (evidence.facts, evidence.log);
    let mut verdict = Verdict::new(
        Invariant::EveryOutcomeCounted,
        "contacts of the switch's record in the log, and totals",
    );
    let mut open = 0;
    let mut known: Vec<&String> = facts.contacts.keys().collect();
    known.sort();
    for id in known {
        verdict.checked += 1;
        let Some(contact) = log.contacts.get(id) else {
            verdict.violation(id, "its events in the log", "none");
            continue;
        };
        let cleared = facts.contacts[id]
            .iter()
            .filter_map(|call| facts.calls.get(call))
            .all(|call| call.cleared.is_some());
        open += u64::from(!sequences(
            id,
            contact,
            cleared && !contact.callback_to_come(),
            &mut verdict,
        ));
    }
    let nameless = facts
        .calls
        .values()
        .filter(|call| call.contact.is_empty() && call.cleared.is_some())
        .count();
    let mut unknown: Vec<_> = log
        .contacts
        .iter()
        .filter(|(id, _)| !facts.contacts.contains_key(*id))
        .collect();
    unknown.sort_by_key(|(id, _)| *id);
    for (id, contact) in &unknown {
        verdict.checked += 1;
        sequences(id, contact, true, &mut verdict);
    }
    if unknown.len() != nameless {
        let example = unknown.first().map_or("(none)", |(id, _)| id.as_str());
        verdict.violation(
            example,
            format!("{nameless} contacts for the calls that the mesh never named"),
            unknown.len().to_string(),
        );
    }
    for (id, sequence) in &log.contradictions {
        verdict.violation(id, format!("one event {sequence}"), "two different ones");
    }
    for (id, before, sequence) in &log.out_of_order {
        verdict.violation(id, format!("event {sequence} before {before}"), "after it");
    }
    for unreadable in &log.unreadable {
        verdict.violation("(record)", "a contact event", unreadable.clone());
    }
    let (made, acknowledged) = facts.events;
    if facts.complete && made != acknowledged {
        verdict.violation(
            "(switch)",
            format!("all {made} events of the switch acknowledged"),
            acknowledged.to_string(),
        );
    }
    totals(evidence, &mut verdict);
    verdict.note(format!("{} records, {} contacts, {} repeats with the same bytes, {open} contacts open at the end, {nameless} calls without a name", log.records, log.contacts.len(), log.repeats));
    verdict
}

/// Gap-free from 1, and closed if it should be. Returns whether it is closed.
fn sequences(id: &str, contact: &Contact, should_be_closed: bool, verdict: &mut Verdict) -> bool {
    for (index, event) in contact.events.iter().enumerate() {
        let expected = index as u64 + 1;
        if event.sequence != expected {
            verdict.violation(
                id,
                format!("event {expected}"),
                format!("event {} next", event.sequence),
            );
            return contact.closed();
        }
    }
    let last = contact.events.last();
    match last.map(|event| &event.body) {
        Some(Body::Closed(closed)) => {
            if closed.events != contact.events.len() as u64 {
                verdict.violation(
                    id,
                    format!("{} events, as Closed says", closed.events),
                    contact.events.len().to_string(),
                );
            }
            true
        }
        _ => {
            if should_be_closed {
                verdict.violation(
                    id,
                    "Closed: its calls are over",
                    format!(
                        "last event {} is {}",
                        contact.events.len(),
                        last.map_or("none", |event| name(&event.body))
                    ),
                );
            }
            false
        }
    }
}

/// Totals of the log by the names of the query API: contacts with at least one such event,
/// or events.
pub(crate) fn count(log: &Log) -> BTreeMap<&'static str, u64> {
    let mut totals: BTreeMap<&'static str, u64> = BTreeMap::new();
    for contact in log.contacts.values() {
        let has = |pick: fn(&Body) -> bool| contact.events.iter().any(|event| pick(&event.body));
        let times = |pick: fn(&Body) -> bool| {
            contact
                .events
                .iter()
                .filter(|event| pick(&event.body))
                .count() as u64
        };
        let answered = has(|body| matches!(body, Body::Established(_)));
        let mut add = |name, count: u64| *totals.entry(name).or_default() += count;
        add("offered", 1);
        add("answered", u64::from(answered));
        add(
            "default_routed",
            u64::from(has(|body| matches!(body, Body::DefaultRouted(_)))),
        );
        add(
            "blocked",
            u64::from(has(|body| matches!(body, Body::Blocked(_)))),
        );
        add("closed", u64::from(contact.closed()));
        add(
            "transfers_requested",
            times(|body| matches!(body, Body::TransferRequested(_))),
        );
        add(
            "transfers_completed",
            times(|body| matches!(body, Body::Transferred(_))),
        );
        add(
            "not_answered_by_agent",
            times(|body| matches!(body, Body::NotAnswered(_))),
        );
        add(
            "callback_accepted",
            times(|body| matches!(body, Body::CallbackBooked(_))),
        );
        add(
            "surveys",
            u64::from(has(|body| matches!(body, Body::SurveyAnswered(_)))),
        );
    }
    totals
}

fn totals(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let Some(live) = evidence.live else {
        verdict.note("the outcomes role was not asked: totals not compared".to_owned());
        return;
    };
    if !live.caught_up {
        verdict.violation(
            "(outcomes)",
            "the outcomes role has read the log to its end",
            format!("not within the limit: {}", live.lag),
        );
    }
    let mut compared = 0;
    for (name, counted) in count(evidence.log) {
        let Some(measure) = live.measures.iter().find(|measure| measure.name == name) else {
            continue;
        };
        compared += 1;
        verdict.checked += 1;
        if (measure.value - counted as f64).abs() > 0.5 {
            verdict.violation(
                "(totals)",
                format!("{name} {counted}, counted from the log"),
                format!("{} in the query API", measure.value),
            );
        }
    }
    verdict.note(format!("{compared} totals compared with the query API"));
    if compared == 0 {
        verdict.violation(
            "(totals)",
            "measures by the names of the definitions",
            "none known",
        );
    }
}

/// An event's name.
pub(crate) const fn name(body: &Body) -> &'static str {
    match body {
        Body::Offered(_) => "Offered",
        Body::Queued(_) => "Queued",
        Body::OfferMade(_) => "OfferMade",
        Body::Assigned(_) => "Assigned",
        Body::Delivered(_) => "Delivered",
        Body::Established(_) => "Established",
        Body::NotAnswered(_) => "NotAnswered",
        Body::TransferRequested(_) => "TransferRequested",
        Body::Transferred(_) => "Transferred",
        Body::Disconnected(_) => "Disconnected",
        Body::WrappedUp(_) => "WrappedUp",
        Body::Abandoned(_) => "Abandoned",
        Body::CallbackBooked(_) => "CallbackBooked",
        Body::CallbackAttempted(_) => "CallbackAttempted",
        Body::CallbackEnded(_) => "CallbackEnded",
        Body::DefaultRouted(_) => "DefaultRouted",
        Body::Blocked(_) => "Blocked",
        Body::SurveyAnswered(_) => "SurveyAnswered",
        Body::Closed(_) => "Closed",
        Body::OfferDeclined(_) => "OfferDeclined",
    }
}
