//! The measures by name: what each counts, what it is divided by, what it leaves out.
//!
//! Definitions are code with a version: a change of meaning is a new version and an entry
//! in the change log, never a silent edit. Each is data (a [`Formula`] over counters), so
//! the same table computes, documents and is tested.

use super::counter::Counter::{self, *};
use super::counter::Histogram::{self, AbandonedWait, WaitCallback, WaitHolders};
use super::histogram::quantile;
use super::resolution::WINDOWS_DAYS;
use super::tally::Counts;

/// Version of the definitions.
pub const DEFINITIONS_VERSION: u32 = 1;

/// The counters of a group, and the part of its issues whose windows are still open.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// All counters.
    pub counts: Counts,
    /// By window ([`WINDOWS_DAYS`]): the counters of conversations that ended so recently
    /// that the window is open.
    pub open: [Counts; WINDOWS_DAYS.len()],
}

/// In what a measure is expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// 0 to 1.
    Share,
    /// Milliseconds.
    Milliseconds,
    /// Things per thing.
    Ratio,
}

/// A measure's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The value; 0 if not known.
    pub value: f64,
    /// What it was divided by; 0 for counts.
    pub denominator: u64,
    /// Whether there was anything to measure.
    pub known: bool,
}

/// Which part of a window's issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Settled,
}

/// How a measure is computed.
#[derive(Clone, Copy, Debug)]
enum Formula {
    /// A counter.
    Count(Counter),
    /// Sum of counters over sum of counters.
    Ratio(&'static [Counter], &'static [Counter]),
    /// As `Ratio`, the third sum taken off the denominator.
    RatioLess(&'static [Counter], &'static [Counter], &'static [Counter]),
    /// A percentile (0 to 1) of distributions taken together.
    Percentile(&'static [Histogram], f64),
    /// Root mean square of the announced wait's error.
    AnnouncedRootMeanSquare,
    /// Resolved over issues of a window.
    Resolved(usize, Part),
    /// Issues with an open window over issues.
    Provisional(usize),
}

/// A measure.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// In what it is expressed.
    pub unit: Unit,
    /// What is counted, in words.
    pub numerator: &'static str,
    /// What it is divided by, in words; empty for counts.
    pub denominator: &'static str,
    /// What it leaves out, and what it is for.
    pub note: &'static str,
    formula: Formula,
}

const fn issues_of(window: usize) -> (Counter, Counter) {
    match window {
        0 => (Issues7, Resolved7),
        1 => (Issues14, Resolved14),
        _ => (Issues30, Resolved30),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn ratio(numerator: i64, denominator: u64) -> Value {
    if denominator == 0 {
        return Value {
            value: 0.0,
            denominator: 0,
            known: false,
        };
    }
    Value {
        value: numerator as f64 / denominator as f64,
        denominator,
        known: true,
    }
}

fn sum(counts: &Counts, counters: &[Counter]) -> i64 {
    counters.iter().fold(0, |sum, counter| {
        sum.saturating_add(counts.signed(*counter))
    })
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Definition {
    /// The value for a group.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and milliseconds far below 2^53"
    )]
    pub fn value(&self, measured: &Measured) -> Value {
        let counts = &measured.counts;
        match self.formula {
            Formula::Count(counter) => Value {
                value: counts.signed(counter) as f64,
                denominator: 0,
                known: true,
            },
            Formula::Ratio(numerator, denominator) => {
                ratio(sum(counts, numerator), unsigned(sum(counts, denominator)))
            }
            Formula::RatioLess(numerator, denominator, less) => ratio(
                sum(counts, numerator),
                unsigned(sum(counts, denominator).saturating_sub(sum(counts, less))),
            ),
            Formula::Percentile(histograms, share) => {
                let buckets = counts.buckets(histograms);
                let denominator = buckets.values().sum();
                match quantile(&buckets, share) {
                    Some(value) => Value {
                        value: value as f64,
                        denominator,
                        known: true,
                    },
                    None => Value {
                        value: 0.0,
                        denominator: 0,
                        known: false,
                    },
                }
            }
            Formula::AnnouncedRootMeanSquare => {
                let mean = ratio(
                    counts.signed(AnnouncedErrorSquareS2),
                    counts.count(AnnouncedWaits),
                );
                Value {
                    value: mean.value.max(0.0).sqrt() * 1_000.0,
                    ..mean
                }
            }
            Formula::Resolved(window, part) => {
                let (issues, resolved) = issues_of(window);
                let open = &measured.open[window];
                let (open_issues, open_resolved) = match part {
                    Part::All => (0, 0),
                    Part::Settled => (open.signed(issues), open.signed(resolved)),
                };
                ratio(
                    counts.signed(resolved) - open_resolved,
                    unsigned(counts.signed(issues) - open_issues),
                )
            }
            Formula::Provisional(window) => {
                let (issues, _) = issues_of(window);
                ratio(measured.open[window].signed(issues), counts.count(issues))
            }
        }
    }

    /// The definition for people: one sentence on what it counts, what it leaves out.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.numerator.to_owned();
        if !self.denominator.is_empty() {
            text.push_str(", divided by ");
            text.push_str(self.denominator);
        }
        text.push('.');
        if !self.note.is_empty() {
            text.push(' ');
            text.push_str(self.note);
        }
        text
    }
}

const fn count(
    name: &'static str,
    counter: Counter,
    numerator: &'static str,
    note: &'static str,
) -> Definition {
    Definition {
        name,
        unit: Unit::Count,
        numerator,
        denominator: "",
        note,
        formula: Formula::Count(counter),
    }
}

const fn of(
    name: &'static str,
    unit: Unit,
    formula: Formula,
    numerator: &'static str,
    denominator: &'static str,
    note: &'static str,
) -> Definition {
    Definition {
        name,
        unit,
        numerator,
        denominator,
        note,
        formula,
    }
}

/// All measures, in the order in which they are shown.
#[must_use]
pub const fn definitions() -> &'static [Definition] {
    DEFINITIONS
}

const TO_HUMAN: &str = "The clock runs from the first arrival to a person: accepting a callback does not stop it. Contacts that never reached a person are not in it: read it with the abandonment rate.";
const TO_HUMAN_PERCENTILE: &str =
    "From arrival to a person; read from logarithmic buckets, within about 6 %.";
const ANNOUNCED: &str = "First announcement of a contact against the time from it to a person. Leaves out contacts that reached nobody, and those who chose a callback window instead.";
const FCR: &str = "An issue is a run of contacts of one pseudonym about one family of topics. Resolved: marked so by the last agent, not denied by the survey where answered, and no contact about the same, answered or not, in the window after the conversation ended. Transfers within one contact do not break it. Counted in the half hour the conversation ended. Includes issues whose window is still open: see the settled value.";
const FCR_SETTLED: &str = "Only issues whose window has closed: nothing can change them any more.";
const FCR_OPEN: &str =
    "These issues count as they stand today; a later contact may still take a resolution back.";

#[rustfmt::skip]
const DEFINITIONS: &[Definition] = &[
    // What came, and what became of it.
    count("offered", Offered, "Contacts that reached us", "Everybody: also those refused, default-routed or gone before a choice. Counted once a contact, in the half hour of arrival."),
    count("queued", Queued, "Contacts that got a place in line", "Once a contact, however often it was put back."),
    count("answered", Answered, "Contacts that talked to a person", "A person, not a recording: hanging up on an announcement is abandoning."),
    count("abandoned", Abandoned, "Contacts that gave up before any person", ""),
    count("abandoned_before_queue", AbandonedBeforeQueue, "Contacts that gave up before they had a place in line", "Primary abandons: the legacy level of service leaves them out."),
    count("abandoned_in_queue", AbandonedInQueue, "Contacts that gave up in line", "Secondary abandons."),
    count("abandoned_ringing", AbandonedRinging, "Contacts that gave up while it rang at an agent", ""),
    count("abandoned_after_answer", AbandonedAfterAnswer, "Contacts that gave up waiting for another person after they had talked to one", "Not part of abandoned."),
    count("default_routed", DefaultRouted, "Contacts that went to the switch's default route", ""),
    count("blocked", Blocked, "Contacts refused with a message", "Counted, and in every denominator that says offered."),
    count("blocked_closed", BlockedClosed, "Contacts refused because the line was closed", ""),
    count("closed", Closed, "Contacts of which nothing more will come", "Offered less closed are still open. Closed is the sum of the six ways to end."),
    count("ended_answered", EndedAnswered, "Closed contacts that had talked to a person", ""),
    count("ended_abandoned", EndedAbandoned, "Closed contacts that had given up before any person", ""),
    count("ended_blocked", EndedBlocked, "Closed contacts that had been refused", ""),
    count("ended_default_routed", EndedDefaultRouted, "Closed contacts that had gone to the default route", ""),
    count("ended_callback_unreached", EndedCallbackUnreached, "Closed contacts that took a callback and never reached a person", "No service, whatever the booking said."),
    count("ended_other", EndedOther, "Closed contacts that ended in no known way", "For example switch restarts. Never counted as served."),
    of("abandonment_rate", Unit::Share, Formula::Ratio(&[Abandoned], &[Offered]), "Contacts that gave up before any person", "contacts offered", ""),
    of("blocked_rate", Unit::Share, Formula::Ratio(&[Blocked], &[Offered]), "Contacts refused", "contacts offered", ""),
    of("default_routed_rate", Unit::Share, Formula::Ratio(&[DefaultRouted], &[Offered]), "Contacts on the default route", "contacts offered", ""),
    // Time to a person.
    of("speed_of_answer_holders_ms", Unit::Milliseconds, Formula::Ratio(&[WaitHoldersMs], &[AnsweredHolders]), "Time from arrival to a person of those who held", "contacts answered that took no callback", TO_HUMAN),
    of("speed_of_answer_holders_p50_ms", Unit::Milliseconds, Formula::Percentile(&[WaitHolders], 0.5), "Time that half of those who held waited at most", "contacts answered that took no callback (a percentile over them)", TO_HUMAN_PERCENTILE),
    of("speed_of_answer_holders_p90_ms", Unit::Milliseconds, Formula::Percentile(&[WaitHolders], 0.9), "Time that nine in ten of those who held waited at most", "contacts answered that took no callback (a percentile over them)", TO_HUMAN_PERCENTILE),
    of("speed_of_answer_callback_takers_ms", Unit::Milliseconds, Formula::Ratio(&[WaitCallbackMs], &[AnsweredCallback]), "Time from first arrival to a person of those who took a callback", "contacts answered that took a callback", TO_HUMAN),
    of("speed_of_answer_callback_takers_p50_ms", Unit::Milliseconds, Formula::Percentile(&[WaitCallback], 0.5), "Time that half of the callback takers waited at most", "contacts answered that took a callback (a percentile over them)", TO_HUMAN_PERCENTILE),
    of("speed_of_answer_callback_takers_p90_ms", Unit::Milliseconds, Formula::Percentile(&[WaitCallback], 0.9), "Time that nine in ten callback takers waited at most", "contacts answered that took a callback (a percentile over them)", TO_HUMAN_PERCENTILE),
    of("speed_of_answer_everyone_ms", Unit::Milliseconds, Formula::Ratio(&[WaitHoldersMs, WaitCallbackMs], &[Answered]), "Time from first arrival to a person", "contacts answered, holders and callback takers alike", TO_HUMAN),
    of("speed_of_answer_everyone_p50_ms", Unit::Milliseconds, Formula::Percentile(&[WaitHolders, WaitCallback], 0.5), "Time that half waited at most", "contacts answered (a percentile over them)", TO_HUMAN_PERCENTILE),
    of("speed_of_answer_everyone_p90_ms", Unit::Milliseconds, Formula::Percentile(&[WaitHolders, WaitCallback], 0.9), "Time that nine in ten waited at most", "contacts answered (a percentile over them)", TO_HUMAN_PERCENTILE),
    of("speed_of_answer_everyone_p99_ms", Unit::Milliseconds, Formula::Percentile(&[WaitHolders, WaitCallback], 0.99), "Time that 99 in a hundred waited at most", "contacts answered (a percentile over them)", TO_HUMAN_PERCENTILE),
    of("time_to_abandon_ms", Unit::Milliseconds, Formula::Ratio(&[AbandonedWaitMs], &[Abandoned]), "Time from arrival to giving up", "contacts abandoned", ""),
    of("time_to_abandon_p50_ms", Unit::Milliseconds, Formula::Percentile(&[AbandonedWait], 0.5), "Time after which half of those who gave up had gone", "contacts abandoned (a percentile over them)", ""),
    of("time_to_abandon_p90_ms", Unit::Milliseconds, Formula::Percentile(&[AbandonedWait], 0.9), "Time after which nine in ten of those who gave up had gone", "contacts abandoned (a percentile over them)", ""),
    // Levels.
    of("legacy_level_of_service", Unit::Share, Formula::Ratio(&[LegacyAnswered], &[LegacyAnswered, LegacySecondaryAbandoned, LegacyEmergencyClosed, LegacyBusy]), "Contacts answered by a person on the lines of the legacy measure (the mesh plays no informational messages that would count as served)", "those, and contacts that gave up in line, were refused because closed, or refused as busy, on the same lines", "For comparison with old reports only. Leaves out other lines, those who gave up before they were in line, default-routed calls and callbacks that never connected; counts a repeat call as a success."),
    of("enterprise_level_of_service", Unit::Share, Formula::Ratio(&[Answered], &[Answered, AbandonedInQueue, Blocked]), "Contacts answered by a person on all lines", "those, and contacts that gave up in line or were refused, on all lines", "The legacy formula without its choice of lines; the other exclusions stay."),
    of("level_of_access", Unit::Share, Formula::Ratio(&[Answered], &[Offered]), "Contacts answered by a person (the mesh has no automated answers to add)", "all attempts: everybody who reached us, refused and default-routed included", "The honest companion of the level of service."),
    of("service_level_of_offered", Unit::Share, Formula::Ratio(&[AnsweredInThreshold], &[Offered]), "Contacts that reached a person within the queue's threshold", "contacts offered", "A callback taker's time runs to the person."),
    of("service_level_of_answered", Unit::Share, Formula::Ratio(&[AnsweredInThreshold], &[Answered]), "Contacts that reached a person within the queue's threshold", "contacts answered", "Says nothing about those who gave up."),
    of("service_level_less_short_abandons", Unit::Share, Formula::RatioLess(&[AnsweredInThreshold], &[Answered, Abandoned], &[AbandonedInThreshold]), "Contacts that reached a person within the queue's threshold", "contacts answered, and those abandoned after the threshold", ""),
    of("service_level_abandons_as_met", Unit::Share, Formula::Ratio(&[AnsweredInThreshold, AbandonedInThreshold], &[Answered, Abandoned]), "Contacts that reached a person, or gave up, within the queue's threshold", "contacts answered or abandoned", "The most flattering of the four: giving up early counts as met."),
    // Transfers.
    count("transfers_requested", TransfersRequested, "Transfers asked for", ""),
    count("transfers_completed", TransfersCompleted, "Transfers that reached the next person", ""),
    of("transfer_rate", Unit::Share, Formula::Ratio(&[TransferredContacts], &[EndedAnswered]), "Closed contacts with a completed transfer", "closed contacts that talked to a person", ""),
    of("transferred_once_to_the_right_office", Unit::Share, Formula::Ratio(&[TransferredOnce], &[TransferredContacts]), "Closed contacts that needed exactly one transfer", "closed contacts with a completed transfer", "A second transfer says that the first went to the wrong office."),
    count("not_answered_by_agent", NotAnsweredByAgent, "Times an agent did not take a call", "The caller keeps the place."),
    // Callbacks.
    count("callback_offered", CallbackOffered, "Contacts to which a callback was offered", ""),
    count("callback_accepted", CallbackAccepted, "Callbacks booked", ""),
    count("callback_accepted_window", CallbackAcceptedWindow, "Callbacks booked for a window", ""),
    count("callback_declined", CallbackDeclined, "Contacts that declined it", ""),
    count("callback_connected", CallbackConnected, "Callbacks kept: connected to a person", "Voicemail is not a connection."),
    count("callback_exhausted", CallbackExhausted, "Callbacks of which every attempt failed", ""),
    count("callback_cancelled", CallbackCancelled, "Callbacks cancelled", ""),
    count("callback_attempts", CallbackAttempts, "Calls placed for callbacks", ""),
    count("callback_attempts_voicemail", CallbackAttemptsVoicemail, "Attempts that a machine answered", ""),
    of("callback_offer_rate", Unit::Share, Formula::Ratio(&[CallbackOffered], &[Offered]), "Contacts to which a callback was offered", "contacts offered", ""),
    of("callback_acceptance_rate", Unit::Share, Formula::Ratio(&[CallbackAccepted], &[CallbackOffered]), "Callbacks booked", "contacts to which one was offered", ""),
    of("callback_kept_rate", Unit::Share, Formula::Ratio(&[CallbackConnected], &[CallbackConnected, CallbackExhausted, CallbackCancelled]), "Callbacks connected to a person", "callbacks ended: connected, exhausted or cancelled", "Callbacks still open are in neither."),
    of("callback_window_kept_rate", Unit::Share, Formula::Ratio(&[CallbackWindowKept], &[CallbackAcceptedWindow]), "Callbacks for a window that reached a person before its end", "callbacks booked for a window", "Windows that are still to come count as not kept."),
    of("callback_attempts_per_callback", Unit::Ratio, Formula::Ratio(&[CallbackAttempts], &[CallbackAccepted]), "Calls placed for callbacks", "callbacks booked", ""),
    of("nuisance_hold_ms", Unit::Milliseconds, Formula::Ratio(&[NuisanceHoldMs], &[NuisanceHolds]), "Time that called-back callers then held a live line", "times they had to", ""),
    count("nuisance_holds", NuisanceHolds, "Called-back callers who then held a live line", ""),
    count("agent_held_ms", AgentHeldMs, "Agent time held for callbacks that were not answered yet, in milliseconds", ""),
    // Announced waits.
    of("announced_wait_bias_ms", Unit::Milliseconds, Formula::Ratio(&[AnnouncedErrorMs], &[AnnouncedWaits]), "Actual less announced wait", "contacts with both", ANNOUNCED),
    of("announced_wait_rmse_ms", Unit::Milliseconds, Formula::AnnouncedRootMeanSquare, "Root of the mean square of actual less announced wait", "contacts with both (a mean over them)", ANNOUNCED),
    of("announced_wait_interval_coverage", Unit::Share, Formula::Ratio(&[AnnouncedInInterval], &[AnnouncedWaits]), "Contacts whose actual wait was inside the announced 80 % interval", "contacts with both", "Right is 0.8: more says that the interval is too wide."),
    // Resolution.
    of("first_contact_resolution_7d", Unit::Share, Formula::Resolved(0, Part::All), "Issues resolved on first contact, 7 day window", "issues that reached a person, with a pseudonym", FCR),
    of("first_contact_resolution_7d_settled", Unit::Share, Formula::Resolved(0, Part::Settled), "Issues resolved on first contact, 7 day window closed", "issues with that window closed", FCR_SETTLED),
    of("first_contact_resolution_7d_provisional", Unit::Share, Formula::Provisional(0), "Issues whose 7 day window is open", "issues", FCR_OPEN),
    of("first_contact_resolution_14d", Unit::Share, Formula::Resolved(1, Part::All), "Issues resolved on first contact, 14 day window", "issues that reached a person, with a pseudonym", FCR),
    of("first_contact_resolution_14d_settled", Unit::Share, Formula::Resolved(1, Part::Settled), "Issues resolved on first contact, 14 day window closed", "issues with that window closed", FCR_SETTLED),
    of("first_contact_resolution_14d_provisional", Unit::Share, Formula::Provisional(1), "Issues whose 14 day window is open", "issues", FCR_OPEN),
    of("first_contact_resolution_30d", Unit::Share, Formula::Resolved(2, Part::All), "Issues resolved on first contact, 30 day window", "issues that reached a person, with a pseudonym", FCR),
    of("first_contact_resolution_30d_settled", Unit::Share, Formula::Resolved(2, Part::Settled), "Issues resolved on first contact, 30 day window closed", "issues with that window closed", FCR_SETTLED),
    of("first_contact_resolution_30d_provisional", Unit::Share, Formula::Provisional(2), "Issues whose 30 day window is open", "issues", FCR_OPEN),
    of("first_contact_resolution_coverage", Unit::Share, Formula::Ratio(&[ResolutionMeasurable], &[ResolutionAnswered]), "Closed contacts that talked to a person and have a pseudonym and a topic", "closed contacts that talked to a person", "How much of the service the resolution measures see: without a pseudonym a repeat cannot be known."),
    of("agent_resolved_rate", Unit::Share, Formula::Ratio(&[AgentResolved], &[ResolutionAnswered]), "Closed contacts marked resolved by the last agent", "closed contacts that talked to a person", "The agent's word alone. Contacts that reached no person are never resolved."),
    of("time_to_resolution_ms", Unit::Milliseconds, Formula::Ratio(&[TimeToResolutionMs], &[AgentResolved]), "Time from first arrival to the end of the conversation that resolved it", "closed contacts marked resolved by the last agent", "Within one contact, waiting and callback included."),
    // Survey.
    count("surveys", Surveys, "Surveys with at least one answer", ""),
    of("survey_first_call", Unit::Share, Formula::Ratio(&[SurveyFirstCall], &[SurveyCallsKnown]), "Callers who say this was their first call about it", "callers who answered that question", ""),
    of("survey_all_answered", Unit::Share, Formula::Ratio(&[SurveyAllAnswered], &[SurveyAllAnsweredKnown]), "Callers who say all their questions were answered", "callers who answered that question", ""),
    of("survey_no_more_calls", Unit::Share, Formula::Ratio(&[SurveyNoMoreCalls], &[SurveyNoMoreCallsKnown]), "Callers who say no more calls are needed", "callers who answered that question", ""),
    // Work.
    of("talk_ms", Unit::Milliseconds, Formula::Ratio(&[TalkMs], &[Talks]), "Talk time", "conversations ended", ""),
    of("handle_ms", Unit::Milliseconds, Formula::Ratio(&[HandleMs], &[WrapUps]), "Talk and wrap-up time", "wrap-ups closed", ""),
    of("wrap_up_timed_out_rate", Unit::Share, Formula::Ratio(&[WrapUpsTimedOut], &[WrapUps]), "Wrap-ups closed by the time limit", "wrap-ups closed", "Their disposition is not known."),
];
