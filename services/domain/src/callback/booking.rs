//! One booking: its record and its transitions. The module header above draws them.

use serde::{Deserialize, Serialize};

use super::report::{Report, ReportBody};
use super::{Rules, Zone};
use crate::invariant::{Invariant, Violation};
use crate::pool::{CallbackEnd, CallbackStep, NoticeKind, Window};
use crate::{CallerId, ContactId, SwitchId, TimeMs};

/// A turn that is not newer than the last one counts as new only when routing has
/// acknowledged every report for this long: then it has lost the entry, was told to rebuild
/// it, and counts from 1 again. Before that it is a repeat that was under way.
const TURNS_RESTART_AFTER_MS: u64 = 10_000;
/// Doublings of the retry of a dial that could not be placed.
const NOT_PLACED_DOUBLINGS_MAX: u32 = 5;

/// What a caller asked for, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct NewBooking {
    /// The contact.
    pub contact: ContactId,
    /// The pool that holds its place.
    pub pool: String,
    /// The switch it came from.
    pub switch: SwitchId,
    /// Pseudonym of the number to call.
    pub caller: CallerId,
    /// The number, encrypted.
    pub number: Vec<u8>,
    /// `None`: virtual hold.
    pub window: Option<Window>,
    /// The caller's time zone: one that exists.
    pub time_zone: String,
    /// Line's name; empty: as routing knows it.
    pub line: String,
    /// Topic id; empty: as routing knows it.
    pub topic: String,
    /// What the one active callback of a caller is about: topic family or line.
    pub family: String,
    /// Language.
    pub language: String,
    /// First arrival.
    pub arrived_at: TimeMs,
    /// Virtual hold: the wait announced, in ms.
    pub expected_callback_ms: u64,
    /// W3C trace context; empty: not traced.
    pub traceparent: String,
}

/// Where a booking is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Routing holds its place and will say when its turn comes.
    Booked,
    /// Its turn has come: to be dialled as soon as a gateway can.
    Due,
    /// A dial is, or may be, in flight.
    Dialling {
        /// From then on it is over, whatever it was.
        until: TimeMs,
    },
    /// The caller is on the line and waits for a person.
    Answered {
        /// From then on the caller counts as lost.
        until: TimeMs,
    },
    /// Over.
    Ended {
        /// How.
        end: CallbackEnd,
        /// When.
        at: TimeMs,
    },
}

/// What became of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialEnd {
    /// A person answered.
    Answered,
    /// Rang out.
    NoAnswer,
    /// Busy.
    Busy,
    /// A machine answered: not a connection.
    Voicemail,
    /// Could not be completed.
    Failed,
    /// Never reached the switch: not an attempt.
    NotPlaced,
}

/// What a booking can be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Routing: its turn nears.
    Turn {
        /// Numbers the contact's turns.
        turn: u32,
        /// W3C trace context.
        traceparent: String,
    },
    /// A worker: a gateway can place the call now.
    Dial,
    /// A gateway: what became of a dial.
    DialEnded {
        /// The attempt, as in [`Output::Dial`].
        attempt: u32,
        /// What.
        end: DialEnd,
    },
    /// Routing: what became of the caller who answered.
    Notice {
        /// What.
        kind: NoticeKind,
        /// About which turn.
        turn: u32,
    },
    /// The caller wants it no more.
    Cancel,
    /// A caller has been told (again) that the booking stands.
    Confirm,
    /// A caller was told that there is no booking, because the store did not say in time.
    /// Not if another was told since that there is.
    Withdraw,
    /// Routing holds the report durably.
    ReportAcknowledged {
        /// The report.
        sequence: u32,
    },
    /// Routing will not take the report, ever.
    ReportRefused {
        /// The report.
        sequence: u32,
    },
    /// The pool has another owner, whose store may have lost the last second.
    PoolRecovered,
    /// Time has passed: due at [`Booking::next_deadline`].
    Tick,
}

/// What a booking asks for. Only after the record is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Place the call.
    Dial {
        /// Names the attempt of this contact, from 1; a repeat is the same attempt.
        attempt: u32,
    },
    /// An attempt is over, for the measures.
    AttemptOver(DialEnd),
    /// A turn came outside callable hours.
    CarriedOver,
    /// The booking is over.
    Ended(CallbackEnd),
    /// A promise was broken: count it.
    Violation(Violation),
}

/// In which set the record belongs, and with which score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its place is held in routing; looked after at the moment given.
    Held(TimeMs),
    /// To be dialled from the moment given.
    Due(TimeMs),
    /// In flight; looked after at the moment given.
    Leased(TimeMs),
    /// Over.
    Ended,
}

/// One booking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Booking {
    /// The contact.
    pub contact: ContactId,
    /// The pool that holds its place.
    pub pool: String,
    /// The switch it came from.
    pub switch: SwitchId,
    /// Pseudonym of the number to call.
    pub caller: CallerId,
    /// The number, encrypted; wiped at the end.
    pub number: Vec<u8>,
    /// The window, if one was chosen.
    pub window: Option<Window>,
    /// The caller's time zone.
    pub time_zone: String,
    /// Line's name; may be empty.
    pub line: String,
    /// Topic id; may be empty.
    pub topic: String,
    /// With the caller: the key of which one may be active.
    pub family: String,
    /// Language.
    pub language: String,
    /// First arrival.
    pub arrived_at: TimeMs,
    /// When it was booked.
    pub booked_at: TimeMs,
    /// Virtual hold: the wait announced, in ms.
    pub expected_callback_ms: u64,
    /// W3C trace context.
    pub traceparent: String,
    /// Spoken to the caller. Given by the store, which keeps it unique.
    #[serde(skip)]
    pub code: String,
    state: State,
    /// Attempts of earlier bookings of this contact: numbers never repeat.
    attempts_before: u32,
    /// Attempts used.
    attempts: u32,
    /// Last turn taken from routing.
    turn: u32,
    /// Last turn of earlier bookings of this contact.
    turns_before: u32,
    /// Nothing is dialled before.
    not_before: TimeMs,
    /// Booked: looked after then.
    look_at: TimeMs,
    /// Dials in a row that could not be placed.
    not_placed: u32,
    /// The last attempt ended in silence: its answer may still come.
    lapsed: bool,
    /// The caller cancelled while the telephone rang.
    cancelled: bool,
    /// Told to the caller more than once: cannot be withdrawn.
    confirmed: bool,
    /// Routing refused to hold the place: turns are taken by the clock.
    unheld: bool,
    /// Last attempt whose dialling was reported.
    dialled_reported: u32,
    /// Reports not yet acknowledged, oldest first.
    reports: Vec<Report>,
    /// Sequence of the last report made.
    last_report: u32,
    /// When routing had acknowledged them all.
    settled_at: TimeMs,
}

impl Booking {
    /// A new booking. `previous` is an ended one of the same contact, if there was one: the
    /// numbers of attempts, turns and reports go on from it.
    #[must_use]
    pub fn new(new: NewBooking, previous: Option<&Booking>, now: TimeMs, rules: &Rules) -> Self {
        let mut booking = Self {
            contact: new.contact,
            pool: new.pool,
            switch: new.switch,
            caller: new.caller,
            number: new.number,
            window: new.window,
            time_zone: new.time_zone,
            line: new.line,
            topic: new.topic,
            family: new.family,
            language: new.language,
            arrived_at: new.arrived_at,
            booked_at: now,
            expected_callback_ms: new.expected_callback_ms,
            traceparent: new.traceparent,
            code: String::new(),
            state: State::Booked,
            attempts_before: previous.map_or(0, |earlier| earlier.attempts_before + earlier.attempts),
            attempts: 0,
            turn: previous.map_or(0, |earlier| earlier.turn),
            turns_before: previous.map_or(0, |earlier| earlier.turn),
            not_before: new.window.map_or(now, |window| window.from),
            look_at: now,
            not_placed: 0,
            lapsed: false,
            cancelled: false,
            confirmed: false,
            unheld: false,
            dialled_reported: 0,
            reports: previous.map_or_else(Vec::new, |earlier| earlier.reports.clone()),
            last_report: previous.map_or(0, |earlier| earlier.last_report),
            settled_at: now,
        };
        booking.to_booked(booking.not_before, rules);
        booking.report(ReportBody::Register { window: new.window });
        booking
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The state in a word, for people.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Booked => "booked",
            State::Due => "due",
            State::Dialling { .. } => "dialling",
            State::Answered { .. } => "answered",
            State::Ended { end: CallbackEnd::Connected, .. } => "connected",
            State::Ended { end: CallbackEnd::Exhausted, .. } => "exhausted",
            State::Ended { end: CallbackEnd::Cancelled, .. } => "cancelled",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// Attempts used so far, of this booking.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When the next attempt may be made.
    #[must_use]
    pub fn next_at(&self) -> TimeMs {
        self.not_before
    }

    /// The oldest report that routing has not acknowledged.
    #[must_use]
    pub fn first_report(&self) -> Option<&Report> {
        self.reports.first()
    }

    /// Where the record belongs.
    #[must_use]
    pub fn place(&self, rules: &Rules) -> Place {
        let expires_at = self.booked_at.plus(rules.life_max_ms);
        match self.state {
            State::Booked => Place::Held(self.look_at.min(expires_at)),
            State::Due => Place::Due(self.not_before),
            State::Dialling { until } | State::Answered { until } => Place::Leased(until),
            State::Ended { .. } => Place::Ended,
        }
    }

    /// When [`Input::Tick`] is next needed; `None`: not by itself.
    #[must_use]
    pub fn next_deadline(&self, rules: &Rules) -> Option<TimeMs> {
        match self.place(rules) {
            Place::Held(at) | Place::Leased(at) => Some(at),
            Place::Due(_) => Some(self.booked_at.plus(rules.life_max_ms)),
            Place::Ended => None,
        }
    }

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

    fn report(&mut self, body: ReportBody) {
        self.last_report += 1;
        self.reports.push(Report { sequence: self.last_report, body });
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

    fn turn(&mut self, now: TimeMs, rules: &Rules, turn: u32, traceparent: String, outputs: &mut Vec<Output>) {
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
        let next_at = rules.hours.next_callable(&self.zone(), self.not_before.max(now));
        let attempt = self.next_attempt();
        let body = ReportBody::CarriedOver { attempt, next_at };
        if self.reports.last().is_none_or(|last| last.body != body) {
            self.report(body);
        }
        self.to_booked(next_at, rules);
        outputs.push(Output::CarriedOver);
    }

    fn to_booked(&mut self, next_at: TimeMs, rules: &Rules) {
        self.not_before = next_at;
        // Spread by contact, so that a busy hour's bookings are not looked after at once.
        let spread_ms = (self.contact.0 % 1_000) as u64 * rules.look_after_ms / 8_000;
        self.look_at = next_at.plus(rules.look_after_ms + spread_ms);
        self.state = if self.unheld { State::Due } else { State::Booked };
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
        self.state = State::Dialling { until: now.plus(rules.ring_ms + rules.lease_ms) };
        self.lapsed = false;
        if self.dialled_reported < attempt {
            self.dialled_reported = attempt;
            self.report(ReportBody::Progress { attempt, step: CallbackStep::Dialled, next_at: None });
        }
        outputs.push(Output::Dial { attempt });
    }

    fn dial_ended(&mut self, now: TimeMs, rules: &Rules, attempt: u32, end: DialEnd, outputs: &mut Vec<Output>) {
        match self.state {
            State::Dialling { .. } if attempt == self.next_attempt() => match end {
                DialEnd::Answered => self.take_answer(now, rules, attempt, outputs),
                DialEnd::NotPlaced => self.not_placed(now, rules, outputs),
                DialEnd::NoAnswer => self.missed(now, rules, CallbackStep::NoAnswer, end, outputs),
                DialEnd::Busy => self.missed(now, rules, CallbackStep::Busy, end, outputs),
                DialEnd::Voicemail => self.missed(now, rules, CallbackStep::Voicemail, end, outputs),
                DialEnd::Failed => self.missed(now, rules, CallbackStep::Failed, end, outputs),
            },
            State::Booked | State::Due if end == DialEnd::Answered && self.is_lapsed(attempt) => {
                // The answer comes late, but the caller is on the line: no second call now.
                self.lapsed = false;
                self.attempts -= 1;
                self.take_answer(now, rules, attempt, outputs);
            }
            State::Dialling { .. } if end == DialEnd::Answered && attempt + 1 == self.next_attempt() => {
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
        self.report(ReportBody::Progress { attempt, step: CallbackStep::Answered, next_at: None });
        if self.unheld {
            // Routing knows of no callback, so it will not say what became of the caller:
            // to it this is a call like any other, which it serves.
            self.end(now, CallbackEnd::Connected, outputs);
        } else {
            self.state = State::Answered { until: now.plus(rules.answered_max_ms) };
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
    fn missed(&mut self, now: TimeMs, rules: &Rules, step: CallbackStep, end: DialEnd, outputs: &mut Vec<Output>) {
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
        let next_at =
            (!over).then(|| rules.hours.next_callable(&self.zone(), now.plus(rules.attempt_spacing_ms)));
        if let Some((attempt, step)) = told {
            self.report(ReportBody::Progress { attempt, step, next_at });
        }
        match next_at {
            Some(next_at) => self.to_booked(next_at, rules),
            None if self.cancelled => self.end(now, CallbackEnd::Cancelled, outputs),
            None => self.end(now, CallbackEnd::Exhausted, outputs),
        }
    }

    fn notice(&mut self, now: TimeMs, rules: &Rules, kind: NoticeKind, turn: u32, outputs: &mut Vec<Output>) {
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
        let registering =
            self.reports.iter().any(|report| matches!(report.body, ReportBody::Register { .. }));
        // After a lapsed attempt the caller may be on the line after all: a registration
        // would take the leg's place away.
        if self.state != State::Booked || registering || self.lapsed {
            return;
        }
        let window = (self.not_before > now).then(|| {
            let end = self.window.map_or(self.not_before, |window| window.until);
            Window { from: self.not_before, until: end.max(self.not_before.plus(rules.ring_ms)) }
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
