//! Where partitions are read, and telling Kafka about it.

use std::collections::BTreeMap;

use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::assignment::Assignment;

pub(crate) type KafkaConsumer = StreamConsumer<Assignment>;

/// Where a partition is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// As stored; `None`: nothing yet.
    pub(crate) stored: Option<i64>,
    /// The next record's offset; `None`: whatever comes first.
    pub(crate) next: Option<i64>,
}

/// Tells Kafka how far we are: for lag monitors, and a first guess after a restart.
pub(crate) fn tell_kafka(kafka: &KafkaConsumer, topic: &str, positions: &BTreeMap<i32, Position>) {
    let mut offsets = TopicPartitionList::new();
    for (partition, position) in positions {
        if let Some(stored) = position.stored {
            let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(stored));
            if let Err(error) = added {
                tracing::debug!(partition, %error, "offset not told");
            }
        }
    }
    if offsets.count() > 0
        && let Err(error) = kafka.commit(&offsets, CommitMode::Async)
    {
        tracing::debug!(%error, "offsets not told");
    }
}
