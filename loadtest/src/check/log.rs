//! The mesh's log: the whole topic, from the beginning, put in order by contact.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use prost::Message as _;
use proto::event::v1::{ContactEvent, contact_event::Body};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::pii::{Scanner, Sightings};

/// The topic of contact events.
pub(crate) const TOPIC: &str = "trunkline.contact.v1";

/// The log in order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Contacts, by id.
    pub(crate) contacts: HashMap<String, Contact>,
    /// Records read.
    pub(crate) records: u64,
    /// Records that were repeats of the same event with the same bytes.
    pub(crate) repeats: u64,
    /// Repeats of an event with other bytes: (contact, sequence).
    pub(crate) contradictions: Vec<(String, u64)>,
    /// Records that are no contact event, in words.
    pub(crate) unreadable: Vec<String>,
    /// Records that came before one of the same contact with a smaller sequence.
    pub(crate) out_of_order: Vec<(String, u64, u64)>,
    /// Personal data in records.
    pub(crate) personal: Sightings,
}

/// A contact's events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contact {
    /// In order of sequence, each once.
    pub(crate) events: Vec<Event>,
    /// First arrival, as every event should have it.
    pub(crate) arrived_ms: u64,
    /// Events that have another: (sequence, arrival).
    pub(crate) other_arrivals: Vec<(u64, u64)>,
    /// Pseudonym present.
    pub(crate) has_caller: bool,
    hashes: HashMap<u64, u64>,
    last_sequence: u64,
}

/// An event, without what is the same in all of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) sequence: u64,
    pub(crate) at_ms: u64,
    pub(crate) queue: String,
    pub(crate) topic: String,
    pub(crate) language: String,
    pub(crate) body: Body,
}

impl Log {
    /// Takes one record; repeats are told apart by (contact, sequence).
    pub(crate) fn take(&mut self, key: &[u8], payload: &[u8]) {
        self.records += 1;
        let event = match ContactEvent::decode(payload) {
            Ok(event) => event,
            Err(error) => {
                self.unreadable
                    .push(format!("record {}: {error}", self.records));
                return;
            }
        };
        if key != event.contact_id.as_bytes() {
            self.unreadable
                .push(format!("{}: the key is not the contact", event.event_id));
        }
        let Some(body) = event.body else {
            self.unreadable.push(format!("{}: no body", event.event_id));
            return;
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(payload);
        let hash = hasher.finish();
        let contact = self.contacts.entry(event.contact_id.clone()).or_default();
        match contact.hashes.insert(event.sequence, hash) {
            Some(before) if before == hash => {
                self.repeats += 1;
                return;
            }
            Some(_) => {
                self.contradictions.push((event.contact_id, event.sequence));
                return;
            }
            None => {}
        }
        if event.sequence < contact.last_sequence {
            self.out_of_order.push((
                event.contact_id.clone(),
                contact.last_sequence,
                event.sequence,
            ));
        }
        contact.last_sequence = contact.last_sequence.max(event.sequence);
        let arrived_ms = milliseconds(event.arrived_at);
        if contact.events.is_empty() {
            contact.arrived_ms = arrived_ms;
        } else if contact.arrived_ms != arrived_ms {
            contact.other_arrivals.push((event.sequence, arrived_ms));
        }
        contact.has_caller |= !event.caller.is_empty();
        contact.events.push(Event {
            sequence: event.sequence,
            at_ms: milliseconds(event.occurred_at),
            queue: event.queue,
            topic: event.topic,
            language: event.language,
            body,
        });
    }

    /// All records are in.
    pub(crate) fn finish(&mut self) {
        for contact in self.contacts.values_mut() {
            contact.events.sort_by_key(|event| event.sequence);
            contact.hashes = HashMap::new();
        }
    }

    /// Contacts in order of id, so that a report is the same each time.
    pub(crate) fn in_order(&self) -> Vec<(&String, &Contact)> {
        let mut contacts: Vec<_> = self.contacts.iter().collect();
        contacts.sort_by_key(|(id, _)| *id);
        contacts
    }
}

impl Contact {
    /// Bodies of one kind, with their events.
    pub(crate) fn bodies<'a, T>(
        &'a self,
        pick: impl Fn(&'a Body) -> Option<T> + 'a,
    ) -> impl Iterator<Item = (&'a Event, T)> {
        self.events
            .iter()
            .filter_map(move |event| pick(&event.body).map(|body| (event, body)))
    }

    /// A callback was booked by `until_ms` and had not ended then; `u64::MAX`: was ever booked.
    pub(crate) fn booked_at(&self, until_ms: u64) -> bool {
        let mut booked = false;
        for event in self
            .events
            .iter()
            .take_while(|event| event.at_ms <= until_ms)
        {
            match event.body {
                Body::CallbackBooked(_) => booked = true,
                Body::CallbackEnded(_) if until_ms < u64::MAX => booked = false,
                _ => {}
            }
        }
        booked
    }

    /// A callback is booked and has not ended.
    pub(crate) fn callback_to_come(&self) -> bool {
        let last = self.events.iter().rev().find_map(|event| match event.body {
            Body::CallbackBooked(_) => Some(true),
            Body::CallbackEnded(_) => Some(false),
            _ => None,
        });
        last.unwrap_or(false)
    }

    /// Its last event says that nothing more will come.
    pub(crate) fn closed(&self) -> bool {
        self.events
            .last()
            .is_some_and(|event| matches!(event.body, Body::Closed(_)))
    }
}

fn milliseconds(time: Option<prost_types::Timestamp>) -> u64 {
    time.map_or(0, |time| {
        time.seconds.unsigned_abs() * 1000 + u64::from(time.nanos.unsigned_abs()) / 1_000_000
    })
}

/// A consumer that belongs to no group: nobody else's offsets move.
fn consumer(brokers: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "loadtest-checker")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()
        .context("connecting to Kafka")
}

/// Offsets one past the last record, by partition.
fn ends(consumer: &BaseConsumer) -> anyhow::Result<Vec<(i32, i64)>> {
    let limit = Duration::from_secs(10);
    let metadata = consumer
        .fetch_metadata(Some(TOPIC), limit)
        .context("asking Kafka for its topics")?;
    let mut ends = Vec::new();
    for topic in metadata.topics() {
        for partition in topic.partitions() {
            let (_, end) = consumer
                .fetch_watermarks(TOPIC, partition.id(), limit)
                .context("asking Kafka for its offsets")?;
            ends.push((partition.id(), end));
        }
    }
    ends.sort_unstable();
    Ok(ends)
}

/// The topic's ends now, without reading it. Blocks: to be called where that is allowed.
pub(crate) fn topic_ends(brokers: &str) -> anyhow::Result<Vec<(i32, i64)>> {
    ends(&consumer(brokers)?)
}

/// Reads the whole topic. Blocks: to be called where that is allowed.
pub(crate) fn read(brokers: &str, scanner: &Scanner) -> anyhow::Result<Log> {
    let consumer = consumer(brokers)?;
    let ends = ends(&consumer)?;
    let mut list = TopicPartitionList::new();
    for (partition, _) in &ends {
        list.add_partition_offset(TOPIC, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list).context("reading the topic")?;
    let mut left: HashMap<i32, i64> = ends.into_iter().filter(|(_, end)| *end > 0).collect();
    let mut log = Log::default();
    let mut heard = Instant::now();
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(message) => {
                let message = message.context("reading the topic")?;
                heard = Instant::now();
                let (key, payload) = (
                    message.key().unwrap_or_default(),
                    message.payload().unwrap_or_default(),
                );
                scanner.scan("Kafka record", key, &mut log.personal);
                scanner.scan("Kafka record", payload, &mut log.personal);
                if let Some(headers) = message.headers() {
                    for header in headers.iter() {
                        scanner.scan(
                            "Kafka header",
                            header.value.unwrap_or_default(),
                            &mut log.personal,
                        );
                    }
                }
                log.take(key, payload);
                let end = left.get(&message.partition()).copied();
                if end.is_some_and(|end| message.offset() + 1 >= end) {
                    left.remove(&message.partition());
                }
            }
            None => anyhow::ensure!(
                heard.elapsed() < Duration::from_secs(30),
                "Kafka gave nothing for 30 s with {} partitions unread",
                left.len()
            ),
        }
    }
    log.finish();
    Ok(log)
}
