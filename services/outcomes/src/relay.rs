//! The relay: what the pools wrote into their outboxes goes to Kafka, in order, at least
//! once, and is trimmed only when Kafka has acknowledged it.
//!
//! Whatever is in an outbox stream is unpublished, as far as anybody knows: a relay
//! starts at its first entry. So a relay that dies between acknowledgement and trim
//! leaves repeats on the topic and never a hole, and the consumer drops repeats.
//!
//! Why the order per contact holds: the producer is idempotent, never gives a record up
//! and publishes each outbox in the order of its entries. A second relay that takes an
//! outbox over starts at or before the first one's place, so the *first* appearance of a
//! contact's events on the topic is in order, whoever wrote which. The lease only saves
//! work; correctness does not rest on it, nor does trimming, since only acknowledged
//! entries from the front on are trimmed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureRecord, Producer as _};
use runtime::{Backoff, Condition, LogLimit, Shutdown};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Config;
use crate::kafka::Producers;
use crate::metrics::{Failure, FailureLabels, Metrics, PoolLabels};
use crate::outbox::{Entry, Outbox, Outboxes};

/// How often new pools are looked for and free leases taken.
const DISCOVER_EVERY: Duration = Duration::from_millis(500);
/// Pools relayed by one replica.
const POOLS_MAX: usize = 1_024;
/// Records this old and unacknowledged are worth a word on `/ready`.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// How long the end waits for acknowledgements before the outbox is given up: what is not
/// acknowledged stays in it.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What all outboxes' tasks share.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) config: Config,
    pub(crate) outboxes: Outboxes,
    pub(crate) producers: Arc<Producers>,
    pub(crate) metrics: Metrics,
    /// Redis, for `/ready`.
    pub(crate) redis: Condition,
    pub(crate) stalled: Arc<Stalled>,
    pub(crate) limit: Arc<LogLimit>,
}

/// Pools of which Kafka has acknowledged nothing for long, for `/ready`.
#[derive(Debug)]
pub(crate) struct Stalled {
    condition: Condition,
    pools: Mutex<BTreeSet<String>>,
}

impl Stalled {
    pub(crate) fn new(condition: Condition) -> Self {
        condition.ready();
        Self {
            condition,
            pools: Mutex::default(),
        }
    }

    fn set(&self, pool: &str, stalled: bool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = if stalled {
            pools.insert(pool.to_owned())
        } else {
            pools.remove(pool)
        };
        if !changed {
            return;
        }
        match pools.first() {
            None => self.condition.ready(),
            Some(pool) => self.condition.not_ready(format!(
                "pool {pool} and {} more: kafka has acknowledged nothing for {} s",
                pools.len() - 1,
                STALLED_AFTER.as_secs()
            )),
        }
    }
}

impl Relay {
    /// Relays every outbox it can lease, until the drain.
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut tasks: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
        let mut backoff = Backoff::new(50, 2_000);
        while !shutdown.is_requested() {
            tasks.retain(|_, task| !task.is_finished());
            let pause = match self.take_free(&mut tasks, &shutdown).await {
                Ok(()) => {
                    self.redis.ready();
                    backoff.reset();
                    DISCOVER_EVERY
                }
                Err(error) => {
                    self.redis_failed(&error);
                    backoff.next_delay()
                }
            };
            self.metrics
                .outboxes_leased
                .set(i64::try_from(tasks.len()).unwrap_or(i64::MAX));
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        for (_, task) in tasks {
            // A task that was lost has lost nothing: its outbox is as it was.
            let _ = task.await;
        }
        Ok(())
    }

    /// Starts a task for each pool whose lease is free.
    async fn take_free(
        &self,
        tasks: &mut BTreeMap<String, JoinHandle<()>>,
        shutdown: &Shutdown,
    ) -> redis::RedisResult<()> {
        for pool in self.outboxes.pools().await? {
            if tasks.contains_key(&pool) || tasks.len() >= POOLS_MAX {
                continue;
            }
            let outbox = self.outboxes.outbox(&pool);
            if !outbox.lease().await? {
                continue;
            }
            tracing::info!(pool, "relaying the pool's outbox");
            let labels = PoolLabels { pool: pool.clone() };
            let task = OutboxTask {
                relay: self.clone(),
                outbox,
                in_flight: VecDeque::new(),
                in_flight_events: 0,
                cursor: None,
                nothing_after_cursor: false,
                read_again: false,
                trim_to: None,
                renew_at: Instant::now() + Duration::from_millis(self.config.relay_lease_ms / 3),
                entries_at: Instant::now(),
                labels,
            };
            tasks.insert(pool, tokio::spawn(task.run(shutdown.clone())));
        }
        Ok(())
    }

    fn redis_failed(&self, error: &redis::RedisError) {
        self.failed(Failure::Redis);
        self.redis.not_ready(error.to_string());
        if let Some(suppressed) = self.limit.check() {
            tracing::warn!(%error, suppressed, "redis does not answer the relay");
        }
    }

    fn failed(&self, reason: Failure) {
        self.metrics
            .relay_failures
            .get_or_create(&FailureLabels { reason })
            .inc();
    }
}

/// Entries given to Kafka together, oldest first.
struct InFlight {
    generation: u64,
    sent_at: Instant,
    /// Of each entry its id and, unless it could not be published at all, its delivery.
    entries: VecDeque<(String, Option<DeliveryFuture>)>,
    /// Ends with the last acknowledgement.
    spans: Vec<tracing::Span>,
    /// The last entry acknowledged.
    acknowledged: Option<String>,
    /// How many have been acknowledged since the last look.
    events: usize,
}

impl InFlight {
    /// Waits for every acknowledgement, in order. May be dropped and called again.
    async fn acknowledged(&mut self) -> Result<(), KafkaError> {
        while let Some((_, delivery)) = self.entries.front_mut() {
            if let Some(delivery) = delivery {
                match delivery.await {
                    Ok(Ok(_)) => {}
                    Ok(Err((error, _))) => return Err(error),
                    Err(_) => return Err(KafkaError::Canceled),
                }
            }
            if let Some((id, _)) = self.entries.pop_front() {
                self.acknowledged = Some(id);
                self.events += 1;
            }
        }
        self.spans.clear();
        Ok(())
    }
}

/// One outbox on its way to Kafka.
struct OutboxTask {
    relay: Relay,
    outbox: Outbox,
    in_flight: VecDeque<InFlight>,
    in_flight_events: usize,
    /// The last entry read; `None`: start at the first.
    cursor: Option<String>,
    /// The last read found nothing after the cursor.
    nothing_after_cursor: bool,
    /// Start at the first entry again when nothing is in flight.
    read_again: bool,
    /// Acknowledged up to here and not trimmed yet.
    trim_to: Option<String>,
    renew_at: Instant,
    entries_at: Instant,
    labels: PoolLabels,
}

impl OutboxTask {
    async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(self.relay.config.relay_poll_ms, 2_000);
        let mut read_at = Instant::now();
        loop {
            let room = self.in_flight_events < self.relay.config.relay_in_flight_max;
            if !room {
                self.relay.metrics.relay_in_flight_full.inc();
            }
            let may_read = room && (!self.read_again || self.in_flight.is_empty());
            let step = tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = tokio::time::sleep_until(self.renew_at) => self.renew().await,
                outcome = front_acknowledged(&mut self.in_flight) => self.front_done(outcome).await,
                () = tokio::time::sleep_until(read_at), if may_read => match self.read_and_publish(&shutdown).await {
                    Ok(full) => {
                        let pause_ms = if full { 0 } else { self.relay.config.relay_poll_ms };
                        read_at = Instant::now() + Duration::from_millis(pause_ms);
                        Ok(true)
                    }
                    Err(error) => Err(error),
                },
            };
            match step {
                Ok(true) => backoff.reset(),
                Ok(false) => {
                    tracing::info!(pool = self.outbox.pool(), "the outbox has another relay");
                    self.show(0);
                    self.relay.stalled.set(self.outbox.pool(), false);
                    return;
                }
                Err(error) => {
                    self.relay.redis_failed(&error);
                    // Redis may come back without its last writes: look at everything again.
                    self.read_again = true;
                    let pause = backoff.next_delay();
                    read_at = Instant::now() + pause;
                    tokio::select! {
                        biased;
                        () = shutdown.requested() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
            self.show(self.in_flight_events);
        }
        self.drain().await;
    }

    fn show(&self, in_flight: usize) {
        let gauge = self
            .relay
            .metrics
            .relay_in_flight
            .get_or_create(&self.labels);
        gauge.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    }

    /// Prolongs the lease; looks at the outbox's length on the way.
    async fn renew(&mut self) -> redis::RedisResult<bool> {
        let lease = Duration::from_millis(self.relay.config.relay_lease_ms);
        self.renew_at = Instant::now() + lease / 3;
        let stalled = self
            .in_flight
            .front()
            .is_some_and(|oldest| oldest.sent_at.elapsed() > STALLED_AFTER);
        self.relay.stalled.set(self.outbox.pool(), stalled);
        if self.entries_at.elapsed() >= Duration::from_secs(1) {
            self.entries_at = Instant::now();
            let entries = self.outbox.entries().await?;
            let gauge = self
                .relay
                .metrics
                .outbox_entries
                .get_or_create(&self.labels);
            gauge.set(i64::try_from(entries).unwrap_or(i64::MAX));
            // Entries, and none to be read: a Redis that came back without its last second
            // has forgotten a trim.
            if entries > 0 && self.in_flight.is_empty() && self.nothing_after_cursor {
                self.read_again = true;
            }
        }
        self.outbox.renew().await
    }

    /// Reads the next entries and gives them to Kafka; whether there may be more at once.
    async fn read_and_publish(&mut self, shutdown: &Shutdown) -> redis::RedisResult<bool> {
        if self.read_again && self.in_flight.is_empty() {
            // What is acknowledged must not be read again.
            self.trim().await?;
            self.cursor = None;
            self.read_again = false;
        }
        let room = self.relay.config.relay_in_flight_max - self.in_flight_events;
        let count = self.relay.config.relay_batch_max.min(room);
        let entries = self.outbox.read(self.cursor.as_deref(), count).await?;
        let full = entries.len() == count;
        self.nothing_after_cursor = entries.is_empty();
        if !entries.is_empty() {
            self.publish(entries, shutdown).await;
        }
        Ok(full)
    }

    async fn publish(&mut self, entries: Vec<Entry>, shutdown: &Shutdown) {
        let (generation, producer) = self.relay.producers.current().await;
        let mut batch = InFlight {
            generation,
            sent_at: Instant::now(),
            entries: VecDeque::with_capacity(entries.len()),
            spans: Vec::new(),
            acknowledged: None,
            events: 0,
        };
        for entry in entries {
            let (Some(contact), Some(payload)) = (&entry.contact, &entry.event) else {
                self.relay.metrics.relay_unreadable.inc();
                if let Some(suppressed) = self.relay.limit.check() {
                    let pool = self.outbox.pool();
                    tracing::error!(
                        pool,
                        entry = entry.id,
                        suppressed,
                        "outbox entry without contact or event"
                    );
                }
                batch.entries.push_back((entry.id, None));
                continue;
            };
            let span = runtime::trace::span("outcomes", "publish", &entry.traceparent);
            let traceparent = runtime::trace::forward(&span, &entry.traceparent);
            let mut record = FutureRecord::to(&self.relay.config.topic)
                .key(contact.as_str())
                .payload(payload.as_slice());
            if !traceparent.is_empty() {
                let header = Header {
                    key: "traceparent",
                    value: Some(traceparent.as_str()),
                };
                record = record.headers(OwnedHeaders::new().insert(header));
            }
            if !span.is_none() {
                batch.spans.push(span);
            }
            match send(&producer, record, shutdown).await {
                Ok(delivery) => batch.entries.push_back((entry.id, Some(delivery))),
                Err(error) => {
                    // Not given to Kafka, and nothing after it may be: start over from here.
                    self.refused(&error, generation).await;
                    self.read_again = true;
                    break;
                }
            }
        }
        if let Some((last, _)) = batch.entries.back() {
            self.cursor = Some(last.clone());
            self.in_flight_events += batch.entries.len();
            self.in_flight.push_back(batch);
        }
    }

    /// The oldest batch was acknowledged, or failed.
    async fn front_done(&mut self, outcome: Result<(), KafkaError>) -> redis::RedisResult<bool> {
        let Some(batch) = self.in_flight.pop_front() else {
            return Ok(true);
        };
        self.settle(&batch);
        if let Err(error) = outcome {
            // Whatever else is in flight was given out after what failed: forget it, it
            // will be read again. The consumer drops what arrives twice.
            self.refused(&error, batch.generation).await;
            self.in_flight.clear();
            self.in_flight_events = 0;
            self.read_again = true;
            tokio::time::sleep(Duration::from_millis(50)).await;
        } else {
            self.in_flight_events -= batch.events;
        }
        self.trim().await?;
        Ok(true)
    }

    /// Takes note of what a batch got acknowledged.
    fn settle(&mut self, batch: &InFlight) {
        if let Some(id) = &batch.acknowledged {
            self.trim_to = Some(id.clone());
        }
        self.relay.metrics.relayed.inc_by(batch.events as u64);
    }

    async fn refused(&self, error: &KafkaError, generation: u64) {
        self.relay.failed(Failure::Delivery);
        if let Some(suppressed) = self.relay.limit.check() {
            let pool = self.outbox.pool();
            tracing::warn!(pool, %error, suppressed, "kafka did not take an event, reading the outbox again");
        }
        if let Err(error) = self.relay.producers.replace_failed(generation).await {
            self.relay.failed(Failure::Producer);
            if let Some(suppressed) = self.relay.limit.check() {
                tracing::error!(
                    error = format!("{error:#}"),
                    suppressed,
                    "no kafka producer"
                );
            }
        }
    }

    async fn trim(&mut self) -> redis::RedisResult<()> {
        if let Some(id) = &self.trim_to {
            self.outbox.trim(id).await?;
            self.trim_to = None;
        }
        Ok(())
    }

    /// Waits for what is in flight, trims it, gives the lease up.
    async fn drain(&mut self) {
        let until = Instant::now() + DRAIN_LIMIT;
        while let Some(mut batch) = self.in_flight.pop_front() {
            let acknowledged = tokio::time::timeout_at(until, batch.acknowledged()).await;
            self.settle(&batch);
            if !matches!(acknowledged, Ok(Ok(()))) {
                break;
            }
        }
        let ended = async {
            self.trim().await?;
            self.outbox.release().await
        };
        if let Err(error) = ended.await {
            self.relay.redis_failed(&error);
        }
        self.show(0);
    }
}

/// When the oldest batch is done; never, if nothing is in flight.
async fn front_acknowledged(in_flight: &mut VecDeque<InFlight>) -> Result<(), KafkaError> {
    match in_flight.front_mut() {
        Some(batch) => batch.acknowledged().await,
        None => std::future::pending().await,
    }
}

/// Gives one record to the producer, waiting while its queue is full.
async fn send(
    producer: &rdkafka::producer::FutureProducer<crate::kafka::QuietContext>,
    record: FutureRecord<'_, str, [u8]>,
    shutdown: &Shutdown,
) -> Result<DeliveryFuture, KafkaError> {
    let mut record = record;
    loop {
        match producer.send_result(record) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                if let Some((code, _)) = producer.client().fatal_error() {
                    return Err(KafkaError::MessageProduction(code));
                }
                if shutdown.is_requested() {
                    return Err(KafkaError::Canceled);
                }
                record = back;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}
