//! Agents expected in a window.
//!
//! The forecast is the last week: the most agents that routing counted in the same hour of
//! the week. Where nothing is known of that hour, the most of any hour; where nothing is
//! known at all, the agents that policy names. Rejected: the agents of this moment (a
//! window tomorrow morning would be full because it is night now).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::TimeMs;
use domain::callback::Forecast;
use domain::policy::Policy;

const HOUR_MS: u64 = 3_600_000;
const HOURS_A_WEEK: u64 = 168;
/// Where policy does not know the topic, or its pool: 10 minutes.
const HANDLE_TIME_MS: u64 = 600_000;

/// What was seen of each pool.
pub(crate) struct Forecasts {
    policy: Arc<Policy>,
    seen: Mutex<BTreeMap<String, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Most agents, by hour of the week.
    by_hour: BTreeMap<u32, u32>,
    /// Hour since the epoch that was observed last.
    last_hour: u64,
}

fn hour_of_week(at: TimeMs) -> u32 {
    u32::try_from(at.0 / HOUR_MS % HOURS_A_WEEK).unwrap_or(0)
}

impl Forecasts {
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            seen: Mutex::new(BTreeMap::new()),
        }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store remembers.
    pub(crate) fn load(&self, pool: &str, by_hour: BTreeMap<u32, u32>) {
        let mut seen = self.seen();
        let known = seen.entry(pool.to_owned()).or_default();
        for (hour, agents) in by_hour {
            known.by_hour.entry(hour).or_insert(agents);
        }
    }

    /// Agents counted now. `Some` (hour of the week, agents): to be remembered.
    pub(crate) fn observe(&self, pool: &str, now: TimeMs, agents: u32) -> Option<(u32, u32)> {
        let mut seen = self.seen();
        let known = seen.entry(pool.to_owned()).or_default();
        let hour = hour_of_week(now);
        let this_hour = now.0 / HOUR_MS;
        // The first look in an hour replaces last week's, but a pool that logs on only now
        // must not empty its windows: the higher counts until the hour has run.
        let is_first = known.last_hour != this_hour;
        known.last_hour = this_hour;
        let slot = known.by_hour.entry(hour).or_insert(0);
        if agents > *slot || (is_first && agents > 0 && agents < *slot) {
            *slot = agents;
            return Some((hour, agents));
        }
        None
    }

    /// What is expected of a pool at a moment, for a topic.
    pub(crate) fn of(&self, pool: &str, topic: &str, at: TimeMs) -> Forecast {
        let from_policy = self
            .policy
            .pools
            .get(pool)
            .map_or(0, |pool| pool.agents.len());
        let seen = self.seen();
        let agents = seen.get(pool).and_then(|known| {
            let in_hour = known
                .by_hour
                .get(&hour_of_week(at))
                .copied()
                .filter(|agents| *agents > 0);
            in_hour.or_else(|| {
                known
                    .by_hour
                    .values()
                    .copied()
                    .max()
                    .filter(|agents| *agents > 0)
            })
        });
        Forecast {
            agents: agents.unwrap_or_else(|| u32::try_from(from_policy).unwrap_or(u32::MAX)),
            handle_time_ms: self.handle_time_ms(pool, topic),
        }
    }

    fn handle_time_ms(&self, pool: &str, topic: &str) -> u64 {
        if let Some(topic) = self.policy.topics.get(topic) {
            return self.policy.queue(topic.queue).handle_time_prior_ms;
        }
        let queues = self.policy.queues.iter().filter(|queue| queue.pool == pool);
        queues
            .map(|queue| queue.handle_time_prior_ms)
            .max()
            .unwrap_or(HANDLE_TIME_MS)
    }

    /// Pools that policy names.
    pub(crate) fn pools(&self) -> BTreeSet<String> {
        self.policy.pools.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY_TEN: TimeMs = TimeMs(1_776_074_400_000);
    const WEEK_MS: u64 = HOURS_A_WEEK * HOUR_MS;

    fn forecasts() -> Forecasts {
        Forecasts::new(Arc::new(Policy::worked_example()))
    }

    fn agents(forecasts: &Forecasts, at: TimeMs) -> u32 {
        forecasts.of("elsewhere", "", at).agents
    }

    #[test]
    fn a_window_is_expected_to_have_the_agents_of_the_same_hour_a_week_ago() {
        let forecasts = forecasts();
        assert_eq!(
            agents(&forecasts, MONDAY_TEN),
            0,
            "nothing is known of this pool"
        );
        forecasts.observe("elsewhere", MONDAY_TEN, 40);
        forecasts.observe("elsewhere", MONDAY_TEN.plus(10 * HOUR_MS), 5);
        assert_eq!(agents(&forecasts, MONDAY_TEN.plus(WEEK_MS)), 40);
        assert_eq!(
            agents(&forecasts, MONDAY_TEN.plus(WEEK_MS + 10 * HOUR_MS)),
            5
        );
        assert_eq!(
            agents(&forecasts, MONDAY_TEN.plus(3 * HOUR_MS)),
            40,
            "the most of any hour"
        );
    }

    #[test]
    fn a_new_week_replaces_the_last_one_and_the_hour_keeps_its_most() {
        let forecasts = forecasts();
        forecasts.observe("elsewhere", MONDAY_TEN, 40);
        let next_week = MONDAY_TEN.plus(WEEK_MS);
        assert!(forecasts.observe("elsewhere", next_week, 30).is_some());
        assert!(
            forecasts
                .observe("elsewhere", next_week.plus(60_000), 20)
                .is_none()
        );
        assert_eq!(agents(&forecasts, next_week), 30);
        assert!(
            forecasts
                .observe("elsewhere", next_week.plus(120_000), 35)
                .is_some()
        );
        assert_eq!(agents(&forecasts, next_week), 35);
    }
}
