//! The stream: batches in, batches out, one task a link.
//!
//! Classifying takes microseconds, so it is done where the frame arrives; handing each
//! query to a worker would cost more than the work. A task takes the next frame only when
//! its answer to the last one fits the link's bounded channel: a gateway that does not
//! read stops being read. A frame of the longest utterances takes milliseconds and yields
//! to other links meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use futures::Stream;
use proto::intent::v1::intent_service_server::{IntentService, IntentServiceServer};
use proto::intent::v1::{
    GetModelRequest, GetModelResponse, LinkRequest, LinkResponse, ModelScores, ModelTopic, Query,
    Verdict,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::corpus::OUT_OF_SCOPE;
use crate::decide::{Workspace, beyond_frame, decide};
use crate::limit::{FRAME_BYTES_MAX, QUERIES_MAX};
use crate::metrics::Metrics;
use crate::model::Model;

/// Queries answered between two yields to other tasks.
const QUERIES_A_TURN: usize = 32;

/// A model and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) model: Arc<Model>,
    /// A file's name, or "embedded corpus".
    pub(crate) origin: String,
}

/// What all links share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) loaded: Arc<ArcSwap<Loaded>>,
    pub(crate) metrics: Metrics,
    pub(crate) replica: String,
    pub(crate) shutdown: runtime::Shutdown,
    pub(crate) links: Arc<AtomicUsize>,
    pub(crate) links_max: usize,
    pub(crate) frames_waiting_max: usize,
    pub(crate) tasks: TaskTracker,
}

/// The gRPC service.
pub(crate) fn server(shared: Shared) -> IntentServiceServer<Service> {
    IntentServiceServer::new(Service { shared }).max_decoding_message_size(FRAME_BYTES_MAX)
}

/// Implements the contract.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    shared: Shared,
}

type Answers = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;

#[tonic::async_trait]
impl IntentService for Service {
    type LinkStream = Answers;

    async fn link(
        &self,
        request: Request<Streaming<LinkRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let shared = self.shared.clone();
        if shared.shutdown.is_requested() {
            return Err(Status::unavailable("draining"));
        }
        let Some(place) = Place::take(&shared) else {
            shared.metrics.limit_hit("links");
            let links = shared.links_max;
            return Err(Status::resource_exhausted(format!(
                "links: at most {links} on this replica"
            )));
        };
        let (answers, stream) = mpsc::channel(shared.frames_waiting_max);
        let inbound = request.into_inner();
        shared.tasks.clone().spawn(async move {
            let _place = place;
            serve_link(&shared, inbound, &answers).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_model(
        &self,
        _request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        Ok(Response::new(describe(&self.shared.loaded.load())))
    }
}

/// A link's place among those allowed; given back when the link ends, however it ends.
struct Place {
    links: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Place {
    fn take(shared: &Shared) -> Option<Self> {
        let room = |links: usize| (links < shared.links_max).then_some(links + 1);
        shared
            .links
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .ok()?;
        shared.metrics.links.inc();
        Some(Self {
            links: shared.links.clone(),
            metrics: shared.metrics.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.links.fetch_sub(1, Ordering::Relaxed);
        self.metrics.links.dec();
    }
}

async fn serve_link(
    shared: &Shared,
    mut inbound: Streaming<LinkRequest>,
    answers: &mpsc::Sender<Result<LinkResponse, Status>>,
) {
    let mut workspace = Workspace::default();
    let hello = LinkResponse {
        replica_id: shared.replica.clone(),
        ..LinkResponse::default()
    };
    if answers.send(Ok(hello)).await.is_err() {
        return;
    }
    let mut told_draining = false;
    loop {
        let answer = tokio::select! {
            biased;
            () = shared.shutdown.closing() => return,
            () = answers.closed() => return,
            () = shared.shutdown.requested(), if !told_draining => {
                told_draining = true;
                LinkResponse { draining: true, ..LinkResponse::default() }
            }
            frame = inbound.message() => match frame {
                Ok(Some(frame)) => LinkResponse {
                    verdicts: answer(shared, &frame.queries, &mut workspace).await,
                    draining: told_draining,
                    ..LinkResponse::default()
                },
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(code = ?status.code(), "a gateway's link ended");
                    return;
                }
            },
        };
        tokio::select! {
            biased;
            () = shared.shutdown.closing() => return,
            sent = answers.send(Ok(answer)) => if sent.is_err() { return },
        }
    }
}

/// One verdict a query, in order.
async fn answer(shared: &Shared, queries: &[Query], workspace: &mut Workspace) -> Vec<Verdict> {
    let started = Instant::now();
    // One model for the whole frame, even if it is swapped meanwhile.
    let model = shared.loaded.load().model.clone();
    let mut verdicts = Vec::with_capacity(queries.len());
    for (index, query) in queries.iter().enumerate() {
        let verdict = if index < QUERIES_MAX {
            runtime::trace::span("intent", "classify", &query.traceparent)
                .in_scope(|| decide(&model, query, workspace))
        } else {
            beyond_frame(query, queries.len())
        };
        shared.metrics.verdict(&verdict);
        verdicts.push(verdict);
        if index % QUERIES_A_TURN == QUERIES_A_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    shared
        .metrics
        .batch(queries.len(), started.elapsed().as_secs_f64());
    verdicts
}

fn describe(loaded: &Loaded) -> GetModelResponse {
    let manifest = loaded.model.manifest();
    let calibration = &manifest.calibration;
    let scores = &calibration.scores;
    GetModelResponse {
        model_id: loaded.model.id().to_owned(),
        origin: loaded.origin.clone(),
        corpus_id: manifest.corpus_sha256.clone(),
        topics: manifest
            .labels
            .iter()
            .zip(&calibration.thresholds)
            .filter(|(label, _)| *label != OUT_OF_SCOPE)
            .map(|(label, threshold)| ModelTopic {
                topic_id: label.clone(),
                threshold: *threshold,
            })
            .collect(),
        languages: manifest.languages.clone(),
        scores: Some(ModelScores {
            accuracy: scores.accuracy,
            macro_f1: scores.macro_f1,
            ece: scores.ece,
            oos_recall: scores.oos_recall,
            oos_auroc: scores.oos_auroc,
            acted_on: scores.acted_on,
            precision_acted_on: scores.precision_acted_on,
        }),
    }
}
