//! A replica is lost between any two steps, Redis is killed, and nothing that was promised
//! is.

use bytes::Bytes;
use callback::{Faults, Point};
use futures::future::join_all;
use proto::callback::v1;
use proto::cti::v1::DialOutcome;
use proto::routing::v1::CallbackEnd;
use runtime::local::{Durability, RedisServer, wait_until};

use crate::routing::Routing;
use crate::switch::{Gateway, Phones, Plan};
use crate::world::{LIMIT, Replica, book, config, redis};

/// First attempt missed, second answered and connected.
fn second_time_lucky(dial: &v1::Dial) -> Plan {
    if dial.attempt == 1 {
        Plan::missed(DialOutcome::NoAnswer)
    } else {
        Plan::connected()
    }
}

/// Asks until somebody accepts: as a gateway does that lost an answer.
async fn book_until_accepted(gateway: &Gateway, request: &v1::Book) -> v1::Accepted {
    for _ in 0..1_000 {
        if let Some(v1::response::Body::Accepted(accepted)) = gateway.book(request.clone()).await {
            return accepted;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never accepted");
}

async fn lost_at(redis: &RedisServer, point: Point) {
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, second_time_lucky);
    let healthy = config(redis, &routing);
    let mut faulty = healthy.clone();
    faulty.faults = Faults::stop_at(point);
    let faults = faulty.faults.clone();
    let mut first = Replica::ready(faulty).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(first.address).await;
    let request = book();
    let asked = {
        let (gateway, request) = (gateway.clone(), request.clone());
        tokio::spawn(async move { gateway.book(request).await })
    };
    tokio::time::timeout(LIMIT, faults.reached())
        .await
        .unwrap_or_else(|_| panic!("{point:?} was never reached"));
    gateway.unlink();
    first.kill();
    let told = asked.await.expect("no panic");

    let second = Replica::ready(healthy).await;
    gateway.link(second.address).await;
    if !matches!(told, Some(v1::response::Body::Accepted(_))) {
        let accepted = book_until_accepted(&gateway, &request).await;
        assert!(
            !accepted.existing,
            "{point:?}: the same booking, not another one"
        );
    }
    wait_until("the booking ends", LIMIT, || async {
        !routing.ends(&request.contact_id).is_empty()
    })
    .await
    .unwrap_or_else(|error| panic!("{point:?}: {error}: {:?}", routing.model().entries));
    second.wait_state(&request.contact_id, "connected").await;
    assert_eq!(
        routing.ends(&request.contact_id),
        vec![i32::from(CallbackEnd::Connected)],
        "{point:?}"
    );
    assert_eq!(phones.state().faults, Vec::<String>::new(), "{point:?}");
    assert_eq!(routing.model().faults, Vec::<String>::new(), "{point:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_lost_between_any_two_steps_leaves_one_end_and_no_two_attempts_at_once() {
    let redis = redis().await;
    for points in Point::ALL.chunks(4) {
        join_all(points.iter().map(|point| lost_at(&redis, *point))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_accepted_a_moment_before_redis_is_killed_is_there_afterwards() {
    let mut redis = redis().await;
    let routing = Routing::start().await;
    routing.answer(false);
    let phones = Phones::new(&routing, second_time_lucky);
    let mut config = config(&redis, &routing);
    // Accepted at once: nothing must have had the time to become durable by chance.
    config.register_wait_ms = 0;
    let replica = Replica::ready(config).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;
    let mut accepted: Vec<(Bytes, String)> = Vec::new();
    for _ in 0..5 {
        let requests: Vec<v1::Book> = (0..8).map(|_| book()).collect();
        let answers = join_all(requests.iter().map(|request| gateway.book(request.clone()))).await;
        redis.kill9().await.expect("killed");
        for (request, answer) in requests.iter().zip(answers) {
            if let Some(v1::response::Body::Accepted(answer)) = answer {
                accepted.push((request.contact_id.clone(), answer.code));
            }
        }
        redis.restart().await.expect("restarted");
        replica.wait_ready().await;
    }
    assert_eq!(accepted.len(), 40);
    for (contact, _) in &accepted {
        let booking = replica.state(contact).await;
        assert!(booking.found && booking.state == "booked", "{booking:?}");
    }
    // And each is called, with the code that was spoken.
    routing.answer(true);
    for (contact, code) in &accepted {
        replica.wait_state(contact, "connected").await;
        let state = phones.state();
        let dials: Vec<&v1::Dial> = state
            .dials
            .iter()
            .filter(|dial| dial.contact_id == *contact)
            .collect();
        assert_eq!(dials.len(), 2);
        assert!(dials.iter().all(|dial| dial.code == *code));
    }
    assert_eq!(phones.state().faults, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_while_callbacks_are_made_costs_nobody_their_callback() {
    let mut redis = redis().await;
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, second_time_lucky);
    let replica = Replica::ready(config(&redis, &routing)).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;
    let requests: Vec<v1::Book> = (0..60).map(|_| book()).collect();
    for batch in requests.chunks(20) {
        join_all(
            batch
                .iter()
                .map(|request| gateway.accepted(request.clone())),
        )
        .await;
        redis.kill9().await.expect("killed");
        redis.restart().await.expect("restarted");
        replica.wait_ready().await;
    }
    for request in &requests {
        wait_until("it ends", LIMIT, || async {
            !routing.ends(&request.contact_id).is_empty()
        })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(routing.ends(&request.contact_id).len(), 1);
    }
    assert_eq!(phones.state().faults, Vec::<String>::new());
    assert_eq!(routing.model().faults, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_nothing_is_promised_and_ready_says_so() {
    let mut redis = redis().await;
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, |_| Plan::connected());
    let replica = Replica::ready(config(&redis, &routing)).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;
    redis.kill9().await.expect("killed");
    let refused = gateway.refused(book()).await;
    assert_eq!(refused.reason(), v1::RefusalReason::Unavailable);
    wait_until("/ready says so", LIMIT, || async {
        replica.readiness.check().is_err()
    })
    .await
    .expect("said");
    let refused = gateway.refused(book()).await;
    assert_eq!(refused.reason(), v1::RefusalReason::Unavailable);
    redis.restart().await.expect("restarted");
    replica.wait_ready().await;
    let request = book();
    gateway.accepted(request.clone()).await;
    replica.wait_state(&request.contact_id, "connected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_whose_answer_was_lost_with_redis_is_withdrawn() {
    let mut redis = redis().await;
    let routing = Routing::start().await;
    routing.give_turns(false);
    let phones = Phones::new(&routing, |_| Plan::connected());
    let mut config = config(&redis, &routing);
    config.book_timeout_ms = 600;
    config.redis_timeout_ms = 200;
    config.report_retry_ms = 5_000;
    let replica = Replica::ready(config).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;
    // Stopped, not killed: it reads the write, and does it, when it goes on.
    let pid = redis.pid().expect("runs").to_string();
    signal(&pid, "-STOP");
    let request = book();
    let refused = gateway.refused(request.clone()).await;
    assert_eq!(refused.reason(), v1::RefusalReason::Unavailable);
    signal(&pid, "-CONT");
    replica.wait_ready().await;
    wait_until("it is withdrawn, or never was", LIMIT, || async {
        let state = replica.state(&request.contact_id).await;
        !state.found || state.state == "cancelled"
    })
    .await
    .expect("withdrawn");
    assert_eq!(phones.dials(), 0);
    redis.kill9().await.expect("killed");
}

fn signal(pid: &str, signal: &str) {
    let status = std::process::Command::new("kill")
        .args([signal, pid])
        .status()
        .expect("kill runs");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_durable_is_refused_unless_that_is_wanted() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server starts");
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, |_| Plan::connected());
    let strict = config(&redis, &routing);
    let mut lenient = strict.clone();
    lenient.require_durable = false;
    let strict = Replica::start(strict).await;
    wait_until("/ready says why", LIMIT, || async {
        strict
            .readiness
            .check()
            .is_err_and(|reason| reason.contains("appendfsync always"))
    })
    .await
    .expect("said");
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(strict.address).await;
    assert_eq!(
        gateway.refused(book()).await.reason(),
        v1::RefusalReason::Unavailable
    );
    let lenient = Replica::ready(lenient).await;
    let other = Gateway::new("gateway-2", &["switch-1"], &phones);
    other.link(lenient.address).await;
    other.accepted(book()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_shared_handed_over_on_drain_and_taken_over_after_a_crash() {
    let redis = redis().await;
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, |_| Plan::connected());
    let config = config(&redis, &routing);
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::ready(config.clone()).await);
    }
    let shards = async |replica: &Replica| -> u32 {
        let metrics = replica.metrics().await;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("trunkline_callback_shards "))
            .expect("there");
        line.rsplit(' ')
            .next()
            .expect("a value")
            .parse()
            .expect("a number")
    };
    wait_until("each has its share", LIMIT, || async {
        let mut counts = Vec::new();
        for replica in &replicas {
            counts.push(shards(replica).await);
        }
        counts.iter().sum::<u32>() == 16 && counts.iter().all(|count| (4..=6).contains(count))
    })
    .await
    .expect("shared");
    // A booking taken by one replica is called by whichever has its shard, through the
    // gateway that is linked there.
    let gateways: Vec<Gateway> = (0..3)
        .map(|index| Gateway::new(&format!("gateway-{index}"), &["switch-1"], &phones))
        .collect();
    for (gateway, replica) in gateways.iter().zip(&replicas) {
        gateway.link(replica.address).await;
    }
    let first: Vec<v1::Book> = (0..24).map(|_| book()).collect();
    join_all(
        first
            .iter()
            .map(|request| gateways[0].accepted(request.clone())),
    )
    .await;
    for request in &first {
        replicas[1]
            .wait_state(&request.contact_id, "connected")
            .await;
    }
    let drained = replicas.remove(0);
    drained.shutdown.request();
    wait_until("the gateway is told", LIMIT, || async {
        gateways[0].was_told_to_drain()
    })
    .await
    .expect("told");
    let mut killed = replicas.remove(0);
    killed.kill();
    wait_until("the last one has all", LIMIT, || async {
        shards(&replicas[0]).await == 16
    })
    .await
    .expect("taken over");
    let last = book();
    gateways[2].accepted(last.clone()).await;
    replicas[0].wait_state(&last.contact_id, "connected").await;
    assert_eq!(phones.state().faults, Vec::<String>::new());
    assert_eq!(routing.model().faults, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_replicas_a_booking_is_accepted_when_they_have_it_and_refused_when_they_are_gone() {
    let (primary, mut second) = (redis().await, redis().await);
    let client = redis::Client::open(second.url()).expect("a url");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("it answers");
    let () = redis::cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg(primary.port())
        .query_async(&mut connection)
        .await
        .expect("it follows");
    let routing = Routing::start().await;
    routing.give_turns(false);
    let phones = Phones::new(&routing, |_| Plan::connected());
    let mut config = config(&primary, &routing);
    config.durable_replicas = 1;
    config.book_timeout_ms = 1_500;
    let replica = Replica::ready(config).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;
    let accepted = book();
    book_until_accepted(&gateway, &accepted).await;
    let records: Vec<String> = redis::cmd("KEYS")
        .arg("*:b:*")
        .query_async(&mut connection)
        .await
        .expect("keys");
    assert_eq!(records.len(), 1, "the replica has it");
    second.kill9().await.expect("killed");
    let lost = book();
    assert_eq!(
        gateway.refused(lost.clone()).await.reason(),
        v1::RefusalReason::Unavailable
    );
    wait_until("/ready says so", LIMIT, || async {
        replica
            .readiness
            .check()
            .is_err_and(|reason| reason.contains("replicas"))
    })
    .await
    .expect("said");
    wait_until("the one refused is withdrawn", LIMIT, || async {
        let state = replica.state(&lost.contact_id).await;
        !state.found || state.state == "cancelled"
    })
    .await
    .expect("withdrawn");
    assert_eq!(replica.state(&accepted.contact_id).await.state, "booked");
}
