//! Dot products of quantised weight rows with 8-bit activations.
//!
//! Per block of 32: `dot = d_w d_x sum(q_w q_x) + m_w sum_x`, where `m_w` is the minimum of Q4_1, `-8 d_w` for
//! Q4_0 and absent for Q8_0. Integer sums are exact; block results are added in 8 float lanes.

use std::arch::x86_64::*;

use super::vector::horizontal_sum;
use crate::format::BLOCK;
use crate::matmul::ActivationRow;

/// The 32 quants of block `b` of an activation row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quants(row: &ActivationRow<'_>, b: usize) -> __m256i {
    let block = &row.quants[b * BLOCK..(b + 1) * BLOCK];
    // SAFETY: the slice is 32 bytes long.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

/// Low and high halves of 16 packed bytes as 32 unsigned bytes, in the order of the weights.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack(packed: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes are there.
    let bytes = unsafe { _mm_loadu_si128(packed.as_ptr().cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_and_si256(both, _mm256_set1_epi8(0xf))
}

/// Two f16 that lie side by side.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(bytes: [u8; 4]) -> (f32, f32) {
    let both = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(bytes)));
    (_mm_cvtss_f32(both), _mm_cvtss_f32(_mm_movehdup_ps(both)))
}

/// Unsigned weights times signed activations, four neighbours summed into each of 8 lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_add(unsigned: __m256i, signed: __m256i) -> __m256 {
    let pairs = _mm256_maddubs_epi16(unsigned, signed);
    _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Row of Q4_1 against N rows of activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_q4_1<const N: usize>(row: &[u8], acts: &[ActivationRow<'_>; N]) -> [f32; N] {
    let mut lanes = [_mm256_setzero_ps(); N];
    let mut offsets = [0.0f32; N];
    for (b, block) in row.as_chunks::<20>().0.iter().enumerate() {
        let (d, m) = halves([block[0], block[1], block[2], block[3]]);
        let weights = unpack(block.last_chunk().expect("20 bytes end in 16"));
        for n in 0..N {
            let scale = _mm256_set1_ps(d * acts[n].scales[b]);
            lanes[n] = _mm256_fmadd_ps(multiply_add(weights, quants(&acts[n], b)), scale, lanes[n]);
            offsets[n] = m.mul_add(acts[n].sums[b], offsets[n]);
        }
    }
    std::array::from_fn(|n| horizontal_sum(lanes[n]) + offsets[n])
}

/// Row of Q4_0 against N rows of activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_q4_0<const N: usize>(row: &[u8], acts: &[ActivationRow<'_>; N]) -> [f32; N] {
    let mut lanes = [_mm256_setzero_ps(); N];
    let mut offsets = [0.0f32; N];
    for (b, block) in row.as_chunks::<18>().0.iter().enumerate() {
        let (d, _) = halves([block[0], block[1], 0, 0]);
        let weights = unpack(block.last_chunk().expect("18 bytes end in 16"));
        for n in 0..N {
            let scale = _mm256_set1_ps(d * acts[n].scales[b]);
            lanes[n] = _mm256_fmadd_ps(multiply_add(weights, quants(&acts[n], b)), scale, lanes[n]);
            offsets[n] = (-8.0 * d).mul_add(acts[n].sums[b], offsets[n]);
        }
    }
    std::array::from_fn(|n| horizontal_sum(lanes[n]) + offsets[n])
}

/// Row of Q8_0 against N rows of activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_q8_0<const N: usize>(row: &[u8], acts: &[ActivationRow<'_>; N]) -> [f32; N] {
    let mut lanes = [_mm256_setzero_ps(); N];
    for (b, block) in row.as_chunks::<34>().0.iter().enumerate() {
        let (d, _) = halves([block[0], block[1], 0, 0]);
        let packed: &[u8; 32] = block.last_chunk().expect("34 bytes end in 32");
        // SAFETY: 32 bytes are there.
        let weights = unsafe { _mm256_loadu_si256(packed.as_ptr().cast()) };
        // |w| <= 128 as unsigned, the sign moved to the activation: pairs stay below 2^15.
        let magnitude = _mm256_abs_epi8(weights);
        for n in 0..N {
            let signed = _mm256_sign_epi8(quants(&acts[n], b), weights);
            let scale = _mm256_set1_ps(d * acts[n].scales[b]);
            lanes[n] = _mm256_fmadd_ps(multiply_add(magnitude, signed), scale, lanes[n]);
        }
    }
    std::array::from_fn(|n| horizontal_sum(lanes[n]))
}
