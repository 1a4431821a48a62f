//! Redis dies, comes back, comes back without its last writes, or holds too much.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{
    Gateway, LIMIT, POOL, Replica, agent_ready, cleared, contact_text, gap_free, now_ms, outbox,
    route,
};
use proto::event::v1::contact_event::Body as Event;
use proto::routing::v1;
use runtime::local::{Durability, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_redis_is_killed_under_inputs() {
    let mut redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let url = redis.url();
    let replica = Replica::start(routing::Config::for_test(&url, "faults-kill")).await;
    let gateway = std::sync::Arc::new(Gateway::link(&replica.address, "gateway-1").await);
    gateway.owned().await;

    // 40 callers at a time; each arrives, waits, hangs up; what is not answered within a
    // moment, or answered with "not the owner", is asked again, as a gateway would.
    let stop = tokio_util::sync::CancellationToken::new();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..40u128 {
        let (gateway, stop) = (std::sync::Arc::clone(&gateway), stop.clone());
        callers.spawn(async move {
            let mut acknowledged = Vec::new();
            let mut contact = caller * 1_000_000;
            while !stop.is_cancelled() {
                contact += 1;
                if until_done(&gateway, &stop, || route(contact, now_ms())).await {
                    acknowledged.push((contact, false));
                }
                if until_done(&gateway, &stop, || cleared(contact)).await {
                    acknowledged.pop();
                    acknowledged.push((contact, true));
                }
            }
            acknowledged
        });
    }
    for round in 0..3 {
        let seen = outbox(&url, "faults-kill").await.len();
        wait_until("inputs flow", LIMIT, async || {
            outbox(&url, "faults-kill").await.len() > seen + 200
        })
        .await
        .unwrap_or_else(|error| panic!("round {round}: {error}"));
        redis.kill9().await.expect("kills");
        wait_until("/ready says so", LIMIT, async || {
            replica
                .readiness
                .check()
                .is_err_and(|reasons| reasons.contains("redis: "))
        })
        .await
        .expect("not ready");
        if round == 1 {
            // Longer than the lease: the owner steps down and takes it up again.
            wait_until("the owner steps down", LIMIT, async || {
                gateway.epoch().is_none()
            })
            .await
            .expect("steps down");
        }
        redis.restart().await.expect("starts");
        gateway.owned().await;
        wait_until("/ready again", LIMIT, async || {
            replica.readiness.check().is_ok()
        })
        .await
        .expect("ready");
    }
    stop.cancel();
    let acknowledged: Vec<(u128, bool)> = callers.join_all().await.into_iter().flatten().collect();
    println!(
        "{} contacts acknowledged over three kills of redis",
        acknowledged.len()
    );
    assert!(acknowledged.len() > 100);
    let contacts = gap_free(outbox(&url, "faults-kill").await);
    for (contact, over) in acknowledged {
        let events = contacts
            .get(&contact_text(contact))
            .unwrap_or_else(|| panic!("contact {contact} is lost"));
        assert!(matches!(events[0].body, Some(Event::Offered(_))));
        let offered = events
            .iter()
            .filter(|event| matches!(event.body, Some(Event::Offered(_))))
            .count();
        assert_eq!(offered, 1);
        let closed = events
            .iter()
            .any(|event| matches!(event.body, Some(Event::Abandoned(_))));
        assert_eq!(closed, over, "contact {contact}: {events:?}");
    }
}

/// Asks until it is acknowledged or answered; `false`: told to stop before.
async fn until_done(
    gateway: &Gateway,
    stop: &tokio_util::sync::CancellationToken,
    make: impl Fn() -> v1::Input,
) -> bool {
    loop {
        let id = gateway.inputs(vec![make()]).await[0];
        let waited = wait_until("a reply", Duration::from_millis(700), async || {
            gateway.replied(id).is_some()
        })
        .await;
        match (waited, gateway.replied(id)) {
            (_, Some(v1::reply::Body::Answer(_) | v1::reply::Body::Acknowledged(_))) => {
                return true;
            }
            (_, Some(v1::reply::Body::Refused(refused))) => panic!("{refused:?}"),
            (_, Some(v1::reply::Body::NotOwner(_))) => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            (_, None) => {}
        }
        if stop.is_cancelled() {
            return false;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_without_its_last_writes_is_given_them_again() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let url = redis.url();
    let replica = Replica::start(routing::Config::for_test(&url, "faults-lossy")).await;
    let gateway = Gateway::link(&replica.address, "gateway-1").await;
    let epoch = gateway.owned().await;
    for contact in 1..=20 {
        gateway.ask(route(contact, now_ms())).await;
    }
    let before = dump(&url).await;
    for contact in 21..=40 {
        gateway.ask(route(contact, now_ms())).await;
    }
    for contact in 1..=5 {
        gateway.ask(cleared(contact)).await;
    }
    let whole = outbox(&url, "faults-lossy").await;
    restore(&url, before).await;
    assert!(
        outbox(&url, "faults-lossy").await.len() < whole.len(),
        "redis has lost something"
    );
    gateway.ask(route(41, now_ms())).await;
    let again = outbox(&url, "faults-lossy").await;
    for event in &whole {
        assert!(again.contains(event), "{} is lost", event.event_id);
    }
    assert_eq!(gap_free(again).len(), 41);
    assert_eq!(gateway.epoch(), Some(epoch), "the owner stays");
    assert_eq!(replica.readiness.check(), Ok(()));
}

const KEYS: [&str; 5] = ["fence", "contacts", "agents", "meta", "outbox"];

async fn dump(url: &str) -> Vec<Option<Vec<u8>>> {
    let mut connection = runtime::redis_store::connect(url, 5_000).expect("a good url");
    let mut pipe = redis::pipe();
    pipe.atomic();
    for key in KEYS {
        pipe.cmd("DUMP")
            .arg(format!("{{faults-lossy:{POOL}}}:{key}"));
    }
    pipe.query_async(&mut connection)
        .await
        .expect("redis answers")
}

async fn restore(url: &str, dumps: Vec<Option<Vec<u8>>>) {
    let mut connection = runtime::redis_store::connect(url, 5_000).expect("a good url");
    let mut pipe = redis::pipe();
    pipe.atomic();
    for (key, dump) in KEYS.into_iter().zip(dumps) {
        let key = format!("{{faults-lossy:{POOL}}}:{key}");
        match dump {
            Some(dump) => pipe
                .cmd("RESTORE")
                .arg(key)
                .arg(0)
                .arg(dump)
                .arg("REPLACE")
                .ignore(),
            None => pipe.cmd("DEL").arg(key).ignore(),
        };
    }
    let () = pipe
        .query_async(&mut connection)
        .await
        .expect("redis answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_without_redis_says_so_and_owns_its_pools_when_it_comes() {
    let mut redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    redis.kill9().await.expect("kills");
    let replica = Replica::start(routing::Config::for_test(&redis.url(), "faults-late")).await;
    let gateway = Gateway::link(&replica.address, "gateway-1").await;
    let reply = gateway.ask(route(1, now_ms())).await;
    assert!(matches!(reply, v1::reply::Body::NotOwner(_)), "{reply:?}");
    assert!(
        replica
            .readiness
            .check()
            .is_err_and(|reasons| reasons.contains("redis: "))
    );
    redis.restart().await.expect("starts");
    gateway.owned().await;
    assert!(matches!(
        gateway.ask(route(1, now_ms())).await,
        v1::reply::Body::Answer(_)
    ));
    wait_until("ready", LIMIT, async || replica.readiness.check().is_ok())
        .await
        .expect("ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_sends_new_contacts_to_the_default_route_and_follows_the_known() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let url = redis.url();
    let mut config = routing::Config::for_test(&url, "faults-outbox");
    config.outbox_max = 10;
    let replica = Replica::start(config).await;
    let gateway = Gateway::link(&replica.address, "gateway-1").await;
    gateway.owned().await;
    let mut refused_from = None;
    for contact in 1..=20u128 {
        let v1::reply::Body::Answer(answer) = gateway.ask(route(contact, now_ms())).await else {
            panic!("no answer")
        };
        if matches!(answer.body, Some(v1::answer::Body::DefaultRoute(_))) {
            refused_from = Some(contact);
            break;
        }
    }
    let refused = refused_from.expect("the bound is met");
    let reasons = replica.readiness.check().expect_err("not ready");
    assert!(reasons.contains("outbox full"), "{reasons}");
    // The known are followed: asked again, and to their end.
    let again = gateway.ask(route(1, now_ms())).await;
    let v1::reply::Body::Answer(answer) = again else {
        panic!("{again:?}")
    };
    assert!(
        matches!(answer.body, Some(v1::answer::Body::Queue(_))),
        "{answer:?}"
    );
    assert!(matches!(
        gateway.ask(cleared(1)).await,
        v1::reply::Body::Acknowledged(_)
    ));
    let known: BTreeSet<String> = gap_free(outbox(&url, "faults-outbox").await)
        .into_keys()
        .collect();
    assert!(!known.contains(&contact_text(refused)));
    // The relay catches up.
    let mut connection = runtime::redis_store::connect(&url, 5_000).expect("a good url");
    let key = format!("{{faults-outbox:{POOL}}}:outbox");
    let () = redis::cmd("XTRIM")
        .arg(key)
        .arg("MAXLEN")
        .arg(0)
        .query_async(&mut connection)
        .await
        .expect("answers");
    wait_until("ready again", LIMIT, async || {
        replica.readiness.check().is_ok()
    })
    .await
    .expect("ready");
    let v1::reply::Body::Answer(answer) = gateway.ask(route(refused, now_ms())).await else {
        panic!("no answer")
    };
    assert!(
        matches!(answer.body, Some(v1::answer::Body::Queue(_))),
        "{answer:?}"
    );
    assert!(matches!(
        gateway.ask(agent_ready("agent-1")).await,
        v1::reply::Body::Acknowledged(_)
    ));
}
