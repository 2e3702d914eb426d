//! Built-in inference: GGUF models on the CPU.
//!
//! [`Model`] is a file, mapped and checked; [`Engine`] is a thread that serves sequences on it, all of them
//! in every step. Nothing here knows of jobs, HTTP or storage, and nothing trusts the model's file.

mod detokenize;
mod engine;
mod error;
mod fingerprint;
mod forward;
pub mod gguf;
mod kv;
mod llama;
mod model;
mod perplexity;
mod sampling;
mod sequence;
mod template;
mod tokenizer;

pub use detokenize::{Detokenizer, StopMatcher};
pub use engine::{Engine, EngineCounters, EngineOptions, Numerics, SEQUENCES_MAX};
pub use error::{Fault, ModelError, PromptError};
pub use fingerprint::runtime_name;
pub use forward::{Forward, Rows, Wanted};
pub use kv::KvCache;
pub use model::{ChatMessage, Model, ModelFacts};
pub use perplexity::Running;
pub use sampling::{Sampler, Sampling};
pub use sequence::{Finish, Flow, IgnoreEos, Outcome, SequenceRequest, Sink};
pub use tokenizer::{SpecialTokens, TEXT_BYTES_MAX, Tokenizer};
