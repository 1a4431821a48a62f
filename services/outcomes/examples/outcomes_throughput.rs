//! How many events a second the relay and the consumer move, each alone, on a private
//! Redis. Kafka: `TRUNKLINE_KAFKA_BROKERS`, or librdkafka's in-process broker.
//!
//! `cargo run --release -p outcomes --example outcomes_throughput [contacts]`

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use rdkafka::mocking::MockCluster;
use support::contacts::{Crowd, crowded};
use support::{Stage, now};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let count = std::env::args()
        .nth(1)
        .map_or(Ok(30_000), |text| text.parse())?;
    let cluster = MockCluster::new(1)?;
    let brokers =
        std::env::var("TRUNKLINE_KAFKA_BROKERS").unwrap_or_else(|_| cluster.bootstrap_servers());
    let stage = Stage::new(&brokers).await;
    let until = now();
    // A busy half hour of callers who hardly ever come twice.
    let crowd = Crowd {
        from: until.minus(1_800_000),
        until,
        callers: u128::MAX,
    };
    let events = crowded(1, count, crowd);
    let settings = |config: &mut outcomes::Config| {
        (config.partitions, config.relay_poll_ms) = (12, 20);
    };
    stage.write_outbox(&events).await;
    let start = Instant::now();
    let relay = stage
        .start(|config| {
            settings(config);
            config.relay = true;
        })
        .await;
    relay.until_ready().await;
    let begun = (stage.outbox_entries().await, start.elapsed());
    stage.until_outbox_is_empty().await;
    report("relay", begun.0, (start.elapsed() - begun.1).as_secs_f64());
    relay.stop().await;
    let start = Instant::now();
    let consumer = stage
        .start(|config| {
            settings(config);
            config.consume = true;
        })
        .await;
    while consumer.progress().await.0 == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let begun = start.elapsed();
    while consumer.progress().await.0 < events.len() as u64 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    report(
        "consumer",
        events.len() as u64,
        (start.elapsed() - begun).as_secs_f64(),
    );
    let batches = consumer.metric("outcomes_consumer_batches_total").await;
    println!("consumer: {batches} batches");
    let statistics: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut stage.connection())
        .await?;
    for line in statistics
        .lines()
        .filter(|line| line.starts_with("cmdstat_eval"))
    {
        println!("redis: {line}");
    }
    consumer.stop().await;
    Ok(())
}

fn report(what: &str, events: u64, seconds: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let rate = events as f64 / seconds;
    println!("{what}: {events} events in {seconds:.2} s, {rate:.0}/s");
}
