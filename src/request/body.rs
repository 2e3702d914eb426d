//! The fields of a body: one pass over the JSON into a [`Body`], then the rules that tie fields together.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::chat::Messages;
use super::objects::Object;
use super::scalar::{Key, Scalar, ScalarSeed, Shape, Skip, Slot, Texts, TextsShape};
use super::values::{boolean, is_text, model, number, prompt, seed, stop, tier, token_count, unsupported};
use super::{Message, Prompt, Request, RequestError, StreamMode};
use crate::coordinator::event::{Endpoint, Tier};

/// Names every field that is looked at; all others are ignored.
macro_rules! fields {
    ($($variant:ident = $name:literal),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($variant),* }
        impl Field {
            fn named(name: &str) -> Option<Field> {
                match name { $($name => Some(Field::$variant),)* _ => None }
            }
            pub(super) fn name(self) -> &'static str {
                match self { $(Field::$variant => $name),* }
            }
        }
    };
}

fields! {
    Messages = "messages", Prompt = "prompt", Model = "model", Stream = "stream",
    StreamOptions = "stream_options", MaxTokens = "max_tokens", MaxCompletionTokens = "max_completion_tokens",
    Temperature = "temperature", TopP = "top_p", N = "n", BestOf = "best_of", Stop = "stop", Seed = "seed",
    ServiceTier = "service_tier", Metadata = "metadata", FrequencyPenalty = "frequency_penalty",
    PresencePenalty = "presence_penalty", ResponseFormat = "response_format", Modalities = "modalities",
    LogitBias = "logit_bias", Logprobs = "logprobs", TopLogprobs = "top_logprobs", Echo = "echo",
    Suffix = "suffix", Tools = "tools", ToolChoice = "tool_choice", Functions = "functions",
    FunctionCall = "function_call", Audio = "audio", WebSearchOptions = "web_search_options",
    Store = "store",
}

/// What the body said, field by field.
#[derive(Default)]
pub(super) struct Body {
    seen: u64,
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    model: Option<String>,
    stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    stop: Vec<String>,
    tier: Option<Tier>,
}

/// What `stream_options` said.
#[derive(Default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

/// Reads a body of one endpoint: what belongs to the other endpoint is ignored like any unknown field.
pub(super) fn read(endpoint: Endpoint, text: &str) -> Result<Body, RequestError> {
    let slot = Slot::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let result =
        BodySeed { endpoint, slot: &slot }.deserialize(&mut json).and_then(|body| json.end().map(|()| body));
    result.map_err(|error| {
        let syntax = || RequestError::json(format!("The body is not a valid JSON object: {error}."));
        slot.into_error().unwrap_or_else(syntax)
    })
}

impl Body {
    /// Applies the rules that concern several fields, and the defaults.
    pub(super) fn into_request(self, endpoint: Endpoint) -> Result<Request, RequestError> {
        let model = self.model.ok_or_else(|| RequestError::missing("model"))?;
        let prompt = match endpoint {
            Endpoint::ChatCompletions => self.messages.map(Prompt::Chat).ok_or("messages"),
            Endpoint::Completions => self.prompt.map(Prompt::Text).ok_or("prompt"),
        };
        let prompt = prompt.map_err(RequestError::missing)?;
        let stream = if self.stream == Some(true) { StreamMode::Events } else { StreamMode::Whole };
        if self.stream_options.is_some() && stream == StreamMode::Whole {
            return Err(RequestError::invalid(
                "stream_options",
                "left out unless `stream` is true",
                "an object",
            ));
        }
        if let (Some(old), Some(new)) = (self.max_tokens, self.max_completion_tokens)
            && old != new
        {
            let expected = "left out, or equal to its newer name `max_completion_tokens`";
            return Err(RequestError::invalid("max_tokens", expected, &format!("{old} where that is {new}")));
        }
        Ok(Request {
            endpoint,
            model,
            prompt,
            stream,
            include_usage: self.stream_options.and_then(|options| options.include_usage).unwrap_or_default(),
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            seed: self.seed,
            stop: self.stop,
            tier: self.tier.unwrap_or(Tier::Standard),
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
        })
    }

    /// Takes a field that is a single value.
    fn scalar(&mut self, field: Field, value: Scalar<'_>) -> Result<(), RequestError> {
        let name = field.name();
        if value == Scalar::Null {
            return Ok(());
        }
        match field {
            Field::Model => self.model = Some(model(value)?),
            Field::Stream => self.stream = Some(boolean(name, &value)?),
            Field::MaxTokens => self.max_tokens = Some(token_count(name, &value)?),
            Field::MaxCompletionTokens => self.max_completion_tokens = Some(token_count(name, &value)?),
            Field::Temperature => {
                self.temperature = Some(number(name, &value, |t| (0.0..=2.0).contains(&t), "from 0 to 2")?);
            }
            Field::TopP => {
                self.top_p = Some(number(name, &value, |p| p > 0.0 && p <= 1.0, "above 0 and at most 1")?);
            }
            Field::Seed => self.seed = Some(seed(&value)?),
            Field::ServiceTier => self.tier = Some(tier(&value)?),
            // It changes what is kept, not what is answered: who keeps things asks `forbids_storing`.
            Field::Store => drop(boolean(name, &value)?),
            _ => unsupported(field, &value)?,
        }
        Ok(())
    }

    /// Takes a field that is a string or an array.
    fn texts(&mut self, field: Field, texts: Texts<'_>) -> Result<(), RequestError> {
        match (field, texts) {
            (_, Texts::One(Scalar::Null)) => {}
            (Field::Prompt, texts) => self.prompt = Some(prompt(texts)?),
            (Field::Stop, texts) => self.stop = stop(texts)?,
            (_, Texts::Many { first, len: 1 }) if first.first().is_some_and(|only| is_text(only, "text")) => {
            }
            (_, Texts::Many { .. }) => {
                return Err(RequestError::unsupported_value(field.name(), "not just text", "[\"text\"]"));
            }
            (_, Texts::One(other)) => {
                return Err(RequestError::wrong_type(field.name(), "an array of strings", &other.found()));
            }
        }
        Ok(())
    }

    /// Marks a field as seen; twice is refused, for the two could contradict each other.
    fn once(&mut self, field: Field) -> Result<(), RequestError> {
        let bit = 1_u64 << field as u32;
        if self.seen & bit != 0 {
            let name = field.name();
            return Err(RequestError::new(
                "invalid_value",
                name,
                format!("`{name}` is given more than once."),
            ));
        }
        self.seen |= bit;
        Ok(())
    }
}

struct BodySeed<'s> {
    endpoint: Endpoint,
    slot: &'s Slot,
}

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Body;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = Body;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Body, A::Error> {
        let slot = self.slot;
        let mut body = Body::default();
        while let Some(field) = fields.next_key_seed(Key(Field::named))? {
            let Some(field) = field.filter(|field| belongs(*field, self.endpoint)) else {
                fields.next_value_seed(Skip)?;
                continue;
            };
            body.once(field).map_err(|error| slot.refuse(error))?;
            let taken = match field {
                Field::Messages => {
                    body.messages = fields.next_value_seed(Shape(Messages { slot }))?;
                    Ok(())
                }
                Field::Prompt | Field::Stop | Field::Modalities => {
                    body.texts(field, fields.next_value_seed(Shape(TextsShape))?)
                }
                Field::StreamOptions | Field::Metadata | Field::ResponseFormat => {
                    fields.next_value_seed(Shape(Object { field, body: &mut body, slot }))?;
                    Ok(())
                }
                _ => body.scalar(field, fields.next_value_seed(ScalarSeed)?),
            };
            taken.map_err(|error| slot.refuse(error))?;
        }
        Ok(body)
    }
}

fn belongs(field: Field, endpoint: Endpoint) -> bool {
    match field {
        Field::Messages | Field::ResponseFormat | Field::Modalities | Field::Audio => {
            endpoint == Endpoint::ChatCompletions
        }
        Field::Prompt | Field::BestOf | Field::Echo | Field::Suffix => endpoint == Endpoint::Completions,
        _ => true,
    }
}
