//! A batch of records: what they mean, computed from what is stored, before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use domain::outcome::{Applied, ContactState, Effects, IssueKey, Rules};
use domain::pool::Event;
use domain::{ContactId, TimeMs};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use redis::RedisResult;

use crate::decode::{Malformed, decode};
use crate::store::{ReadIssue, Store};

/// One record of the topic.
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) event: Result<Event, Malformed>,
    pub(crate) traceparent: String,
}

/// What one partition's part of a batch came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(crate) next: i64,
    pub(crate) counted: u64,
    pub(crate) repeated: u64,
    pub(crate) malformed: u64,
    pub(crate) after_closed: u64,
}

/// A batch, computed and not yet written.
pub(crate) struct Computed {
    pub(crate) states: BTreeMap<ContactId, ContactState>,
    pub(crate) issues: BTreeMap<IssueKey, ReadIssue>,
    pub(crate) effects: Effects,
    pub(crate) parts: BTreeMap<i32, Part>,
    pub(crate) newest: Option<TimeMs>,
    pub(crate) visits_dropped: usize,
}

/// A record, copied out of librdkafka's buffer and decoded.
pub(crate) fn record(message: &BorrowedMessage<'_>) -> Record {
    let event = decode(message.payload());
    let traceparent = message
        .headers()
        .and_then(|headers| headers.iter().find(|header| header.key == "traceparent"))
        .and_then(|header| std::str::from_utf8(header.value?).ok())
        .unwrap_or_default()
        .to_owned();
    Record {
        partition: message.partition(),
        offset: message.offset(),
        event,
        traceparent,
    }
}

/// What the records mean, given what is stored.
pub(crate) async fn compute(
    store: &Store,
    rules: &Rules,
    records: &[Record],
) -> RedisResult<Computed> {
    let contacts: BTreeSet<ContactId> = records
        .iter()
        .filter_map(|record| record.event.as_ref().ok())
        .map(|event| event.contact)
        .collect();
    let mut states = store.states(&contacts).await?;
    let mut effects = Effects::default();
    let mut parts: BTreeMap<i32, Part> = BTreeMap::new();
    let mut newest = None;
    for record in records {
        let part = parts.entry(record.partition).or_default();
        part.next = record.offset + 1;
        let Ok(event) = &record.event else {
            part.malformed += 1;
            continue;
        };
        newest = newest.max(Some(event.at));
        match states
            .entry(event.contact)
            .or_default()
            .apply(event, rules, &mut effects)
        {
            Applied::Counted => part.counted += 1,
            Applied::Repeated => part.repeated += 1,
            Applied::AfterClosed => part.after_closed += 1,
        }
    }
    let visits = std::mem::take(&mut effects.visits);
    let keys = visits.iter().map(|(key, _)| key.clone()).collect();
    let mut issues = store.issues(&keys).await?;
    let mut visits_dropped = 0;
    for (key, visit) in visits {
        let read = issues.entry(key).or_default();
        visits_dropped += read.issue.add(visit, &mut effects.tally);
    }
    Ok(Computed {
        states,
        issues,
        effects,
        parts,
        newest,
        visits_dropped,
    })
}
