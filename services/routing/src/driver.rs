//! The task that owns one pool: inputs in, one commit a batch, outputs out.
//!
//! ```text
//! inbox --> [apply to the pool] --> gathered --> commit n in flight --> replies, commands
//!                 ^                                     |
//!                 +------ goes on while n flies --------+
//! ```
//!
//! At most one commit is in flight. What comes meanwhile is applied and gathered, and
//! flies as soon as the one before has landed: a batch is what queued up, nothing waits to
//! fill one. Nothing is told to anybody before the commit with the change behind it has
//! landed.
//!
//! # When Redis is away
//! The commit in flight is repeated (the store applies it once), the gathered batch fills
//! to its bound, then the inbox, then the links stop reading; callers are answered by the
//! gateway's deadline. At the lease's end ownership is withdrawn and inputs get "not the
//! owner", but the memory is kept: if nobody else took over, the next renewal takes the
//! lease up again and the commit lands. If somebody did, everything is dropped.
//!
//! Rejected: a commit per input (12,800/s instead of 120,000/s), several commits in flight
//! (a lost one in the middle could not be repeated), dropping memory as soon as Redis
//! errs (a Redis that restarts without its last second would then lose what this process
//! still knows).

mod look;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::pool::{Changes, InputBody, Outputs, Pool};
use domain::{ContactId, TimeMs};
use proto::routing::v1;
use runtime::{Clock, Condition, LogLimit};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::{Gathered, Landed, encode_changes, reply_default_route, reply_not_owner};
use crate::flight::{Flight, History, Landing};
use crate::lease::Lease;
use crate::metrics::{KindLabels, Metrics, PoolLabels, input_kind};
use crate::owned::{Ownership, PoolHandle, PoolInput};
use crate::peers::Peers;
use crate::store::{Batch, PoolStore};

/// How often gauges are brought up to date.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// Outputs that may be gathered; beyond it neither inputs nor timers are taken until the
/// commit in flight has landed. A snapshot's input may give hundreds.
const GATHERED_OUTPUTS_MAX: usize = 16_384;

/// How a driver ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Told to stop: everything is written and answered.
    Stopped,
    /// Another owner has the pool.
    Deposed,
}

/// What a driver works with.
pub(crate) struct Context {
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) ownership: Ownership,
    /// Redis can be asked.
    pub(crate) redis: Condition,
    /// Redis takes what we write.
    pub(crate) commits: Condition,
    pub(crate) outbox: Condition,
    pub(crate) limit: LogLimit,
    pub(crate) batch_inputs_max: usize,
    pub(crate) inbox_inputs: usize,
    pub(crate) outbox_max: u64,
    pub(crate) replay_bytes: usize,
}

/// A pool, driven.
pub(crate) struct Driver {
    pub(crate) context: Arc<Context>,
    name: String,
    labels: PoolLabels,
    pool: Pool,
    store: PoolStore,
    epoch: u64,
    /// Number of the last commit made.
    commits: u64,
    /// Time never goes back over a change of owner.
    not_before: TimeMs,
    ticked_at: TimeMs,
    /// Contacts that have a record: followed even when the outbox is full.
    known: HashSet<ContactId>,
    gathered: Gathered,
    changes: Changes,
    history: History,
    outbox_full: bool,
    /// How long a command may wait for its switch.
    keep_commands: Duration,
    inbox_sender: mpsc::Sender<PoolInput>,
    inbox: mpsc::Receiver<PoolInput>,
    status_sender: mpsc::Sender<oneshot::Sender<v1::GetPoolResponse>>,
    status: mpsc::Receiver<oneshot::Sender<v1::GetPoolResponse>>,
}

impl Driver {
    /// A driver of a pool just loaded; `outputs` are what its restoring gave.
    pub(crate) fn new(
        context: Arc<Context>,
        pool: Pool,
        store: PoolStore,
        epoch: u64,
        not_before: TimeMs,
        known: HashSet<ContactId>,
        outputs: Outputs,
    ) -> Self {
        let (inbox_sender, inbox) = mpsc::channel(context.inbox_inputs);
        let (status_sender, status) = mpsc::channel(16);
        let name = pool.name().to_owned();
        let reservation_ms = pool
            .policy()
            .pool(&name)
            .map_or(1_000, |policy| policy.reservation_max_ms);
        Self {
            labels: PoolLabels { pool: name.clone() },
            gathered: Gathered::with_outputs(outputs),
            history: History::new(context.replay_bytes),
            context,
            name,
            pool,
            store,
            epoch,
            commits: 0,
            not_before,
            ticked_at: TimeMs(0),
            known,
            changes: Changes::default(),
            outbox_full: false,
            keep_commands: Duration::from_millis(reservation_ms / 2),
            inbox_sender,
            inbox,
            status_sender,
            status,
        }
    }

    fn now(&self) -> TimeMs {
        self.context.clock.now().max(self.not_before)
    }

    fn announce(&self) {
        self.context.ownership.announce(
            &self.name,
            PoolHandle {
                epoch: self.epoch,
                inbox: self.inbox_sender.clone(),
                status: self.status_sender.clone(),
            },
        );
        let epoch = i64::try_from(self.epoch).unwrap_or(i64::MAX);
        self.context
            .metrics
            .pool_epoch
            .get_or_create(&self.labels)
            .set(epoch);
    }

    fn withdraw(&self) {
        self.context.ownership.withdraw(&self.name);
        self.context
            .metrics
            .pool_epoch
            .get_or_create(&self.labels)
            .set(0);
    }

    /// Drives until stopped or deposed.
    pub(crate) async fn run(
        mut self,
        mut lease: watch::Receiver<Lease>,
        stop: CancellationToken,
    ) -> Ended {
        self.announce();
        let mut flight: Option<Flight> = None;
        let mut lapsed = false;
        let mut inputs: Vec<PoolInput> = Vec::with_capacity(self.context.batch_inputs_max);
        let mut show = tokio::time::interval(SHOW_EVERY);
        show.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            if flight.is_none() && self.gathered.is_dirty() {
                flight = self.take_off(lease.borrow().is_held());
            }
            if flight.is_none() && stop.is_cancelled() {
                break Ended::Stopped;
            }
            let room = self.room();
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.inbox.is_closed() => {
                    // The links say "not the owner" from here on; what waits in the inbox
                    // is told the same, and what is applied already is written and answered.
                    self.withdraw();
                    self.inbox.close();
                    self.reject_inbox();
                }
                landing = Flight::land(&mut flight) => {
                    let landed_flight = flight.take().expect("it has just landed");
                    match landing {
                        Landing::Applied { outbox_events } => self.landed(landed_flight, outbox_events),
                        Landing::Gap { stored } => match self.replay(landed_flight, stored) {
                            Some(again) => flight = Some(again),
                            None => break Ended::Deposed,
                        },
                        Landing::Deposed { epoch } => {
                            tracing::warn!(pool = self.name, ours = self.epoch, theirs = epoch, "deposed, nothing was written");
                            self.give_up(Some(landed_flight.landed)).await;
                            return Ended::Deposed;
                        }
                    }
                }
                changed = lease.changed() => {
                    let now = if changed.is_ok() { *lease.borrow_and_update() } else { Lease::Lost };
                    if now == Lease::Lost {
                        tracing::warn!(pool = self.name, epoch = self.epoch, "the lease is lost to another owner");
                        break Ended::Deposed;
                    }
                    self.lease_changed(now, &mut lapsed, stop.is_cancelled());
                }
                // Before the inbox, which under load is never empty: timers must not starve.
                // They cannot starve it: each tick moves the next one on.
                () = sleep_until(deadline), if !self.is_full() => self.tick(),
                _ = show.tick() => {
                    self.show();
                    if flight.is_none() && !stop.is_cancelled() {
                        // An idle pool's outbox is looked at, too.
                        flight = Some(self.commit(Batch::default(), Landed::default()));
                    }
                }
                Some(asked) = self.status.recv() => self.tell_status(asked),
                received = self.inbox.recv_many(&mut inputs, room.max(1)), if (lapsed || room > 0) && !self.inbox.is_closed() => {
                    if received > 0 {
                        self.take(&mut inputs, lapsed);
                    }
                }
            }
        };
        self.give_up(flight.map(|flight| flight.landed)).await;
        ended
    }

    /// Steps down at the lease's end, and up again when nobody took over.
    fn lease_changed(&self, now: Lease, lapsed: &mut bool, stopping: bool) {
        if now == Lease::Lapsed && !*lapsed {
            *lapsed = true;
            self.context.metrics.lease_lapses.inc();
            tracing::warn!(
                pool = self.name,
                epoch = self.epoch,
                "the lease ran out while redis was away, stepping down"
            );
            self.withdraw();
        } else if now == Lease::Held && *lapsed && !stopping {
            *lapsed = false;
            tracing::info!(
                pool = self.name,
                epoch = self.epoch,
                "the lease is held again, nobody took over"
            );
            self.announce();
        }
    }

    /// Nothing more may be gathered before a commit has landed.
    fn is_full(&self) -> bool {
        self.gathered.outputs.len() >= GATHERED_OUTPUTS_MAX
    }

    /// How many inputs may be taken now.
    fn room(&self) -> usize {
        if self.inbox.is_closed() || self.is_full() {
            return 0;
        }
        self.context
            .batch_inputs_max
            .saturating_sub(self.gathered.inputs())
    }

    /// When the pool's next timer is due.
    fn deadline(&self) -> Option<tokio::time::Instant> {
        // At most one tick a millisecond: a timer that did not move on would otherwise
        // keep everything else from running.
        let due = self.pool.next_deadline()?.max(self.ticked_at.plus(1));
        let wait_ms = due.since(self.now());
        Some(tokio::time::Instant::now() + Duration::from_millis(wait_ms))
    }

    fn take(&mut self, inputs: &mut Vec<PoolInput>, lapsed: bool) {
        let waiting = i64::try_from(self.inbox.len()).unwrap_or(i64::MAX);
        self.context
            .metrics
            .inbox_inputs
            .get_or_create(&self.labels)
            .set(waiting);
        if lapsed {
            let senders = inputs.drain(..).filter_map(|input| input.reply_to);
            reply_not_owner(&self.context.metrics, senders);
            return;
        }
        let start = Instant::now();
        let now = self.now();
        for mut taken in inputs.drain(..) {
            let kind = input_kind(&taken.input.body);
            self.context
                .metrics
                .inputs
                .get_or_create(&KindLabels { kind })
                .inc();
            if self.outbox_full && self.is_new(&taken) {
                self.context.metrics.outbox_refused.inc();
                reply_default_route(&self.context.metrics, taken);
                continue;
            }
            self.gathered.wait(&mut taken);
            self.pool
                .handle(now, taken.input, &mut self.gathered.outputs);
        }
        self.context
            .metrics
            .step_seconds
            .observe(start.elapsed().as_secs_f64());
    }

    /// A contact not heard of before asks for a person.
    fn is_new(&self, taken: &PoolInput) -> bool {
        matches!(taken.input.body, InputBody::Route(_))
            && taken
                .input
                .contact
                .is_some_and(|contact| !self.known.contains(&contact))
    }

    fn tick(&mut self) {
        let now = self.now();
        self.ticked_at = now;
        self.pool.tick(now, &mut self.gathered.outputs);
        self.gathered.ticked();
    }

    /// Makes the next commit of what is gathered. `None`: there was nothing to write.
    fn take_off(&mut self, lease_held: bool) -> Option<Flight> {
        self.pool.take_changes(&mut self.changes);
        let mut batch = encode_changes(&self.changes, &mut self.known)
            .expect("records are plain data: encoding them into memory cannot fail");
        let landed = self.gathered.close(&self.name, &mut batch, &self.context);
        let unanswered = i64::try_from(landed.inputs()).unwrap_or(i64::MAX);
        self.context
            .metrics
            .unanswered
            .get_or_create(&self.labels)
            .set(unanswered);
        if batch.is_empty() && lease_held {
            // Known already, all of it: and while the lease is held nobody else can have
            // changed it.
            self.release(landed);
            return None;
        }
        Some(self.commit(batch, landed))
    }

    fn commit(&mut self, batch: Batch, landed: Landed) -> Flight {
        self.commits += 1;
        let now = self.now();
        let commit = Arc::new(self.store.encode(self.epoch, self.commits, now, &batch));
        if landed.inputs() > 0 {
            let inputs = u32::try_from(landed.inputs()).unwrap_or(u32::MAX);
            self.context.metrics.batch_inputs.observe(f64::from(inputs));
        }
        self.context
            .metrics
            .events
            .inc_by(batch.events.len() as u64);
        self.history.keep(Arc::clone(&commit));
        Flight::new(&self.context, &self.name, &self.store, vec![commit], landed)
    }

    /// Redis came back without its last commits: writes them again, then this one.
    fn replay(&mut self, flight: Flight, stored: u64) -> Option<Flight> {
        match self.history.after(stored) {
            Some(commits) => {
                tracing::warn!(
                    pool = self.name,
                    stored,
                    batches = commits.len(),
                    "redis came back without its last batches, writing them again"
                );
                self.context
                    .metrics
                    .batches_replayed
                    .inc_by(commits.len() as u64 - 1);
                Some(Flight::new(
                    &self.context,
                    &self.name,
                    &self.store,
                    commits,
                    flight.landed,
                ))
            }
            None => {
                tracing::error!(
                    pool = self.name,
                    stored,
                    batch = self.commits,
                    "redis came back without batches that are not kept any more, loading what it has"
                );
                flight.landed.not_owner(&self.context.metrics);
                None
            }
        }
    }

    fn landed(&mut self, flight: Flight, outbox_events: u64) {
        self.context
            .metrics
            .commit_seconds
            .observe(flight.started.elapsed().as_secs_f64());
        let events = i64::try_from(outbox_events).unwrap_or(i64::MAX);
        self.context
            .metrics
            .outbox_events
            .get_or_create(&self.labels)
            .set(events);
        let full = outbox_events > self.context.outbox_max;
        if full != self.outbox_full {
            self.outbox_full = full;
            if full {
                tracing::warn!(
                    pool = self.name,
                    outbox_events,
                    limit = self.context.outbox_max,
                    "outbox full, new contacts take the default route"
                );
                self.context.outbox.not_ready(format!(
                    "outbox full: {outbox_events} events of pool {} wait for kafka",
                    self.name
                ));
            } else {
                tracing::info!(pool = self.name, outbox_events, "outbox has room again");
                self.context.outbox.ready();
            }
        }
        self.release(flight.landed);
    }

    /// The changes behind these are durable: tell everybody.
    fn release(&self, landed: Landed) {
        landed.release(
            &self.context,
            &self.name,
            self.keep_commands,
            self.context.clock.now(),
        );
        self.context
            .metrics
            .unanswered
            .get_or_create(&self.labels)
            .set(0);
    }

    /// The pool is not ours: whoever waits is told to ask elsewhere.
    async fn give_up(&mut self, flying: Option<Landed>) {
        self.withdraw();
        self.inbox.close();
        // Until nobody holds a place any more: who reserved one before we closed still sends.
        while let Some(input) = self.inbox.recv().await {
            reply_not_owner(&self.context.metrics, input.reply_to.into_iter());
        }
        let metrics = Arc::clone(&self.context.metrics);
        for landed in flying.into_iter().chain([self.gathered.abandon()]) {
            landed.not_owner(&metrics);
        }
        self.context.peers.forget(&self.name);
        metrics.forget(&self.name);
        for queue in &self.pool.policy().queues {
            metrics.forget_queue(&self.name, &queue.name);
        }
    }

    fn reject_inbox(&mut self) {
        let mut left = Vec::new();
        while let Ok(input) = self.inbox.try_recv() {
            left.extend(input.reply_to);
        }
        reply_not_owner(&self.context.metrics, left.into_iter());
    }
}

/// Sleeps until the moment; for ever if there is none.
async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
