//! The outcomes role: what became of every contact.
//!
//! Three parts, each also useful alone (`--relay`, `--consume`):
//! - the `relay` takes events from the pools' outboxes in Redis to Kafka,
//! - the `consumer` reads the topic and counts each event once,
//! - the `query` API answers with the measures, each with its denominator and its
//!   definition in words; the same numbers are gauges on `/metrics`.
//!
//! What events mean is decided in `domain::outcome`, which is pure: the same code
//! recomputes every measure from the topic.

mod assignment;
mod batch;
mod config;
mod consumer;
mod decode;
mod kafka;
mod metrics;
mod outbox;
mod position;
mod query;
mod relay;
mod store;

pub use config::Config;
pub use decode::{Malformed, decode};

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::outcomes::v1::outcomes_service_server::OutcomesServiceServer;
use runtime::{LogLimit, Running, Service, Shutdown};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::consumer::Consumer;
use crate::kafka::Producers;
use crate::metrics::Metrics;
use crate::outbox::Outboxes;
use crate::query::{Measures, Query};
use crate::relay::{Relay, Stalled};
use crate::store::{Retention, Store};

/// Runs the role until `shutdown`.
///
/// # Errors
/// A bad argument, a taken port, or a part that ended by itself.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    start(config, shutdown).await?.wait().await
}

/// Starts the role. Redis and Kafka may be away: `/ready` says so until they are there.
///
/// # Errors
/// A bad argument or a taken port.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    config.check()?;
    let rules = config.rules()?;
    let mut service = Service::new("outcomes", &config.runtime)?;
    let metrics = Metrics::new(service.registry());
    let clock = service.clock();
    let connection = runtime::redis_store::connect(&config.redis_url, config.redis_timeout_ms)?;
    let retention = Retention::new(config.open_hours, config.closed_hours, config.interval_days);
    let store = Store::new(
        connection.clone(),
        &config.key_prefix,
        &config.topic,
        retention,
    );

    let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let (there, topic_there) = watch::channel(false);
    let watching = kafka::watch(
        config.clone(),
        service.condition("kafka"),
        there,
        shutdown.clone(),
    );
    parts.spawn(async move {
        watching.await;
        Ok(())
    });
    if config.relays() {
        let relay = Relay {
            outboxes: Outboxes::new(
                connection,
                &config.key_prefix,
                service.instance(),
                config.relay_lease_ms,
            ),
            producers: Arc::new(Producers::new(&config, metrics.clone())?),
            metrics: metrics.clone(),
            redis: service.condition("redis for the relay"),
            stalled: Arc::new(Stalled::new(service.condition("relay"))),
            limit: Arc::new(LogLimit::new(Duration::from_secs(10))),
            config: config.clone(),
        };
        let (topic_there, shutdown) = (topic_there.clone(), shutdown.clone());
        parts.spawn(async move {
            if wait_for(topic_there, &shutdown).await {
                relay.run(shutdown).await.context("the relay")?;
            }
            Ok(())
        });
    }
    if config.consumes() {
        let consumer = Consumer::new(
            &config,
            store.clone(),
            rules,
            metrics.clone(),
            service.condition("redis for the counters"),
            clock.clone(),
        )?;
        let (topic_there, shutdown) = (topic_there, shutdown.clone());
        parts.spawn(async move {
            if wait_for(topic_there, &shutdown).await {
                consumer.run(shutdown).await.context("the consumer")?;
            }
            Ok(())
        });
    }
    let measures = Measures::new(store, clock);
    let showing = measures.clone().show(
        metrics,
        Duration::from_millis(config.measures_ms),
        shutdown.clone(),
    );
    parts.spawn(async move {
        showing.await;
        Ok(())
    });

    let query = OutcomesServiceServer::new(Query::new(measures, &config.topic));
    let routes = tonic::service::Routes::new(query);
    let (parts_ended, drained) = watch::channel(false);
    let drain = async move {
        let mut drained = drained;
        // An error says that the supervisor is gone: nothing left to wait for.
        let _ = drained.wait_for(|ended| *ended).await;
    };
    let running = service.serve(routes, shutdown.clone(), drain).await?;
    Ok(supervise(running, parts, parts_ended, shutdown))
}

/// Waits until the topic is there; `false`: the drain came first.
async fn wait_for(mut there: watch::Receiver<bool>, shutdown: &Shutdown) -> bool {
    tokio::select! {
        biased;
        () = shutdown.requested() => false,
        waited = there.wait_for(|there| *there) => waited.is_ok(),
    }
}

/// A part that ends before the drain ends the role, with its error.
fn supervise(
    running: Running,
    mut parts: JoinSet<anyhow::Result<()>>,
    parts_ended: watch::Sender<bool>,
    shutdown: Shutdown,
) -> Running {
    let served = running.finished;
    let finished = tokio::spawn(async move {
        let mut failure = None;
        loop {
            let ended = tokio::select! {
                biased;
                ended = parts.join_next() => ended,
                // The drain's time is over: what a part still holds is in the stores.
                () = shutdown.closing() => break,
            };
            let Some(ended) = ended else { break };
            let ended = ended
                .context("a part's task was lost")
                .and_then(|ended| ended);
            if let Err(error) = ended {
                failure.get_or_insert(error);
            } else if !shutdown.is_requested() {
                failure.get_or_insert(anyhow::anyhow!("a part of outcomes ended by itself"));
            }
            if failure.is_some() {
                shutdown.request();
            }
        }
        parts.abort_all();
        parts_ended.send_replace(true);
        served.await.context("the role's task was lost")??;
        failure.map_or(Ok(()), Err)
    });
    Running {
        finished,
        ..running
    }
}
