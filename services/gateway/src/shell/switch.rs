//! The gRPC services that a switch calls.
//!
//! The three streams are one server, generic over what flows: read hello, check who speaks
//! (rule 12), open a link at the core, hand frames over until the stream or the gateway
//! ends. The generated servers are not used for them because their codec ends a stream on
//! the first undecodable message (see `codec`).

use std::convert::Infallible;
use std::future::{Future, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use domain::id::FieldError;
use proto::convert::cti as check;
use proto::cti::v1::{
    CapabilitiesRequest, CapabilitiesResponse, CommandsRequest, CommandsResponse, DialoguesRequest,
    DialoguesResponse, EventsRequest, EventsResponse, Hello, system_service_server::SystemService,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::{NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::codec::{FRAME_BYTES_MAX, Frame, Parts, PartsCodec};
use super::{SINK_FRAMES, Sink, ToCore, Ways};
use crate::core::{Input, LinkId};

/// A stream that does not say hello is ended.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// What every stream shares.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) ways: Ways,
    pub(crate) shutdown: runtime::Shutdown,
    pub(crate) tasks: TaskTracker,
    /// Certificates are required: a switch is who its certificate says.
    pub(crate) authenticated: bool,
}

/// One kind of stream.
pub(crate) trait Kind: Send + Sync + 'static {
    type Request: Frame;
    type Response: prost::Message + Send + 'static;
    const SERVICE: &'static str;
    const PATH: &'static str;

    fn take_hello(frame: &mut Self::Request) -> Option<Hello>;
    fn sink(sender: mpsc::Sender<Result<Self::Response, Status>>, reads: Arc<Semaphore>) -> Sink;
    fn opened(link: LinkId, hello: Hello, first: Parts<Self::Request>) -> (Input, Option<Input>);
    fn frame(link: LinkId, parts: Parts<Self::Request>) -> Input;
    /// The way to the core, and what of it counts against what may be read.
    fn way(ways: &Ways) -> &mpsc::Sender<ToCore>;
    fn weight(_parts: &Parts<Self::Request>) -> usize {
        0
    }
}

/// Dialogues.
#[derive(Debug)]
pub(crate) struct Dialogues;
/// Events.
#[derive(Debug)]
pub(crate) struct Events;
/// Commands.
#[derive(Debug)]
pub(crate) struct Commands;

impl Kind for Dialogues {
    type Request = DialoguesRequest;
    type Response = DialoguesResponse;
    const SERVICE: &'static str = "trunkline.cti.v1.RoutingDialogueService";
    const PATH: &'static str = "/trunkline.cti.v1.RoutingDialogueService/Dialogues";

    fn take_hello(frame: &mut DialoguesRequest) -> Option<Hello> {
        frame.hello.take()
    }

    fn sink(
        sender: mpsc::Sender<Result<DialoguesResponse, Status>>,
        _reads: Arc<Semaphore>,
    ) -> Sink {
        Sink::Dialogues(sender)
    }

    fn opened(
        link: LinkId,
        hello: Hello,
        first: Parts<DialoguesRequest>,
    ) -> (Input, Option<Input>) {
        let Parts { frame, malformed } = first;
        (
            Input::DialoguesOpened {
                link,
                received: Instant::now(),
                hello,
                frame,
                malformed,
            },
            None,
        )
    }

    fn frame(link: LinkId, parts: Parts<DialoguesRequest>) -> Input {
        Input::Dialogues {
            link,
            received: Instant::now(),
            frame: parts.frame,
            malformed: parts.malformed,
        }
    }

    fn way(ways: &Ways) -> &mpsc::Sender<ToCore> {
        &ways.fast
    }
}

impl Kind for Events {
    type Request = EventsRequest;
    type Response = EventsResponse;
    const SERVICE: &'static str = "trunkline.cti.v1.MonitoringService";
    const PATH: &'static str = "/trunkline.cti.v1.MonitoringService/Events";

    fn take_hello(frame: &mut EventsRequest) -> Option<Hello> {
        frame.hello.take()
    }

    fn sink(sender: mpsc::Sender<Result<EventsResponse, Status>>, reads: Arc<Semaphore>) -> Sink {
        Sink::Events(sender, reads)
    }

    fn opened(link: LinkId, hello: Hello, first: Parts<EventsRequest>) -> (Input, Option<Input>) {
        let holds = Self::weight(&first) > 0;
        (
            Input::EventsOpened { link, hello },
            holds.then(|| Self::frame(link, first)),
        )
    }

    fn frame(link: LinkId, parts: Parts<EventsRequest>) -> Input {
        Input::Events {
            link,
            events: parts.frame.events,
            malformed: parts.malformed,
        }
    }

    fn way(ways: &Ways) -> &mpsc::Sender<ToCore> {
        &ways.slow
    }

    fn weight(parts: &Parts<EventsRequest>) -> usize {
        parts.frame.events.len() + parts.malformed.len()
    }
}

impl Kind for Commands {
    type Request = CommandsRequest;
    type Response = CommandsResponse;
    const SERVICE: &'static str = "trunkline.cti.v1.CallControlService";
    const PATH: &'static str = "/trunkline.cti.v1.CallControlService/Commands";

    fn take_hello(frame: &mut CommandsRequest) -> Option<Hello> {
        frame.hello.take()
    }

    fn sink(
        sender: mpsc::Sender<Result<CommandsResponse, Status>>,
        _reads: Arc<Semaphore>,
    ) -> Sink {
        Sink::Commands(sender)
    }

    fn opened(link: LinkId, hello: Hello, first: Parts<CommandsRequest>) -> (Input, Option<Input>) {
        let holds = !first.frame.results.is_empty();
        (
            Input::CommandsOpened { link, hello },
            holds.then(|| Self::frame(link, first)),
        )
    }

    fn frame(link: LinkId, parts: Parts<CommandsRequest>) -> Input {
        Input::Results {
            link,
            results: parts.frame.results,
            malformed: parts.malformed.len(),
        }
    }

    fn way(ways: &Ways) -> &mpsc::Sender<ToCore> {
        &ways.fast
    }
}

/// Who speaks, or why it is not believed.
fn identify(hello: Option<&Hello>, names: &[String], authenticated: bool) -> Result<(), Status> {
    let invalid = |fault: FieldError| Status::invalid_argument(fault.to_string());
    let Some(hello) = hello else {
        return Err(invalid(FieldError::new(
            "hello",
            "required in the first frame",
            "absent",
        )));
    };
    check::hello(hello).map_err(invalid)?;
    if authenticated && !names.contains(&hello.switch_id) {
        let fault = FieldError::new(
            "hello.switch_id",
            "a name in the client's certificate",
            &hello.switch_id,
        );
        return Err(Status::permission_denied(fault.to_string()));
    }
    Ok(())
}

type Sender<K> = mpsc::Sender<Result<<K as Kind>::Response, Status>>;

/// Reads one stream to its end.
async fn read<K: Kind>(
    shared: Shared,
    names: Vec<String>,
    mut inbound: Streaming<Parts<K::Request>>,
    sender: Sender<K>,
) {
    let first = tokio::select! {
        biased;
        () = shared.shutdown.closing() => return,
        first = tokio::time::timeout(HELLO_WITHIN, inbound.message()) => first,
    };
    let mut first = match first {
        Ok(Ok(Some(parts))) => parts,
        Ok(_) => return,
        Err(_) => {
            let fault = FieldError::new("hello", "within 10 s of the stream's start", "nothing");
            let _ = sender
                .send(Err(Status::invalid_argument(fault.to_string())))
                .await;
            return;
        }
    };
    let hello = K::take_hello(&mut first.frame);
    if let Err(status) = identify(hello.as_ref(), &names, shared.authenticated) {
        let _ = sender.send(Err(status)).await;
        return;
    }
    let link = shared.ways.link();
    let reads = Arc::new(Semaphore::new(0));
    let way = K::way(&shared.ways);
    let watch = sender.clone();
    let weight = K::weight(&first);
    let (opened, rest) = K::opened(link, hello.expect("identified"), first);
    let sink = Some((link, K::sink(sender, Arc::clone(&reads))));
    if way
        .send(ToCore {
            sink,
            input: opened,
        })
        .await
        .is_err()
    {
        return;
    }
    let pump = async {
        if let Some(rest) = rest
            && (!may_read(&reads, weight).await
                || way
                    .send(ToCore {
                        sink: None,
                        input: rest,
                    })
                    .await
                    .is_err())
        {
            return;
        }
        // An error is the stream's end, whatever it was: the switch comes back.
        while let Ok(Some(parts)) = inbound.message().await {
            let weight = K::weight(&parts);
            if !may_read(&reads, weight).await {
                return;
            }
            if way
                .send(ToCore {
                    sink: None,
                    input: K::frame(link, parts),
                })
                .await
                .is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = shared.shutdown.closing() => {}
        // The core has dropped its end: the stream was ended from here.
        () = watch.closed() => {}
        () = pump => {}
    }
    let _ = way
        .send(ToCore {
            sink: None,
            input: Input::Closed { link },
        })
        .await;
}

/// Waits until so many events may be read. The permits come back from the core one by one.
/// More than the core ever gives at once (an oversized frame) is taken in the measure given.
async fn may_read(reads: &Semaphore, weight: usize) -> bool {
    if weight == 0 {
        return true;
    }
    let wanted = u32::try_from(weight.min(check::EVENTS_MAX)).unwrap_or(u32::MAX);
    match reads.acquire_many(wanted).await {
        Ok(permit) => {
            permit.forget();
            true
        }
        Err(_) => false,
    }
}

/// The server of one kind of stream.
#[derive(Debug)]
pub(crate) struct SwitchServer<K> {
    shared: Shared,
    kind: PhantomData<fn() -> K>,
}

impl<K> SwitchServer<K> {
    /// A server that hands streams to the core.
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared,
            kind: PhantomData,
        }
    }
}

impl<K> Clone for SwitchServer<K> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl<K: Kind> NamedService for SwitchServer<K> {
    const NAME: &'static str = K::SERVICE;
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<K: Kind> tower::Service<http::Request<Body>> for SwitchServer<K> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != K::PATH {
            let response = Status::unimplemented("no such method").into_http();
            return Box::pin(ready(Ok(response)));
        }
        let open = Open::<K>(self.shared.clone(), PhantomData);
        Box::pin(async move {
            let codec = PartsCodec::<K::Request, K::Response>::default();
            let mut grpc =
                tonic::server::Grpc::new(codec).max_decoding_message_size(FRAME_BYTES_MAX);
            Ok(grpc.streaming(open, request).await)
        })
    }
}

struct Open<K>(Shared, PhantomData<fn() -> K>);

impl<K: Kind> StreamingService<Parts<K::Request>> for Open<K> {
    type Response = K::Response;
    type ResponseStream = ReceiverStream<Result<K::Response, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Parts<K::Request>>>) -> Self::Future {
        if self.0.shutdown.is_closing() {
            return ready(Err(Status::unavailable("draining: ask another node")));
        }
        let names = runtime::grpc::peer_names(&request);
        let (sender, receiver) = mpsc::channel(SINK_FRAMES);
        let shared = self.0.clone();
        self.0
            .tasks
            .spawn(read::<K>(shared, names, request.into_inner(), sender));
        ready(Ok(Response::new(ReceiverStream::new(receiver))))
    }
}

/// What this node supports.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) credit: u32,
}

#[tonic::async_trait]
impl SystemService for System {
    async fn capabilities(
        &self,
        _request: Request<CapabilitiesRequest>,
    ) -> Result<Response<CapabilitiesResponse>, Status> {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Response::new(CapabilitiesResponse {
            version: "1.0".to_owned(),
            frame_messages_max: number(check::DIALOGUE_MESSAGES_MAX),
            utterance_bytes_max: number(check::UTTERANCE_BYTES_MAX),
            reply_timeout_min_ms: check::REPLY_TIMEOUT_MIN_MS,
            reply_timeout_max_ms: check::REPLY_TIMEOUT_MAX_MS,
            credit_max: self.credit,
            correlator_data_bytes_max: check::CORRELATOR_BYTES_MAX,
        }))
    }
}
