//! OpenAI's endpoints: from a request's head and body to a job, and from the job to an answer.
//!
//! Shapes are in `chat` and `completions`, what a job does meanwhile in `follow`. Nothing here decides whether
//! or where a job runs: it asks through the door.

mod chat;
mod completions;
mod follow;
mod headers;
pub(super) mod models;
mod prepare;
pub(super) mod render;
mod whole;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::{Request, Response};

use super::auth::{InFlight, Principal};
use super::error::ApiError;
use super::response::{self, Body};
use super::sse::EventStream;
use super::unread::{SLICE_BYTES_MAX, UnreadAnswer};
use super::{Context, body, idempotency};
use crate::archive::StoredAnswer;
use crate::coordinator::effect::{End, Finished};
use crate::coordinator::event::{Endpoint, FinishReason, JobSpec, Submission};
use crate::coordinator::job::JobRow;
use crate::ids::JobId;
use crate::output::Chunk;
use crate::request::StreamMode;
use follow::Afterwards;
pub(super) use follow::{Follow, Outcome, Step};
pub(super) use prepare::{Ready, UsageChunk, looked_at, prepare};
use render::Shown;
use whole::Whole;

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
    let Exchange { follow, shown, .. } = &mut exchange;
    let mut whole = Whole::begin(shown, finished.job);
    if follow.take_answer(&finished, &mut whole).await.is_err() {
        return Err(JobFailure::output_lost(Some(finished.job), Some(finished)));
    }
    let text = whole.end(reason, finished.usage);
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
pub(super) fn whole_answer(
    context: &Context,
    row: &JobRow,
    answer: &StoredAnswer,
    reason: FinishReason,
) -> Vec<u8> {
    let shown = Shown {
        endpoint: row.spec.endpoint,
        created: row.submitted_at.unix_secs(),
        model: Arc::clone(row.model()),
        tier: row.spec.tier,
        fingerprint: Arc::clone(&context.fingerprint),
    };
    let mut whole = Whole::begin(&shown, row.id);
    answer.pieces().for_each(|(kind, text)| whole.add(kind, text));
    whole.end(reason, row.usage)
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
