//! Logistic regression on a handful of signals: the calibrator's arithmetic.

use crate::calibrate::SIGNALS;

/// Logistic regression by Newton's method with a little shrinkage.
pub(crate) fn fit_logistic(rows: &[([f32; SIGNALS], bool)]) -> [f32; SIGNALS] {
    let mut weights = [0.0_f64; SIGNALS];
    for _ in 0..30 {
        let mut gradient = [0.0_f64; SIGNALS];
        let mut curvature = [[0.0_f64; SIGNALS]; SIGNALS];
        for (signals, right) in rows {
            let signals = signals.map(f64::from);
            let sum: f64 = signals
                .iter()
                .zip(&weights)
                .map(|(signal, weight)| signal * weight)
                .sum();
            let probability = 1.0 / (1.0 + (-sum).exp());
            let error = f64::from(u8::from(*right)) - probability;
            let spread = (probability * (1.0 - probability)).max(1e-9);
            for (index, signal) in signals.iter().enumerate() {
                gradient[index] += error * signal;
                for (other, other_signal) in signals.iter().enumerate() {
                    curvature[index][other] += spread * signal * other_signal;
                }
            }
        }
        for index in 0..SIGNALS {
            let shrink = if index == 0 { 1e-6 } else { 0.1 };
            gradient[index] -= shrink * weights[index];
            curvature[index][index] += shrink;
        }
        let change = solve(curvature, gradient);
        let largest = change
            .iter()
            .fold(0.0_f64, |largest, value| largest.max(value.abs()));
        // A step of Newton's can overshoot where classes are nearly separable.
        let damping = if largest > 4.0 { 4.0 / largest } else { 1.0 };
        for (weight, change) in weights.iter_mut().zip(change) {
            *weight += damping * change;
        }
        if largest < 1e-9 {
            break;
        }
    }
    weights.map(|weight| weight as f32)
}

/// Gaussian elimination with row exchange; the matrix is positive definite.
fn solve(mut matrix: [[f64; SIGNALS]; SIGNALS], mut right: [f64; SIGNALS]) -> [f64; SIGNALS] {
    for column in 0..SIGNALS {
        let mut pivot = column;
        for row in column + 1..SIGNALS {
            if matrix[row][column].abs() > matrix[pivot][column].abs() {
                pivot = row;
            }
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let pivot_row = matrix[column];
        for row in column + 1..SIGNALS {
            let factor = matrix[row][column] / pivot_row[column];
            for (cell, above) in matrix[row].iter_mut().zip(pivot_row) {
                *cell -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    let mut solution = [0.0; SIGNALS];
    for row in (0..SIGNALS).rev() {
        let known: f64 = (row + 1..SIGNALS)
            .map(|column| matrix[row][column] * solution[column])
            .sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solver_solves() {
        let mut matrix = [[0.0; SIGNALS]; SIGNALS];
        for (row, cells) in matrix.iter_mut().enumerate() {
            for (column, cell) in cells.iter_mut().enumerate() {
                *cell = 1.0 / (1.0 + row as f64 + column as f64)
                    + if row == column { 1.0 } else { 0.0 };
            }
        }
        let wanted = [1.0, -2.0, 3.0, 0.5, 0.0, 4.0, -1.0];
        let mut right = [0.0; SIGNALS];
        for (row, cell) in right.iter_mut().enumerate() {
            *cell = matrix[row]
                .iter()
                .zip(wanted)
                .map(|(left, right)| left * right)
                .sum();
        }
        for (found, wanted) in solve(matrix, right).iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-9);
        }
    }
}
