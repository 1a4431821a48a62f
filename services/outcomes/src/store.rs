//! What outcomes keeps in Redis: counters, contacts' states, issues, and how far the log
//! has been read.
//!
//! # Key layout
//! `PREFIX` is `--key-prefix`. All keys share one hash tag, so that one script reaches
//! them in a cluster too; outcomes can have a Redis of its own.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{PREFIX:outcomes}:progress` | hash | `TOPIC/PARTITION:next`, `:applied`, `:repeated`, `:malformed` |
//! | `{PREFIX:outcomes}:contact:CONTACT` | string, expires | `domain::outcome::ContactState`, rmp-serde |
//! | `{PREFIX:outcomes}:issue:CALLER:FAMILY` | string, expires | `domain::outcome::Issue`, rmp-serde; CALLER is the pseudonym in hexadecimal |
//! | `{PREFIX:outcomes}:total:GROUPING` | hash | `GROUP\|COUNTER` -> sum over all time |
//! | `{PREFIX:outcomes}:half-hour:NUMBER:GROUPING` | hash, expires | the same for one half hour (since the epoch) |
//! | `{PREFIX:outcomes}:day:NUMBER:GROUPING` | hash, expires | windowed counters by the day the conversation ended: open windows |
//! | `{PREFIX:POOL}:relay` | string, expires | the instance that relays this pool's outbox |
//!
//! # Effects once
//! One script writes the counters, the states, the issues and the next offset, and only if
//! the stored offset is still the one this batch starts at. So whatever is delivered
//! again is not counted again, a consumer that was taken for dead cannot write, and a
//! Redis that came back without its last second is noticed and read to again.
//! Issues are shared between partitions; the script checks that they are as they were
//! read, and the batch is computed again if not. That is optimistic locking, and cheap
//! because two consumers hardly ever meet in one caller.
//!
//! Rejected: offsets in Kafka (two stores, no common commit), a lock a partition (a
//! second thing to expire), computing in Lua (the core is tested Rust).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::ContactId;
use domain::outcome::{
    ContactState, Counts, DAY_MS, Grouping, HALF_HOUR_MS, Issue, IssueKey, Slot, Tally,
    WINDOWS_DAYS,
};
use redis::aio::ConnectionManager;
use redis::{RedisResult, Script};

/// Separates a group from a counter in a field: no group name has it.
const FIELD_SEPARATOR: char = '|';
const HOUR_MS: u64 = 60 * 60 * 1_000;
/// Issues and days outlive the longest window by a day.
const WINDOW_KEPT_MS: u64 = (WINDOWS_DAYS[2] + 1) * DAY_MS;

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) open_ms: u64,
    pub(crate) closed_ms: u64,
    pub(crate) half_hours_ms: u64,
}

impl Retention {
    pub(crate) const fn new(open_hours: u64, closed_hours: u64, interval_days: u64) -> Self {
        Self {
            open_ms: open_hours * HOUR_MS,
            closed_ms: closed_hours * HOUR_MS,
            half_hours_ms: interval_days * DAY_MS,
        }
    }
}

/// A stretch of time whose counters are stored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Period {
    Total,
    /// Half hours since the epoch.
    HalfHour(u64),
    /// Days since the epoch; windowed counters only.
    Day(u64),
}

/// How far one partition has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Next offset to be applied; `None`: nothing yet.
    pub(crate) next: Option<i64>,
    pub(crate) applied: u64,
    pub(crate) repeated: u64,
    pub(crate) malformed: u64,
}

/// One partition's part of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advance {
    pub(crate) partition: i32,
    /// The stored offset that the batch starts at.
    pub(crate) expected: Option<i64>,
    pub(crate) next: i64,
    pub(crate) applied: u64,
    pub(crate) repeated: u64,
    pub(crate) malformed: u64,
}

/// An issue with the bytes it was read from.
#[derive(Debug, Default)]
pub(crate) struct ReadIssue {
    pub(crate) read: Vec<u8>,
    pub(crate) issue: Issue,
}

/// Everything one batch writes.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) advances: &'a [Advance],
    pub(crate) states: &'a BTreeMap<ContactId, ContactState>,
    pub(crate) issues: &'a BTreeMap<IssueKey, ReadIssue>,
    pub(crate) tally: &'a Tally,
}

/// What came of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// Counted, once.
    Counted,
    /// These partitions are not where they were thought to be; nothing was written.
    Moved(Vec<i32>),
    /// An issue has changed meanwhile; nothing was written.
    IssueChanged,
}

/// Outcomes' side of Redis.
#[derive(Clone)]
pub(crate) struct Store {
    connection: ConnectionManager,
    tag: String,
    topic: String,
    retention: Retention,
    commit: Arc<Script>,
}

/// `GROUP|COUNTER`.
fn field(group: &str, slot: Slot) -> String {
    format!("{group}{FIELD_SEPARATOR}{slot}")
}

impl Store {
    pub(crate) fn new(
        connection: ConnectionManager,
        prefix: &str,
        topic: &str,
        retention: Retention,
    ) -> Self {
        Self {
            connection,
            tag: format!("{{{prefix}:outcomes}}"),
            topic: topic.to_owned(),
            retention,
            commit: Arc::new(Script::new(include_str!("lua/commit.lua"))),
        }
    }

    pub(crate) const fn retention(&self) -> Retention {
        self.retention
    }

    fn key(&self, rest: impl std::fmt::Display) -> String {
        format!("{}:{rest}", self.tag)
    }

    fn contact_key(&self, contact: ContactId) -> String {
        self.key(format_args!("contact:{contact}"))
    }

    fn issue_key(&self, issue: &IssueKey) -> String {
        self.key(format_args!(
            "issue:{:032x}:{}",
            issue.caller.0, issue.family
        ))
    }

    fn period_key(&self, period: Period, grouping: Grouping) -> String {
        let grouping = grouping.name();
        match period {
            Period::Total => self.key(format_args!("total:{grouping}")),
            Period::HalfHour(number) => self.key(format_args!("half-hour:{number}:{grouping}")),
            Period::Day(number) => self.key(format_args!("day:{number}:{grouping}")),
        }
    }

    fn partition_name(&self, partition: i32) -> String {
        format!("{}/{partition}", self.topic)
    }

    /// How far every partition of the topic has been read.
    pub(crate) async fn progress(&self) -> RedisResult<BTreeMap<i32, Progress>> {
        let fields: BTreeMap<String, i64> = redis::cmd("HGETALL")
            .arg(self.key("progress"))
            .query_async(&mut self.connection.clone())
            .await?;
        let mut partitions: BTreeMap<i32, Progress> = BTreeMap::new();
        for (name, value) in fields {
            let Some((partition, what)) = name
                .strip_prefix(&self.topic)
                .and_then(|rest| rest.strip_prefix('/'))
                .and_then(|rest| rest.split_once(':'))
            else {
                continue;
            };
            let Ok(partition) = partition.parse() else {
                continue;
            };
            let progress = partitions.entry(partition).or_default();
            let count = u64::try_from(value).unwrap_or(0);
            match what {
                "next" => progress.next = Some(value),
                "applied" => progress.applied = count,
                "repeated" => progress.repeated = count,
                "malformed" => progress.malformed = count,
                _ => {}
            }
        }
        Ok(partitions)
    }

    /// The states of some contacts; new ones for those not known.
    pub(crate) async fn states(
        &self,
        contacts: &BTreeSet<ContactId>,
    ) -> RedisResult<BTreeMap<ContactId, ContactState>> {
        if contacts.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut command = redis::cmd("MGET");
        for contact in contacts {
            command.arg(self.contact_key(*contact));
        }
        let values: Vec<Option<Vec<u8>>> =
            command.query_async(&mut self.connection.clone()).await?;
        let mut states = BTreeMap::new();
        for (contact, value) in contacts.iter().zip(values) {
            states.insert(
                *contact,
                value
                    .map(|bytes| decode(&bytes))
                    .transpose()?
                    .unwrap_or_default(),
            );
        }
        Ok(states)
    }

    /// Some issues; new ones for those not known.
    pub(crate) async fn issues(
        &self,
        keys: &BTreeSet<IssueKey>,
    ) -> RedisResult<BTreeMap<IssueKey, ReadIssue>> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.issue_key(key));
        }
        let values: Vec<Option<Vec<u8>>> =
            command.query_async(&mut self.connection.clone()).await?;
        let mut issues = BTreeMap::new();
        for (key, value) in keys.iter().zip(values) {
            let read = value.unwrap_or_default();
            let issue = if read.is_empty() {
                Issue::default()
            } else {
                decode(&read)?
            };
            issues.insert(key.clone(), ReadIssue { read, issue });
        }
        Ok(issues)
    }

    /// Writes a batch, all or nothing.
    ///
    /// # Errors
    /// Redis is away; whether the batch was written is then not known, and the offsets tell.
    pub(crate) async fn commit(&self, batch: &Batch<'_>) -> RedisResult<Committed> {
        let mut script = self.commit.prepare_invoke();
        script.key(self.key("progress"));
        script.arg(batch.advances.len());
        for advance in batch.advances {
            script
                .arg(self.partition_name(advance.partition))
                .arg(
                    advance
                        .expected
                        .map(|offset| offset.to_string())
                        .unwrap_or_default(),
                )
                .arg(advance.next)
                .arg(advance.applied)
                .arg(advance.repeated)
                .arg(advance.malformed);
        }
        script.arg(batch.states.len());
        for (contact, state) in batch.states {
            let ttl_ms = if state.is_closed() {
                self.retention.closed_ms
            } else {
                self.retention.open_ms
            };
            script
                .key(self.contact_key(*contact))
                .arg(encode(state)?)
                .arg(ttl_ms);
        }
        script.arg(batch.issues.len());
        for (key, read) in batch.issues {
            script
                .key(self.issue_key(key))
                .arg(read.read.as_slice())
                .arg(encode(&read.issue)?)
                .arg(WINDOW_KEPT_MS);
        }
        let sums = self.sums(batch.tally);
        script.arg(sums.len());
        for ((period, grouping), fields) in &sums {
            let ttl_ms = match period {
                Period::Total => 0,
                Period::HalfHour(_) => self.retention.half_hours_ms,
                Period::Day(_) => WINDOW_KEPT_MS,
            };
            script
                .key(self.period_key(*period, *grouping))
                .arg(ttl_ms)
                .arg(fields.len());
            for ((group, slot), amount) in fields {
                script.arg(field(group, *slot)).arg(*amount);
            }
        }
        let mut connection = self.connection.clone();
        let answer: Vec<String> = script.invoke_async(&mut connection).await?;
        Ok(match answer.first().map(String::as_str) {
            Some("counted") => Committed::Counted,
            Some("moved") => Committed::Moved(
                answer[1..]
                    .iter()
                    .filter_map(|name| name.rsplit_once('/')?.1.parse().ok())
                    .collect(),
            ),
            _ => Committed::IssueChanged,
        })
    }

    /// The changes by stored hash.
    fn sums<'a>(&self, tally: &'a Tally) -> Sums<'a> {
        let mut sums = Sums::new();
        for (cell, counts) in tally.iter() {
            let half_hour = Period::HalfHour(cell.half_hour);
            let day = Period::Day(cell.half_hour * HALF_HOUR_MS / DAY_MS);
            for (slot, amount) in counts.iter() {
                let windowed = matches!(slot, Slot::Count(counter) if counter.is_windowed());
                let periods = [
                    Some(Period::Total),
                    Some(half_hour),
                    windowed.then_some(day),
                ];
                for period in periods.into_iter().flatten() {
                    let fields = sums.entry((period, cell.grouping)).or_default();
                    *fields.entry((&cell.group, slot)).or_insert(0) += amount;
                }
            }
        }
        sums
    }

    /// The counters of some periods, by period and group.
    pub(crate) async fn counts(
        &self,
        periods: &[Period],
        grouping: Grouping,
    ) -> RedisResult<BTreeMap<Period, BTreeMap<String, Counts>>> {
        let mut found = BTreeMap::new();
        // Bounded replies: some hundred small hashes at once.
        for periods in periods.chunks(128) {
            let mut pipeline = redis::pipe();
            for period in periods {
                pipeline
                    .cmd("HGETALL")
                    .arg(self.period_key(*period, grouping));
            }
            let hashes: Vec<BTreeMap<String, i64>> =
                pipeline.query_async(&mut self.connection.clone()).await?;
            for (period, fields) in periods.iter().zip(hashes) {
                let groups: &mut BTreeMap<String, Counts> = found.entry(*period).or_default();
                for (name, amount) in fields {
                    let Some((group, slot)) = name.split_once(FIELD_SEPARATOR) else {
                        continue;
                    };
                    // A counter of a newer version is not ours to show.
                    let Ok(slot) = slot.parse() else { continue };
                    groups
                        .entry(group.to_owned())
                        .or_default()
                        .add(slot, amount);
                }
            }
        }
        Ok(found)
    }
}

type Sums<'a> = BTreeMap<(Period, Grouping), BTreeMap<(&'a Arc<str>, Slot), i64>>;

fn encode<T: serde::Serialize>(value: &T) -> RedisResult<Vec<u8>> {
    rmp_serde::to_vec(value).map_err(|error| unreadable("encoding", &error))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> RedisResult<T> {
    rmp_serde::from_slice(bytes).map_err(|error| unreadable("decoding", &error))
}

fn unreadable(what: &'static str, error: &dyn std::error::Error) -> redis::RedisError {
    redis::RedisError::from((
        redis::ErrorKind::UnexpectedReturnType,
        what,
        error.to_string(),
    ))
}
