//! Private Redis and Kafka servers on free ports, for `trunkline dev`, tests and the load
//! harness. Real servers, in a temporary folder, killed when dropped.

mod kafka;
mod redis;

pub use kafka::KafkaServer;
pub use redis::{Durability, RedisServer};

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;

/// A port that was free a moment ago.
///
/// # Errors
/// No port is left.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

/// Waits until `holds` says true; asks every 10 ms.
///
/// # Errors
/// Names `what` when `limit` has passed.
pub async fn wait_until<F, Fut>(what: &str, limit: Duration, mut holds: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    loop {
        if holds().await {
            return Ok(());
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain until {what}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The seed of a test: `TRUNKLINE_SEED`, or a new one. Printed, so that a failure can be
/// repeated.
#[must_use]
#[expect(
    clippy::print_stderr,
    reason = "the seed must be seen when the test fails"
)]
pub fn seed() -> u64 {
    let seed = std::env::var("TRUNKLINE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("TRUNKLINE_SEED={seed}");
    seed
}
