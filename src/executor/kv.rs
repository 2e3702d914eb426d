//! The keys and values of one sequence, in blocks that are allocated as the sequence grows. Only storage.

use switchbox_kernels::attention::{BLOCK_POSITIONS, Cache};
use switchbox_kernels::{Arithmetic, pointwise};

use super::llama::Shape;

/// A sequence's cache. One block holds [`BLOCK_POSITIONS`] positions of all layers, as f16 bits:
/// `[layer, key or value, head_kv, position, head_dim]`.
#[derive(Debug)]
pub struct KvCache {
    layers: usize,
    heads_kv: usize,
    head_dim: usize,
    blocks: Vec<Box<[u16]>>,
    len: usize,
}

impl KvCache {
    /// An empty cache for a model of this shape; holds no memory yet.
    pub(crate) fn new(shape: &Shape) -> KvCache {
        let Shape { layers, heads_kv, head_dim, .. } = *shape;
        KvCache { layers, heads_kv, head_dim, blocks: Vec::new(), len: 0 }
    }

    /// Positions that hold a token.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position holds a token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        (self.blocks.len() * self.block_len() * size_of::<u16>()) as u64
    }

    fn block_len(&self) -> usize {
        self.layers * 2 * self.heads_kv * BLOCK_POSITIONS * self.head_dim
    }

    /// Makes room for `more` positions after the current ones.
    pub(crate) fn reserve(&mut self, more: usize) {
        let wanted = (self.len + more).div_ceil(BLOCK_POSITIONS);
        while self.blocks.len() < wanted {
            self.blocks.push(vec![0; self.block_len()].into_boxed_slice());
        }
    }

    /// The `more` positions written after the current ones now hold tokens.
    pub(crate) fn advance(&mut self, more: usize) {
        self.len += more;
    }

    /// Stores `k` and `v`, both `[heads_kv, head_dim]`, of one layer at `position`, within what was reserved.
    pub(crate) fn write(
        &mut self,
        arithmetic: Arithmetic,
        layer: usize,
        position: usize,
        k: &[f32],
        v: &[f32],
    ) {
        let dim = self.head_dim;
        for head in 0..self.heads_kv {
            let (keys_at, values_at) = (self.at(layer, 0, head), self.at(layer, 1, head));
            let block = &mut self.blocks[position / BLOCK_POSITIONS];
            let row = position % BLOCK_POSITIONS * dim;
            for (base, x) in [(keys_at, k), (values_at, v)] {
                let x = &x[head * dim..(head + 1) * dim];
                pointwise::narrow(arithmetic, x, &mut block[base + row..base + row + dim]);
            }
        }
    }

    /// The cache of one layer and head.
    pub(crate) fn view(&self, layer: usize, head: usize) -> Cache<'_> {
        Cache {
            blocks: &self.blocks,
            keys_at: self.at(layer, 0, head),
            values_at: self.at(layer, 1, head),
            head_dim: self.head_dim,
        }
    }

    /// Where in a block the rows of keys (`part` 0) or values (`part` 1) of a head start.
    fn at(&self, layer: usize, part: usize, head: usize) -> usize {
        ((layer * 2 + part) * self.heads_kv + head) * BLOCK_POSITIONS * self.head_dim
    }
}
