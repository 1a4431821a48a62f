//! Readiness: a replica is ready when each of its conditions is, and it is not draining.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All conditions of a replica.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    draining: bool,
    /// Reason why not ready; `None`: ready.
    conditions: BTreeMap<&'static str, Option<String>>,
}

/// One condition, as the part that knows about it sees it.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new condition, not ready until it says so.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        self.state()
            .conditions
            .insert(name, Some("starting".to_owned()));
        Condition {
            name,
            readiness: self.clone(),
        }
    }

    /// From now on not ready, whatever the conditions say.
    pub(crate) fn drain(&self) {
        self.state().draining = true;
    }

    /// Ready, or one line for each reason why not.
    ///
    /// # Errors
    /// The reasons, for people.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state();
        let mut reasons: Vec<String> = state
            .conditions
            .iter()
            .filter_map(|(name, reason)| reason.as_ref().map(|reason| format!("{name}: {reason}")))
            .collect();
        if state.draining {
            reasons.insert(0, "draining".to_owned());
        }
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons.join("\n"))
        }
    }
}

impl Condition {
    /// The condition holds.
    pub fn ready(&self) {
        self.readiness.state().conditions.insert(self.name, None);
    }

    /// It does not, and why.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.readiness
            .state()
            .conditions
            .insert(self.name, Some(reason.into()));
    }

    /// Whether it holds now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.readiness.state().conditions.get(self.name), Some(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_condition_holds_and_not_draining() {
        let readiness = Readiness::default();
        let redis = readiness.condition("redis");
        let kafka = readiness.condition("kafka");
        redis.ready();
        assert_eq!(readiness.check(), Err("kafka: starting".to_owned()));
        kafka.ready();
        assert_eq!(readiness.check(), Ok(()));
        redis.not_ready("connection refused");
        assert_eq!(
            readiness.check(),
            Err("redis: connection refused".to_owned())
        );
        redis.ready();
        readiness.drain();
        assert_eq!(readiness.check(), Err("draining".to_owned()));
    }
}
