//! One linear model from lines: AdaGrad on the softmax loss, one line at a time.
//!
//! `f32` and one thread a model: elementwise arithmetic without fused multiply-add gives
//! the same bits everywhere.

use crate::features::Features;
use crate::linear::{Linear, padded, row_of, softmax};
use crate::random::Random;
use crate::speech;
use crate::train::Options;

/// An example with its label and language as numbers.
pub(crate) struct Line<'a> {
    pub(crate) text: &'a str,
    pub(crate) language_name: &'a str,
    pub(crate) label: usize,
    pub(crate) language: usize,
}

/// Which of a line's numbers is learned.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Label,
    Language,
}

impl Target {
    fn of(self, line: &Line<'_>) -> usize {
        match self {
            Self::Label => line.label,
            Self::Language => line.language,
        }
    }
}

/// Weights while they are learned.
struct Weights {
    classes: usize,
    width: usize,
    bits: u32,
    rate: f32,
    rows: Vec<f32>,
    squares: Vec<f32>,
    bias: Vec<f32>,
    bias_squares: Vec<f32>,
    gradient: Vec<f32>,
    /// How telling a row is: the rarer its features in the corpus, the more. Folded into
    /// the rows when they are served.
    rarity: Vec<f32>,
}

impl Weights {
    fn new(classes: usize, rarity: Vec<f32>, options: &Options) -> Self {
        let width = padded(classes);
        let cells = width << options.bits;
        Self {
            classes,
            width,
            bits: options.bits,
            rate: options.rate,
            rows: vec![0.0; cells],
            squares: vec![0.0; cells],
            bias: vec![0.0; width],
            bias_squares: vec![0.0; width],
            gradient: vec![0.0; width],
            rarity,
        }
    }

    /// One example: forward, loss, backward.
    fn learn(&mut self, hashes: &[u64], target: usize, smoothing: f32) {
        let norm = 1.0 / (hashes.len() as f32).sqrt();
        let gradient = &mut self.gradient;
        gradient.fill(0.0);
        for hash in hashes {
            let row = row_of(*hash, self.bits);
            let (start, rarity) = (row * self.width, self.rarity[row]);
            for (sum, weight) in gradient
                .iter_mut()
                .zip(&self.rows[start..start + self.width])
            {
                *sum += *weight * rarity;
            }
        }
        for (sum, bias) in gradient.iter_mut().zip(&self.bias) {
            *sum = *sum * norm + bias;
        }
        let classes = self.classes;
        softmax(&mut gradient[..classes], 1.0);
        let floor = smoothing / classes as f32;
        for value in &mut gradient[..classes] {
            *value -= floor;
        }
        gradient[target] -= 1.0 - smoothing;
        gradient[classes..].fill(0.0);
        step(
            &mut self.bias,
            &mut self.bias_squares,
            gradient,
            1.0,
            self.rate,
        );
        for hash in hashes {
            let row = row_of(*hash, self.bits);
            let cells = row * self.width..(row + 1) * self.width;
            step(
                &mut self.rows[cells.clone()],
                &mut self.squares[cells],
                gradient,
                norm * self.rarity[row],
                self.rate,
            );
        }
    }

    /// The rows as served: rarity multiplied in.
    fn served(mut self, classes: usize) -> Linear {
        for (row, rarity) in self.rows.chunks_exact_mut(self.width).zip(&self.rarity) {
            row.iter_mut().for_each(|weight| *weight *= rarity);
        }
        Linear::quantise(classes, self.bits, &self.bias, &self.rows)
    }
}

fn step(weights: &mut [f32], squares: &mut [f32], gradient: &[f32], norm: f32, rate: f32) {
    for ((weight, square), slope) in weights.iter_mut().zip(squares.iter_mut()).zip(gradient) {
        let slope = slope * norm;
        *square += slope * slope;
        *weight -= rate * slope / (square.sqrt() + 1e-6);
    }
}

/// Learns a linear model from lines; `salt` keeps the folds' random numbers apart, `step`
/// is called after every pass.
pub(crate) fn fit(
    lines: &[&Line<'_>],
    classes: usize,
    target: Target,
    options: &Options,
    salt: u64,
    step: &dyn Fn(),
) -> Linear {
    let mut random = Random::new(options.seed.wrapping_mul(1_000_003).wrapping_add(salt));
    let mut features = Features::default();
    let mut weights = Weights::new(classes, rarity_of(lines, options, &mut features), options);
    let mut order: Vec<usize> = (0..lines.len()).collect();
    let mut said = String::new();
    let mut kept: Vec<u64> = Vec::new();
    // Features do not change from epoch to epoch unless the text does.
    let fixed: Option<Vec<Vec<u64>>> = (!options.speech).then(|| {
        lines
            .iter()
            .map(|line| {
                features.read(line.text);
                features.hashes().to_vec()
            })
            .collect()
    });
    for _ in 0..options.epochs {
        random.shuffle(&mut order);
        for index in &order {
            let line = lines[*index];
            let hashes: &[u64] = match &fixed {
                Some(fixed) => &fixed[*index],
                None => {
                    speech::distort(line.text, line.language_name, &mut random, &mut said);
                    features.read(&said);
                    features.hashes()
                }
            };
            kept.clear();
            kept.extend(hashes.iter().filter(|_| !random.chance(options.dropout)));
            if !kept.is_empty() {
                weights.learn(&kept, target.of(line), options.smoothing);
            }
        }
        step();
    }
    weights.served(classes)
}

/// A weight a row from the number of lines that touch it: the inverse document frequency
/// to the power `options.rarity`, 1 on average for a row touched once.
fn rarity_of(lines: &[&Line<'_>], options: &Options, features: &mut Features) -> Vec<f32> {
    let mut touched = vec![(0_u32, usize::MAX); 1 << options.bits];
    for (index, line) in lines.iter().enumerate() {
        features.read(line.text);
        for hash in features.hashes() {
            let cell = &mut touched[row_of(*hash, options.bits)];
            if cell.1 != index {
                *cell = (cell.0 + 1, index);
            }
        }
    }
    let all = (lines.len() as f32 + 1.0).ln();
    touched
        .iter()
        .map(|(count, _)| {
            let idf = ((lines.len() as f32 + 1.0) / (*count as f32 + 1.0)).ln() / all;
            (idf + 0.05).powf(options.rarity)
        })
        .collect()
}
