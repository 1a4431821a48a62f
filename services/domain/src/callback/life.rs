//! The transitions of a booking: what each input makes of each state.

use super::booking::Booking;
use super::input::{DialEnd, Input, Output, State};
use super::report::{Report, ReportBody};
use super::{Rules, Zone};
use crate::TimeMs;
use crate::invariant::{Invariant, Violation};
use crate::pool::{CallbackEnd, CallbackStep, NoticeKind, Window};

/// A turn that is not newer than the last one counts as new only when routing has
/// acknowledged every report for this long: then it has lost the entry, was told to rebuild
/// it, and counts from 1 again. Before that it is a repeat that was under way.
const TURNS_RESTART_AFTER_MS: u64 = 10_000;
/// Doublings of the retry of a dial that could not be placed.
const NOT_PLACED_DOUBLINGS_MAX: u32 = 5;

impl Booking {
    /// Applies one input at `now`, appending what to do to `outputs`. An input that does not
    /// fit the state changes nothing: it was late, or came twice.
    pub fn handle(&mut self, now: TimeMs, rules: &Rules, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::ReportAcknowledged { sequence } => self.report_taken(now, sequence),
            Input::ReportRefused { sequence } => self.report_refused(now, rules, sequence),
            Input::Turn { turn, traceparent } => self.turn(now, rules, turn, traceparent, outputs),
            _ if self.is_ended() => {}
            Input::Dial => self.dial(now, rules, outputs),
            Input::DialEnded { attempt, end } => self.dial_ended(now, rules, attempt, end, outputs),
            Input::Notice { kind, turn } => self.notice(now, rules, kind, turn, outputs),
            Input::Cancel => self.cancel(now, outputs),
            Input::Confirm => self.confirmed = true,
            Input::Withdraw if self.confirmed => {}
            Input::Withdraw => self.cancel(now, outputs),
            Input::PoolRecovered => self.register_again(now, rules),
            Input::Tick => self.tick(now, rules, outputs),
        }
    }

    fn zone(&self) -> Zone {
        // The name was checked when it was booked; tables of another build may lack it.
        Zone::parse(&self.time_zone).unwrap_or_else(|_| Zone::utc())
    }

    /// The number of the attempt in flight, or of the next one.
    fn next_attempt(&self) -> u32 {
        self.attempts_before + self.attempts + 1
    }

    pub(super) fn report(&mut self, body: ReportBody) {
        self.last_report += 1;
        self.reports.push(Report {
            sequence: self.last_report,
            body,
        });
    }

    fn report_taken(&mut self, now: TimeMs, sequence: u32) {
        let before = self.reports.len();
        self.reports.retain(|report| report.sequence > sequence);
        if before > 0 && self.reports.is_empty() {
            self.settled_at = now;
        }
    }

    /// Routing cannot be made to hold this place (it says the registration is nonsense). The
    /// caller was promised a call, so the turn is taken by the clock: when announced.
    fn report_refused(&mut self, now: TimeMs, rules: &Rules, sequence: u32) {
        let registers = self.reports.iter().any(|report| {
            report.sequence == sequence && matches!(report.body, ReportBody::Register { .. })
        });
        self.report_taken(now, sequence);
        if !registers || self.is_ended() {
            return;
        }
        self.unheld = true;
        if self.state == State::Booked {
            let promised = match self.window {
                Some(window) => window.from,
                None => self.booked_at.plus(self.expected_callback_ms),
            };
            let from = promised.max(self.not_before).max(now);
            self.not_before = rules.hours.next_callable(&self.zone(), from);
            self.state = State::Due;
        }
    }

    fn settled(&self, now: TimeMs) -> bool {
        self.reports.is_empty() && now.since(self.settled_at) >= TURNS_RESTART_AFTER_MS
    }

    fn turn(
        &mut self,
        now: TimeMs,
        rules: &Rules,
        turn: u32,
        traceparent: String,
        outputs: &mut Vec<Output>,
    ) {
        let is_repeat = turn <= self.turn && !self.settled(now);
        if is_repeat {
            return;
        }
        if let State::Ended { end, .. } = self.state {
            // Routing has forgotten the end that it once acknowledged.
            if self.settled(now) {
                self.report(ReportBody::Ended { end });
            }
            return;
        }
        if matches!(self.state, State::Answered { .. }) && turn > self.turn {
            // A new turn is routing's word that the answered leg is gone.
            self.attempt_lost(now, rules, outputs);
        }
        if self.is_ended() {
            return;
        }
        // Known again as a place that is held, whatever was refused before.
        self.unheld = false;
        match self.state {
            State::Booked => {
                self.turn = turn;
                if !traceparent.is_empty() {
                    self.traceparent = traceparent;
                }
                self.not_before = self.not_before.max(now);
                if rules.hours.are_callable(&self.zone(), self.not_before) {
                    self.state = State::Due;
                } else {
                    self.carry_over(now, rules, outputs);
                }
            }
            State::Due | State::Dialling { .. } => self.turn = self.turn.max(turn),
            State::Answered { .. } | State::Ended { .. } => {}
        }
    }

    /// Keeps the place until people may be called again, and tells routing.
    fn carry_over(&mut self, now: TimeMs, rules: &Rules, outputs: &mut Vec<Output>) {
        let next_at = rules
            .hours
            .next_callable(&self.zone(), self.not_before.max(now));
        let attempt = self.next_attempt();
        let body = ReportBody::CarriedOver { attempt, next_at };
        if self.reports.last().is_none_or(|last| last.body != body) {
            self.report(body);
        }
        self.keep_place(next_at, rules);
        outputs.push(Output::CarriedOver);
    }

    pub(super) fn keep_place(&mut self, next_at: TimeMs, rules: &Rules) {
        self.not_before = next_at;
        // Spread by contact, so that a busy hour's bookings are not looked after at once.
        let spread_ms = (self.contact.0 % 1_000) as u64 * rules.look_after_ms / 8_000;
        self.look_at = next_at.plus(rules.look_after_ms + spread_ms);
        self.state = if self.unheld {
            State::Due
        } else {
            State::Booked
        };
    }

    fn dial(&mut self, now: TimeMs, rules: &Rules, outputs: &mut Vec<Output>) {
        if self.state != State::Due || now < self.not_before {
            return;
        }
        if self.has_expired(now, rules) {
            self.end(now, CallbackEnd::Exhausted, outputs);
            return;
        }
        if !rules.hours.are_callable(&self.zone(), now) {
            self.carry_over(now, rules, outputs);
            return;
        }
        let attempt = self.next_attempt();
        self.state = State::Dialling {
            until: now.plus(rules.ring_ms + rules.lease_ms),
        };
        self.lapsed = false;
        if self.dialled_reported < attempt {
            self.dialled_reported = attempt;
            self.report(ReportBody::Progress {
                attempt,
                step: CallbackStep::Dialled,
                next_at: None,
            });
        }
        outputs.push(Output::Dial { attempt });
    }

    fn dial_ended(
        &mut self,
        now: TimeMs,
        rules: &Rules,
        attempt: u32,
        end: DialEnd,
        outputs: &mut Vec<Output>,
    ) {
        match self.state {
            State::Dialling { .. } if attempt == self.next_attempt() => match end {
                DialEnd::Answered => self.take_answer(now, rules, attempt, outputs),
                DialEnd::NotPlaced => self.not_placed(now, rules, outputs),
                DialEnd::NoAnswer => self.missed(now, rules, CallbackStep::NoAnswer, end, outputs),
                DialEnd::Busy => self.missed(now, rules, CallbackStep::Busy, end, outputs),
                DialEnd::Voicemail => {
                    self.missed(now, rules, CallbackStep::Voicemail, end, outputs)
                }
                DialEnd::Failed => self.missed(now, rules, CallbackStep::Failed, end, outputs),
            },
            State::Booked | State::Due if end == DialEnd::Answered && self.is_lapsed(attempt) => {
                // The answer comes late, but the caller is on the line: no second call now.
                self.lapsed = false;
                self.attempts -= 1;
                self.take_answer(now, rules, attempt, outputs);
            }
            State::Dialling { .. }
                if end == DialEnd::Answered && attempt + 1 == self.next_attempt() =>
            {
                outputs.push(Output::Violation(Violation {
                    invariant: Invariant::CallbackKept,
                    detail: format!(
                        "contact {}: attempt {attempt} was answered while {} was in flight",
                        self.contact,
                        attempt + 1
                    ),
                }));
            }
            _ => {}
        }
    }

    fn is_lapsed(&self, attempt: u32) -> bool {
        self.lapsed && attempt == self.attempts_before + self.attempts
    }

    fn take_answer(&mut self, now: TimeMs, rules: &Rules, attempt: u32, outputs: &mut Vec<Output>) {
        self.attempts += 1;
        self.not_placed = 0;
        outputs.push(Output::AttemptOver(DialEnd::Answered));
        self.report(ReportBody::Progress {
            attempt,
            step: CallbackStep::Answered,
            next_at: None,
        });
        if self.unheld {
            // Routing knows of no callback, so it will not say what became of the caller:
            // to it this is a call like any other, which it serves.
            self.end(now, CallbackEnd::Connected, outputs);
        } else {
            self.state = State::Answered {
                until: now.plus(rules.answered_max_ms),
            };
        }
    }

    fn not_placed(&mut self, now: TimeMs, rules: &Rules, outputs: &mut Vec<Output>) {
        outputs.push(Output::AttemptOver(DialEnd::NotPlaced));
        if self.cancelled {
            self.end(now, CallbackEnd::Cancelled, outputs);
            return;
        }
        let doublings = self.not_placed.min(NOT_PLACED_DOUBLINGS_MAX);
        self.not_placed = self.not_placed.saturating_add(1);
        self.not_before = now.plus(rules.not_placed_retry_ms << doublings);
        self.state = State::Due;
    }

    /// An attempt in flight ended without a person on the line.
    fn missed(
        &mut self,
        now: TimeMs,
        rules: &Rules,
        step: CallbackStep,
        end: DialEnd,
        outputs: &mut Vec<Output>,
    ) {
        let attempt = self.next_attempt();
        self.attempts += 1;
        self.not_placed = 0;
        outputs.push(Output::AttemptOver(end));
        self.again_or_over(now, rules, Some((attempt, step)), outputs);
    }

    /// The caller answered, and was gone before a person came. The attempt is used. Routing
    /// said so itself, so it is not told.
    fn attempt_lost(&mut self, now: TimeMs, rules: &Rules, outputs: &mut Vec<Output>) {
        self.again_or_over(now, rules, None, outputs);
    }

    fn again_or_over(
        &mut self,
        now: TimeMs,
        rules: &Rules,
        told: Option<(u32, CallbackStep)>,
        outputs: &mut Vec<Output>,
    ) {
        let over = self.cancelled || self.attempts >= rules.attempts_max;
        let next_at = (!over).then(|| {
            rules
                .hours
                .next_callable(&self.zone(), now.plus(rules.attempt_spacing_ms))
        });
        if let Some((attempt, step)) = told {
            self.report(ReportBody::Progress {
                attempt,
                step,
                next_at,
            });
        }
        match next_at {
            Some(next_at) => self.keep_place(next_at, rules),
            None if self.cancelled => self.end(now, CallbackEnd::Cancelled, outputs),
            None => self.end(now, CallbackEnd::Exhausted, outputs),
        }
    }

    fn notice(
        &mut self,
        now: TimeMs,
        rules: &Rules,
        kind: NoticeKind,
        turn: u32,
        outputs: &mut Vec<Output>,
    ) {
        match (kind, self.state) {
            (NoticeKind::Connected, State::Dialling { .. }) => {
                // The result of the dial is still under way, or was lost with its gateway.
                self.attempts += 1;
                self.end(now, CallbackEnd::Connected, outputs);
            }
            // A repeat about an earlier booking of this contact.
            (NoticeKind::Connected, State::Booked | State::Due) if turn <= self.turns_before => {}
            (NoticeKind::Connected, _) => self.end(now, CallbackEnd::Connected, outputs),
            (NoticeKind::LegLost, _) if turn < self.turn => {}
            (NoticeKind::LegLost, State::Dialling { .. }) => {
                // So it was answered; the result of the dial is late, or lost.
                let attempt = self.next_attempt();
                self.take_answer(now, rules, attempt, outputs);
                if !self.is_ended() {
                    self.attempt_lost(now, rules, outputs);
                }
            }
            (NoticeKind::LegLost, State::Answered { .. }) => self.attempt_lost(now, rules, outputs),
            // The attempt was over already, in silence.
            (NoticeKind::LegLost, _) => self.lapsed = false,
        }
    }

    /// While the telephone rings, or the caller is on the line, the cancellation waits for
    /// that attempt: ending the booking under a live leg would make two ends of one call.
    fn cancel(&mut self, now: TimeMs, outputs: &mut Vec<Output>) {
        match self.state {
            State::Booked | State::Due => self.end(now, CallbackEnd::Cancelled, outputs),
            State::Dialling { .. } | State::Answered { .. } => self.cancelled = true,
            State::Ended { .. } => {}
        }
    }

    fn register_again(&mut self, now: TimeMs, rules: &Rules) {
        let registering = self
            .reports
            .iter()
            .any(|report| matches!(report.body, ReportBody::Register { .. }));
        // After a lapsed attempt the caller may be on the line after all: a registration
        // would take the leg's place away.
        if self.state != State::Booked || registering || self.lapsed {
            return;
        }
        let window = (self.not_before > now).then(|| {
            let end = self.window.map_or(self.not_before, |window| window.until);
            Window {
                from: self.not_before,
                until: end.max(self.not_before.plus(rules.ring_ms)),
            }
        });
        self.report(ReportBody::Register { window });
    }

    fn has_expired(&self, now: TimeMs, rules: &Rules) -> bool {
        now >= self.booked_at.plus(rules.life_max_ms)
    }

    fn tick(&mut self, now: TimeMs, rules: &Rules, outputs: &mut Vec<Output>) {
        match self.state {
            State::Dialling { until } if now >= until => {
                self.missed(now, rules, CallbackStep::Failed, DialEnd::Failed, outputs);
                self.lapsed = true;
            }
            State::Answered { until } if now >= until => self.attempt_lost(now, rules, outputs),
            State::Booked | State::Due if self.has_expired(now, rules) => {
                self.end(now, CallbackEnd::Exhausted, outputs);
            }
            State::Booked if now >= self.look_at => {
                // By now a late answer would have come.
                self.lapsed = false;
                self.register_again(now, rules);
                self.look_at = now.plus(rules.look_after_ms);
            }
            _ => {}
        }
    }

    fn end(&mut self, now: TimeMs, end: CallbackEnd, outputs: &mut Vec<Output>) {
        self.state = State::Ended { end, at: now };
        self.number.clear();
        self.report(ReportBody::Ended { end });
        outputs.push(Output::Ended(end));
    }
}
