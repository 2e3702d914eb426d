//! The typed form of an OpenAI request body: the edge where text from outside becomes values.
//!
//! `api/` uses it to validate and runtimes use it to run, so both see the same request. It never panics
//! on any input, never knows HTTP, and never accepts in silence what the executor wouldn't do: a parameter
//! that would change the answer and isn't supported is refused by name. Unknown fields are ignored. What goes to another
//! server is only outlined ([`outline`]): there everything passes that the server may take.

mod body;
mod chat;
mod objects;
mod outline;
mod scalar;
#[cfg(test)]
mod tests;
mod values;

use crate::coordinator::event::{Endpoint, Tier};
pub use outline::{Outline, determinism, model_named, outline};
pub(crate) use outline::{StreamOptions, even_null};

/// Most stop strings of a request.
pub const STOP_STRINGS_MAX: usize = 4;
/// Most pairs in `metadata`.
pub const METADATA_PAIRS_MAX: usize = 16;
/// Longest key in `metadata`.
pub const METADATA_KEY_CHARS_MAX: usize = 64;
/// Longest value in `metadata`.
pub const METADATA_VALUE_CHARS_MAX: usize = 512;

/// A request that was understood whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What it was asked on.
    pub endpoint: Endpoint,
    /// The model's name as the client wrote it.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// Whether tokens are sent as they come.
    pub stream: StreamMode,
    /// Whether a stream ends with a chunk of usage (never set without a stream).
    pub include_usage: bool,
    /// Most tokens to generate; `None` leaves it to the model's default.
    pub max_tokens: Option<u32>,
    /// Sampling temperature, 0 to 2.
    pub temperature: f32,
    /// Nucleus, above 0 and up to 1.
    pub top_p: f32,
    /// Seed of the sampler.
    pub seed: Option<u64>,
    /// Strings that end the answer: at most four, none empty.
    pub stop: Vec<String>,
    /// Priority, from `service_tier`.
    pub tier: Tier,
    /// Always 0 for now: other values are refused until the executor applies them.
    pub frequency_penalty: f32,
    /// Always 0 for now: other values are refused until the executor applies them.
    pub presence_penalty: f32,
}

/// What the model continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A conversation, at least one message.
    Chat(Vec<Message>),
    /// Plain text.
    Text(String),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What, with the text parts of an array joined.
    pub content: String,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions (`developer` is the newer name of the same).
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates know.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMode {
    /// At once, when it is whole.
    Whole,
    /// As server-sent events while it grows.
    Events,
}

/// Why a body was refused: what was wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// For the person who wrote the client.
    pub message: String,
    /// The field, as a path like `messages[0].content`; `None` when the body as a whole is wrong.
    pub param: Option<String>,
    /// A word for programs: `invalid_json`, `missing_required_parameter`, `invalid_type`, `invalid_value`,
    /// `unsupported_parameter` or `unsupported_value`.
    pub code: &'static str,
}

impl RequestError {
    fn new(code: &'static str, param: impl Into<String>, message: String) -> Self {
        Self { message, param: Some(param.into()), code }
    }

    /// A value of the wrong JSON type.
    fn wrong_type(param: &str, expected: &str, found: &str) -> Self {
        Self::new("invalid_type", param, format!("`{param}` must be {expected}, but it is {found}."))
    }

    /// A value of the right type that is out of bounds or makes no sense.
    fn invalid(param: &str, expected: &str, found: &str) -> Self {
        Self::new("invalid_value", param, format!("`{param}` must be {expected}, but it is {found}."))
    }

    /// A field that must be there.
    fn missing(param: &str) -> Self {
        let message = format!("`{param}` is required and was not given.");
        Self::new("missing_required_parameter", param, message)
    }

    /// A parameter that isn't supported at all.
    fn unsupported_parameter(param: &str) -> Self {
        let message = format!("`{param}` is not supported by this server: leave it out.");
        Self::new("unsupported_parameter", param, message)
    }

    /// A parameter that is supported only with other values.
    fn unsupported_value(param: &str, found: &str, supported: &str) -> Self {
        let message = format!("`{param}` is {found}, which is not supported: use {supported}.");
        Self::new("unsupported_value", param, message)
    }

    fn json(message: String) -> Self {
        Self { message, param: None, code: "invalid_json" }
    }
}

/// Understands a body, or says what is wrong with it.
pub fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Request, RequestError> {
    body::read(endpoint, text_of(body)?)?.into_request(endpoint)
}

fn text_of(body: &[u8]) -> Result<&str, RequestError> {
    std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        RequestError::json(format!(
            "The body is not valid UTF-8: the byte at offset {at} doesn't belong to a character."
        ))
    })
}

/// Whether a body that was understood says `"store": false`: its prompt is to be kept no longer than it is needed.
pub fn forbids_storing(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Store {
        store: Option<bool>,
    }
    serde_json::from_slice::<Store>(body).is_ok_and(|body| body.store == Some(false))
}

/// The name under which a tier is reported to clients (`fast` is reported as `priority`).
pub fn service_tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Realtime => "priority",
        Tier::Standard => "default",
        Tier::Batch | Tier::Background => "flex",
    }
}
