//! The linear model: one row of weights a feature, summed, over the root of their number.
//!
//! Feature-major: a text touches about eighty rows of some eighty bytes, each read from
//! end to end; class-major is 6 to 16 times slower. Rows are 8-bit integers with one
//! scale for all, added in 16-bit lanes in blocks of 256 rows (more could overflow) and
//! widened between blocks. `f32` rows cost four times the memory for the same answers on
//! 99.8 % of lines.
//!
//! Run-time AVX2 would halve the sum, but calling it needs `unsafe`, which this workspace
//! forbids; the plain loop is vectorised by the compiler for the target's baseline.

/// Rows added before the 16-bit lanes are widened: 256 x 127 fits, 259 x 127 does not.
const BLOCK: usize = 256;

/// Classes are padded to whole vectors.
const LANES: usize = 16;

/// Weights as served.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    classes: usize,
    bits: u32,
    scale: f32,
    bias: Vec<f32>,
    rows: Vec<i8>,
}

/// Sums, reused from text to text.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    narrow: Vec<i16>,
    wide: Vec<i32>,
}

/// Columns a row is padded to.
#[must_use]
pub const fn padded(classes: usize) -> usize {
    classes.div_ceil(LANES) * LANES
}

/// The row of a hash in a table of 2^bits rows.
#[must_use]
pub const fn row_of(hash: u64, bits: u32) -> usize {
    (hash >> (64 - bits)) as usize
}

impl Linear {
    /// Quantises trained weights: `rows` has 2^bits rows of `padded(classes)` columns.
    #[must_use]
    pub fn quantise(classes: usize, bits: u32, bias: &[f32], rows: &[f32]) -> Self {
        // Nearly every weight is kept exactly within the scale; the few beyond saturate.
        let mut sizes: Vec<f32> = rows
            .iter()
            .map(|weight| weight.abs())
            .filter(|size| *size > 0.0)
            .collect();
        let rank = sizes.len() / 10_000;
        let top = if sizes.is_empty() {
            1.0
        } else {
            let index = sizes.len() - 1 - rank;
            *sizes.select_nth_unstable_by(index, f32::total_cmp).1
        };
        let scale = top / 127.0;
        let rows = rows
            .iter()
            .map(|weight| (weight / scale).round().clamp(-127.0, 127.0) as i8)
            .collect();
        Self {
            classes,
            bits,
            scale,
            bias: bias[..classes].to_vec(),
            rows,
        }
    }

    /// Puts a model together from what an artefact holds.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn from_parts(
        classes: usize,
        bits: u32,
        scale: f32,
        bias: Vec<f32>,
        rows: Vec<i8>,
    ) -> Result<Self, String> {
        if !(1..=24).contains(&bits) {
            return Err(format!("bits: 1 to 24, not {bits}"));
        }
        if bias.len() != classes {
            return Err(format!("bias: {classes} numbers, not {}", bias.len()));
        }
        if rows.len() != padded(classes) << bits {
            return Err(format!(
                "rows: {} bytes, not {}",
                padded(classes) << bits,
                rows.len()
            ));
        }
        if !scale.is_finite() || bias.iter().any(|value| !value.is_finite()) {
            return Err("scale and bias: finite numbers only".to_owned());
        }
        Ok(Self {
            classes,
            bits,
            scale,
            bias,
            rows,
        })
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Rows, as a power of two.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Weight of one step.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// One number a class.
    #[must_use]
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[i8] {
        &self.rows
    }

    /// Writes one logit a class to `logits`.
    pub fn logits(&self, hashes: &[u64], sums: &mut Sums, logits: &mut Vec<f32>) {
        let width = padded(self.classes);
        sums.wide.clear();
        sums.wide.resize(width, 0);
        for block in hashes.chunks(BLOCK) {
            sums.narrow.clear();
            sums.narrow.resize(width, 0);
            for hash in block {
                let start = row_of(*hash, self.bits) * width;
                let row = &self.rows[start..start + width];
                for (sum, weight) in sums
                    .narrow
                    .chunks_exact_mut(LANES)
                    .zip(row.chunks_exact(LANES))
                {
                    for lane in 0..LANES {
                        sum[lane] = sum[lane].wrapping_add(i16::from(weight[lane]));
                    }
                }
            }
            for (wide, narrow) in sums.wide.iter_mut().zip(&sums.narrow) {
                *wide = wide.wrapping_add(i32::from(*narrow));
            }
        }
        let factor = if hashes.is_empty() {
            0.0
        } else {
            self.scale / (hashes.len() as f32).sqrt()
        };
        logits.clear();
        logits.extend(
            sums.wide
                .iter()
                .zip(&self.bias)
                .map(|(sum, bias)| *sum as f32 * factor + bias),
        );
    }
}

/// Turns logits, divided by `temperature`, into probabilities in place.
pub fn softmax(logits: &mut [f32], temperature: f32) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let inverse = 1.0 / temperature;
    let mut sum = 0.0;
    for value in logits.iter_mut() {
        *value = exp((*value - top) * inverse);
        sum += *value;
    }
    let inverse = 1.0 / sum;
    for value in logits.iter_mut() {
        *value *= inverse;
    }
}

/// e^x for x <= 0, within two millionths of the true value. An own one because a library's differs
/// from machine to machine (training must not) and is a call that blocks vectorising.
#[must_use]
pub fn exp(x: f32) -> f32 {
    let scaled = x.max(-87.0) * std::f32::consts::LOG2_E;
    // Nearest whole number, for x <= 0: the rest is within half an octave, where six
    // terms are enough.
    let whole = (scaled - 0.5) as i32;
    let rest = (scaled - whole as f32) * std::f32::consts::LN_2;
    let cubic =
        1.666_666_6e-1 + rest * (4.166_666_6e-2 + rest * (8.333_334e-3 + rest * 1.388_889e-3));
    let polynomial = 1.0 + rest * (1.0 + rest * (0.5 + rest * cubic));
    polynomial * f32::from_bits(((whole + 127).max(0) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_exponential_agrees_with_the_library() {
        for step in 0..8_700 {
            let x = -(step as f32) / 100.0;
            let wanted = f64::from(x).exp();
            let error = (f64::from(exp(x)) - wanted).abs();
            assert!(
                error <= wanted * (4e-7 + 1.2e-7 * f64::from(-x)) + 1e-37,
                "{x}: {} {wanted}",
                exp(x)
            );
        }
    }

    #[test]
    fn sums_of_thousands_of_saturated_rows_do_not_overflow() {
        let classes = 3;
        let rows = vec![1.0_f32; padded(classes) << 2];
        let linear = Linear::quantise(classes, 2, &[0.0; 3], &rows);
        let hashes: Vec<u64> = (0..8_192_u64).map(|value| value << 55).collect();
        let mut logits = Vec::new();
        linear.logits(&hashes, &mut Sums::default(), &mut logits);
        let wanted = (8_192.0_f32).sqrt();
        assert!(
            logits.iter().all(|logit| (logit - wanted).abs() < 0.01),
            "{logits:?}"
        );
    }

    #[test]
    fn quantised_and_plain_sums_agree() {
        let classes = 5;
        let bits = 6;
        let width = padded(classes);
        let rows: Vec<f32> = (0..width << bits)
            .map(|value| ((value * 37 % 101) as f32 - 50.0) / 100.0)
            .collect();
        let linear = Linear::quantise(classes, bits, &[0.1; 5], &rows);
        let hashes: Vec<u64> = (0..600_u64)
            .map(|value| value.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        let mut logits = Vec::new();
        linear.logits(&hashes, &mut Sums::default(), &mut logits);
        for (class, logit) in logits.iter().enumerate() {
            let sum: f32 = hashes
                .iter()
                .map(|hash| rows[row_of(*hash, bits) * width + class])
                .sum();
            let wanted = sum / (hashes.len() as f32).sqrt() + 0.1;
            assert!((logit - wanted).abs() < 0.1, "{logit} {wanted}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert!(Linear::from_parts(3, 0, 1.0, vec![0.0; 3], vec![]).is_err());
        assert!(Linear::from_parts(3, 2, 1.0, vec![0.0; 2], vec![0; 64]).is_err());
        assert!(Linear::from_parts(3, 2, 1.0, vec![0.0; 3], vec![0; 63]).is_err());
        assert!(Linear::from_parts(3, 2, f32::NAN, vec![0.0; 3], vec![0; 64]).is_err());
        assert!(Linear::from_parts(3, 2, 1.0, vec![0.0; 3], vec![0; 64]).is_ok());
    }
}
