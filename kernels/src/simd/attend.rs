//! Attention of the query heads that share one key and value head, over a cache in f16.

use std::arch::x86_64::*;

use super::vector::{add_scaled, dot, softmax, store};
use crate::attention::{Cache, HEAD_DIM_MAX};

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

/// `reference::attend` for the heads of one group: `q`, `out`: `[group, head_dim]`, `scores: [group, len]`.
/// Each cached row is widened once for the whole group.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn attend(q: &[f32], len: usize, cache: &Cache<'_>, scores: &mut [f32], out: &mut [f32]) {
    let dim = cache.head_dim;
    let mut buffer = [0.0f32; HEAD_DIM_MAX];
    let wide = &mut buffer[..dim];
    let scale = 1.0 / (dim as f32).sqrt();
    for p in 0..len {
        widen(cache.key(p), wide);
        for (h, q) in q.chunks_exact(dim).enumerate() {
            scores[h * len + p] = scale * dot(q, wide);
        }
    }
    scores.chunks_exact_mut(len).for_each(|s| softmax(s));
    out.fill(0.0);
    for p in 0..len {
        widen(cache.value(p), wide);
        for (h, out) in out.chunks_exact_mut(dim).enumerate() {
            add_scaled(out, scores[h * len + p], wide);
        }
    }
}
