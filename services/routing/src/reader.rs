//! The stream up from one peer: frames in, checked, handed to the pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::id::FieldError;
use proto::convert::routing as convert;
use proto::routing::v1::{self, LinkRequest, LinkResponse};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use crate::config::FRAME_INPUTS_MAX;
use crate::link::Shared;
use crate::metrics::{KindLabels, PoolLabels};
use crate::owned::PoolInput;
use crate::peers::{FrameQueue, Peer, Role};

/// The stream up from one peer.
pub(crate) struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Arc<FrameQueue>,
    pub(crate) names: Vec<String>,
}

impl Reader {
    pub(crate) async fn run(
        self,
        mut frames: Streaming<LinkRequest>,
        ended: oneshot::Sender<Status>,
    ) {
        let mut peer = None;
        let status = self.read(&mut frames, &mut peer).await;
        if let Some(peer) = &peer {
            tracing::info!(
                peer = peer.id,
                serial = peer.serial,
                status = status.message(),
                "link ended"
            );
            self.shared.peers.leave(peer);
        } else {
            self.shared.refused("bad_hello");
            if let Some(suppressed) = self.shared.limit.check() {
                tracing::warn!(status = status.message(), suppressed, "link refused");
            }
        }
        // The peer may be gone already.
        let _ = ended.send(status);
    }

    async fn read(
        &self,
        frames: &mut Streaming<LinkRequest>,
        joined: &mut Option<Arc<Peer>>,
    ) -> Status {
        loop {
            let frame = tokio::select! {
                biased;
                () = self.queue.gone.cancelled() => return self.cut(),
                () = self.shared.shutdown.closing() => return Status::unavailable("this replica has drained"),
                frame = frames.message() => frame,
            };
            let mut frame = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return Status::ok("the peer closed the link"),
                Err(status) => return status,
            };
            if let Some(hello) = frame.hello.take() {
                match self.hello(hello, joined.as_ref()) {
                    Ok(peer) => *joined = Some(peer),
                    Err(status) => return status,
                }
            }
            let Some(peer) = joined.clone() else {
                return Status::invalid_argument("hello: required in the first frame, absent");
            };
            if self.take(&peer, frame).await.is_err() {
                return self.cut();
            }
        }
    }

    /// Why the link is cut.
    fn cut(&self) -> Status {
        if self.queue.was_cut() {
            Status::resource_exhausted("you do not read: what waits for you exceeded its bound")
        } else {
            Status::cancelled("the peer dropped the link")
        }
    }

    fn hello(&self, hello: v1::PeerHello, joined: Option<&Arc<Peer>>) -> Result<Arc<Peer>, Status> {
        if hello.peer_id.is_empty()
            || hello.peer_id.len() > 64
            || !hello.peer_id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Status::invalid_argument(
                "hello.peer_id: 1 to 64 bytes of printable ASCII",
            ));
        }
        let role = match v1::PeerRole::try_from(hello.role) {
            Ok(v1::PeerRole::Gateway) => Role::Gateway,
            Ok(v1::PeerRole::Callback) => Role::Callback,
            Ok(v1::PeerRole::Unspecified) | Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "hello.role: 1 or 2, was {}",
                    hello.role
                )));
            }
        };
        if !certified(&self.names, role) {
            return Err(Status::permission_denied(format!(
                "hello.role: the certificate of {:?} is not one of a {}",
                self.names,
                role_name(role)
            )));
        }
        if role == Role::Callback && !hello.attached_switches.is_empty() {
            return Err(Status::invalid_argument(
                "hello.attached_switches: a gateway's, sent by a callback replica",
            ));
        }
        let peer = match joined {
            Some(peer) if peer.id != hello.peer_id || peer.role != role => {
                return Err(Status::invalid_argument(
                    "hello: a link's peer_id and role never change",
                ));
            }
            Some(peer) => Arc::clone(peer),
            None => {
                let peer = self
                    .shared
                    .peers
                    .join(hello.peer_id, role, Arc::clone(&self.queue));
                tracing::info!(
                    peer = peer.id,
                    serial = peer.serial,
                    role = role_name(role),
                    "peer linked"
                );
                peer
            }
        };
        if role == Role::Gateway {
            self.shared.peers.attach(&peer, hello.attached_switches);
        }
        Ok(peer)
    }

    /// Takes one frame. `Err`: the link was cut meanwhile.
    async fn take(&self, peer: &Arc<Peer>, frame: LinkRequest) -> Result<(), ()> {
        let sizes = [
            frame.inputs.len(),
            frame.command_outcomes.len(),
            frame.notice_acknowledgements.len(),
        ];
        if let Some(size) = sizes.into_iter().find(|size| *size > FRAME_INPUTS_MAX) {
            self.refuse_frame(peer, &frame, size);
            return Ok(());
        }
        let mut replies = Vec::new();
        let mut by_pool: BTreeMap<String, Vec<PoolInput>> = BTreeMap::new();
        for mut wire in frame.inputs {
            let request_id = wire.request_id;
            let pool = std::mem::take(&mut wire.pool);
            match self.input(peer, wire) {
                Ok(input) => by_pool.entry(pool).or_default().push(input),
                Err(fault) => {
                    replies.push(convert::reply(
                        request_id,
                        None,
                        domain::pool::ReplyBody::Refused(fault),
                    ));
                }
            }
        }
        let now = self.shared.clock.now();
        for mut outcome in frame.command_outcomes {
            let pool = std::mem::take(&mut outcome.pool);
            match gateways_only(peer).and_then(|()| convert::command_outcome(outcome, now)) {
                Ok(input) => by_pool.entry(pool).or_default().push(silent(input)),
                Err(fault) => self.unusable(peer, "command_outcomes", &fault),
            }
        }
        for mut notice in frame.notice_acknowledgements {
            let pool = std::mem::take(&mut notice.pool);
            match callbacks_only(peer).and_then(|()| convert::notice_acknowledgement(&notice, now))
            {
                Ok(input) => by_pool.entry(pool).or_default().push(silent(input)),
                Err(fault) => self.unusable(peer, "notice_acknowledgements", &fault),
            }
        }
        self.count("refused", replies.len());
        peer.send(LinkResponse {
            replies,
            ..LinkResponse::default()
        });
        for (pool, inputs) in by_pool {
            self.hand_over(peer, &pool, inputs).await?;
        }
        Ok(())
    }

    fn input(&self, peer: &Arc<Peer>, wire: v1::Input) -> Result<PoolInput, FieldError> {
        let request_id = wire.request_id;
        let mut input = convert::input(wire, 0)?;
        if is_callbacks(&input.body) {
            callbacks_only(peer)?;
        } else {
            gateways_only(peer)?;
        }
        let span = runtime::trace::span("routing", "routing.input", &input.traceparent);
        if !span.is_none() {
            input.traceparent = runtime::trace::forward(&span, &input.traceparent);
        }
        Ok(PoolInput {
            reply_to: Some((Arc::clone(peer), request_id)),
            input,
            span,
        })
    }

    /// Into the pool's inbox, in order; waits for room.
    async fn hand_over(
        &self,
        peer: &Arc<Peer>,
        pool: &str,
        inputs: Vec<PoolInput>,
    ) -> Result<(), ()> {
        let Some(handle) = self.shared.ownership.handle(pool) else {
            self.not_owner(peer, &inputs);
            return Ok(());
        };
        if handle.inbox.capacity() < inputs.len() {
            let labels = PoolLabels {
                pool: pool.to_owned(),
            };
            self.shared.metrics.inbox_full.get_or_create(&labels).inc();
        }
        let room = tokio::select! {
            biased;
            () = self.queue.gone.cancelled() => return Err(()),
            room = handle.inbox.reserve_many(inputs.len()) => room,
        };
        match room {
            Ok(permits) => {
                for (permit, input) in permits.zip(inputs) {
                    permit.send(input);
                }
            }
            // Given up while we waited.
            Err(_) => self.not_owner(peer, &inputs),
        }
        Ok(())
    }

    fn not_owner(&self, peer: &Peer, inputs: &[PoolInput]) {
        let replies: Vec<_> = inputs
            .iter()
            .filter_map(|input| input.reply_to.as_ref())
            .map(|(_, id)| not_owner(*id))
            .collect();
        self.count("not_owner", replies.len());
        peer.send(LinkResponse {
            replies,
            ..LinkResponse::default()
        });
    }

    fn refuse_frame(&self, peer: &Peer, frame: &LinkRequest, size: usize) {
        self.shared.metrics.frames_refused.inc();
        if let Some(suppressed) = self.shared.limit.check() {
            tracing::warn!(
                peer = peer.id,
                size,
                limit = FRAME_INPUTS_MAX,
                suppressed,
                "frame refused"
            );
        }
        let fault = FieldError::new(
            "inputs",
            format!("at most {FRAME_INPUTS_MAX} a frame"),
            size,
        );
        let replies: Vec<_> = frame
            .inputs
            .iter()
            .map(|input| {
                convert::reply(
                    input.request_id,
                    None,
                    domain::pool::ReplyBody::Refused(fault.clone()),
                )
            })
            .collect();
        self.count("refused", replies.len());
        for replies in crate::peers::chunks(replies) {
            peer.send(LinkResponse {
                replies,
                ..LinkResponse::default()
            });
        }
    }

    /// Messages that have no reply: logged and forgotten.
    fn unusable(&self, peer: &Peer, what: &'static str, fault: &FieldError) {
        if let Some(suppressed) = self.shared.limit.check() {
            tracing::warn!(peer = peer.id, what, %fault, suppressed, "message refused");
        }
    }

    fn count(&self, kind: &'static str, number: usize) {
        if number > 0 {
            self.shared
                .metrics
                .replies
                .get_or_create(&KindLabels { kind })
                .inc_by(number as u64);
        }
    }
}

/// "Not the owner": try another replica.
pub(crate) fn not_owner(request_id: u64) -> v1::Reply {
    v1::Reply {
        request_id,
        body: Some(v1::reply::Body::NotOwner(v1::NotOwner {})),
    }
}

fn silent(input: domain::pool::Input) -> PoolInput {
    PoolInput {
        reply_to: None,
        input,
        span: tracing::Span::none(),
    }
}

/// What only callback may say.
fn is_callbacks(body: &domain::pool::InputBody) -> bool {
    use domain::pool::InputBody;
    matches!(
        body,
        InputBody::RegisterVirtual(_)
            | InputBody::CancelVirtual { .. }
            | InputBody::CallbackProgress { .. }
            | InputBody::NoticeAcknowledged { .. }
    )
}

fn gateways_only(peer: &Peer) -> Result<(), FieldError> {
    of_role(peer, Role::Gateway)
}

fn callbacks_only(peer: &Peer) -> Result<(), FieldError> {
    of_role(peer, Role::Callback)
}

fn of_role(peer: &Peer, role: Role) -> Result<(), FieldError> {
    if peer.role == role {
        return Ok(());
    }
    let limit = format!("only from a {}", role_name(role));
    Err(FieldError::new("body", limit, role_name(peer.role)))
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Gateway => "gateway",
        Role::Callback => "callback",
    }
}

/// Whether a certificate's names allow the role: one of their labels is the role's name
/// ("gateway", "trunkline-gateway.tax.svc"). Without TLS (development) anybody may.
fn certified(names: &[String], role: Role) -> bool {
    names.is_empty()
        || names
            .iter()
            .any(|name| name.split(['.', '-']).any(|label| label == role_name(role)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_allows_only_its_own_role() {
        let names = vec!["trunkline-gateway.tax.svc".to_owned()];
        assert!(certified(&names, Role::Gateway));
        assert!(!certified(&names, Role::Callback));
        assert!(
            certified(&[], Role::Callback),
            "without TLS there is nothing to hold it against"
        );
    }
}
