//! The role against a real Apache Kafka, with processes, Kafka and Redis killed under it.
//! `make test` sets Kafka up and names it in `TRUNKLINE_KAFKA_HOME`.

mod support;

use std::process::Stdio;
use std::time::Duration;

use outcomes::Config;
use runtime::Shutdown;
use runtime::local::{KafkaServer, seed, wait_until};
use support::contacts::contacts;
use support::{LIMIT, Stage, now, unrepeated};

const CHILD: &str = "TRUNKLINE_TEST_OUTCOMES_CHILD";

async fn kafka() -> KafkaServer {
    assert!(
        std::env::var_os("TRUNKLINE_KAFKA_HOME").is_some(),
        "TRUNKLINE_KAFKA_HOME is not set: `make test` installs Apache Kafka and sets it; without it use `cargo test -p outcomes --test embedded`"
    );
    KafkaServer::start().await.expect("a private kafka")
}

/// The role as a process of its own, which can be killed.
struct Child(tokio::process::Child);

impl Child {
    fn start(stage: &Stage, half: &str, batch_max: usize) -> Child {
        let executable = std::env::current_exe().expect("this test");
        let settings = [
            stage.redis.url(),
            stage.brokers.clone(),
            stage.prefix.clone(),
            stage.topic.clone(),
            half.to_owned(),
            batch_max.to_string(),
        ];
        let child = tokio::process::Command::new(executable)
            .args([
                "--exact",
                "the_role_as_a_process_of_its_own",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD, settings.join(" "))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        Child(child)
    }

    async fn kill9(mut self) {
        self.0.kill().await.expect("killed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "no test: what the kill tests start as a process"]
async fn the_role_as_a_process_of_its_own() {
    let Ok(settings) = std::env::var(CHILD) else {
        return;
    };
    let settings: Vec<&str> = settings.split(' ').collect();
    let mut config = Config::for_test(settings[0], settings[1], settings[2], settings[3]);
    config.relay = settings[4] == "relay";
    config.consume = settings[4] == "consume";
    let batch_max = settings[5].parse().expect("a number");
    (config.relay_batch_max, config.consume_batch_max) = (batch_max, batch_max);
    outcomes::run(config, Shutdown::new())
        .await
        .expect("runs until it is killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_between_publishing_and_trimming_repeats_and_loses_nothing() {
    let kafka = kafka().await;
    let stage = Stage::new(&kafka.bootstrap()).await;
    let events = contacts(seed(), 2_000, now());
    let counting = stage.start(|config| config.consume = true).await;
    counting.until_ready().await;
    stage.write_outbox(&events[..events.len() / 2]).await;
    let all = events.len() as u64 / 2;
    let mut relay = Child::start(&stage, "relay", 50);
    for tenths in [8, 5, 2] {
        // Killed in the middle of the work, wherever that is.
        wait_until("some of it is trimmed", LIMIT, || async {
            stage.outbox_entries().await <= all * tenths / 10
        })
        .await
        .expect("relaying");
        relay.kill9().await;
        relay = Child::start(&stage, "relay", 50);
    }
    stage.until_outbox_is_empty().await;
    relay.kill9().await;
    // The sure case: published, and the outbox is as if it had never been trimmed.
    stage.write_outbox(&events[..200]).await;
    stage.write_outbox(&events[events.len() / 2..]).await;
    let relay = stage.start(|config| config.relay = true).await;
    stage.until_outbox_is_empty().await;
    relay.stop().await;

    let (published, repeats) = unrepeated(&stage.read_topic().await);
    assert_eq!(
        published.len(),
        events.len(),
        "every event is there, each contact's in order"
    );
    assert!(repeats >= 200, "{repeats}");
    stage.until_counted(&events).await;
    wait_until("the repeats are read", LIMIT, || async {
        counting.progress().await == (events.len() as u64, repeats as u64)
    })
    .await
    .expect("read");
    stage.until_counted(&events).await;
    counting.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_killed_in_the_middle_of_its_batches_counts_each_event_once() {
    let kafka = kafka().await;
    let stage = Stage::new(&kafka.bootstrap()).await;
    let events = contacts(seed(), 3_000, now());
    let relay = stage.start(|config| config.relay = true).await;
    relay.until_ready().await;
    stage.write_outbox(&events).await;
    stage.until_outbox_is_empty().await;
    let total = events.len() as u64;
    let mut consumer = Child::start(&stage, "consume", 20);
    for tenths in [2, 5, 8] {
        wait_until("some of it is counted", LIMIT, || async {
            relay.progress().await.0 >= total * tenths / 10
        })
        .await
        .expect("counting");
        consumer.kill9().await;
        consumer = Child::start(&stage, "consume", 20);
    }
    stage.until_counted(&events).await;
    consumer.kill9().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_killed_and_restarted_under_load_loses_nothing() {
    let mut kafka = kafka().await;
    let stage = Stage::new(&kafka.bootstrap()).await;
    let events = contacts(seed(), 2_000, now());
    let role = stage.start(|_| {}).await;
    role.until_ready().await;
    let quarter = events.len() / 4;
    stage.write_outbox(&events[..quarter]).await;
    kafka.kill9().await.expect("killed");
    stage.write_outbox(&events[quarter..2 * quarter]).await;
    wait_until("it says so", LIMIT, || async {
        let ready = role.admin("/ready").await;
        ready.starts_with("HTTP/1.1 503") && ready.contains("kafka:")
    })
    .await
    .expect("not ready");
    kafka.restart().await.expect("restarted");
    stage.write_outbox(&events[2 * quarter..]).await;
    stage.until_outbox_is_empty().await;
    stage.until_counted(&events).await;
    role.until_ready().await;
    let (published, _) = unrepeated(&stage.read_topic().await);
    assert_eq!(published.len(), events.len());
    assert!(role.metric("invariant_violations_total").await < 0.5);
    tokio::time::timeout(Duration::from_secs(60), role.stop())
        .await
        .expect("ends in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_restarted_under_relay_and_consumer_loses_nothing() {
    let kafka = kafka().await;
    let mut stage = Stage::new(&kafka.bootstrap()).await;
    let events = contacts(seed(), 2_000, now());
    let role = stage.start(|config| config.redis_timeout_ms = 500).await;
    role.until_ready().await;
    let half = events.len() / 2;
    stage.write_outbox(&events[..half]).await;
    stage.redis.kill9().await.expect("killed");
    stage.redis.restart().await.expect("restarted");
    // Routing plays its last second again: an entry can be there twice.
    stage.write_outbox(&events[..half]).await;
    stage.write_outbox(&events[half..]).await;
    stage.until_outbox_is_empty().await;
    stage.until_counted(&events).await;
    let (published, _) = unrepeated(&stage.read_topic().await);
    assert_eq!(published.len(), events.len());
    role.until_ready().await;
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_is_created_with_its_partitions_and_shared_by_two_consumers() {
    let kafka = kafka().await;
    let stage = Stage::new(&kafka.bootstrap()).await;
    let events = contacts(seed(), 1_000, now());
    let one = stage
        .start(|config| (config.partitions, config.consume) = (6, true))
        .await;
    let other = stage
        .start(|config| (config.partitions, config.consume) = (6, true))
        .await;
    one.until_ready().await;
    other.until_ready().await;
    wait_until("they share the partitions", LIMIT, || async {
        let partitions = [
            one.metric("outcomes_consumer_partitions").await,
            other.metric("outcomes_consumer_partitions").await,
        ];
        partitions
            .iter()
            .all(|partitions| (partitions - 3.0).abs() < 0.5)
    })
    .await
    .expect("shared");
    stage.produce(&events).await;
    stage.until_counted(&events).await;
    one.stop().await;
    other.stop().await;
}
