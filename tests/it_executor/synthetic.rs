//! A tiny llama, written here: two layers, random weights of any type, a vocabulary of bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use half::{bf16, f16};
use switchbox::executor::{Model, ModelError};
use switchbox_kernels::WeightType;

pub(crate) const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + \
     message.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' \
     }}{% endif %}";

/// A value of a field, with its type.
#[derive(Clone)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(u8),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    /// Type number and payload, for what no file should hold.
    Raw(u32, Vec<u8>),
}

#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) dims: Vec<u64>,
    /// Instead of the true place.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A file before it is written.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) version: u32,
    pub(crate) fields: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) field_count: Option<u64>,
    pub(crate) tensor_count: Option<u64>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let kind = |out: &mut Vec<u8>, n: u32| out.extend(n.to_le_bytes());
        let array = |out: &mut Vec<u8>, n: u32, len: usize| {
            kind(out, 9);
            kind(out, n);
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Value::U32(n) => {
                kind(out, 4);
                out.extend(n.to_le_bytes());
            }
            Value::F32(x) => {
                kind(out, 6);
                out.extend(x.to_le_bytes());
            }
            Value::Bool(b) => {
                kind(out, 7);
                out.push(*b);
            }
            Value::Text(t) => {
                kind(out, 8);
                text(out, t);
            }
            Value::Texts(texts) => {
                array(out, 8, texts.len());
                texts.iter().for_each(|t| text(out, t));
            }
            Value::I32s(numbers) => {
                array(out, 5, numbers.len());
                numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
            Value::Raw(n, bytes) => {
                kind(out, *n);
                out.extend(bytes);
            }
        }
    }
}

impl File {
    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.field_count.unwrap_or(self.fields.len() as u64).to_le_bytes());
        for (name, value) in &self.fields {
            text(&mut out, name);
            value.write(&mut out);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(32), 0);
            text(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.remove(name);
        self.fields.push((name.to_owned(), value));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.fields.retain(|(n, _)| n != name);
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap()
    }

    pub(crate) fn open(&self) -> Result<Arc<Model>, ModelError> {
        open(&self.bytes())
    }
}

/// Opens `bytes` as a model, by way of a file that is gone afterwards (its mapping stays).
pub(crate) fn open(bytes: &[u8]) -> Result<Arc<Model>, ModelError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("switchbox-{}-{}.gguf", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).unwrap();
    let model = Model::open(&path);
    std::fs::remove_file(&path).unwrap();
    model.map(Arc::new)
}

/// The characters that byte-level BPE writes the 256 bytes as, in the bytes' order.
fn byte_characters() -> Vec<char> {
    let mut next = 0x100;
    let mut character = |byte: u32| {
        let is_itself = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        next += u32::from(!is_itself);
        char::from_u32(if is_itself { byte } else { next - 1 }).unwrap()
    };
    (0..256).map(&mut character).collect()
}

fn vocabulary() -> (Vec<String>, Vec<i32>, Vec<String>) {
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec();
    tokens.extend(byte_characters().iter().map(char::to_string));
    tokens.extend(["th", "the", "Ġthe", "in", "er"].map(str::to_owned));
    let merges = ["t h", "th e", "Ġ the", "i n", "e r"].map(str::to_owned).to_vec();
    let types = (0..tokens.len()).map(|n| if n < 3 { 3 } else { 1 }).collect();
    (tokens, types, merges)
}

/// Numbers from a fixed sequence, in [-1, 1).
pub(crate) fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn weights(kind: WeightType, count: u64, next: &mut impl FnMut() -> f32) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count as usize / kind.block_weights() {
        match kind {
            WeightType::F32 => out.extend((next() * 0.2).to_le_bytes()),
            WeightType::F16 => out.extend(f16::from_f32(next() * 0.2).to_le_bytes()),
            WeightType::Bf16 => out.extend(bf16::from_f32(next() * 0.2).to_le_bytes()),
            WeightType::Q8_0 => {
                out.extend(f16::from_f32(0.0015).to_le_bytes());
                out.extend((0..32).map(|_| (next() * 127.0) as i8 as u8));
            }
            WeightType::Q4_0 | WeightType::Q4_1 => {
                out.extend(f16::from_f32(0.025).to_le_bytes());
                if kind == WeightType::Q4_1 {
                    out.extend(f16::from_f32(-0.19).to_le_bytes());
                }
                out.extend((0..16).map(|_| (next() * 127.0) as i8 as u8));
            }
        }
    }
    out
}

fn number(kind: WeightType) -> u32 {
    match kind {
        WeightType::F32 => 0,
        WeightType::F16 => 1,
        WeightType::Bf16 => 30,
        WeightType::Q8_0 => 8,
        WeightType::Q4_0 => 2,
        WeightType::Q4_1 => 3,
    }
}

pub(crate) const WIDTH: u64 = 64;
const HIDDEN: u64 = 96;
const KV: u64 = 32;

/// A whole file with matrices of `kind`.
pub(crate) fn file(kind: WeightType) -> File {
    let (tokens, types, merges) = vocabulary();
    let vocab = tokens.len() as u64;
    let fields = [
        ("general.architecture", Value::Text("llama".to_owned())),
        ("general.name", Value::Text("tiny".to_owned())),
        ("llama.block_count", Value::U32(2)),
        ("llama.context_length", Value::U32(512)),
        ("llama.embedding_length", Value::U32(WIDTH as u32)),
        ("llama.feed_forward_length", Value::U32(HIDDEN as u32)),
        ("llama.attention.head_count", Value::U32(4)),
        ("llama.attention.head_count_kv", Value::U32(2)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("tokenizer.ggml.model", Value::Text("gpt2".to_owned())),
        ("tokenizer.ggml.pre", Value::Text("smollm".to_owned())),
        ("tokenizer.ggml.tokens", Value::Texts(tokens)),
        ("tokenizer.ggml.token_type", Value::I32s(types)),
        ("tokenizer.ggml.merges", Value::Texts(merges)),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(0)),
        ("tokenizer.chat_template", Value::Text(TEMPLATE.to_owned())),
    ];
    let mut next = noise(number(kind).into());
    let mut tensors = Vec::new();
    let mut add = |name: String, dims: &[u64]| {
        let kind = if dims.len() == 1 { WeightType::F32 } else { kind };
        let data = match dims {
            [n] => (0..*n).flat_map(|_| 1f32.to_le_bytes()).collect(),
            _ => weights(kind, dims.iter().product(), &mut next),
        };
        tensors.push(Tensor { name, kind: number(kind), dims: dims.to_vec(), offset: None, data });
    };
    add("token_embd.weight".to_owned(), &[WIDTH, vocab]);
    for n in 0..2 {
        for (part, dims) in [
            ("attn_norm", &[WIDTH][..]),
            ("attn_q", &[WIDTH, WIDTH]),
            ("attn_k", &[WIDTH, KV]),
            ("attn_v", &[WIDTH, KV]),
            ("attn_output", &[WIDTH, WIDTH]),
            ("ffn_norm", &[WIDTH]),
            ("ffn_gate", &[WIDTH, HIDDEN]),
            ("ffn_up", &[WIDTH, HIDDEN]),
            ("ffn_down", &[HIDDEN, WIDTH]),
        ] {
            add(format!("blk.{n}.{part}.weight"), dims);
        }
    }
    add("output_norm.weight".to_owned(), &[WIDTH]);
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    File { version: 3, fields, tensors, field_count: None, tensor_count: None }
}

/// A model with matrices of `kind`.
pub(crate) fn model(kind: WeightType) -> Arc<Model> {
    file(kind).open().unwrap()
}
