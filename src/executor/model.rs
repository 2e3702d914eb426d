//! A model: one GGUF file, mapped and checked, with its tokenizer and chat template. Immutable once open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::error::{Fault, ModelError, PromptError};
use super::gguf::Directory;
use super::kv::KvCache;
use super::llama::{self, Shape, Weights};
use super::template::Template;
use super::tokenizer::{SpecialTokens, Tokenizer};

/// A model, ready to serve. Share it by `Arc`.
#[derive(Debug)]
pub struct Model {
    facts: ModelFacts,
    map: Mmap,
    shape: Shape,
    weights: Weights,
    tokenizer: Tokenizer,
    template: Option<Template>,
}

/// What a model says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// `general.name`, or the file's name without its ending.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Tokens a sequence may have, prompt and answer together.
    pub context_length: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Transformer blocks.
    pub layers: u32,
    /// Weights in all tensors.
    pub parameters: u64,
    /// Size of the file.
    pub file_bytes: u64,
    /// Types of the tensors by their bytes, largest first: `Q4_1 x210, Q8_0 x1, F32 x61`.
    pub quantisation: String,
    /// The file.
    pub path: PathBuf,
}

/// One message of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatMessage<'a> {
    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: &'a str,
    /// The text; never read as template or special tokens.
    pub content: &'a str,
}

impl Model {
    /// Opens, maps and checks a file. Weights are read from it when they are first used.
    ///
    /// The file must not be changed while the model lives: it is not copied, and a process that touches
    /// pages of a file that was cut short is killed by the system.
    ///
    /// # Errors
    /// [`ModelError`], which names the file, the place in it, and the remedy.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        let open = |source| ModelError::Open { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(open)?;
        // SAFETY: undefined only if someone changes the file meanwhile; documented above, as in every
        // program that maps its models.
        let map = unsafe { Mmap::map(&file) }.map_err(open)?;
        Model::parse(path, map).map_err(|fault| fault.in_file(path))
    }

    fn parse(path: &Path, map: Mmap) -> Result<Model, Fault> {
        let directory = Directory::parse(&map)?;
        let (shape, weights) = llama::load(&directory, &map)?;
        let tokenizer = Tokenizer::load(&directory, &map)?;
        if tokenizer.vocab() != shape.vocab {
            return Err(Fault::malformed(
                "field tokenizer.ggml.tokens",
                format!("has {} tokens, token_embd.weight has {} rows", tokenizer.vocab(), shape.vocab),
            ));
        }
        let template = directory.string(&map, "tokenizer.chat_template")?;
        let template = template.map(|source| Template::new(source, &tokenizer));
        let facts = facts(path, &map, &directory, &shape)?;
        Ok(Model { facts, map, shape, weights, tokenizer, template })
    }

    /// What the file says of itself.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Renders the chat template over `messages`, with the opening of the assistant's answer, and tokenizes
    /// it, with BOS if the file asks for it. Text of the messages never becomes a special token.
    ///
    /// # Errors
    /// [`PromptError`]: no template, a template that refuses or fails, text that is too long.
    pub fn encode_chat(&self, messages: &[ChatMessage<'_>]) -> Result<Vec<u32>, PromptError> {
        let template = self.template.as_ref();
        let template = template.ok_or_else(|| PromptError::NoTemplate { model: self.facts.name.clone() })?;
        let prompt = template.encode(messages, &self.tokenizer)?;
        Ok(self.tokenizer.with_bos(prompt))
    }

    /// Tokenizes plain text, with BOS if the file asks for it. Special tokens in it are plain text.
    ///
    /// # Errors
    /// [`PromptError`] for text that is too long or cannot be tokenized.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        Ok(self.tokenizer.with_bos(self.tokenizer.encode(text, SpecialTokens::Plain)?))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The numbers of the architecture.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// An empty cache for a sequence on this model.
    pub fn kv_cache(&self) -> KvCache {
        KvCache::new(&self.shape)
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The whole file's bytes.
    pub(crate) fn file(&self) -> &[u8] {
        &self.map
    }
}

fn facts(path: &Path, file: &[u8], directory: &Directory, shape: &Shape) -> Result<ModelFacts, Fault> {
    let mut parameters = 0u64;
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for tensor in directory.tensors.values() {
        parameters += tensor.dims.iter().map(|d| *d as u64).product::<u64>();
        let (bytes, count) = kinds.entry(tensor.kind.name()).or_default();
        *bytes += tensor.bytes.len();
        *count += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (bytes, _))| std::cmp::Reverse(*bytes));
    let quantisation = kinds.iter().map(|(name, (_, count))| format!("{name} x{count}"));
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(ModelFacts {
        name: directory.string(file, "general.name")?.map_or(stem, str::to_owned),
        architecture: directory.string(file, "general.architecture")?.unwrap_or_default().to_owned(),
        context_length: shape.context as u32,
        vocab: shape.vocab as u32,
        layers: shape.layers as u32,
        parameters,
        file_bytes: file.len() as u64,
        quantisation: quantisation.collect::<Vec<_>>().join(", "),
        path: path.to_owned(),
    })
}
