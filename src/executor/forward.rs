//! The forward pass of a dense llama over a batch of rows, each a token of some sequence. Every row is
//! computed in the same order whatever else is in the batch. Knows nothing of sampling or text.

use switchbox_kernels::attention::{self, Query, QueryRow};
use switchbox_kernels::{Activations, Arithmetic, Pool, Product, multiply, pointwise};

use super::kv::KvCache;
use super::llama::{Layer, Shape};
use super::model::Model;

/// Rows of one sequence whose attention shares one pass over its cache: bounds the scores that a thread holds.
const ROWS_TOGETHER: usize = 16;

/// Which rows' logits a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// None: the middle of a prompt.
    None,
    /// The last row's.
    Last,
    /// Every row's.
    All,
}

/// The next tokens of one sequence, in order, and its cache.
pub struct Rows<'a> {
    /// At least one; each below the vocabulary's size.
    pub tokens: &'a [u32],
    /// Holds all earlier positions; gets these.
    pub kv: &'a mut KvCache,
    /// Whose logits are returned.
    pub wanted: Wanted,
}

/// Threads and buffers for forward passes.
pub struct Forward {
    arithmetic: Arithmetic,
    pool: Pool,
    buffers: Buffers,
}

/// Rows of activations, `[rows, ...]`, kept between steps.
#[derive(Default)]
struct Buffers {
    input: Activations,
    /// `[rows, width]`: the residual stream.
    x: Vec<f32>,
    /// `[rows, width]`
    normed: Vec<f32>,
    /// `[rows, heads, head_dim]`
    q: Vec<f32>,
    /// `[rows, heads_kv, head_dim]`
    k: Vec<f32>,
    /// `[rows, heads_kv, head_dim]`
    v: Vec<f32>,
    /// `[rows, heads, head_dim]`
    attended: Vec<f32>,
    /// `[rows, hidden]`
    gate: Vec<f32>,
    /// `[rows, hidden]`
    up: Vec<f32>,
    /// `[rows, width]`: what a block adds to the stream.
    delta: Vec<f32>,
    /// `[rows, pairs]`: rotations of the rows' positions.
    cos: Vec<f32>,
    /// `[rows, pairs]`
    sin: Vec<f32>,
    /// `[wanted rows, vocab]`
    logits: Vec<f32>,
}

impl Forward {
    /// Prepares `threads` threads, the caller's included.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn new(arithmetic: Arithmetic, threads: usize) -> std::io::Result<Forward> {
        Ok(Forward { arithmetic, pool: Pool::new(threads)?, buffers: Buffers::default() })
    }

    /// Runs the batch and returns the logits of the wanted rows, `[wanted, vocab]`, in the batch's order.
    ///
    /// The caches hold the new positions only after it returned: after a panic inside, the same rows can be
    /// run again. Panics if a token is not in the vocabulary or a sequence has no rows.
    pub fn run(&mut self, model: &Model, batch: &mut [Rows<'_>]) -> &[f32] {
        let shape = model.shape();
        self.buffers.resize(shape, batch.iter().map(|rows| rows.tokens.len()).sum());
        self.buffers.place(shape, batch);
        for (row, token) in batch.iter().flat_map(|rows| rows.tokens).enumerate() {
            let out = &mut self.buffers.x[row * shape.width..(row + 1) * shape.width];
            pointwise::embed(model.weights().embedding.view(model.file()), *token as usize, out);
        }
        for rows in batch.iter_mut() {
            assert!(!rows.tokens.is_empty(), "a sequence without rows in a batch");
            rows.kv.reserve(rows.tokens.len());
        }
        for (n, layer) in model.weights().layers.iter().enumerate() {
            self.attention(model, layer, n, batch);
            self.feed_forward(model, layer);
        }
        self.logits(model, batch);
        for rows in batch.iter_mut() {
            rows.kv.advance(rows.tokens.len());
        }
        &self.buffers.logits
    }

    /// `x += Wo attend(rope(Wq n), rope(Wk n), Wv n)` with `n = rms_norm(x)`.
    fn attention(&mut self, model: &Model, layer: &Layer, n: usize, batch: &mut [Rows<'_>]) {
        let Forward { arithmetic, pool, buffers: b } = self;
        let (shape, file) = (model.shape(), model.file());
        pointwise::rms_norm(*arithmetic, &b.x, &layer.attention_gain, shape.epsilon, &mut b.normed);
        b.input.fill(*arithmetic, shape.width, &b.normed);
        let mut products = [
            Product { weights: layer.q.view(file), out: &mut b.q },
            Product { weights: layer.k.view(file), out: &mut b.k },
            Product { weights: layer.v.view(file), out: &mut b.v },
        ];
        multiply(*arithmetic, pool, &b.input, &mut products);
        b.rotate(shape);
        b.store(*arithmetic, shape, n, batch);
        attention::attend(*arithmetic, pool, b.queries(shape, n, batch));
        b.input.fill(*arithmetic, shape.heads * shape.head_dim, &b.attended);
        let product = Product { weights: layer.o.view(file), out: &mut b.delta };
        multiply(*arithmetic, pool, &b.input, &mut [product]);
        pointwise::add(*arithmetic, &mut b.x, &b.delta);
    }

    /// `x += Wdown (silu(Wgate n) * Wup n)` with `n = rms_norm(x)`.
    fn feed_forward(&mut self, model: &Model, layer: &Layer) {
        let Forward { arithmetic, pool, buffers: b } = self;
        let (shape, file) = (model.shape(), model.file());
        pointwise::rms_norm(*arithmetic, &b.x, &layer.hidden_gain, shape.epsilon, &mut b.normed);
        b.input.fill(*arithmetic, shape.width, &b.normed);
        let mut products = [
            Product { weights: layer.gate.view(file), out: &mut b.gate },
            Product { weights: layer.up.view(file), out: &mut b.up },
        ];
        multiply(*arithmetic, pool, &b.input, &mut products);
        pointwise::silu_mul(*arithmetic, &mut b.gate, &b.up);
        b.input.fill(*arithmetic, shape.hidden, &b.gate);
        let product = Product { weights: layer.down.view(file), out: &mut b.delta };
        multiply(*arithmetic, pool, &b.input, &mut [product]);
        pointwise::add(*arithmetic, &mut b.x, &b.delta);
    }

    /// `logits = Wout rms_norm(x)` for the wanted rows only: the head is a fifth of a small model.
    fn logits(&mut self, model: &Model, batch: &[Rows<'_>]) {
        let Forward { arithmetic, pool, buffers: b } = self;
        let (width, vocab) = (model.shape().width, model.shape().vocab);
        b.delta.clear();
        let mut row = 0;
        for rows in batch {
            let end = row + rows.tokens.len();
            let wanted = match rows.wanted {
                Wanted::None => end..end,
                Wanted::Last => end - 1..end,
                Wanted::All => row..end,
            };
            b.delta.extend_from_slice(&b.x[wanted.start * width..wanted.end * width]);
            row = end;
        }
        b.logits.resize(b.delta.len() / width * vocab, 0.0);
        if b.logits.is_empty() {
            return;
        }
        b.normed.resize(b.delta.len(), 0.0);
        let gain = &model.weights().output_gain;
        pointwise::rms_norm(*arithmetic, &b.delta, gain, model.shape().epsilon, &mut b.normed);
        b.input.fill(*arithmetic, width, &b.normed);
        let product = Product { weights: model.weights().output.view(model.file()), out: &mut b.logits };
        multiply(*arithmetic, pool, &b.input, &mut [product]);
    }
}

impl Buffers {
    fn resize(&mut self, shape: &Shape, rows: usize) {
        let (q, kv) = (shape.heads * shape.head_dim, shape.heads_kv * shape.head_dim);
        let sizes = [
            (&mut self.x, shape.width),
            (&mut self.normed, shape.width),
            (&mut self.delta, shape.width),
            (&mut self.q, q),
            (&mut self.attended, q),
            (&mut self.k, kv),
            (&mut self.v, kv),
            (&mut self.gate, shape.hidden),
            (&mut self.up, shape.hidden),
        ];
        for (buffer, width) in sizes {
            buffer.resize(rows * width, 0.0);
        }
    }

    /// The rotations of all rows: angle = position * frequency, in f64, for positions far out.
    fn place(&mut self, shape: &Shape, batch: &[Rows<'_>]) {
        self.cos.clear();
        self.sin.clear();
        for rows in batch {
            for position in rows.kv.len()..rows.kv.len() + rows.tokens.len() {
                for frequency in &shape.frequencies {
                    let (sin, cos) = (position as f64 * frequency).sin_cos();
                    self.cos.push(cos as f32);
                    self.sin.push(sin as f32);
                }
            }
        }
    }

    fn rotate(&mut self, shape: &Shape) {
        let pairs = shape.frequencies.len();
        for (heads, x) in [(shape.heads, &mut self.q), (shape.heads_kv, &mut self.k)] {
            let rotations = self.cos.chunks_exact(pairs).zip(self.sin.chunks_exact(pairs));
            for (row, (cos, sin)) in x.chunks_exact_mut(heads * shape.head_dim).zip(rotations) {
                pointwise::rope(row, shape.head_dim, cos, sin);
            }
        }
    }

    /// Writes the rows' keys and values to their sequences' caches.
    fn store(&self, arithmetic: Arithmetic, shape: &Shape, layer: usize, batch: &mut [Rows<'_>]) {
        let width = shape.heads_kv * shape.head_dim;
        let mut rows_kv = self.k.chunks_exact(width).zip(self.v.chunks_exact(width));
        for rows in batch {
            let first = rows.kv.len();
            for (n, (k, v)) in rows_kv.by_ref().take(rows.tokens.len()).enumerate() {
                rows.kv.write(arithmetic, layer, first + n, k, v);
            }
        }
    }

    /// The rows' queries: for each sequence and key head, up to [`ROWS_TOGETHER`] rows each. A row attends to
    /// its own sequence up to its own position.
    fn queries<'a>(&'a mut self, shape: &Shape, layer: usize, batch: &'a [Rows<'_>]) -> Vec<Query<'a>> {
        let group = shape.heads / shape.heads_kv * shape.head_dim;
        let mut parts = self.q.chunks_exact(group).zip(self.attended.chunks_exact_mut(group));
        let mut queries = Vec::new();
        for rows in batch {
            for first in (0..rows.tokens.len()).step_by(ROWS_TOGETHER) {
                let count = ROWS_TOGETHER.min(rows.tokens.len() - first);
                let heads = queries.len()..queries.len() + shape.heads_kv;
                for head in 0..shape.heads_kv {
                    let cache = rows.kv.view(layer, head);
                    queries.push(Query { rows: Vec::with_capacity(count), cache });
                }
                for n in first..first + count {
                    // A row's parts are its heads, in order.
                    for (query, (q, out)) in queries[heads.clone()].iter_mut().zip(parts.by_ref()) {
                        query.rows.push(QueryRow { q, len: rows.kv.len() + n + 1, out });
                    }
                }
            }
        }
        queries
    }
}
