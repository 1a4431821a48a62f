//! The pools this replica owns now, as its links see them.
//!
//! One `watch` channel carries both: where inputs of a pool go, and that every link must
//! tell its peer when the set changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::pool::Input;
use proto::routing::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;

use crate::peers::Peer;

/// One input on its way to its pool.
#[derive(Debug)]
pub(crate) struct PoolInput {
    /// Who gets the reply, and under which number; `None`: no reply.
    pub(crate) reply_to: Option<(Arc<Peer>, u64)>,
    pub(crate) input: Input,
    /// None where the contact is not traced.
    pub(crate) span: Span,
}

/// Where a pool's inputs go.
#[derive(Clone, Debug)]
pub(crate) struct PoolHandle {
    pub(crate) epoch: u64,
    pub(crate) inbox: mpsc::Sender<PoolInput>,
    pub(crate) status: mpsc::Sender<oneshot::Sender<v1::GetPoolResponse>>,
}

/// All pools owned.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedPools {
    pub(crate) pools: BTreeMap<String, PoolHandle>,
    pub(crate) draining: bool,
}

impl OwnedPools {
    /// As told to peers.
    pub(crate) fn frame(&self, replica_id: &str) -> v1::Ownership {
        v1::Ownership {
            replica_id: replica_id.to_owned(),
            pools: self
                .pools
                .iter()
                .map(|(pool, handle)| v1::OwnedPool {
                    pool: pool.clone(),
                    epoch: handle.epoch,
                })
                .collect(),
            draining: self.draining,
        }
    }
}

/// Changes the set.
#[derive(Clone, Debug)]
pub(crate) struct Ownership(Arc<watch::Sender<OwnedPools>>);

impl Ownership {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(OwnedPools::default())))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<OwnedPools> {
        self.0.subscribe()
    }

    pub(crate) fn announce(&self, pool: &str, handle: PoolHandle) {
        self.0.send_modify(|owned| {
            owned.pools.insert(pool.to_owned(), handle);
        });
    }

    pub(crate) fn withdraw(&self, pool: &str) {
        self.0
            .send_if_modified(|owned| owned.pools.remove(pool).is_some());
    }

    pub(crate) fn drain(&self) {
        self.0.send_modify(|owned| owned.draining = true);
    }

    pub(crate) fn handle(&self, pool: &str) -> Option<PoolHandle> {
        self.0.borrow().pools.get(pool).cloned()
    }
}
