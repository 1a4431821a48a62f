//! What the role tells Prometheus. Labels come from closed sets and from policy's names;
//! no ids.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use domain::invariant::Invariant;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Groups shown on /metrics at most; the query API shows all.
const GROUPS_MAX: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum EventResult {
    Counted,
    Repeated,
    Malformed,
    AfterClosed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Conflict {
    /// The stored offset was not the expected one.
    Offset,
    /// An issue had changed.
    Issue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Failure {
    /// Redis did not do as asked.
    Redis,
    /// Kafka refused or lost a record.
    Delivery,
    /// The producer was of no more use.
    Producer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EventLabels {
    pub(crate) result: EventResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ConflictLabels {
    pub(crate) kind: Conflict,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FailureLabels {
    pub(crate) reason: Failure,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    pub(crate) pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InvariantLabels {
    invariant: &'static str,
}

/// A group of a grouping.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct MeasureLabels {
    pub(crate) measure: &'static str,
    pub(crate) by: &'static str,
    pub(crate) group: String,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// Handles, shared by all tasks of the role.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) relayed: Counter,
    pub(crate) relay_unreadable: Counter,
    pub(crate) relay_failures: Family<FailureLabels, Counter>,
    pub(crate) relay_in_flight: Family<PoolLabels, Gauge>,
    pub(crate) relay_in_flight_full: Counter,
    pub(crate) outbox_entries: Family<PoolLabels, Gauge>,
    pub(crate) outboxes_leased: Gauge,
    pub(crate) producers_made: Counter,
    pub(crate) events: Family<EventLabels, Counter>,
    pub(crate) batches: Counter,
    pub(crate) batches_full: Counter,
    pub(crate) conflicts: Family<ConflictLabels, Counter>,
    pub(crate) consumer_failures: Family<FailureLabels, Counter>,
    pub(crate) offsets_lost: Counter,
    pub(crate) logs_restarted: Counter,
    pub(crate) partitions: Gauge,
    pub(crate) delay_ms: Gauge,
    pub(crate) visits_dropped: Counter,
    pub(crate) groups_hidden: Counter,
    violations: Family<InvariantLabels, Counter>,
    measures: Family<MeasureLabels, FloatGauge>,
    groups: Arc<Mutex<BTreeSet<(&'static str, String)>>>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_relay(registry);
        metrics.register_consumer(registry);
        registry.register(
            "invariant_violations",
            "promises found broken",
            metrics.violations.clone(),
        );
        // All of them from the start, so that an alert on the first one works.
        for invariant in Invariant::ALL {
            drop(metrics.violations.get_or_create(&InvariantLabels {
                invariant: invariant.name(),
            }));
        }
        registry.register(
            "outcomes_measure",
            "the measures over all time, as the query API gives them",
            metrics.measures.clone(),
        );
        metrics
    }

    fn register_relay(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "outcomes_relay_events",
            "events acknowledged by Kafka",
            &self.relayed,
        );
        counter(
            "outcomes_relay_unreadable",
            "outbox entries without contact or event, passed over",
            &self.relay_unreadable,
        );
        counter(
            "outcomes_relay_in_flight_full",
            "times the relay waited because as much was in flight as may be",
            &self.relay_in_flight_full,
        );
        counter(
            "outcomes_relay_producers",
            "Kafka producers made",
            &self.producers_made,
        );
        registry.register(
            "outcomes_relay_failures",
            "relay steps that failed and were tried again",
            self.relay_failures.clone(),
        );
        registry.register(
            "outcomes_relay_in_flight",
            "events given to Kafka and not yet acknowledged",
            self.relay_in_flight.clone(),
        );
        registry.register(
            "outcomes_outbox_entries",
            "events in the outbox, as last seen",
            self.outbox_entries.clone(),
        );
        registry.register(
            "outcomes_outboxes_leased",
            "outboxes relayed by this replica",
            self.outboxes_leased.clone(),
        );
    }

    fn register_consumer(&self, registry: &mut Registry) {
        registry.register(
            "outcomes_consumer_events",
            "events read, by what became of them",
            self.events.clone(),
        );
        registry.register(
            "outcomes_consumer_conflicts",
            "batches refused by the store and computed again",
            self.conflicts.clone(),
        );
        registry.register(
            "outcomes_consumer_failures",
            "consumer steps that failed and were tried again",
            self.consumer_failures.clone(),
        );
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "outcomes_consumer_batches",
            "batches counted",
            &self.batches,
        );
        counter(
            "outcomes_consumer_batches_full",
            "batches that reached the largest size",
            &self.batches_full,
        );
        counter(
            "outcomes_consumer_offsets_lost",
            "offsets that the log no longer had",
            &self.offsets_lost,
        );
        counter(
            "outcomes_consumer_logs_restarted",
            "partitions found shorter than what had been read of them",
            &self.logs_restarted,
        );
        counter(
            "outcomes_visits_dropped",
            "oldest visits dropped from issues with too many",
            &self.visits_dropped,
        );
        counter(
            "outcomes_groups_hidden",
            "times a group was left out of /metrics for want of room",
            &self.groups_hidden,
        );
        registry.register(
            "outcomes_consumer_partitions",
            "partitions assigned to this replica",
            self.partitions.clone(),
        );
        registry.register(
            "outcomes_consumer_delay_ms",
            "age of the newest event of the last batch when it was counted, in milliseconds",
            self.delay_ms.clone(),
        );
    }

    pub(crate) fn violation(&self, invariant: Invariant) {
        self.violations
            .get_or_create(&InvariantLabels {
                invariant: invariant.name(),
            })
            .inc();
    }

    /// Shows a measure of a group, if there is room for the group.
    pub(crate) fn measure(&self, measure: &'static str, by: &'static str, group: &str, value: f64) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (by, group.to_owned());
        if !groups.contains(&key) {
            if groups.len() >= GROUPS_MAX {
                self.groups_hidden.inc();
                return;
            }
            groups.insert(key);
        }
        drop(groups);
        let labels = MeasureLabels {
            measure,
            by,
            group: group.to_owned(),
        };
        self.measures.get_or_create(&labels).set(value);
    }
}
