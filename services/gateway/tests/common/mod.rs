//! Peers and a switch for the gateway's tests. The peers are doubles, because their faults
//! must happen exactly when a test says; the mesh with the real ones is tested as a whole.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use proto::callback::v1::callback_service_server::{CallbackService, CallbackServiceServer};
use proto::cti::v1::{
    CallRef, Device, DialoguesRequest, DialoguesResponse, EventsRequest, EventsResponse, Hello,
    RouteRequest, SwitchDialogueMessage, SwitchEvent, mesh_dialogue_message as mesh,
    monitoring_service_client::MonitoringServiceClient,
    routing_dialogue_service_client::RoutingDialogueServiceClient, switch_dialogue_message::Body,
};
use proto::intent::v1::intent_service_server::{IntentService, IntentServiceServer};
use proto::routing::v1::routing_service_server::{RoutingService, RoutingServiceServer};
use proto::{callback, intent, routing};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const LINE: &str = "8005550101";
pub(crate) const NUMBER: &str = "+12065551234";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a routing double does with what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers each route with an agent, acknowledges the rest.
    Prompt,
    /// Keeps silent.
    Silent,
}

#[derive(Debug)]
pub(crate) struct RoutingState {
    pub(crate) manner: Manner,
    pub(crate) inputs: Vec<routing::v1::Input>,
    pub(crate) waiting: Vec<u64>,
    pub(crate) wire: Vec<u8>,
    pub(crate) link: Option<mpsc::Sender<Result<routing::v1::LinkResponse, Status>>>,
    pub(crate) keep_inputs: bool,
}

/// A routing replica that owns every pool of the worked example.
#[derive(Clone, Debug)]
pub(crate) struct RoutingDouble(pub(crate) Arc<Mutex<RoutingState>>);

fn answer(request_id: u64) -> routing::v1::Reply {
    let agent = routing::v1::AgentAnswer {
        agent_id: "a1".to_owned(),
        device: "dev-a1".to_owned(),
        context: Some(routing::v1::Context::default()),
    };
    let body = routing::v1::answer::Body::Agent(agent);
    let answer = routing::v1::Answer {
        decision_id: format!("d{request_id}"),
        body: Some(body),
    };
    routing::v1::Reply {
        request_id,
        body: Some(routing::v1::reply::Body::Answer(answer)),
    }
}

fn acknowledge(request_id: u64) -> routing::v1::Reply {
    let body = routing::v1::reply::Body::Acknowledged(routing::v1::Acknowledged {});
    routing::v1::Reply {
        request_id,
        body: Some(body),
    }
}

impl RoutingDouble {
    pub(crate) fn new(manner: Manner) -> Self {
        Self(Arc::new(Mutex::new(RoutingState {
            manner,
            inputs: Vec::new(),
            waiting: Vec::new(),
            wire: Vec::new(),
            link: None,
            keep_inputs: true,
        })))
    }

    pub(crate) fn inputs(&self) -> Vec<routing::v1::Input> {
        self.0.lock().expect("lock").inputs.clone()
    }

    /// Answers everything that waits, and is prompt from now on.
    pub(crate) async fn wake(&self) {
        let (link, replies) = {
            let mut state = self.0.lock().expect("lock");
            state.manner = Manner::Prompt;
            let waiting = std::mem::take(&mut state.waiting);
            let asks = |request: &u64| {
                state.inputs.iter().any(|input| {
                    input.request_id == *request
                        && matches!(input.body, Some(routing::v1::input::Body::Route(_)))
                })
            };
            let replies: Vec<_> = waiting
                .iter()
                .map(|request| {
                    if asks(request) {
                        answer(*request)
                    } else {
                        acknowledge(*request)
                    }
                })
                .collect();
            (state.link.clone(), replies)
        };
        let frame = routing::v1::LinkResponse {
            replies,
            ..Default::default()
        };
        link.expect("linked").send(Ok(frame)).await.expect("open");
    }

    fn take(&self, frame: routing::v1::LinkRequest) -> Vec<routing::v1::Reply> {
        let mut state = self.0.lock().expect("lock");
        if state.keep_inputs {
            let bytes = frame.encode_to_vec();
            state.wire.extend(bytes);
        }
        let mut replies = Vec::with_capacity(frame.inputs.len());
        for input in frame.inputs {
            let is_route = matches!(input.body, Some(routing::v1::input::Body::Route(_)));
            match state.manner {
                Manner::Prompt if is_route => replies.push(answer(input.request_id)),
                Manner::Prompt => replies.push(acknowledge(input.request_id)),
                Manner::Silent => state.waiting.push(input.request_id),
            }
            if state.keep_inputs {
                state.inputs.push(input);
            }
        }
        replies
    }
}

#[tonic::async_trait]
impl RoutingService for RoutingDouble {
    type LinkStream = ReceiverStream<Result<routing::v1::LinkResponse, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<routing::v1::LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let (sender, receiver) = mpsc::channel(1_024);
        self.0.lock().expect("lock").link = Some(sender.clone());
        let double = self.clone();
        tokio::spawn(async move {
            let mut inbound = request.into_inner();
            let policy = domain::policy::Policy::worked_example();
            let pools = policy
                .pools
                .keys()
                .map(|pool| routing::v1::OwnedPool {
                    pool: pool.clone(),
                    epoch: 1,
                })
                .collect();
            let ownership = routing::v1::Ownership {
                replica_id: "double".to_owned(),
                pools,
                draining: false,
            };
            let first = routing::v1::LinkResponse {
                ownership: Some(ownership),
                ..Default::default()
            };
            if sender.send(Ok(first)).await.is_err() {
                return;
            }
            while let Ok(Some(frame)) = inbound.message().await {
                let replies = double.take(frame);
                if !replies.is_empty() {
                    let frame = routing::v1::LinkResponse {
                        replies,
                        ..Default::default()
                    };
                    if sender.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_pool(
        &self,
        _request: Request<routing::v1::GetPoolRequest>,
    ) -> Result<Response<routing::v1::GetPoolResponse>, Status> {
        Err(Status::unimplemented("a double"))
    }
}

/// An intent replica that knows one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntentDouble(pub(crate) Arc<Mutex<Vec<u8>>>);

#[tonic::async_trait]
impl IntentService for IntentDouble {
    type LinkStream = ReceiverStream<Result<intent::v1::LinkResponse, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<intent::v1::LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let (sender, receiver) = mpsc::channel(1_024);
        let seen = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut inbound = request.into_inner();
            while let Ok(Some(frame)) = inbound.message().await {
                if seen.lock().expect("lock").len() < 1_000_000 {
                    seen.lock().expect("lock").extend(frame.encode_to_vec());
                }
                let verdicts = frame.queries.into_iter().map(|query| intent::v1::Verdict {
                    query_id: query.query_id,
                    topic_id: "REF_STATUS".to_owned(),
                    confidence: 0.9,
                    decision: intent::v1::Decision::Topic.into(),
                    ..Default::default()
                });
                let frame = intent::v1::LinkResponse {
                    verdicts: verdicts.collect(),
                    ..Default::default()
                };
                if sender.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_model(
        &self,
        _request: Request<intent::v1::GetModelRequest>,
    ) -> Result<Response<intent::v1::GetModelResponse>, Status> {
        Err(Status::unimplemented("a double"))
    }
}

/// A callback replica that accepts everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallbackDouble(pub(crate) Arc<Mutex<(Vec<callback::v1::Request>, Vec<u8>)>>);

#[tonic::async_trait]
impl CallbackService for CallbackDouble {
    type LinkStream = ReceiverStream<Result<callback::v1::LinkResponse, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<callback::v1::LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let (sender, receiver) = mpsc::channel(1_024);
        let seen = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut inbound = request.into_inner();
            while let Ok(Some(frame)) = inbound.message().await {
                let mut responses = Vec::new();
                {
                    let mut seen = seen.lock().expect("lock");
                    seen.1.extend(frame.encode_to_vec());
                    for request in frame.requests {
                        let accepted = callback::v1::Accepted {
                            code: "123456".to_owned(),
                            ..Default::default()
                        };
                        let body = Some(callback::v1::response::Body::Accepted(accepted));
                        responses.push(callback::v1::Response {
                            request_id: request.request_id,
                            body,
                        });
                        seen.0.push(request);
                    }
                }
                if sender
                    .send(Ok(callback::v1::LinkResponse {
                        responses,
                        ..Default::default()
                    }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_booking(
        &self,
        _request: Request<callback::v1::GetBookingRequest>,
    ) -> Result<Response<callback::v1::GetBookingResponse>, Status> {
        Err(Status::unimplemented("a double"))
    }
}

/// The doubles, served, and a gateway that knows them.
pub(crate) struct Mesh {
    pub(crate) routing: RoutingDouble,
    pub(crate) intent: IntentDouble,
    pub(crate) callback: CallbackDouble,
    pub(crate) peers: SocketAddr,
    pub(crate) shutdown: runtime::Shutdown,
    pub(crate) running: runtime::Running,
}

impl Mesh {
    pub(crate) async fn start(manner: Manner, change: impl FnOnce(&mut gateway::Config)) -> Self {
        let (routing, intent, callback) = (
            RoutingDouble::new(manner),
            IntentDouble::default(),
            CallbackDouble::default(),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let peers = listener.local_addr().expect("bound");
        let server = Server::builder()
            .tcp_nodelay(true)
            .add_service(
                RoutingServiceServer::new(routing.clone()).max_decoding_message_size(64 << 20),
            )
            .add_service(
                IntentServiceServer::new(intent.clone()).max_decoding_message_size(64 << 20),
            )
            .add_service(CallbackServiceServer::new(callback.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let (shutdown, running) = Self::gateway(peers, change).await;
        let mesh = Self {
            routing,
            intent,
            callback,
            peers,
            shutdown,
            running,
        };
        mesh.wait_ready().await;
        mesh
    }

    pub(crate) async fn gateway(
        peers: SocketAddr,
        change: impl FnOnce(&mut gateway::Config),
    ) -> (runtime::Shutdown, runtime::Running) {
        let mut config = gateway::Config::for_test();
        config.routing_endpoints = vec![peers.to_string()];
        config.intent_endpoints = vec![peers.to_string()];
        config.callback_endpoints = vec![peers.to_string()];
        change(&mut config);
        let shutdown = runtime::Shutdown::new();
        let running = gateway::start(config, shutdown.clone())
            .await
            .expect("starts");
        (shutdown, running)
    }

    pub(crate) async fn wait_ready(&self) {
        let admin = self.running.admin;
        runtime::local::wait_until("the gateway is ready", PATIENCE, || async move {
            is_ready(admin).await
        })
        .await
        .expect("ready");
    }

    pub(crate) async fn switch(&self) -> Channel {
        connect(&self.running).await
    }
}

pub(crate) async fn connect(running: &runtime::Running) -> Channel {
    let address = running.grpc.expect("serves");
    Channel::from_shared(format!("http://{address}"))
        .expect("url")
        .tcp_nodelay(true)
        .connect()
        .await
        .expect("connects")
}

/// GET on the admin port.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(admin)
        .await
        .expect("admin port");
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

pub(crate) async fn is_ready(admin: SocketAddr) -> bool {
    get(admin, "/ready").await.starts_with("HTTP/1.1 200")
}

pub(crate) fn hello() -> Hello {
    Hello {
        switch_id: "sw1".to_owned(),
        boot_id: 7,
        ..Hello::default()
    }
}

pub(crate) fn request(cross_ref: &str) -> RouteRequest {
    RouteRequest {
        cross_ref_id: cross_ref.to_owned(),
        call: Some(CallRef {
            call_id: format!("call-{cross_ref}"),
            ..CallRef::default()
        }),
        current_route: Some(Device {
            id: LINE.to_owned(),
        }),
        calling_device: Some(Device {
            id: NUMBER.to_owned(),
        }),
        reply_timeout_ms: 5_000,
        language: "en".to_owned(),
        utterance: "where is my refund".to_owned(),
        ..RouteRequest::default()
    }
}

/// A stream of dialogues as the switch holds it.
pub(crate) struct Dialogues {
    pub(crate) up: mpsc::Sender<DialoguesRequest>,
    pub(crate) down: Streaming<DialoguesResponse>,
    pub(crate) link_seq: u64,
    pub(crate) last_received: u64,
    pub(crate) session: String,
}

impl Dialogues {
    pub(crate) async fn open(
        channel: Channel,
        hello: Hello,
        link_seq: u64,
    ) -> Result<Self, Status> {
        let (up, receiver) = mpsc::channel(1_024);
        let first = DialoguesRequest {
            link_seq,
            hello: Some(hello),
            messages: Vec::new(),
        };
        up.send(first).await.expect("room");
        let down = RoutingDialogueServiceClient::new(channel)
            .max_decoding_message_size(64 << 20)
            .dialogues(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut opened = Self {
            up,
            down,
            link_seq,
            last_received: 0,
            session: String::new(),
        };
        let frame = opened.frame().await?;
        opened.session = frame.welcome.expect("welcome").session_id;
        Ok(opened)
    }

    pub(crate) async fn frame(&mut self) -> Result<DialoguesResponse, Status> {
        let frame = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("a frame in time")?;
        let frame = frame.ok_or_else(|| Status::unavailable("the stream ended"))?;
        self.last_received = frame.link_seq;
        Ok(frame)
    }

    pub(crate) async fn say(&mut self, bodies: Vec<Body>) {
        self.link_seq += 1;
        let messages = bodies
            .into_iter()
            .map(|body| SwitchDialogueMessage { body: Some(body) })
            .collect();
        self.up
            .send(DialoguesRequest {
                link_seq: self.link_seq,
                hello: None,
                messages,
            })
            .await
            .expect("open");
    }

    /// The next messages that are not heartbeats, `count` of them.
    pub(crate) async fn hear(&mut self, count: usize) -> Vec<mesh::Body> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let frame = self.frame().await.expect("a frame");
            let bodies = frame
                .messages
                .into_iter()
                .filter_map(|message| message.body);
            heard.extend(bodies.filter(|body| !matches!(body, mesh::Body::Status(_))));
        }
        heard
    }
}

/// A stream of events as the switch holds it.
pub(crate) struct Events {
    pub(crate) up: mpsc::Sender<EventsRequest>,
    pub(crate) down: Streaming<EventsResponse>,
    pub(crate) acknowledged: u64,
}

impl Events {
    pub(crate) async fn open(channel: Channel) -> Self {
        let (up, receiver) = mpsc::channel(64);
        up.send(EventsRequest {
            hello: Some(hello()),
            events: Vec::new(),
        })
        .await
        .expect("room");
        let down = MonitoringServiceClient::new(channel)
            .events(ReceiverStream::new(receiver))
            .await
            .expect("opens")
            .into_inner();
        Self {
            up,
            down,
            acknowledged: 0,
        }
    }

    pub(crate) async fn tell(&self, events: Vec<SwitchEvent>) {
        self.up
            .send(EventsRequest {
                hello: None,
                events,
            })
            .await
            .expect("open");
    }

    pub(crate) async fn frame(&mut self) -> EventsResponse {
        let frame = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("a frame in time");
        let frame = frame.expect("no error").expect("not ended");
        self.acknowledged = frame.acknowledged_event_seq;
        frame
    }

    pub(crate) async fn acknowledged_up_to(&mut self, event_seq: u64) {
        while self.acknowledged < event_seq {
            self.frame().await;
        }
    }
}
