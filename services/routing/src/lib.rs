//! The `routing` role: owns pools, one writer a pool.
//!
//! | module | does |
//! |---|---|
//! | `config` | options and policy |
//! | `store` | keys, scripts, fence: all of Redis (the key layout is at its top) |
//! | `keeper` | competes for a pool, loads it, gives it up |
//! | `lease` | renews, and says when it could not |
//! | `driver` | inputs in, one commit a batch, outputs out |
//! | `batch`, `flight` | what a commit carries; a commit on its way, and those before it |
//! | `owned` | which pools are ours, for the links |
//! | `link`, `reader`, `peers` | the stream of each gateway and callback replica, and who gets what |
//! | `metrics` | everything counted |
//!
//! What fails how: a replica that dies is replaced at its lease's end by one that loads
//! the pool from Redis; Redis away for less than a lease delays answers, for longer makes
//! gateways use the default route; a bad input is refused alone.

mod batch;
mod config;
mod driver;
mod flight;
mod keeper;
mod lease;
mod link;
mod metrics;
mod owned;
mod peers;
mod reader;
mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use domain::policy::Policy;
use proto::routing::v1::routing_service_server::RoutingServiceServer;
use runtime::{LogLimit, Running, Service, Shutdown};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::Config;

use driver::Context;
use keeper::Keeper;
use link::{Links, Shared};
use metrics::Metrics;
use owned::Ownership;
use peers::Peers;
use store::{Owner, PoolStore};

/// Runs the role until it has drained.
///
/// # Errors
/// The configuration or the policy is not valid, a port is taken, or a task was lost.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    start(config, shutdown).await?.wait().await
}

/// Starts the role.
///
/// # Errors
/// The configuration or the policy is not valid, or a port is taken.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    let policy = runtime::policy::load(config.policy_dir.as_deref())?;
    start_with(config, policy, shutdown).await
}

/// Starts the role on a policy that is loaded already.
///
/// # Errors
/// The configuration is not valid, or a port is taken.
pub async fn start_with(
    config: Config,
    policy: Arc<Policy>,
    shutdown: Shutdown,
) -> anyhow::Result<Running> {
    config.check()?;
    let pools = wanted(&config, &policy)?;
    let mut service = Service::new("routing", &config.runtime)?;
    let listener = service.bind().await?;
    let metrics = Arc::new(Metrics::new(service.registry()));
    let peers = Arc::new(Peers::new(config.pending_max, Arc::clone(&metrics)));
    let ownership = Ownership::new();
    let context = Arc::new(Context {
        clock: service.clock(),
        metrics: Arc::clone(&metrics),
        peers: Arc::clone(&peers),
        ownership: ownership.clone(),
        redis: service.condition("redis"),
        commits: service.condition("commits"),
        outbox: service.condition("outbox"),
        limit: LogLimit::new(Duration::from_secs(5)),
        batch_inputs_max: config.batch_inputs_max,
        inbox_inputs: config.inbox_inputs,
        outbox_max: config.outbox_max,
        replay_bytes: config.replay_bytes,
    });
    context.outbox.ready();
    context.commits.ready();
    context.redis.not_ready("not asked yet");
    let owner = Owner {
        name: format!("{}/{:016x}", service.instance(), rand::random::<u64>()),
        address: service.advertised(listener.local_addr()?),
        lease_ms: config.lease_ms,
    };
    tracing::info!(
        redis = runtime::redis_store::redacted(config.redis_url.expose()),
        key_prefix = config.key_prefix,
        policy_version = format!("{:016x}", policy.version),
        pools = pools.join(","),
        lease_ms = config.lease_ms,
        owner = owner.name,
        "routing starts"
    );
    let stop = CancellationToken::new();
    let mut keepers = JoinSet::new();
    for pool in pools {
        // A connection a pool: a big batch of one does not hold up another's.
        let connection =
            runtime::redis_store::connect(config.redis_url.expose(), config.redis_timeout_ms)?;
        let store = PoolStore::new(connection, &config.key_prefix, &pool, owner.clone());
        let (context, policy) = (Arc::clone(&context), Arc::clone(&policy));
        let keeper = Keeper {
            context,
            policy,
            pool,
            store,
            lease_ms: config.lease_ms,
        };
        keepers.spawn(keeper.run(stop.clone()));
    }
    let links = Links {
        shared: Arc::new(Shared {
            instance: service.instance().to_owned(),
            clock: service.clock(),
            ownership: ownership.clone(),
            peers,
            metrics,
            peer_queue_messages: config.peer_queue_messages,
            peers_max: config.peers_max,
            shutdown: shutdown.clone(),
            limit: LogLimit::new(Duration::from_secs(5)),
        }),
    };
    let routes = tonic::service::Routes::new(RoutingServiceServer::new(links));
    let (given_up, all_given_up) = tokio::sync::oneshot::channel::<()>();
    let drain_stop = stop.clone();
    let drain = async move {
        ownership.drain();
        drain_stop.cancel();
        // An error means that the keepers are gone, which is what we wait for.
        let _ = all_given_up.await;
    };
    let running = service
        .serve_on(listener, routes, shutdown.clone(), drain)
        .await?;
    Ok(supervise(running, keepers, given_up, stop, shutdown))
}

/// The pools to compete for.
fn wanted(config: &Config, policy: &Policy) -> anyhow::Result<Vec<String>> {
    // An empty environment variable is an empty name.
    let named: Vec<String> = config
        .pools
        .iter()
        .filter(|pool| !pool.is_empty())
        .cloned()
        .collect();
    if named.is_empty() {
        return Ok(policy.pools.keys().cloned().collect());
    }
    if let Some(unknown) = named.iter().find(|pool| policy.pool(pool).is_none()) {
        bail!("pools: {unknown:?} is not a pool of the policy");
    }
    Ok(named)
}

/// Ends the role when a pool's task is lost: a replica that silently stopped competing
/// would look healthy for ever.
fn supervise(
    running: Running,
    mut keepers: JoinSet<()>,
    given_up: tokio::sync::oneshot::Sender<()>,
    stop: CancellationToken,
    shutdown: Shutdown,
) -> Running {
    let mut served = running.finished;
    let finished = tokio::spawn(async move {
        let mut given_up = Some(given_up);
        let mut lost = None;
        loop {
            tokio::select! {
                biased;
                ended = &mut served => {
                    keepers.shutdown().await;
                    let ended = ended.context("the role's task was lost")?;
                    return match lost {
                        Some(error) => Err(error),
                        None => ended,
                    };
                }
                Some(ended) = keepers.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a pool's task was lost, ending");
                        lost = Some(anyhow::anyhow!("a pool's task was lost: {error}"));
                    } else if !stop.is_cancelled() {
                        lost = Some(anyhow::anyhow!("a pool's task ended by itself"));
                    }
                    if lost.is_some() {
                        shutdown.close();
                    }
                    if keepers.is_empty()
                        && let Some(given_up) = given_up.take()
                    {
                        // Nobody waits before the drain begins.
                        let _ = given_up.send(());
                    }
                }
            }
        }
    });
    Running {
        finished,
        ..running
    }
}
