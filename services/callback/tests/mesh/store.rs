//! What is in Redis: in one place each, sealed, and gone in the end.

use std::collections::BTreeMap;

use proto::callback::v1;
use runtime::local::wait_until;

use crate::routing::Routing;
use crate::switch::{Gateway, Phones, Plan};
use crate::world::{LIMIT, NUMBER, Replica, book, config, redis};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_booking_is_in_exactly_one_set_and_the_number_only_in_its_record() {
    let redis = redis().await;
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, |_| Plan::connected());
    let mut config = config(&redis, &routing);
    config.ended_ttl_ms = 1_000;
    let replica = Replica::ready(config).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;
    routing.give_turns(false);
    let requests: Vec<v1::Book> = (0..40).map(|_| book()).collect();
    futures::future::join_all(
        requests
            .iter()
            .map(|request| gateway.accepted(request.clone())),
    )
    .await;

    let client = redis::Client::open(redis.url()).expect("a url");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("it answers");
    let members = async |connection: &mut redis::aio::MultiplexedConnection| -> BTreeMap<String, Vec<String>> {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await.expect("keys");
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for key in keys {
            let set = key.rsplit(':').next().expect("a name").to_owned();
            if ["held", "due", "leased", "dead"].contains(&set.as_str()) {
                let members: Vec<String> =
                    redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).query_async(connection).await.expect("members");
                for member in members {
                    found.entry(member).or_default().push(set.clone());
                }
            }
        }
        found
    };
    let places = members(&mut connection).await;
    assert_eq!(places.len(), 40);
    assert!(places.values().all(|sets| *sets == ["held"]), "{places:?}");

    // The ciphertext is in the records' data and nowhere else; no key has any part of it.
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .expect("keys");
    for key in &keys {
        let dump: Vec<u8> = redis::cmd("DUMP")
            .arg(key)
            .query_async(&mut connection)
            .await
            .expect("a dump");
        let has = |text: &[u8]| dump.windows(text.len()).any(|window| window == text);
        let has_number = has(&NUMBER[..16]) || key.contains("number");
        assert!(!has_number || key.contains(":b:"), "{key}");
    }

    routing.give_turns(true);
    for request in &requests {
        replica.wait_state(&request.contact_id, "connected").await;
    }
    wait_until("records of ended bookings go", LIMIT, || async {
        let mut connection = connection.clone();
        let left: Vec<String> = redis::cmd("KEYS")
            .arg("*:b:*")
            .query_async(&mut connection)
            .await
            .expect("keys");
        left.is_empty()
    })
    .await
    .expect("gone");
    assert!(members(&mut connection).await.is_empty());
    for name in ["*:active", "*:codes", "*:reports"] {
        let left: Vec<String> = redis::cmd("KEYS")
            .arg(name)
            .query_async(&mut connection)
            .await
            .expect("keys");
        assert_eq!(left, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_put_aside_and_others_go_on() {
    let redis = redis().await;
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, |_| Plan::connected());
    let replica = Replica::ready(config(&redis, &routing)).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;
    routing.give_turns(false);
    let (broken, sound) = (book(), book());
    gateway.accepted(broken.clone()).await;
    let client = redis::Client::open(redis.url()).expect("a url");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("it answers");
    let records: Vec<String> = redis::cmd("KEYS")
        .arg("*:b:*")
        .query_async(&mut connection)
        .await
        .expect("keys");
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    let () = redis::cmd("HSET")
        .arg(record)
        .arg("data")
        .arg("junk")
        .query_async(&mut connection)
        .await
        .expect("set");
    // Make it overdue, so that the worker comes across it.
    let shard = record.split(":b:").next().expect("a tag");
    let member = record.rsplit(':').next().expect("a contact");
    let () = redis::cmd("ZADD")
        .arg(format!("{shard}:held"))
        .arg(1)
        .arg(member)
        .query_async(&mut connection)
        .await
        .expect("added");
    wait_until("it is among the dead", LIMIT, || async {
        let mut connection = connection.clone();
        let score: Option<f64> = redis::cmd("ZSCORE")
            .arg(format!("{shard}:dead"))
            .arg(member)
            .query_async(&mut connection)
            .await
            .expect("asked");
        score.is_some()
    })
    .await
    .expect("dead");
    routing.give_turns(true);
    gateway.accepted(sound.clone()).await;
    replica.wait_state(&sound.contact_id, "connected").await;
}
