//! Distributions that can be merged: fixed logarithmic buckets, eight an octave.
//!
//! A bucket is at most an eighth of its lower end wide, so a percentile read from the
//! middle of its bucket is within about 6 % of the true one, from milliseconds to weeks,
//! and merging two distributions is adding their counters. Rejected: t-digests and
//! reservoir samples (adding one event is not a sum, so it cannot be a counter in a store).

use std::collections::BTreeMap;

/// Buckets an octave.
const PER_OCTAVE: u64 = 8;
/// Bits of the position inside an octave.
const SUB_BITS: u32 = 3;
/// Longer than any wait (34 years): keeps the bucket in range whatever a clock says.
const VALUE_MAX: u64 = (1 << 40) - 1;

/// The bucket of a value.
#[must_use]
pub fn bucket_of(value: u64) -> u16 {
    let value = value.min(VALUE_MAX);
    if value < PER_OCTAVE {
        return u16::try_from(value).expect("below 8");
    }
    let exponent = value.ilog2();
    let octave = u64::from(exponent - SUB_BITS + 1);
    let position = (value >> (exponent - SUB_BITS)) & (PER_OCTAVE - 1);
    u16::try_from(octave * PER_OCTAVE + position).expect("at most 38 octaves of 8")
}

/// Lowest and highest value of a bucket.
#[must_use]
pub fn bucket_range(bucket: u16) -> (u64, u64) {
    (lower(u64::from(bucket)), lower(u64::from(bucket) + 1) - 1)
}

fn lower(bucket: u64) -> u64 {
    if bucket < PER_OCTAVE {
        return bucket;
    }
    let octave = (bucket / PER_OCTAVE - 1).min(54);
    (PER_OCTAVE + bucket % PER_OCTAVE) << octave
}

/// The value below which `share` (0 to 1) of the values lie: the middle of the bucket that
/// holds it. `None` if there are no values.
#[must_use]
pub fn quantile(buckets: &BTreeMap<u16, u64>, share: f64) -> Option<u64> {
    let total: u64 = buckets.values().sum();
    if total == 0 {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank; share is clamped to 0..=1"
    )]
    let rank = ((share.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    for (bucket, count) in buckets {
        seen += count;
        if seen >= rank {
            let (low, high) = bucket_range(*bucket);
            return Some(low + (high - low) / 2);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_meet_without_gap_and_hold_their_values() {
        for bucket in 0..300u16 {
            let (low, high) = bucket_range(bucket);
            assert_eq!(bucket_of(low), bucket);
            assert_eq!(bucket_of(high), bucket);
            assert_eq!(bucket_range(bucket + 1).0, high + 1);
            assert!(high - low <= low / 8, "{bucket}: {low} to {high}");
        }
        assert_eq!(bucket_of(u64::MAX), bucket_of(VALUE_MAX));
    }

    #[test]
    fn a_percentile_is_within_a_sixteenth_of_the_true_one() {
        let mut buckets = BTreeMap::new();
        for value in 1..=100_000u64 {
            *buckets.entry(bucket_of(value)).or_insert(0) += 1;
        }
        for (share, exact) in [(0.5, 50_000u64), (0.9, 90_000), (0.99, 99_000)] {
            let estimate = quantile(&buckets, share).expect("values");
            assert!(
                estimate.abs_diff(exact) * 16 <= exact,
                "{share}: {estimate} for {exact}"
            );
        }
        assert_eq!(quantile(&BTreeMap::new(), 0.5), None);
    }
}
