//! What this box must know of a request whose model another server has: which model, how the answer is given, how long
//! it may get. All else is that server's to take or to refuse, known here or not.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::scalar::{Scalar, ScalarSeed};
use super::values::{boolean, model, tier};
use super::{RequestError, StreamMode};
use crate::coordinator::event::{Determinism, Endpoint, Tier};

/// Bytes that a generated token may have in an answer that may be more than text: around each piece of reasoning or of a
/// call there is a JSON object.
const BYTES_PER_DELTA: u32 = 256;
/// Bytes of one token with its probability.
const BYTES_PER_LOGPROB: u32 = 128;
/// Probabilities of a token that are reckoned with.
const TOP_LOGPROBS_MAX: u32 = 32;

/// A request as far as it concerns this box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The model's name as the client wrote it.
    pub model: String,
    /// Whether tokens are sent as they come.
    pub stream: StreamMode,
    /// Whether a stream ends with a chunk of usage (never set without a stream).
    pub include_usage: bool,
    /// Most tokens to generate; `None` leaves it to the server.
    pub max_tokens: Option<u32>,
    /// Priority, from `service_tier`.
    pub tier: Tier,
    /// Messages; 1 where the endpoint has none.
    pub messages: u32,
    /// Bytes of output that a token may have.
    pub bytes_per_token: u32,
    /// Whether it allows one answer only.
    pub determinism: Determinism,
}

/// Members that are looked at. One that is there twice is refused: which of the two counts there, nobody here knows.
#[derive(Deserialize)]
struct Members<'b> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    model: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    stream: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    stream_options: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    max_tokens: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    max_completion_tokens: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    n: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    service_tier: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    messages: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    prompt: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    logprobs: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    top_logprobs: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    temperature: Option<&'b RawValue>,
}

/// `stream_options` as they were written.
#[derive(Deserialize)]
pub(crate) struct StreamOptions<'b> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    pub(crate) include_usage: Option<&'b RawValue>,
}

/// A member that is there, if only as null: that is a member too, and isn't to be said once more.
pub(crate) fn even_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The model that a body names, if it names one: what is to be known before anybody can say how to read the rest.
pub fn model_named(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        model: String,
    }
    serde_json::from_slice::<Named>(body).ok().map(|body| body.model)
}

/// Understands as much of a body as this box must.
///
/// # Errors
/// Says what is wrong with that.
pub fn outline(endpoint: Endpoint, body: &[u8]) -> Result<Outline, RequestError> {
    let text = super::text_of(body)?;
    // An array would be read as the members in their order.
    if !text.trim_start().starts_with('{') {
        return Err(RequestError::json("The body is not a JSON object.".to_owned()));
    }
    let members: Members<'_> = serde_json::from_str(text)
        .map_err(|error| RequestError::json(format!("The body is not a valid JSON object: {error}.")))?;
    let stream = match members.stream.map(scalar) {
        None | Some(Scalar::Null) => StreamMode::Whole,
        Some(value) if boolean("stream", &value)? => StreamMode::Events,
        Some(_) => StreamMode::Whole,
    };
    one_choice(&members)?;
    Ok(Outline {
        model: model(scalar(members.model.ok_or_else(|| RequestError::missing("model"))?))?,
        stream,
        include_usage: include_usage(members.stream_options, stream)?,
        max_tokens: members.max_completion_tokens.and_then(count).or(members.max_tokens.and_then(count)),
        tier: match members.service_tier.map(scalar) {
            None | Some(Scalar::Null) => Tier::Standard,
            Some(value) => tier(&value)?,
        },
        messages: prompt(endpoint, &members)?,
        bytes_per_token: bytes_per_token(&members),
        determinism: match members.temperature.and_then(|value| value.get().parse().ok()) {
            Some(temperature) => determinism(temperature),
            None => Determinism::Sampled,
        },
    })
}

/// Whether a request of this temperature allows one answer only: without any, the likeliest token is always taken.
pub fn determinism(temperature: f32) -> Determinism {
    if temperature == 0.0 { Determinism::Exact } else { Determinism::Sampled }
}

/// A value as far as a message about it needs it. It was read as JSON before.
fn scalar(value: &RawValue) -> Scalar<'_> {
    use serde::de::DeserializeSeed;
    let mut json = serde_json::Deserializer::from_str(value.get());
    ScalarSeed.deserialize(&mut json).unwrap_or(Scalar::Object(0))
}

/// A number of tokens; what is none is the server's to refuse, or to have a meaning for.
fn count(value: &RawValue) -> Option<u32> {
    let count = scalar(value).as_integer().filter(|count| *count > 0)?;
    Some(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A job has one answer: more of them can't be carried.
fn one_choice(members: &Members<'_>) -> Result<(), RequestError> {
    match members.n.map(scalar) {
        None | Some(Scalar::Null) => Ok(()),
        Some(n) if n.as_integer() == Some(1) => Ok(()),
        Some(n) => {
            Err(RequestError::unsupported_value("n", &n.found(), "1, and ask again for another answer"))
        }
    }
}

fn include_usage(options: Option<&RawValue>, stream: StreamMode) -> Result<bool, RequestError> {
    let Some(options) = options.filter(|options| options.get() != "null") else { return Ok(false) };
    if stream == StreamMode::Whole {
        return Err(RequestError::invalid("stream_options", "left out unless `stream` is true", "an object"));
    }
    let parsed: Result<StreamOptions<'_>, _> = serde_json::from_str(options.get());
    let parsed = parsed.ok().filter(|_| options.get().starts_with('{'));
    let parsed = parsed
        .ok_or_else(|| RequestError::wrong_type("stream_options", "an object", &scalar(options).found()))?;
    match parsed.include_usage.map(scalar) {
        None | Some(Scalar::Null) => Ok(false),
        Some(value) => boolean("stream_options.include_usage", &value),
    }
}

/// How many messages there are; of plain completions, whether there is one prompt.
fn prompt(endpoint: Endpoint, members: &Members<'_>) -> Result<u32, RequestError> {
    let (name, value) = match endpoint {
        Endpoint::ChatCompletions => ("messages", members.messages),
        Endpoint::Completions => ("prompt", members.prompt),
    };
    let value = value.filter(|value| value.get() != "null").ok_or_else(|| RequestError::missing(name))?;
    match (endpoint, scalar(value)) {
        (Endpoint::ChatCompletions, Scalar::Array(0)) => {
            Err(RequestError::invalid(name, "at least one message", "an empty array"))
        }
        (Endpoint::ChatCompletions, Scalar::Array(messages)) => {
            Ok(u32::try_from(messages).unwrap_or(u32::MAX))
        }
        (Endpoint::ChatCompletions, other) => {
            Err(RequestError::wrong_type(name, "an array of messages", &other.found()))
        }
        (Endpoint::Completions, Scalar::Array(len)) => {
            let first = serde_json::from_str::<Vec<&RawValue>>(value.get()).ok();
            let is_tokens = first.and_then(|all| all.first().map(|first| scalar(first).as_f64().is_some()));
            if len == 1 || is_tokens == Some(true) {
                return Ok(1);
            }
            let found = format!("an array of {len} prompts");
            Err(RequestError::unsupported_value(name, &found, "one prompt per request"))
        }
        (Endpoint::Completions, _) => Ok(1),
    }
}

fn bytes_per_token(members: &Members<'_>) -> u32 {
    let number = |value: Option<&RawValue>| value.and_then(count).unwrap_or(0).min(TOP_LOGPROBS_MAX);
    // Chat asks with a truth value and a number beside it, plain completions with the number alone.
    let asked = members.logprobs.is_some_and(|value| !matches!(value.get(), "null" | "false"));
    let of_probabilities = match asked {
        true => (1 + number(members.logprobs).max(number(members.top_logprobs))) * BYTES_PER_LOGPROB,
        false => 0,
    };
    BYTES_PER_DELTA + of_probabilities
}
