//! The gateway: where the carrier's switches meet the mesh.
//!
//! It owns the switches' streams, admission and the route deadline, and nothing that
//! matters if it is lost: a switch reconnects to any gateway and resumes, contact ids are
//! made from what the switch sends, and events are acknowledged only when routing (or
//! callback) holds them. The caller's number stops here: see `keys`.
//!
//! It needs routing to answer (else every call gets the switch's default route, in time),
//! prefers intent (else callers get a person), and asks callback for bookings (else callers
//! stay in line). One task owns all decisions (`core`); streams and links feed it (`shell`).

mod admission;
mod config;
mod core;
mod keys;
mod memory;
mod metrics;
mod shell;
mod wheel;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use proto::cti::v1::system_service_server::SystemServiceServer;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

pub use config::Config;

use crate::core::{Core, Health, Input};
use keys::Keys;
use metrics::Metrics;
use shell::driver::Driver;
use shell::peers::{Callback, Intent, Links, Routing};
use shell::switch::{Commands, Dialogues, Events, Shared, SwitchServer, System};
use shell::{ToCore, Ways};

/// Runs the role until it has drained.
///
/// # Errors
/// The configuration is invalid, a port is taken, or a part ended early.
pub async fn run(config: Config, shutdown: runtime::Shutdown) -> anyhow::Result<()> {
    start(config, shutdown).await?.wait().await
}

/// Starts the role and gives its ports.
///
/// # Errors
/// The configuration is invalid, or a port is taken.
pub async fn start(
    config: Config,
    shutdown: runtime::Shutdown,
) -> anyhow::Result<runtime::Running> {
    config.check()?;
    let policy = runtime::policy::load(config.policy_dir.as_deref())?;
    if policy.pools.is_empty() {
        bail!("policy: no pool; at least one is needed");
    }
    let keys = Keys::from_config(&config)?;
    if keys.for_development {
        tracing::warn!("no pseudonym or number key is configured, using keys for development");
    }
    let mut service = runtime::Service::new("gateway", &config.runtime)?;
    let metrics = Metrics::new(service.registry());
    let clock = service.clock();
    let readiness = service.condition("routing");
    let instance = service.instance().to_owned();
    let (ways, fast, slow) = Ways::new();
    let (health, watched) = watch::channel(Health {
        pools_without_owner: policy.pools.len(),
        ..Health::default()
    });
    let core = Core::new(
        config.clone(),
        instance,
        Arc::clone(&policy),
        keys,
        metrics.clone(),
        clock.now(),
    );
    let driver = Driver {
        core,
        clock,
        metrics,
        fast,
        slow,
        health,
        shutdown: shutdown.clone(),
        sinks: HashMap::new(),
    };
    let tasks = TaskTracker::new();
    let driver = tokio::spawn(driver.run());
    let links = Links {
        ways: ways.clone(),
        tls: config.runtime.tls.clone(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        resolve_period: Duration::from_millis(config.resolve_period_ms),
    };
    links.keep::<Routing>(&config.routing_endpoints);
    links.keep::<Intent>(&config.intent_endpoints);
    links.keep::<Callback>(&config.callback_endpoints);
    tasks.spawn(tell_readiness(watched.clone(), readiness, shutdown.clone()));
    let shared = Shared {
        ways: ways.clone(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        authenticated: config.runtime.tls.tls_cert.is_some(),
    };
    let routes = Routes::new(SystemServiceServer::new(System {
        credit: config.credit,
    }))
    .add_service(SwitchServer::<Dialogues>::new(shared.clone()))
    .add_service(SwitchServer::<Events>::new(shared.clone()))
    .add_service(SwitchServer::<Commands>::new(shared));
    let running = service
        .serve(routes, shutdown.clone(), drain(ways, watched))
        .await?;
    Ok(watch_over(running, driver, shutdown, tasks))
}

/// The process ends when the driver does: a gateway that decides nothing must not stay.
fn watch_over(
    mut running: runtime::Running,
    mut driver: tokio::task::JoinHandle<()>,
    shutdown: runtime::Shutdown,
    tasks: TaskTracker,
) -> runtime::Running {
    let mut finished = running.finished;
    running.finished = tokio::spawn(async move {
        let ended = tokio::select! {
            biased;
            ended = &mut finished => ended.context("the role's task was lost")?,
            lost = &mut driver => {
                if !shutdown.is_closing() {
                    finished.abort();
                    lost.context("the gateway's driver was lost")?;
                    bail!("the gateway's driver ended by itself");
                }
                finished.await.context("the role's task was lost")?
            }
        };
        tasks.close();
        // Every task ends on `closing`; one that does not is left behind with the process.
        let _ = tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await;
        ended
    });
    running
}

/// Ready when every pool has an owner: intent and callback may be away.
async fn tell_readiness(
    mut health: watch::Receiver<Health>,
    readiness: runtime::Condition,
    shutdown: runtime::Shutdown,
) {
    loop {
        let without = health.borrow_and_update().pools_without_owner;
        if without == 0 {
            readiness.ready();
        } else {
            readiness.not_ready(format!("{without} pools have no known owner"));
        }
        tokio::select! {
            biased;
            () = shutdown.closing() => return,
            changed = health.changed() => if changed.is_err() { return },
        }
    }
}

/// Tells the switches to go elsewhere and waits until what is under way is finished.
async fn drain(ways: Ways, mut health: watch::Receiver<Health>) {
    if ways
        .fast
        .send(ToCore {
            sink: None,
            input: Input::Drain,
        })
        .await
        .is_err()
    {
        return;
    }
    // Fails only when the driver is gone, and then nothing is under way.
    let _ = health.wait_for(|health| health.unfinished == 0).await;
}
