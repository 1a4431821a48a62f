//! A gateway that answers every request at once with a place in line, and acknowledges
//! every event: what is left is the cost of the messages themselves.

use std::net::SocketAddr;
use std::pin::Pin;

use proto::cti::v1 as cti;
use proto::cti::v1::call_control_service_server::{CallControlService, CallControlServiceServer};
use proto::cti::v1::monitoring_service_server::{MonitoringService, MonitoringServiceServer};
use proto::cti::v1::routing_dialogue_service_server::{
    RoutingDialogueService, RoutingDialogueServiceServer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo;

impl Echo {
    /// Serves on a free port until the task is dropped.
    pub(crate) async fn start() -> anyhow::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 21)
            .add_service(RoutingDialogueServiceServer::new(Self))
            .add_service(MonitoringServiceServer::new(Self))
            .add_service(CallControlServiceServer::new(Self))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the echo gateway ended");
            }
        });
        Ok((address, task))
    }
}

fn welcome() -> cti::Welcome {
    cti::Welcome {
        session_id: "echo".into(),
        acknowledged_event_seq: 0,
        snapshot_required: false,
        system_status_timer_ms: 60_000,
        session_cleanup_delay_ms: 60_000,
        initial_credit: 1_000_000,
    }
}

/// The answer to a request, as long as a real one.
fn answer(request: &cti::RouteRequest) -> cti::MeshDialogueMessage {
    let treatment = cti::QueueTreatment {
        queue: "accounts".into(),
        position: 1,
        expected_wait_ms: 600_000,
        expected_wait_low_ms: 300_000,
        expected_wait_high_ms: 900_000,
        offers: Vec::new(),
    };
    let select = cti::RouteSelect {
        cross_ref_id: request.cross_ref_id.clone(),
        route_selected: Some(cti::Device { id: "7105".into() }),
        correlator_data: bytes::Bytes::from_static(
            b"\x08\x01\x12\x10aaaaaaaaaaaaaaaa\x1a\x08tax-line",
        ),
        decision_id: "00000000-0000-8000-8000-000000000000/1".into(),
        treatment: Some(cti::route_select::Treatment::Queue(treatment)),
        ..Default::default()
    };
    cti::MeshDialogueMessage {
        body: Some(cti::mesh_dialogue_message::Body::Select(select)),
    }
}

#[tonic::async_trait]
impl RoutingDialogueService for Echo {
    type DialoguesStream = Answers<cti::DialoguesResponse>;

    async fn dialogues(
        &self,
        request: Request<Streaming<cti::DialoguesRequest>>,
    ) -> Result<Response<Self::DialoguesStream>, Status> {
        let mut link_seq = 0;
        let answers = request.into_inner().filter_map(move |frame| {
            let frame = match frame {
                Ok(frame) => frame,
                Err(status) => return Some(Err(status)),
            };
            let messages: Vec<_> = frame
                .messages
                .iter()
                .filter_map(|message| match &message.body {
                    Some(cti::switch_dialogue_message::Body::Request(request)) => {
                        Some(answer(request))
                    }
                    _ => None,
                })
                .collect();
            if messages.is_empty() && frame.hello.is_none() {
                return None;
            }
            link_seq += 1;
            let credit = messages.len() as u32;
            Some(Ok(cti::DialoguesResponse {
                link_seq,
                welcome: frame.hello.map(|_| welcome()),
                messages,
                credit,
            }))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl MonitoringService for Echo {
    type EventsStream = Answers<cti::EventsResponse>;

    async fn events(
        &self,
        request: Request<Streaming<cti::EventsRequest>>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let answers = request.into_inner().map(|frame| {
            let frame = frame?;
            let acknowledged_event_seq = frame.events.last().map_or(0, |event| event.event_seq);
            Ok(cti::EventsResponse {
                welcome: frame.hello.map(|_| welcome()),
                acknowledged_event_seq,
                ..Default::default()
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl CallControlService for Echo {
    type CommandsStream = Answers<cti::CommandsResponse>;

    async fn commands(
        &self,
        request: Request<Streaming<cti::CommandsRequest>>,
    ) -> Result<Response<Self::CommandsStream>, Status> {
        let (sender, answers) = mpsc::channel(1);
        let mut frames = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                let welcome = frame.hello.map(|_| welcome());
                if welcome.is_some()
                    && sender
                        .send(Ok(cti::CommandsResponse {
                            welcome,
                            commands: Vec::new(),
                        }))
                        .await
                        .is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
