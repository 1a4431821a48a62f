//! The model: linear weights, calibration and the map of seen features, with the
//! manifest that says where it came from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, leaders, signals};
use crate::corpus::{Corpus, OUT_OF_SCOPE};
use crate::features::Features;
use crate::linear::{Linear, Sums, softmax};
use crate::train::{self, Options, Step};

/// Version of the artefact.
pub const FORMAT: u32 = 1;

/// Bits in the map of seen features, as a power of two. Fewer saturate.
pub const SEEN_BITS: u32 = 20;

/// What a model says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// [`crate::features::FEATURE_SPEC`].
    pub feature_spec: u32,
    /// Topic ids; [`OUT_OF_SCOPE`] last if there is such a label.
    pub labels: Vec<String>,
    /// Language subtags.
    pub languages: Vec<String>,
    /// Temperature, coefficients, thresholds, scores.
    pub calibration: Calibration,
    /// SHA-256 of the corpus, hexadecimal.
    pub corpus_sha256: String,
    /// Lines in it.
    pub corpus_lines: usize,
    /// Seed of the training.
    pub seed: u64,
    /// Trained on fillers and noise.
    pub speech: bool,
    /// What calibration was measured on.
    pub held_out: String,
    /// Shape of the topic model.
    pub topics: Shape,
    /// Shape of the language model.
    pub language_identification: Shape,
}

/// Shape of a linear model; its rows are in the artefact's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Rows, as a power of two.
    pub bits: u32,
    /// Weight of one step.
    pub scale: f32,
    /// One a class.
    pub bias: Vec<f32>,
}

impl From<&Linear> for Shape {
    fn from(linear: &Linear) -> Self {
        Self {
            bits: linear.bits(),
            scale: linear.scale(),
            bias: linear.bias().to_vec(),
        }
    }
}

/// Features seen in training, as a bit map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen(pub(crate) Vec<u64>);

impl Default for Seen {
    fn default() -> Self {
        Self(vec![0; 1 << (SEEN_BITS - 6)])
    }
}

impl Seen {
    fn place(hash: u64) -> (usize, u64) {
        // Low bits: the rows use the high ones.
        let index = (hash & ((1 << SEEN_BITS) - 1)) as usize;
        (index >> 6, 1 << (index & 63))
    }

    /// Marks a feature.
    pub fn insert(&mut self, hash: u64) {
        let (word, bit) = Self::place(hash);
        self.0[word] |= bit;
    }

    /// Share of the features that are marked; 0 without features.
    #[must_use]
    pub fn share(&self, hashes: &[u64]) -> f32 {
        let known = hashes
            .iter()
            .filter(|hash| {
                let (word, bit) = Self::place(**hash);
                self.0[word] & bit != 0
            })
            .count();
        known as f32 / hashes.len().max(1) as f32
    }
}

/// A trained, calibrated model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    manifest: Manifest,
    topics: Linear,
    languages: Linear,
    seen: Seen,
    out_of_scope: Option<usize>,
    id: String,
}

/// The embedded model, trained once a process however many roles ask for it.
pub(crate) fn shared() -> anyhow::Result<Arc<Model>> {
    static TRAINED: Mutex<Option<Arc<Model>>> = Mutex::new(None);
    let mut trained = TRAINED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(model) = trained.as_ref() {
        return Ok(model.clone());
    }
    let model = Arc::new(Model::embedded(&|_| {})?);
    *trained = Some(model.clone());
    Ok(model)
}

/// Scratch space, reused from text to text.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    sums: Sums,
    scores: Vec<f32>,
}

/// Most candidates of a prediction.
pub const CANDIDATES: usize = 3;

/// What the model thinks of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// In-scope labels with probability, most likely first; those past the number of
    /// labels have probability 0.
    pub top: [(usize, f32); CANDIDATES],
    /// Calibrated probability that the first one is right.
    pub confidence: f32,
    /// Out of scope is likelier than any topic.
    pub rejected: bool,
    /// Share of the features that training had seen.
    pub seen_share: f32,
}

impl Model {
    pub(crate) fn new(manifest: Manifest, topics: Linear, languages: Linear, seen: Seen) -> Self {
        let out_of_scope = manifest
            .labels
            .iter()
            .position(|label| label == OUT_OF_SCOPE);
        let mut model = Self {
            manifest,
            topics,
            languages,
            seen,
            out_of_scope,
            id: String::new(),
        };
        model.id = model.checksum();
        model
    }

    /// Trains on the corpus in this crate: what a process without a model file uses.
    ///
    /// Measured (two x86-64 cores, release): see the header of `corpus/README.md`; a few
    /// seconds of one core, so it is done at start and the artefact is not committed. The
    /// result is the same on every start.
    ///
    /// # Errors
    /// None as long as the embedded corpus is well formed, which tests hold.
    pub fn embedded(progress: &(dyn Fn(Step) + Sync)) -> anyhow::Result<Self> {
        let started = Instant::now();
        let corpus = Corpus::embedded()?;
        let model = train::train(&corpus, None, &Options::embedded(1), progress)?;
        let scores = &model.manifest.calibration.scores;
        tracing::info!(
            lines = corpus.examples.len(),
            topics = model.manifest.labels.len(),
            took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            held_out_accuracy = scores.accuracy,
            held_out_ece = scores.ece,
            model = model.id(),
            "trained on the embedded corpus"
        );
        Ok(model)
    }

    /// SHA-256 of the artefact, hexadecimal.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Topic id of a label.
    #[must_use]
    pub fn label(&self, label: usize) -> &str {
        self.manifest.labels.get(label).map_or("", String::as_str)
    }

    pub(crate) fn topics(&self) -> &Linear {
        &self.topics
    }

    pub(crate) fn languages(&self) -> &Linear {
        &self.languages
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Classifies features.
    pub fn predict(&self, features: &Features, scratch: &mut Scratch) -> Prediction {
        let hashes = features.hashes();
        let calibration = &self.manifest.calibration;
        let probabilities = &mut scratch.scores;
        self.topics.logits(hashes, &mut scratch.sums, probabilities);
        probabilities.truncate(self.topics.classes());
        softmax(probabilities, calibration.temperature);
        let leaders = leaders(probabilities, self.out_of_scope);
        let seen_share = self.seen.share(hashes);
        let signals = signals(probabilities, leaders, seen_share, hashes.len());
        let mut top = [(0, 0.0); CANDIDATES];
        for (label, probability) in probabilities.iter().enumerate() {
            if Some(label) == self.out_of_scope || *probability <= top[CANDIDATES - 1].1 {
                continue;
            }
            let mut place = CANDIDATES - 1;
            while place > 0 && top[place - 1].1 < *probability {
                top[place] = top[place - 1];
                place -= 1;
            }
            top[place] = (label, *probability);
        }
        Prediction {
            top,
            confidence: calibration.confidence(&signals),
            rejected: leaders.out_of_scope > leaders.first_probability,
            seen_share,
        }
    }

    /// The most likely language and its probability; None without features.
    pub fn identify(&self, features: &Features, scratch: &mut Scratch) -> Option<(&str, f32)> {
        if features.hashes().is_empty() {
            return None;
        }
        self.languages
            .logits(features.hashes(), &mut scratch.sums, &mut scratch.scores);
        scratch.scores.truncate(self.languages.classes());
        softmax(&mut scratch.scores, 1.0);
        let (index, probability) = scratch
            .scores
            .iter()
            .copied()
            .enumerate()
            .max_by(|left, right| left.1.total_cmp(&right.1))?;
        Some((self.manifest.languages.get(index)?, probability))
    }
}
