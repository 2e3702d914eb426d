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
    pub fn key(&self, p: usize) -> &'a [u16] {
        let row = p % BLOCK_POSITIONS * self.head_dim;
        &self.keys(p / BLOCK_POSITIONS)[row..row + self.head_dim]
    }

    /// The value of position `p`: `[head_dim]`. Panics beyond the blocks.
    pub fn value(&self, p: usize) -> &'a [u16] {
        let row = p % BLOCK_POSITIONS * self.head_dim;
        &self.values(p / BLOCK_POSITIONS)[row..row + self.head_dim]
    }

    /// The keys of a block: `[BLOCK_POSITIONS, head_dim]`. Panics beyond the blocks.
    pub fn keys(&self, block: usize) -> &'a [u16] {
        &self.blocks[block][self.keys_at..self.keys_at + BLOCK_POSITIONS * self.head_dim]
    }

    /// The values of a block: `[BLOCK_POSITIONS, head_dim]`. Panics beyond the blocks.
    pub fn values(&self, block: usize) -> &'a [u16] {
        &self.blocks[block][self.values_at..self.values_at + BLOCK_POSITIONS * self.head_dim]
    }
}

/// One token's queries for one key and value head.
pub struct QueryRow<'a> {
    /// `[group, head_dim]`, already rotated.
    pub q: &'a [f32],
    /// Positions to attend to: the token's own position plus one.
    pub len: usize,
    /// `[group, head_dim]`, overwritten.
    pub out: &'a mut [f32],
}

/// Tokens of one sequence that attend to the same keys and values: each of those is read once for all.
pub struct Query<'a> {
    /// Any number of tokens; what one gets does not depend on the others.
    pub rows: Vec<QueryRow<'a>>,
    /// Where their keys and values are.
    pub cache: Cache<'a>,
}

/// Computes all `queries`, each as one part of a task of the pool. Panics if a shape disagrees or a head is
/// longer than [`HEAD_DIM_MAX`].
pub fn attend(arithmetic: Arithmetic, pool: &mut Pool, queries: Vec<Query<'_>>) {
    arithmetic.check();
    let queries: Vec<_> = queries.into_iter().map(std::sync::Mutex::new).collect();
    pool.run(queries.len(), &|part| {
        // Uncontended: each query is one part; the lock is how the part gets its `&mut`.
        let mut query = queries[part].lock().expect("no part panics twice");
        let Query { rows, cache } = &mut *query;
        let dim = cache.head_dim;
        for row in rows.iter() {
            let fits = row.len > 0 && row.q.len() == row.out.len() && row.q.len().is_multiple_of(dim);
            assert!(fits && dim <= HEAD_DIM_MAX && row.len <= cache.blocks.len() * BLOCK_POSITIONS);
        }
        match arithmetic {
            Arithmetic::Reference => rows.iter_mut().for_each(|row| attend_plainly(row, cache)),
            // SAFETY: `check` found the features.
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Avx2 | Arithmetic::Vnni => unsafe { crate::simd::attend(rows, cache) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("checked above"),
        }
    });
}

fn attend_plainly(row: &mut QueryRow<'_>, cache: &Cache<'_>) {
    let scale = 1.0 / (cache.head_dim as f32).sqrt();
    let heads = row.q.chunks_exact(cache.head_dim).zip(row.out.chunks_exact_mut(cache.head_dim));
    for (q, out) in heads {
        reference::attend(q, row.len, scale, |p| cache.key(p), |p| cache.value(p), out);
    }
}
