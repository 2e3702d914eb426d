//! Products of quantised weight rows with 8-bit activations.
//!
//! Per block of 32: `dot = d_w d_x sum(q_w q_x) + m_w sum_x`, where `m_w` is the minimum of Q4_1, `-8 d_w` for
//! Q4_0 and absent for Q8_0. Integer sums are exact, so that every instruction set gives the same bits; block
//! results are added in 8 float lanes.

use std::arch::x86_64::*;
use std::ops::Range;

use super::vector::{dot, horizontal_sum, load};
use super::{TILE, float};
use crate::format::{BLOCK, Matrix, WeightType};
use crate::matmul::{ActivationRow, Activations, Out};

/// Factors of the blocks of one row, kept between rows.
#[derive(Default)]
struct Scratch {
    /// `[blocks]`: `d_w`
    d: Vec<f32>,
    /// `[blocks]`: `m_w`
    m: Vec<f32>,
    /// `[TILE][blocks]`: `d_w d_x`
    scales: [Vec<f32>; TILE],
}

/// Two f16 that lie side by side.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(bytes: [u8; 4]) -> (f32, f32) {
    let both = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(bytes)));
    (_mm_cvtss_f32(both), _mm_cvtss_f32(_mm_movehdup_ps(both)))
}

impl Scratch {
    /// Makes room for the factors of a row.
    #[inline]
    fn resize(&mut self, blocks: usize) {
        self.d.resize(blocks, 0.0);
        self.m.resize(blocks, 0.0);
        self.scales.iter_mut().for_each(|scales| scales.resize(blocks, 0.0));
    }

    /// Multiplies the row's factors with those of `acts`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn scale<const N: usize>(&mut self, acts: &[ActivationRow<'_>; N]) {
        for (scales, x) in self.scales.iter_mut().zip(acts) {
            for ((scale, w), x) in scales.iter_mut().zip(&self.d).zip(x.scales) {
                *scale = w * x;
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn factors_q4_1(block: &[u8; 20]) -> (f32, f32) {
    halves([block[0], block[1], block[2], block[3]])
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn factors_q4_0(block: &[u8; 18]) -> (f32, f32) {
    let (d, _) = halves([block[0], block[1], 0, 0]);
    (d, -8.0 * d)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn factors_q8_0(block: &[u8; 34]) -> (f32, f32) {
    (halves([block[0], block[1], 0, 0]).0, 0.0)
}

/// Low and high halves of 16 packed bytes as 32 unsigned bytes, in the order of the weights.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(packed: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes are there.
    let bytes = unsafe { _mm_loadu_si128(packed.as_ptr().cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_and_si256(both, _mm256_set1_epi8(0xf))
}

/// 32 signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_bytes(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Unsigned weights need no change.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn as_they_are(weights: __m256i, quants: __m256i) -> (__m256i, __m256i) {
    (weights, quants)
}

/// |w| <= 128 as unsigned, and its sign moved to the activation: sums of pairs stay below 2^15.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signs_moved(weights: __m256i, quants: __m256i) -> (__m256i, __m256i) {
    (_mm256_abs_epi8(weights), _mm256_sign_epi8(quants, weights))
}

/// Unsigned times signed bytes, four neighbours summed into each of 8 lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_avx2(unsigned: __m256i, signed: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(unsigned, signed);
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// The same in one instruction.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512vnni,avx512vl")]
fn sum_vnni(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed)
}

/// One row of weights of `$bytes` bytes a block against N rows of activations.
macro_rules! dot {
    ($features:literal, $sum:ident, $name:ident, $bytes:literal, $factors:ident, $unpack:ident, $pair:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name<const N: usize>(
            row: &[u8],
            acts: &[ActivationRow<'_>; N],
            scratch: &mut Scratch,
        ) -> [f32; N] {
            let blocks = row.as_chunks::<$bytes>().0;
            scratch.resize(blocks.len());
            for ((block, d), m) in blocks.iter().zip(&mut scratch.d).zip(&mut scratch.m) {
                (*d, *m) = $factors(block);
            }
            scratch.scale(acts);
            // Loops and not closures: those would not be inlined into a function with features of its own.
            let mut quants: [&[[u8; BLOCK]]; N] = [&[]; N];
            let mut scales: [&[f32]; N] = [&[]; N];
            for n in 0..N {
                quants[n] = acts[n].blocks(blocks.len());
                scales[n] = &scratch.scales[n][..blocks.len()];
            }
            let mut lanes = [_mm256_setzero_ps(); N];
            for (b, block) in blocks.iter().enumerate() {
                let weights = $unpack(block.last_chunk().expect("the quants end the block"));
                for n in 0..N {
                    // SAFETY: both were cut to the number of blocks.
                    let (quants, scale) =
                        unsafe { (quants[n].get_unchecked(b), *scales[n].get_unchecked(b)) };
                    let (unsigned, signed) = $pair(weights, signed_bytes(quants));
                    let sum = _mm256_cvtepi32_ps($sum(unsigned, signed));
                    lanes[n] = _mm256_fmadd_ps(sum, _mm256_set1_ps(scale), lanes[n]);
                }
            }
            let mut sums = [0.0; N];
            for n in 0..N {
                sums[n] = horizontal_sum(lanes[n]) + dot(&scratch.m, acts[n].sums);
            }
            sums
        }
    };
}

/// The products of one instruction set, which needs `$features` and sums by `$sum`.
macro_rules! instruction_set {
    ($name:ident, $features:literal, $sum:ident) => {
        pub(crate) mod $name {
            use super::*;

            dot!($features, $sum, dot_q4_1, 20, factors_q4_1, nibbles, as_they_are);
            dot!($features, $sum, dot_q4_0, 18, factors_q4_0, nibbles, as_they_are);
            dot!($features, $sum, dot_q8_0, 34, factors_q8_0, signed_bytes, signs_moved);

            /// `out[t, r]` for the given rows of `weights` and all tokens of `x`.
            ///
            /// Tokens go in tiles of [`TILE`] and a narrower last one. Each (row, token) is summed in the same
            /// order in a tile of any width, so that a token's result does not depend on its company.
            ///
            /// # Safety
            /// The processor has the features; no other thread writes these rows of `out`.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn multiply_rows(
                weights: Matrix<'_>,
                x: &Activations,
                rows: Range<usize>,
                out: Out,
            ) {
                let mut scratch = Scratch::default();
                for t in (0..x.rows()).step_by(TILE) {
                    let rows = rows.clone();
                    // SAFETY: passed on.
                    unsafe {
                        match x.rows() - t {
                            1 => multiply_tile::<1>(weights, x, rows, t, out, &mut scratch),
                            2 => multiply_tile::<2>(weights, x, rows, t, out, &mut scratch),
                            3 => multiply_tile::<3>(weights, x, rows, t, out, &mut scratch),
                            _ => multiply_tile::<TILE>(weights, x, rows, t, out, &mut scratch),
                        }
                    }
                }
            }

            /// # Safety
            /// As [`multiply_rows`].
            #[target_feature(enable = $features)]
            unsafe fn multiply_tile<const N: usize>(
                weights: Matrix<'_>,
                x: &Activations,
                rows: Range<usize>,
                first: usize,
                out: Out,
                scratch: &mut Scratch,
            ) {
                let mut acts = [x.row(first); N];
                for n in 1..N {
                    acts[n] = x.row(first + n);
                }
                for r in rows {
                    let row = weights.row(r);
                    let sums = match weights.kind() {
                        WeightType::Q4_0 => dot_q4_0(row, &acts, scratch),
                        WeightType::Q4_1 => dot_q4_1(row, &acts, scratch),
                        WeightType::Q8_0 => dot_q8_0(row, &acts, scratch),
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
        }
    };
}

instruction_set!(avx2, "avx2,fma,f16c", sum_avx2);
instruction_set!(vnni, "avx2,fma,f16c,avx512vnni,avx512vl", sum_vnni);

/// The 8-bit rounding of `matmul::quantise`: `x`, `q`: whole blocks; `scales`, `sums`: one per block.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn quantise(x: &[f32], q: &mut [u8], scales: &mut [f32], sums: &mut [f32]) {
    let blocks = x.as_chunks::<BLOCK>().0.iter().zip(q.as_chunks_mut::<BLOCK>().0);
    for (((x, q), scale), sum) in blocks.zip(scales).zip(sums) {
        (*scale, *sum) = quantise_block(x, q);
    }
}

/// Rounds one block; returns its scale, and its scale times the sum of its quants.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantise_block(x: &[f32; BLOCK], q: &mut [u8; BLOCK]) -> (f32, f32) {
    let mut values = [_mm256_setzero_ps(); 4];
    // By bits, as in `matmul`: NaN is larger than any number.
    let mut max = _mm256_setzero_si256();
    for (value, x) in values.iter_mut().zip(x.as_chunks::<8>().0) {
        *value = load(x);
        let magnitude = _mm256_and_si256(_mm256_castps_si256(*value), _mm256_set1_epi32(0x7fff_ffff));
        max = _mm256_max_epu32(max, magnitude);
    }
    let (max, inverse) = crate::matmul::extent(largest(max));
    let mut rounded = [_mm256_setzero_si256(); 4];
    for (rounded, value) in rounded.iter_mut().zip(values) {
        // Rounds to nearest even, as the processor does by default.
        *rounded = _mm256_cvtps_epi32(_mm256_mul_ps(value, _mm256_set1_ps(inverse)));
    }
    let [a, b, c, d] = rounded;
    let sum =
        horizontal_sum(_mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d))));
    // Packing works within halves of a register: the order of fours is mended afterwards.
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes) };
    let scale = max / 127.0;
    (scale, scale * sum)
}

/// The largest of 8 unsigned lanes, as the float of these bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest(x: __m256i) -> f32 {
    let four = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b_00_00_11_10>(four));
    let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0b_00_00_00_01>(two));
    f32::from_bits(_mm_cvtsi128_si32(one).cast_unsigned())
}
