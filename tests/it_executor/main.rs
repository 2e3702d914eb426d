//! The executor from outside: goldens of llama.cpp on the real model, and the engine's promises.

#![expect(clippy::print_stdout, reason = "measured numbers are part of what these tests say")]

mod collect;
mod engine;
mod greedy;
mod hostile;
mod numerics;
mod perplexity;
mod prompts;
mod speed;
mod synthetic;
mod text;
mod tokenizer;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use switchbox::executor::Model;

/// The real model, opened once.
fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| Arc::new(Model::open(&model_path()).unwrap())))
}

fn model_path() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let default = cache.unwrap_or_default().join("switchbox/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("SWITCHBOX_MODEL").map_or(default, PathBuf::from);
    assert!(path.exists(), "no model at {}: run scripts/fetch-model", path.display());
    path
}

/// The bytes of a golden file.
fn golden(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}
