//! The store against a real Redis.

use runtime::local::{Durability, RedisServer};

use super::*;

struct Bench {
    redis: RedisServer,
}

impl Bench {
    async fn new() -> Self {
        Self {
            redis: RedisServer::start(Durability::EverySecond)
                .await
                .expect("redis-server"),
        }
    }

    fn store(&self, owner: &str, lease_ms: u64) -> PoolStore {
        let connection =
            runtime::redis_store::connect(&self.redis.url(), 5_000).expect("a good url");
        let owner = Owner {
            name: owner.to_owned(),
            address: "127.0.0.1:1".to_owned(),
            lease_ms,
        };
        PoolStore::new(connection, "store-test", "pool", owner)
    }

    async fn command(&self, words: &[&str]) -> i64 {
        let mut connection =
            runtime::redis_store::connect(&self.redis.url(), 5_000).expect("a good url");
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command
            .query_async(&mut connection)
            .await
            .expect("redis answers")
    }
}

async fn acquire(store: &PoolStore) -> u64 {
    match store.acquire().await.expect("redis answers") {
        Acquired::New { epoch } => epoch,
        Acquired::Held { owner } => panic!("held by {owner}"),
    }
}

fn batch(first: u128, number: u128) -> Batch {
    let mut batch = Batch::default();
    for id in first..first + number {
        batch
            .contacts
            .push((ContactId(id), id.to_string().into_bytes()));
        batch.events.push(OutboxEntry {
            contact: ContactId(id),
            sequence: 1,
            bytes: vec![0, 255, b'\r', b'\n'],
            traceparent: String::new(),
        });
    }
    batch
}

const OUTBOX: &str = "{store-test:pool}:outbox";
const LEASE: &str = "{store-test:pool}:lease";

#[tokio::test]
async fn a_deposed_owner_writes_nothing() {
    let bench = Bench::new().await;
    let (first, second) = (bench.store("a", 60_000), bench.store("b", 60_000));
    let epoch = acquire(&first).await;
    let commit = first.encode(epoch, 1, TimeMs(5), &batch(1, 2));
    assert_eq!(
        first.commit(&commit).await.expect("answers"),
        Committed::Applied { outbox_events: 2 }
    );
    assert!(matches!(second.acquire().await, Ok(Acquired::Held { owner }) if owner == "a"));
    // The lease runs out while the owner is away.
    bench.command(&["DEL", LEASE]).await;
    let higher = acquire(&second).await;
    assert!(higher > epoch);
    let late = first.encode(epoch, 2, TimeMs(6), &batch(10, 5));
    assert_eq!(
        first.commit(&late).await.expect("answers"),
        Committed::Deposed { epoch: higher }
    );
    assert!(!first.renew(epoch).await.expect("answers"));
    assert!(!first.release(epoch).await.expect("answers"));
    assert_eq!(bench.command(&["XLEN", OUTBOX]).await, 2);
    let loaded = second.load().await.expect("loads");
    assert_eq!(loaded.contacts.len(), 2);
    assert_eq!(loaded.now, TimeMs(5));
}

#[tokio::test]
async fn the_same_commit_sent_again_is_applied_once() {
    let bench = Bench::new().await;
    let store = bench.store("a", 60_000);
    let epoch = acquire(&store).await;
    let commit = store.encode(epoch, 1, TimeMs(5), &batch(1, 3));
    for _ in 0..3 {
        assert_eq!(
            store.commit(&commit).await.expect("answers"),
            Committed::Applied { outbox_events: 3 }
        );
    }
    assert_eq!(bench.command(&["XLEN", OUTBOX]).await, 3);
}

#[tokio::test]
async fn a_hole_before_a_batch_is_told_and_nothing_is_written() {
    let bench = Bench::new().await;
    let store = bench.store("a", 60_000);
    let epoch = acquire(&store).await;
    let first = store.encode(epoch, 1, TimeMs(5), &batch(1, 1));
    store.commit(&first).await.expect("answers");
    let third = store.encode(epoch, 3, TimeMs(7), &batch(3, 1));
    assert_eq!(
        store.commit(&third).await.expect("answers"),
        Committed::Gap { stored: 1 }
    );
    assert_eq!(bench.command(&["XLEN", OUTBOX]).await, 1);
}

#[tokio::test]
async fn a_batch_of_thousands_is_written_and_loaded_whole() {
    let bench = Bench::new().await;
    let store = bench.store("a", 60_000);
    let epoch = acquire(&store).await;
    let mut big = batch(1, 6_000);
    big.agents = (0..2_500)
        .map(|agent| (format!("agent-{agent}"), vec![1, 2, 3]))
        .collect();
    big.meta = Some(vec![9, 9]);
    let commit = store.encode(epoch, 1, TimeMs(5), &big);
    assert_eq!(
        store.commit(&commit).await.expect("answers"),
        Committed::Applied {
            outbox_events: 6_000
        }
    );
    let gone = Batch {
        contacts_gone: (1..=3_000).map(ContactId).collect(),
        agents_gone: vec!["agent-7".to_owned()],
        ..Batch::default()
    };
    let commit = store.encode(epoch, 2, TimeMs(6), &gone);
    assert_eq!(
        store.commit(&commit).await.expect("answers"),
        Committed::Applied {
            outbox_events: 6_000
        }
    );
    let loaded = store.load().await.expect("loads");
    assert_eq!((loaded.contacts.len(), loaded.agents.len()), (3_000, 2_499));
    assert_eq!(
        loaded.contacts.get(ContactId(4_000).to_string().as_bytes()),
        Some(&b"4000".to_vec())
    );
    assert_eq!(loaded.meta, Some(vec![9, 9]));
}

#[tokio::test]
async fn a_pool_given_up_is_free_at_once_and_one_forgotten_is_taken_up_again() {
    let bench = Bench::new().await;
    let (first, second) = (bench.store("a", 60_000), bench.store("b", 60_000));
    let epoch = acquire(&first).await;
    // Ran out unnoticed; nobody took over.
    bench.command(&["DEL", LEASE]).await;
    assert!(first.renew(epoch).await.expect("answers"));
    assert!(matches!(second.acquire().await, Ok(Acquired::Held { .. })));
    assert!(first.release(epoch).await.expect("answers"));
    let higher = acquire(&second).await;
    assert!(higher > epoch);
    assert_eq!(
        bench
            .command(&["SISMEMBER", "store-test:pools", "pool"])
            .await,
        1
    );
}

#[tokio::test]
async fn epochs_rise_even_over_a_redis_that_came_back_empty() {
    let bench = Bench::new().await;
    let (first, second) = (bench.store("a", 60_000), bench.store("b", 60_000));
    let epoch = acquire(&first).await;
    let mut connection =
        runtime::redis_store::connect(&bench.redis.url(), 5_000).expect("a good url");
    let () = redis::cmd("FLUSHALL")
        .query_async(&mut connection)
        .await
        .expect("answers");
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let higher = acquire(&second).await;
    assert!(higher > epoch, "{higher} after {epoch}");
    let commit = first.encode(epoch, 1, TimeMs(5), &batch(1, 1));
    assert_eq!(
        first.commit(&commit).await.expect("answers"),
        Committed::Deposed { epoch: higher }
    );
}
