//! Booking and cancelling: what gateways ask for on behalf of callers.
//!
//! A booking is answered "accepted" only when its record is durable. If the store does not
//! answer in time the write may or may not have happened: then the caller is told that
//! nothing was booked, and the booking, should it exist, is withdrawn as soon as the store
//! is back. A gateway that lost the answer asks again: bookings are idempotent by contact.

use std::sync::Arc;
use std::time::Duration;

use domain::callback::{Booking, Hours, Input, NewBooking, Zone, window_capacity};
use domain::id::FieldError;
use domain::{ContactId, TimeMs};
use proto::callback::v1;
use proto::convert::callback as convert;
use runtime::Backoff;
use tokio::time::Instant;

use crate::desk::{Desk, StoreState};
use crate::faults::Point;
use crate::metrics::{BookResult, Limit};
use crate::store::{Booked, Error, Store, Stored};

/// A withdrawal is tried for this long; after it the booking, if there is one, is kept.
const WITHDRAW_FOR: Duration = Duration::from_secs(600);
/// A booking is tried this often against others that come and end at the same moment.
const ROUNDS_MAX: usize = 4;

/// The answer to a request to book.
enum Answer {
    Accepted {
        stored: Stored,
        result: BookResult,
    },
    Refused {
        reason: v1::RefusalReason,
        result: BookResult,
    },
    Invalid(FieldError),
}

impl Desk {
    /// Answers a request to book.
    pub(crate) async fn book(
        self: &Arc<Self>,
        book: &v1::Book,
        traceparent: &str,
    ) -> v1::response::Body {
        let start = Instant::now();
        let answer = match self.checked(book, traceparent) {
            Ok(new) => self.book_checked(new).await,
            Err(answer) => answer,
        };
        self.metrics
            .book_seconds
            .observe(start.elapsed().as_secs_f64());
        match answer {
            Answer::Accepted { stored, result } => {
                self.metrics.booked(result);
                let existing = result == BookResult::Existing;
                v1::response::Body::Accepted(convert::accepted(&stored.booking, existing))
            }
            Answer::Refused { reason, result } => {
                self.metrics.booked(result);
                v1::response::Body::Refused(v1::Refused {
                    reason: reason.into(),
                    ..v1::Refused::default()
                })
            }
            Answer::Invalid(fault) => {
                self.metrics.booked(BookResult::Invalid);
                v1::response::Body::Refused(convert::refused_invalid(&fault))
            }
        }
    }

    /// Checks what does not need the store, and fills in what policy knows.
    fn checked(&self, book: &v1::Book, traceparent: &str) -> Result<NewBooking, Answer> {
        let traceparent = if runtime::trace::is_valid(traceparent) {
            traceparent
        } else {
            ""
        };
        let mut new = convert::new_booking(book, traceparent).map_err(Answer::Invalid)?;
        let now = self.now();
        if new.arrived_at == TimeMs(0) || new.arrived_at > now {
            new.arrived_at = now;
        }
        let line = self.policy.lines.get(&new.line);
        if new.time_zone.is_empty() {
            new.time_zone = line.map_or_else(|| "UTC".to_owned(), |line| line.time_zone.clone());
        }
        new.family = match self.policy.topics.get(&new.topic) {
            Some(topic) => topic.family.clone(),
            None if !new.topic.is_empty() => new.topic.clone(),
            None => format!("line.{}", new.line),
        };
        let Some(window) = new.window else {
            return Ok(new);
        };
        let farthest = now.plus(self.config.window_ahead_hours_max * 3_600_000);
        if window.from > farthest || window.until <= now {
            return Err(Answer::Invalid(FieldError::new(
                "window",
                format!(
                    "ends after now, starts within {} hours",
                    self.config.window_ahead_hours_max
                ),
                format!("{} to {}", window.from, window.until),
            )));
        }
        let zone = Zone::parse(&new.time_zone).map_err(Answer::Invalid)?;
        let hours: Hours = self.rules.hours;
        if !hours.hold(&zone, window.from, window.until) {
            return Err(Answer::Refused {
                reason: v1::RefusalReason::OutsideHours,
                result: BookResult::OutsideHours,
            });
        }
        Ok(new)
    }

    async fn book_checked(self: &Arc<Self>, new: NewBooking) -> Answer {
        let unavailable = || Answer::Refused {
            reason: v1::RefusalReason::Unavailable,
            result: BookResult::Unavailable,
        };
        if self.store_state() == StoreState::Unfit {
            return unavailable();
        }
        let contact = new.contact;
        let since = self.now();
        let deadline = Instant::now() + Duration::from_millis(self.config.book_timeout_ms);
        let Ok(answer) = tokio::time::timeout_at(deadline, self.book_until_known(new)).await else {
            self.withdraw_later(contact, since);
            return unavailable();
        };
        if let Answer::Accepted {
            stored,
            result: BookResult::Accepted,
        } = &answer
        {
            // Durable: from here on it is accepted, whatever happens.
            self.register(stored).await;
        }
        answer
    }

    /// Tells routing of a new booking, and waits a little for it to hold the place.
    async fn register(self: &Arc<Self>, stored: &Stored) {
        let desk = Arc::clone(self);
        let registered = stored.clone();
        // The task outlives the wait: an acknowledgement that comes later still counts.
        let sending = tokio::spawn(async move { desk.send_report(registered).await });
        let wait = Duration::from_millis(self.config.register_wait_ms);
        if !matches!(tokio::time::timeout(wait, sending).await, Ok(Ok(true))) {
            tracing::debug!(contact = %stored.booking.contact, "accepted before routing holds the place");
        }
    }

    /// Books, again and again while the store does not say whether it did.
    async fn book_until_known(self: &Arc<Self>, new: NewBooking) -> Answer {
        let mut backoff = Backoff::new(20, 200);
        loop {
            match self.book_once(new.clone()).await {
                Ok(answer) => return answer,
                Err(error) => self.store_failed(&error),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn book_once(self: &Arc<Self>, new: NewBooking) -> Result<Answer, Error> {
        let shard = self.store.keys.shard_of_caller(new.caller);
        let mut previous = None;
        if let Some(other) = self.store.point(new.contact, shard).await? {
            // The contact has been here before, as another caller.
            if let Some(stored) = self.store.load(other, new.contact).await? {
                previous = Some(stored.booking.clone());
                if let Some(answer) = self.stands(stored, BookResult::Repeated).await? {
                    return Ok(answer);
                }
            }
            self.store.point_anew(new.contact, shard).await?;
        }
        let mut revision = None;
        for _ in 0..ROUNDS_MAX {
            let now = self.now();
            let booking = Booking::new(new.clone(), previous.as_deref(), now, &self.rules);
            if !self.has_seat(&booking).await? {
                return self.without_seat(&booking).await;
            }
            let report_at = now.plus(self.config.report_retry_ms);
            match self
                .store
                .book(&booking, revision, &self.rules, report_at)
                .await?
            {
                Booked::New(stored) => {
                    self.settle().await?;
                    self.faults.pass(Point::Booked).await;
                    return Ok(Answer::Accepted {
                        stored,
                        result: BookResult::Accepted,
                    });
                }
                Booked::Known => {
                    revision = None;
                    if let Some(stored) = self.store.load(shard, new.contact).await? {
                        revision = Some(stored.revision);
                        previous = Some(stored.booking.clone());
                        if let Some(answer) = self.stands(stored, BookResult::Repeated).await? {
                            return Ok(answer);
                        }
                    }
                }
                Booked::Existing(holder) => {
                    self.store.free_seat(&booking).await?;
                    if let Some(stored) = self.store.load(shard, holder).await?
                        && let Some(answer) = self.stands(stored, BookResult::Existing).await?
                    {
                        return Ok(answer);
                    }
                }
                Booked::NoCode => self.metrics.hit(Limit::Codes),
            }
        }
        Ok(Answer::Refused {
            reason: v1::RefusalReason::Unavailable,
            result: BookResult::Unavailable,
        })
    }

    /// The caller has a booking already: makes sure that it stands. `None`: it has just
    /// ended.
    async fn stands(&self, stored: Stored, result: BookResult) -> Result<Option<Answer>, Error> {
        if stored.booking.is_ended() {
            return Ok(None);
        }
        // Not confirmed before it is durable: until then it may have to be withdrawn.
        self.settle().await?;
        let Some((stored, _)) = self.change_stored(stored, Input::Confirm, false).await? else {
            return Ok(None);
        };
        self.settle().await?;
        Ok((!stored.booking.is_ended()).then_some(Answer::Accepted { stored, result }))
    }

    async fn has_seat(&self, booking: &Booking) -> Result<bool, Error> {
        let Some(window) = booking.window else {
            return Ok(true);
        };
        let forecast = self
            .forecasts
            .of(&booking.pool, &booking.topic, window.from);
        let share = self.policy.callback.window_capacity_percent;
        let capacity = window_capacity(forecast, window.until.since(window.from), share);
        self.store.take_seat(booking, capacity).await
    }

    /// The window is full; but who has a callback already keeps it.
    async fn without_seat(&self, booking: &Booking) -> Result<Answer, Error> {
        let full = Answer::Refused {
            reason: v1::RefusalReason::WindowFull,
            result: BookResult::WindowFull,
        };
        match self.store.find_active(booking).await? {
            Some(stored) => {
                let is_repeat = stored.booking.contact == booking.contact;
                let result = if is_repeat {
                    BookResult::Repeated
                } else {
                    BookResult::Existing
                };
                Ok(self.stands(stored, result).await?.unwrap_or(full))
            }
            None => Ok(full),
        }
    }

    /// Cancels a booking that the caller was told does not exist, if it does.
    fn withdraw_later(self: &Arc<Self>, contact: ContactId, since: TimeMs) {
        let Ok(permit) = Arc::clone(&self.withdrawals).try_acquire_owned() else {
            self.metrics.hit(Limit::Withdrawals);
            return;
        };
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            let _permit = permit;
            let deadline = Instant::now() + WITHDRAW_FOR;
            let mut backoff = Backoff::new(20, 200);
            while Instant::now() < deadline {
                match desk.withdraw(contact, since).await {
                    Ok(()) => return,
                    Err(error) => desk.store_failed(&error),
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
            tracing::warn!(%contact, "a booking that was refused for want of the store may exist");
        });
    }

    async fn withdraw(&self, contact: ContactId, since: TimeMs) -> Result<(), Error> {
        let Some(stored) = self.store.find(contact).await? else {
            return Ok(());
        };
        // An earlier booking of the contact was not refused: it stays.
        if stored.booking.booked_at >= since {
            self.change_stored(stored, Input::Withdraw, false).await?;
        }
        Ok(())
    }

    /// Answers a request to cancel.
    pub(crate) async fn cancel(&self, cancel: &v1::Cancel) -> v1::response::Body {
        let target = match convert::cancel_target(cancel) {
            Ok(target) => target,
            Err(fault) => return v1::response::Body::Refused(convert::refused_invalid(&fault)),
        };
        match self.cancel_target(target).await {
            Ok(existed) => v1::response::Body::Cancelled(v1::Cancelled { existed }),
            Err(error) => {
                self.store_failed(&error);
                v1::response::Body::Refused(v1::Refused {
                    reason: v1::RefusalReason::Unavailable.into(),
                    ..v1::Refused::default()
                })
            }
        }
    }

    async fn cancel_target(&self, target: convert::CancelTarget) -> Result<bool, Error> {
        let found = match target {
            convert::CancelTarget::Contact(contact) => self.store.find(contact).await?,
            // A code alone is guessable; with the caller's pseudonym it is theirs.
            convert::CancelTarget::Code { caller, code } => self
                .store
                .find_code(&code)
                .await?
                .filter(|stored| Store::is_of(stored, caller)),
        };
        let Some(stored) = found else {
            return Ok(false);
        };
        let existed = !stored.booking.is_ended();
        self.change_stored(stored, Input::Cancel, false).await?;
        Ok(existed)
    }
}
