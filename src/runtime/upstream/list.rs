//! The list of a server's models.

use serde::Deserialize;

/// Bytes of a list that is read.
pub(super) const LIST_BYTES_MAX: usize = 4 << 20;
/// Models of a list that are looked at.
const LISTED_MAX: usize = 1_024;

/// A model as its server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name there.
    pub name: String,
    /// Tokens of prompt and answer together, where the server says so.
    pub context_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    data: Option<Vec<Model>>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    /// vLLM's and SGLang's.
    #[serde(default)]
    max_model_len: Option<u32>,
    /// OpenRouter's.
    #[serde(default)]
    context_length: Option<u32>,
    /// Another box of ours.
    #[serde(default)]
    context_window: Option<u32>,
    /// llama.cpp's.
    #[serde(default)]
    meta: Option<Meta>,
}

/// What a model was trained for, and what this server gives it.
#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    n_ctx: Option<u32>,
    #[serde(default)]
    n_ctx_train: Option<u32>,
}

/// Reads a list.
///
/// # Errors
/// When it is none.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Listed>, serde_json::Error> {
    let list: List = serde_json::from_slice(body)?;
    let models = list.data.unwrap_or_default().into_iter().take(LISTED_MAX);
    Ok(models
        .map(|model| Listed {
            context_tokens: model
                .max_model_len
                .or(model.context_length)
                .or(model.context_window)
                .or(model.meta.and_then(|meta| meta.n_ctx.or(meta.n_ctx_train)))
                .filter(|tokens| *tokens > 0),
            name: model.id,
        })
        .collect())
}
