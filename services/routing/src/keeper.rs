//! Competes for one pool, and drives it while it is ours.
//!
//! Every replica competes for every pool of its policy: a free one goes to who asks
//! first, after a small random delay so that pools spread. A crashed owner's pool is free
//! when its lease has run out; one that was given up is free at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use domain::policy::Policy;
use domain::pool::{AgentRecord, ContactRecord, MetaRecord, Outputs, Pool};
use domain::{AgentId, ContactId, TimeMs};
use runtime::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::driver::{Context, Driver, Ended};
use crate::lease::{self, Lease};
use crate::store::{Acquired, Loaded, PoolStore};

/// Asks for a held pool this often: what a planned hand-over costs at most.
const ASK_EVERY_MS: u64 = 50;
/// After a pool that could not be loaded.
const UNLOADABLE: Duration = Duration::from_secs(5);

/// One pool, wanted.
pub(crate) struct Keeper {
    pub(crate) context: Arc<Context>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) pool: String,
    pub(crate) store: PoolStore,
    pub(crate) lease_ms: u64,
}

impl Keeper {
    /// Competes and drives until told to stop; then the pool is given up.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(20, 500);
        let mut delay = Duration::from_millis(rand::random_range(0..ASK_EVERY_MS));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            let asked_at = Instant::now();
            delay = match self.store.acquire().await {
                Ok(Acquired::Held { owner }) => {
                    self.context.redis.ready();
                    backoff.reset();
                    tracing::trace!(pool = self.pool, owner, "held by another replica");
                    Duration::from_millis(rand::random_range(
                        ASK_EVERY_MS / 2..ASK_EVERY_MS * 3 / 2,
                    ))
                }
                Ok(Acquired::New { epoch }) => {
                    self.context.redis.ready();
                    backoff.reset();
                    match self.own(epoch, asked_at, &stop).await {
                        Ok(Ended::Stopped) => return,
                        Ok(Ended::Deposed) => {
                            self.context.metrics.deposed.inc();
                            Duration::from_millis(rand::random_range(0..ASK_EVERY_MS))
                        }
                        Err(error) => {
                            self.context
                                .redis
                                .not_ready(format!("loading pool {}: {error:#}", self.pool));
                            tracing::error!(
                                pool = self.pool,
                                epoch,
                                error = format!("{error:#}"),
                                "the pool cannot be loaded"
                            );
                            self.release(epoch).await;
                            UNLOADABLE
                        }
                    }
                }
                Err(error) => {
                    self.context
                        .redis
                        .not_ready(format!("asking for pool {}: {error}", self.pool));
                    if let Some(suppressed) = self.context.limit.check() {
                        tracing::warn!(pool = self.pool, %error, suppressed, "redis is away, no pool can be owned");
                    }
                    backoff.next_delay()
                }
            };
        }
    }

    /// Loads the pool and drives it.
    async fn own(
        &self,
        epoch: u64,
        asked_at: Instant,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let (told, lease) = watch::channel(Lease::Held);
        let keeping = tokio::spawn(lease::keep(
            Arc::clone(&self.context),
            self.store.clone(),
            epoch,
            self.lease_ms,
            asked_at,
            told,
        ));
        let loaded = self.store.load().await.context("reading it")?;
        let driver = self.restore(epoch, loaded)?;
        let ended = driver.run(lease, stop.clone()).await;
        keeping.abort();
        if ended == Ended::Stopped {
            self.release(epoch).await;
        }
        Ok(ended)
    }

    fn restore(&self, epoch: u64, loaded: Loaded) -> anyhow::Result<Driver> {
        let start = Instant::now();
        let mut contacts = Vec::with_capacity(loaded.contacts.len());
        for (id, record) in &loaded.contacts {
            let id = contact_id(id)?;
            let record: ContactRecord =
                rmp_serde::from_slice(record).with_context(|| format!("record of contact {id}"))?;
            contacts.push((id, record));
        }
        let mut agents = Vec::with_capacity(loaded.agents.len());
        for (id, record) in &loaded.agents {
            let id = AgentId::parse(std::str::from_utf8(id).context("an agent's id")?)?;
            let record: AgentRecord =
                rmp_serde::from_slice(record).with_context(|| format!("record of agent {id}"))?;
            agents.push((id, record));
        }
        let meta: MetaRecord = match &loaded.meta {
            Some(record) => rmp_serde::from_slice(record).context("the pool's own record")?,
            None => MetaRecord::default(),
        };
        let known: HashSet<ContactId> = contacts.iter().map(|(id, _)| *id).collect();
        let now = self.context.clock.now().max(loaded.now);
        let mut outputs = Outputs::new();
        let (contact_count, agent_count) = (contacts.len(), agents.len());
        let policy = Arc::clone(&self.policy);
        let pool = Pool::restore(
            policy,
            &self.pool,
            now,
            contacts,
            agents,
            meta,
            &mut outputs,
        );
        tracing::info!(
            pool = self.pool,
            epoch,
            contacts = contact_count,
            agents = agent_count,
            restore_ms = start.elapsed().as_millis(),
            "pool owned"
        );
        let context = Arc::clone(&self.context);
        Ok(Driver::new(
            context,
            pool,
            self.store.clone(),
            epoch,
            TimeMs(loaded.now.0),
            known,
            outputs,
        ))
    }

    /// Gives the pool up, so that another replica need not wait for the lease's end.
    async fn release(&self, epoch: u64) {
        match self.store.release(epoch).await {
            Ok(_) => tracing::info!(pool = self.pool, epoch, "pool given up"),
            Err(error) => {
                tracing::warn!(pool = self.pool, epoch, %error, "pool not given up, its lease will run out");
            }
        }
    }
}

/// A contact's id from its text.
fn contact_id(text: &[u8]) -> anyhow::Result<ContactId> {
    let hexadecimal: String = std::str::from_utf8(text)
        .context("a contact's id")?
        .chars()
        .filter(|character| *character != '-')
        .collect();
    anyhow::ensure!(
        hexadecimal.len() == 32,
        "a contact's id has {} digits, not 32",
        hexadecimal.len()
    );
    let value = u128::from_str_radix(&hexadecimal, 16).context("a contact's id")?;
    Ok(ContactId(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contacts_id_survives_its_text() {
        let id = ContactId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(contact_id(id.to_string().as_bytes()).expect("good"), id);
        assert!(contact_id(b"0123").is_err());
        assert!(contact_id(b"zz23456789abcdef0123456789abcdef").is_err());
    }
}
