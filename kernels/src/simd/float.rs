//! Dot products of F32, F16 and BF16 weight rows with f32 activations, in 8 lanes, the rest one by one.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::vector::horizontal_sum;
use crate::matmul::ActivationRow;

/// Eight values from a slice of at least eight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: 8 floats are there.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// The shared loop: `widen` turns 8 weights of `BYTES / 8` bytes into floats, `one` a single one.
macro_rules! dot {
    ($name:ident, $bytes:literal, $widen:expr, $one:expr, $doc:literal) => {
        #[doc = $doc]
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name<const N: usize>(row: &[u8], acts: &[ActivationRow<'_>; N]) -> [f32; N] {
            let mut lanes = [_mm256_setzero_ps(); N];
            let (eights, rest) = row.as_chunks::<$bytes>();
            for (i, eight) in eights.iter().enumerate() {
                let weights = $widen(eight);
                for n in 0..N {
                    let x = acts[n].values[i * 8..].first_chunk().expect("as long as the row");
                    lanes[n] = _mm256_fmadd_ps(weights, load(x), lanes[n]);
                }
            }
            let mut sums: [f32; N] = std::array::from_fn(|n| horizontal_sum(lanes[n]));
            for (i, weight) in rest.as_chunks::<{ $bytes / 8 }>().0.iter().enumerate() {
                let weight: f32 = $one(*weight);
                for n in 0..N {
                    sums[n] = weight.mul_add(acts[n].values[eights.len() * 8 + i], sums[n]);
                }
            }
            sums
        }
    };
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_f16(eight: &[u8; 16]) -> __m256 {
    // SAFETY: 16 bytes are there.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(eight.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_bf16(eight: &[u8; 16]) -> __m256 {
    // SAFETY: 16 bytes are there.
    let wide = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(eight.as_ptr().cast()) });
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_f32(eight: &[u8; 32]) -> __m256 {
    // SAFETY: 32 bytes are there; the load needs no alignment.
    unsafe { _mm256_loadu_ps(eight.as_ptr().cast()) }
}

dot!(dot_f16, 16, widen_f16, |w| f16::from_le_bytes(w).to_f32(), "Row of F16 against N rows of activations.");
dot!(
    dot_bf16,
    16,
    widen_bf16,
    |w| bf16::from_le_bytes(w).to_f32(),
    "Row of BF16 against N rows of activations."
);
dot!(dot_f32, 32, widen_f32, f32::from_le_bytes, "Row of F32 against N rows of activations.");
