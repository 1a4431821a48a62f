//! How many callbacks a window can hold.
//!
//! Derived from the forecast, not a fixed number: a window with few agents must not be
//! promised to many callers, because those who hold then wait for those who were promised.

/// What is expected of a pool within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Agents who will be at work.
    pub agents: u32,
    /// Mean handle time of one contact, in ms; 0 counts as 1.
    pub handle_time_ms: u64,
}

/// Callbacks that fit into a window of `window_ms`: the agents' time, divided by the
/// handle time, of which callbacks may take `share_percent` (0 to 100). Rounded down: a
/// promise that does not quite fit is not made.
#[must_use]
pub fn window_capacity(forecast: Forecast, window_ms: u64, share_percent: u32) -> u32 {
    let agent_time_ms = u128::from(forecast.agents) * u128::from(window_ms);
    let share = u128::from(share_percent.min(100));
    let callbacks = agent_time_ms * share / (100 * u128::from(forecast.handle_time_ms.max(1)));
    u32::try_from(callbacks).unwrap_or(u32::MAX)
}

/// Whether one more callback fits into a window that holds `booked` of them.
#[must_use]
pub fn window_has_room(
    forecast: Forecast,
    window_ms: u64,
    share_percent: u32,
    booked: u32,
) -> bool {
    booked < window_capacity(forecast, window_ms, share_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_callbacks_share_of_the_agents_time() {
        let forecast = Forecast {
            agents: 40,
            handle_time_ms: 600_000,
        };
        // 40 agents x 30 minutes / 10 minutes = 120 contacts, a quarter of them callbacks.
        assert_eq!(window_capacity(forecast, 1_800_000, 25), 30);
        assert!(window_has_room(forecast, 1_800_000, 25, 29));
        assert!(!window_has_room(forecast, 1_800_000, 25, 30));
    }

    #[test]
    fn without_agents_or_share_nothing_is_promised() {
        let nobody = Forecast {
            agents: 0,
            handle_time_ms: 600_000,
        };
        assert_eq!(window_capacity(nobody, 1_800_000, 100), 0);
        let somebody = Forecast {
            agents: 10,
            ..nobody
        };
        assert_eq!(window_capacity(somebody, 1_800_000, 0), 0);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let forecast = Forecast {
            agents: u32::MAX,
            handle_time_ms: 0,
        };
        assert_eq!(window_capacity(forecast, u64::MAX, u32::MAX), u32::MAX);
    }

    proptest::proptest! {
        #[test]
        fn the_promised_work_never_exceeds_the_share_of_agent_time(
            agents in 0u32..50_000, handle_time_ms in 1u64..3_600_000,
            window_ms in 1u64..86_400_000, share_percent in 0u32..=100,
        ) {
            let capacity = window_capacity(Forecast { agents, handle_time_ms }, window_ms, share_percent);
            let promised = u128::from(capacity) * u128::from(handle_time_ms) * 100;
            let available = u128::from(agents) * u128::from(window_ms) * u128::from(share_percent);
            proptest::prop_assert!(promised <= available);
        }
    }
}
