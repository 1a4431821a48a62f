//! A gateway with a switch and its telephones: it dials what callback says, once an attempt,
//! and notes when a telephone is called that rings already, or whose owner was served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use proto::callback::v1;
use proto::callback::v1::callback_service_client::CallbackServiceClient;
use proto::cti::v1::DialOutcome;
use proto::routing::v1::CallbackNoticeKind;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::routing::Routing;

/// What happens when an attempt is dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) ring_ms: u64,
    pub(crate) outcome: DialOutcome,
    /// What routing says of a caller who answered.
    pub(crate) then: Option<CallbackNoticeKind>,
    /// The result is lost on its way.
    pub(crate) loses_result: bool,
    /// The gateway cannot hand it to the switch.
    pub(crate) not_placed: bool,
}

impl Plan {
    pub(crate) fn connected() -> Self {
        Self {
            ring_ms: 20,
            outcome: DialOutcome::Answered,
            then: Some(CallbackNoticeKind::Connected),
            loses_result: false,
            not_placed: false,
        }
    }

    pub(crate) fn missed(outcome: DialOutcome) -> Self {
        Self {
            outcome,
            then: None,
            ..Self::connected()
        }
    }
}

type Script = dyn Fn(&v1::Dial) -> Plan + Send + Sync;

/// The telephones: they outlive every gateway and every replica.
#[derive(Clone)]
pub(crate) struct Phones {
    pub(crate) state: Arc<Mutex<PhoneState>>,
    script: Arc<Script>,
    routing: Routing,
}

#[derive(Debug, Default)]
pub(crate) struct PhoneState {
    busy: BTreeSet<Bytes>,
    placed: BTreeSet<(Bytes, u32)>,
    pub(crate) dials: Vec<v1::Dial>,
    pub(crate) faults: Vec<String>,
}

impl Phones {
    pub(crate) fn new(
        routing: &Routing,
        script: impl Fn(&v1::Dial) -> Plan + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: Arc::default(),
            script: Arc::new(script),
            routing: routing.clone(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, PhoneState> {
        self.state.lock().expect("no test panics with it")
    }

    pub(crate) fn dials(&self) -> usize {
        self.state().dials.len()
    }

    async fn dial(self, dial: v1::Dial, gateway: Gateway) {
        let plan = (self.script)(&dial);
        let (contact, attempt) = (dial.contact_id.clone(), dial.attempt);
        let mut result = v1::DialResult {
            contact_id: contact.clone(),
            attempt,
            outcome: 0,
            not_placed: plan.not_placed,
        };
        {
            let mut state = self.state();
            state.dials.push(dial.clone());
            if !plan.not_placed {
                if !state.placed.insert((contact.clone(), attempt)) {
                    return;
                }
                if !state.busy.insert(contact.clone()) {
                    state.faults.push(format!(
                        "attempt {attempt} over another, or after the end: {contact:?}"
                    ));
                }
            }
        }
        if !plan.not_placed {
            tokio::time::sleep(Duration::from_millis(
                plan.ring_ms.min(u64::from(dial.ring_ms)),
            ))
            .await;
            result.outcome = u32::try_from(i32::from(plan.outcome)).expect("small");
            match plan.then.filter(|_| plan.outcome == DialOutcome::Answered) {
                // Stays busy: whoever was served must not be called again.
                Some(kind) => {
                    self.routing.answered(&contact);
                    if kind == CallbackNoticeKind::LegLost {
                        self.state().busy.remove(&contact);
                    }
                    self.routing.notice(&contact, kind);
                }
                None if plan.outcome == DialOutcome::Answered => self.routing.answered(&contact),
                None => {
                    self.state().busy.remove(&contact);
                }
            }
        }
        if !plan.loses_result {
            gateway.result(result).await;
        }
    }
}

/// A gateway; linked to one replica at a time.
#[derive(Clone)]
pub(crate) struct Gateway {
    name: String,
    switches: Vec<&'static str>,
    phones: Phones,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    sender: Option<mpsc::Sender<v1::LinkRequest>>,
    waiting: BTreeMap<u64, oneshot::Sender<v1::response::Body>>,
    last_request: u64,
    links: u32,
    drained: bool,
}

impl Gateway {
    pub(crate) fn new(name: &str, switches: &[&'static str], phones: &Phones) -> Self {
        Self {
            name: name.to_owned(),
            switches: switches.to_vec(),
            phones: phones.clone(),
            inner: Arc::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics with it")
    }

    fn hello(&self) -> v1::GatewayHello {
        let switches = self.switches.iter().map(|switch| v1::AttachedSwitch {
            switch_id: (*switch).to_owned(),
            boot_id: 1,
        });
        v1::GatewayHello {
            gateway_id: self.name.clone(),
            switches: switches.collect(),
        }
    }

    /// Links to a replica, which has said hello when this returns.
    pub(crate) async fn link(&self, address: SocketAddr) {
        let (sender, receiver) = mpsc::channel(1_024);
        let first = v1::LinkRequest {
            hello: Some(self.hello()),
            ..v1::LinkRequest::default()
        };
        sender.send(first).await.expect("room");
        let mut client = CallbackServiceClient::connect(format!("http://{address}"))
            .await
            .expect("it serves");
        let mut responses = client
            .link(ReceiverStream::new(receiver))
            .await
            .expect("it links")
            .into_inner();
        let hello = responses
            .message()
            .await
            .expect("a frame")
            .expect("a frame");
        assert!(!hello.replica_id.is_empty());
        let link = {
            let mut inner = self.inner();
            inner.sender = Some(sender);
            inner.links += 1;
            inner.links
        };
        let gateway = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = responses.message().await {
                gateway.inner().drained |= frame.draining;
                for response in frame.responses {
                    let waiting = gateway.inner().waiting.remove(&response.request_id);
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(response.body.expect("a body"));
                    }
                }
                for dial in frame.dials {
                    tokio::spawn(gateway.phones.clone().dial(dial, gateway.clone()));
                }
            }
            // What was asked on this link is not answered any more; a later link may be up.
            let mut inner = gateway.inner();
            if inner.links == link {
                inner.waiting.clear();
            }
        });
    }

    pub(crate) fn unlink(&self) {
        self.inner().sender = None;
    }

    pub(crate) fn was_told_to_drain(&self) -> bool {
        self.inner().drained
    }

    pub(crate) fn sender(&self) -> mpsc::Sender<v1::LinkRequest> {
        self.inner().sender.clone().expect("linked")
    }

    /// Hands a result over on whatever link is up, as a gateway does.
    async fn result(&self, result: v1::DialResult) {
        for _ in 0..200 {
            let sender = self.inner().sender.clone();
            let frame = v1::LinkRequest {
                dial_results: vec![result.clone()],
                ..v1::LinkRequest::default()
            };
            if let Some(sender) = sender
                && sender.send(frame).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks; `None`: the link went down first.
    pub(crate) async fn ask(&self, body: v1::request::Body) -> Option<v1::response::Body> {
        let (reply, replied) = oneshot::channel();
        let sender = self.inner().sender.clone()?;
        let request_id = {
            let mut inner = self.inner();
            inner.last_request += 1;
            let request_id = inner.last_request;
            inner.waiting.insert(request_id, reply);
            request_id
        };
        let request = v1::Request {
            request_id,
            traceparent: String::new(),
            body: Some(body),
        };
        let frame = v1::LinkRequest {
            requests: vec![request],
            ..v1::LinkRequest::default()
        };
        sender.send(frame).await.ok()?;
        replied.await.ok()
    }

    pub(crate) async fn book(&self, book: v1::Book) -> Option<v1::response::Body> {
        self.ask(v1::request::Body::Book(book)).await
    }

    pub(crate) async fn accepted(&self, book: v1::Book) -> v1::Accepted {
        match self.book(book).await {
            Some(v1::response::Body::Accepted(accepted)) => accepted,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) async fn refused(&self, book: v1::Book) -> v1::Refused {
        match self.book(book).await {
            Some(v1::response::Body::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }
}
