//! The intent role: what a caller said or pressed, to a topic, or to a person.
//!
//! The pure part: `token`(normalised) cuts text into words, `redact`(redact()) finds
//! what must not be kept, `features` hashes, `linear` scores, `calibrate` turns
//! scores into a probability that can be acted on, `decide`(decide()) applies the rules
//! and the thresholds. `train` and `artefact` make and keep a `model`, `evaluate`
//! holds it against data, `cli` does so by hand. The thin shell around it, `start`,
//! serves one gRPC stream a gateway, batches in, batches out, and swaps the model when its
//! file changes.
//!
//! One tier only: a hashed linear model, one microsecond an utterance. A second,
//! multilingual tier for what it is unsure of has the same interface and comes later.

pub mod artefact;
pub mod calibrate;
pub mod cli;
mod config;
pub mod corpus;
mod decide;
pub mod evaluate;
pub mod features;
mod fit;
pub mod limit;
pub mod linear;
mod logistic;
mod metrics;
pub mod model;
mod number;
mod person;
mod random;
mod redact;
pub mod score;
mod service;
mod speech;
mod token;
pub mod train;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::service::{Loaded, Shared};

pub use config::Config;
pub use decide::{Workspace, beyond_frame, decide};
pub use redact::{Masked, redact};
pub use token::normalised;

/// Starts the role: loads or trains the model, then binds its ports and serves.
///
/// # Errors
/// An option is outside its limits, the model file is refused, or a port is taken.
pub async fn start(
    config: Config,
    shutdown: runtime::Shutdown,
) -> anyhow::Result<runtime::Running> {
    config.check()?;
    let mut service = runtime::Service::new("intent", &config.runtime)?;
    let metrics = Metrics::new(service.registry());
    let condition = service.condition("model");
    let path = config.model.clone();
    let loaded = tokio::task::spawn_blocking(move || match path {
        Some(path) => watch::load(&path),
        None => Ok(Loaded {
            model: model::shared()?,
            origin: "embedded corpus".to_owned(),
        }),
    })
    .await
    .context("the loader's task was lost")??;
    let loaded = Arc::new(ArcSwap::from_pointee(loaded));
    condition.ready();
    let tasks = TaskTracker::new();
    if let Some(path) = config.model {
        let period = Duration::from_millis(config.model_check_ms);
        tasks.spawn(watch::watch(
            path,
            period,
            loaded.clone(),
            metrics.clone(),
            shutdown.clone(),
        ));
    }
    let shared = Shared {
        loaded,
        metrics,
        replica: service.instance().to_owned(),
        shutdown: shutdown.clone(),
        links: Arc::new(AtomicUsize::new(0)),
        links_max: config.links_max,
        frames_waiting_max: config.frames_waiting_max,
        tasks: tasks.clone(),
    };
    let routes = tonic::service::Routes::new(service::server(shared));
    // Nothing to hand over: a query lives for microseconds, and links are told to go.
    service
        .serve(routes, shutdown, std::future::ready(()))
        .await
}

/// Runs the role until it has drained.
///
/// # Errors
/// As [`start`], and what ended it early.
pub async fn run(config: Config, shutdown: runtime::Shutdown) -> anyhow::Result<()> {
    start(config, shutdown).await?.wait().await
}
