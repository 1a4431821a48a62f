//! Which partitions are ours, as the consumer group says it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use runtime::LogLimit;

use crate::kafka::kafka_log;

/// Partitions assigned, and those among them that were assigned a moment ago.
#[derive(Debug, Default)]
struct Partitions {
    assigned: BTreeSet<i32>,
    fresh: BTreeSet<i32>,
}

/// Takes note of what librdkafka says while it is polled. Its callbacks run inside the
/// poll, on the polling task, before any message of a new assignment is returned.
#[derive(Debug)]
pub(crate) struct Assignment {
    partitions: Mutex<Partitions>,
    limit: LogLimit,
}

impl Default for Assignment {
    fn default() -> Self {
        Self {
            partitions: Mutex::default(),
            limit: LogLimit::new(Duration::from_secs(10)),
        }
    }
}

impl Assignment {
    fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// All that are assigned, and those that are new since the last call.
    pub(crate) fn take(&self) -> (BTreeSet<i32>, BTreeSet<i32>) {
        let mut partitions = self.partitions();
        (
            partitions.assigned.clone(),
            std::mem::take(&mut partitions.fresh),
        )
    }
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka_log(&self.limit, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(suppressed) = self.limit.check() {
            tracing::warn!(%error, reason, suppressed, "kafka client");
        }
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(revoked) = rebalance {
            let mut partitions = self.partitions();
            for element in revoked.elements() {
                partitions.assigned.remove(&element.partition());
                partitions.fresh.remove(&element.partition());
            }
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(assigned) => {
                let mut partitions = self.partitions();
                for element in assigned.elements() {
                    partitions.assigned.insert(element.partition());
                    partitions.fresh.insert(element.partition());
                }
                tracing::info!(partitions = ?partitions.assigned, "partitions assigned");
            }
            Rebalance::Revoke(_) => {
                tracing::info!(partitions = ?self.partitions().assigned, "partitions revoked");
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance failed"),
        }
    }
}
