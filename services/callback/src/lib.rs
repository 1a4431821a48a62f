//! The `callback` role: a caller who does not hold is called back, for certain.
//!
//! ```text
//!  gateways <== Link ==> service -> booking ----+
//!                           |                   v
//!                           +--------------> [ desk ] --- compare-and-set ---> Redis
//!                                             ^   ^                              |
//!  routing  <== Link ==> routing -------------+   +---- worker (leased shards) <-+
//! ```
//!
//! - `domain::callback` decides; `desk` loads, lets it decide, commits, then tells.
//! - A booking is accepted when it is durable, and only then; routing is told until it has
//!   acknowledged, and holds the place. When the place's turn comes it says so, the shard's
//!   leaseholder has a gateway dial, and what became of it goes back to routing, which alone
//!   writes events.
//! - Every replica takes every input. Only work that starts by itself (dials, timeouts,
//!   repetitions) needs the shard's lease.
//! - The number to call is ciphertext here; this role has no key.
//!
//! What is lost with a process: nothing that was acknowledged. An attempt that was in
//! flight is waited for until its ring time and lease are over, and then counts as failed.

mod booking;
mod config;
mod desk;
mod faults;
mod forecast;
mod gateways;
mod metrics;
mod routing;
mod service;
mod shards;
mod store;
mod watch;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::callback::v1::callback_service_server::CallbackServiceServer;
use runtime::{LogLimit, Running, Service, Shutdown};
use tokio::task::JoinSet;

pub use config::Config;
pub use faults::{Faults, Point};

use crate::desk::Desk;
use crate::metrics::Metrics;
use crate::service::Callbacks;
use crate::store::Store;
use crate::store::keys::Keys;

/// Runs the role until `shutdown`.
///
/// # Errors
/// A bad option, a port that is taken, or a task that ended by itself.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    start(config, shutdown).await?.wait().await
}

/// Starts the role; gives its ports.
///
/// # Errors
/// A bad option, or a port that is taken. That Redis or routing is away is no error: it is
/// said on `/ready`.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    config.check()?;
    let policy = runtime::policy::load(config.policy_dir.as_deref())?;
    let mut service = Service::new("callback", &config.runtime)?;
    let metrics = Metrics::new(service.registry());
    let connection =
        runtime::redis_store::connect(config.redis_url.expose(), config.redis_timeout_ms)?;
    // Its own part of the prefix: on a shared server nobody else's keys look alike.
    let keys = Keys::new(&format!("{}.callback", config.key_prefix), config.shards);
    let store = Store::new(connection, keys, config.ended_ttl_ms, config.faults.clone());
    let redis_condition = service.condition("redis");
    let desk = Arc::new(Desk::new(
        config,
        service.instance().to_owned(),
        store,
        policy,
        service.clock(),
        metrics,
    ));
    let callbacks = Callbacks {
        desk: Arc::clone(&desk),
        shutdown: shutdown.clone(),
        invalid_log: Arc::new(LogLimit::new(Duration::from_secs(10))),
    };
    let routes = tonic::service::Routes::new(CallbackServiceServer::new(callbacks));

    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    let mut spawn = |name: &'static str,
                     task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        tasks.spawn(async move {
            task.await;
            name
        });
    };
    spawn(
        "store watch",
        Box::pin(watch::store(
            Arc::clone(&desk),
            redis_condition,
            shutdown.clone(),
        )),
    );
    spawn(
        "forecast",
        Box::pin(watch::agents(Arc::clone(&desk), shutdown.clone())),
    );
    spawn(
        "routing links",
        Box::pin(routing::follow_endpoints(
            Arc::clone(&desk),
            shutdown.clone(),
        )),
    );
    spawn(
        "shard leases",
        Box::pin(shards::keep_share(Arc::clone(&desk), shutdown.clone())),
    );
    spawn(
        "wake-up calls",
        Box::pin(shards::listen(Arc::clone(&desk), shutdown.clone())),
    );
    spawn(
        "worker",
        Box::pin(worker::work(Arc::clone(&desk), shutdown.clone())),
    );
    spawn(
        "pool recovery",
        Box::pin(worker::recover_pools(Arc::clone(&desk), shutdown.clone())),
    );
    spawn(
        "counts",
        Box::pin(worker::count(Arc::clone(&desk), shutdown.clone())),
    );

    let draining = Arc::clone(&desk);
    let drain = async move {
        // The shards are given up by their own task; here only what was begun is finished.
        let all = u32::try_from(draining.config.changes_in_flight_max).unwrap_or(u32::MAX);
        let _ = draining.changes.acquire_many(all).await;
        let all = u32::try_from(draining.config.batch_entries_max * 4).unwrap_or(u32::MAX);
        let _ = draining.reports.acquire_many(all).await;
    };
    let running = service.serve(routes, shutdown.clone(), drain).await?;
    Ok(supervised(running, tasks, shutdown))
}

/// A task that ends before the shutdown ends the role: half a role is worse than none.
fn supervised(running: Running, mut tasks: JoinSet<&'static str>, shutdown: Shutdown) -> Running {
    let Running {
        grpc,
        admin,
        readiness,
        mut finished,
    } = running;
    let finished = tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                ended = &mut finished => {
                    // Give what ends with the shutdown its moment; the rest is dropped.
                    let last = async { while tasks.join_next().await.is_some() {} };
                    let _ = tokio::time::timeout(Duration::from_secs(2), last).await;
                    return ended.context("the role's task was lost")?;
                }
                Some(ended) = tasks.join_next() => {
                    let name = ended.context("a task of the role was lost")?;
                    if !shutdown.is_requested() {
                        shutdown.close();
                        anyhow::bail!("the {name} task ended by itself");
                    }
                }
            }
        }
    });
    Running {
        grpc,
        admin,
        readiness,
        finished,
    }
}
