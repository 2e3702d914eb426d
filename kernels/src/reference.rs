//! The oracle: every operation once, scalar, in f32, as plainly as the formula. Speed is not its business,
//! and it must never be changed to agree with a faster path.

use half::{bf16, f16};

use crate::format::{BLOCK, Matrix, WeightType};

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Dequantises one row: `out[cols]` from `row`, the bytes of `out.len()` weights in `kind`'s layout.
/// Panics if the lengths disagree.
pub fn dequantise(kind: WeightType, row: &[u8], out: &mut [f32]) {
    assert_eq!(Some(row.len()), kind.row_bytes(out.len()), "row bytes of {} {}", out.len(), kind.name());
    let blocks = row.chunks_exact(kind.block_bytes()).zip(out.chunks_exact_mut(kind.block_weights()));
    for (block, out) in blocks {
        match kind {
            WeightType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            WeightType::F16 => out[0] = half_at(block, 0),
            WeightType::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            WeightType::Q8_0 => {
                let d = half_at(block, 0);
                for (o, q) in out.iter_mut().zip(&block[2..]) {
                    *o = d * f32::from(*q as i8);
                }
            }
            WeightType::Q4_0 => nibbles(&block[2..], out, half_at(block, 0), -8.0 * half_at(block, 0)),
            WeightType::Q4_1 => nibbles(&block[4..], out, half_at(block, 0), half_at(block, 2)),
        }
    }
}

fn nibbles(packed: &[u8], out: &mut [f32], d: f32, m: f32) {
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((l, h), byte) in low.iter_mut().zip(high).zip(packed) {
        *l = d * f32::from(byte & 0xf) + m;
        *h = d * f32::from(byte >> 4) + m;
    }
}

/// `sum_i a[i] b[i]`, left to right. Panics if the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot of unequal lengths");
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// `out[t, r] = sum_c weights[r, c] x[t, c]` for `x: [tokens, cols]`, `out: [tokens, rows]`.
/// Panics if the shapes disagree.
pub fn multiply(weights: Matrix<'_>, x: &[f32], out: &mut [f32]) {
    let tokens = x.len() / weights.cols();
    assert_eq!(x.len(), tokens * weights.cols(), "activations are no whole number of rows");
    assert_eq!(out.len(), tokens * weights.rows(), "output shape");
    let mut row = vec![0.0; weights.cols()];
    for r in 0..weights.rows() {
        dequantise(weights.kind(), weights.row(r), &mut row);
        for t in 0..tokens {
            out[t * weights.rows() + r] = dot(&row, &x[t * weights.cols()..(t + 1) * weights.cols()]);
        }
    }
}

/// `out[i] = gain[i] x[i] / sqrt(mean(x^2) + epsilon)`; all of one length.
pub fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt();
    for ((o, x), g) in out.iter_mut().zip(x).zip(gain) {
        *o = x * scale * g;
    }
}

/// Rotates neighbouring pairs of one head (llama's order): with `a = x[2i]`, `b = x[2i+1]`,
/// `x[2i] = a cos[i] - b sin[i]`, `x[2i+1] = a sin[i] + b cos[i]`. `x` beyond `2 cos.len()` stays.
pub fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, c), s) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * c - b * s;
        pair[1] = a * s + b * c;
    }
}

/// `x[i] = exp(x[i] - max) / sum_j exp(x[j] - max)`, in place.
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in x.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    for v in x.iter_mut() {
        *v /= sum;
    }
}

/// `gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]`, in place.
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + (-*g).exp()) * u;
    }
}

/// `x[i] += y[i]`.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `bits[i] = f16(x[i])`, to nearest even.
pub fn narrow(x: &[f32], bits: &mut [u16]) {
    for (b, x) in bits.iter_mut().zip(x) {
        *b = f16::from_f32(*x).to_bits();
    }
}

/// Index of the largest value, the first of equals; NaN never wins; 0 for an empty slice.
pub fn argmax(x: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, v) in x.iter().enumerate() {
        if *v > best.1 {
            best = (i, *v);
        }
    }
    best.0
}

/// Attention of one head over `len` cached positions: `scores[p] = scale q . key(p)`, softmax, then
/// `out = sum_p scores[p] value(p)`. `q`, `out`, keys and values: `[head_dim]`, cache in f16 bits.
pub fn attend<'a>(
    q: &[f32],
    len: usize,
    scale: f32,
    key: impl Fn(usize) -> &'a [u16],
    value: impl Fn(usize) -> &'a [u16],
    out: &mut [f32],
) {
    let widen = |bits: &[u16]| bits.iter().map(|b| f16::from_bits(*b).to_f32()).collect::<Vec<_>>();
    let mut scores: Vec<f32> = (0..len).map(|p| scale * dot(q, &widen(key(p)))).collect();
    softmax(&mut scores);
    out.fill(0.0);
    for (p, score) in scores.iter().enumerate() {
        for (o, v) in out.iter_mut().zip(widen(value(p))) {
            *o += score * v;
        }
    }
}
