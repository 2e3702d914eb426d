//! The dense `llama` architecture: its numbers, checked, and its weights, found. No arithmetic.

use std::collections::BTreeSet;
use std::ops::Range;

use switchbox_kernels::attention::HEAD_DIM_MAX;
use switchbox_kernels::{Matrix, WeightType, reference};

use super::error::Fault;
use super::gguf::{Directory, Tensor};

const LAYERS_MAX: u64 = 512;
const WIDTH_MAX: u64 = 1 << 20;
const CONTEXT_MAX: u64 = 1 << 24;

/// The numbers of a dense llama.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward layer.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub heads_kv: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Added to the mean square in normalisation.
    pub epsilon: f32,
    /// Radians per position for each rotated pair.
    pub frequencies: Vec<f64>,
}

/// A weight matrix in the file: `[rows, cols]`.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    kind: WeightType,
    rows: usize,
    cols: usize,
    bytes: Range<usize>,
}

impl Weight {
    /// The matrix in `file`.
    pub(crate) fn view<'a>(&self, file: &'a [u8]) -> Matrix<'a> {
        Matrix::new(self.kind, self.rows, self.cols, &file[self.bytes.clone()])
            .expect("the directory computed the bytes from this shape")
    }
}

/// The weights of one transformer block. Gains are `[width]`, copied; matrices stay in the file.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_gain: Vec<f32>,
    pub(crate) q: Weight,
    pub(crate) k: Weight,
    pub(crate) v: Weight,
    pub(crate) o: Weight,
    pub(crate) hidden_gain: Vec<f32>,
    pub(crate) gate: Weight,
    pub(crate) up: Weight,
    pub(crate) down: Weight,
}

/// All weights.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Weight,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_gain: Vec<f32>,
    pub(crate) output: Weight,
}

/// Reads numbers and finds weights; see [`Shape`].
///
/// # Errors
/// A fault for a number that is absent, absurd or contradicts a tensor; for a tensor that is absent or of
/// another shape; and for a tensor that a dense llama does not have, since ignoring it would compute
/// something else than the model.
pub(crate) fn load(directory: &Directory, file: &[u8]) -> Result<(Shape, Weights), Fault> {
    let mut shape = shape(directory, file)?;
    let mut finder = Finder { directory, file, used: BTreeSet::new() };
    let embedding = finder.table("token_embd.weight", shape.width)?;
    shape.vocab = embedding.rows;
    let layers = (0..shape.layers).map(|n| finder.layer(n, &shape)).collect::<Result<Vec<_>, _>>()?;
    let output_gain = finder.gain("output_norm.weight", shape.width)?;
    let output = match finder.directory.tensors.contains_key("output.weight") {
        true => finder.matrix("output.weight", shape.vocab, shape.width)?,
        // A tied head: the embedding serves both ends.
        false => embedding.clone(),
    };
    if directory.tensors.contains_key("rope_freqs.weight") {
        let factors = finder.gain("rope_freqs.weight", shape.frequencies.len())?;
        for (frequency, factor) in shape.frequencies.iter_mut().zip(factors) {
            if !(factor.is_finite() && factor > 0.0) {
                return Err(Fault::malformed(
                    "tensor rope_freqs.weight",
                    format!("holds the factor {factor}"),
                ));
            }
            *frequency /= f64::from(factor);
        }
    }
    finder.refuse_unused()?;
    Ok((shape, Weights { embedding, layers, output_gain, output }))
}

fn shape(directory: &Directory, file: &[u8]) -> Result<Shape, Fault> {
    refuse_variants(directory, file)?;
    let layers = number(directory, "llama.block_count", None, 1..=LAYERS_MAX)?;
    let width = number(directory, "llama.embedding_length", None, 1..=WIDTH_MAX)?;
    let hidden = number(directory, "llama.feed_forward_length", None, 1..=WIDTH_MAX)?;
    let heads = number(directory, "llama.attention.head_count", None, 1..=WIDTH_MAX)?;
    let heads_kv = number(directory, "llama.attention.head_count_kv", Some(heads), 1..=WIDTH_MAX)?;
    let context = number(directory, "llama.context_length", None, 1..=CONTEXT_MAX)?;
    if !heads.is_multiple_of(heads_kv) {
        let problem = format!("{heads} query heads are not shared evenly by {heads_kv}");
        return Err(Fault::malformed("field llama.attention.head_count_kv", problem));
    }
    let per_head = width.is_multiple_of(heads).then_some(width / heads);
    let head_dim = number(directory, "llama.attention.key_length", per_head, 1..=HEAD_DIM_MAX as u64)?;
    let value_dim = number(directory, "llama.attention.value_length", Some(head_dim), 1..=WIDTH_MAX)?;
    if value_dim != head_dim {
        let problem = format!("values of {value_dim} beside keys of {head_dim}");
        let remedy = "only equal lengths are built in: use another model";
        return Err(Fault::unsupported("field llama.attention.value_length", problem, remedy));
    }
    let rotated = number(directory, "llama.rope.dimension_count", Some(head_dim), 2..=head_dim as u64)?;
    if !rotated.is_multiple_of(2) {
        return Err(Fault::malformed("field llama.rope.dimension_count", format!("{rotated} is odd")));
    }
    let epsilon = real(directory, "llama.attention.layer_norm_rms_epsilon", None, 0.0..1.0)?;
    let base = real(directory, "llama.rope.freq_base", Some(10_000.0), 1.0..1e12)?;
    let stretch = real(directory, "llama.rope.scaling.factor", Some(1.0), 1e-3..1e6)?;
    let frequency = |pair: usize| base.powf(-2.0 * pair as f64 / rotated as f64) / stretch;
    let frequencies = (0..rotated / 2).map(frequency).collect();
    let epsilon = epsilon as f32;
    Ok(Shape { layers, width, hidden, heads, heads_kv, head_dim, vocab: 0, context, epsilon, frequencies })
}

/// Refuses what looks like a dense llama and computes something else.
fn refuse_variants(directory: &Directory, file: &[u8]) -> Result<(), Fault> {
    let place = "field general.architecture";
    match directory.string(file, "general.architecture")? {
        Some("llama") => {}
        Some(other) => {
            let problem = format!("architecture {}", other.escape_debug());
            return Err(Fault::unsupported(place, problem, "use a model of architecture llama"));
        }
        None => return Err(Fault::malformed(place, "is absent")),
    }
    if directory.unsigned("llama.expert_count")?.unwrap_or(0) > 0 {
        let problem = "a mixture of experts";
        return Err(Fault::unsupported("field llama.expert_count", problem, "use a dense model"));
    }
    match directory.string(file, "llama.rope.scaling.type")? {
        None | Some("none" | "linear") => Ok(()),
        Some(other) => Err(Fault::unsupported(
            "field llama.rope.scaling.type",
            format!("scaling {}", other.escape_debug()),
            "use a file with scaling none or linear, or with rope_freqs.weight",
        )),
    }
}

fn number(
    directory: &Directory,
    name: &str,
    default: Option<usize>,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<usize, Fault> {
    let place = || format!("field {name}");
    let value = directory.unsigned(name)?.or(default.map(|n| n as u64));
    let value = value.ok_or_else(|| Fault::malformed(place(), "is absent"))?;
    if !allowed.contains(&value) {
        let problem = format!("{value} is not within {} to {}", allowed.start(), allowed.end());
        return Err(Fault::malformed(place(), problem));
    }
    usize::try_from(value).map_err(|_| Fault::malformed(place(), "is beyond this machine's word"))
}

fn real(directory: &Directory, name: &str, default: Option<f64>, allowed: Range<f64>) -> Result<f64, Fault> {
    let place = || format!("field {name}");
    let value = directory.float(name)?.or(default);
    let value = value.ok_or_else(|| Fault::malformed(place(), "is absent"))?;
    if !allowed.contains(&value) {
        let problem = format!("{value} is not within {} to {}", allowed.start, allowed.end);
        return Err(Fault::malformed(place(), problem));
    }
    Ok(value)
}

/// Finds tensors by name and shape, and remembers which ones it found.
struct Finder<'a> {
    directory: &'a Directory,
    file: &'a [u8],
    used: BTreeSet<String>,
}

impl Finder<'_> {
    fn tensor(&mut self, name: &str) -> Result<&Tensor, Fault> {
        self.used.insert(name.to_owned());
        let tensor = self.directory.tensors.get(name);
        tensor.ok_or_else(|| Fault::malformed(format!("tensor {name}"), "is absent"))
    }

    /// A matrix of any number of rows.
    fn table(&mut self, name: &str, cols: usize) -> Result<Weight, Fault> {
        let tensor = self.tensor(name)?;
        match tensor.dims[..] {
            [c, rows] if c == cols => {
                Ok(Weight { kind: tensor.kind, rows, cols, bytes: tensor.bytes.clone() })
            }
            _ => Err(Fault::malformed(
                format!("tensor {name}"),
                format!("has dimensions {:?} where rows of {cols} are expected", tensor.dims),
            )),
        }
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight, Fault> {
        let weight = self.table(name, cols)?;
        if weight.rows != rows {
            let problem = format!("has dimensions [{cols}, {}], expected [{cols}, {rows}]", weight.rows);
            return Err(Fault::malformed(format!("tensor {name}"), problem));
        }
        Ok(weight)
    }

    fn gain(&mut self, name: &str, length: usize) -> Result<Vec<f32>, Fault> {
        let file = self.file;
        let tensor = self.tensor(name)?;
        if tensor.dims != [length] {
            let problem = format!("has dimensions {:?}, expected [{length}]", tensor.dims);
            return Err(Fault::malformed(format!("tensor {name}"), problem));
        }
        let mut gain = vec![0.0; length];
        reference::dequantise(tensor.kind, &file[tensor.bytes.clone()], &mut gain);
        Ok(gain)
    }

    fn layer(&mut self, n: usize, shape: &Shape) -> Result<Layer, Fault> {
        let name = |part: &str| format!("blk.{n}.{part}.weight");
        let (q_rows, kv_rows) = (shape.heads * shape.head_dim, shape.heads_kv * shape.head_dim);
        Ok(Layer {
            attention_gain: self.gain(&name("attn_norm"), shape.width)?,
            q: self.matrix(&name("attn_q"), q_rows, shape.width)?,
            k: self.matrix(&name("attn_k"), kv_rows, shape.width)?,
            v: self.matrix(&name("attn_v"), kv_rows, shape.width)?,
            o: self.matrix(&name("attn_output"), shape.width, q_rows)?,
            hidden_gain: self.gain(&name("ffn_norm"), shape.width)?,
            gate: self.matrix(&name("ffn_gate"), shape.hidden, shape.width)?,
            up: self.matrix(&name("ffn_up"), shape.hidden, shape.width)?,
            down: self.matrix(&name("ffn_down"), shape.width, shape.hidden)?,
        })
    }

    fn refuse_unused(&self) -> Result<(), Fault> {
        let unused = self.directory.tensors.keys().find(|name| !self.used.contains(*name));
        unused.map_or(Ok(()), |name| {
            Err(Fault::unsupported(
                format!("tensor {name}"),
                "is not part of a dense llama, and leaving it out would compute another model",
                "use a plain llama model",
            ))
        })
    }
}
