//! What the tests share: made-up contacts, outboxes and topics to put them on, and the
//! measures recomputed by the pure core to hold the counters against.

#![allow(
    dead_code,
    reason = "each test file uses its part, so an expectation would fail in one of them"
)]

pub(crate) mod contacts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::outcome::{
    Applied, ContactState, Counts, Effects, Grouping, Issue, IssueKey, Rules, Tally,
};
use domain::pool::Event;
use domain::{ContactId, TimeMs};
use outcomes::Config;
use prost::Message as _;
use proto::outcomes::v1::outcomes_service_client::OutcomesServiceClient;
use proto::outcomes::v1::{GetMeasuresRequest, GetProgressRequest, Grouping as WireGrouping};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use redis::aio::ConnectionManager;
use runtime::local::{Durability, RedisServer, wait_until};
use runtime::{Running, Shutdown};

pub(crate) const POOL: &str = "national";
/// How long a condition may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A private Redis, and names of our own on somebody's Kafka.
pub(crate) struct Stage {
    pub(crate) redis: RedisServer,
    pub(crate) brokers: String,
    pub(crate) prefix: String,
    pub(crate) topic: String,
}

impl Stage {
    pub(crate) async fn new(brokers: &str) -> Stage {
        let redis = RedisServer::start(Durability::EverySecond)
            .await
            .expect("a private redis");
        let unique = rand::random::<u32>();
        Stage {
            redis,
            brokers: brokers.to_owned(),
            prefix: format!("t{unique:08x}"),
            topic: format!("contact-{unique:08x}"),
        }
    }

    pub(crate) fn config(&self) -> Config {
        Config::for_test(&self.redis.url(), &self.brokers, &self.prefix, &self.topic)
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        runtime::redis_store::connect(&self.redis.url(), 2_000).expect("a redis URL")
    }

    /// Starts the role.
    pub(crate) async fn start(&self, change: impl FnOnce(&mut Config)) -> Role {
        let mut config = self.config();
        change(&mut config);
        let shutdown = Shutdown::new();
        let running = outcomes::start(config, shutdown.clone())
            .await
            .expect("the role starts");
        Role { running, shutdown }
    }

    /// Appends events to the pool's outbox as routing's script does.
    pub(crate) async fn write_outbox(&self, events: &[Event]) {
        let mut connection = self.connection();
        for events in events.chunks(500) {
            let mut pipeline = redis::pipe();
            pipeline
                .cmd("SADD")
                .arg(format!("{}:pools", self.prefix))
                .arg(POOL)
                .ignore();
            for event in events {
                pipeline
                    .cmd("XADD")
                    .arg(self.outbox())
                    .arg("*")
                    .arg("k")
                    .arg(event.contact.to_string())
                    .arg("s")
                    .arg(event.sequence)
                    .arg("v")
                    .arg(encode(event))
                    .arg("t")
                    .arg(&*event.traceparent)
                    .ignore();
            }
            let () = pipeline
                .query_async(&mut connection)
                .await
                .expect("redis is there");
        }
    }

    fn outbox(&self) -> String {
        format!("{{{}:{POOL}}}:outbox", self.prefix)
    }

    pub(crate) async fn outbox_entries(&self) -> u64 {
        redis::cmd("XLEN")
            .arg(self.outbox())
            .query_async(&mut self.connection())
            .await
            .unwrap_or(u64::MAX)
    }

    pub(crate) async fn until_outbox_is_empty(&self) {
        wait_until("the outbox is empty", LIMIT, || async {
            self.outbox_entries().await == 0
        })
        .await
        .expect("relayed");
    }

    /// Puts events on the topic directly.
    pub(crate) async fn produce(&self, events: &[Event]) {
        let payloads: Vec<(String, Vec<u8>)> = events
            .iter()
            .map(|event| (event.contact.to_string(), encode(event)))
            .collect();
        self.produce_raw(&payloads).await;
    }

    pub(crate) async fn produce_raw(&self, records: &[(String, Vec<u8>)]) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        for records in records.chunks(5_000) {
            let mut deliveries = Vec::new();
            for (key, payload) in records {
                let record = FutureRecord::to(&self.topic).key(key).payload(payload);
                deliveries.push(
                    producer
                        .send_result(record)
                        .map_err(|(error, _)| error)
                        .expect("room"),
                );
            }
            for delivery in deliveries {
                delivery.await.expect("an answer").expect("delivered");
            }
        }
        producer.flush(Duration::from_secs(10)).expect("flushed");
    }

    /// Every record of the topic, by partition.
    pub(crate) async fn read_topic(&self) -> Vec<TopicRecord> {
        let (brokers, topic) = (self.brokers.clone(), self.topic.clone());
        tokio::task::spawn_blocking(move || read_topic(&brokers, &topic))
            .await
            .expect("read")
    }

    /// The stored sums over all time.
    pub(crate) async fn stored(&self) -> BTreeMap<(Grouping, Arc<str>), Counts> {
        let mut totals = BTreeMap::new();
        for grouping in Grouping::ALL {
            let key = format!("{{{}:outcomes}}:total:{}", self.prefix, grouping.name());
            merge_hash(&mut self.connection(), &key, grouping, &mut totals).await;
        }
        totals
    }

    /// The stored sums over all half hours.
    pub(crate) async fn stored_half_hours(&self) -> BTreeMap<(Grouping, Arc<str>), Counts> {
        let mut totals = BTreeMap::new();
        for grouping in Grouping::ALL {
            let pattern = format!(
                "{{{}:outcomes}}:half-hour:*:{}",
                self.prefix,
                grouping.name()
            );
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg(pattern)
                .query_async(&mut self.connection())
                .await
                .expect("keys");
            for key in keys {
                merge_hash(&mut self.connection(), &key, grouping, &mut totals).await;
            }
        }
        totals
    }

    /// Waits until the stored sums are what the pure core makes of the events.
    pub(crate) async fn until_counted(&self, events: &[Event]) {
        let expected = recompute(events, &self.rules()).totals();
        let reached = wait_until("the counters are as recomputed", LIMIT, || async {
            self.stored().await == expected
        })
        .await;
        if reached.is_err() {
            explain(&expected, &self.stored().await);
        }
        assert!(
            self.stored_half_hours().await == expected,
            "half hours sum up to the totals"
        );
    }

    pub(crate) fn rules(&self) -> Rules {
        self.config().rules().expect("the built-in policy")
    }
}

async fn merge_hash(
    connection: &mut ConnectionManager,
    key: &str,
    grouping: Grouping,
    totals: &mut BTreeMap<(Grouping, Arc<str>), Counts>,
) {
    let fields: BTreeMap<String, i64> = redis::cmd("HGETALL")
        .arg(key)
        .query_async(connection)
        .await
        .unwrap_or_default();
    for (field, amount) in fields {
        let (group, slot) = field.split_once('|').expect("group|counter");
        let counts = totals.entry((grouping, Arc::from(group))).or_default();
        counts.add(slot.parse().expect("a known counter"), amount);
    }
    totals.retain(|_, counts| !counts.is_empty());
}

/// Says which sums differ, and fails.
pub(crate) fn explain(
    expected: &BTreeMap<(Grouping, Arc<str>), Counts>,
    stored: &BTreeMap<(Grouping, Arc<str>), Counts>,
) -> ! {
    let all = (Grouping::All, Arc::from(""));
    let none = Counts::default();
    let expected: BTreeMap<_, _> = expected.get(&all).unwrap_or(&none).iter().collect();
    let stored: BTreeMap<_, _> = stored.get(&all).unwrap_or(&none).iter().collect();
    let mut differences = Vec::new();
    for slot in expected.keys().chain(stored.keys()) {
        let (right, found) = (expected.get(slot), stored.get(slot));
        if right != found {
            differences.push(format!("{slot}: recomputed {right:?}, stored {found:?}"));
        }
    }
    differences.sort();
    differences.dedup();
    panic!("the counters differ:\n{}", differences.join("\n"));
}

/// A running role.
pub(crate) struct Role {
    pub(crate) running: Running,
    pub(crate) shutdown: Shutdown,
}

impl Role {
    pub(crate) async fn client(&self) -> OutcomesServiceClient<tonic::transport::Channel> {
        let address = self.running.grpc.expect("a gRPC port");
        let channel =
            runtime::grpc::connect_lazy(&address.to_string(), &runtime::TlsArgs::default())
                .expect("an address");
        OutcomesServiceClient::new(channel)
    }

    /// One measure over everything; `None`: not known.
    pub(crate) async fn measure(&self, name: &str) -> Option<f64> {
        let answer = self
            .client()
            .await
            .get_measures(GetMeasuresRequest::default())
            .await
            .expect("measures")
            .into_inner();
        let measure = answer.rows[0]
            .measures
            .iter()
            .find(|measure| measure.name == name);
        let measure = measure.expect("a measure of that name");
        (!measure.unknown).then_some(measure.value)
    }

    /// The groups of a grouping with one measure of each.
    pub(crate) async fn groups(&self, by: WireGrouping, name: &str) -> BTreeMap<String, f64> {
        let request = GetMeasuresRequest {
            grouping: by.into(),
            ..GetMeasuresRequest::default()
        };
        let answer = self
            .client()
            .await
            .get_measures(request)
            .await
            .expect("measures")
            .into_inner();
        answer
            .rows
            .into_iter()
            .map(|row| {
                let measure = row.measures.iter().find(|measure| measure.name == name);
                (row.group, measure.expect("a measure of that name").value)
            })
            .collect()
    }

    /// Applied and repeated, over all partitions.
    pub(crate) async fn progress(&self) -> (u64, u64) {
        let answer = self
            .client()
            .await
            .get_progress(GetProgressRequest {})
            .await
            .expect("progress")
            .into_inner();
        answer
            .partitions
            .iter()
            .fold((0, 0), |(applied, repeated), partition| {
                (applied + partition.applied, repeated + partition.repeated)
            })
    }

    /// `/ready` or `/metrics`: status line and body.
    pub(crate) async fn admin(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.running.admin)
            .await
            .expect("the admin port");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.admin("/ready").await.starts_with("HTTP/1.1 200")
    }

    pub(crate) async fn until_ready(&self) {
        wait_until("the role is ready", LIMIT, || self.is_ready())
            .await
            .expect("ready");
    }

    /// A counter or gauge on `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await;
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter(|line| {
                line.starts_with(&format!("trunkline_{name} "))
                    || line.starts_with(&format!("trunkline_{name}{{"))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Drains and ends.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.running.wait().await.expect("ended well");
    }
}

/// A record of the topic.
pub(crate) struct TopicRecord {
    pub(crate) key: String,
    pub(crate) event: Option<Event>,
    pub(crate) traceparent: Option<String>,
}

fn read_topic(brokers: &str, topic: &str) -> Vec<TopicRecord> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set(
            "group.id",
            format!("{topic}-reader-{}", rand::random::<u32>()),
        )
        .set("enable.partition.eof", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(10))
        .expect("metadata");
    let mut left = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), Duration::from_secs(10))
            .expect("watermarks");
        if high > low {
            left.insert(partition.id(), high);
        }
        assignment
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .expect("a partition");
    }
    consumer.assign(&assignment).expect("assigned");
    let mut records = Vec::new();
    let start = std::time::Instant::now();
    while !left.is_empty() {
        assert!(start.elapsed() < LIMIT, "reading the topic takes too long");
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let Ok(message) = message else { continue };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        records.push(TopicRecord {
            key: message.key().map(text).unwrap_or_default(),
            event: outcomes::decode(message.payload()).ok(),
            traceparent: message
                .headers()
                .and_then(|headers| headers.iter().find(|header| header.key == "traceparent"))
                .and_then(|header| header.value.map(text)),
        });
        if left
            .get(&message.partition())
            .is_some_and(|high| message.offset() + 1 >= *high)
        {
            left.remove(&message.partition());
        }
    }
    records
}

/// The events of a topic in the order of each contact's first appearances. Panics on a
/// hole, or on order broken within a contact.
pub(crate) fn unrepeated(records: &[TopicRecord]) -> (Vec<Event>, usize) {
    let mut last: BTreeMap<ContactId, u64> = BTreeMap::new();
    let mut events = Vec::new();
    let mut repeats = 0;
    for record in records {
        let event = record.event.clone().expect("a well-formed event");
        assert_eq!(
            record.key,
            event.contact.to_string(),
            "the key is the contact"
        );
        let last = last.entry(event.contact).or_default();
        if event.sequence <= *last {
            repeats += 1;
            continue;
        }
        assert_eq!(
            event.sequence,
            *last + 1,
            "contact {} has no hole",
            event.contact
        );
        *last = event.sequence;
        events.push(event);
    }
    (events, repeats)
}

pub(crate) fn encode(event: &Event) -> Vec<u8> {
    proto::convert::event::contact_event(POOL, event.clone()).encode_to_vec()
}

/// What the pure core makes of events, read from scratch.
pub(crate) fn recompute(events: &[Event], rules: &Rules) -> Tally {
    let mut states: BTreeMap<ContactId, ContactState> = BTreeMap::new();
    let mut issues: BTreeMap<IssueKey, Issue> = BTreeMap::new();
    let mut effects = Effects::default();
    for event in events {
        let applied = states
            .entry(event.contact)
            .or_default()
            .apply(event, rules, &mut effects);
        assert_ne!(applied, Applied::AfterClosed);
        for (key, visit) in std::mem::take(&mut effects.visits) {
            issues
                .entry(key)
                .or_default()
                .add(visit, &mut effects.tally);
        }
    }
    assert!(effects.violations.is_empty(), "{:?}", effects.violations);
    effects.tally
}

/// The machine's time.
pub(crate) fn now() -> TimeMs {
    runtime::Clock::new().now()
}
