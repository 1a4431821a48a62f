//! Holding a model against labelled utterances: what `trunkline intent eval` prints.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::corpus::{Corpus, OUT_OF_SCOPE};
use crate::features::Features;
use crate::model::{Model, Scratch};
use crate::score::{self, LabelCount};

/// Most confused pairs that are reported.
const CONFUSIONS_MAX: usize = 20;

/// Everything measured; the keys of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The model's name.
    pub model: String,
    /// In-scope rows.
    pub rows: u64,
    /// Out-of-scope rows.
    pub oos_rows: u64,
    /// Rows whose label the model does not have, left out.
    pub unknown_label_rows: u64,
    /// First candidate right, in scope, nothing declined.
    pub accuracy: f64,
    /// Right label among the first three, in scope.
    pub top3: f64,
    /// Mean F1 over labels, in scope.
    pub macro_f1: f64,
    /// Out of scope below the confidence that keeps 95 % of held-out in-scope rows.
    pub oos_recall: Option<f64>,
    /// In-scope rows kept at that confidence.
    pub in_scope_kept: f64,
    /// In scope against out of scope, by confidence.
    pub oos_auroc: Option<f64>,
    /// Calibration error, in and out of scope mixed.
    pub ece: f64,
    /// In-scope rows sent to a topic at the topics' thresholds.
    pub acted_on: f64,
    /// Of all rows sent to a topic, those sent to the right one.
    pub precision_acted_on: f64,
    /// Language named right when it is identified from the words.
    pub language_accuracy: f64,
    /// By language.
    pub by_lang: BTreeMap<String, Slice>,
    /// By label.
    pub by_intent: BTreeMap<String, IntentRow>,
    /// Most frequent mistakes.
    pub confusions: Vec<Confusion>,
}

/// Rows of one language.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Slice {
    /// In-scope rows.
    pub rows: u64,
    /// First candidate right.
    pub accuracy: f64,
    /// Right label among the first three.
    pub top3: f64,
    /// Calibration error, in and out of scope mixed.
    pub ece: f64,
    /// In-scope rows sent to a topic.
    pub acted_on: f64,
}

/// Rows of one label.
#[derive(Clone, Debug, Serialize)]
pub struct IntentRow {
    /// Rows.
    pub rows: u64,
    /// Share of them found.
    pub recall: f64,
    /// Share of those predicted that were right.
    pub precision: f64,
    /// Harmonic mean.
    pub f1: f64,
    /// The topic's threshold.
    pub threshold: f32,
}

/// A mistake.
#[derive(Clone, Debug, Serialize)]
pub struct Confusion {
    /// The right label.
    pub label: String,
    /// What was predicted.
    pub predicted: String,
    /// How often.
    pub rows: u64,
}

/// One row's outcome.
struct Row<'a> {
    language: &'a str,
    label: Option<usize>,
    first: usize,
    in_top3: bool,
    confidence: f32,
    acts: bool,
    language_right: bool,
}

impl Row<'_> {
    fn right(&self) -> bool {
        self.label == Some(self.first)
    }

    fn in_scope(&self) -> bool {
        self.label.is_some()
    }
}

/// Holds `model` against `data`; `progress` is told the rows done.
#[must_use]
pub fn evaluate(model: &Model, data: &Corpus, progress: &dyn Fn(usize)) -> Evaluation {
    let manifest = model.manifest();
    let calibration = &manifest.calibration;
    let mut features = Features::default();
    let mut scratch = Scratch::default();
    let mut unknown = 0;
    let mut rows = Vec::with_capacity(data.examples.len());
    for (index, example) in data.examples.iter().enumerate() {
        progress(index + 1);
        let label = manifest
            .labels
            .iter()
            .position(|label| *label == example.label);
        if example.label != OUT_OF_SCOPE && label.is_none() {
            unknown += 1;
            continue;
        }
        features.read(&example.text);
        let prediction = model.predict(&features, &mut scratch);
        let first = prediction.top[0].0;
        let label = label.filter(|_| example.label != OUT_OF_SCOPE);
        rows.push(Row {
            language: &example.language,
            label,
            first,
            in_top3: prediction
                .top
                .iter()
                .any(|(top, probability)| *probability > 0.0 && Some(*top) == label),
            confidence: prediction.confidence,
            acts: !prediction.rejected && prediction.confidence >= calibration.thresholds[first],
            language_right: model
                .identify(&features, &mut scratch)
                .is_some_and(|(language, _)| language == example.language),
        });
    }
    summarise(model, &rows, unknown)
}

fn share<'a>(rows: impl Iterator<Item = &'a Row<'a>>, holds: impl Fn(&Row<'_>) -> bool) -> f64 {
    let (mut part, mut all) = (0_u64, 0_u64);
    for row in rows {
        all += 1;
        part += u64::from(holds(row));
    }
    part as f64 / all.max(1) as f64
}

fn summarise(model: &Model, rows: &[Row<'_>], unknown: u64) -> Evaluation {
    let calibration = &model.manifest().calibration;
    let inside = || rows.iter().filter(|row| row.in_scope());
    let outside = || rows.iter().filter(|row| !row.in_scope());
    let high: Vec<f32> = inside().map(|row| row.confidence).collect();
    let low: Vec<f32> = outside().map(|row| row.confidence).collect();
    let counts = label_counts(model, rows);
    Evaluation {
        model: model.id().to_owned(),
        rows: high.len() as u64,
        oos_rows: low.len() as u64,
        unknown_label_rows: unknown,
        accuracy: share(inside(), |row| row.right()),
        top3: share(inside(), |row| row.in_top3),
        macro_f1: score::macro_f1(&counts),
        oos_recall: (!low.is_empty())
            .then(|| share(outside(), |row| row.confidence < calibration.keep_95)),
        in_scope_kept: share(inside(), |row| row.confidence >= calibration.keep_95),
        oos_auroc: score::area_under_curve(&high, &low),
        ece: ece(rows.iter()),
        acted_on: share(inside(), |row| row.acts),
        precision_acted_on: share(rows.iter().filter(|row| row.acts), |row| row.right()),
        language_accuracy: share(rows.iter(), |row| row.language_right),
        by_lang: by_language(rows),
        by_intent: by_intent(model, &counts),
        confusions: confusions(model, rows),
    }
}

fn ece<'a>(rows: impl Iterator<Item = &'a Row<'a>>) -> f64 {
    score::expected_calibration_error(rows.map(|row| (row.confidence, row.right())))
}

fn label_counts(model: &Model, rows: &[Row<'_>]) -> Vec<LabelCount> {
    let mut counts = vec![LabelCount::default(); model.manifest().labels.len()];
    for row in rows {
        let Some(label) = row.label else { continue };
        counts[label].present += 1;
        counts[row.first].predicted += 1;
        counts[label].right += u64::from(row.right());
    }
    counts
}

fn by_language(rows: &[Row<'_>]) -> BTreeMap<String, Slice> {
    let mut languages: Vec<&str> = rows.iter().map(|row| row.language).collect();
    languages.sort_unstable();
    languages.dedup();
    languages
        .into_iter()
        .map(|language| {
            let own = || rows.iter().filter(|row| row.language == language);
            let inside = || own().filter(|row| row.in_scope());
            let slice = Slice {
                rows: inside().count() as u64,
                accuracy: share(inside(), |row| row.right()),
                top3: share(inside(), |row| row.in_top3),
                ece: ece(own()),
                acted_on: share(inside(), |row| row.acts),
            };
            (language.to_owned(), slice)
        })
        .collect()
}

fn by_intent(model: &Model, counts: &[LabelCount]) -> BTreeMap<String, IntentRow> {
    counts
        .iter()
        .enumerate()
        .filter(|(_, count)| count.present > 0)
        .map(|(label, count)| {
            let row = IntentRow {
                rows: count.present,
                recall: count.recall(),
                precision: count.precision(),
                f1: count.f1(),
                threshold: model.manifest().calibration.thresholds[label],
            };
            (model.label(label).to_owned(), row)
        })
        .collect()
}

fn confusions(model: &Model, rows: &[Row<'_>]) -> Vec<Confusion> {
    let mut counts: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.right()) {
        if let Some(label) = row.label {
            *counts.entry((label, row.first)).or_default() += 1;
        }
    }
    let mut pairs: Vec<((usize, usize), u64)> = counts.into_iter().collect();
    pairs.sort_by_key(|(pair, rows)| (std::cmp::Reverse(*rows), *pair));
    pairs
        .into_iter()
        .take(CONFUSIONS_MAX)
        .map(|((label, predicted), rows)| Confusion {
            label: model.label(label).to_owned(),
            predicted: model.label(predicted).to_owned(),
            rows,
        })
        .collect()
}
