//! What a booking is made of, can be told, and asks for: with [`super::Booking`]'s states
//! the specification of its life.

use serde::{Deserialize, Serialize};

use crate::invariant::Violation;
use crate::pool::{CallbackEnd, NoticeKind, Window};
use crate::{CallerId, ContactId, SwitchId, TimeMs};

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
    /// Time has passed: due at [`super::Booking::next_deadline`].
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
