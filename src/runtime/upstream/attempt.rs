//! One attempt on a server: from the client's body to the last chunk of the output, or to what went wrong.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Method, Response, StatusCode};
use tokio::time::timeout;

use super::answer::{self, Said, Stated};
use super::body::rewritten;
use super::connect::{Connection, Presents, request};
use super::events::{EVENT_BYTES_MAX, Event, Events, Unreadable};
use super::fault::{Cause, Fault, retry_after};
use super::probe::beginning;
use super::server::Server;
use crate::clock::Clock;
use crate::coordinator::effect::Assignment;
use crate::coordinator::event::{Endpoint, ErrorClass, FinishReason, JobError, Status};
use crate::node::{Bytes, Slot, SlotResult};
use crate::output::{AppendError, Chunk, Output};
use crate::runtime::{Attempt, INLINE_BODY_BYTES_MAX};

/// From a request that was sent to its acceptance, unless the server answers sooner: until then a server that is busy
/// costs the job no attempt.
const ACCEPT_AFTER: Duration = Duration::from_secs(1);
/// For what may come behind the reason to finish: the usage, and the word that it is all.
const TAIL: Duration = Duration::from_secs(5);
/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Bytes of one answer with everything around it.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// How an attempt ended.
enum Ended {
    /// It never began: the server was down, or busy.
    Declined(String),
    /// The answer is whole.
    Succeeded(FinishReason),
    /// There is none.
    Failed(Fault),
    /// Nobody wants it any more.
    Stopped,
    /// Its output has no room for more.
    Full(AppendError),
}

/// Runs an attempt on a model that the server calls `model_there`.
pub(super) async fn run(server: Arc<Server>, model_there: String, attempt: Attempt) {
    let Attempt { assignment, output, slot, stop, clock } = attempt;
    let input_estimate = assignment.input_tokens;
    let mut course = Course { server, output, clock, chunks: 0, tokens: 0, usage: None, finish: None };
    let ended = tokio::select! {
        biased;
        // What the other branch holds is dropped, its connection too.
        () = stop.told() => Ended::Stopped,
        ended = course.go(assignment, model_there, &slot) => ended,
    };
    course.end(ended, slot, input_estimate);
}

/// What is known of an attempt while it runs.
struct Course {
    server: Arc<Server>,
    output: Arc<Output>,
    clock: Clock,
    chunks: u32,
    /// Generated tokens as they were seen: a chunk is at least one.
    tokens: u32,
    usage: Option<Stated>,
    finish: Option<FinishReason>,
}

impl Course {
    async fn go(&mut self, assignment: Assignment, model_there: String, slot: &Slot) -> Ended {
        let path = self.server.url().path_of(match assignment.endpoint {
            Endpoint::ChatCompletions => "/chat/completions",
            Endpoint::Completions => "/completions",
        });
        let body = match written(assignment, model_there).await {
            Ok(body) => body,
            Err(message) => {
                let class = ErrorClass::Terminal;
                return Ended::Failed(Fault { class, message, cause: Cause::Request });
            }
        };
        let request = match request(&self.server, Method::POST, &path, Presents::Key, body) {
            Ok(request) => request,
            Err(error) => return Ended::Failed(Fault::broken(error.to_string())),
        };
        let mut connection = match Connection::open(&self.server).await {
            Ok(connection) => connection,
            Err(error) => {
                self.server.found_down(&error);
                return Ended::Declined("the server behind this model can't be reached".to_owned());
            }
        };
        let mut answering = pin!(connection.send(request));
        let early = timeout(ACCEPT_AFTER, &mut answering).await;
        let is_early = early.is_ok();
        let answer = match early {
            Ok(answer) => answer,
            Err(_) => {
                slot.accepted();
                match timeout(self.server.patience().idle, answering).await {
                    Ok(answer) => answer,
                    Err(_) => return Ended::Failed(silent()),
                }
            }
        };
        let response = match answer {
            Ok(response) => response,
            Err(error) => return Ended::Failed(broke(&error)),
        };
        if response.status() != StatusCode::OK {
            return self.refused(response, is_early).await;
        }
        if is_early {
            slot.accepted();
        }
        self.follow(response).await.unwrap_or_else(|ended| ended)
    }

    /// The server said no.
    async fn refused(&self, response: Response<Incoming>, is_early: bool) -> Ended {
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let reading = timeout(self.server.patience().idle, beginning(response, ERROR_BYTES_MAX));
        let body = reading.await.ok().and_then(Result::ok).unwrap_or_default();
        let fault = Fault::of_status(status, &body);
        match fault.cause {
            Cause::Busy => {
                self.server.found_busy(retry_after);
                if is_early {
                    return Ended::Declined(fault.message);
                }
            }
            Cause::Key => tracing::error!(
                server = %self.server.url(),
                status = status.as_u16(),
                "the server doesn't take our key, or wants one: name the variable that has it with --upstream-key-env"
            ),
            Cause::Request | Cause::Missing | Cause::Server => {}
        }
        Ended::Failed(fault)
    }

    /// Reads the answer to its end.
    async fn follow(&mut self, response: Response<Incoming>) -> Result<Ended, Ended> {
        let mut body = response.into_body();
        let mut form = Form::Unknown;
        let mut read_bytes = 0;
        loop {
            let patience = if self.finish.is_some() { TAIL } else { self.server.patience().idle };
            let piece = match timeout(patience, piece(&mut body)).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => return self.ended(form),
                // What came is all that was to come.
                _ if self.finish.is_some() => return self.ended(Form::Unknown),
                Ok(Err(error)) => return Err(Ended::Failed(broke(&error))),
                Err(_) => return Err(Ended::Failed(silent())),
            };
            read_bytes += piece.len() as u64;
            if read_bytes > ANSWER_BYTES_MAX {
                return Err(Ended::Failed(Fault::broken(
                    "the server behind this model doesn't come to an end",
                )));
            }
            form.feed(&piece)?;
            if let Form::Events(events) = &mut form {
                while let Some(event) = events.next().map_err(unreadable)? {
                    match event {
                        Event::Done => return self.ended(Form::Done),
                        Event::Data(data) => self.read(&data)?,
                    }
                }
            }
        }
    }

    /// The answer's bytes ended, or it said so.
    fn ended(&mut self, form: Form) -> Result<Ended, Ended> {
        let is_done = matches!(form, Form::Done);
        match form {
            Form::Events(mut events) => {
                while let Some(event) = events.end().map_err(unreadable)? {
                    match event {
                        Event::Done => return self.ended(Form::Done),
                        Event::Data(data) => self.read(&data)?,
                    }
                }
            }
            Form::Whole(bytes) => {
                let text = String::from_utf8(bytes);
                let text = text.map_err(|_| unreadable(Unreadable::NotText))?;
                self.take(answer::read_whole(&text).map_err(Ended::Failed)?)?;
            }
            Form::Unknown | Form::Done => {}
        }
        match self.finish {
            Some(reason) => Ok(Ended::Succeeded(reason)),
            // It says that it is whole, and some servers say no more.
            None if is_done && self.chunks > 0 => Ok(Ended::Succeeded(FinishReason::Stop)),
            None => Err(Ended::Failed(Fault::broken("the answer of the server behind this model broke off"))),
        }
    }

    fn read(&mut self, data: &str) -> Result<(), Ended> {
        match answer::read(data) {
            Ok(said) => self.take(said),
            // The answer is whole: what comes behind it can't take it back.
            Err(_) if self.finish.is_some() => Ok(()),
            Err(fault) => Err(Ended::Failed(fault)),
        }
    }

    fn take(&mut self, said: Said) -> Result<(), Ended> {
        if let Some(chunk) = said.chunk {
            self.write(chunk)?;
        }
        self.finish = said.finish.or(self.finish);
        self.usage = said.usage.or(self.usage);
        Ok(())
    }

    fn write(&mut self, chunk: Chunk) -> Result<(), Ended> {
        let tokens = chunk.tokens;
        match self.output.append(self.chunks, chunk, self.clock.now().0) {
            Ok(()) => {
                self.chunks += 1;
                self.tokens = self.tokens.saturating_add(tokens);
                Ok(())
            }
            Err(AppendError::Closed) => Err(Ended::Stopped),
            Err(error) => Err(Ended::Full(error)),
        }
    }

    /// Says how it ended.
    fn end(self, ended: Ended, slot: Slot, input_estimate: u32) {
        // Who has generated has read the prompt; before that nothing is known to have been used.
        let estimate = Stated {
            input_tokens: if self.chunks > 0 { input_estimate } else { 0 },
            cached_tokens: 0,
            output_tokens: self.tokens,
        };
        let used = self.usage.unwrap_or(estimate);
        let result = |status, used: Stated| SlotResult {
            status,
            input_tokens: used.input_tokens,
            cached_tokens: used.cached_tokens,
            output_tokens: used.output_tokens,
            chunks: self.chunks,
            bytes: Bytes::Any,
        };
        if self.usage.is_none() && matches!(ended, Ended::Succeeded(_) | Ended::Stopped | Ended::Full(_)) {
            self.server.count_estimate();
        }
        match ended {
            Ended::Declined(reason) => slot.declined(reason),
            Ended::Stopped => slot.stopped(used.input_tokens, used.output_tokens),
            Ended::Succeeded(reason) => {
                let input_tokens = if self.usage.is_none() { input_estimate } else { used.input_tokens };
                slot.completed(result(Status::Succeeded(reason), Stated { input_tokens, ..used }));
            }
            // What there is of it is an answer, cut where nothing more was to be kept.
            Ended::Full(AppendError::TooLarge { .. }) if self.chunks > 0 => {
                slot.completed(result(Status::Succeeded(FinishReason::Length), used));
            }
            Ended::Full(error) => {
                let error = JobError { class: ErrorClass::Node, message: error.to_string() };
                slot.completed(result(Status::Failed(error), used));
            }
            Ended::Failed(fault) => {
                self.server.count_failure();
                if fault.cause != Cause::Request {
                    tracing::warn!(server = %self.server.url(), "an attempt failed: {}", fault.message);
                    self.server.doubt();
                }
                slot.completed(result(Status::Failed(fault.into_error()), used));
            }
        }
    }
}

/// What an answer turns out to be by its first byte, whatever its headers say.
enum Form {
    /// White space, so far.
    Unknown,
    /// Server-sent events.
    Events(Box<Events>),
    /// One JSON object: an error, or the answer of a server that doesn't stream.
    Whole(Vec<u8>),
    /// It said that it is whole.
    Done,
}

impl Form {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        match self {
            Form::Events(events) => events.feed(bytes),
            Form::Whole(whole) if whole.len() + bytes.len() > EVENT_BYTES_MAX => {
                return Err(unreadable(Unreadable::TooLong));
            }
            Form::Whole(whole) => whole.extend_from_slice(bytes),
            Form::Unknown | Form::Done => {
                let Some(first) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else {
                    return Ok(());
                };
                let (_, bytes) = bytes.split_at(first);
                *self = if bytes.starts_with(b"{") {
                    Form::Whole(bytes.to_vec())
                } else {
                    let mut events = Events::default();
                    events.feed(bytes);
                    Form::Events(Box::new(events))
                };
            }
        }
        Ok(())
    }
}

/// The body that is sent; a large one is made where that blocks nobody.
async fn written(assignment: Assignment, model_there: String) -> Result<Vec<u8>, String> {
    let body = assignment.body;
    if body.len() <= INLINE_BODY_BYTES_MAX {
        return rewritten(&body, &model_there);
    }
    let made = tokio::task::spawn_blocking(move || rewritten(&body, &model_there)).await;
    made.unwrap_or_else(|_| Err("the request could not be read".to_owned()))
}

/// The next piece of a body; `None` at its end.
async fn piece<B: Body<Data = bytes::Bytes> + Unpin>(body: &mut B) -> Result<Option<bytes::Bytes>, B::Error> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn broke(error: &hyper::Error) -> Fault {
    tracing::debug!(%error, "a connection to an upstream server broke");
    Fault::broken("the connection to the server behind this model broke")
}

fn silent() -> Fault {
    Fault::broken("the server behind this model fell silent")
}

fn unreadable(error: Unreadable) -> Ended {
    Ended::Failed(Fault::broken(format!("the server behind this model can't be understood: {error}")))
}
