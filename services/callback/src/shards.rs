//! The shards this replica works on, and who wakes it.
//!
//! Each replica takes its share of the shards, gives back what is beyond it when others
//! join, and takes what is free when others go. Work on a shard needs its lease; changes of
//! bookings do not: those are ordered by the record's revision. So a deposed leaseholder
//! that has not noticed can do no harm, only work for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use runtime::{Backoff, LogLimit, Shutdown};
use tokio::sync::Notify;

use crate::desk::Desk;
use crate::store::ShardLease;
use crate::store::keys::Shard;

/// Leases held, and shards with something to do.
#[derive(Clone, Default)]
pub(crate) struct Shards {
    held: Arc<Mutex<BTreeMap<Shard, ShardLease>>>,
    awake: Arc<Mutex<BTreeSet<Shard>>>,
    woken: Arc<Notify>,
    /// Told when a shard was taken.
    pub(crate) taken: Arc<Notify>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shards {
    /// A shard has something to do now.
    pub(crate) fn wake(&self, shard: Shard) {
        if locked(&self.held).contains_key(&shard) {
            locked(&self.awake).insert(shard);
            self.woken.notify_one();
        }
    }

    /// All of them may have.
    pub(crate) fn wake_all(&self) {
        let held: Vec<Shard> = locked(&self.held).keys().copied().collect();
        locked(&self.awake).extend(held);
        self.woken.notify_one();
    }

    /// Waits until a shard has something to do.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// The leases of the shards that were woken.
    pub(crate) fn awake(&self) -> Vec<ShardLease> {
        let awake = std::mem::take(&mut *locked(&self.awake));
        let held = locked(&self.held);
        awake
            .iter()
            .filter_map(|shard| held.get(shard).cloned())
            .collect()
    }

    /// All leases.
    pub(crate) fn held(&self) -> Vec<ShardLease> {
        locked(&self.held).values().cloned().collect()
    }

    fn insert(&self, lease: ShardLease) {
        let shard = lease.shard;
        let is_new = locked(&self.held).insert(shard, lease.clone()) != Some(lease);
        if is_new {
            self.wake(shard);
            self.taken.notify_one();
        }
    }

    /// The lease is another's.
    pub(crate) fn lost(&self, shard: Shard) {
        locked(&self.held).remove(&shard);
    }
}

/// Keeps this replica's share of the shards until drain, then gives them up.
pub(crate) async fn keep_share(desk: Arc<Desk>, shutdown: Shutdown) {
    let period = Duration::from_millis(desk.config.shard_lease_ms / 3);
    let log = LogLimit::new(Duration::from_secs(10));
    loop {
        if let Err(error) = balance(&desk).await {
            desk.metrics.store_errors.inc();
            if let Some(suppressed) = log.check() {
                tracing::warn!(%error, suppressed, "shard leases cannot be renewed");
            }
        }
        let held = i64::try_from(desk.shards.held().len()).unwrap_or(i64::MAX);
        desk.metrics.shards.set(held);
        tokio::select! {
            biased;
            () = shutdown.requested() => break,
            () = tokio::time::sleep(period) => {}
        }
    }
    for lease in desk.shards.held() {
        desk.shards.lost(lease.shard);
        if let Err(error) = desk.store.release(&lease).await {
            tracing::info!(shard = lease.shard, %error, "a shard was not given up, its lease will run out");
        }
    }
    if let Err(error) = desk
        .store
        .alive(&desk.instance, desk.config.shard_lease_ms, false)
        .await
    {
        tracing::info!(%error, "this replica could not say goodbye");
    }
    desk.metrics.shards.set(0);
}

async fn balance(desk: &Desk) -> Result<(), crate::store::Error> {
    let length_ms = desk.config.shard_lease_ms;
    let replicas = desk
        .store
        .alive(&desk.instance, length_ms, true)
        .await?
        .max(1);
    let share = usize::from(desk.config.shards).div_ceil(usize::try_from(replicas).unwrap_or(1));
    let held = desk.shards.held();
    let renewed: Vec<_> = futures::stream::iter(held.into_iter().enumerate())
        .map(|(index, lease)| async move {
            if index >= share {
                desk.shards.lost(lease.shard);
                return desk.store.release(&lease).await.map(|()| None);
            }
            let kept = desk
                .store
                .lease(lease.shard, &desk.instance, length_ms, false)
                .await?;
            if kept.is_none() {
                desk.shards.lost(lease.shard);
            }
            Ok(kept)
        })
        .buffer_unordered(16)
        .collect()
        .await;
    for kept in renewed {
        if let Some(lease) = kept? {
            desk.shards.insert(lease);
        }
    }
    let mut count = desk.shards.held().len();
    let start = rand::random_range(0..desk.config.shards);
    for offset in 0..desk.config.shards {
        if count >= share {
            break;
        }
        let shard = (start + offset) % desk.config.shards;
        let is_held = locked(&desk.shards.held).contains_key(&shard);
        if is_held {
            continue;
        }
        if let Some(lease) = desk
            .store
            .lease(shard, &desk.instance, length_ms, true)
            .await?
        {
            tracing::debug!(shard, epoch = lease.epoch, "took a shard");
            desk.shards.insert(lease);
            count += 1;
        }
    }
    Ok(())
}

/// Hears which shards have something to do, from whichever replica made it so. Losing a
/// message costs one poll period.
pub(crate) async fn listen(desk: Arc<Desk>, shutdown: Shutdown) {
    let mut backoff = Backoff::new(50, 2_000);
    loop {
        let heard = tokio::select! {
            biased;
            () = shutdown.closing() => return,
            heard = hear(&desk) => heard,
        };
        if let Err(error) = heard {
            tracing::debug!(%error, "not subscribed, polling until then");
        }
        tokio::select! {
            biased;
            () = shutdown.closing() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

async fn hear(desk: &Desk) -> Result<(), redis::RedisError> {
    let client = redis::Client::open(desk.config.redis_url.expose())?;
    let mut subscription = client.get_async_pubsub().await?;
    subscription
        .subscribe(desk.store.keys.wake_channel())
        .await?;
    let mut messages = subscription.into_on_message();
    while let Some(message) = messages.next().await {
        if let Ok(shard) = message.get_payload::<Shard>() {
            desk.shards.wake(shard);
        }
    }
    Ok(())
}
