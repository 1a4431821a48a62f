//! A pool's share of the policy, with names shared and references dense.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::{Policy, PoolPolicy};

/// Points are counted in thousandths, so that waiting counts by the millisecond.
pub(super) const POINT: u64 = 1_000;

/// A queue of the pool.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    pub(super) device: Arc<str>,
    pub(super) announcement: Arc<str>,
    pub(super) skill: u32,
    pub(super) proficiency_min: u8,
    pub(super) priority_start: u32,
    pub(super) acceleration: u32,
    pub(super) waiting_max: u32,
    pub(super) handle_prior_ms: u64,
    pub(super) patience_prior_ms: u64,
}

/// A topic that a queue of the pool serves.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) id: Arc<str>,
    pub(super) queue: u16,
    pub(super) callback: bool,
    pub(super) priority_start: u32,
}

/// A line whose callers the pool serves.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: Arc<str>,
    pub(super) default_topic: u32,
    pub(super) caller_places_max: u32,
    pub(super) time_zone: jiff::tz::TimeZone,
}

/// The pool's share of the policy.
#[derive(Clone, Debug)]
pub(super) struct Catalogue {
    pub(super) pool: PoolPolicy,
    pub(super) queues: Vec<Queue>,
    pub(super) topics: Vec<Topic>,
    pub(super) lines: Vec<Line>,
    topic_by_id: BTreeMap<Arc<str>, u32>,
    line_by_name: BTreeMap<Arc<str>, u32>,
    queue_by_name: BTreeMap<Arc<str>, u16>,
    skill_by_name: BTreeMap<Arc<str>, u32>,
    /// The priority cap, in thousandths of a point.
    pub(super) cap: u64,
}

impl Catalogue {
    /// The share of one pool; `None` if the policy has no such pool.
    pub(super) fn new(policy: &Policy, name: &str) -> Option<Catalogue> {
        let pool = policy.pool(name)?.clone();
        let mut skill_by_name: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let mut queues = Vec::new();
        let mut queue_by_name = BTreeMap::new();
        for queue in policy.queues.iter().filter(|queue| queue.pool == name) {
            let skills = u32::try_from(skill_by_name.len())
                .expect("as many skills as queues at most, below 2^16");
            let skill = *skill_by_name
                .entry(queue.skill.as_str().into())
                .or_insert(skills);
            let queue_name: Arc<str> = queue.name.as_str().into();
            let index = u16::try_from(queues.len()).expect("policy holds at most 65,535 queues");
            queue_by_name.insert(Arc::clone(&queue_name), index);
            queues.push(Queue {
                name: queue_name,
                device: queue.device.as_str().into(),
                announcement: queue.announcement.as_str().into(),
                skill,
                proficiency_min: queue.proficiency_min,
                priority_start: queue.priority_start,
                acceleration: queue.priority_acceleration,
                waiting_max: queue.waiting_max,
                handle_prior_ms: queue.handle_time_prior_ms,
                patience_prior_ms: queue.patience_prior_ms,
            });
        }
        let mut topics = Vec::new();
        let mut topic_by_id = BTreeMap::new();
        for topic in policy.topics.values() {
            let Some(queue) = queue_by_name.get(policy.queue(topic.queue).name.as_str()) else {
                continue;
            };
            let id: Arc<str> = topic.id.as_str().into();
            topic_by_id.insert(
                Arc::clone(&id),
                u32::try_from(topics.len()).expect("policy is below 16 MiB"),
            );
            topics.push(Topic {
                id,
                queue: *queue,
                callback: topic.callback,
                priority_start: topic.priority_start,
            });
        }
        let mut lines = Vec::new();
        let mut line_by_name = BTreeMap::new();
        for line in policy.lines.values().filter(|line| line.pool == name) {
            let Some(default_topic) = topic_by_id.get(line.default_topic.as_str()) else {
                continue;
            };
            let line_name: Arc<str> = line.name.as_str().into();
            line_by_name.insert(
                Arc::clone(&line_name),
                u32::try_from(lines.len()).expect("policy is below 16 MiB"),
            );
            lines.push(Line {
                name: line_name,
                default_topic: *default_topic,
                caller_places_max: line.caller_places_max,
                time_zone: jiff::tz::TimeZone::get(&line.time_zone)
                    .unwrap_or(jiff::tz::TimeZone::UTC),
            });
        }
        let cap = u64::from(pool.priority_cap) * POINT;
        Some(Catalogue {
            pool,
            queues,
            topics,
            lines,
            topic_by_id,
            line_by_name,
            queue_by_name,
            skill_by_name,
            cap,
        })
    }

    pub(super) fn topic(&self, id: &str) -> Option<u32> {
        self.topic_by_id.get(id).copied()
    }

    pub(super) fn line(&self, name: &str) -> Option<u32> {
        self.line_by_name.get(name).copied()
    }

    pub(super) fn queue(&self, name: &str) -> Option<u16> {
        self.queue_by_name.get(name).copied()
    }

    pub(super) fn skill(&self, name: &str) -> Option<u32> {
        self.skill_by_name.get(name).copied()
    }
}
