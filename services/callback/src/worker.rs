//! The leaseholder's work: what is overdue is ticked, what is due is dialled, what routing
//! has not acknowledged is reported again.
//!
//! What is taken from a shard is leased to this worker by the taking script: should it die,
//! the entry is found there when the lease is over. An attempt is written before its dial
//! is sent, so that a worker that dies in between leaves an attempt that may have been made,
//! never one that nobody knows of.

use std::sync::Arc;
use std::time::Duration;

use domain::ContactId;
use domain::callback::{Input, Output, State};
use futures::StreamExt as _;
use runtime::{LogLimit, Shutdown};

use crate::desk::{Desk, StoreState};
use crate::faults::Point;
use crate::metrics::{Limit, SetName};
use crate::store::{Entry, Error, ShardLease, Stored, TakeLimits, Taken};

/// Shards worked on at once.
const SHARDS_AT_ONCE: usize = 4;
/// Entries of one shard worked on at once.
const ENTRIES_AT_ONCE: usize = 64;
/// A due entry that no gateway could take is taken again after this, in ms.
const PUT_BACK_MS: u64 = 200;
/// Pause between two parts of a scan that registers a pool's bookings again: some 5,000
/// registrations a second, a fraction of what a pool takes.
const RECOVERY_PAUSE: Duration = Duration::from_millis(25);

/// Works until drain.
pub(crate) async fn work(desk: Arc<Desk>, shutdown: Shutdown) {
    let period = Duration::from_millis(desk.config.poll_period_ms);
    let log = Logs {
        store: LogLimit::new(Duration::from_secs(10)),
        gateway: LogLimit::new(Duration::from_secs(10)),
        dead: LogLimit::new(Duration::from_secs(10)),
    };
    let mut poll = tokio::time::interval(period);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let leases = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            _ = poll.tick() => desk.shards.held(),
            () = desk.shards.woken() => desk.shards.awake(),
        };
        futures::stream::iter(leases)
            .for_each_concurrent(SHARDS_AT_ONCE, |lease| {
                let (desk, log) = (&desk, &log);
                async move {
                    if let Err(error) = shard(desk, &lease, log).await {
                        desk.metrics.store_errors.inc();
                        if let Some(suppressed) = log.store.check() {
                            tracing::warn!(shard = lease.shard, %error, suppressed, "a shard cannot be worked on");
                        }
                    }
                }
            })
            .await;
    }
}

struct Logs {
    store: LogLimit,
    gateway: LogLimit,
    dead: LogLimit,
}

/// Works on one shard until it has nothing left for now.
async fn shard(desk: &Arc<Desk>, lease: &ShardLease, log: &Logs) -> Result<(), Error> {
    let batch = desk.config.batch_entries_max;
    loop {
        if desk.store_state() == StoreState::Unfit {
            // What is not durable must not be acted upon: a dial could be made twice.
            return Ok(());
        }
        let reports = if desk.links.any_owner() {
            batch.min(desk.reports.available_permits())
        } else {
            0
        };
        let limits = TakeLimits {
            ticks: batch,
            dials: batch.min(desk.gateways.dial_room()),
            reports,
        };
        let now = desk.now();
        let leased_until = now.plus(desk.rules.lease_ms);
        let again_at = now.plus(desk.config.report_retry_ms);
        let Some(taken) = desk
            .store
            .take(lease, now, leased_until, again_at, limits)
            .await?
        else {
            desk.shards.lost(lease.shard);
            return Ok(());
        };
        if !taken.ticks.is_empty() || !taken.dials.is_empty() {
            desk.faults.pass(Point::Taken).await;
        }
        note(desk, lease, &taken, log);
        // A report that finds no room waits for its next turn, as if it had got no answer.
        let is_rest = taken.ticks.len() >= limits.ticks
            || (limits.dials > 0 && taken.dials.len() >= limits.dials)
            || (limits.reports > 0 && taken.reports.len() >= limits.reports);
        for entry in taken.reports {
            report(desk, entry).await;
        }
        each(taken.ticks, |entry| tick(desk, lease, entry)).await?;
        let undialled = dial_all(desk, lease, taken.dials).await?;
        if !undialled.is_empty() {
            desk.store
                .put_back(
                    lease,
                    &undialled,
                    desk.now().plus(PUT_BACK_MS),
                    leased_until,
                )
                .await?;
            return Ok(());
        }
        if !is_rest {
            return Ok(());
        }
    }
}

fn note(desk: &Desk, lease: &ShardLease, taken: &Taken, log: &Logs) {
    if taken.dead > 0
        && let Some(suppressed) = log.dead.check()
    {
        tracing::error!(
            shard = lease.shard,
            count = taken.dead,
            suppressed,
            "entries without a record were put among the dead"
        );
    }
    if taken.waiting > 0
        && !desk.gateways.can_dial()
        && let Some(suppressed) = log.gateway.check()
    {
        tracing::warn!(
            shard = lease.shard,
            waiting = taken.waiting,
            suppressed,
            "callbacks are due and no gateway with a switch is linked, places are kept"
        );
    }
}

/// Handles entries at once, some at a time; the first error is given when all are done.
async fn each<F, Fut>(entries: Vec<Entry>, handle: F) -> Result<(), Error>
where
    F: Fn(Entry) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let results: Vec<Result<(), Error>> = futures::stream::iter(entries)
        .map(handle)
        .buffer_unordered(ENTRIES_AT_ONCE)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn tick(desk: &Desk, lease: &ShardLease, entry: Entry) -> Result<(), Error> {
    match entry {
        Ok(stored) => desk
            .change_stored(stored, Input::Tick, true)
            .await
            .map(|_| ()),
        Err(contact) => bury(desk, lease, contact).await,
    }
}

async fn bury(desk: &Desk, lease: &ShardLease, contact: ContactId) -> Result<(), Error> {
    tracing::error!(%contact, shard = lease.shard, "a record cannot be read, it was put among the dead");
    desk.store.bury(lease.shard, contact, desk.now()).await
}

/// Dials what can be dialled; gives what found no gateway.
async fn dial_all(
    desk: &Desk,
    lease: &ShardLease,
    entries: Vec<Entry>,
) -> Result<Vec<ContactId>, Error> {
    let results: Vec<Result<Option<ContactId>, Error>> = futures::stream::iter(entries)
        .map(|entry| async move {
            match entry {
                Ok(stored) => dial(desk, stored).await,
                Err(contact) => bury(desk, lease, contact).await.map(|()| None),
            }
        })
        .buffer_unordered(ENTRIES_AT_ONCE)
        .collect()
        .await;
    let mut undialled = Vec::new();
    for result in results {
        undialled.extend(result?);
    }
    Ok(undialled)
}

/// Dials one. `Some`: no gateway has room for it.
async fn dial(desk: &Desk, stored: Stored) -> Result<Option<ContactId>, Error> {
    let contact = stored.booking.contact;
    let Some(permit) = desk.gateways.reserve(&stored.booking.switch) else {
        return Ok(Some(contact));
    };
    let due_at = stored.booking.next_at();
    let Some((stored, outputs)) = desk.change_stored(stored, Input::Dial, true).await? else {
        return Ok(None);
    };
    for output in outputs {
        if let Output::Dial { attempt } = output {
            desk.faults.pass(Point::DialWritten).await;
            let booking = &stored.booking;
            let span = runtime::trace::span("callback", "dial", &booking.traceparent);
            let mut dial = proto::convert::callback::dial(
                booking,
                attempt,
                desk.rules.ring_ms,
                &permit.switch,
            );
            dial.traceparent = runtime::trace::forward(&span, &booking.traceparent);
            // Should the link break now, the dial may have gone out or not: it is not taken
            // back, and another is made only when its ring time and lease are over.
            permit.send(dial);
            let waited_ms = desk.now().since(due_at);
            desk.metrics
                .dial_wait_seconds
                .observe(Duration::from_millis(waited_ms).as_secs_f64());
            desk.faults.pass(Point::DialSent).await;
            return Ok(None);
        }
    }
    Ok(None)
}

/// Sends a report without waiting for its answer.
async fn report(desk: &Arc<Desk>, entry: Entry) {
    let Ok(stored) = entry else { return };
    let Ok(permit) = Arc::clone(&desk.reports).try_acquire_owned() else {
        desk.metrics.hit(Limit::ReportsInFlight);
        return;
    };
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        let _permit = permit;
        desk.send_report(stored).await;
    });
}

/// Registers bookings again wherever a pool has a new owner: routing's store may have lost
/// the last second before it was taken over, this one has not.
pub(crate) async fn recover_pools(desk: Arc<Desk>, shutdown: Shutdown) {
    let log = LogLimit::new(Duration::from_secs(10));
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = desk.links.owner_changed() => {}
            () = desk.shards.taken.notified() => {}
        }
        // Reports that waited for an owner are sent now.
        desk.shards.wake_all();
        let mut failed = false;
        for (pool, epoch) in desk.links.pools() {
            for lease in desk.shards.held() {
                if shutdown.is_requested() {
                    return;
                }
                if let Err(error) = recover(&desk, &lease, &pool, epoch).await {
                    failed = true;
                    if let Some(suppressed) = log.check() {
                        tracing::warn!(shard = lease.shard, pool, %error, suppressed, "bookings cannot be registered again yet");
                    }
                }
            }
        }
        if failed {
            tokio::time::sleep(Duration::from_secs(1)).await;
            desk.shards.taken.notify_one();
        }
    }
}

async fn recover(desk: &Desk, lease: &ShardLease, pool: &str, epoch: u64) -> Result<(), Error> {
    if desk
        .store
        .registered_epoch(lease.shard, pool)
        .await?
        .is_some_and(|registered| registered >= epoch)
    {
        return Ok(());
    }
    let mut cursor = 0;
    loop {
        let (next, contacts) = desk.store.scan_held(lease.shard, cursor).await?;
        let some = !contacts.is_empty();
        for contact in contacts {
            let Some(stored) = desk.store.load(lease.shard, contact).await? else {
                continue;
            };
            if stored.booking.pool == pool && stored.booking.state() == State::Booked {
                desk.change_stored(stored, Input::PoolRecovered, false)
                    .await?;
            }
        }
        if next == 0 {
            break;
        }
        cursor = next;
        if some {
            tokio::time::sleep(RECOVERY_PAUSE).await;
        }
    }
    desk.store
        .set_registered_epoch(lease.shard, pool, epoch)
        .await
}

/// Counts the bookings of this replica's shards for the metrics.
pub(crate) async fn count(desk: Arc<Desk>, shutdown: Shutdown) {
    loop {
        let mut totals = [0u64; 5];
        let mut complete = true;
        for lease in desk.shards.held() {
            match desk.store.counts(lease.shard).await {
                Ok(counts) => {
                    let all = [
                        counts.held,
                        counts.due,
                        counts.leased,
                        counts.dead,
                        counts.reports,
                    ];
                    for (total, count) in totals.iter_mut().zip(all) {
                        *total += count;
                    }
                }
                Err(_) => complete = false,
            }
        }
        if complete {
            let names = [
                SetName::Held,
                SetName::Due,
                SetName::Leased,
                SetName::Dead,
                SetName::Reports,
            ];
            for (name, total) in names.into_iter().zip(totals) {
                desk.metrics.set(name, total);
            }
        }
        let in_use = |semaphore: &tokio::sync::Semaphore, max: usize| {
            i64::try_from(max.saturating_sub(semaphore.available_permits())).unwrap_or(i64::MAX)
        };
        let changes = in_use(&desk.changes, desk.config.changes_in_flight_max);
        desk.metrics.limit_use(Limit::ChangesInFlight).set(changes);
        let reports = in_use(&desk.reports, desk.config.batch_entries_max * 4);
        desk.metrics.limit_use(Limit::ReportsInFlight).set(reports);
        let withdrawals = in_use(&desk.withdrawals, desk.config.requests_in_flight_max);
        desk.metrics.limit_use(Limit::Withdrawals).set(withdrawals);
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}
