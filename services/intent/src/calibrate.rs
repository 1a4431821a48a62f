//! From scores to a probability that can be acted on.
//!
//! Temperature makes the softmax honest in scope. A logistic regression on seven signals
//! then gives the chance that the first candidate is right, over in-scope and
//! out-of-scope callers alike: how sure, how far ahead, how spread, how much of it was
//! ever seen, how long, how much looks like nothing we do. (Raw logits and energy were
//! measured as scores and rejected: 55 to 83 % AUROC against 95 to 97.)
//!
//! Thresholds follow from a cost. Sending a caller to the wrong office costs
//! [`WRONG_COST`] times what asking a person costs; a topic is acted on where the held-out
//! cost of acting is the lower, found per topic and pulled towards the common value as
//! strongly as the topic's held-out lines are few.

use serde::{Deserialize, Serialize};

use crate::linear::softmax;
use crate::logistic::fit_logistic;
use crate::score::{self, LabelCount};

/// A wrong office against a person who asks. A person costs a quarter of a minute at the
/// operator; a wrong office costs a second wait and a transfer.
pub const WRONG_COST: f64 = 3.0;

/// Lines' worth of weight that the common threshold has in a topic's own.
const COMMON_WEIGHT: f64 = 30.0;

/// A threat or a cry for help is acted on early: the protocol's person answers either
/// way, and a miss cannot be made good.
const SAFETY_TOPIC: &str = "SAFETY";
const SAFETY_THRESHOLD_MAX: f32 = 0.35;

/// "A person" wrongly recognised costs what "unsure" costs, a person: early too.
const OPERATOR_TOPIC: &str = domain::policy::OPERATOR_TOPIC;
const OPERATOR_THRESHOLD_MAX: f32 = 0.3;

/// Coefficients of the logistic regression.
pub const SIGNALS: usize = 7;

/// What an utterance held out from training got.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// One a label.
    pub logits: Vec<f32>,
    /// The right label.
    pub label: usize,
    /// Share of its features that training had seen.
    pub seen_share: f32,
    /// How many features.
    pub features: usize,
}

/// Everything between logits and decisions. A model without it does not load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Divides the logits.
    pub temperature: f32,
    /// Of the constant and the six signals, see [`signals`].
    pub coefficients: [f32; SIGNALS],
    /// Least confidence to act, one a label; above 1: never acted on.
    pub thresholds: Vec<f32>,
    /// Confidence that keeps 95 % of held-out in-scope utterances.
    pub keep_95: f32,
    /// [`WRONG_COST`] when it was made.
    pub wrong_cost: f64,
    /// Scores on the held-out utterances.
    pub scores: Scores,
}

/// Scores on held-out utterances, each 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// In-scope utterances.
    pub in_scope: u64,
    /// Out-of-scope utterances.
    pub out_of_scope: u64,
    /// First candidate right, in scope.
    pub accuracy: f32,
    /// Mean F1 over topics.
    pub macro_f1: f32,
    /// Calibration error, in and out of scope.
    pub ece: f32,
    /// Out of scope caught when 95 % in scope is kept.
    pub oos_recall: f32,
    /// In scope against out of scope; 0 if nothing is out of scope.
    pub oos_auroc: f32,
    /// In scope, sent to a topic.
    pub acted_on: f32,
    /// Of all sent to a topic, right.
    pub precision_acted_on: f32,
}

/// First and second in-scope label with their probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leaders {
    /// Most likely in-scope label.
    pub first: usize,
    /// Its probability.
    pub first_probability: f32,
    /// Probability of the second.
    pub second_probability: f32,
    /// Probability of out of scope; 0 without such a label.
    pub out_of_scope: f32,
}

/// Finds the leaders among probabilities.
#[must_use]
pub fn leaders(probabilities: &[f32], out_of_scope: Option<usize>) -> Leaders {
    let mut found = Leaders {
        first: 0,
        first_probability: -1.0,
        second_probability: 0.0,
        out_of_scope: out_of_scope.map_or(0.0, |at| probabilities[at]),
    };
    for (label, probability) in probabilities.iter().enumerate() {
        if Some(label) == out_of_scope {
            continue;
        }
        if *probability > found.first_probability {
            found.second_probability = found.first_probability.max(0.0);
            found.first_probability = *probability;
            found.first = label;
        } else if *probability > found.second_probability {
            found.second_probability = *probability;
        }
    }
    found.first_probability = found.first_probability.max(0.0);
    found
}

/// The signals: constant, log-odds of the first, its lead, entropy, share seen, log of
/// the length, probability of out of scope.
#[must_use]
pub fn signals(
    probabilities: &[f32],
    leaders: Leaders,
    seen_share: f32,
    features: usize,
) -> [f32; SIGNALS] {
    let first = leaders.first_probability.clamp(1e-6, 1.0 - 1e-6);
    let entropy: f32 = probabilities
        .iter()
        .filter(|value| **value > 1e-9)
        .map(|value| -value * value.ln())
        .sum();
    [
        1.0,
        (first / (1.0 - first)).ln(),
        leaders.first_probability - leaders.second_probability,
        entropy,
        seen_share,
        (features.max(1) as f32).ln(),
        leaders.out_of_scope,
    ]
}

impl Calibration {
    /// Confidence that the first in-scope label is right, 0 to 1.
    #[must_use]
    pub fn confidence(&self, signals: &[f32; SIGNALS]) -> f32 {
        let sum: f32 = signals
            .iter()
            .zip(&self.coefficients)
            .map(|(signal, weight)| signal * weight)
            .sum();
        1.0 / (1.0 + (-sum).exp())
    }

    /// Fits on held-out utterances. None without any in scope.
    #[must_use]
    pub fn fit(
        held_out: &[HeldOut],
        labels: &[String],
        out_of_scope: Option<usize>,
    ) -> Option<Self> {
        let in_scope = |row: &HeldOut| Some(row.label) != out_of_scope;
        if !held_out.iter().any(in_scope) {
            return None;
        }
        let temperature = fit_temperature(held_out);
        let mut rows = Vec::with_capacity(held_out.len());
        for row in held_out {
            let mut probabilities = row.logits.clone();
            softmax(&mut probabilities, temperature);
            let leaders = leaders(&probabilities, out_of_scope);
            let signals = signals(&probabilities, leaders, row.seen_share, row.features);
            rows.push(Row {
                signals,
                first: leaders.first,
                rejected: leaders.out_of_scope > leaders.first_probability,
                right: leaders.first == row.label,
                label: row.label,
                in_scope: in_scope(row),
                confidence: 0.0,
            });
        }
        let judged: Vec<([f32; SIGNALS], bool)> =
            rows.iter().map(|row| (row.signals, row.right)).collect();
        let mut calibration = Self {
            temperature,
            coefficients: fit_logistic(&judged),
            thresholds: vec![1.0; labels.len()],
            keep_95: 0.0,
            wrong_cost: WRONG_COST,
            scores: Scores::default(),
        };
        for row in &mut rows {
            row.confidence = calibration.confidence(&row.signals);
        }
        let kept: Vec<f32> = rows
            .iter()
            .filter(|row| row.in_scope)
            .map(|row| row.confidence)
            .collect();
        calibration.keep_95 = score::quantile(&kept, 0.05);
        calibration.thresholds = fit_thresholds(&rows, labels, out_of_scope);
        calibration.scores = scores(&rows, labels.len(), &calibration);
        Some(calibration)
    }

    /// Everything is finite and has the right size.
    ///
    /// # Errors
    /// What is not, in words.
    pub fn check(&self, labels: usize) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("temperature: above 0, not {}", self.temperature));
        }
        if self.coefficients.iter().any(|value| !value.is_finite()) {
            return Err("coefficients: finite numbers only".to_owned());
        }
        if self.thresholds.len() != labels || self.thresholds.iter().any(|value| !value.is_finite())
        {
            return Err(format!(
                "thresholds: {labels} finite numbers, not {}",
                self.thresholds.len()
            ));
        }
        Ok(())
    }
}

struct Row {
    signals: [f32; SIGNALS],
    first: usize,
    /// Out of scope is likelier than any topic.
    rejected: bool,
    right: bool,
    label: usize,
    in_scope: bool,
    confidence: f32,
}

/// The temperature of least log loss, by golden section on its logarithm.
fn fit_temperature(held_out: &[HeldOut]) -> f32 {
    let loss = |log_temperature: f64| -> f64 {
        let temperature = log_temperature.exp() as f32;
        let mut probabilities = Vec::new();
        held_out
            .iter()
            .map(|row| {
                probabilities.clear();
                probabilities.extend_from_slice(&row.logits);
                softmax(&mut probabilities, temperature);
                -f64::from(probabilities[row.label].max(1e-12)).ln()
            })
            .sum()
    };
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.02_f64.ln(), 5.0_f64.ln());
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut left_loss, mut right_loss) = (loss(left), loss(right));
    for _ in 0..24 {
        if left_loss < right_loss {
            (high, right, right_loss) = (right, left, left_loss);
            left = high - ratio * (high - low);
            left_loss = loss(left);
        } else {
            (low, left, left_loss) = (left, right, right_loss);
            right = low + ratio * (high - low);
            right_loss = loss(right);
        }
    }
    f64::midpoint(low, high).exp() as f32
}

/// The threshold of least cost for rows of (confidence, right), over the steps 0.2 to 0.95.
fn cheapest(rows: &[(f32, bool)], otherwise: f32) -> f32 {
    let cost = |threshold: f32| -> f64 {
        rows.iter()
            .map(
                |(confidence, right)| match (*confidence >= threshold, right) {
                    (true, true) => 0.0,
                    (true, false) => WRONG_COST,
                    (false, _) => 1.0,
                },
            )
            .sum()
    };
    let mut best = (cost(otherwise), otherwise);
    for step in 4..=19_u8 {
        let threshold = f32::from(step) * 0.05;
        let cost = cost(threshold);
        if cost < best.0 - 1e-9 {
            best = (cost, threshold);
        }
    }
    best.1
}

fn fit_thresholds(rows: &[Row], labels: &[String], out_of_scope: Option<usize>) -> Vec<f32> {
    // What the cost says if confidence is exactly right.
    let ideal = (1.0 - 1.0 / WRONG_COST) as f32;
    let acted: Vec<(f32, bool)> = rows
        .iter()
        .filter(|row| !row.rejected)
        .map(|row| (row.confidence, row.right))
        .collect();
    let common = cheapest(&acted, ideal);
    labels
        .iter()
        .enumerate()
        .map(|(label, name)| {
            if Some(label) == out_of_scope {
                return 2.0;
            }
            let own: Vec<(f32, bool)> = rows
                .iter()
                .filter(|row| row.first == label && !row.rejected)
                .map(|row| (row.confidence, row.right))
                .collect();
            let weight = own.len() as f64 / (own.len() as f64 + COMMON_WEIGHT);
            let mixed =
                f64::from(cheapest(&own, common)) * weight + f64::from(common) * (1.0 - weight);
            let threshold = mixed as f32;
            match name.as_str() {
                SAFETY_TOPIC => threshold.min(SAFETY_THRESHOLD_MAX),
                OPERATOR_TOPIC => threshold.min(OPERATOR_THRESHOLD_MAX),
                _ => threshold,
            }
        })
        .collect()
}

fn scores(rows: &[Row], labels: usize, calibration: &Calibration) -> Scores {
    let mut counts = vec![LabelCount::default(); labels];
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let (mut right, mut acted_in_scope, mut acted, mut acted_right) = (0_u64, 0_u64, 0_u64, 0_u64);
    for row in rows {
        let acts = !row.rejected && row.confidence >= calibration.thresholds[row.first];
        acted += u64::from(acts);
        acted_right += u64::from(acts && row.right);
        if !row.in_scope {
            outside.push(row.confidence);
            continue;
        }
        inside.push(row.confidence);
        right += u64::from(row.right);
        acted_in_scope += u64::from(acts);
        counts[row.label].present += 1;
        counts[row.first].predicted += 1;
        counts[row.label].right += u64::from(row.right);
    }
    let share = |part: u64, all: u64| part as f32 / all.max(1) as f32;
    let caught = outside
        .iter()
        .filter(|confidence| **confidence < calibration.keep_95)
        .count() as u64;
    Scores {
        in_scope: inside.len() as u64,
        out_of_scope: outside.len() as u64,
        accuracy: share(right, inside.len() as u64),
        macro_f1: score::macro_f1(&counts) as f32,
        ece: score::expected_calibration_error(rows.iter().map(|row| (row.confidence, row.right)))
            as f32,
        oos_recall: share(caught, outside.len() as u64),
        oos_auroc: score::area_under_curve(&inside, &outside).unwrap_or(0.0) as f32,
        acted_on: share(acted_in_scope, inside.len() as u64),
        precision_acted_on: share(acted_right, acted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperature_undoes_a_known_scaling() {
        // Labels drawn with the probabilities of logits (2, 0), which come scaled by 3.
        let first = 1.0 / (1.0 + (-2.0_f64).exp());
        let rows: Vec<HeldOut> = (0..10_000)
            .map(|row| HeldOut {
                logits: vec![6.0, 0.0],
                label: usize::from(f64::from(row) / 10_000.0 >= first),
                seen_share: 1.0,
                features: 10,
            })
            .collect();
        let temperature = fit_temperature(&rows);
        assert!((temperature - 3.0).abs() < 0.05, "{temperature}");
    }

    #[test]
    fn the_threshold_follows_the_cost() {
        // Right as often as confidence says: acting pays from 1 - 1/cost on.
        let rows: Vec<(f32, bool)> = (0..100)
            .flat_map(|percent| (0..100).map(move |draw| (percent as f32 / 100.0, draw < percent)))
            .collect();
        let ideal = 1.0 - 1.0 / WRONG_COST as f32;
        assert!((cheapest(&rows, 0.99) - ideal).abs() <= 0.05);
    }
}
