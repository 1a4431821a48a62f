//! `NeverSilent`: every question to the mesh gets exactly one answer in time.
//!
//! A question is a RouteRequest or a ReRoute. It is answered by the mesh (an agent, a
//! place, a message, back to the network, "default route"), or given up by the caller, or,
//! where no gateway could be reached or none had credit, by the switch's own default route:
//! that is what rule 4 of the contract is for.
//!
//! A violation is silence: the reply timer ran out although the link to the gateway that
//! was asked last had been up since the question was first asked, and the harness itself
//! was on time; or a question that never ended at all; or two nodes that were asked the
//! same and gave different answers. Reported, not counted: default routes that the mesh
//! asked for, those after a lost link, late answers.

use domain::invariant::Invariant;
use proto::cti::v1::{CommandError, RouteEndError};

use super::{Evidence, Verdict};
use crate::record::DefaultWhy;
use crate::time::MILLISECOND;

/// If the harness looked at a timer this much too late it may have missed an answer that
/// was already there: reported, not blamed on the mesh.
const HARNESS_LATE: u64 = 100 * MILLISECOND;

pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let facts = evidence.facts;
    let mut verdict = Verdict::new(
        Invariant::NeverSilent,
        "questions to the mesh, each with exactly one answer before its deadline",
    );
    let (mut after_lost_link, mut harness_late) = (0, 0);
    for ((call, dialogue, round), question) in &facts.questions {
        verdict.checked += 1;
        let contact = facts.contact_of(*call);
        let about = format!("one answer to dialogue x{call}.{dialogue}, round {round}");
        let ends = question.answers.len() + usize::from(question.gave_up)
            // The mesh's "default route" is its answer and the switch's default in one.
            + usize::from(question.default.is_some_and(|default| default.why != DefaultWhy::Mesh));
        if ends > 1 {
            verdict.violation(
                &contact,
                about,
                format!(
                    "{ends}: {:?}, gave up {}, default {:?}",
                    question.answers, question.gave_up, question.default
                ),
            );
            continue;
        }
        let Some(default) = question.default else {
            if ends == 0 && facts.complete {
                verdict.violation(
                    &contact,
                    about,
                    format!("none, {} times asked", question.asked),
                );
            }
            continue;
        };
        if default.why != DefaultWhy::Timer {
            continue;
        }
        if !default.link_up {
            after_lost_link += 1;
        } else if default.slow > HARNESS_LATE {
            harness_late += 1;
        } else {
            let waited = (default.at - question.first_asked) / MILLISECOND;
            verdict.violation(
                &contact,
                about,
                format!("none in {waited} ms with the link up"),
            );
        }
    }
    for (call, dialogue, same) in &facts.second_answers {
        if !same {
            verdict.violation(
                &facts.contact_of(*call),
                format!("the same answer to dialogue x{call}.{dialogue} from every node asked"),
                "another destination",
            );
        }
    }
    let counts = &facts.counts;
    verdict.note(format!(
        "{} answers of the mesh in time, {} of them \"default route\"",
        counts.answers, counts.default_mesh
    ));
    verdict.note(format!("{} default routes without a link or credit, {after_lost_link} after a link was lost, {harness_late} with the harness late itself", counts.default_no_link));
    verdict.note(format!("{} questions asked again at another node, {} second answers (all the same unless listed), {} late answers", counts.asked_again, facts.second_answers.len(), counts.late));
    if !facts.ends.is_empty() {
        let ends: Vec<String> = facts
            .ends
            .iter()
            .map(|(error, count)| {
                format!(
                    "{} {count}",
                    RouteEndError::try_from(*error).map_or("?", |error| error.as_str_name())
                )
            })
            .collect();
        verdict.note(format!("why the mesh had no answer: {}", ends.join(", ")));
    }
    if !facts.failed_commands.is_empty() {
        let failed: Vec<String> = facts
            .failed_commands
            .iter()
            .map(|((kind, error), count)| {
                format!(
                    "{kind}: {} {count}",
                    CommandError::try_from(*error).map_or("?", |error| error.as_str_name())
                )
            })
            .collect();
        verdict.note(format!(
            "commands that the switch could not carry out: {}",
            failed.join(", ")
        ));
    }
    if !facts.refusals.is_empty() {
        verdict.note(format!("refusals by the mesh: {:?}", facts.refusals));
    }
    verdict
}
