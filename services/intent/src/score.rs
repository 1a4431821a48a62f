//! Measures of a classifier, from (confidence, right or wrong) and confusion counts.

/// Bins of the expected calibration error.
pub const ECE_BINS: usize = 15;

/// Expected calibration error over [`ECE_BINS`] equal bins: how far confidence is from
/// being right, on average, 0 to 1. 0 without rows.
#[must_use]
pub fn expected_calibration_error(rows: impl Iterator<Item = (f32, bool)>) -> f64 {
    let mut bins = [(0_u64, 0.0_f64, 0_u64); ECE_BINS];
    let mut all = 0_u64;
    for (confidence, right) in rows {
        let index = ((confidence * ECE_BINS as f32) as usize).min(ECE_BINS - 1);
        bins[index].0 += 1;
        bins[index].1 += f64::from(confidence);
        bins[index].2 += u64::from(right);
        all += 1;
    }
    bins.iter()
        .map(|(_, confidence, right)| (confidence - *right as f64).abs())
        .sum::<f64>()
        / all.max(1) as f64
}

/// Area under the curve: the chance that a random member of `high` scores above a random
/// one of `low`, ties counted half. None if either is empty.
#[must_use]
pub fn area_under_curve(high: &[f32], low: &[f32]) -> Option<f64> {
    if high.is_empty() || low.is_empty() {
        return None;
    }
    let mut all: Vec<(f32, bool)> = high
        .iter()
        .map(|score| (*score, true))
        .chain(low.iter().map(|score| (*score, false)))
        .collect();
    all.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut ranks = 0.0;
    let mut at = 0;
    while at < all.len() {
        let mut end = at;
        while end < all.len() && all[end].0 == all[at].0 {
            end += 1;
        }
        let mean_rank = (at + end + 1) as f64 / 2.0;
        ranks += mean_rank * all[at..end].iter().filter(|(_, is_high)| *is_high).count() as f64;
        at = end;
    }
    let (high, low) = (high.len() as f64, low.len() as f64);
    Some((ranks - high * (high + 1.0) / 2.0) / (high * low))
}

/// Per label: right, predicted, present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelCount {
    /// Present and predicted.
    pub right: u64,
    /// Predicted.
    pub predicted: u64,
    /// Present.
    pub present: u64,
}

impl LabelCount {
    /// Harmonic mean of precision and recall; 0 if never right.
    #[must_use]
    pub fn f1(self) -> f64 {
        2.0 * self.right as f64 / (self.predicted + self.present).max(1) as f64
    }

    /// Share of those present that were predicted.
    #[must_use]
    pub fn recall(self) -> f64 {
        self.right as f64 / self.present.max(1) as f64
    }

    /// Share of those predicted that were present.
    #[must_use]
    pub fn precision(self) -> f64 {
        self.right as f64 / self.predicted.max(1) as f64
    }
}

/// Mean F1 over the labels that are present.
#[must_use]
pub fn macro_f1(counts: &[LabelCount]) -> f64 {
    let present = counts.iter().filter(|count| count.present > 0);
    let (sum, labels) = present.fold((0.0, 0_u64), |(sum, labels), count| {
        (sum + count.f1(), labels + 1)
    });
    sum / labels.max(1) as f64
}

/// The score below which `share` of `scores` lie; 0 without scores.
#[must_use]
pub fn quantile(scores: &[f32], share: f64) -> f32 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    let index = (sorted.len() as f64 * share) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_error_is_zero_when_confidence_is_honest_and_large_when_it_is_not() {
        let honest = (0..1_000).map(|row| (0.7, row % 10 < 7));
        assert!(expected_calibration_error(honest) < 1e-6);
        let boastful = (0..1_000).map(|row| (1.0, row % 2 == 0));
        assert!((expected_calibration_error(boastful) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn area_counts_ties_half() {
        assert_eq!(area_under_curve(&[0.9, 0.8], &[0.1, 0.2]), Some(1.0));
        assert_eq!(area_under_curve(&[0.5], &[0.5]), Some(0.5));
        assert_eq!(area_under_curve(&[0.1, 0.9], &[0.5]), Some(0.5));
        assert_eq!(area_under_curve(&[], &[0.5]), None);
    }

    #[test]
    fn f1_of_absent_labels_does_not_count() {
        let counts = [
            LabelCount {
                right: 1,
                predicted: 2,
                present: 2,
            },
            LabelCount {
                right: 0,
                predicted: 1,
                present: 0,
            },
        ];
        assert!((macro_f1(&counts) - 0.5).abs() < 1e-9);
    }
}
