//! What the tests share: a small policy, replicas that can be killed, a gateway and a
//! look into the outbox.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use domain::policy::Policy;
use prost::Message as _;
use proto::event::v1::ContactEvent;
use proto::routing::v1::input::Body;
use proto::routing::v1::routing_service_client::RoutingServiceClient;
use proto::routing::v1::{self, LinkRequest, LinkResponse};
use runtime::local::wait_until;
use runtime::{Readiness, Shutdown};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Long enough for a busy machine; nothing waits for it to pass.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const POOL: &str = "tax";
pub(crate) const SWITCH: &str = "switch-1";
pub(crate) const BOOT: u64 = 77;

const POLICY: &str = r#"
apiVersion: trunkline.dev/v1
kind: Pool
metadata: { name: tax }
spec:
  noAnswerMs: 60000
  wrapUpMaxMs: 60000
  reservationMaxMs: 60000
  waitingMax: 100000
  agentsMax: 10000
  priorityCap: 3600
  rememberEndedMs: 600000
  surveyWaitMs: 1000
---
apiVersion: trunkline.dev/v1
kind: Queue
metadata: { name: operator }
spec:
  pool: tax
  skill: operator
  proficiencyMin: 1
  device: "7101"
  priorityStart: 0
  priorityAcceleration: 1
  waitingMax: 100000
  serviceLevelMs: 60000
  handleTimePriorMs: 300000
  patiencePriorMs: 1380000
  announcement: operator-full
---
apiVersion: trunkline.dev/v1
kind: Topic
metadata: { name: operator }
spec: { id: META_OPERATOR, title: "A person", queue: operator, callback: false, family: meta }
---
apiVersion: trunkline.dev/v1
kind: Line
metadata: { name: individual }
spec:
  pool: tax
  numbers: ["8005550101"]
  defaultTopic: META_OPERATOR
  callbackNumber: "8005550191"
  timeZone: America/New_York
  callerPlacesMax: 1000
---
apiVersion: trunkline.dev/v1
kind: CallbackPolicy
metadata: { name: default }
spec:
  offerFromExpectedWaitMs: 900000
  attemptsMax: 3
  attemptSpacingMs: 600000
  ringMs: 25000
  leaseMs: 45000
  windowMs: 1800000
  windowsOffered: 3
  windowCapacityPercent: 30
  callableFromHour: 8
  callableUntilHour: 21
"#;

pub(crate) fn policy() -> Arc<Policy> {
    Arc::new(Policy::parse(&[("test.yaml", POLICY)]).unwrap_or_else(|faults| panic!("{faults:?}")))
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    u64::try_from(since.as_millis()).expect("fits")
}

/// A replica in a runtime of its own, so that it can be killed like a process.
pub(crate) struct Replica {
    runtime: Option<tokio::runtime::Runtime>,
    pub(crate) address: String,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    finished: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Replica {
    pub(crate) async fn start(config: routing::Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let shutdown = Shutdown::new();
        let starting = runtime.spawn(routing::start_with(config, policy(), shutdown.clone()));
        let running = starting.await.expect("no panic").expect("starts");
        Self {
            runtime: Some(runtime),
            address: running.grpc.expect("a port").to_string(),
            readiness: running.readiness.clone(),
            shutdown,
            finished: Some(running.finished),
        }
    }

    /// Like `kill -9`: every task is dropped where it stands, nothing is given up.
    pub(crate) fn kill(mut self) {
        self.runtime.take().expect("alive").shutdown_background();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn drain(mut self) {
        self.shutdown.request();
        self.finished
            .take()
            .expect("runs")
            .await
            .expect("no panic")
            .expect("drains");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Default)]
struct Heard {
    replies: HashMap<u64, Vec<v1::Reply>>,
    commands: Vec<v1::SwitchCommand>,
    virtual_due: Vec<v1::VirtualDue>,
    notices: Vec<v1::CallbackNotice>,
    ownership: Option<v1::Ownership>,
    ended: Option<tonic::Status>,
}

/// A gateway as routing sees it.
pub(crate) struct Gateway {
    frames: mpsc::Sender<LinkRequest>,
    heard: Arc<Mutex<Heard>>,
    next_id: std::sync::atomic::AtomicU64,
}

pub(crate) fn hello(peer: &str, role: v1::PeerRole, switches: &[&str]) -> LinkRequest {
    LinkRequest {
        hello: Some(v1::PeerHello {
            peer_id: peer.to_owned(),
            role: role.into(),
            attached_switches: switches.iter().map(|switch| (*switch).to_owned()).collect(),
        }),
        ..LinkRequest::default()
    }
}

impl Gateway {
    pub(crate) async fn link(address: &str, peer: &str) -> Self {
        Self::link_as(address, hello(peer, v1::PeerRole::Gateway, &[SWITCH])).await
    }

    pub(crate) async fn link_as(address: &str, first: LinkRequest) -> Self {
        let channel = runtime::grpc::connect_lazy(address, &runtime::TlsArgs::default())
            .expect("a good address");
        let (frames, outgoing) = mpsc::channel(64);
        frames.send(first).await.expect("open");
        let mut client = RoutingServiceClient::new(channel);
        let mut incoming = client
            .link(ReceiverStream::new(outgoing))
            .await
            .expect("links")
            .into_inner();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hearing = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let frame: LinkResponse = match incoming.message().await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => {
                        hearing.lock().expect("sound").ended = Some(tonic::Status::ok(""));
                        return;
                    }
                    Err(status) => {
                        hearing.lock().expect("sound").ended = Some(status);
                        return;
                    }
                };
                let mut heard = hearing.lock().expect("sound");
                for reply in frame.replies {
                    heard
                        .replies
                        .entry(reply.request_id)
                        .or_default()
                        .push(reply);
                }
                heard.commands.extend(frame.commands);
                heard.virtual_due.extend(frame.virtual_due);
                heard.notices.extend(frame.notices);
                if frame.ownership.is_some() {
                    heard.ownership = frame.ownership;
                }
            }
        });
        Self {
            frames,
            heard,
            next_id: std::sync::atomic::AtomicU64::new(1),
        }
    }

    pub(crate) async fn send(&self, frame: LinkRequest) -> bool {
        self.frames.send(frame).await.is_ok()
    }

    /// Sends inputs in one frame; their request ids.
    pub(crate) async fn inputs(&self, inputs: Vec<v1::Input>) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut numbered = Vec::new();
        for mut input in inputs {
            input.request_id = self
                .next_id
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            ids.push(input.request_id);
            numbered.push(input);
        }
        self.send(LinkRequest {
            inputs: numbered,
            ..LinkRequest::default()
        })
        .await;
        ids
    }

    /// Sends one input and waits for its reply.
    pub(crate) async fn ask(&self, input: v1::Input) -> v1::reply::Body {
        let id = self.inputs(vec![input]).await[0];
        self.reply(id).await
    }

    pub(crate) async fn reply(&self, id: u64) -> v1::reply::Body {
        wait_until("a reply", LIMIT, async || self.replied(id).is_some())
            .await
            .expect("replied");
        self.replied(id).expect("just seen")
    }

    pub(crate) fn replied(&self, id: u64) -> Option<v1::reply::Body> {
        let heard = self.heard.lock().expect("sound");
        let replies = heard.replies.get(&id)?;
        assert_eq!(replies.len(), 1, "exactly one reply an input: {replies:?}");
        replies[0].body.clone()
    }

    pub(crate) fn commands(&self) -> Vec<v1::SwitchCommand> {
        self.heard.lock().expect("sound").commands.clone()
    }

    pub(crate) fn virtual_due(&self) -> Vec<v1::VirtualDue> {
        self.heard.lock().expect("sound").virtual_due.clone()
    }

    pub(crate) fn notices(&self) -> Vec<v1::CallbackNotice> {
        self.heard.lock().expect("sound").notices.clone()
    }

    pub(crate) fn ended(&self) -> Option<tonic::Status> {
        self.heard.lock().expect("sound").ended.clone()
    }

    /// The epoch under which the replica owns the test's pool.
    pub(crate) fn epoch(&self) -> Option<u64> {
        let heard = self.heard.lock().expect("sound");
        let owned = heard
            .ownership
            .as_ref()?
            .pools
            .iter()
            .find(|owned| owned.pool == POOL)?;
        Some(owned.epoch)
    }

    pub(crate) async fn owned(&self) -> u64 {
        wait_until("the pool is owned", LIMIT, async || self.epoch().is_some())
            .await
            .expect("owned");
        self.epoch().expect("just seen")
    }
}

pub(crate) fn input(contact: u128, body: Body) -> v1::Input {
    let contact_id = if contact == 0 {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(&contact.to_be_bytes())
    };
    v1::Input {
        request_id: 0,
        pool: POOL.to_owned(),
        contact_id,
        switch_id: SWITCH.to_owned(),
        boot_id: BOOT,
        occurred_at_ms: now_ms(),
        traceparent: String::new(),
        body: Some(body),
    }
}

pub(crate) fn route(contact: u128, arrived_at_ms: u64) -> v1::Input {
    route_until(contact, arrived_at_ms, now_ms() + 60_000)
}

pub(crate) fn route_until(contact: u128, arrived_at_ms: u64, deadline_at_ms: u64) -> v1::Input {
    input(
        contact,
        Body::Route(v1::Route {
            call_id: format!("call-{contact}"),
            cross_ref_id: format!("x{contact}"),
            line: "individual".to_owned(),
            topic: "META_OPERATOR".to_owned(),
            topic_confidence: 1.0,
            language: "en".to_owned(),
            channel: 1,
            person_asked: true,
            arrived_at_ms,
            deadline_at_ms,
            ..v1::Route::default()
        }),
    )
}

pub(crate) fn cleared(contact: u128) -> v1::Input {
    input(
        contact,
        Body::Cleared(v1::Cleared {
            cause: 4,
            call_id: format!("call-{contact}"),
            routed_by: 1,
            line: "individual".to_owned(),
            arrived_at_ms: now_ms(),
            language: "en".to_owned(),
            channel: 1,
            ..v1::Cleared::default()
        }),
    )
}

pub(crate) fn agent_ready(agent: &str) -> v1::Input {
    input(
        0,
        Body::Agent(v1::AgentChanged {
            agent_id: agent.to_owned(),
            device: "2001".to_owned(),
            state: 3,
            skills: vec![v1::AgentSkill {
                skill: "operator".to_owned(),
                proficiency: 5,
            }],
            languages: vec!["en".to_owned()],
            capacity: 1,
            reason: String::new(),
        }),
    )
}

/// The outbox, in order, decoded.
pub(crate) async fn outbox(redis_url: &str, prefix: &str) -> Vec<ContactEvent> {
    type Entry = (String, HashMap<String, Bytes>);
    let mut connection = runtime::redis_store::connect(redis_url, 5_000).expect("a good url");
    let entries: Vec<Entry> = redis::cmd("XRANGE")
        .arg(format!("{{{prefix}:{POOL}}}:outbox"))
        .arg("-")
        .arg("+")
        .query_async(&mut connection)
        .await
        .expect("redis answers");
    entries
        .into_iter()
        .map(|(_, fields)| {
            let event = ContactEvent::decode(fields["v"].clone()).expect("an event");
            assert_eq!(fields["k"], event.contact_id);
            assert_eq!(fields["s"], event.sequence.to_string());
            event
        })
        .collect()
}

/// Holds the outbox against "in order, from 1, without a gap"; repeats of the same event
/// are allowed. Gives each contact's events.
pub(crate) fn gap_free(events: Vec<ContactEvent>) -> BTreeMap<String, Vec<ContactEvent>> {
    let mut contacts: BTreeMap<String, Vec<ContactEvent>> = BTreeMap::new();
    for event in events {
        let known = contacts.entry(event.contact_id.clone()).or_default();
        let index = usize::try_from(event.sequence).expect("small") - 1;
        match known.get(index) {
            Some(before) => assert_eq!(*before, event, "a repeat must be the same event"),
            None => {
                assert_eq!(index, known.len(), "gap before {}", event.event_id);
                known.push(event);
            }
        }
    }
    contacts
}

/// As the outbox names it.
pub(crate) fn contact_text(contact: u128) -> String {
    domain::ContactId(contact).to_string()
}
