//! One link to one replica of routing, kept up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::ContactId;
use domain::callback::Input;
use proto::routing::v1;
use proto::routing::v1::routing_service_client::RoutingServiceClient;
use runtime::{Backoff, LogLimit, Shutdown};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tower::service_fn;

use super::{Linked, Message, QUEUE_MESSAGES};
use crate::desk::Desk;
use crate::faults::Point;

/// Messages of one frame to routing; its limit is 512.
const FRAME_MESSAGES_MAX: usize = 256;
/// Frames on their way to the transport.
const FRAMES: usize = 8;

/// Keeps the link until `stop` or the role's close.
pub(super) async fn keep(
    desk: Arc<Desk>,
    address: SocketAddr,
    host: String,
    stop: CancellationToken,
    shutdown: Shutdown,
) {
    let mut backoff = Backoff::new(50, 2_000);
    let log = LogLimit::new(Duration::from_secs(30));
    loop {
        let ended = tokio::select! {
            biased;
            () = shutdown.closing() => break,
            () = stop.cancelled() => break,
            ended = run(&desk, address, &host) => ended,
        };
        if desk.links.linked().remove(&address).is_some() {
            backoff.reset();
        }
        desk.metrics
            .routing_links
            .set(count(desk.links.linked().len()));
        if let Some(suppressed) = log.check() {
            let reason = match &ended {
                Ok(()) => "it closed the stream".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            tracing::info!(%address, reason, suppressed, "no link to routing, trying again");
        }
        tokio::select! {
            biased;
            () = shutdown.closing() => break,
            () = stop.cancelled() => break,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
    desk.links.linked().remove(&address);
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A channel to this very address, which must prove to be `host`.
fn channel(desk: &Desk, address: SocketAddr, host: &str) -> anyhow::Result<Channel> {
    let endpoint = runtime::grpc::endpoint(host, &desk.config.runtime.tls)?;
    let connector = service_fn(move |_: http::Uri| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// One life of the link.
async fn run(desk: &Arc<Desk>, address: SocketAddr, host: &str) -> anyhow::Result<()> {
    let channel = channel(desk, address, host)?;
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
    let (frames, frame_receiver) = mpsc::channel(FRAMES);
    let hello = v1::PeerHello {
        peer_id: desk.instance.clone(),
        role: v1::PeerRole::Callback.into(),
        attached_switches: Vec::new(),
    };
    let first = v1::LinkRequest {
        hello: Some(hello),
        ..v1::LinkRequest::default()
    };
    frames.send(first).await.context("a new channel has room")?;
    let mut client = RoutingServiceClient::new(channel.clone());
    let mut responses = client
        .link(ReceiverStream::new(frame_receiver))
        .await?
        .into_inner();
    let writer = tokio::spawn(write(receiver, frames));
    let _writer = AbortOnDrop(writer);
    let linked = Linked {
        pools: BTreeMap::new(),
        sender,
        channel,
        pending: BTreeMap::new(),
        last_request: 0,
    };
    desk.links.linked().insert(address, linked);
    desk.metrics
        .routing_links
        .set(count(desk.links.linked().len()));
    while let Some(response) = responses.message().await? {
        desk.faults.gate().await;
        take(desk, address, response).await;
    }
    Ok(())
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Frames what waits: as much as there is, never waiting for more.
async fn write(mut receiver: mpsc::Receiver<Message>, frames: mpsc::Sender<v1::LinkRequest>) {
    let mut messages = Vec::with_capacity(FRAME_MESSAGES_MAX);
    while receiver.recv_many(&mut messages, FRAME_MESSAGES_MAX).await > 0 {
        let mut frame = v1::LinkRequest::default();
        for message in messages.drain(..) {
            match message {
                Message::Report(input) => frame.inputs.push(*input),
                Message::Acknowledgement(one) => frame.notice_acknowledgements.push(one),
            }
        }
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// Takes a frame of routing.
async fn take(desk: &Arc<Desk>, address: SocketAddr, response: v1::LinkResponse) {
    if let Some(ownership) = response.ownership {
        owned(desk, address, ownership);
    }
    if !response.replies.is_empty() {
        let mut linked = desk.links.linked();
        if let Some(link) = linked.get_mut(&address) {
            for reply in response.replies {
                if let (Some(waiting), Some(body)) =
                    (link.pending.remove(&reply.request_id), reply.body)
                {
                    // Nobody waits any more if the wait timed out just now.
                    let _ = waiting.send(body);
                }
            }
        }
    }
    for due in response.virtual_due {
        // The permit is taken here: while all are out, the link is not read.
        let permit = desk.change_permit().await;
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            let _permit = permit;
            turn(&desk, due).await;
        });
    }
    for notice in response.notices {
        let permit = desk.change_permit().await;
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            let _permit = permit;
            notified(&desk, address, notice).await;
        });
    }
}

fn owned(desk: &Desk, address: SocketAddr, ownership: v1::Ownership) {
    let pools: BTreeMap<String, u64> = ownership
        .pools
        .into_iter()
        .map(|owned| (owned.pool, owned.epoch))
        .collect();
    let mut linked = desk.links.linked();
    let Some(link) = linked.get_mut(&address) else {
        return;
    };
    let is_news = pools
        .iter()
        .any(|(pool, epoch)| link.pools.get(pool) != Some(epoch));
    tracing::debug!(%address, replica = ownership.replica_id, pools = pools.len(), "routing announced its pools");
    link.pools = pools;
    drop(linked);
    if is_news {
        desk.links.owned.notify_one();
    }
}

async fn turn(desk: &Desk, due: v1::VirtualDue) {
    let Ok(contact) = ContactId::from_bytes(&due.contact_id) else {
        desk.metrics.invalid_messages.inc();
        return;
    };
    desk.faults.pass(Point::TurnReceived).await;
    let span = runtime::trace::span("callback", "virtual turn", &due.traceparent);
    let traceparent = match runtime::trace::is_valid(&due.traceparent) {
        true => runtime::trace::forward(&span, &due.traceparent),
        false => String::new(),
    };
    let input = Input::Turn {
        turn: due.turn,
        traceparent,
    };
    match desk.change_persistently(contact, input).await {
        Ok(Some(_)) => {}
        Ok(None) => tracing::debug!(%contact, turn = due.turn, "a turn for no booking"),
        Err(error) => desk.store_failed(&error),
    }
}

async fn notified(desk: &Desk, address: SocketAddr, notice: v1::CallbackNotice) {
    let parsed = ContactId::from_bytes(&notice.contact_id)
        .and_then(|contact| Ok((contact, proto::convert::callback::notice_kind(notice.kind)?)));
    let Ok((contact, kind)) = parsed else {
        desk.metrics.invalid_messages.inc();
        return;
    };
    desk.faults.pass(Point::NoticeReceived).await;
    // A notice about a contact without a booking is acknowledged too: nothing will ever be
    // known of it here, and routing would repeat it for ever.
    if let Err(error) = desk
        .change(
            contact,
            Input::Notice {
                kind,
                turn: notice.turn,
            },
        )
        .await
    {
        desk.store_failed(&error);
        return;
    }
    desk.faults.pass(Point::NoticeWritten).await;
    let acknowledgement = v1::NoticeAcknowledgement {
        pool: notice.pool,
        contact_id: notice.contact_id,
        kind: notice.kind,
        turn: notice.turn,
    };
    desk.links.acknowledge(address, acknowledgement).await;
}
