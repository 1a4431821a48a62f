//! Routing as callback sees it: acknowledges reports, gives turns, tells notices until they
//! are acknowledged. It keeps count of what it heard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::routing::v1;
use proto::routing::v1::input::Body;
use proto::routing::v1::routing_service_server::{RoutingService, RoutingServiceServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const POOL: &str = "tax";
const REPEAT: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Line,
    Due,
    Live,
    Missed,
    Done,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) turn: u32,
    pub(crate) reports: Vec<(u32, Body)>,
    pub(crate) repeats: u32,
    pub(crate) next_at_ms: u64,
    pub(crate) ends: Vec<i32>,
    pub(crate) notice: Option<(i32, u32)>,
    told_at: Instant,
    dialled: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) entries: BTreeMap<Bytes, Entry>,
    pub(crate) faults: Vec<String>,
    links: Vec<mpsc::Sender<Result<v1::LinkResponse, Status>>>,
    /// Gives turns by itself as soon as an entry stands in line.
    gives_turns: bool,
    /// Answers reports.
    answers: bool,
    refuses_registrations: bool,
    epoch: u64,
    agents: u32,
}

#[derive(Clone)]
pub(crate) struct Routing {
    model: Arc<Mutex<Model>>,
    pub(crate) address: SocketAddr,
}

struct Server(Arc<Mutex<Model>>);

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500 million")
}

impl Routing {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let model = Model {
            gives_turns: true,
            answers: true,
            epoch: 1,
            agents: 10,
            ..Model::default()
        };
        let model = Arc::new(Mutex::new(model));
        let service = RoutingServiceServer::new(Server(Arc::clone(&model)));
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let routing = Self { model, address };
        tokio::spawn(routing.clone().repeat());
        routing
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("no test panics with it")
    }

    pub(crate) fn give_turns(&self, gives_turns: bool) {
        self.model().gives_turns = gives_turns;
    }

    pub(crate) fn answer(&self, answers: bool) {
        self.model().answers = answers;
    }

    pub(crate) fn refuse_registrations(&self) {
        self.model().refuses_registrations = true;
    }

    /// Another owner, whose store lost everything.
    pub(crate) async fn forget(&self) {
        let links = {
            let mut model = self.model();
            model.entries.clear();
            model.epoch += 1;
            model.links.clone()
        };
        let ownership = self.model().ownership();
        for link in links {
            let frame = v1::LinkResponse {
                ownership: Some(ownership.clone()),
                ..v1::LinkResponse::default()
            };
            let _ = link.send(Ok(frame)).await;
        }
    }

    /// The caller is on the line, and asks for a person.
    pub(crate) fn answered(&self, contact: &Bytes) {
        if let Some(entry) = self.model().entries.get_mut(contact) {
            entry.place = Place::Live;
        }
    }

    /// What becomes of the caller, told until acknowledged.
    pub(crate) fn notice(&self, contact: &Bytes, kind: v1::CallbackNoticeKind) {
        if let Some(entry) = self.model().entries.get_mut(contact) {
            entry.notice = Some((kind.into(), entry.turn));
            entry.place = match kind {
                v1::CallbackNoticeKind::LegLost => Place::Missed,
                _ => Place::Done,
            };
            entry.next_at_ms = now_ms() + 100;
            entry.told_at = Instant::now() - REPEAT;
        }
    }

    pub(crate) fn ends(&self, contact: &Bytes) -> Vec<i32> {
        self.model()
            .entries
            .get(contact)
            .map_or_else(Vec::new, |entry| entry.ends.clone())
    }

    pub(crate) fn has(&self, contact: &Bytes) -> bool {
        self.model().entries.contains_key(contact)
    }

    async fn repeat(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let frames = self.model().due();
            for (link, frame) in frames {
                let _ = link.send(Ok(frame)).await;
            }
        }
    }
}

impl Model {
    fn ownership(&self) -> v1::Ownership {
        v1::Ownership {
            replica_id: "routing-played".to_owned(),
            pools: vec![v1::OwnedPool {
                pool: POOL.to_owned(),
                epoch: self.epoch,
            }],
            draining: false,
        }
    }

    /// Turns and notices to tell now, each to one link.
    fn due(
        &mut self,
    ) -> Vec<(
        mpsc::Sender<Result<v1::LinkResponse, Status>>,
        v1::LinkResponse,
    )> {
        self.links.retain(|link| !link.is_closed());
        let Some(link) = self.links.last().cloned() else {
            return Vec::new();
        };
        let mut frame = v1::LinkResponse::default();
        for (contact, entry) in &mut self.entries {
            if entry.place == Place::Missed && entry.next_at_ms != 0 && now_ms() >= entry.next_at_ms
            {
                entry.place = Place::Line;
            }
            if entry.place == Place::Line && self.gives_turns {
                entry.place = Place::Due;
                entry.turn += 1;
                entry.dialled = false;
                entry.told_at = Instant::now() - REPEAT;
            }
            if entry.told_at.elapsed() < REPEAT {
                continue;
            }
            if entry.place == Place::Due && !entry.dialled {
                entry.told_at = Instant::now();
                frame.virtual_due.push(v1::VirtualDue {
                    pool: POOL.to_owned(),
                    contact_id: contact.clone(),
                    agent_held: false,
                    turn: entry.turn,
                    traceparent: String::new(),
                });
            }
            if let Some((kind, turn)) = entry.notice {
                entry.told_at = Instant::now();
                frame.notices.push(v1::CallbackNotice {
                    pool: POOL.to_owned(),
                    contact_id: contact.clone(),
                    kind,
                    turn,
                });
            }
        }
        if frame.virtual_due.is_empty() && frame.notices.is_empty() {
            Vec::new()
        } else {
            vec![(link, frame)]
        }
    }

    /// Takes a report as the pool does: repeats are dropped by their number.
    fn take(&mut self, contact: &Bytes, body: Body) {
        let sequence = match &body {
            Body::RegisterVirtual(report) => report.report_sequence,
            Body::CallbackProgress(report) => report.report_sequence,
            Body::CancelVirtual(report) => report.report_sequence,
            other => {
                self.faults.push(format!("callback sent {other:?}"));
                return;
            }
        };
        let is_registration = matches!(body, Body::RegisterVirtual(_));
        if !is_registration && !self.entries.contains_key(contact) {
            return;
        }
        let entry = self
            .entries
            .entry(contact.clone())
            .or_insert_with(|| Entry {
                place: Place::Line,
                turn: 0,
                reports: Vec::new(),
                repeats: 0,
                next_at_ms: 0,
                ends: Vec::new(),
                notice: None,
                told_at: Instant::now() - REPEAT,
                dialled: false,
            });
        let last = entry.reports.last().map_or(0, |(sequence, _)| *sequence);
        if sequence <= last {
            entry.repeats += 1;
            return;
        }
        if last != 0 && sequence != last + 1 {
            self.faults
                .push(format!("report {sequence} came after {last}"));
        }
        match &body {
            Body::CallbackProgress(report) => {
                let step = v1::CallbackStep::try_from(report.step).expect("a step");
                match step {
                    v1::CallbackStep::Dialled | v1::CallbackStep::Answered => entry.dialled = true,
                    _ if matches!(entry.place, Place::Due | Place::Line | Place::Missed) => {
                        entry.place = Place::Missed;
                        entry.next_at_ms = report.next_at_ms;
                    }
                    _ => {}
                }
            }
            Body::CancelVirtual(report) => {
                entry.ends.push(report.end);
                entry.place = Place::Done;
            }
            _ => {}
        }
        entry.reports.push((sequence, body));
    }
}

#[tonic::async_trait]
impl RoutingService for Server {
    type LinkStream = ReceiverStream<Result<v1::LinkResponse, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<v1::LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut frames = request.into_inner();
        let (sender, receiver) = mpsc::channel(64);
        let model = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                let mut response = v1::LinkResponse::default();
                {
                    let mut model = model.lock().expect("no test panics with it");
                    if let Some(hello) = frame.hello {
                        assert_eq!(hello.role, i32::from(v1::PeerRole::Callback));
                        response.ownership = Some(model.ownership());
                        model.links.push(sender.clone());
                    }
                    if model.answers {
                        for input in frame.inputs {
                            let body = input.body.expect("a body");
                            let refused = model.refuses_registrations
                                && matches!(body, Body::RegisterVirtual(_));
                            let answer = if refused {
                                v1::reply::Body::Refused(v1::Refused {
                                    field: "contact_id".to_owned(),
                                    limit: "a contact in progress".to_owned(),
                                    value: String::new(),
                                })
                            } else {
                                model.take(&input.contact_id, body);
                                v1::reply::Body::Acknowledged(v1::Acknowledged {})
                            };
                            response.replies.push(v1::Reply {
                                request_id: input.request_id,
                                body: Some(answer),
                            });
                        }
                    }
                    for acknowledged in frame.notice_acknowledgements {
                        if let Some(entry) = model.entries.get_mut(&acknowledged.contact_id)
                            && entry.notice == Some((acknowledged.kind, acknowledged.turn))
                        {
                            entry.notice = None;
                        }
                    }
                }
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_pool(
        &self,
        request: Request<v1::GetPoolRequest>,
    ) -> Result<Response<v1::GetPoolResponse>, Status> {
        let model = self.0.lock().expect("no test panics with it");
        Ok(Response::new(v1::GetPoolResponse {
            pool: request.into_inner().pool,
            epoch: model.epoch,
            agents: model.agents,
            agents_ready: 0,
            queues: Vec::new(),
        }))
    }
}
