//! Links to routing: one a replica, each announcing the pools it owns.
//!
//! A report goes to the announced owner with the highest epoch; if it is not acknowledged
//! it is sent again later by whoever leases the shard then. What routing says (turns,
//! notices) is handed to the desk, and a notice is acknowledged only when that is durable.

mod link;
mod resolve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::routing::v1;
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::transport::Channel;

pub(crate) use resolve::follow_endpoints;

/// A report that was not answered within this is as good as lost: it is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Messages that may wait for one replica.
const QUEUE_MESSAGES: usize = 8_192;

/// What became of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Routing holds it durably.
    Acknowledged,
    /// It is nonsense to routing.
    Refused {
        /// The field at fault.
        field: String,
        /// The limit broken.
        limit: String,
    },
    /// The replica does not own the pool after all.
    NotOwner,
    /// No owner is known, its queue is full, or it did not answer in time.
    NoAnswer,
}

/// A message to a replica.
#[derive(Debug)]
enum Message {
    Report(Box<v1::Input>),
    Acknowledgement(v1::NoticeAcknowledgement),
}

/// One link that is up.
#[derive(Debug)]
struct Linked {
    pools: BTreeMap<String, u64>,
    sender: mpsc::Sender<Message>,
    channel: Channel,
    pending: BTreeMap<u64, oneshot::Sender<v1::reply::Body>>,
    last_request: u64,
}

/// All links. Locked for a few look-ups, never across an await.
#[derive(Clone, Default)]
pub(crate) struct Links {
    linked: Arc<Mutex<BTreeMap<SocketAddr, Linked>>>,
    /// Told when a pool has a (new) owner.
    owned: Arc<Notify>,
}

impl Links {
    fn linked(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Linked>> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a pool has a new owner.
    pub(crate) async fn owner_changed(&self) {
        self.owned.notified().await;
    }

    /// The owned pools, with the highest epoch announced for each.
    pub(crate) fn pools(&self) -> BTreeMap<String, u64> {
        let mut pools = BTreeMap::new();
        for link in self.linked().values() {
            for (pool, epoch) in &link.pools {
                let highest = pools.entry(pool.clone()).or_insert(*epoch);
                *highest = (*highest).max(*epoch);
            }
        }
        pools
    }

    /// Whether any pool has an owner.
    pub(crate) fn any_owner(&self) -> bool {
        self.linked().values().any(|link| !link.pools.is_empty())
    }

    /// The channel to a pool's owner, for asking about it.
    pub(crate) fn channel(&self, pool: &str) -> Option<Channel> {
        let linked = self.linked();
        let address = owner(&linked, pool)?;
        linked.get(&address).map(|link| link.channel.clone())
    }

    /// Sends a report to the owner of a pool and waits for its reply.
    pub(crate) async fn send(&self, pool: &str, mut input: v1::Input) -> Sent {
        let (reply, replied) = oneshot::channel();
        let (address, request) = {
            let mut linked = self.linked();
            let Some(address) = owner(&linked, pool) else {
                return Sent::NoAnswer;
            };
            let Some(link) = linked.get_mut(&address) else {
                return Sent::NoAnswer;
            };
            link.last_request += 1;
            let request = link.last_request;
            input.request_id = request;
            if link
                .sender
                .try_send(Message::Report(Box::new(input)))
                .is_err()
            {
                return Sent::NoAnswer;
            }
            link.pending.insert(request, reply);
            (address, request)
        };
        let answered = tokio::time::timeout(ANSWER_WITHIN, replied).await;
        match answered {
            Ok(Ok(v1::reply::Body::Acknowledged(_))) => Sent::Acknowledged,
            Ok(Ok(v1::reply::Body::Refused(refused))) => Sent::Refused {
                field: refused.field,
                limit: refused.limit,
            },
            Ok(Ok(v1::reply::Body::NotOwner(_))) => {
                self.disown(address, pool);
                Sent::NotOwner
            }
            // An answer to what was no question: as if it had not come.
            Ok(Ok(v1::reply::Body::Answer(_))) | Ok(Err(_)) => Sent::NoAnswer,
            Err(_) => {
                if let Some(link) = self.linked().get_mut(&address) {
                    link.pending.remove(&request);
                }
                Sent::NoAnswer
            }
        }
    }

    /// The replica is not the owner, whatever it announced last.
    fn disown(&self, address: SocketAddr, pool: &str) {
        if let Some(link) = self.linked().get_mut(&address) {
            link.pools.remove(pool);
        }
    }

    /// Acknowledges a notice, on the link on which it came. If that is down the notice comes
    /// again.
    async fn acknowledge(&self, address: SocketAddr, acknowledgement: v1::NoticeAcknowledgement) {
        let sender = self.linked().get(&address).map(|link| link.sender.clone());
        if let Some(sender) = sender {
            // A link that went down meanwhile: the notice is repeated on the next one.
            let _ = sender.send(Message::Acknowledgement(acknowledgement)).await;
        }
    }
}

fn owner(linked: &BTreeMap<SocketAddr, Linked>, pool: &str) -> Option<SocketAddr> {
    let owners = linked
        .iter()
        .filter_map(|(address, link)| Some((link.pools.get(pool)?, address)));
    owners.max().map(|(_, address)| *address)
}
