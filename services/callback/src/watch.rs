//! What is looked at from time to time: whether the store is fit for promises, and how many
//! agents are at work.

use std::sync::Arc;
use std::time::Duration;

use proto::routing::v1;
use proto::routing::v1::routing_service_client::RoutingServiceClient;
use runtime::{Condition, LogLimit, Shutdown};

use crate::desk::{Desk, StoreState};
use crate::metrics::PoolLabels;
use crate::store::durability::Durability;

/// Looks at the store this often. A server that was restarted with other settings makes
/// promises that it cannot keep for as long.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Says on `/ready`, and to bookings, whether the store can be trusted.
pub(crate) async fn store(desk: Arc<Desk>, condition: Condition, shutdown: Shutdown) {
    let log = LogLimit::new(Duration::from_secs(30));
    let mut known = None;
    loop {
        let state = match desk.store.durability(desk.config.durable_replicas).await {
            Ok(durability) => {
                if known != Some(durability) {
                    tracing::info!(
                        durability = durability.name(),
                        "the store's durability is known"
                    );
                    known = Some(durability);
                }
                judge(&desk, durability, &log)
            }
            Err(error) => Err(error.to_string()),
        };
        match state {
            Ok(state) => {
                desk.set_store_state(state);
                condition.ready();
            }
            Err(reason) => {
                desk.set_store_state(StoreState::Unfit);
                if let Some(suppressed) = log.check() {
                    tracing::warn!(reason, suppressed, "no bookings are taken");
                }
                condition.not_ready(reason);
            }
        }
        tokio::select! {
            biased;
            () = shutdown.closing() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn judge(desk: &Desk, durability: Durability, log: &LogLimit) -> Result<StoreState, String> {
    match durability {
        Durability::Always => Ok(StoreState::Fit),
        Durability::Replicas(_) | Durability::AppendOnlyFile => Ok(StoreState::FitWhenAwaited),
        Durability::None | Durability::TooFewReplicas if desk.config.require_durable => Err(
            format!("bookings would not be durable: {}", durability.name()),
        ),
        Durability::None | Durability::TooFewReplicas => {
            if let Some(suppressed) = log.check() {
                tracing::warn!(
                    durability = durability.name(),
                    suppressed,
                    "require_durable is off: an accepted callback can be lost with the store"
                );
            }
            Ok(StoreState::Fit)
        }
    }
}

/// Asks the pools' owners how many agents are logged on.
pub(crate) async fn agents(desk: Arc<Desk>, shutdown: Shutdown) {
    let period = Duration::from_millis(desk.config.forecast_period_ms);
    let mut loaded = false;
    loop {
        if !loaded {
            loaded = load(&desk).await;
        }
        let mut pools = desk.forecasts.pools();
        pools.extend(desk.links.pools().into_keys());
        for pool in pools {
            look(&desk, &pool, period).await;
        }
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

async fn load(desk: &Desk) -> bool {
    for pool in desk.forecasts.pools() {
        match desk.store.agents_seen(&pool).await {
            Ok(by_hour) => desk.forecasts.load(&pool, by_hour),
            Err(_) => return false,
        }
    }
    true
}

async fn look(desk: &Desk, pool: &str, within: Duration) {
    let Some(channel) = desk.links.channel(pool) else {
        return;
    };
    let mut client = RoutingServiceClient::new(channel);
    let asked = client.get_pool(v1::GetPoolRequest {
        pool: pool.to_owned(),
    });
    let Ok(Ok(answer)) = tokio::time::timeout(within.max(Duration::from_secs(1)), asked).await
    else {
        tracing::debug!(pool, "routing did not say how many agents are at work");
        return;
    };
    let now = desk.now();
    let news = desk
        .forecasts
        .observe(pool, now, answer.into_inner().agents);
    let expected = desk.forecasts.of(pool, "", now).agents;
    desk.metrics
        .forecast_agents
        .get_or_create(&PoolLabels {
            pool: pool.to_owned(),
        })
        .set(i64::from(expected));
    if let Some((hour, agents)) = news
        && let Err(error) = desk.store.saw_agents(pool, hour, agents).await
    {
        desk.store_failed(&error);
    }
}
