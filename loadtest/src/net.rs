//! The switch's network: three streams to each gateway, kept open.
//!
//! One task a stream: it connects, tells the driver (which puts the hello into the new
//! channel), passes every frame on, tells of the loss, and connects again. The channel to
//! the wire is short on purpose: what does not fit waits in the switch, where it can still
//! be sent elsewhere. Dialogues, events and commands have connections of their own, so a
//! burst of events cannot delay an answer.

use std::time::Duration;

use proto::cti::v1 as cti;
use proto::cti::v1::call_control_service_client::CallControlServiceClient;
use proto::cti::v1::monitoring_service_client::MonitoringServiceClient;
use proto::cti::v1::routing_dialogue_service_client::RoutingDialogueServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::switch::{Frame, StreamKind};

/// Frames on their way to the wire, a stream.
const FRAMES_MAX: usize = 16;
/// Frames from all streams on their way to the driver.
const INBOUND_MAX: usize = 4096;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);

/// What the network tells the driver.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A stream is being opened: its first frame goes into the sender.
    Opening {
        node: usize,
        kind: StreamKind,
        generation: u64,
        sender: Sender,
    },
    /// A frame of dialogues.
    Dialogues(usize, cti::DialoguesResponse),
    /// A frame about events.
    Events(usize, cti::EventsResponse),
    /// A frame of commands.
    Commands(usize, cti::CommandsResponse),
    /// The stream is lost.
    Lost {
        node: usize,
        kind: StreamKind,
        generation: u64,
    },
}

/// The way to the wire.
#[derive(Debug)]
pub(crate) enum Sender {
    /// Of a dialogue stream.
    Dialogues(mpsc::Sender<cti::DialoguesRequest>),
    /// Of an event stream.
    Events(mpsc::Sender<cti::EventsRequest>),
    /// Of a command stream.
    Commands(mpsc::Sender<cti::CommandsRequest>),
}

impl Sender {
    /// There is room for a frame.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Dialogues(sender) => sender.capacity() > 0,
            Self::Events(sender) => sender.capacity() > 0,
            Self::Commands(sender) => sender.capacity() > 0,
        }
    }

    /// Sends a frame for which there is room. A frame for a stream that has just ended is
    /// dropped here; the loss is told, and what it carried is sent again.
    pub(crate) fn send(&self, frame: Frame) {
        match (self, frame) {
            (Self::Dialogues(sender), Frame::Dialogues(frame)) => drop(sender.try_send(frame)),
            (Self::Events(sender), Frame::Events(frame)) => drop(sender.try_send(frame)),
            (Self::Commands(sender), Frame::Commands(frame)) => drop(sender.try_send(frame)),
            _ => debug_assert!(false, "a frame of one stream for another"),
        }
    }
}

/// The streams; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Links {
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Links {
    /// Opens the streams to every node (`host:port`) and keeps them open.
    pub(crate) fn open(nodes: &[String]) -> anyhow::Result<(Self, mpsc::Receiver<Inbound>)> {
        let (inbound, receiver) = mpsc::channel(INBOUND_MAX);
        let mut tasks = Vec::new();
        for (node, address) in nodes.iter().enumerate() {
            for kind in StreamKind::ALL {
                let endpoint = endpoint(address)?;
                let inbound = inbound.clone();
                tasks.push(tokio::spawn(keep_open(node, kind, endpoint, inbound)));
            }
        }
        Ok((Self { tasks }, receiver))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A connection's settings.
pub(crate) fn endpoint(address: &str) -> anyhow::Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 21)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5)))
}

async fn keep_open(
    node: usize,
    kind: StreamKind,
    endpoint: Endpoint,
    inbound: mpsc::Sender<Inbound>,
) {
    let mut generation = 0;
    loop {
        if let Ok(channel) = endpoint.connect().await {
            generation += 1;
            let ended = match kind {
                StreamKind::Dialogues => dialogues(node, generation, channel, &inbound).await,
                StreamKind::Events => events(node, generation, channel, &inbound).await,
                StreamKind::Commands => commands(node, generation, channel, &inbound).await,
            };
            if let Err(status) = ended {
                tracing::debug!(node, ?kind, %status, "stream lost");
            }
            if inbound
                .send(Inbound::Lost {
                    node,
                    kind,
                    generation,
                })
                .await
                .is_err()
            {
                return;
            }
        }
        if inbound.is_closed() {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn dialogues(
    node: usize,
    generation: u64,
    channel: Channel,
    inbound: &mpsc::Sender<Inbound>,
) -> Result<(), tonic::Status> {
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    let sender = Sender::Dialogues(sender);
    tell(
        inbound,
        Inbound::Opening {
            node,
            kind: StreamKind::Dialogues,
            generation,
            sender,
        },
    )
    .await?;
    let mut client = RoutingDialogueServiceClient::new(channel);
    let mut stream = client
        .dialogues(ReceiverStream::new(frames))
        .await?
        .into_inner();
    while let Some(frame) = stream.message().await? {
        tell(inbound, Inbound::Dialogues(node, frame)).await?;
    }
    Ok(())
}

async fn events(
    node: usize,
    generation: u64,
    channel: Channel,
    inbound: &mpsc::Sender<Inbound>,
) -> Result<(), tonic::Status> {
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    let sender = Sender::Events(sender);
    tell(
        inbound,
        Inbound::Opening {
            node,
            kind: StreamKind::Events,
            generation,
            sender,
        },
    )
    .await?;
    let mut client = MonitoringServiceClient::new(channel);
    let mut stream = client
        .events(ReceiverStream::new(frames))
        .await?
        .into_inner();
    while let Some(frame) = stream.message().await? {
        tell(inbound, Inbound::Events(node, frame)).await?;
    }
    Ok(())
}

async fn commands(
    node: usize,
    generation: u64,
    channel: Channel,
    inbound: &mpsc::Sender<Inbound>,
) -> Result<(), tonic::Status> {
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    let sender = Sender::Commands(sender);
    tell(
        inbound,
        Inbound::Opening {
            node,
            kind: StreamKind::Commands,
            generation,
            sender,
        },
    )
    .await?;
    let mut client = CallControlServiceClient::new(channel);
    let mut stream = client
        .commands(ReceiverStream::new(frames))
        .await?
        .into_inner();
    while let Some(frame) = stream.message().await? {
        tell(inbound, Inbound::Commands(node, frame)).await?;
    }
    Ok(())
}

async fn tell(inbound: &mpsc::Sender<Inbound>, what: Inbound) -> Result<(), tonic::Status> {
    inbound
        .send(what)
        .await
        .map_err(|_| tonic::Status::cancelled("the run is over"))
}
