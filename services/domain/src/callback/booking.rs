//! One booking: its record, and what can be asked of it. Its transitions are in `life`.

use serde::{Deserialize, Serialize};

use super::Rules;
use super::input::{NewBooking, Place, State};
use super::report::{Report, ReportBody};
use crate::pool::{CallbackEnd, Window};
use crate::{CallerId, ContactId, SwitchId, TimeMs};

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
    pub(super) state: State,
    /// Attempts of earlier bookings of this contact: numbers never repeat.
    pub(super) attempts_before: u32,
    /// Attempts used.
    pub(super) attempts: u32,
    /// Last turn taken from routing.
    pub(super) turn: u32,
    /// Last turn of earlier bookings of this contact.
    pub(super) turns_before: u32,
    /// Nothing is dialled before.
    pub(super) not_before: TimeMs,
    /// Booked: looked after then.
    pub(super) look_at: TimeMs,
    /// Dials in a row that could not be placed.
    pub(super) not_placed: u32,
    /// The last attempt ended in silence: its answer may still come.
    pub(super) lapsed: bool,
    /// The caller cancelled while the telephone rang.
    pub(super) cancelled: bool,
    /// Told to the caller more than once: cannot be withdrawn.
    pub(super) confirmed: bool,
    /// Routing refused to hold the place: turns are taken by the clock.
    pub(super) unheld: bool,
    /// Last attempt whose dialling was reported.
    pub(super) dialled_reported: u32,
    /// Reports not yet acknowledged, oldest first.
    pub(super) reports: Vec<Report>,
    /// Sequence of the last report made.
    pub(super) last_report: u32,
    /// When routing had acknowledged them all.
    pub(super) settled_at: TimeMs,
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
            attempts_before: previous
                .map_or(0, |earlier| earlier.attempts_before + earlier.attempts),
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
        booking.keep_place(booking.not_before, rules);
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
            State::Ended {
                end: CallbackEnd::Connected,
                ..
            } => "connected",
            State::Ended {
                end: CallbackEnd::Exhausted,
                ..
            } => "exhausted",
            State::Ended {
                end: CallbackEnd::Cancelled,
                ..
            } => "cancelled",
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

    /// When [`super::Input::Tick`] is next needed; `None`: not by itself.
    #[must_use]
    pub fn next_deadline(&self, rules: &Rules) -> Option<TimeMs> {
        match self.place(rules) {
            Place::Held(at) | Place::Leased(at) => Some(at),
            Place::Due(_) => Some(self.booked_at.plus(rules.life_max_ms)),
            Place::Ended => None,
        }
    }
}
