//! `OneCallOneAgent`: no call with two agents, no agent with more contacts than capacity.
//!
//! From the log: walking a contact's events, an agent is assigned only when no other one
//! has it (in a transfer the first one keeps it until the next answers); and over all
//! contacts, an agent's spans from `Assigned` to the release never overlap (agents of the
//! scenarios take one contact at once). A reservation also ends when, by the switch's
//! record, it refused to move the call there or the leg was over. From the switch's record: the mesh never sent a
//! call to a phone that held another, unless that other one left the phone within the
//! tolerance (commands of two gateways may cross), and no call was at two phones but in a
//! transfer, where the switch itself keeps the first one on the line.

use std::collections::HashMap;

use domain::invariant::Invariant;
use proto::event::v1::contact_event::Body;

use super::log::Contact;
use super::{Evidence, Verdict};
use crate::time::MILLISECOND;

/// The mesh dates what the switch reports by its age in whole milliseconds: an end taken from
/// the switch's own record may lie this much after the pool's.
const REPORT_AGE_MS: u64 = 2;

#[derive(Debug)]
struct Span {
    contact: String,
    from_ms: u64,
    until_ms: u64,
}

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::new(
        Invariant::OneCallOneAgent,
        "assignments in the log, and calls at phones in the switch's record",
    );
    let tolerance_ms = evidence.expect.clock_tolerance_ms;
    let mut spans: HashMap<String, Vec<Span>> = HashMap::new();
    for (id, contact) in evidence.log.in_order() {
        // No event says that a reservation is over when the caller hangs up or the switch
        // refuses to move the call; the switch's record does.
        let mut refused = evidence.facts.moves_ended_ms(id);
        refused.extend(evidence.facts.legs_ended_ms(id));
        refused.sort_unstable();
        walk(id, contact, &refused, &mut verdict, &mut spans);
    }
    let mut agents: Vec<_> = spans.into_iter().collect();
    agents.sort_by(|a, b| a.0.cmp(&b.0));
    for (agent, mut spans) in agents {
        spans.sort_by_key(|span| (span.from_ms, span.until_ms));
        for pair in spans.windows(2) {
            let [earlier, later] = pair else { continue };
            // Spans that only touch are of one moment.
            if later.from_ms + REPORT_AGE_MS < earlier.until_ms {
                verdict.violation(
                    &later.contact,
                    format!("{agent} free from {} on", earlier.until_ms),
                    format!(
                        "assigned at {} while with {}",
                        later.from_ms, earlier.contact
                    ),
                );
            }
        }
    }
    let mut crossed = 0;
    for busy in &evidence.facts.busy {
        verdict.checked += 1;
        let holds = evidence.facts.holds.get(&busy.agent);
        let left = holds.into_iter().flatten().find(|hold| {
            hold.call == busy.holds
                && hold.from <= busy.at
                && hold.until.is_none_or(|until| until >= busy.at)
        });
        let left_soon = left
            .and_then(|hold| hold.until)
            .is_some_and(|until| (until - busy.at) / MILLISECOND <= tolerance_ms);
        if left_soon {
            crossed += 1;
        } else {
            verdict.violation(
                &busy.contact,
                format!("{} free", busy.agent),
                format!(
                    "sent while the phone held call {} ({})",
                    busy.holds,
                    evidence.facts.contact_of(busy.holds)
                ),
            );
        }
    }
    verdict.note(format!(
        "{crossed} calls reached a phone that was just being freed"
    ));
    verdict
}

/// Walks one contact: who has it when.
fn walk(
    id: &str,
    contact: &Contact,
    refused_ms: &[u64],
    verdict: &mut Verdict,
    spans: &mut HashMap<String, Vec<Span>>,
) {
    // Who has it: agent, since when, talked already.
    let mut with: Vec<(String, u64, bool)> = Vec::new();
    let mut transferring = false;
    let mut release = |with: &mut Vec<(String, u64, bool)>, agent: &str, at_ms: u64| {
        if let Some(index) = with.iter().position(|held| held.0 == agent) {
            let (agent, from_ms, talked) = with.remove(index);
            let refused = refused_ms
                .iter()
                .find(|refused| **refused >= from_ms && !talked);
            let until_ms = refused.map_or(at_ms, |refused| at_ms.min(*refused));
            spans.entry(agent).or_default().push(Span {
                contact: id.to_owned(),
                from_ms,
                until_ms,
            });
        }
    };
    for event in &contact.events {
        let at_ms = event.at_ms;
        match &event.body {
            Body::Assigned(assigned) => {
                verdict.checked += 1;
                let agent = &assigned.agent_id;
                // A reservation that the switch refused is over, though no event says so.
                let refused = |held: &(String, u64, bool)| {
                    !held.2
                        && refused_ms
                            .iter()
                            .any(|refused| (held.1..=at_ms).contains(refused))
                };
                let over: Vec<String> = with
                    .iter()
                    .filter(|held| refused(held))
                    .map(|held| held.0.clone())
                    .collect();
                for agent in over {
                    release(&mut with, &agent, at_ms);
                }
                let others: Vec<&str> = with
                    .iter()
                    .filter(|held| held.0 != *agent && !(transferring && held.2))
                    .map(|held| held.0.as_str())
                    .collect();
                if !others.is_empty() {
                    verdict.violation(
                        id,
                        format!("{agent} alone from sequence {} on", event.sequence),
                        format!("also with {}", others.join(", ")),
                    );
                }
                if !with.iter().any(|held| held.0 == *agent) {
                    with.push((agent.clone(), at_ms, false));
                }
            }
            Body::Established(established) => {
                match with.iter_mut().find(|held| held.0 == established.agent_id) {
                    Some(held) => held.2 = true,
                    None => with.push((established.agent_id.clone(), at_ms, true)),
                }
                let others: Vec<String> = with
                    .iter()
                    .filter(|held| held.0 != established.agent_id)
                    .map(|held| held.0.clone())
                    .collect();
                for other in &others {
                    if !transferring {
                        verdict.violation(
                            id,
                            format!(
                                "{} alone from sequence {} on",
                                established.agent_id, event.sequence
                            ),
                            format!("also with {other}"),
                        );
                    }
                }
            }
            Body::TransferRequested(_) => transferring = true,
            Body::Transferred(transferred) => {
                release(&mut with, &transferred.from_agent_id, at_ms);
                transferring = false;
            }
            Body::NotAnswered(missed) => release(&mut with, &missed.agent_id, at_ms),
            Body::Disconnected(ended) => {
                release(&mut with, &ended.agent_id, at_ms);
                transferring &= !with.is_empty();
            }
            // Back in line: a reservation is over; who talks stays (warm transfer).
            Body::Queued(_) | Body::CallbackAttempted(_) => {
                let reserved: Vec<String> = with
                    .iter()
                    .filter(|held| !held.2)
                    .map(|held| held.0.clone())
                    .collect();
                for agent in reserved {
                    release(&mut with, &agent, at_ms);
                }
            }
            Body::Abandoned(_) | Body::DefaultRouted(_) | Body::Closed(_) => {
                let all: Vec<String> = with.iter().map(|held| held.0.clone()).collect();
                for agent in all {
                    release(&mut with, &agent, at_ms);
                }
            }
            _ => {}
        }
    }
}
