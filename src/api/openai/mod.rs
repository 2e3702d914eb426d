//! OpenAI's endpoints: from a request's head and body to a job, and from the job to an answer.
//!
//! Shapes are in `chat` and `completions`, what a job does meanwhile in `follow`. Nothing here decides whether
//! or where a job runs: it asks through the door.

mod chat;
mod completions;
mod follow;
mod headers;
pub(super) mod models;
pub(super) mod render;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response};

use super::auth::{InFlight, Principal};
use super::body::ReadBody;
use super::error::ApiError;
use super::response::{self, Body};
use super::sse::EventStream;
use super::unread::{SLICE_BYTES_MAX, UnreadAnswer};
use super::{Context, body, idempotency, json};
use crate::budget::Share;
use crate::coordinator::effect::{End, Finished};
use crate::coordinator::event::{Endpoint, FinishReason, JobSpec, Mode, Storing, Submission, Tier};
use crate::coordinator::job::JobRow;
use crate::ids::{JobId, ModelName};
use crate::output::Chunk;
use crate::request::{self, StreamMode};
use follow::Afterwards;
pub(super) use follow::{Follow, Outcome, Step};
use render::Shown;

/// Runs an inference and answers with it.
pub(super) async fn infer(
    context: &Arc<Context>,
    endpoint: Endpoint,
    principal: &Principal,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let (head, read) = body::of_work(context, request).await?;
    let key = idempotency::keyed(&head.headers, principal, endpoint.path(), &read.bytes)?;
    let prepare = move |context: &Context, read| prepare(context, endpoint, read);
    let Ready { prepared, body, room } = body::parse(context, read, prepare).await?;
    let refused = |refusal| ApiError::refused(&refusal, &prepared.model);
    let afterwards = if key.is_some() { Afterwards::GoesOn } else { Afterwards::Ends };
    let spec = JobSpec { key: key.into(), ..prepared.spec(context, principal, endpoint, &head.headers) };
    let mut session = context.door.open().map_err(refused)?;
    let in_flight = principal.enter();
    session.submit(Submission::new(spec, body)).map_err(refused)?;
    // The core counts the body's bytes from here on.
    drop(room);
    let exchange = Exchange {
        follow: Follow::new(session, context.durability, afterwards, context.drain.clone()),
        shown: Shown {
            endpoint,
            created: unix_now(),
            model: Arc::clone(&prepared.model),
            tier: prepared.tier,
            fingerprint: Arc::clone(&context.fingerprint),
        },
        in_flight,
    };
    let quota = headers::Quota::new(context, &exchange.in_flight, prepared.context_tokens);
    let answered = match prepared.stream {
        StreamMode::Whole => whole(exchange).await,
        StreamMode::Events => events(exchange, prepared.usage, context).await,
    };
    let mut response = answered.unwrap_or_else(|failure| failure.into_response());
    quota.write(response.headers_mut());
    Ok(response)
}

/// Whether a stream ends with a chunk of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageChunk {
    Asked,
    NotAsked,
}

/// A request that fits its model.
pub(super) struct Prepared {
    pub(super) model: ModelName,
    stream: StreamMode,
    usage: UsageChunk,
    tier: Tier,
    context_tokens: u32,
    input_tokens: u32,
    output_tokens_max: u32,
    storing: Storing,
}

impl Prepared {
    /// What its job asks for.
    pub(super) fn spec(
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
            output_tokens_max: self.output_tokens_max,
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

/// A request that can be submitted, with the room that its body takes until then.
pub(super) struct Ready {
    pub(super) prepared: Prepared,
    pub(super) body: Arc<[u8]>,
    pub(super) room: Share,
}

/// Parses a body, counts its tokens, and makes it what is kept with the job. Takes as long as the body is large.
pub(super) fn prepare(context: &Context, endpoint: Endpoint, read: ReadBody) -> Result<Ready, ApiError> {
    let ReadBody { bytes, room } = read;
    let request = request::parse(endpoint, &bytes)?;
    let entry =
        context.catalog.find(&request.model).ok_or_else(|| ApiError::model_not_found(&request.model))?;
    let input = entry.input_tokens(&request).map_err(|reason| ApiError::prompt_unfit(endpoint, &reason))?;
    let context_tokens = entry.context_tokens();
    let output = output_room(context_tokens, input, request.max_tokens, entry.output_tokens_default())
        .map_err(|asked| ApiError::context_exceeded(endpoint, context_tokens, input, asked))?;
    let prepared = Prepared {
        model: Arc::clone(&entry.name),
        stream: request.stream,
        usage: if request.include_usage { UsageChunk::Asked } else { UsageChunk::NotAsked },
        tier: request.tier,
        context_tokens,
        input_tokens: input,
        output_tokens_max: output,
        storing: if request::forbids_storing(&bytes) { Storing::Forbidden } else { Storing::Allowed },
    };
    Ok(Ready { prepared, body: Arc::from(bytes), room })
}

/// A request that is only looked at.
pub(super) struct LookedAt {
    pub(super) model: ModelName,
    pub(super) input_tokens: u32,
    pub(super) output_tokens_max: u32,
    pub(super) tier: Tier,
    pub(super) mode: Mode,
}

/// What a job with that body would be: of a model that this box serves itself as it would count it, else by bounds.
pub(super) fn looked_at(context: &Context, endpoint: Endpoint, bytes: &[u8]) -> Result<LookedAt, ApiError> {
    let request = request::parse(endpoint, bytes)?;
    let mode = match request.stream {
        StreamMode::Whole => Mode::Sync,
        StreamMode::Events => Mode::Stream,
    };
    let (model, input_tokens, output_tokens_max) = match context.catalog.find(&request.model) {
        Some(entry) => {
            let input =
                entry.input_tokens(&request).map_err(|reason| ApiError::prompt_unfit(endpoint, &reason))?;
            let tokens = entry.context_tokens();
            let output = output_room(tokens, input, request.max_tokens, entry.output_tokens_default())
                .map_err(|asked| ApiError::context_exceeded(endpoint, tokens, input, asked))?;
            (Arc::clone(&entry.name), input, output)
        }
        None => {
            let output = request.max_tokens.ok_or_else(|| {
                let message =
                    "Say `max_tokens`: this box doesn't serve the model itself, so it knows no default.";
                ApiError::command_malformed("max_tokens", message.to_owned())
            })?;
            let bound = bytes.len() as u64 + BYTES_A_MESSAGE * request.messages();
            (request.model.as_str().into(), u32::try_from(bound).unwrap_or(u32::MAX), output)
        }
    };
    Ok(LookedAt { model, input_tokens, output_tokens_max, tier: request.tier, mode })
}

/// What a message adds to the bytes of a prompt, as tokens of a model whose template isn't known.
const BYTES_A_MESSAGE: u64 = 16;

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

/// A submitted job and everything that its answer shows.
struct Exchange {
    follow: Follow,
    shown: Shown,
    in_flight: InFlight,
}

/// An error together with what is known of the job that it is about.
struct JobFailure {
    error: Box<ApiError>,
    job: Option<JobId>,
    finished: Option<Box<Finished>>,
}

impl JobFailure {
    /// Of an exchange that came to that outcome, which is no answer.
    fn of_outcome(outcome: Outcome, exchange: Exchange) -> Self {
        let job = exchange.follow.job();
        exchange.follow.served();
        let (error, finished) = match outcome {
            Outcome::Refused(refusal) => (ApiError::refused(&refusal, &exchange.shown.model).into(), None),
            Outcome::Broken(error) => (error, None),
            Outcome::Finished(finished) => {
                let error = ApiError::ended(&finished.end).unwrap_or_else(output_lost);
                (error.into(), Some(finished))
            }
        };
        Self { error, job, finished }
    }

    fn output_lost(job: Option<JobId>, finished: Option<Box<Finished>>) -> Self {
        Self { error: output_lost().into(), job, finished }
    }

    fn into_response(self) -> Response<Body> {
        let mut response = response::error(&self.error);
        match &self.finished {
            Some(finished) => headers::write_finished(response.headers_mut(), finished),
            None => headers::write_job(response.headers_mut(), self.job),
        }
        response
    }
}

/// The error of an answer that was promised and isn't there.
pub(super) fn output_lost() -> ApiError {
    ApiError::internal("The answer was lost between the node and the client: please report it.")
}

/// Waits for the job's end and answers with all of it.
async fn whole(mut exchange: Exchange) -> Result<Response<Body>, JobFailure> {
    let outcome = exchange.follow.outcome().await;
    let (finished, reason) = match outcome {
        Outcome::Finished(finished) => match success(&finished.end) {
            Some(reason) => (finished, reason),
            None => return Err(JobFailure::of_outcome(Outcome::Finished(finished), exchange)),
        },
        other => return Err(JobFailure::of_outcome(other, exchange)),
    };
    let mut text = exchange.shown.begin_whole(finished.job);
    if exchange.follow.take_text(&finished, &mut text).await.is_err() {
        return Err(JobFailure::output_lost(Some(finished.job), Some(finished)));
    }
    exchange.shown.end_whole(&mut text, reason, finished.usage);
    let mut response = handed_over(text, exchange.follow);
    headers::write_finished(response.headers_mut(), &finished);
    Ok(response)
}

/// An answer whose job is left to rest as soon as the connection has all of it: at once, if it is small.
fn handed_over(text: Vec<u8>, follow: Follow) -> Response<Body> {
    if text.len() <= SLICE_BYTES_MAX {
        follow.served();
        return response::json(text);
    }
    let mut response = response::json("");
    *response.body_mut() = Body::Unread(Box::new(UnreadAnswer::new(text, follow)));
    response
}

/// Waits for the first piece of output, so that everything that goes wrong before it is still a proper HTTP
/// error, and at most so long that no proxy gives the silent connection up: then only for the job's acceptance to be
/// as durable as it must be to be shown. The rest follows as events.
async fn events(
    mut exchange: Exchange,
    usage: UsageChunk,
    context: &Context,
) -> Result<Response<Body>, JobFailure> {
    let mut first = tokio::time::timeout(context.limits.keepalive(), exchange.follow.step()).await.ok();
    if first.is_none() {
        exchange.follow.settled().await;
        // Whatever else came meanwhile is there at once.
        first = tokio::time::timeout(Duration::ZERO, exchange.follow.step()).await.ok();
    }
    if let Some(Step::End(outcome)) = first {
        match success_of(&outcome) {
            // An answer of no text at all.
            Some(_) => exchange.follow.put_back(outcome),
            None => return Err(JobFailure::of_outcome(outcome, exchange)),
        }
        return Ok(stream(exchange, usage, context, None));
    }
    let first = match first {
        Some(Step::Chunk(chunk)) => Some(chunk),
        Some(Step::Lost) => return Err(JobFailure::output_lost(exchange.follow.job(), None)),
        _ => None,
    };
    Ok(stream(exchange, usage, context, first))
}

fn stream(exchange: Exchange, usage: UsageChunk, context: &Context, first: Option<Chunk>) -> Response<Body> {
    let Exchange { follow, shown, in_flight } = exchange;
    let job = follow.job();
    let events =
        EventStream::new(follow, shown.events(job, usage), first, context.limits.keepalive(), in_flight);
    let mut response = response::whole(hyper::StatusCode::OK, "text/event-stream", "");
    headers::write_stream(response.headers_mut(), job);
    *response.body_mut() = Body::Events(Box::new(events));
    response
}

/// The whole answer of a job that ended before.
pub(super) fn whole_answer(context: &Context, row: &JobRow, text: &str, reason: FinishReason) -> Vec<u8> {
    let shown = Shown {
        endpoint: row.spec.endpoint,
        created: row.submitted_at.unix_secs(),
        model: Arc::clone(row.model()),
        tier: row.spec.tier,
        fingerprint: Arc::clone(&context.fingerprint),
    };
    let mut out = shown.begin_whole(row.id);
    json::escaped(&mut out, text);
    shown.end_whole(&mut out, reason, row.usage);
    out
}

fn success(end: &End) -> Option<FinishReason> {
    match end {
        End::Succeeded(reason) => Some(*reason),
        _ => None,
    }
}

fn success_of(outcome: &Outcome) -> Option<FinishReason> {
    match outcome {
        Outcome::Finished(finished) => success(&finished.end),
        Outcome::Refused(_) | Outcome::Broken(_) => None,
    }
}

/// Wall time, as answers show it.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
