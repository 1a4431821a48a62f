//! What the measures need to know of policy.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::Policy;

/// What the measures need to know of policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Topic to family; a topic that is not here is a family of its own.
    pub families: BTreeMap<String, String>,
    /// Queue to service level threshold, in ms.
    pub service_level_ms: BTreeMap<String, u64>,
    /// The threshold of contacts without a queue, or with one that policy does not know, in ms.
    pub service_level_default_ms: u64,
    /// Lines that the legacy level of service covers; empty: all.
    pub legacy_lines: BTreeSet<String>,
}

impl Rules {
    /// What `policy` says.
    #[must_use]
    pub fn from_policy(
        policy: &Policy,
        service_level_default_ms: u64,
        legacy_lines: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            families: policy
                .topics
                .values()
                .map(|topic| (topic.id.clone(), topic.family.clone()))
                .collect(),
            service_level_ms: policy
                .queues
                .iter()
                .map(|queue| (queue.name.clone(), queue.service_level_ms))
                .collect(),
            service_level_default_ms,
            legacy_lines: legacy_lines.into_iter().collect(),
        }
    }

    pub(super) fn family(&self, topic: &str) -> String {
        self.families
            .get(topic)
            .map_or(topic, String::as_str)
            .to_owned()
    }

    pub(super) fn threshold_ms(&self, queue: Option<&str>) -> u64 {
        queue
            .and_then(|queue| self.service_level_ms.get(queue))
            .copied()
            .unwrap_or(self.service_level_default_ms)
    }

    pub(super) fn is_legacy(&self, line: &str) -> bool {
        self.legacy_lines.is_empty() || self.legacy_lines.contains(line)
    }
}
