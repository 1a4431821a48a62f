//! `HonestClock`: waiting runs to a human.
//!
//! For every contact that reached a person: `waited_ms` of its first `Established` is the
//! time between the switch's first sight of the contact's first call and the moment at
//! which an agent picked up, by the switch's own record, within the clock tolerance; for
//! callback takers over the whole time from the first call to the callback's human. Also
//! for those who gave up: `waited_ms` of `Abandoned` is the time until the switch cleared
//! the call.

use domain::invariant::Invariant;
use proto::event::v1::contact_event::Body;

use super::{Evidence, Verdict};
use crate::time::MILLISECOND;

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let facts = evidence.facts;
    let mut verdict = Verdict::new(
        Invariant::HonestClock,
        "waits to a person and to giving up, against the switch's own record",
    );
    let tolerance_ms = evidence.expect.clock_tolerance_ms;
    let (mut callbacks, mut worst_ms) = (0u64, 0u64);
    for (id, contact) in evidence.log.in_order() {
        let Some(calls) = facts.contacts.get(id) else {
            continue;
        };
        let Some(first) = facts.first_call(id) else {
            continue;
        };
        let established = contact
            .bodies(|body| {
                if let Body::Established(body) = body {
                    Some(body)
                } else {
                    None
                }
            })
            .next();
        let person = calls
            .iter()
            .filter_map(|call| facts.calls.get(call))
            .flat_map(|call| &call.established)
            .map(|(at, _)| *at)
            .min();
        if let Some((event, established)) = established {
            verdict.checked += 1;
            let Some(person) = person else {
                verdict.violation(
                    id,
                    "no person, by the switch's record",
                    format!("established at sequence {}", event.sequence),
                );
                continue;
            };
            callbacks += u64::from(established.callback);
            let waited_ms = (person - first.arrived) / MILLISECOND;
            let error_ms = waited_ms.abs_diff(established.waited_ms);
            worst_ms = worst_ms.max(error_ms);
            if error_ms > tolerance_ms {
                verdict.violation(
                    id,
                    format!(
                        "waited {waited_ms} ms to a person, within {tolerance_ms} ms{}",
                        if established.callback {
                            " (callback)"
                        } else {
                            ""
                        }
                    ),
                    format!("{} ms", established.waited_ms),
                );
            }
            continue;
        }
        if person.is_some() && contact.closed() {
            verdict.violation(
                id,
                "a person, by the switch's record",
                "no established event",
            );
            continue;
        }
        let abandoned = contact
            .bodies(|body| {
                if let Body::Abandoned(body) = body {
                    Some(body)
                } else {
                    None
                }
            })
            .next();
        let last_cleared = calls
            .iter()
            .filter_map(|call| facts.calls.get(call))
            .filter_map(|call| call.cleared)
            .max();
        if let (Some((_, abandoned)), Some(cleared)) = (abandoned, last_cleared) {
            verdict.checked += 1;
            let waited_ms = (cleared - first.arrived) / MILLISECOND;
            // Somebody whose callback leg is not the end of it may give up more than once.
            if calls.len() == 1 && waited_ms.abs_diff(abandoned.waited_ms) > tolerance_ms {
                verdict.violation(
                    id,
                    format!("gave up after {waited_ms} ms, within {tolerance_ms} ms"),
                    format!("{} ms", abandoned.waited_ms),
                );
            }
        }
    }
    verdict.note(format!("{callbacks} of the waits are callback takers'; largest difference of the two clocks {worst_ms} ms"));
    verdict
}
