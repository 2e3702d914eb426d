//! Batched products of weights and activations, shared out to the pool by rows of the weights.
//!
//! `out[t, r] = sum_c weights[r, c] x[t, c]`. On the fast path the activations of quantised weights are
//! rounded to 8 bit: per block of 32, `scale = max |x| / 127`, `q = round(x / scale)`, and
//! `sum = scale * sum(q)`, which multiplies the minimum of Q4_1 and the offset of Q4_0.

use crate::format::{BLOCK, Matrix};
use crate::{Arithmetic, Pool, reference};

/// Rows of weights in one part of a task: enough to pay for handing it out, few enough to balance.
const PART_ROWS: usize = 48;

/// Activations `[rows, cols]`, one row per token, with their 8-bit form where the path uses it.
#[derive(Debug, Default)]
pub struct Activations {
    cols: usize,
    /// `[rows, cols]`
    values: Vec<f32>,
    /// `[rows, cols]`, signed bytes; empty where only f32 is used.
    quants: Vec<u8>,
    /// `[rows, cols / 32]`
    scales: Vec<f32>,
    /// `[rows, cols / 32]`, scale times the sum of the quants.
    sums: Vec<f32>,
}

/// One row of [`Activations`].
#[derive(Clone, Copy)]
pub(crate) struct ActivationRow<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) quants: &'a [u8],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [f32],
}

impl<'a> ActivationRow<'a> {
    /// The first `count` blocks of the 8-bit form, as raw bytes.
    #[inline(always)]
    pub(crate) fn blocks(&self, count: usize) -> &'a [[u8; BLOCK]] {
        &self.quants.as_chunks().0[..count]
    }
}

impl Activations {
    /// Takes over `values: [rows, cols]`, rounding them to 8 bit if `arithmetic` will use that.
    /// Panics if `values` is no whole number of rows.
    pub fn fill(&mut self, arithmetic: Arithmetic, cols: usize, values: &[f32]) {
        assert!(cols > 0 && values.len().is_multiple_of(cols), "activations are no whole number of rows");
        self.cols = cols;
        self.values.clear();
        self.values.extend_from_slice(values);
        self.quants.clear();
        if arithmetic == Arithmetic::Reference || !cols.is_multiple_of(BLOCK) {
            return;
        }
        self.quants.resize(values.len(), 0);
        self.scales.resize(values.len() / BLOCK, 0.0);
        self.sums.resize(values.len() / BLOCK, 0.0);
        quantise(&self.values, &mut self.quants, &mut self.scales, &mut self.sums);
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.cols).unwrap_or(0)
    }

    pub(crate) fn row(&self, t: usize) -> ActivationRow<'_> {
        let values = &self.values[t * self.cols..(t + 1) * self.cols];
        if self.quants.is_empty() {
            return ActivationRow { values, quants: &[], scales: &[], sums: &[] };
        }
        let blocks = self.cols / BLOCK;
        ActivationRow {
            values,
            quants: &self.quants[t * self.cols..(t + 1) * self.cols],
            scales: &self.scales[t * blocks..(t + 1) * blocks],
            sums: &self.sums[t * blocks..(t + 1) * blocks],
        }
    }
}

/// Rounds whole blocks to 8 bit; the formula is at the head of this file. `x`, `q`: n; `scales`, `sums`: n/32.
fn quantise(x: &[f32], q: &mut [u8], scales: &mut [f32], sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if Arithmetic::Avx2.is_available() {
        // SAFETY: the features were just found.
        return unsafe { crate::simd::quantise(x, q, scales, sums) };
    }
    quantise_plainly(x, q, scales, sums);
}

fn quantise_plainly(x: &[f32], q: &mut [u8], scales: &mut [f32], sums: &mut [f32]) {
    let blocks = x.as_chunks::<BLOCK>().0.iter().zip(q.as_chunks_mut::<BLOCK>().0);
    for (((x, q), scale), total) in blocks.zip(scales).zip(sums) {
        // By bits, in which NaN is larger than any number: it must reach the result.
        let max = x.iter().fold(0, |max: u32, v| max.max(v.abs().to_bits()));
        let (max, inverse) = extent(f32::from_bits(max));
        *scale = max / 127.0;
        let mut sum = 0i32;
        for (q, x) in q.iter_mut().zip(x) {
            let rounded = (x * inverse).round_ties_even() as i32;
            *q = rounded as i8 as u8;
            sum += rounded;
        }
        *total = *scale * sum as f32;
    }
}

/// The largest magnitude of a block, and what to multiply its values by. Below 1e-30 the quotient overflows:
/// such a block counts as zero, as it is nothing beside any other.
#[inline]
pub(crate) fn extent(max: f32) -> (f32, f32) {
    if max > 1e-30 { (max, 127.0 / max) } else { (if max.is_nan() { max } else { 0.0 }, 0.0) }
}

/// One of several products of the same activations.
pub struct Product<'a> {
    /// `[rows, cols]`
    pub weights: Matrix<'a>,
    /// `[tokens, rows]`, overwritten.
    pub out: &'a mut [f32],
}

/// Where threads write their rows' results.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    start: *mut f32,
    len: usize,
    rows: usize,
}

// SAFETY: threads write disjoint elements: each weight row belongs to one part (see `multiply`).
unsafe impl Sync for Out {}
// SAFETY: as above.
unsafe impl Send for Out {}

impl Out {
    /// Sets `out[t, r]`.
    ///
    /// # Safety
    /// No other thread may write the same `r` meanwhile, and the slice must still be borrowed.
    pub(crate) unsafe fn set(self, t: usize, r: usize, value: f32) {
        let at = t * self.rows + r;
        debug_assert!(at < self.len && r < self.rows);
        // SAFETY: in range: `multiply` checked that the slice holds [tokens, rows].
        unsafe { self.start.add(at).write(value) }
    }
}

/// Computes all `products` of the activations `x` in one task of the pool.
/// Panics if shapes disagree, or if `arithmetic` is not available on this processor.
pub fn multiply(arithmetic: Arithmetic, pool: &mut Pool, x: &Activations, products: &mut [Product<'_>]) {
    arithmetic.check();
    let tokens = x.rows();
    let mut parts = Vec::new();
    for product in products {
        let weights = product.weights;
        assert_eq!(weights.cols(), x.cols, "inputs of a product");
        assert_eq!(product.out.len(), tokens * weights.rows(), "outputs of a product");
        let out = Out { start: product.out.as_mut_ptr(), len: product.out.len(), rows: weights.rows() };
        for first in (0..weights.rows()).step_by(PART_ROWS) {
            parts.push((weights, out, first..weights.rows().min(first + PART_ROWS)));
        }
    }
    pool.run(parts.len(), &|part| {
        let (weights, out, rows) = parts[part].clone();
        match arithmetic {
            Arithmetic::Reference => reference_rows(weights, x, rows, out),
            // SAFETY: `check` found the features; parts have disjoint rows; the outputs are borrowed by
            // `products` until `run` returns.
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Avx2 => unsafe { crate::simd::avx2::multiply_rows(weights, x, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Vnni => unsafe { crate::simd::vnni::multiply_rows(weights, x, rows, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("checked above"),
        }
    });
}

fn reference_rows(weights: Matrix<'_>, x: &Activations, rows: std::ops::Range<usize>, out: Out) {
    let mut row = vec![0.0; weights.cols()];
    for r in rows {
        reference::dequantise(weights.kind(), weights.row(r), &mut row);
        for t in 0..x.rows() {
            // SAFETY: this part owns row `r`.
            unsafe { out.set(t, r, reference::dot(&row, x.row(t).values)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_roundings_agree_bit_for_bit() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut x: Vec<f32> = (0..64 * BLOCK).map(|n| next() * (n / BLOCK) as f32).collect();
        x[7] = 1e-38;
        x[5 * BLOCK + 3] = f32::NAN;
        x[6 * BLOCK + 3] = f32::NEG_INFINITY;
        x[7 * BLOCK..8 * BLOCK].fill(0.5);
        type Round = fn(&[f32], &mut [u8], &mut [f32], &mut [f32]);
        let run = |f: Round| {
            let (mut q, mut scales, mut sums) = (vec![0; x.len()], vec![0.0; 64], vec![0.0; 64]);
            f(&x, &mut q, &mut scales, &mut sums);
            // Quants beside NaN or infinity have no meaning: the scale carries it.
            let clean: Vec<u8> =
                (0..x.len()).filter(|n| ![5, 6].contains(&(n / BLOCK))).map(|n| q[n]).collect();
            let bits =
                |x: Vec<f32>| x.iter().map(|v| v.is_finite().then_some(v.to_bits())).collect::<Vec<_>>();
            (clean, bits(scales), bits(sums))
        };
        assert_eq!(run(quantise), run(quantise_plainly));
    }
}
