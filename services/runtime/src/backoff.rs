//! Delays between attempts: doubling, jittered, bounded.

use std::time::Duration;

/// Delays that double from `min` to `max`, each drawn from its upper half, so that
/// replicas that lost the same peer do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    next_ms: u64,
}

impl Backoff {
    /// From `min_ms` (at least 1) to `max_ms` (at least `min_ms`).
    #[must_use]
    pub fn new(min_ms: u64, max_ms: u64) -> Self {
        let min_ms = min_ms.max(1);
        Self {
            min_ms,
            max_ms: max_ms.max(min_ms),
            next_ms: min_ms,
        }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling_ms = self.next_ms;
        self.next_ms = (self.next_ms * 2).min(self.max_ms);
        let floor_ms = ceiling_ms / 2;
        Duration::from_millis(floor_ms + rand::random_range(0..=ceiling_ms - floor_ms))
    }

    /// Starts anew after a success.
    pub fn reset(&mut self) {
        self.next_ms = self.min_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_ceiling_and_start_anew() {
        let mut backoff = Backoff::new(100, 1_000);
        for ceiling_ms in [100, 200, 400, 800, 1_000, 1_000] {
            let delay_ms = u64::try_from(backoff.next_delay().as_millis()).expect("small");
            assert!(
                (ceiling_ms / 2..=ceiling_ms).contains(&delay_ms),
                "{delay_ms} of {ceiling_ms}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
