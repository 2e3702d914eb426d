//! What a server's errors mean for a job: its client's fault, the server's, or nobody's for long.
//!
//! What the server says of a request goes to the request's client in the server's words. What it says of our key goes to
//! nobody: servers repeat parts of it.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use crate::coordinator::event::{ErrorClass, JobError};

/// Characters of a server's message that are passed on.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// The longest that a busy server is left alone for its own asking.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What may be done about it.
    pub(super) class: ErrorClass,
    /// For the client.
    pub(super) message: String,
    /// What it says of the server.
    pub(super) cause: Cause,
}

/// What a fault says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The request is at fault.
    Request,
    /// The server doesn't take our key, or wants one.
    Key,
    /// The server doesn't have what is asked for.
    Missing,
    /// The server has as much to do as it takes.
    Busy,
    /// The server is broken, or isn't what it should be.
    Server,
}

impl Fault {
    /// A fault that lies between here and the server, or in it.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self { class: ErrorClass::Transient, message: message.into(), cause: Cause::Server }
    }

    /// As the job's error.
    pub(super) fn into_error(self) -> JobError {
        JobError { class: self.class, message: self.message }
    }

    /// What an answer of another status than 200 means; `body` is its beginning.
    pub(super) fn of_status(status: StatusCode, body: &[u8]) -> Self {
        let said = String::from_utf8_lossy(body);
        let said = match serde_json::from_str::<Value>(&said) {
            Ok(value) => message_of(&value),
            Err(_) => Some(said.into_owned()).filter(|said| !said.trim_start().starts_with('<')),
        };
        Self::of_code(status.as_u16(), said)
    }

    /// What an error in an answer means: the answer's `error` member, or the answer as a whole.
    pub(super) fn of_answer(answer: &Value) -> Option<Self> {
        let error = match answer.get("error") {
            Some(error) if !error.is_null() => error,
            // vLLM's of old: the answer is the error.
            None if answer.get("object").is_some_and(|object| object == "error") => answer,
            _ => return None,
        };
        let number = |name: &str| error.get(name).and_then(code_of);
        let code = number("code").or_else(|| number("status")).or_else(|| number("status_code"));
        let kind = error.get("type").and_then(Value::as_str).unwrap_or_default();
        let is_request = matches!(kind, "invalid_request_error" | "BadRequestError" | "ValueError");
        let code = code.or(is_request.then_some(400)).unwrap_or(500);
        Some(Self::of_code(code, message_of(answer)))
    }

    fn of_code(code: u16, said: Option<String>) -> Self {
        let said = said.map(|said| shortened(&said)).filter(|said| !said.is_empty());
        let by_server = |what: &str| match &said {
            Some(said) => format!("the server behind this model {what}: {said}"),
            None => format!("the server behind this model {what} (status {code})"),
        };
        let (class, cause, message) = match code {
            // The key may be repeated in what it says.
            401 | 403 | 407 => (
                ErrorClass::Node,
                Cause::Key,
                "the server behind this model doesn't take this box's key: its operator can mend that"
                    .to_owned(),
            ),
            404 | 501 => (ErrorClass::Node, Cause::Missing, by_server("doesn't have what was asked for")),
            408 | 425 => (ErrorClass::Transient, Cause::Server, by_server("failed")),
            429 | 503 => (ErrorClass::Transient, Cause::Busy, by_server("is busy")),
            400..=499 => (
                ErrorClass::Terminal,
                Cause::Request,
                said.clone()
                    .unwrap_or_else(|| format!("The model's server refused the request (status {code}).")),
            ),
            500..=599 => (ErrorClass::Transient, Cause::Server, by_server("failed")),
            _ => (ErrorClass::Node, Cause::Server, by_server("gave another answer than it should")),
        };
        Self { class, message, cause }
    }
}

/// How long a busy server wants to be left alone.
pub(super) fn retry_after(headers: &hyper::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(hyper::header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(|asked| asked.min(RETRY_AFTER_MAX))
}

/// The words of an error, in whichever of the known places they are.
fn message_of(answer: &Value) -> Option<String> {
    let places = ["/error/message", "/error", "/message", "/detail/0/msg", "/detail"];
    let text = |place: &str| answer.pointer(place).and_then(Value::as_str).map(str::to_owned);
    places.into_iter().find_map(text)
}

/// An HTTP status as servers write one: a number, or its digits.
fn code_of(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|code| (300..600).contains(code))
}

/// On one line, and not longer than one reads.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}
