//! From a body to a job: parsed as its model's runtime wants it, its tokens counted, and bounded.

use std::sync::Arc;

use hyper::header::HeaderMap;

use super::headers;
use crate::api::Context;
use crate::api::auth::Principal;
use crate::api::body::ReadBody;
use crate::api::error::ApiError;
use crate::budget::Share;
use crate::coordinator::event::{Endpoint, InputCount, JobSpec, Mode, Storing, Tier};
use crate::coordinator::integrity::TEMPLATE_TOKENS_PER_MESSAGE;
use crate::coordinator::limits::BYTES_PER_TOKEN_MAX;
use crate::ids::ModelName;
use crate::request::{self, Outline, StreamMode};
use crate::runtime::{Counting, Entry};

/// Whether a stream ends with a chunk of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum UsageChunk {
    Asked,
    NotAsked,
}

/// A request that fits its model.
pub(in crate::api) struct Prepared {
    pub(in crate::api) model: ModelName,
    pub(super) stream: StreamMode,
    pub(super) usage: UsageChunk,
    pub(super) tier: Tier,
    /// Tokens of prompt and answer together; `None` where nobody here knows.
    pub(super) context_tokens: Option<u32>,
    input_tokens: u32,
    input_count: InputCount,
    output_tokens_max: u32,
    messages: u32,
    bytes_per_token: u32,
    storing: Storing,
}

impl Prepared {
    /// What its job asks for.
    pub(in crate::api) fn spec(
        &self,
        context: &Context,
        principal: &Principal,
        endpoint: Endpoint,
        headers: &HeaderMap,
    ) -> JobSpec {
        JobSpec {
            environment: principal.environment,
            mode: self.mode(),
            tier: self.tier,
            ttl: headers::ttl(headers, &context.limits),
            input_tokens: self.input_tokens,
            input_count: self.input_count,
            output_tokens_max: self.output_tokens_max,
            messages: self.messages,
            bytes_per_token: self.bytes_per_token,
            storing: self.storing,
            constraints: principal.constraints(),
            ..JobSpec::plain(principal.namespace.clone(), endpoint, Arc::clone(&self.model))
        }
    }

    fn mode(&self) -> Mode {
        match self.stream {
            StreamMode::Whole => Mode::Sync,
            StreamMode::Events => Mode::Stream,
        }
    }
}

/// Most tokens that a request gets which names no maximum, of a model that only nodes have.
const OUTPUT_TOKENS_DEFAULT: u32 = 1_024;

/// A request that can be submitted, with the room that its body takes until then.
pub(in crate::api) struct Ready {
    pub(in crate::api) prepared: Prepared,
    pub(in crate::api) body: Arc<[u8]>,
    pub(in crate::api) room: Share,
}

/// Parses a body, counts its tokens, and makes it what is kept with the job. Takes as long as the body is large.
pub(in crate::api) fn prepare(
    context: &Context,
    endpoint: Endpoint,
    read: ReadBody,
) -> Result<Ready, ApiError> {
    let ReadBody { bytes, room } = read;
    let prepared = parsed(context, endpoint, &bytes)?;
    Ok(Ready { prepared, body: Arc::from(bytes), room })
}

fn parsed(context: &Context, endpoint: Endpoint, bytes: &[u8]) -> Result<Prepared, ApiError> {
    match elsewhere(context, bytes) {
        Some(elsewhere) => for_elsewhere(&elsewhere, endpoint, bytes),
        None => for_here(context, endpoint, bytes),
    }
}

/// A model that isn't computed here.
struct Elsewhere {
    name: ModelName,
    context_tokens: Option<u32>,
    output_tokens_default: u32,
}

impl Elsewhere {
    /// A model of another server.
    fn of(entry: &Entry) -> Self {
        Self {
            name: Arc::clone(&entry.name),
            context_tokens: entry.context_tokens(),
            output_tokens_default: entry.output_tokens_default(),
        }
    }

    /// A model that only nodes have. Whether any does is the core's to say.
    fn on_nodes(name: &str) -> Self {
        let output_tokens_default = OUTPUT_TOKENS_DEFAULT;
        Self { name: name.into(), context_tokens: None, output_tokens_default }
    }
}

/// The model that a body names, if it isn't computed here.
fn elsewhere(context: &Context, bytes: &[u8]) -> Option<Elsewhere> {
    if !context.catalog.has_others() {
        return None;
    }
    let name = request::model_named(bytes)?;
    match context.catalog.find(&name) {
        Some(entry) => matches!(entry.counting(), Counting::Elsewhere).then(|| Elsewhere::of(&entry)),
        None => Some(Elsewhere::on_nodes(&name)),
    }
}

/// A request that this box runs itself: what it doesn't know is refused.
fn for_here(context: &Context, endpoint: Endpoint, bytes: &[u8]) -> Result<Prepared, ApiError> {
    let request = request::parse(endpoint, bytes)?;
    // Some node may have had it before this process began.
    let Some(entry) = context.catalog.find(&request.model) else {
        return for_elsewhere(&Elsewhere::on_nodes(&request.model), endpoint, bytes);
    };
    // A model can become another server's only between two looks at its name.
    let Counting::Exact(count) = entry.counting() else {
        return Err(ApiError::model_not_found(&request.model));
    };
    let input = count.input_tokens(&request).map_err(|reason| ApiError::prompt_unfit(endpoint, &reason))?;
    let context_tokens = entry.context_tokens().unwrap_or(u32::MAX);
    let output = output_room(context_tokens, input, request.max_tokens, entry.output_tokens_default())
        .map_err(|asked| ApiError::context_exceeded(endpoint, context_tokens, input, asked))?;
    Ok(Prepared {
        model: Arc::clone(&entry.name),
        stream: request.stream,
        usage: if request.include_usage { UsageChunk::Asked } else { UsageChunk::NotAsked },
        tier: request.tier,
        context_tokens: entry.context_tokens(),
        input_tokens: input,
        input_count: InputCount::Exact,
        output_tokens_max: output,
        messages: 1,
        bytes_per_token: BYTES_PER_TOKEN_MAX,
        storing: storing(bytes),
    })
}

/// A request that another server, or a node, runs: it says itself what it doesn't take, and how many tokens the prompt
/// has. Until then there are at most as many as bytes, and what a template adds to each message.
fn for_elsewhere(elsewhere: &Elsewhere, endpoint: Endpoint, bytes: &[u8]) -> Result<Prepared, ApiError> {
    let outline: Outline = request::outline(endpoint, bytes)?;
    let context_tokens = elsewhere.context_tokens;
    let default = elsewhere.output_tokens_default.min(context_tokens.unwrap_or(u32::MAX)).max(1);
    Ok(Prepared {
        model: Arc::clone(&elsewhere.name),
        stream: outline.stream,
        usage: if outline.include_usage { UsageChunk::Asked } else { UsageChunk::NotAsked },
        tier: outline.tier,
        context_tokens,
        input_tokens: input_max(bytes, &outline),
        input_count: InputCount::AtMost,
        output_tokens_max: outline.max_tokens.unwrap_or(default),
        messages: outline.messages,
        bytes_per_token: outline.bytes_per_token,
        storing: storing(bytes),
    })
}

/// A request that is only looked at.
pub(in crate::api) struct LookedAt {
    pub(in crate::api) model: ModelName,
    pub(in crate::api) input_tokens: u32,
    pub(in crate::api) output_tokens_max: u32,
    pub(in crate::api) tier: Tier,
    pub(in crate::api) mode: Mode,
}

/// What a job with that body would be; of a model that only nodes have, by bounds.
pub(in crate::api) fn looked_at(
    context: &Context,
    endpoint: Endpoint,
    bytes: &[u8],
) -> Result<LookedAt, ApiError> {
    let prepared = parsed(context, endpoint, bytes)?;
    let mode = prepared.mode();
    let Prepared { model, input_tokens, output_tokens_max, tier, .. } = prepared;
    Ok(LookedAt { model, input_tokens, output_tokens_max, tier, mode })
}

/// Tokens that a prompt has at most: as many as bytes, and what a template adds to each message.
fn input_max(bytes: &[u8], outline: &Outline) -> u32 {
    let most = (bytes.len() as u64)
        .saturating_add(u64::from(outline.messages).saturating_mul(TEMPLATE_TOKENS_PER_MESSAGE));
    u32::try_from(most).unwrap_or(u32::MAX)
}

fn storing(bytes: &[u8]) -> Storing {
    if request::forbids_storing(bytes) { Storing::Forbidden } else { Storing::Allowed }
}

/// How many tokens may be generated: what was asked for if it fits, else the default as far as it fits. The error
/// is what was asked for.
fn output_room(context: u32, input: u32, asked: Option<u32>, default: u32) -> Result<u32, Option<u32>> {
    let room = context.saturating_sub(input);
    match asked {
        _ if room == 0 => Err(None),
        Some(asked) if asked > room => Err(Some(asked)),
        Some(asked) => Ok(asked),
        None => Ok(default.clamp(1, room)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_keeps_to_the_context() {
        for (context, input, asked, default, expected) in [
            (100, 10, None, 50, Ok(50)),
            (100, 10, None, 500, Ok(90)),
            (100, 10, None, 0, Ok(1)),
            (100, 10, Some(90), 50, Ok(90)),
            (100, 10, Some(91), 50, Err(Some(91))),
            (100, 100, None, 50, Err(None)),
            (100, 101, Some(1), 50, Err(None)),
            (100, 99, None, 50, Ok(1)),
            (100, 10, Some(u32::MAX), 50, Err(Some(u32::MAX))),
        ] {
            assert_eq!(output_room(context, input, asked, default), expected, "{context} {input} {asked:?}");
        }
    }
}
