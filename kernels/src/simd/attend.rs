//! Attention of several tokens of a sequence, and the query heads that share one key and value head, over a
//! cache in f16. Block by block, each is widened once for all of them. Every token's sums run over positions in
//! ascending order, whoever else is there.

use std::arch::x86_64::*;

use super::vector::{add_scaled, dot, horizontal_sum, load, softmax, store};
use crate::attention::{BLOCK_POSITIONS, Cache, QueryRow};

/// `reference::attend` for all heads of all `rows`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn attend(rows: &mut [QueryRow<'_>], cache: &Cache<'_>) {
    let dim = cache.head_dim;
    let longest = rows.iter().map(|row| row.len).max().unwrap_or(0);
    let group = rows.first().map_or(0, |row| row.q.len() / dim);
    let scale = 1.0 / (dim as f32).sqrt();
    let mut wide = vec![0.0; BLOCK_POSITIONS * dim];
    // `[rows, group, longest]`
    let mut scores = vec![0.0; rows.len() * group * longest];
    for (block, start) in (0..longest).step_by(BLOCK_POSITIONS).enumerate() {
        widen(cache.keys(block), &mut wide);
        for (row, scores) in rows.iter().zip(scores.chunks_exact_mut(group * longest)) {
            let seen = start..row.len.min(start + BLOCK_POSITIONS);
            for (q, scores) in row.q.chunks_exact(dim).zip(scores.chunks_exact_mut(longest)) {
                if let Some(scores) = scores.get_mut(seen.clone()) {
                    score(q, &wide, scale, scores);
                }
            }
        }
    }
    for (row, scores) in rows.iter_mut().zip(scores.chunks_exact_mut(group * longest)) {
        scores.chunks_exact_mut(longest).for_each(|scores| softmax(&mut scores[..row.len]));
        row.out.fill(0.0);
    }
    for (block, start) in (0..longest).step_by(BLOCK_POSITIONS).enumerate() {
        widen(cache.values(block), &mut wide);
        for (row, scores) in rows.iter_mut().zip(scores.chunks_exact(group * longest)) {
            let seen = start..row.len.min(start + BLOCK_POSITIONS);
            for (out, scores) in row.out.chunks_exact_mut(dim).zip(scores.chunks_exact(longest)) {
                if let Some(scores) = scores.get(seen.clone()) {
                    collect(scores, &wide, out);
                }
            }
        }
    }
}

/// Widens f16 bits to f32; lengths are equal.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(bits: &[u16], out: &mut [f32]) {
    let (bits8, bits) = bits.as_chunks::<8>();
    let (out8, out) = out.as_chunks_mut::<8>();
    for (b, o) in bits8.iter().zip(out8) {
        // SAFETY: 16 bytes are there.
        store(o, _mm256_cvtph_ps(unsafe { _mm_loadu_si128(b.as_ptr().cast()) }));
    }
    for (b, o) in bits.iter().zip(out) {
        *o = half::f16::from_bits(*b).to_f32();
    }
}

/// `scores[p] = scale q . keys[p]` for `q: [dim]`, `keys: [at least scores.len(), dim]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn score(q: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    match q.len() {
        64 => score_in_registers::<8>(q, keys, scale, scores),
        128 => score_in_registers::<16>(q, keys, scale, scores),
        dim => {
            for (key, score) in keys.chunks_exact(dim).zip(scores) {
                *score = scale * dot(q, key);
            }
        }
    }
}

/// [`score`] for heads of `8 EIGHTS`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn score_in_registers<const EIGHTS: usize>(q: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    let mut query = [_mm256_setzero_ps(); EIGHTS];
    for (register, q) in query.iter_mut().zip(q.as_chunks::<8>().0) {
        *register = load(q);
    }
    let keys = keys.as_chunks::<8>().0.as_chunks::<EIGHTS>().0;
    for (key, score) in keys.iter().zip(scores) {
        let mut lanes = _mm256_mul_ps(query[0], load(&key[0]));
        for n in 1..EIGHTS {
            lanes = _mm256_fmadd_ps(query[n], load(&key[n]), lanes);
        }
        *score = scale * horizontal_sum(lanes);
    }
}

/// `out += sum_p weights[p] values[p]` for `out: [dim]`, `values: [at least weights.len(), dim]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn collect(weights: &[f32], values: &[f32], out: &mut [f32]) {
    match out.len() {
        64 => collect_in_registers::<8>(weights, values, out),
        128 => collect_in_registers::<16>(weights, values, out),
        dim => {
            for (value, weight) in values.chunks_exact(dim).zip(weights) {
                add_scaled(out, *weight, value);
            }
        }
    }
}

/// [`collect`] for heads of `8 EIGHTS`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn collect_in_registers<const EIGHTS: usize>(weights: &[f32], values: &[f32], out: &mut [f32]) {
    let out = out.as_chunks_mut::<8>().0;
    let mut sums = [_mm256_setzero_ps(); EIGHTS];
    for (sum, out) in sums.iter_mut().zip(out.iter()) {
        *sum = load(out);
    }
    for (value, weight) in values.as_chunks::<8>().0.as_chunks::<EIGHTS>().0.iter().zip(weights) {
        let weight = _mm256_set1_ps(*weight);
        for n in 0..EIGHTS {
            sums[n] = _mm256_fmadd_ps(weight, load(&value[n]), sums[n]);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        store(out, sum);
    }
}
