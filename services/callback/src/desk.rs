//! Where every input meets its booking: load, decide, commit, then tell.
//!
//! [`Desk::change`] is the only way a booking changes after it was made. It may run on any
//! replica; the revision of the record orders what is decided at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use domain::callback::{Booking, DialEnd, Input, Output, Place, Rules};
use domain::policy::Policy;
use domain::{ContactId, TimeMs};
use futures::future::BoxFuture;
use runtime::{Backoff, Clock, LogLimit};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::faults::{Faults, Point};
use crate::forecast::Forecasts;
use crate::gateways::Gateways;
use crate::metrics::{Limit, Metrics, ReportResult};
use crate::routing::{Links, Sent};
use crate::shards::Shards;
use crate::store::durability::Durability;
use crate::store::{Error, ReportAt, Store, Stored, frees_seat};

/// Decisions that lose against another's are made again this often. Each loss is somebody
/// else's progress, and one booking has few who speak of it.
const DECISIONS_MAX: usize = 32;
/// How long an input that nobody repeats is tried while the store is away: a store that is
/// away longer has let the attempt lapse.
const PERSIST_FOR: Duration = Duration::from_secs(60);

/// Everything the role's tasks share.
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) rules: Rules,
    pub(crate) policy: Arc<Policy>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) gateways: Gateways,
    pub(crate) links: Links,
    pub(crate) shards: Shards,
    pub(crate) forecasts: Forecasts,
    pub(crate) faults: Faults,
    /// Names this replica.
    pub(crate) instance: String,
    /// Changes that routing and gateways asked for.
    pub(crate) changes: Arc<Semaphore>,
    /// Reports awaiting routing's answer. Apart from `changes`: a link whose reader waits
    /// for a permit must not wait for what only that reader can bring.
    pub(crate) reports: Arc<Semaphore>,
    /// Withdrawals, which may last as long as the store is away.
    pub(crate) withdrawals: Arc<Semaphore>,
    pub(crate) store_log: LogLimit,
    pub(crate) report_log: LogLimit,
    /// Whether the store makes writes durable: encoded [`StoreState`].
    store_state: AtomicU8,
}

/// A booking after a change, and what it asks for.
pub(crate) type Changed = (Stored, Vec<Output>);

/// What is known of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreState {
    /// Away, or not durable although it must be.
    Unfit,
    /// Fit; nothing more is to be waited for.
    Fit,
    /// Fit once its replicas, or its file, have the write.
    FitWhenAwaited,
}

impl Desk {
    pub(crate) fn new(
        config: Config,
        instance: String,
        store: Store,
        policy: Arc<Policy>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let rules = config.rules(&policy);
        let gateways = Gateways::new(
            config.gateways_max,
            config.gateway_queue_messages,
            metrics.clone(),
        );
        Self {
            rules,
            forecasts: Forecasts::new(Arc::clone(&policy)),
            faults: config.faults.clone(),
            instance,
            changes: Arc::new(Semaphore::new(config.changes_in_flight_max)),
            reports: Arc::new(Semaphore::new(config.batch_entries_max * 4)),
            withdrawals: Arc::new(Semaphore::new(config.requests_in_flight_max)),
            gateways,
            store,
            policy,
            clock,
            metrics,
            links: Links::default(),
            shards: Shards::default(),
            config,
            store_log: LogLimit::new(Duration::from_secs(10)),
            report_log: LogLimit::new(Duration::from_secs(10)),
            store_state: AtomicU8::new(0),
        }
    }

    pub(crate) fn now(&self) -> TimeMs {
        self.clock.now()
    }

    pub(crate) fn set_store_state(&self, state: StoreState) {
        let encoded = match state {
            StoreState::Unfit => 0,
            StoreState::Fit => 1,
            StoreState::FitWhenAwaited => 2,
        };
        self.store_state.store(encoded, Ordering::Relaxed);
    }

    pub(crate) fn store_state(&self) -> StoreState {
        match self.store_state.load(Ordering::Relaxed) {
            0 => StoreState::Unfit,
            1 => StoreState::Fit,
            _ => StoreState::FitWhenAwaited,
        }
    }

    /// Waits until what was written is durable, where that is not so by itself.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        match self.store_state() {
            StoreState::Fit => return Ok(()),
            StoreState::Unfit => return Err(Error::NotDurable),
            StoreState::FitWhenAwaited => {}
        }
        let durability = match self.config.durable_replicas {
            0 => Durability::AppendOnlyFile,
            replicas => Durability::Replicas(replicas),
        };
        self.store
            .wait_durable(durability, self.config.redis_timeout_ms / 2)
            .await
    }

    /// One line in ten seconds, however often the store fails.
    pub(crate) fn store_failed(&self, error: &Error) {
        self.metrics.store_errors.inc();
        if let Some(suppressed) = self.store_log.check() {
            tracing::warn!(%error, suppressed, "a change of a booking failed");
        }
    }

    /// Tells a contact's booking something. `None`: there is none.
    pub(crate) async fn change(
        &self,
        contact: ContactId,
        input: Input,
    ) -> Result<Option<Stored>, Error> {
        match self.store.find(contact).await? {
            Some(stored) => Ok(self
                .change_stored(stored, input, false)
                .await?
                .map(|(stored, _)| stored)),
            None => Ok(None),
        }
    }

    /// As [`Desk::change`], for what nobody will say again: tried until the store is back.
    pub(crate) async fn change_persistently(
        &self,
        contact: ContactId,
        input: Input,
    ) -> Result<Option<Stored>, Error> {
        let mut backoff = Backoff::new(20, 1_000);
        let deadline = tokio::time::Instant::now() + PERSIST_FOR;
        loop {
            match self.change(contact, input.clone()).await {
                Err(error @ (Error::Away(_) | Error::Contended(_) | Error::NotDurable)) => {
                    self.store_failed(&error);
                    let delay = backoff.next_delay();
                    if tokio::time::Instant::now() + delay > deadline {
                        return Err(error);
                    }
                    tokio::time::sleep(delay).await;
                }
                settled => return settled,
            }
        }
    }

    /// Tells a loaded booking something, and commits what it makes of it. `always`: commits
    /// even if nothing changed, because the entry was taken from its set. `None`: the
    /// booking is gone.
    pub(crate) fn change_stored(
        &self,
        stored: Stored,
        input: Input,
        always: bool,
    ) -> BoxFuture<'_, Result<Option<Changed>, Error>> {
        // Boxed: it is large, and part of the future of nearly everything here.
        Box::pin(self.decide_and_commit(stored, input, always))
    }

    async fn decide_and_commit(
        &self,
        mut stored: Stored,
        input: Input,
        always: bool,
    ) -> Result<Option<Changed>, Error> {
        let contact = stored.booking.contact;
        let mut outputs = Vec::new();
        for _ in 0..DECISIONS_MAX {
            let before = stored.booking.clone();
            let now = self.now();
            outputs.clear();
            stored
                .booking
                .handle(now, &self.rules, input.clone(), &mut outputs);
            if !always && stored.booking == before {
                return Ok(Some((stored, outputs)));
            }
            let (report_at, wake) = self.what_follows(&before, &stored.booking, now);
            if self
                .store
                .commit(&stored, &self.rules, report_at, wake)
                .await?
            {
                stored.revision += 1;
                self.settle().await?;
                if wake {
                    self.shards.wake(stored.shard);
                }
                self.count(&before, &outputs).await;
                return Ok(Some((stored, outputs)));
            }
            self.metrics.conflicts.inc();
            match self.store.load(stored.shard, contact).await? {
                Some(newer) => stored = newer,
                None => return Ok(None),
            }
        }
        Err(Error::Contended(contact))
    }

    /// When the first report is to be sent, and whether the leaseholder should hear at once.
    fn what_follows(&self, before: &Booking, after: &Booking, now: TimeMs) -> (ReportAt, bool) {
        let sequence = |booking: &Booking| booking.first_report().map(|report| report.sequence);
        let next = sequence(after);
        let is_new = next.is_some() && next != sequence(before);
        let is_due = matches!(after.place(&self.rules), Place::Due(at) if at <= now);
        let report_at = if is_new {
            ReportAt::At(now)
        } else {
            ReportAt::Keep
        };
        (report_at, is_new || is_due)
    }

    async fn count(&self, before: &Booking, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::AttemptOver(end) => self.metrics.attempt_over(*end),
                Output::CarriedOver => {
                    self.metrics.carried_over.inc();
                }
                Output::Ended(end) => {
                    self.metrics.ended(*end);
                    if frees_seat(*end)
                        && let Err(error) = self.store.free_seat(before).await
                    {
                        // The seat stays taken: the window holds one callback less.
                        self.store_failed(&error);
                    }
                }
                Output::Violation(violation) => {
                    self.metrics.violated(violation.invariant);
                    tracing::error!(
                        invariant = violation.invariant.name(),
                        detail = violation.detail,
                        "a promise was broken"
                    );
                }
                Output::Dial { .. } => {}
            }
        }
    }

    /// A gateway said what became of a dial.
    pub(crate) async fn dial_ended(&self, contact: ContactId, attempt: u32, end: DialEnd) {
        self.faults.pass(Point::ResultReceived).await;
        match self
            .change_persistently(contact, Input::DialEnded { attempt, end })
            .await
        {
            Ok(Some(_)) => self.faults.pass(Point::ResultWritten).await,
            Ok(None) => tracing::debug!(%contact, attempt, "a dial result for no booking"),
            Err(error) => self.store_failed(&error),
        }
    }

    /// Sends the first report of a booking, and writes down what routing said. `true`: it
    /// is acknowledged.
    pub(crate) async fn send_report(&self, stored: Stored) -> bool {
        let booking = &stored.booking;
        let Some(report) = booking.first_report() else {
            return true;
        };
        let sequence = report.sequence;
        let input =
            proto::convert::callback::report(booking, report, self.rules.ring_ms, self.now());
        self.faults.gate().await;
        let (result, input) = match self.links.send(&booking.pool, input).await {
            Sent::Acknowledged => {
                let point = if sequence == 1 {
                    Point::Registered
                } else {
                    Point::ReportAcknowledged
                };
                self.faults.pass(point).await;
                (
                    ReportResult::Acknowledged,
                    Some(Input::ReportAcknowledged { sequence }),
                )
            }
            Sent::Refused { field, limit } => {
                if let Some(suppressed) = self.report_log.check() {
                    tracing::warn!(contact = %booking.contact, sequence, field, limit, suppressed, "routing refused a report");
                }
                (
                    ReportResult::Refused,
                    Some(Input::ReportRefused { sequence }),
                )
            }
            Sent::NotOwner => (ReportResult::NotOwner, None),
            Sent::NoAnswer => (ReportResult::NoAnswer, None),
        };
        self.metrics.reported(result);
        let Some(input) = input else { return false };
        if let Err(error) = self.change_stored(stored, input, false).await {
            // Sent again later: routing drops the repeat and acknowledges it.
            self.store_failed(&error);
        }
        result == ReportResult::Acknowledged
    }

    /// A permit for one change of a record; waiting for it is counted.
    pub(crate) async fn change_permit(&self) -> tokio::sync::OwnedSemaphorePermit {
        if self.changes.available_permits() == 0 {
            self.metrics.hit(Limit::ChangesInFlight);
        }
        Arc::clone(&self.changes)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }
}
