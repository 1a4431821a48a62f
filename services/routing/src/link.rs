//! The `Link` stream of each peer, and `GetPool`.
//!
//! A link task reads frames, checks each input by itself (a bad one is refused, the rest
//! go on), and hands inputs to their pools' inboxes in the order they came. When an inbox
//! is full it waits, and so stops reading: the peer's flow control does the rest, and the
//! peer's own deadline answers the caller. Replies come from the pools' drivers through
//! the peer's bounded queue.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use proto::routing::v1::routing_service_server::RoutingService;
use proto::routing::v1::{self, LinkRequest, LinkResponse};
use runtime::{Clock, LogLimit, Shutdown};
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::{Metrics, ReasonLabels};
use crate::owned::{OwnedPools, Ownership};
use crate::peers::{FrameQueue, Peers};
use crate::reader::Reader;

/// The service.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) shared: Arc<Shared>,
}

/// What all links share.
pub(crate) struct Shared {
    pub(crate) instance: String,
    pub(crate) clock: Clock,
    pub(crate) ownership: Ownership,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) peer_queue_messages: usize,
    pub(crate) peers_max: usize,
    pub(crate) shutdown: Shutdown,
    pub(crate) limit: LogLimit,
}

type Frames = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;

#[tonic::async_trait]
impl RoutingService for Links {
    type LinkStream = Frames;

    async fn link(
        &self,
        request: Request<Streaming<LinkRequest>>,
    ) -> Result<Response<Frames>, Status> {
        let shared = Arc::clone(&self.shared);
        if shared.peers.len() >= shared.peers_max {
            shared.refused("too_many_peers");
            return Err(Status::resource_exhausted(format!(
                "peers_max: {} are linked",
                shared.peers_max
            )));
        }
        let names = runtime::grpc::peer_names(&request);
        let queue = Arc::new(FrameQueue::new(
            shared.peer_queue_messages,
            Arc::clone(&shared.metrics),
        ));
        let (ended, end) = oneshot::channel();
        let reader = Reader {
            shared: Arc::clone(&shared),
            queue: Arc::clone(&queue),
            names,
        };
        tokio::spawn(reader.run(request.into_inner(), ended));
        Ok(Response::new(responses(shared, queue, end)))
    }

    async fn get_pool(
        &self,
        request: Request<v1::GetPoolRequest>,
    ) -> Result<Response<v1::GetPoolResponse>, Status> {
        let pool = request.into_inner().pool;
        let handle = self.shared.ownership.handle(&pool).ok_or_else(|| {
            Status::not_found(format!("this replica does not own pool {:?}", cut(&pool)))
        })?;
        let (asked, answered) = oneshot::channel();
        handle
            .status
            .try_send(asked)
            .map_err(|_| Status::resource_exhausted("too many questions at once"))?;
        let status = answered
            .await
            .map_err(|_| Status::unavailable("the pool was given up"))?;
        Ok(Response::new(status))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The stream down to the peer: ownership first and at each change, then what is queued.
fn responses(
    shared: Arc<Shared>,
    queue: Arc<FrameQueue>,
    end: oneshot::Receiver<Status>,
) -> Frames {
    struct State {
        shared: Arc<Shared>,
        queue: Arc<FrameQueue>,
        owned: watch::Receiver<OwnedPools>,
        end: oneshot::Receiver<Status>,
        ended: bool,
    }
    /// Ends the reader too when the peer drops the stream.
    impl Drop for State {
        fn drop(&mut self) {
            self.queue.gone.cancel();
        }
    }
    let mut owned = shared.ownership.watch();
    owned.mark_changed();
    let state = State {
        shared,
        queue,
        owned,
        end,
        ended: false,
    };
    Box::pin(futures::stream::unfold(state, |mut state| async move {
        loop {
            if state.ended {
                return None;
            }
            if state.owned.has_changed().unwrap_or(false) {
                let ownership = state
                    .owned
                    .borrow_and_update()
                    .frame(&state.shared.instance);
                return Some((
                    Ok(LinkResponse {
                        ownership: Some(ownership),
                        ..LinkResponse::default()
                    }),
                    state,
                ));
            }
            if let Some(frame) = state.queue.pop() {
                return Some((Ok(frame), state));
            }
            let (queue, shutdown) = (Arc::clone(&state.queue), state.shared.shutdown.clone());
            tokio::select! {
                // What is queued goes out before the end: the end comes last.
                _ = state.owned.changed() => state.owned.mark_changed(),
                () = queue.filled() => {}
                status = &mut state.end => {
                    state.ended = true;
                    if let Ok(status) = status {
                        return Some((Err(status), state));
                    }
                }
                () = shutdown.closing() => state.ended = true,
            }
        }
    }))
}

impl Shared {
    pub(crate) fn refused(&self, reason: &'static str) {
        self.metrics
            .peers_refused
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }
}
