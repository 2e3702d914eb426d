//! Operations on f32 vectors, 8 lanes at a time, the rest as in `reference`.

use std::arch::x86_64::*;

use crate::reference;

/// The sum of 8 lanes, in one fixed order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn horizontal_sum(x: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: 8 floats are there.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(x: &mut [f32; 8], value: __m256) {
    // SAFETY: 8 floats are there.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), value) }
}

/// `sum a b`; as long as the shorter one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a8, a), (b8, b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = _mm256_setzero_ps();
    for (a, b) in a8.iter().zip(b8) {
        lanes = _mm256_fmadd_ps(load(a), load(b), lanes);
    }
    a.iter().zip(b).fold(horizontal_sum(lanes), |sum, (a, b)| a.mul_add(*b, sum))
}

/// `out += factor x`; all of one length.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_scaled(out: &mut [f32], factor: f32, x: &[f32]) {
    let (out8, out) = out.as_chunks_mut::<8>();
    let (x8, x) = x.as_chunks::<8>();
    for (o, x) in out8.iter_mut().zip(x8) {
        let sum = _mm256_fmadd_ps(_mm256_set1_ps(factor), load(x), load(o));
        store(o, sum);
    }
    for (o, x) in out.iter_mut().zip(x) {
        *o = factor.mul_add(*x, *o);
    }
}

/// `e^x` per lane, for x clamped to [-87, 88], NaN for NaN; relative error below 2e-7 (argument reduced by multiples of
/// ln 2, then the degree-5 polynomial of the Cephes library).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn exp(x: __m256) -> __m256 {
    // Both return their second operand where one is NaN.
    let x = _mm256_max_ps(_mm256_set1_ps(-87.0), _mm256_min_ps(_mm256_set1_ps(88.0), x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    // ln 2 in two parts, the first exact in few bits, keeps the reduced argument exact.
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm256_set1_ps(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
    }
    let p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0)));
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
}

/// `reference::rms_norm`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt();
    for ((o, x), g) in out.iter_mut().zip(x).zip(gain) {
        *o = x * scale * g;
    }
}

/// `reference::silu_mul`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let (gate8, gate) = gate.as_chunks_mut::<8>();
    let (up8, up) = up.as_chunks::<8>();
    let one = _mm256_set1_ps(1.0);
    for (g, u) in gate8.iter_mut().zip(up8) {
        let x = load(g);
        let e = exp(_mm256_sub_ps(_mm256_setzero_ps(), x));
        store(g, _mm256_mul_ps(_mm256_div_ps(x, _mm256_add_ps(one, e)), load(u)));
    }
    reference::silu_mul(gate, up);
}

/// `reference::add`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    reference::add(x, y);
}

/// `reference::narrow`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn narrow(x: &[f32], bits: &mut [u16]) {
    let (x8, x) = x.as_chunks::<8>();
    let (bits8, bits) = bits.as_chunks_mut::<8>();
    for (x, b) in x8.iter().zip(bits8) {
        let half = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(load(x));
        // SAFETY: 16 bytes are there.
        unsafe { _mm_storeu_si128(b.as_mut_ptr().cast(), half) };
    }
    reference::narrow(x, bits);
}

/// `reference::softmax`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (x8, rest) = x.as_chunks_mut::<8>();
    let mut sums = _mm256_setzero_ps();
    for x in x8.iter_mut() {
        let e = exp(_mm256_sub_ps(load(x), _mm256_set1_ps(max)));
        sums = _mm256_add_ps(sums, e);
        store(x, e);
    }
    let mut sum = horizontal_sum(sums);
    for x in rest {
        *x = (*x - max).exp();
        sum += *x;
    }
    for x in x.iter_mut() {
        *x /= sum;
    }
}
