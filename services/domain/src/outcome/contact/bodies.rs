//! What each kind of event means for its contact.

use super::{
    ANNOUNCED_ERROR_MAX_MS, Announced, CLOCK_TOLERANCE_MS, Changes, ContactState, Effects,
    REASON_CLOSED, Seen, agent_hash, signed,
};
use crate::TimeMs;
use crate::invariant::{Invariant, Violation};
use crate::outcome::counter::{Counter, Histogram, Slot};
use crate::outcome::rules::Rules;
use crate::pool::{CallbackEnd, CallbackStep, Disposition, Event, EventBody, SurveyAnswers};

impl ContactState {
    pub(super) fn body(
        &mut self,
        event: &Event,
        rules: &Rules,
        changes: &mut Changes,
        effects: &mut Effects,
    ) {
        match &event.body {
            EventBody::Offered { .. }
            | EventBody::Assigned { .. }
            | EventBody::Delivered { .. } => {}
            EventBody::Queued {
                expected_wait_ms,
                low_ms,
                high_ms,
                ..
            } => {
                let first = self.seen.first(Seen::QUEUED);
                changes.one_if(first, Counter::Queued);
                // Nothing was announced if both are 0.
                if first && (*high_ms > 0 || *expected_wait_ms > 0) {
                    self.announced = Some(Announced {
                        at: event.at,
                        expected_ms: *expected_wait_ms,
                        low_ms: *low_ms,
                        high_ms: *high_ms,
                    });
                }
            }
            EventBody::Established { .. } => self.established(event, rules, changes, effects),
            EventBody::NotAnswered { .. } => changes.one(Counter::NotAnsweredByAgent),
            EventBody::TransferRequested { .. } => changes.one(Counter::TransfersRequested),
            EventBody::Transferred { .. } => {
                changes.one(Counter::TransfersCompleted);
                self.transfers = self.transfers.saturating_add(1);
            }
            EventBody::Disconnected { talk_ms, .. } => {
                changes.one(Counter::Talks);
                changes.sum(Counter::TalkMs, *talk_ms);
                self.conversation_ended_at = self.conversation_ended_at.max(Some(event.at));
            }
            EventBody::WrappedUp {
                agent,
                disposition,
                handle_ms,
                timed_out,
            } => {
                changes.one(Counter::WrapUps);
                changes.sum(Counter::HandleMs, *handle_ms);
                if *timed_out {
                    changes.one(Counter::WrapUpsTimedOut);
                }
                // An earlier agent's wrap-up may come after the last conversation.
                if self.last_agent == 0 || self.last_agent == agent_hash(agent) {
                    self.resolved = match disposition {
                        Disposition::Unspecified => None,
                        disposition => Some(*disposition == Disposition::Resolved),
                    };
                }
            }
            EventBody::Abandoned { ringing, .. } => self.abandoned(event, *ringing, rules, changes),
            EventBody::DefaultRouted { .. } => {
                let first = self.seen.first(Seen::DEFAULT_ROUTED);
                changes.one_if(first, Counter::DefaultRouted);
            }
            EventBody::Blocked { reason } => self.blocked(*reason, rules, changes),
            EventBody::SurveyAnswered(answers) => self.survey(answers, changes),
            EventBody::Closed => changes.one(Counter::Closed),
            EventBody::OfferMade { .. }
            | EventBody::OfferDeclined
            | EventBody::CallbackBooked { .. }
            | EventBody::CallbackAttempted { .. }
            | EventBody::CallbackEnded { .. } => self.callback(event, changes, effects),
        }
    }

    /// A person: here, and only here, waiting ends.
    fn established(
        &mut self,
        event: &Event,
        rules: &Rules,
        changes: &mut Changes,
        effects: &mut Effects,
    ) {
        let EventBody::Established {
            agent,
            waited_ms,
            callback,
            nuisance_hold_ms,
            agent_held_ms,
            ..
        } = &event.body
        else {
            return;
        };
        self.last_agent = agent_hash(agent);
        self.resolved = None;
        if *nuisance_hold_ms > 0 {
            changes.one(Counter::NuisanceHolds);
            changes.sum(Counter::NuisanceHoldMs, *nuisance_hold_ms);
        }
        if *agent_held_ms > 0 {
            changes.sum(Counter::AgentHeldMs, *agent_held_ms);
        }
        if !self.seen.first(Seen::ANSWERED) {
            return;
        }
        // By the time stamps and not by what the event says of itself: the clock runs
        // from the first arrival to a person, whatever was accepted in between.
        let wait_ms = event.at.since(self.arrived_at);
        if waited_ms.saturating_add(CLOCK_TOLERANCE_MS) < wait_ms {
            effects.violations.push(Violation {
                invariant: Invariant::HonestClock,
                detail: format!(
                    "contact {}: says it waited {waited_ms} ms, its time stamps say {wait_ms} ms",
                    event.contact
                ),
            });
        }
        changes.one(Counter::Answered);
        let took_callback = *callback || self.seen.has(Seen::TOOK_CALLBACK);
        if took_callback {
            changes.one(Counter::AnsweredCallback);
            changes.sum(Counter::WaitCallbackMs, wait_ms);
            changes.value(Histogram::WaitCallback, wait_ms);
            if self.window_until.is_some_and(|until| event.at <= until) {
                changes.one(Counter::CallbackWindowKept);
            }
        } else {
            changes.one(Counter::AnsweredHolders);
            changes.sum(Counter::WaitHoldersMs, wait_ms);
            changes.value(Histogram::WaitHolders, wait_ms);
        }
        if wait_ms <= self.threshold_ms(rules) {
            changes.one(Counter::AnsweredInThreshold);
        }
        if self.legacy(rules) {
            changes.one(Counter::LegacyAnswered);
        }
        self.announced_error(event.at, changes);
    }

    /// Holds the announced wait against the actual one.
    fn announced_error(&mut self, at: TimeMs, changes: &mut Changes) {
        let Some(announced) = self.announced.take() else {
            return;
        };
        let actual_ms = at.since(announced.at);
        let error_ms = (signed(actual_ms).saturating_sub(signed(announced.expected_ms)))
            .clamp(-ANNOUNCED_ERROR_MAX_MS, ANNOUNCED_ERROR_MAX_MS);
        let error_s = error_ms.abs().saturating_add(500) / 1_000;
        changes.one(Counter::AnnouncedWaits);
        changes
            .0
            .push((Slot::Count(Counter::AnnouncedErrorMs), error_ms));
        changes.0.push((
            Slot::Count(Counter::AnnouncedErrorSquareS2),
            error_s * error_s,
        ));
        if (announced.low_ms..=announced.high_ms).contains(&actual_ms) {
            changes.one(Counter::AnnouncedInInterval);
        }
    }

    fn abandoned(&mut self, event: &Event, ringing: bool, rules: &Rules, changes: &mut Changes) {
        if self.seen.has(Seen::ANSWERED) {
            changes.one(Counter::AbandonedAfterAnswer);
            return;
        }
        if !self.seen.first(Seen::ABANDONED) {
            return;
        }
        let wait_ms = event.at.since(self.arrived_at);
        changes.one(Counter::Abandoned);
        changes.sum(Counter::AbandonedWaitMs, wait_ms);
        changes.value(Histogram::AbandonedWait, wait_ms);
        if ringing {
            changes.one(Counter::AbandonedRinging);
        }
        if self.seen.has(Seen::QUEUED) {
            changes.one(Counter::AbandonedInQueue);
            if self.legacy(rules) {
                changes.one(Counter::LegacySecondaryAbandoned);
            }
        } else {
            changes.one(Counter::AbandonedBeforeQueue);
        }
        if wait_ms <= self.threshold_ms(rules) {
            changes.one(Counter::AbandonedInThreshold);
        }
    }

    fn blocked(&mut self, reason: u8, rules: &Rules, changes: &mut Changes) {
        if !self.seen.first(Seen::BLOCKED) {
            return;
        }
        changes.one(Counter::Blocked);
        let closed = reason == REASON_CLOSED;
        if closed {
            changes.one(Counter::BlockedClosed);
        }
        if self.legacy(rules) {
            changes.one(if closed {
                Counter::LegacyEmergencyClosed
            } else {
                Counter::LegacyBusy
            });
        }
    }

    fn survey(&mut self, answers: &SurveyAnswers, changes: &mut Changes) {
        let known = answers.calls_about_this > 0
            || answers.all_answered.is_some()
            || answers.no_more_calls.is_some();
        if known {
            changes.one(Counter::Surveys);
        }
        if answers.calls_about_this > 0 {
            changes.one(Counter::SurveyCallsKnown);
            if answers.calls_about_this == 1 {
                changes.one(Counter::SurveyFirstCall);
            }
        }
        let questions = [
            (
                answers.all_answered,
                Counter::SurveyAllAnsweredKnown,
                Counter::SurveyAllAnswered,
            ),
            (
                answers.no_more_calls,
                Counter::SurveyNoMoreCallsKnown,
                Counter::SurveyNoMoreCalls,
            ),
        ];
        for (answer, known, yes) in questions {
            match answer {
                Some(true) => {
                    changes.one(known);
                    changes.one(yes);
                }
                Some(false) => {
                    changes.one(known);
                    self.seen.first(Seen::SURVEY_DENIES);
                }
                None => {}
            }
        }
    }

    /// The life of an offer and of a booking.
    fn callback(&mut self, event: &Event, changes: &mut Changes, effects: &mut Effects) {
        match &event.body {
            EventBody::OfferMade { .. } => {
                let first = self.seen.first(Seen::OFFERED_CALLBACK);
                changes.one_if(first, Counter::CallbackOffered);
            }
            EventBody::OfferDeclined => {
                let first = self.seen.first(Seen::DECLINED_CALLBACK);
                changes.one_if(first, Counter::CallbackDeclined);
            }
            EventBody::CallbackBooked { window } => {
                if !self.seen.first(Seen::BOOKED) {
                    return;
                }
                self.seen.first(Seen::TOOK_CALLBACK);
                changes.one(Counter::CallbackAccepted);
                if let Some(window) = window {
                    changes.one(Counter::CallbackAcceptedWindow);
                    self.window_until = Some(window.until);
                    // The caller chose another time: the announced wait is void.
                    self.announced = None;
                }
            }
            EventBody::CallbackAttempted { step, .. } => match step {
                CallbackStep::Dialled => changes.one(Counter::CallbackAttempts),
                CallbackStep::Answered => changes.one(Counter::CallbackAttemptsAnswered),
                CallbackStep::Voicemail => changes.one(Counter::CallbackAttemptsVoicemail),
                CallbackStep::NoAnswer | CallbackStep::Busy | CallbackStep::Failed => {}
            },
            EventBody::CallbackEnded { end, .. } => {
                if self.seen.has(Seen::CALLBACK_ENDED) && !self.seen.has(Seen::BOOKED) {
                    effects.violations.push(Violation {
                        invariant: Invariant::CallbackKept,
                        detail: format!("contact {}: its callback ended twice", event.contact),
                    });
                    return;
                }
                self.seen.0 = (self.seen.0 & !Seen::BOOKED) | Seen::CALLBACK_ENDED;
                changes.one(match end {
                    CallbackEnd::Connected => Counter::CallbackConnected,
                    CallbackEnd::Exhausted => Counter::CallbackExhausted,
                    CallbackEnd::Cancelled => Counter::CallbackCancelled,
                });
            }
            _ => {}
        }
    }
}
