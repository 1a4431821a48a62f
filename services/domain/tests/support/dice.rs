//! Randomness from a seed that is printed.

/// SplitMix64.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0, below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.below(items.len() as u64);
        &items[usize::try_from(index).expect("within the slice")]
    }

    /// Exponential with that mean.
    pub(crate) fn after(&mut self, mean_ms: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((1.0 - unit).ln() * -(mean_ms as f64)) as u64
    }
}

/// The first seed and how many: `TRUNKLINE_SEED` runs one alone.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the seed of a failure is given from outside"
    )]
    let given = std::env::var("TRUNKLINE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let (first, count) = given.map_or((1, count), |seed| (seed, 1));
    first..first + count
}

/// Says the seed if the test fails.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with TRUNKLINE_SEED={}", self.0);
        }
    }
}
