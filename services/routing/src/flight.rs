//! A commit on its way, sent again until Redis says what became of it; and the commits
//! before it, kept for a Redis that comes back without its last second.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::Backoff;

use crate::batch::Landed;
use crate::driver::Context;
use crate::store::{Commit, Committed, PoolStore};

/// Redis syncs its file each second, and puts a write off by up to two while a sync is
/// going on: what is older than this is on disk.
const KEEP: Duration = Duration::from_secs(6);

/// What became of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    Applied { outbox_events: u64 },
    Deposed { epoch: u64 },
    Gap { stored: u64 },
}

/// Commits on their way, and what is told when they have landed.
pub(crate) struct Flight {
    pub(crate) started: Instant,
    pub(crate) landed: Landed,
    sending: Pin<Box<dyn Future<Output = Landing> + Send>>,
}

impl Flight {
    /// Sends `commits` in order.
    pub(crate) fn new(
        context: &Arc<Context>,
        pool: &str,
        store: &PoolStore,
        commits: Vec<Arc<Commit>>,
        landed: Landed,
    ) -> Self {
        let sending = send(Arc::clone(context), pool.to_owned(), store.clone(), commits);
        Self {
            started: Instant::now(),
            landed,
            sending: Box::pin(sending),
        }
    }

    /// Waits for the flight's end; for ever if there is none. Cancel safe.
    pub(crate) async fn land(flight: &mut Option<Flight>) -> Landing {
        match flight {
            Some(flight) => flight.sending.as_mut().await,
            None => std::future::pending().await,
        }
    }
}

async fn send(
    context: Arc<Context>,
    pool: String,
    store: PoolStore,
    commits: Vec<Arc<Commit>>,
) -> Landing {
    let mut landing = Landing::Applied { outbox_events: 0 };
    for commit in commits {
        let mut backoff = Backoff::new(10, 200);
        landing = loop {
            match store.commit(&commit).await {
                Ok(Committed::Applied { outbox_events }) => {
                    break Landing::Applied { outbox_events };
                }
                Ok(Committed::Deposed { epoch }) => {
                    context.commits.ready();
                    return Landing::Deposed { epoch };
                }
                Ok(Committed::Gap { stored }) => return Landing::Gap { stored },
                Err(error) => {
                    context.metrics.commit_retries.inc();
                    context.commits.not_ready(format!("pool {pool}: {error}"));
                    if let Some(suppressed) = context.limit.check() {
                        tracing::warn!(pool, batch = commit.batch, %error, suppressed, "redis does not take commits, keeping what came");
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        };
    }
    context.commits.ready();
    landing
}

/// The last commits of an epoch.
#[derive(Debug)]
pub(crate) struct History {
    kept: VecDeque<(Instant, Arc<Commit>)>,
    bytes: usize,
    bytes_max: usize,
}

impl History {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Keeps a commit, and lets go of what is old or too much.
    pub(crate) fn keep(&mut self, commit: Arc<Commit>) {
        let now = Instant::now();
        self.bytes += commit.bytes;
        self.kept.push_back((now, commit));
        while self.kept.len() > 1 {
            let (kept_at, commit) = &self.kept[0];
            if self.bytes <= self.bytes_max && now.duration_since(*kept_at) < KEEP {
                break;
            }
            self.bytes -= commit.bytes;
            self.kept.pop_front();
        }
    }

    /// Every commit after `stored`, in order; `None`: they are not all here.
    pub(crate) fn after(&self, stored: u64) -> Option<Vec<Arc<Commit>>> {
        let (_, first) = self.kept.front()?;
        let (_, last) = self.kept.back()?;
        if first.batch > stored + 1 || last.batch <= stored {
            return None;
        }
        Some(
            self.kept
                .iter()
                .filter(|(_, commit)| commit.batch > stored)
                .map(|(_, commit)| Arc::clone(commit))
                .collect(),
        )
    }
}
