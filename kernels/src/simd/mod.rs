//! AVX2 + FMA + F16C paths, chosen at run time. Every function here needs those features and says nothing
//! about threads; each has its formula in `reference` or `matmul`, and a test against it.

mod attend;
mod float;
mod quantised;
mod vector;

use std::ops::Range;

pub(crate) use attend::attend;
pub(crate) use vector::{add, narrow, rms_norm, silu_mul};

use crate::format::{Matrix, WeightType};
use crate::matmul::{ActivationRow, Activations, Out, quantise_blocks};

/// Tokens that share one pass over a weight row. Bounded by the 16 vector registers: an accumulator each,
/// beside the unpacked weights.
const TILE: usize = 4;

/// The 8-bit rounding of `matmul::quantise_blocks`, compiled for AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn quantise(x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
    quantise_blocks(x, q, scales, sums);
}

/// `out[t, r]` for the given rows of `weights` and all tokens of `x`.
///
/// Tokens go in tiles of [`TILE`], then one by one. Each (row, token) is summed in the same order in a tile
/// of any width, so that a token's result does not depend on its company.
///
/// # Safety
/// The processor has the features; no other thread writes these rows of `out`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn multiply_rows(weights: Matrix<'_>, x: &Activations, rows: Range<usize>, out: Out) {
    let tokens = x.rows();
    let mut t = 0;
    while t < tokens {
        // SAFETY: passed on.
        unsafe {
            match tokens - t {
                1 => multiply_tile::<1>(weights, x, rows.clone(), t, out),
                2 => multiply_tile::<2>(weights, x, rows.clone(), t, out),
                3 => multiply_tile::<3>(weights, x, rows.clone(), t, out),
                _ => multiply_tile::<TILE>(weights, x, rows.clone(), t, out),
            }
        }
        t += TILE;
    }
}

/// # Safety
/// As [`multiply_rows`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_tile<const N: usize>(
    weights: Matrix<'_>,
    x: &Activations,
    rows: Range<usize>,
    first: usize,
    out: Out,
) {
    let acts: [ActivationRow<'_>; N] = std::array::from_fn(|n| x.row(first + n));
    for r in rows {
        let row = weights.row(r);
        let sums = match weights.kind() {
            WeightType::Q4_0 => quantised::dot_q4_0(row, &acts),
            WeightType::Q4_1 => quantised::dot_q4_1(row, &acts),
            WeightType::Q8_0 => quantised::dot_q8_0(row, &acts),
            WeightType::F16 => float::dot_f16(row, &acts),
            WeightType::Bf16 => float::dot_bf16(row, &acts),
            WeightType::F32 => float::dot_f32(row, &acts),
        };
        for (n, sum) in sums.into_iter().enumerate() {
            // SAFETY: passed on.
            unsafe { out.set(first + n, r, sum) };
        }
    }
}
