//! The role on a real Redis and librdkafka's in-process broker, which `trunkline dev` uses.

mod support;

use std::time::Duration;

use proto::outcomes::v1::{GetMeasuresRequest, Grouping as WireGrouping};
use rdkafka::mocking::MockCluster;
use runtime::local::{seed, wait_until};
use support::contacts::{contacts, trace};
use support::{LIMIT, Stage, now, recompute, unrepeated};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_from_the_outbox_over_the_topic_into_the_measures() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 300, now());
    let role = stage.start(|_| {}).await;
    role.until_ready().await;
    stage.write_outbox(&events).await;
    stage.until_outbox_is_empty().await;
    stage.until_counted(&events).await;

    let records = stage.read_topic().await;
    let (published, repeats) = unrepeated(&records);
    assert_eq!((published.len(), repeats), (events.len(), 0));
    let first = records.iter().find(|record| {
        record
            .event
            .as_ref()
            .is_some_and(|event| event.sequence == 1)
    });
    let first = first.expect("a first event");
    let contact = first.event.as_ref().expect("an event").contact;
    assert_eq!(
        first.traceparent,
        Some(trace(contact)),
        "the trace goes on the record"
    );

    let offered = role.measure("offered").await.expect("known");
    assert!((offered - 300.0).abs() < f64::EPSILON, "{offered}");
    for by in [
        WireGrouping::Line,
        WireGrouping::Topic,
        WireGrouping::Queue,
        WireGrouping::Language,
        WireGrouping::Channel,
    ] {
        let groups = role.groups(by, "offered").await;
        let sum: f64 = groups.values().sum();
        assert!((sum - 300.0).abs() < f64::EPSILON, "{by:?}: {groups:?}");
    }
    let half_hours = role.groups(WireGrouping::Interval, "offered").await;
    assert!(half_hours.len() > 10, "{half_hours:?}");
    assert!((half_hours.values().sum::<f64>() - 300.0).abs() < f64::EPSILON);
    let (applied, repeated) = role.progress().await;
    assert_eq!((applied, repeated), (events.len() as u64, 0));
    wait_until("the gauges show it", LIMIT, || async {
        let text = role.admin("/metrics").await;
        text.contains("trunkline_outcomes_measure{measure=\"offered\",by=\"all\",group=\"\"} 300.0")
    })
    .await
    .expect("shown");
    assert!(role.metric("invariant_violations_total").await < 0.5);
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_of_time_is_summed_over_its_half_hours_and_a_bad_one_is_named() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let now = now();
    let events = contacts(seed(), 200, now);
    let role = stage.start(|config| config.consume = true).await;
    role.until_ready().await;
    stage.produce(&events).await;
    stage.until_counted(&events).await;
    let mut client = role.client().await;
    let from_ms = (now.0 - 24 * 3_600_000) / 1_800_000 * 1_800_000;
    let request = GetMeasuresRequest {
        from_ms,
        until_ms: now.0,
        ..GetMeasuresRequest::default()
    };
    let answer = client
        .get_measures(request)
        .await
        .expect("measures")
        .into_inner();
    let expected = events
        .iter()
        .filter(|event| event.sequence == 1 && event.arrived_at.0 >= from_ms)
        .count();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let expected = expected as f64;
    assert!((answer.rows[0].measures[0].value - expected).abs() < f64::EPSILON);
    assert!(expected > 0.0 && expected < 200.0);

    let too_old = GetMeasuresRequest {
        from_ms: 1,
        ..GetMeasuresRequest::default()
    };
    let refused = client.get_measures(too_old).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(
        refused
            .message()
            .starts_with("from_ms: 1 is outside the limit"),
        "{refused}"
    );
    let backwards = GetMeasuresRequest {
        from_ms: now.0 - 9,
        until_ms: now.0 - 10,
        ..GetMeasuresRequest::default()
    };
    let refused = client.get_measures(backwards).await.expect_err("refused");
    assert!(refused.message().starts_with("until_ms:"), "{refused}");
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_again_counts_once_and_what_is_malformed_blocks_nothing() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 150, now());
    let role = stage.start(|config| config.consume = true).await;
    role.until_ready().await;
    let key = events[0].contact.to_string();
    stage.produce(&events[..events.len() / 2]).await;
    let malformed = [
        (key.clone(), b"555-0100 is no event".to_vec()),
        (key.clone(), Vec::new()),
        (key, vec![0xff; 2_000]),
    ];
    stage.produce_raw(&malformed).await;
    stage.produce(&events).await;
    stage.produce(&events).await;
    stage.until_counted(&events).await;
    let total = (events.len() * 2 + events.len() / 2) as u64;
    wait_until("all is read", LIMIT, || async {
        let (applied, repeated) = role.progress().await;
        applied + repeated == total
    })
    .await
    .expect("read");
    stage.until_counted(&events).await;
    assert_eq!(role.progress().await.0, events.len() as u64);
    let text = role.admin("/metrics").await;
    assert!(
        text.contains("trunkline_outcomes_consumer_events_total{result=\"Malformed\"} 3"),
        "{text}"
    );
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_is_a_broken_promise_that_is_told_and_the_rest_still_counts() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 20, now());
    let role = stage.start(|config| config.consume = true).await;
    role.until_ready().await;
    let lost = events
        .iter()
        .position(|event| event.sequence == 1)
        .expect("a first event");
    let mut holed = events.clone();
    holed.remove(lost);
    stage.produce(&holed).await;
    wait_until("all is read", LIMIT, || async {
        role.progress().await.0 == holed.len() as u64
    })
    .await
    .expect("read");
    assert!((role.measure("offered").await.expect("known") - 20.0).abs() < f64::EPSILON);
    let violations = role.metric("invariant_violations_total").await;
    assert!((violations - 1.0).abs() < f64::EPSILON, "{violations}");
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_was_taken_for_dead_cannot_count_a_second_time() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 1_500, now());
    // Two groups: each believes that every partition is its own, all the time.
    let one = stage
        .start(|config| (config.consume, config.consume_batch_max) = (true, 37))
        .await;
    let other = stage
        .start(|config| {
            (config.consume, config.consume_batch_max) = (true, 41);
            config.group.push_str("-other");
        })
        .await;
    one.until_ready().await;
    other.until_ready().await;
    for part in events.chunks(events.len() / 7) {
        stage.produce(part).await;
    }
    stage.until_counted(&events).await;
    assert_eq!(
        one.progress().await,
        (events.len() as u64, 0),
        "each event was applied once"
    );
    let conflicts = one.metric("outcomes_consumer_conflicts_total").await
        + other.metric("outcomes_consumer_conflicts_total").await;
    assert!(conflicts > 0.0, "they got in each other's way");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_replaced_again_and_again_counts_each_event_once() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 1_000, now());
    let mut roles = vec![
        stage
            .start(|config| (config.consume, config.consume_batch_max) = (true, 50))
            .await,
    ];
    roles[0].until_ready().await;
    for part in events.chunks(events.len() / 5) {
        stage.produce(part).await;
        // A second member joins, the first leaves: partitions move twice.
        roles.push(
            stage
                .start(|config| (config.consume, config.consume_batch_max) = (true, 50))
                .await,
        );
        roles.remove(0).stop().await;
    }
    stage.until_counted(&events).await;
    for role in roles {
        role.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_loses_no_count() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let mut stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 1_200, now());
    let role = stage
        .start(|config| {
            (config.consume, config.consume_batch_max) = (true, 100);
            config.redis_timeout_ms = 500;
        })
        .await;
    role.until_ready().await;
    let third = events.len() / 3;
    stage.produce(&events[..third]).await;
    stage.redis.kill9().await.expect("killed");
    wait_until("it says so", LIMIT, || async {
        let ready = role.admin("/ready").await;
        ready.starts_with("HTTP/1.1 503") && ready.contains("redis for the counters")
    })
    .await
    .expect("not ready");
    stage.produce(&events[third..2 * third]).await;
    stage.redis.restart().await.expect("restarted");
    stage.produce(&events[2 * third..]).await;
    stage.until_counted(&events).await;
    role.until_ready().await;
    // And when it comes back empty, everything is counted from the log again.
    let () = redis::cmd("FLUSHALL")
        .query_async(&mut stage.connection())
        .await
        .expect("flushed");
    stage.until_counted(&events).await;
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_measures_recomputed_from_the_topic_are_the_counters() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 800, now());
    let role = stage.start(|_| {}).await;
    role.until_ready().await;
    stage.write_outbox(&events).await;
    stage.until_outbox_is_empty().await;
    stage.until_counted(&events).await;
    // Partition by partition, not in the order in which they were written.
    let mut records = stage.read_topic().await;
    let (read, _) = unrepeated(&records);
    let expected = recompute(&read, &stage.rules()).totals();
    assert!(stage.stored().await == expected);
    records.reverse();
    assert!(records.len() == events.len());
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kafka_is_away_events_wait_and_nothing_is_lost() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 400, now());
    let role = stage.start(|_| {}).await;
    role.until_ready().await;
    let third = events.len() / 3;
    stage.write_outbox(&events[..third]).await;
    stage.until_outbox_is_empty().await;
    cluster.broker_down(-1).expect("down");
    stage.write_outbox(&events[third..2 * third]).await;
    wait_until("it says so", LIMIT, || async {
        let ready = role.admin("/ready").await;
        ready.starts_with("HTTP/1.1 503") && ready.contains("kafka:")
    })
    .await
    .expect("not ready");
    stage.write_outbox(&events[2 * third..]).await;
    assert!(
        stage.outbox_entries().await >= (events.len() - third) as u64,
        "nothing is trimmed"
    );
    cluster.broker_up(-1).expect("up");
    stage.until_outbox_is_empty().await;
    stage.until_counted(&events).await;
    role.until_ready().await;
    let (published, _) = unrepeated(&stage.read_topic().await);
    assert_eq!(published.len(), events.len());
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_share_the_work_and_the_second_takes_over_when_the_first_leaves() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 400, now());
    let first = stage.start(|config| config.relay = true).await;
    let second = stage.start(|config| config.relay = true).await;
    first.until_ready().await;
    second.until_ready().await;
    stage.write_outbox(&events[..events.len() / 2]).await;
    stage.until_outbox_is_empty().await;
    let leased = first.metric("outcomes_outboxes_leased").await
        + second.metric("outcomes_outboxes_leased").await;
    assert!(leased < 1.5, "one relay an outbox: {leased}");
    first.stop().await;
    stage.write_outbox(&events[events.len() / 2..]).await;
    stage.until_outbox_is_empty().await;
    second.stop().await;
    let (published, repeats) = unrepeated(&stage.read_topic().await);
    assert_eq!(
        (published.len(), repeats),
        (events.len(), 0),
        "an orderly end repeats nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_entry_that_is_no_event_is_passed_over_and_counted() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 10, now());
    let () = redis::cmd("XADD")
        .arg(format!("{{{}:{}}}:outbox", stage.prefix, support::POOL))
        .arg("*")
        .arg("x")
        .arg("y")
        .query_async::<String>(&mut stage.connection())
        .await
        .map(|_| ())
        .expect("added");
    let role = stage.start(|config| config.relay = true).await;
    stage.write_outbox(&events).await;
    stage.until_outbox_is_empty().await;
    assert!((role.metric("outcomes_relay_unreadable_total").await - 1.0).abs() < f64::EPSILON);
    let (published, _) = unrepeated(&stage.read_topic().await);
    assert_eq!(published.len(), events.len());
    tokio::time::timeout(Duration::from_secs(30), role.stop())
        .await
        .expect("ends in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_ends_in_time_while_kafka_is_away_and_its_events_wait_for_the_next() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let stage = Stage::new(&cluster.bootstrap_servers()).await;
    let events = contacts(seed(), 200, now());
    let role = stage.start(|_| {}).await;
    role.until_ready().await;
    cluster.broker_down(-1).expect("down");
    stage.write_outbox(&events).await;
    wait_until("events are in flight", LIMIT, || async {
        role.metric("outcomes_relay_in_flight").await > 0.0
    })
    .await
    .expect("in flight");
    tokio::time::timeout(Duration::from_secs(30), role.stop())
        .await
        .expect("ends in time");
    cluster.broker_up(-1).expect("up");
    let next = stage.start(|_| {}).await;
    stage.until_outbox_is_empty().await;
    stage.until_counted(&events).await;
    next.stop().await;
}
