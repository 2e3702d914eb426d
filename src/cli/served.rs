//! The flags that say what is served, of `serve` and of `agent` alike.

use clap::Args;

use crate::config::ServedFlags;

/// What to serve.
#[derive(Debug, Args)]
pub(super) struct ServedArgs {
    /// What to serve: NAME=PATH.gguf; NAME=openai:URL[#NAME-THERE], a model of another OpenAI-compatible server; or
    /// NAME=echo:[MS] which answers with the prompt, a word each MS milliseconds. Repeat for more; replaces the file's
    /// model of the same name
    #[arg(long = "model", value_name = "NAME=SPEC")]
    models: Vec<String>,
    /// Serve all models that an OpenAI-compatible server (vLLM, llama.cpp, Ollama, ...) lists, under its names for them.
    /// Repeat for more
    #[arg(long = "upstream", value_name = "URL")]
    upstreams: Vec<String>,
    /// The environment variable that has the key of the server that the flags name
    #[arg(long, value_name = "VAR")]
    upstream_key_env: Option<String>,
    /// Jobs that run at once, of every model [default: 4, of another server's 16, of an echo 64]
    #[arg(long, value_name = "N")]
    slots: Option<String>,
}

impl ServedArgs {
    /// As the configuration takes them.
    pub(super) fn into_flags(self) -> ServedFlags {
        ServedFlags {
            models: self.models,
            upstreams: self.upstreams,
            slots: self.slots,
            upstream_key_env: self.upstream_key_env,
        }
    }
}
