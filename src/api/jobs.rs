//! Jobs by name: submit one and go away, ask for it later, cancel it.
//!
//! A 202 is given only once the job is on disk, and from then on it is there, whatever happens to the box. What is
//! shown of a job is what is on disk, too. Whoever waits for a job's end is told of it once, and looks again then.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Context;
use super::auth::Principal;
use super::body::{self, ReadBody};
use super::error::ApiError;
use super::idempotency;
use super::openai::{self, Ready};
use super::response::{self, Body};
use super::unread::UnreadAnswer;
use crate::archive::{Piece, StoredJob, Wanted};
use crate::budget::Share;
use crate::coordinator::effect::{Answer, CancelState, End, JobView, RefusalKind, Runnable};
use crate::coordinator::event::{Endpoint, JobSpec, Keyed, Mode, Question, Storing, Submission};
use crate::coordinator::job::JobRow;
use crate::door::{ClientMessage, ClientSession};
use crate::ids::JobId;
use crate::request::RequestError;
use crate::time::Time;

/// The path that jobs are submitted on; part of what an idempotency key stands for.
const PATH: &str = "/v1/jobs";
/// The longest that a question waits for a job's end.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A submitted job as it is written.
#[derive(Deserialize)]
struct Envelope<'b> {
    endpoint: String,
    #[serde(borrow)]
    body: &'b RawValue,
}

/// Takes a job and answers once it is on disk.
pub(super) async fn submit(
    context: &Arc<Context>,
    principal: &Principal,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let (head, read) = body::of_work(context, request).await?;
    let key = idempotency::keyed(&head.headers, principal, PATH, &read.bytes)?;
    let open = |context: &Context, ReadBody { bytes, room }| open(context, &bytes, room);
    let (endpoint, ready) = body::parse(context, read, open).await?;
    // What was accepted up to here is another request's: of a repeat, the true state is shown.
    let before = context.door.gauges().last_lsn;
    let (mut session, model) = send(context, principal, endpoint, ready, (key, &head.headers))?;
    loop {
        match session.next().await {
            ClientMessage::Accepted { job, lsn } => {
                session.served();
                if lsn > before {
                    let view = json!({"id": job.to_string(), "object": "job", "state": "queued"});
                    return Ok(shown(StatusCode::ACCEPTED, &view));
                }
                return look(context, principal, job).await?.show(context, StatusCode::ACCEPTED);
            }
            ClientMessage::Stored(stored) => {
                return Seen::Ended(stored, session).show(context, StatusCode::ACCEPTED);
            }
            ClientMessage::Refused(refusal) => return Err(ApiError::refused(&refusal, &model)),
            ClientMessage::Unreadable(job, piece) => return Err(ApiError::unreadable(job, piece)),
            ClientMessage::ShareFull => return Err(ApiError::share_full()),
            // It was forgotten between the look at its key and the look into the store.
            ClientMessage::Answer(_) => return Err(ApiError::just_forgotten()),
            ClientMessage::Finished(_) => return Err(ApiError::unexpected()),
            ClientMessage::Opened(_) => {}
        }
    }
}

/// Submits what was parsed.
fn send(
    context: &Context,
    principal: &Principal,
    endpoint: Endpoint,
    ready: Ready,
    (key, headers): (Option<Keyed>, &HeaderMap),
) -> Result<(ClientSession, crate::ids::ModelName), ApiError> {
    let Ready { prepared, body, room } = ready;
    let spec = JobSpec {
        mode: Mode::Polling,
        key: key.into(),
        ..prepared.spec(context, principal, endpoint, headers)
    };
    let refused = |refusal| ApiError::refused(&refusal, &prepared.model);
    let mut session = context.door.open().map_err(refused)?;
    session.submit(Submission::new(spec, body)).map_err(refused)?;
    // The core counts the body's bytes from here on.
    drop(room);
    Ok((session, prepared.model))
}

/// Parses a job's envelope and what is in it.
fn open(context: &Context, bytes: &[u8], room: Share) -> Result<(Endpoint, Ready), ApiError> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| RequestError {
        message: format!("The body is no job (`{{\"endpoint\": ..., \"body\": {{...}}}}`): {error}."),
        param: None,
        code: "invalid_json",
    })?;
    let known = [Endpoint::ChatCompletions, Endpoint::Completions];
    let endpoint = known.into_iter().find(|endpoint| endpoint.path() == envelope.endpoint);
    let endpoint = endpoint.ok_or_else(|| RequestError {
        message: "`endpoint` must be `/v1/chat/completions` or `/v1/completions`.".to_owned(),
        param: Some("endpoint".to_owned()),
        code: "invalid_value",
    })?;
    let read = ReadBody { bytes: envelope.body.get().as_bytes().to_vec(), room };
    Ok((endpoint, openai::prepare(context, endpoint, read)?))
}

/// Where a job stands or how it ended; with `?wait=30s`, once it has ended or the time is up.
pub(super) async fn read(
    context: &Context,
    principal: &Principal,
    id: &str,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let (job, wait) = (parsed(id)?, wait_of(query)?);
    let mut waiter = None;
    if !wait.is_zero() {
        let place = context.waiting.take(&principal.holder(), 1).map_err(ApiError::waiters_full)?;
        waiter = Some((context.door.wait_for(job), place));
    }
    let mut seen = look(context, principal, job).await?;
    if let (Seen::Live(_), Some((waiter, _place))) = (&seen, &mut waiter) {
        // Time that is up is no error, nor is a box that leaves: then it is shown where the job stands.
        tokio::select! {
            () = waiter.ended() => {}
            () = tokio::time::sleep(wait) => {}
            () = context.drain.left() => {}
        }
        seen = look(context, principal, job).await?;
    }
    seen.show(context, StatusCode::OK)
}

/// Ends a job. One that has ended already is shown as it is.
pub(super) async fn cancel(
    context: &Context,
    principal: &Principal,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let job = parsed(id)?;
    let refused = |refusal| ApiError::refused(&refusal, "");
    let mut session = context.door.open().map_err(refused)?;
    session.cancel_own(job, principal.tenant()).map_err(refused)?;
    let message = session.next().await;
    session.served();
    let state = match message {
        ClientMessage::Answer(answer) => match *answer {
            Answer::Cancelled { state: CancelState::Cancelled, .. } => "cancelled",
            Answer::Cancelled { state: CancelState::Cancelling, .. } => "cancelling",
            _ => return read(context, principal, id, None).await,
        },
        _ => return Err(ApiError::unexpected()),
    };
    Ok(shown(StatusCode::OK, &json!({"id": job.to_string(), "object": "job", "state": state})))
}

/// What a look at a job finds.
pub(super) enum Seen {
    /// Where it stands.
    Live(Box<JobView>),
    /// With the session that looked it up.
    Ended(Box<StoredJob>, ClientSession),
}

impl Seen {
    fn show(self, context: &Context, status: StatusCode) -> Result<Response<Body>, ApiError> {
        match self {
            Seen::Live(view) => Ok(shown(status, &live(&view))),
            Seen::Ended(stored, session) => {
                let text = ended(context, &stored)?;
                let StoredJob { row, answer, room, .. } = *stored;
                if answer.is_some() && row.spec.storing == Storing::Forbidden {
                    let answer = UnreadAnswer::looked_up(text, session, row.id, room);
                    let mut response = response::whole(status, "application/json", "");
                    *response.body_mut() = Body::Unread(Box::new(answer));
                    return Ok(response);
                }
                session.served();
                Ok(response::held(status, "application/json", text, room))
            }
        }
    }
}

async fn look(context: &Context, principal: &Principal, job: JobId) -> Result<Seen, ApiError> {
    look_for(context, principal, job, Wanted::Answer).await
}

/// As [`look`], for something else of a job that has ended.
pub(super) async fn look_for(
    context: &Context,
    principal: &Principal,
    job: JobId,
    wanted: Wanted,
) -> Result<Seen, ApiError> {
    let refused = |refusal| ApiError::refused(&refusal, "");
    let mut session = context.door.open().map_err(refused)?;
    session.want(wanted);
    session.ask(Question::Job(job, Some(principal.tenant()))).map_err(refused)?;
    let message = session.next().await;
    if let ClientMessage::Stored(stored) = message {
        // Whose it is has been looked at, by the core or by who read it.
        return Ok(Seen::Ended(stored, session));
    }
    session.served();
    match message {
        ClientMessage::Answer(answer) => match *answer {
            Answer::Job(view) => Ok(Seen::Live(view)),
            Answer::Refused(RefusalKind::JobUnknown, _) => Err(ApiError::job_unknown()),
            _ => Err(ApiError::unexpected()),
        },
        ClientMessage::Refused(refusal) => Err(refused(refusal)),
        ClientMessage::Unreadable(job, piece) => Err(ApiError::unreadable(job, piece)),
        ClientMessage::ShareFull => Err(ApiError::share_full()),
        _ => Err(ApiError::unexpected()),
    }
}

pub(super) fn parsed(id: &str) -> Result<JobId, ApiError> {
    id.parse().map_err(|error: crate::ids::IdError| ApiError::id_malformed(error.to_string()))
}

/// How long a question may wait: `wait=30s`, `wait=500ms` or `wait=30`.
fn wait_of(query: Option<&str>) -> Result<Duration, ApiError> {
    let stated =
        query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("wait="));
    let Some(text) = stated else { return Ok(Duration::ZERO) };
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, Duration::from_millis(1)),
        None => (text.strip_suffix('s').unwrap_or(text), Duration::from_secs(1)),
    };
    let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|digits| digits.parse::<u32>().ok()) {
        Some(number) => Ok((unit * number).min(WAIT_MAX)),
        None => Err(ApiError::command_malformed("wait", "Write a span, as in `wait=30s`.".to_owned())),
    }
}

fn facts(row: &JobRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "object": "job",
        "state": row.state.word(),
        "endpoint": row.spec.endpoint.path(),
        "model": &*row.spec.model,
        "submitted_at": seconds(row.submitted_at),
        "expires_at": seconds(row.expires_at),
        "attempts": row.attempts,
    })
}

fn live(view: &JobView) -> Value {
    let mut value = facts(&view.row);
    if view.cancelling {
        value["state"] = "cancelling".into();
    }
    value["position"] = view.position.into();
    if let Runnable::No(why) = view.runnable {
        value["not_runnable_why"] = why.sentence().into();
    }
    value
}

/// A job that has ended, with its result or why there is none.
fn ended(context: &Context, stored: &StoredJob) -> Result<Vec<u8>, ApiError> {
    let row = &stored.row;
    let mut value = facts(row);
    value["ended_at"] = row.ended_at.map(seconds).into();
    value["credits"] = row.charged.to_string().into();
    match (&row.end, &stored.answer) {
        (Some(End::Succeeded(reason)), Some(answer)) => {
            return Ok(with_result(&value, &openai::whole_answer(context, row, answer, *reason)));
        }
        (Some(End::Succeeded(_)), None) if row.spec.is_tied_to_client() => {
            value["result"] = Value::Null;
            value["result_unavailable"] = NOT_KEPT.into();
        }
        (Some(End::Succeeded(_)), None) if row.spec.storing == Storing::Forbidden => {
            value["result"] = Value::Null;
            value["result_unavailable"] = TAKEN.into();
        }
        // An answer that isn't there must not read as an empty one.
        (Some(End::Succeeded(_)), None) => return Err(ApiError::unreadable(row.id, Piece::Answer)),
        (Some(end), _) => {
            if let Some(error) = ApiError::ended(end) {
                value["error"] = parsed_error(&error)?;
            }
        }
        (None, _) => {}
    }
    Ok(value.to_string().into_bytes())
}

/// Why there is no result of a job that succeeded.
const NOT_KEPT: &str = "It was given on the connection that asked, and isn't kept: only answers of jobs by name, and of \
                        requests with an Idempotency-Key, are.";

/// The same of one whose result was taken.
const TAKEN: &str = "It was delivered, and isn't stored any longer, as `\"store\": false` asked.";

/// What is known of a job, with its result, which may be long and isn't read again for this.
fn with_result(facts: &Value, result: &[u8]) -> Vec<u8> {
    let facts = facts.to_string();
    let open = facts.strip_suffix('}').unwrap_or(&facts);
    let mut out = Vec::with_capacity(open.len() + result.len() + 16);
    out.extend_from_slice(open.as_bytes());
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(result);
    out.push(b'}');
    out
}

fn parsed_error(error: &ApiError) -> Result<Value, ApiError> {
    let parsed = serde_json::from_slice::<Value>(&error.render());
    let parsed = parsed.map(|mut body| body["error"].take());
    parsed.map_err(|problem| {
        ApiError::internal(&format!("The result could not be rendered ({problem}): please report it."))
    })
}

fn seconds(time: Time) -> Value {
    (time.0 as f64 / 1e6).into()
}

fn shown(status: StatusCode, value: &Value) -> Response<Body> {
    response::whole(status, "application/json", value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spans_with_a_bound() {
        let ms = |query| wait_of(query).map(|wait| wait.as_millis()).map_err(|error| error.param);
        assert_eq!((ms(None), ms(Some("a=b")), ms(Some("wait=0"))), (Ok(0), Ok(0), Ok(0)));
        assert_eq!((ms(Some("wait=30s")), ms(Some("x=1&wait=250ms"))), (Ok(30_000), Ok(250)));
        assert_eq!(ms(Some("wait=4000000000")), Ok(60_000));
        for bad in ["wait=", "wait=s", "wait=-1s", "wait=1h", "wait=99999999999", "wait=+1"] {
            assert_eq!(ms(Some(bad)), Err(Some("wait".to_owned())), "{bad}");
        }
    }
}
