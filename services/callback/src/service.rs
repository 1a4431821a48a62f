//! The gRPC service: links from gateways, and look-ups for people.

use std::sync::Arc;
use std::time::Duration;

use domain::id::FieldError;
use domain::{ContactId, SwitchId};
use proto::callback::v1;
use proto::callback::v1::callback_service_server::CallbackService;
use proto::convert::callback as convert;
use runtime::{LogLimit, Shutdown};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use crate::desk::Desk;
use crate::gateways::Message;
use crate::metrics::Limit;

/// Most requests, and most dial results, of one frame.
const FRAME_REQUESTS_MAX: usize = 256;
/// Most switches that one gateway may say it has.
const SWITCHES_MAX: usize = 1_024;
/// Frames on their way to the transport.
const FRAMES: usize = 8;
/// The first frame must come within this.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct Callbacks {
    pub(crate) desk: Arc<Desk>,
    pub(crate) shutdown: Shutdown,
    pub(crate) invalid_log: Arc<LogLimit>,
}

/// One gateway's link, as its reader sees it.
struct Link {
    desk: Arc<Desk>,
    link: u64,
    sender: mpsc::Sender<Message>,
    requests: Arc<Semaphore>,
    invalid_log: Arc<LogLimit>,
}

#[tonic::async_trait]
impl CallbackService for Callbacks {
    type LinkStream = ReceiverStream<Result<v1::LinkResponse, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<v1::LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(HELLO_WITHIN, frames.message())
            .await
            .map_err(|_| {
                Status::deadline_exceeded("hello: the first frame did not come within 10 s")
            })??
            .ok_or_else(|| {
                Status::invalid_argument("hello: the stream ended before the first frame")
            })?;
        let hello = first
            .hello
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("hello: missing in the first frame"))?;
        let (gateway_id, switches) =
            check_hello(hello).map_err(|fault| Status::invalid_argument(fault.to_string()))?;
        let linked = self.desk.gateways.link(&gateway_id, switches);
        let (link, sender, receiver) = linked.ok_or_else(|| {
            Status::resource_exhausted(format!(
                "gateways_max: {} are linked",
                self.desk.config.gateways_max
            ))
        })?;
        self.desk.shards.wake_all();
        tracing::info!(gateway = gateway_id, link, "a gateway is linked");
        let (frame_sender, frame_receiver) = mpsc::channel(FRAMES);
        let hello = v1::LinkResponse {
            replica_id: self.desk.instance.clone(),
            ..v1::LinkResponse::default()
        };
        // A new channel has room; its receiver is in our hands.
        let _ = frame_sender.send(Ok(hello)).await;
        tokio::spawn(write(receiver, frame_sender, self.shutdown.clone()));
        let reader = Link {
            desk: Arc::clone(&self.desk),
            link,
            sender,
            requests: Arc::new(Semaphore::new(self.desk.config.requests_in_flight_max)),
            invalid_log: Arc::clone(&self.invalid_log),
        };
        tokio::spawn(reader.read(first, frames, gateway_id, self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(frame_receiver)))
    }

    async fn get_booking(
        &self,
        request: Request<v1::GetBookingRequest>,
    ) -> Result<Response<v1::GetBookingResponse>, Status> {
        let contact = ContactId::from_bytes(&request.get_ref().contact_id)
            .map_err(|fault| Status::invalid_argument(fault.to_string()))?;
        let found = self.desk.store.find(contact).await.map_err(|error| {
            self.desk.store_failed(&error);
            Status::unavailable("the store is away")
        })?;
        let response = found.map_or_else(v1::GetBookingResponse::default, |stored| {
            v1::GetBookingResponse {
                found: true,
                state: stored.booking.state_name().to_owned(),
                attempts: stored.booking.attempts(),
                next_at_ms: stored.booking.next_at().0,
            }
        });
        Ok(Response::new(response))
    }
}

fn check_hello(hello: &v1::GatewayHello) -> Result<(String, Vec<SwitchId>), FieldError> {
    let id = &hello.gateway_id;
    if id.is_empty() || id.len() > 64 {
        return Err(FieldError::new(
            "hello.gateway_id",
            "1 to 64 bytes",
            format!("{} bytes", id.len()),
        ));
    }
    if hello.switches.len() > SWITCHES_MAX {
        return Err(FieldError::new(
            "hello.switches",
            format!("at most {SWITCHES_MAX}"),
            hello.switches.len(),
        ));
    }
    let switches: Result<Vec<SwitchId>, FieldError> = hello
        .switches
        .iter()
        .map(|attached| SwitchId::parse(&attached.switch_id))
        .collect();
    Ok((id.clone(), switches?))
}

/// Frames what waits for a gateway: as much as there is, never waiting for more.
async fn write(
    mut receiver: mpsc::Receiver<Message>,
    frames: mpsc::Sender<Result<v1::LinkResponse, Status>>,
    shutdown: Shutdown,
) {
    let mut messages = Vec::with_capacity(FRAME_REQUESTS_MAX);
    let mut told = false;
    loop {
        let count = tokio::select! {
            biased;
            () = shutdown.closing() => return,
            () = shutdown.requested(), if !told => 0,
            count = receiver.recv_many(&mut messages, FRAME_REQUESTS_MAX) => {
                if count == 0 {
                    return;
                }
                count
            }
        };
        let mut frame = v1::LinkResponse {
            draining: count == 0,
            ..v1::LinkResponse::default()
        };
        told |= count == 0;
        for message in messages.drain(..) {
            match message {
                Message::Response(response) => frame.responses.push(response),
                Message::Dial(dial) => frame.dials.push(dial),
            }
        }
        if frames.send(Ok(frame)).await.is_err() {
            return;
        }
    }
}

impl Link {
    /// Reads until the gateway goes or the role closes.
    async fn read(
        self,
        first: v1::LinkRequest,
        mut frames: Streaming<v1::LinkRequest>,
        gateway_id: String,
        shutdown: Shutdown,
    ) {
        self.take(first, true).await;
        let reason = loop {
            let frame = tokio::select! {
                biased;
                () = shutdown.closing() => break "closing".to_owned(),
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(frame)) => self.take(frame, false).await,
                Ok(None) => break "it closed the stream".to_owned(),
                Err(status) => break status.message().to_owned(),
            }
        };
        self.desk.gateways.unlink(self.link);
        tracing::info!(
            gateway = gateway_id,
            link = self.link,
            reason,
            "a gateway is gone"
        );
    }

    async fn take(&self, frame: v1::LinkRequest, is_first: bool) {
        self.desk.faults.gate().await;
        if let Some(hello) = frame.hello.filter(|_| !is_first) {
            match check_hello(&hello) {
                Ok((_, switches)) => {
                    self.desk.gateways.attach(self.link, switches);
                    self.desk.shards.wake_all();
                }
                Err(fault) => self.invalid(&fault),
            }
        }
        for (index, request) in frame.requests.into_iter().enumerate() {
            if index >= FRAME_REQUESTS_MAX {
                self.desk.metrics.hit(Limit::FrameRequests);
                let fault = FieldError::new(
                    "requests",
                    format!("at most {FRAME_REQUESTS_MAX} a frame"),
                    index + 1,
                );
                self.invalid(&fault);
                let body = v1::response::Body::Refused(convert::refused_invalid(&fault));
                self.respond(request.request_id, body).await;
                continue;
            }
            self.request(request).await;
        }
        for (index, result) in frame.dial_results.into_iter().enumerate() {
            if index >= FRAME_REQUESTS_MAX {
                // More than we can ever have asked of it in one frame.
                self.desk.metrics.hit(Limit::FrameRequests);
                break;
            }
            match convert::dial_result(&result) {
                Ok((contact, attempt, end)) => {
                    let permit = self.desk.change_permit().await;
                    let desk = Arc::clone(&self.desk);
                    tokio::spawn(async move {
                        let _permit = permit;
                        desk.dial_ended(contact, attempt, end).await;
                    });
                }
                Err(fault) => self.invalid(&fault),
            }
        }
    }

    /// Counts nonsense. The value is not logged: what a gateway says may be anything.
    fn invalid(&self, fault: &FieldError) {
        self.desk.metrics.invalid_messages.inc();
        if let Some(suppressed) = self.invalid_log.check() {
            tracing::warn!(
                link = self.link,
                field = fault.field,
                limit = fault.limit,
                suppressed,
                "a gateway sent nonsense"
            );
        }
    }

    async fn request(&self, request: v1::Request) {
        if self.requests.available_permits() == 0 {
            self.desk.metrics.hit(Limit::RequestsInFlight);
        }
        let permit = Arc::clone(&self.requests)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (desk, sender) = (Arc::clone(&self.desk), self.sender.clone());
        let in_use = self.desk.metrics.limit_use(Limit::RequestsInFlight);
        tokio::spawn(async move {
            let _permit = permit;
            in_use.inc();
            let request_id = request.request_id;
            let name = match request.body {
                Some(v1::request::Body::Book(_)) => "book",
                Some(v1::request::Body::Cancel(_)) => "cancel",
                None => "request",
            };
            let span = runtime::trace::span("callback", name, &request.traceparent);
            let traceparent = runtime::trace::forward(&span, &request.traceparent);
            let body = answer(&desk, request.body, &traceparent)
                .instrument(span)
                .await;
            in_use.dec();
            desk.faults.gate().await;
            // The gateway is gone: it asks again, on another link.
            let _ = sender
                .send(Message::Response(v1::Response {
                    request_id,
                    body: Some(body),
                }))
                .await;
        });
    }

    async fn respond(&self, request_id: u64, body: v1::response::Body) {
        // As above.
        let _ = self
            .sender
            .send(Message::Response(v1::Response {
                request_id,
                body: Some(body),
            }))
            .await;
    }
}

async fn answer(
    desk: &Arc<Desk>,
    body: Option<v1::request::Body>,
    traceparent: &str,
) -> v1::response::Body {
    match body {
        Some(v1::request::Body::Book(book)) => desk.book(&book, traceparent).await,
        Some(v1::request::Body::Cancel(cancel)) => desk.cancel(&cancel).await,
        None => {
            let fault = FieldError::new("body", "book or cancel", "absent");
            v1::response::Body::Refused(convert::refused_invalid(&fault))
        }
    }
}
