//! A pool changes its owner: by a crash, by a drain.

mod common;

use std::time::Instant;

use common::{
    Gateway, LIMIT, POOL, Replica, agent_ready, contact_text, gap_free, input, now_ms, outbox,
    route,
};
use proto::event::v1::contact_event::Body as Event;
use proto::routing::v1;
use proto::routing::v1::input::Body;
use runtime::local::{Durability, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_is_replaced_and_the_waiting_call_keeps_its_place() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let config = routing::Config::for_test(&redis.url(), "takeover-kill");
    let first = Replica::start(config.clone()).await;
    let gateway = Gateway::link(&first.address, "gateway-1").await;
    let epoch = gateway.owned().await;
    let second = Replica::start(config).await;
    let other = Gateway::link(&second.address, "gateway-1").await;

    // Two wait; the older arrived a minute ago, and is asked for second.
    let (older, younger) = (0xa1, 0xb2);
    let arrived_at_ms = now_ms() - 60_000;
    for (contact, at_ms) in [(younger, now_ms()), (older, arrived_at_ms)] {
        let v1::reply::Body::Answer(answer) = gateway.ask(route(contact, at_ms)).await else {
            panic!("no answer")
        };
        assert!(
            matches!(answer.body, Some(v1::answer::Body::Queue(_))),
            "{answer:?}"
        );
    }
    assert!(matches!(
        other.ask(route(older, arrived_at_ms)).await,
        v1::reply::Body::NotOwner(_)
    ));
    first.kill();

    let higher = other.owned().await;
    assert!(higher > epoch, "{higher} after {epoch}");
    // Asked again at the new owner: the same decision, not a second place.
    let v1::reply::Body::Answer(again) = other.ask(route(older, arrived_at_ms)).await else {
        panic!("no answer")
    };
    let Some(v1::answer::Body::Queue(place)) = again.body else {
        panic!("{again:?}")
    };
    assert_eq!(place.position, 1, "the older call is first in line");
    for contact in [older, younger] {
        other
            .ask(input(contact, Body::AtQueue(v1::AtQueue {})))
            .await;
    }

    other.ask(agent_ready("agent-1")).await;
    wait_until("the agent gets a call", LIMIT, async || {
        !other.commands().is_empty()
    })
    .await
    .expect("a command");
    let commands = other.commands();
    assert_eq!(commands.len(), 1, "{commands:?}");
    assert_eq!(commands[0].contact_id, older.to_be_bytes().as_slice());
    let Some(v1::switch_command::Body::DeflectToAgent(agent)) = &commands[0].body else {
        panic!("{commands:?}")
    };
    let waited_ms = agent.context.as_ref().expect("a context").waited_ms;
    assert!(
        waited_ms >= 60_000,
        "waited since its arrival, not since the take-over: {waited_ms}"
    );

    let contacts = gap_free(outbox(&redis.url(), "takeover-kill").await);
    let events = &contacts[&contact_text(older)];
    let places: Vec<u64> = events
        .iter()
        .filter_map(|event| match &event.body {
            Some(Event::Queued(queued)) => Some(queued.place_from_ms),
            _ => None,
        })
        .collect();
    assert_eq!(
        places,
        [arrived_at_ms],
        "one place, counted from the arrival"
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event.body, Some(Event::Assigned(_))))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_owner_hands_over_long_before_its_lease_ends() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let mut config = routing::Config::for_test(&redis.url(), "takeover-drain");
    // Without an explicit hand-over this test would take a minute and fail.
    config.lease_ms = 60_000;
    let first = Replica::start(config.clone()).await;
    let gateway = Gateway::link(&first.address, "gateway-1").await;
    gateway.owned().await;
    let second = Replica::start(config).await;
    let other = Gateway::link(&second.address, "gateway-1").await;
    // Inputs under way while the drain begins: each is answered, here or "not the owner".
    let mut asked = Vec::new();
    for contact in 1..=200 {
        asked.extend(gateway.inputs(vec![route(contact, now_ms())]).await);
    }
    let start = Instant::now();
    first.drain().await;
    other.owned().await;
    let elapsed = start.elapsed();
    println!("hand-over took {elapsed:?}");
    assert!(elapsed < LIMIT);
    let mut accepted = Vec::new();
    for (id, contact) in asked.into_iter().zip(1u128..) {
        match gateway.replied(id) {
            Some(v1::reply::Body::Answer(_)) => accepted.push(contact),
            Some(v1::reply::Body::NotOwner(_)) | None => {}
            other => panic!("{other:?}"),
        }
    }
    // What was answered before is known to the new owner.
    let contacts = gap_free(outbox(&redis.url(), "takeover-drain").await);
    for contact in &accepted {
        assert!(
            contacts.contains_key(&contact_text(*contact)),
            "contact {contact} was answered and is lost"
        );
    }
    for contact in 1..=200 {
        let answer = other.ask(route(contact, now_ms())).await;
        assert!(matches!(answer, v1::reply::Body::Answer(_)), "{answer:?}");
    }
    let contacts = gap_free(outbox(&redis.url(), "takeover-drain").await);
    assert_eq!(contacts.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_fence_was_raised_steps_down_and_tells_its_peers() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let config = routing::Config::for_test(&redis.url(), "takeover-fence");
    let first = Replica::start(config.clone()).await;
    let gateway = Gateway::link(&first.address, "gateway-1").await;
    let epoch = gateway.owned().await;
    gateway.ask(route(1, now_ms())).await;
    // Somebody else, as if the lease had run out unnoticed.
    let mut connection = runtime::redis_store::connect(&redis.url(), 5_000).expect("a good url");
    let key = |what: &str| format!("{{takeover-fence:{POOL}}}:{what}");
    let () = redis::pipe()
        .atomic()
        .hset_multiple(
            key("fence"),
            &[
                ("epoch", (epoch + 1).to_string()),
                ("owner", "other".into()),
                ("batch", "0".into()),
            ],
        )
        .hset_multiple(
            key("lease"),
            &[
                ("epoch", (epoch + 1).to_string()),
                ("owner", "other".into()),
            ],
        )
        .query_async(&mut connection)
        .await
        .expect("redis answers");
    let before = outbox(&redis.url(), "takeover-fence").await.len();
    let reply = gateway.ask(route(2, now_ms())).await;
    assert!(matches!(reply, v1::reply::Body::NotOwner(_)), "{reply:?}");
    wait_until("ownership is withdrawn", LIMIT, async || {
        gateway.epoch().is_none()
    })
    .await
    .expect("withdrawn");
    assert_eq!(
        outbox(&redis.url(), "takeover-fence").await.len(),
        before,
        "nothing was written"
    );
    // The other one goes: the pool comes back, under a higher epoch.
    let () = redis::cmd("DEL")
        .arg(key("lease"))
        .query_async(&mut connection)
        .await
        .expect("answers");
    assert!(gateway.owned().await > epoch + 1);
    assert!(matches!(
        gateway.ask(route(2, now_ms())).await,
        v1::reply::Body::Answer(_)
    ));
}
