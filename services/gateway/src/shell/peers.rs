//! Long-lived links to routing, intent and callback replicas.
//!
//! Every endpoint is resolved again and again, and each address found has one task that
//! keeps one link: connect, open the stream, hand frames both ways, and when it ends come
//! back with a growing delay. An address that is no longer named loses its task. So a
//! headless Service, or a list of hosts, is all the discovery there is.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::{callback, intent, routing};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{SINK_FRAMES, Sink, ToCore, Ways};
use crate::core::{Input, LinkId};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// One kind of peer.
pub(crate) trait Peer: Send + 'static {
    type Up: Send + 'static;
    type Down: Send + 'static;
    const ROLE: &'static str;
    /// The core may use the link before the peer has answered the opening: it waits for the
    /// peer's own first frame, or bears a loss at once.
    const OPENS_FIRST: bool;

    fn open(
        channel: Channel,
        up: ReceiverStream<Self::Up>,
    ) -> impl Future<Output = Result<Streaming<Self::Down>, Status>> + Send;
    fn sink(sender: mpsc::Sender<Self::Up>) -> Sink;
    fn up(link: LinkId) -> Input;
    fn frame(link: LinkId, frame: Self::Down) -> Input;
}

/// Routing.
pub(crate) struct Routing;
/// Intent.
pub(crate) struct Intent;
/// Callback.
pub(crate) struct Callback;

impl Peer for Routing {
    type Up = routing::v1::LinkRequest;
    type Down = routing::v1::LinkResponse;
    const ROLE: &'static str = "routing";
    const OPENS_FIRST: bool = true;

    async fn open(
        channel: Channel,
        up: ReceiverStream<Self::Up>,
    ) -> Result<Streaming<Self::Down>, Status> {
        let mut client = routing::v1::routing_service_client::RoutingServiceClient::new(channel)
            .max_decoding_message_size(PEER_FRAME_BYTES_MAX);
        client.link(up).await.map(tonic::Response::into_inner)
    }

    fn sink(sender: mpsc::Sender<Self::Up>) -> Sink {
        Sink::Routing(sender)
    }

    fn up(link: LinkId) -> Input {
        Input::RoutingUp { link }
    }

    fn frame(link: LinkId, frame: Self::Down) -> Input {
        Input::Routing { link, frame }
    }
}

impl Peer for Intent {
    type Up = intent::v1::LinkRequest;
    type Down = intent::v1::LinkResponse;
    const ROLE: &'static str = "intent";
    const OPENS_FIRST: bool = false;

    async fn open(
        channel: Channel,
        up: ReceiverStream<Self::Up>,
    ) -> Result<Streaming<Self::Down>, Status> {
        let mut client = intent::v1::intent_service_client::IntentServiceClient::new(channel)
            .max_decoding_message_size(PEER_FRAME_BYTES_MAX);
        client.link(up).await.map(tonic::Response::into_inner)
    }

    fn sink(sender: mpsc::Sender<Self::Up>) -> Sink {
        Sink::Intent(sender)
    }

    fn up(link: LinkId) -> Input {
        Input::IntentUp { link }
    }

    fn frame(link: LinkId, frame: Self::Down) -> Input {
        Input::Intent { link, frame }
    }
}

impl Peer for Callback {
    type Up = callback::v1::LinkRequest;
    type Down = callback::v1::LinkResponse;
    const ROLE: &'static str = "callback";
    const OPENS_FIRST: bool = true;

    async fn open(
        channel: Channel,
        up: ReceiverStream<Self::Up>,
    ) -> Result<Streaming<Self::Down>, Status> {
        let mut client = callback::v1::callback_service_client::CallbackServiceClient::new(channel)
            .max_decoding_message_size(PEER_FRAME_BYTES_MAX);
        client.link(up).await.map(tonic::Response::into_inner)
    }

    fn sink(sender: mpsc::Sender<Self::Up>) -> Sink {
        Sink::Callback(sender)
    }

    fn up(link: LinkId) -> Input {
        Input::CallbackUp { link }
    }

    fn frame(link: LinkId, frame: Self::Down) -> Input {
        Input::Callback { link, frame }
    }
}

/// A frame of 512 inputs of a few KiB, with room.
const PEER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What every link shares.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) ways: Ways,
    pub(crate) tls: runtime::TlsArgs,
    pub(crate) shutdown: runtime::Shutdown,
    pub(crate) tasks: TaskTracker,
    pub(crate) resolve_period: Duration,
}

/// Where a replica is: the name it is dialled by, and one address of it.
type Place = (String, SocketAddr);

impl Links {
    /// Keeps a link to every address that the endpoints stand for.
    pub(crate) fn keep<P: Peer>(&self, endpoints: &[String]) {
        let endpoints: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                endpoint
                    .trim()
                    .trim_start_matches("http://")
                    .trim_start_matches("https://")
            })
            .filter(|endpoint| !endpoint.is_empty())
            .map(str::to_owned)
            .collect();
        if endpoints.is_empty() {
            return;
        }
        let links = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = links.shutdown.closing() => {}
                () = links.watch::<P>(&endpoints) => {}
            }
        });
    }

    async fn watch<P: Peer>(&self, endpoints: &[String]) {
        let limit = Arc::new(runtime::LogLimit::new(Duration::from_secs(10)));
        let mut running: BTreeMap<Place, CancellationToken> = BTreeMap::new();
        loop {
            let mut found = BTreeSet::new();
            let mut unresolved = false;
            for endpoint in endpoints {
                match tokio::net::lookup_host(endpoint.as_str()).await {
                    Ok(addresses) => {
                        found.extend(addresses.map(|address| (endpoint.clone(), address)))
                    }
                    Err(error) => {
                        unresolved = true;
                        if let Some(suppressed) = limit.check() {
                            tracing::warn!(role = P::ROLE, endpoint, %error, suppressed, "an endpoint cannot be resolved");
                        }
                    }
                }
            }
            if !unresolved {
                // A name that does not resolve for a moment does not cost its links.
                running.retain(|place, stop| {
                    let stays = found.contains(place);
                    if !stays {
                        stop.cancel();
                    }
                    stays
                });
            }
            for place in found {
                running.entry(place.clone()).or_insert_with(|| {
                    let stop = CancellationToken::new();
                    let (links, limit, token) = (self.clone(), Arc::clone(&limit), stop.clone());
                    self.tasks.spawn(async move {
                        tokio::select! {
                            biased;
                            () = links.shutdown.closing() => {}
                            () = token.cancelled() => {}
                            () = links.stay_linked::<P>(&place, &limit) => {}
                        }
                    });
                    stop
                });
            }
            tokio::time::sleep(self.resolve_period).await;
        }
    }

    async fn stay_linked<P: Peer>(&self, place: &Place, limit: &runtime::LogLimit) {
        let mut backoff = runtime::Backoff::new(50, 2_000);
        loop {
            let link = self.ways.link();
            // The guard says that the link is closed however this future ends.
            let guard = Closing {
                link,
                ways: self.ways.clone(),
            };
            let ended = self.link::<P>(link, place, &mut backoff).await;
            drop(guard);
            let reason = ended.err().map_or_else(
                || "the stream ended".to_owned(),
                |error| format!("{error:#}"),
            );
            if let Some(suppressed) = limit.check() {
                tracing::warn!(role = P::ROLE, address = %place.1, reason, suppressed, "a peer is away");
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn link<P: Peer>(
        &self,
        link: LinkId,
        place: &Place,
        backoff: &mut runtime::Backoff,
    ) -> anyhow::Result<()> {
        let (name, address) = place.clone();
        let endpoint = runtime::grpc::endpoint(&name, &self.tls)?;
        let connector = tower::service_fn(move |_: http::Uri| async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        });
        let channel =
            tokio::time::timeout(CONNECT_WITHIN, endpoint.connect_with_connector(connector))
                .await??;
        let (sender, receiver) = mpsc::channel(SINK_FRAMES);
        let watch = sender.clone();
        let up = ToCore {
            sink: Some((link, P::sink(sender))),
            input: P::up(link),
        };
        let opening = P::open(channel, ReceiverStream::new(receiver));
        let mut inbound = if P::OPENS_FIRST {
            self.ways.fast.send(up).await?;
            opening.await?
        } else {
            let opened = opening.await?;
            self.ways.fast.send(up).await?;
            opened
        };
        loop {
            let frame = tokio::select! {
                biased;
                // The stream has let go of its requests: it is over.
                () = watch.closed() => return Ok(()),
                frame = inbound.message() => frame?,
            };
            let Some(frame) = frame else {
                return Ok(());
            };
            backoff.reset();
            self.ways
                .fast
                .send(ToCore {
                    sink: None,
                    input: P::frame(link, frame),
                })
                .await?;
        }
    }
}

/// Tells the core that a link is gone.
struct Closing {
    link: LinkId,
    ways: Ways,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let message = ToCore {
            sink: None,
            input: Input::Closed { link: self.link },
        };
        if let Err(mpsc::error::TrySendError::Full(message)) = self.ways.fast.try_send(message) {
            // The core is busy: it must hear it nevertheless.
            let fast = self.ways.fast.clone();
            tokio::spawn(async move {
                let _ = fast.send(message).await;
            });
        }
    }
}
