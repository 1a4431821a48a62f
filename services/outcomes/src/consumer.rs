//! The consumer: the log becomes counters, each event once.
//!
//! The consumer group only says who reads which partition. Where to read from is said by
//! Redis, where the next offset is stored together with what the events before it did.
//! So on assignment the consumer seeks to the stored offset, and whenever the store
//! refuses a batch (somebody else counted it, or Redis came back without its last second)
//! it forgets the batch and seeks again. Offsets are committed to Kafka as well, for lag
//! monitors and for a first guess; nothing depends on them.
//!
//! One task for all partitions: a batch is what has queued up meanwhile, over all of them,
//! and costs three round trips to Redis however large it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::invariant::{Invariant, Violation};
use domain::outcome::Rules;
use futures::FutureExt as _;
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use redis::RedisResult;
use runtime::{Backoff, Clock, Condition, LogLimit, Shutdown};
use tokio::time::Instant;

use crate::assignment::Assignment;
use crate::batch::{Computed, Record, compute, record};
use crate::config::Config;
use crate::kafka::client_config;
use crate::metrics::{
    Conflict, ConflictLabels, EventLabels, EventResult, Failure, FailureLabels, Metrics,
};
use crate::position::{KafkaConsumer, Position, tell_kafka};
use crate::store::{Advance, Batch, Committed, Store};

/// How long an empty poll waits.
const IDLE: Duration = Duration::from_millis(100);
/// How often the stored offsets are looked at when nothing comes.
const VERIFY_EVERY: Duration = Duration::from_secs(1);
/// How often offsets are told to Kafka, for lag monitors.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// How long the end waits until the group is left.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// How long a seek may take: it asks no broker.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the broker may take to say how long a log is.
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(5);

/// The consuming half of the role.
pub(crate) struct Consumer {
    topic: String,
    batch_max: usize,
    kafka: Arc<KafkaConsumer>,
    store: Store,
    rules: Rules,
    metrics: Metrics,
    redis: Condition,
    clock: Clock,
    limit: LogLimit,
    positions: BTreeMap<i32, Position>,
    /// Assigned, and not yet sought to where the store says.
    unsettled: BTreeSet<i32>,
    violations: LogLimit,
    malformed: LogLimit,
}

impl Consumer {
    pub(crate) fn new(
        config: &Config,
        store: Store,
        rules: Rules,
        metrics: Metrics,
        redis: Condition,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let kafka: KafkaConsumer = client_config(config, "consumer")
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            // A batch waits as long as Redis is away; then the group may go on without us.
            .set("max.poll.interval.ms", "300000")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.error.backoff.ms", "100")
            // What is fetched ahead, a partition: bounds memory while Redis is away.
            .set("queued.min.messages", "5000")
            .set("queued.max.messages.kbytes", "4096")
            .create_with_context(Assignment::default())
            .context("making the kafka consumer")?;
        Ok(Self {
            topic: config.topic.clone(),
            batch_max: config.consume_batch_max,
            kafka: Arc::new(kafka),
            store,
            rules,
            metrics,
            redis,
            clock,
            limit: LogLimit::new(Duration::from_secs(10)),
            positions: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            violations: LogLimit::new(Duration::from_secs(1)),
            malformed: LogLimit::new(Duration::from_secs(10)),
        })
    }

    /// Counts until the drain.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        self.kafka
            .subscribe(&[&self.topic])
            .context("subscribing to the topic")?;
        let mut backoff = Backoff::new(20, 1_000);
        let mut verify_at = Instant::now();
        let mut commit_at = Instant::now() + COMMIT_EVERY;
        while !shutdown.is_requested() {
            let mut records = tokio::select! {
                biased;
                () = shutdown.requested() => break,
                records = self.collect() => records,
            };
            self.rebalanced(&mut records);
            let step = async {
                if !self.unsettled.is_empty() {
                    self.settle().await?;
                }
                if records.is_empty() && Instant::now() >= verify_at {
                    self.verify().await?;
                }
                RedisResult::Ok(())
            };
            if let Err(error) = step.await {
                self.redis_failed(&error);
                tokio::time::sleep(backoff.next_delay()).await;
                // Whatever was read stays read: it is dropped unless its partition is settled.
            } else {
                self.redis.ready();
                backoff.reset();
                if Instant::now() >= verify_at {
                    verify_at = Instant::now() + VERIFY_EVERY;
                }
            }
            if !records.is_empty() {
                self.process(records, &mut backoff, &shutdown).await;
            }
            if Instant::now() >= commit_at {
                commit_at = Instant::now() + COMMIT_EVERY;
                tell_kafka(&self.kafka, &self.topic, &self.positions);
            }
        }
        tell_kafka(&self.kafka, &self.topic, &self.positions);
        let kafka = self.kafka;
        let (closed, waited) = tokio::sync::oneshot::channel();
        // Leaving the group waits for the broker, for ever if it is away: on a thread that
        // nothing waits for.
        std::thread::spawn(move || {
            kafka.unsubscribe();
            drop(kafka);
            // Nobody waits any more: nothing to tell.
            let _ = closed.send(());
        });
        if tokio::time::timeout(CLOSE_LIMIT, waited).await.is_err() {
            tracing::warn!("the consumer group was not left in time, it will notice");
        }
        Ok(())
    }

    /// What has queued up; waits a little for the first.
    async fn collect(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut next = tokio::time::timeout(IDLE, self.kafka.recv()).await.ok();
        while let Some(received) = next {
            match received {
                Ok(message) => records.push(record(&message)),
                Err(error) => {
                    self.failed(Failure::Delivery);
                    if let Some(suppressed) = self.limit.check() {
                        tracing::warn!(%error, suppressed, "reading the topic failed, going on");
                    }
                    break;
                }
            }
            if records.len() >= self.batch_max {
                self.metrics.batches_full.inc();
                break;
            }
            next = self.kafka.recv().now_or_never();
        }
        records
    }

    /// Takes note of what was assigned and revoked, and forgets records of partitions
    /// that are not settled: they come again.
    fn rebalanced(&mut self, records: &mut Vec<Record>) {
        let (assigned, fresh) = self.kafka.context().take();
        self.positions
            .retain(|partition, _| assigned.contains(partition));
        self.unsettled
            .retain(|partition| assigned.contains(partition));
        for partition in fresh {
            self.positions.remove(&partition);
            self.unsettled.insert(partition);
        }
        records.retain(|record| self.positions.contains_key(&record.partition));
        self.metrics
            .partitions
            .set(i64::try_from(assigned.len()).unwrap_or(i64::MAX));
    }

    /// Seeks every unsettled partition to the stored offset.
    async fn settle(&mut self) -> RedisResult<()> {
        let progress = self.store.progress().await?;
        for partition in self.unsettled.clone() {
            let stored = progress.get(&partition).and_then(|progress| progress.next);
            let offset = stored.map_or(Offset::Beginning, Offset::Offset);
            let (kafka, topic) = (Arc::clone(&self.kafka), self.topic.clone());
            let sought = tokio::task::spawn_blocking(move || {
                kafka.seek(&topic, partition, offset, SEEK_TIMEOUT)
            })
            .await;
            match sought {
                Ok(Ok(())) => {
                    tracing::debug!(partition, ?offset, "partition settled");
                    self.unsettled.remove(&partition);
                    self.positions.insert(
                        partition,
                        Position {
                            stored,
                            next: stored,
                        },
                    );
                }
                // Not fetching yet: the assignment takes effect a moment later. Next round.
                Ok(Err(error)) => tracing::debug!(partition, %error, "cannot seek yet"),
                Err(error) => tracing::warn!(partition, %error, "the seek was lost"),
            }
        }
        Ok(())
    }

    /// Whether the store is still where we left it: a Redis that came back without its
    /// last second must be read to again, even if nothing new ever comes.
    async fn verify(&mut self) -> RedisResult<()> {
        let progress = self.store.progress().await?;
        let moved: Vec<i32> = self
            .positions
            .iter()
            .filter(|(partition, position)| {
                progress.get(partition).and_then(|progress| progress.next) != position.stored
            })
            .map(|(partition, _)| *partition)
            .collect();
        self.moved(&moved);
        Ok(())
    }

    /// Forgets where these partitions were.
    fn moved(&mut self, partitions: &[i32]) {
        for partition in partitions {
            if self.positions.remove(partition).is_some() {
                self.metrics
                    .conflicts
                    .get_or_create(&ConflictLabels {
                        kind: Conflict::Offset,
                    })
                    .inc();
                self.unsettled.insert(*partition);
                tracing::info!(partition, "the stored offset moved, reading from there");
            }
        }
    }

    /// Counts the records, once, or leaves them to be read again. Retries while Redis is away.
    async fn process(&mut self, records: Vec<Record>, backoff: &mut Backoff, shutdown: &Shutdown) {
        let mut records = self.in_order(records).await;
        // End when the batch is stored: the trace of a call ends on its events' effects.
        let _spans: Vec<tracing::Span> = records
            .iter()
            .filter(|record| !record.traceparent.is_empty())
            .map(|record| runtime::trace::span("outcomes", "count", &record.traceparent))
            .filter(|span| !span.is_none())
            .collect();
        while !records.is_empty() {
            match self.attempt(&records).await {
                Ok((Committed::Counted, computed)) => {
                    self.redis.ready();
                    backoff.reset();
                    self.counted(computed);
                    return;
                }
                Ok((Committed::Moved(partitions), _)) => {
                    self.moved(&partitions);
                    records.retain(|record| self.positions.contains_key(&record.partition));
                }
                Ok((Committed::IssueChanged, _)) => {
                    self.metrics
                        .conflicts
                        .get_or_create(&ConflictLabels {
                            kind: Conflict::Issue,
                        })
                        .inc();
                }
                Err(error) => {
                    self.redis_failed(&error);
                    tokio::select! {
                        biased;
                        () = shutdown.requested() => return,
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                    }
                }
            }
        }
    }

    /// Drops what was not asked for, notes what is missing.
    async fn in_order(&mut self, records: Vec<Record>) -> Vec<Record> {
        let mut expected: BTreeMap<i32, Option<i64>> = self
            .positions
            .iter()
            .map(|(partition, position)| (*partition, position.next))
            .collect();
        let mut kept = Vec::with_capacity(records.len());
        let mut restarted: BTreeMap<i32, bool> = BTreeMap::new();
        for record in records {
            let Some(next) = expected.get_mut(&record.partition) else {
                continue;
            };
            if let Some(offset) = *next {
                if record.offset < offset {
                    let again = match restarted.get(&record.partition) {
                        Some(again) => *again,
                        None => self.log_restarted(record.partition, offset).await,
                    };
                    restarted.insert(record.partition, again);
                    if !again {
                        continue;
                    }
                } else if record.offset > offset {
                    self.offsets_lost(record.partition, offset, record.offset);
                }
            }
            *next = Some(record.offset + 1);
            if let Err(error) = &record.event
                && let Some(suppressed) = self.malformed.check()
            {
                let Record {
                    partition, offset, ..
                } = record;
                tracing::warn!(partition, offset, %error, suppressed, "record is no event, passed over");
            }
            kept.push(record);
        }
        kept
    }

    /// The log is shorter than what was read of it: another log under the same name. It
    /// is read from its start; what it repeats is known by contact and sequence.
    async fn log_restarted(&self, partition: i32, offset: i64) -> bool {
        let (kafka, topic) = (Arc::clone(&self.kafka), self.topic.clone());
        let watermarks = tokio::task::spawn_blocking(move || {
            kafka.fetch_watermarks(&topic, partition, WATERMARK_TIMEOUT)
        })
        .await;
        let Ok(Ok((_, end))) = watermarks else {
            return false;
        };
        if end >= offset {
            return false;
        }
        tracing::warn!(
            partition,
            stored = offset,
            end,
            "the log is shorter than what was read of it, reading it anew"
        );
        self.metrics.logs_restarted.inc();
        true
    }

    fn offsets_lost(&self, partition: i32, expected: i64, found: i64) {
        self.metrics
            .offsets_lost
            .inc_by(u64::try_from(found - expected).unwrap_or(0));
        self.metrics.violation(Invariant::EveryOutcomeCounted);
        tracing::error!(
            partition,
            expected,
            found,
            "the log no longer has these offsets"
        );
    }

    async fn attempt(&self, records: &[Record]) -> RedisResult<(Committed, Computed)> {
        let computed = compute(&self.store, &self.rules, records).await?;
        let advances: Vec<Advance> = computed
            .parts
            .iter()
            .map(|(partition, part)| Advance {
                partition: *partition,
                expected: self
                    .positions
                    .get(partition)
                    .and_then(|position| position.stored),
                next: part.next,
                applied: part.counted,
                repeated: part.repeated,
                malformed: part.malformed + part.after_closed,
            })
            .collect();
        let committed = self
            .store
            .commit(&Batch {
                advances: &advances,
                states: &computed.states,
                issues: &computed.issues,
                tally: &computed.effects.tally,
            })
            .await?;
        Ok((committed, computed))
    }

    /// The batch is stored: now it may be told.
    fn counted(&mut self, computed: Computed) {
        for (partition, part) in &computed.parts {
            let next = Some(part.next);
            self.positions
                .insert(*partition, Position { stored: next, next });
            let results = [
                (EventResult::Counted, part.counted),
                (EventResult::Repeated, part.repeated),
                (EventResult::Malformed, part.malformed),
                (EventResult::AfterClosed, part.after_closed),
            ];
            for (result, count) in results {
                if count > 0 {
                    self.metrics
                        .events
                        .get_or_create(&EventLabels { result })
                        .inc_by(count);
                }
            }
        }
        for Violation { invariant, detail } in &computed.effects.violations {
            self.metrics.violation(*invariant);
            if let Some(suppressed) = self.violations.check() {
                tracing::error!(
                    invariant = invariant.name(),
                    detail,
                    suppressed,
                    "promise broken"
                );
            }
        }
        if let Some(newest) = computed.newest {
            let delay_ms = self.clock.now().since(newest);
            self.metrics
                .delay_ms
                .set(i64::try_from(delay_ms).unwrap_or(i64::MAX));
        }
        self.metrics
            .visits_dropped
            .inc_by(computed.visits_dropped as u64);
        self.metrics.batches.inc();
    }

    fn failed(&self, reason: Failure) {
        self.metrics
            .consumer_failures
            .get_or_create(&FailureLabels { reason })
            .inc();
    }

    fn redis_failed(&self, error: &redis::RedisError) {
        self.failed(Failure::Redis);
        self.redis.not_ready(error.to_string());
        if let Some(suppressed) = self.limit.check() {
            tracing::warn!(%error, suppressed, "redis does not answer, counting waits");
        }
    }
}
