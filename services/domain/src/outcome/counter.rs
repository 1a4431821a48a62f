//! What is counted: a closed set, each with the name under which it is stored.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! closed_set {
    ($(#[$doc:meta])* $set:ident { $($(#[$item_doc:meta])* $item:ident => $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $set { $($(#[$item_doc])* $item,)* }

        impl $set {
            /// All of them, in order.
            pub const ALL: &'static [$set] = &[$($set::$item,)*];

            /// The stored name: never changed, never given a second meaning.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($set::$item => $name,)* }
            }

            /// By stored name.
            #[must_use]
            pub fn by_name(name: &str) -> Option<Self> {
                match name { $($name => Some($set::$item),)* _ => None }
            }
        }
    };
}

closed_set! {
    /// A counter. Sums of milliseconds end in `_ms`.
    Counter {
        /// Contacts that reached us, whatever became of them.
        Offered => "offered",
        /// Contacts of which nothing more will come.
        Closed => "closed",
        /// Contacts that got a place in line.
        Queued => "queued",
        /// Contacts that talked to a person.
        Answered => "answered",
        /// Of those, without a callback.
        AnsweredHolders => "answered_holders",
        /// Of those, after they took a callback.
        AnsweredCallback => "answered_callback",
        /// Arrival to a person, of those who held.
        WaitHoldersMs => "wait_holders_ms",
        /// Arrival to a person, of those who took a callback.
        WaitCallbackMs => "wait_callback_ms",
        /// Contacts that gave up before any person.
        Abandoned => "abandoned",
        /// Of those, before they had a place in line.
        AbandonedBeforeQueue => "abandoned_before_queue",
        /// Of those, in line.
        AbandonedInQueue => "abandoned_in_queue",
        /// Of those, while it rang at an agent.
        AbandonedRinging => "abandoned_ringing",
        /// Arrival to giving up.
        AbandonedWaitMs => "abandoned_wait_ms",
        /// Gave up waiting for another person after having talked to one.
        AbandonedAfterAnswer => "abandoned_after_answer",
        /// Contacts that went to the switch's default route.
        DefaultRouted => "default_routed",
        /// Contacts refused with a message.
        Blocked => "blocked",
        /// Of those, because the line was closed.
        BlockedClosed => "blocked_closed",
        /// Ended, having talked to a person.
        EndedAnswered => "ended_answered",
        /// Ended by giving up before any person.
        EndedAbandoned => "ended_abandoned",
        /// Ended refused.
        EndedBlocked => "ended_blocked",
        /// Ended on the default route.
        EndedDefaultRouted => "ended_default_routed",
        /// Ended with a callback that never reached a person.
        EndedCallbackUnreached => "ended_callback_unreached",
        /// Ended in no known way.
        EndedOther => "ended_other",
        /// Answered within the queue's threshold.
        AnsweredInThreshold => "answered_in_threshold",
        /// Gave up within the queue's threshold.
        AbandonedInThreshold => "abandoned_in_threshold",
        /// On lines of the legacy measure: answered.
        LegacyAnswered => "legacy_answered",
        /// On lines of the legacy measure: gave up in line.
        LegacySecondaryAbandoned => "legacy_secondary_abandoned",
        /// On lines of the legacy measure: refused because closed.
        LegacyEmergencyClosed => "legacy_emergency_closed",
        /// On lines of the legacy measure: refused for any other reason.
        LegacyBusy => "legacy_busy",
        /// Transfers asked for.
        TransfersRequested => "transfers_requested",
        /// Transfers that reached the next person.
        TransfersCompleted => "transfers_completed",
        /// Closed contacts with at least one completed transfer.
        TransferredContacts => "transferred_contacts",
        /// Closed contacts with exactly one.
        TransferredOnce => "transferred_once",
        /// Times an agent did not take a call.
        NotAnsweredByAgent => "not_answered_by_agent",
        /// Contacts to which a callback was offered.
        CallbackOffered => "callback_offered",
        /// Contacts that declined it.
        CallbackDeclined => "callback_declined",
        /// Contacts that took it.
        CallbackAccepted => "callback_accepted",
        /// Of those, for a window.
        CallbackAcceptedWindow => "callback_accepted_window",
        /// Callbacks that reached a person.
        CallbackConnected => "callback_connected",
        /// Of those booked for a window, reached a person before its end.
        CallbackWindowKept => "callback_window_kept",
        /// Callbacks of which every attempt failed.
        CallbackExhausted => "callback_exhausted",
        /// Callbacks cancelled.
        CallbackCancelled => "callback_cancelled",
        /// Attempts: calls placed.
        CallbackAttempts => "callback_attempts",
        /// Attempts that a person answered.
        CallbackAttemptsAnswered => "callback_attempts_answered",
        /// Attempts that a machine answered: not a connection.
        CallbackAttemptsVoicemail => "callback_attempts_voicemail",
        /// Answered contacts with an announced wait to hold them against.
        AnnouncedWaits => "announced_waits",
        /// Sum of (actual - announced), signed.
        AnnouncedErrorMs => "announced_error_ms",
        /// Sum of (actual - announced) squared, in square seconds.
        AnnouncedErrorSquareS2 => "announced_error_square_s2",
        /// Actual waits inside the announced 80 % interval.
        AnnouncedInInterval => "announced_in_interval",
        /// Conversations ended.
        Talks => "talks",
        /// Their length.
        TalkMs => "talk_ms",
        /// Wrap-ups closed.
        WrapUps => "wrap_ups",
        /// Talk and wrap-up.
        HandleMs => "handle_ms",
        /// Wrap-ups closed by the time limit.
        WrapUpsTimedOut => "wrap_ups_timed_out",
        /// Called-back callers who then held a live line.
        NuisanceHolds => "nuisance_holds",
        /// How long they held it.
        NuisanceHoldMs => "nuisance_hold_ms",
        /// How long agents were held for callbacks not yet answered.
        AgentHeldMs => "agent_held_ms",
        /// Closed contacts that talked to a person; in the half hour the conversation ended,
        /// as are all that follow.
        ResolutionAnswered => "resolution_answered",
        /// Of those, with a pseudonym and a topic: resolution can be known.
        ResolutionMeasurable => "resolution_measurable",
        /// Of those answered, marked resolved by the last agent.
        AgentResolved => "agent_resolved",
        /// Issues by the 7 day window.
        Issues7 => "issues_7d",
        /// Of those, resolved on first contact.
        Resolved7 => "resolved_7d",
        /// Issues by the 14 day window.
        Issues14 => "issues_14d",
        /// Of those, resolved on first contact.
        Resolved14 => "resolved_14d",
        /// Issues by the 30 day window.
        Issues30 => "issues_30d",
        /// Of those, resolved on first contact.
        Resolved30 => "resolved_30d",
        /// Arrival to the end of the conversation that resolved it, of contacts marked resolved.
        TimeToResolutionMs => "time_to_resolution_ms",
        /// Surveys with at least one answer.
        Surveys => "surveys",
        /// Surveys that answer how often the caller called about this.
        SurveyCallsKnown => "survey_calls_known",
        /// Of those: this was the first call.
        SurveyFirstCall => "survey_first_call",
        /// Surveys that answer whether all questions were answered.
        SurveyAllAnsweredKnown => "survey_all_answered_known",
        /// Of those: yes.
        SurveyAllAnswered => "survey_all_answered",
        /// Surveys that answer whether no more calls are needed.
        SurveyNoMoreCallsKnown => "survey_no_more_calls_known",
        /// Of those: none are.
        SurveyNoMoreCalls => "survey_no_more_calls",
    }
}

impl Counter {
    /// Stored by the day on which the conversation ended too, so that open windows can be
    /// told from settled ones.
    #[must_use]
    pub const fn is_windowed(self) -> bool {
        matches!(
            self,
            Counter::Issues7
                | Counter::Resolved7
                | Counter::Issues14
                | Counter::Resolved14
                | Counter::Issues30
                | Counter::Resolved30
        )
    }

    /// May fall: a later contact takes a resolution back; an error can be negative.
    #[must_use]
    pub const fn may_fall(self) -> bool {
        self.is_windowed() || matches!(self, Counter::AnnouncedErrorMs)
    }
}

closed_set! {
    /// A distribution, stored as one counter a bucket.
    Histogram {
        /// Arrival to a person, of those who held.
        WaitHolders => "wait_holders",
        /// Arrival to a person, of those who took a callback.
        WaitCallback => "wait_callback",
        /// Arrival to giving up.
        AbandonedWait => "abandoned_wait",
    }
}

/// One stored number of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// A counter.
    Count(Counter),
    /// One bucket of a distribution.
    Bucket(Histogram, u16),
}

/// A stored name that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no counter of this version")]
pub struct UnknownSlot(pub String);

impl fmt::Display for Slot {
    /// The stored name: `offered`, `h.wait_holders.117`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Count(counter) => formatter.write_str(counter.name()),
            Slot::Bucket(histogram, bucket) => write!(formatter, "h.{}.{bucket}", histogram.name()),
        }
    }
}

impl std::str::FromStr for Slot {
    type Err = UnknownSlot;

    fn from_str(text: &str) -> Result<Self, UnknownSlot> {
        let unknown = || UnknownSlot(text.chars().take(64).collect());
        if let Some(rest) = text.strip_prefix("h.") {
            let (name, bucket) = rest.rsplit_once('.').ok_or_else(unknown)?;
            let histogram = Histogram::by_name(name).ok_or_else(unknown)?;
            return Ok(Slot::Bucket(
                histogram,
                bucket.parse().map_err(|_| unknown())?,
            ));
        }
        Counter::by_name(text).map(Slot::Count).ok_or_else(unknown)
    }
}
