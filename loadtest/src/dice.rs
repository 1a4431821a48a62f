//! Seeded randomness: small enough that every caller carries a die of their own.
//!
//! A caller's choices then depend on the seed and on the caller alone, never on the order
//! in which the mesh answered, so two runs of one scenario offer the same people. A
//! general generator would do as well but costs 300 bytes a caller; SplitMix64 is 8.

/// A die: SplitMix64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dice(u64);

impl Dice {
    /// A die for one purpose: `stream` tells it from others of the same seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The first outputs of close seeds are alike in their low bits: throw two away.
        dice.next();
        dice.next();
        dice
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 (included) to 1 (excluded).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// From 0 to `count - 1`; 0 if `count` is 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        ((self.unit() * count as f64) as usize).min(count - 1)
    }

    /// Exponential.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }

    /// Standard normal (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Lognormal by its mean and coefficient of variation.
    pub(crate) fn lognormal(&mut self, mean: f64, variation: f64) -> f64 {
        let variance = (1.0 + variation * variation).ln();
        (mean.ln() - variance / 2.0 + variance.sqrt() * self.normal()).exp()
    }

    /// Gamma with this shape and mean 1 (Marsaglia and Tsang; shape below 1 by boosting).
    pub(crate) fn gamma_of_mean_one(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost / shape;
        }
        self.gamma(shape) / shape
    }

    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let normal = self.normal();
            let v = (1.0 + c * normal).powi(3);
            if v <= 0.0 {
                continue;
            }
            if (1.0 - self.unit()).ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// An index, each with the chance of its weight; 0 if all are zero.
    pub(crate) fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights
            .iter()
            .rposition(|weight| *weight > 0.0)
            .unwrap_or(0)
    }

    /// How long a caller holds on, drawn from the survival curve of the oracle
    /// (`patience_km_bank_feb1999.csv`) stretched to `mean`.
    pub(crate) fn patience(&mut self, mean: f64) -> f64 {
        let survival = 1.0 - self.unit();
        let mut earlier = (0.0, 1.0);
        for (seconds, share) in PATIENCE_SURVIVAL {
            if survival >= share {
                let part = (earlier.1 - survival) / (earlier.1 - share);
                return (earlier.0 + part * (seconds - earlier.0)) * mean / PATIENCE_MEAN_S;
            }
            earlier = (seconds, share);
        }
        // Beyond the data: as the exponential fit of the whole curve has it.
        let tail = -(survival / earlier.1).ln() * PATIENCE_TAIL_S;
        (earlier.0 + tail) * mean / PATIENCE_MEAN_S
    }
}

/// A hash of a number: SplitMix64's finisher.
pub(crate) const fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Kaplan-Meier survival of patience, (seconds, share still holding): the oracle's file,
/// without its last point, which repeats the one before.
const PATIENCE_SURVIVAL: [(f64, f64); 18] = [
    (5.0, 0.9865),
    (10.0, 0.9637),
    (15.0, 0.9431),
    (20.0, 0.9261),
    (30.0, 0.8997),
    (45.0, 0.8642),
    (60.0, 0.8214),
    (90.0, 0.7546),
    (120.0, 0.7107),
    (150.0, 0.6723),
    (180.0, 0.6105),
    (240.0, 0.5362),
    (300.0, 0.487),
    (360.0, 0.4288),
    (420.0, 0.3709),
    (480.0, 0.3312),
    (540.0, 0.2966),
    (600.0, 0.2636),
];
/// Mean of the exponential that continues the curve, in seconds (the oracle's fit).
const PATIENCE_TAIL_S: f64 = 354.0;
/// Mean of the curve with that tail: the area under it, in seconds (a test holds it).
const PATIENCE_MEAN_S: f64 = 406.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_draws_again() {
        let mut first = Dice::new(7, 3);
        let mut second = Dice::new(7, 3);
        let mut other = Dice::new(7, 4);
        let draws: Vec<u64> = (0..32).map(|_| first.next()).collect();
        assert_eq!(draws, (0..32).map(|_| second.next()).collect::<Vec<_>>());
        assert_ne!(draws, (0..32).map(|_| other.next()).collect::<Vec<_>>());
    }

    #[test]
    fn distributions_have_the_moments_they_are_named_by() {
        let mut dice = Dice::new(11, 0);
        let count = 200_000;
        let mean = |mut draw: Box<dyn FnMut() -> f64>| {
            (0..count).map(|_| draw()).sum::<f64>() / f64::from(count)
        };
        let lognormal = mean(Box::new(move || dice.lognormal(840.0, 1.23)));
        assert!((lognormal / 840.0 - 1.0).abs() < 0.03, "{lognormal}");
        let exponential = mean(Box::new(move || dice.exponential(5.0)));
        assert!((exponential / 5.0 - 1.0).abs() < 0.02, "{exponential}");
        for shape in [0.5, 1.0, 8.0] {
            let gamma = mean(Box::new(move || dice.gamma_of_mean_one(shape)));
            assert!((gamma - 1.0).abs() < 0.03, "shape {shape}: {gamma}");
        }
    }

    #[test]
    fn patience_follows_the_oracle_curve() {
        let mut dice = Dice::new(5, 0);
        let count = 200_000;
        let draws: Vec<f64> = (0..count).map(|_| dice.patience(PATIENCE_MEAN_S)).collect();
        for (seconds, share) in [(60.0, 0.8214), (300.0, 0.487), (600.0, 0.2636)] {
            let held =
                draws.iter().filter(|draw| **draw > seconds).count() as f64 / f64::from(count);
            assert!((held - share).abs() < 0.005, "{seconds} s: {held}");
        }
        let mean = draws.iter().sum::<f64>() / f64::from(count);
        assert!((mean / PATIENCE_MEAN_S - 1.0).abs() < 0.02, "{mean}");
    }
}
