//! Attention over a cache of keys and values that grows in blocks.
//!
//! For query head h of a token at position p, with `len = p + 1` cached positions:
//! `out = sum_j softmax_j(q . key_j / sqrt(head_dim)) value_j`. Neighbouring query heads share a key and
//! value head (grouped-query attention): `group = heads / heads_kv` of them.

use crate::{Arithmetic, Pool, reference};

/// The longest head that the stack buffers of the fast path hold.
pub const HEAD_DIM_MAX: usize = 256;

/// Positions in one block of a cache.
pub const BLOCK_POSITIONS: usize = 32;

/// The cached keys and values of one sequence, one layer, one key and value head, as f16 bits.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    /// Blocks of [`BLOCK_POSITIONS`] positions each, of any layout beyond the two offsets.
    pub blocks: &'a [Box<[u16]>],
    /// Where in a block the keys `[BLOCK_POSITIONS, head_dim]` start.
    pub keys_at: usize,
    /// Where in a block the values `[BLOCK_POSITIONS, head_dim]` start.
    pub values_at: usize,
    /// Length of one key or value.
    pub head_dim: usize,
}

impl<'a> Cache<'a> {
    /// The key of position `p`: `[head_dim]`. Panics beyond the blocks.
    #[inline(always)]
    pub fn key(&self, p: usize) -> &'a [u16] {
        self.row(p, self.keys_at)
    }

    /// The value of position `p`: `[head_dim]`. Panics beyond the blocks.
    #[inline(always)]
    pub fn value(&self, p: usize) -> &'a [u16] {
        self.row(p, self.values_at)
    }

    #[inline(always)]
    fn row(&self, p: usize, base: usize) -> &'a [u16] {
        let at = base + p % BLOCK_POSITIONS * self.head_dim;
        &self.blocks[p / BLOCK_POSITIONS][at..at + self.head_dim]
    }
}

/// One token's queries for one key and value head.
pub struct Query<'a> {
    /// `[group, head_dim]`, already rotated.
    pub q: &'a [f32],
    /// Positions to attend to: the token's own position plus one.
    pub len: usize,
    /// Where their keys and values are.
    pub cache: Cache<'a>,
    /// `[group, head_dim]`, overwritten.
    pub out: &'a mut [f32],
}

/// Computes all `queries`, shared out to the pool. Panics if a shape disagrees or a head is longer than
/// [`HEAD_DIM_MAX`].
pub fn attend(arithmetic: Arithmetic, pool: &mut Pool, queries: Vec<Query<'_>>) {
    arithmetic.check();
    let queries: Vec<_> = queries.into_iter().map(std::sync::Mutex::new).collect();
    // A part is several queries: those of one token are too little work to hand out alone.
    let per_part = queries.len().div_ceil(pool.threads() * 8).max(1);
    pool.run(queries.len().div_ceil(per_part), &|part| {
        let mut scores = Vec::new();
        for query in queries.iter().skip(part * per_part).take(per_part) {
            // Uncontended: each query is in one part; the lock is how the part gets its `&mut`.
            let mut query = query.lock().expect("no part panics twice");
            attend_one(arithmetic, &mut query, &mut scores);
        }
    });
}

fn attend_one(arithmetic: Arithmetic, query: &mut Query<'_>, scores: &mut Vec<f32>) {
    let Query { q, len, cache, out } = query;
    let dim = cache.head_dim;
    assert!(dim <= HEAD_DIM_MAX && *len > 0 && q.len() == out.len() && q.len().is_multiple_of(dim));
    match arithmetic {
        Arithmetic::Reference => {
            let scale = 1.0 / (dim as f32).sqrt();
            for (q, out) in q.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
                reference::attend(q, *len, scale, |p| cache.key(p), |p| cache.value(p), out);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Arithmetic::Avx2 | Arithmetic::Vnni => {
            scores.resize(q.len() / dim * *len, 0.0);
            // SAFETY: `attend` checked the features.
            unsafe { crate::simd::attend(q, *len, cache, scores, out) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("checked by the caller"),
    }
}
