//! Inputs a second through one pool's driver, with a real Redis, over real links.
//!
//! Callers arrive, sit in line and hang up: three inputs each, all of which change state
//! and write events. Client, replica and Redis share the machine. Run:
//! `cargo run --release -p routing --example throughput -- [seconds] [callers at a time]`

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Gateway, Replica, cleared, input, now_ms, route};
use proto::routing::v1::input::Body;
use proto::routing::v1::{self};
use runtime::local::{Durability, RedisServer};

const LINKS: u128 = 2;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let callers: u128 = arguments.next().map_or(Ok(1_024), |text| text.parse())?;
    let redis = RedisServer::start(Durability::EverySecond).await?;
    let mut config = routing::Config::for_test(&redis.url(), "throughput");
    (config.lease_ms, config.redis_timeout_ms) = (6_000, 2_000);
    config.outbox_max = 1 << 40;
    let replica = Replica::start(config).await;
    let stop = Arc::new(AtomicBool::new(false));
    let inputs = Arc::new(AtomicU64::new(0));
    let rounds = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    let start = Instant::now();
    for link in 0..LINKS {
        let gateway = Gateway::link(&replica.address, &format!("gateway-{link}")).await;
        gateway.owned().await;
        let (stop, inputs, rounds) = (Arc::clone(&stop), Arc::clone(&inputs), Arc::clone(&rounds));
        tasks.spawn(async move {
            let each = callers / LINKS;
            let mut next = link << 64;
            let mut worst = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let wave: Vec<u128> = (0..each).map(|offset| next + offset + 1).collect();
                next += each;
                type Step = fn(u128) -> v1::Input;
                let steps: [Step; 3] = [
                    |contact| route(contact, now_ms()),
                    |contact| input(contact, Body::AtQueue(v1::AtQueue {})),
                    cleared,
                ];
                for step in steps {
                    let begun = Instant::now();
                    let mut ids = Vec::new();
                    for frame in wave.chunks(256) {
                        ids.extend(
                            gateway
                                .inputs(frame.iter().map(|contact| step(*contact)).collect())
                                .await,
                        );
                    }
                    for id in ids {
                        while gateway.replied(id).is_none() {
                            tokio::time::sleep(Duration::from_micros(200)).await;
                        }
                    }
                    worst = worst.max(begun.elapsed());
                    inputs.fetch_add(wave.len() as u64, Ordering::Relaxed);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            }
            worst
        });
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let worst = tasks.join_all().await.into_iter().max().unwrap_or_default();
    let elapsed = start.elapsed().as_secs_f64();
    let total = inputs.load(Ordering::Relaxed);
    println!(
        "{total} inputs in {elapsed:.1} s: {:.0} inputs/s, {} at a time, worst wave {worst:?}",
        total as f64 / elapsed,
        callers
    );
    Ok(())
}
