//! The model file, looked at from time to time: a new one takes over between two frames,
//! a bad one is refused and the old one stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use arc_swap::ArcSwap;

use crate::metrics::Metrics;
use crate::model::Model;
use crate::service::Loaded;

/// What a file looks like from outside: enough to tell that it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    bytes: u64,
    changed: Option<SystemTime>,
}

fn look(path: &Path) -> Option<Look> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Look {
        bytes: metadata.len(),
        changed: metadata.modified().ok(),
    })
}

/// Reads a model file for serving.
pub(crate) fn load(path: &Path) -> anyhow::Result<Loaded> {
    let model = Model::load(path)?;
    let origin = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let scores = &model.manifest().calibration.scores;
    tracing::info!(
        model = model.id(),
        origin,
        topics = model.manifest().labels.len(),
        held_out_accuracy = scores.accuracy,
        "model loaded"
    );
    Ok(Loaded {
        model: Arc::new(model),
        origin,
    })
}

/// Watches a model file until drain begins.
pub(crate) async fn watch(
    path: PathBuf,
    period: Duration,
    loaded: Arc<ArcSwap<Loaded>>,
    metrics: Metrics,
    shutdown: runtime::Shutdown,
) {
    let complaints = runtime::LogLimit::new(Duration::from_secs(30));
    let mut known = None;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        let asked = path.clone();
        let current = loaded.load().model.id().to_owned();
        let seen = known;
        let result = tokio::task::spawn_blocking(move || {
            let now = look(&asked);
            let fresh = if now == seen {
                None
            } else {
                Some(load_if_new(&asked, &current))
            };
            (now, fresh)
        })
        .await
        .context("the loader's task was lost");
        let fresh = match result {
            Ok((now, fresh)) => {
                known = now;
                fresh
            }
            Err(error) => Some(Err(error)),
        };
        match fresh {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(new))) => {
                loaded.store(Arc::new(new));
                metrics.model_load("taken");
            }
            Some(Err(error)) => {
                metrics.model_load("refused");
                if let Some(suppressed) = complaints.check() {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        suppressed,
                        "model file refused, the old one stays"
                    );
                }
            }
        }
    }
}

fn load_if_new(path: &Path, current: &str) -> anyhow::Result<Option<Loaded>> {
    let new = load(path)?;
    Ok((new.model.id() != current).then_some(new))
}
