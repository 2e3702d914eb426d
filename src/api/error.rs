//! Errors as OpenAI's clients read them: one shape for all, always with all four keys.
//!
//! Says what was wrong, where, and what to do. Never carries a secret or more of a client's text than a name.

mod kept;

use hyper::StatusCode;

use crate::coordinator::effect::{CancelCause, End, Refusal, RefusalKind};
use crate::coordinator::event::{Endpoint, ErrorClass};
use crate::request::RequestError;
use crate::time::Span;

/// Shortest `Retry-After` in seconds.
const RETRY_AFTER_MIN_S: u64 = 1;
/// Longest `Retry-After` in seconds: Node's client ignores longer ones, Python's gives up at them.
const RETRY_AFTER_MAX_S: u64 = 60;
/// `Retry-After` where nothing better is known than that trying at once is too early.
const RETRY_AFTER_UNKNOWN_S: u64 = 5;

const INVALID: &str = "invalid_request_error";
const RATE: &str = "rate_limit_error";
const UNAVAILABLE: &str = "service_unavailable_error";
const SERVER: &str = "server_error";

/// An answer that says why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    pub(super) param: Option<String>,
    pub(super) message: String,
    pub(super) retry: Retry,
}

/// What a client is told about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing: the status says it.
    ByStatus,
    /// After so many seconds.
    AfterSecs(u64),
    /// Never, although clients retry this status on their own.
    Never,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry: Retry::ByStatus }
    }

    fn about(mut self, param: &str) -> Self {
        self.param = Some(param.into());
        self
    }

    fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// No such path.
    pub(super) fn route_unknown(method: &hyper::Method, path: &str) -> Self {
        let path: String = path.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID,
            "unknown_url",
            format!("There is nothing at {method} {path}."),
        )
    }

    /// A path that knows other methods.
    pub(super) fn method_not_allowed(allow: &str) -> Self {
        let message = format!("This path doesn't know that method: use {allow}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", message)
    }

    /// A request head that hyper couldn't take; `status` is its verdict in digits.
    pub(super) fn head_refused(status: &[u8]) -> Self {
        let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::BAD_REQUEST);
        let (code, message) = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ("headers_too_large", "The request's headers are too many or too long: send fewer.")
            }
            StatusCode::URI_TOO_LONG => ("url_too_long", "The request's URL is too long."),
            _ => ("invalid_http", "The request is not valid HTTP/1.1."),
        };
        Self::new(status, INVALID, code, message)
    }

    /// A body that isn't JSON by its own words.
    pub(super) fn media_type(header: &str) -> Self {
        let message =
            format!("Send the body as plain `content-type: application/json` (see the header {header}).");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_media_type", message)
    }

    /// No key, or not one of ours.
    pub(super) fn invalid_key(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key", message)
    }

    /// Too many wrong keys.
    pub(super) fn too_many_failures(wait_secs: u64) -> Self {
        let message = "Too many requests with wrong keys: wait, then use a valid one.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, RATE, "too_many_failures", message)
            .retry(retry_after_secs(wait_secs))
    }

    /// A name of this server that pages from elsewhere could have made up.
    pub(super) fn host_not_allowed() -> Self {
        let message = "Without API keys this server answers only requests to localhost, 127.x.x.x or [::1]: \
                       check the URL, or start the server with keys.";
        Self::new(StatusCode::FORBIDDEN, INVALID, "host_not_allowed", message)
    }

    /// A web page that wasn't listed.
    pub(super) fn origin_not_allowed() -> Self {
        let message = "Web pages of this origin may not use this server: the operator lists origins with --cors-origin.";
        Self::new(StatusCode::FORBIDDEN, INVALID, "origin_not_allowed", message)
    }

    /// A body over the bound.
    pub(super) fn body_too_large(bytes_max: u64) -> Self {
        let message = format!("The body is larger than {bytes_max} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "body_too_large", message)
    }

    /// A body that came too slowly.
    pub(super) fn body_timeout() -> Self {
        let message = "The body didn't arrive in time: send it faster.";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, "body_timeout", message)
    }

    /// A body whose connection broke.
    pub(super) fn body_broken() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            INVALID,
            "body_incomplete",
            "The body ended before its announced end.",
        )
    }

    /// No room for another body.
    pub(super) fn bodies_full() -> Self {
        let message = "The server is reading as many request bodies as it has memory for: try again shortly.";
        Self::overloaded(message).retry(retry_after_secs(RETRY_AFTER_MIN_S))
    }

    /// A model that nothing here serves.
    pub(super) fn model_not_found(model: &str) -> Self {
        let model: String = model.chars().take(100).collect();
        let message =
            format!("The model `{model}` does not exist or is not served here: GET /v1/models lists them.");
        Self::new(StatusCode::NOT_FOUND, INVALID, "model_not_found", message).about("model")
    }

    /// More tokens than the model can hold, in OpenAI's words.
    pub(super) fn context_exceeded(
        endpoint: Endpoint,
        context: u32,
        input: u32,
        output: Option<u32>,
    ) -> Self {
        let (param, name) = match endpoint {
            Endpoint::ChatCompletions => ("messages", "messages"),
            Endpoint::Completions => ("prompt", "prompt"),
        };
        let message = match output {
            None => format!(
                "This model's maximum context length is {context} tokens. However, your {name} resulted in {input} \
                 tokens. Please reduce the length of the {name}."
            ),
            Some(output) => format!(
                "This model's maximum context length is {context} tokens. However, you requested {} tokens ({input} \
                 in the {name}, {output} in the completion). Please reduce the length of the {name} or completion.",
                u64::from(input) + u64::from(output)
            ),
        };
        Self::new(StatusCode::BAD_REQUEST, INVALID, "context_length_exceeded", message).about(param)
    }

    /// A prompt that the model's template or tokenizer doesn't take.
    pub(super) fn prompt_unfit(endpoint: Endpoint, reason: &str) -> Self {
        let param = if endpoint == Endpoint::ChatCompletions { "messages" } else { "prompt" };
        let message = format!("This model can't take this prompt: {reason}.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_value", message).about(param)
    }

    /// A bug of ours, or a broken box.
    pub(super) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error", message)
    }

    /// The server reads what it has kept.
    pub(super) fn starting(rows: u64) -> Self {
        let message =
            format!("The server is starting: it has read {rows} stored rows so far. Try again shortly.");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "server_is_starting", message)
            .retry(retry_after_secs(RETRY_AFTER_MIN_S))
    }

    /// The core said what nobody asked it.
    pub(super) fn unexpected() -> Self {
        Self::internal("The core answered another question: please report it.")
    }

    /// The request's job succeeded, and its answer was given before and not stored, as was asked.
    pub(super) fn answer_taken() -> Self {
        let message = "This request succeeded before, and its answer was given then. It isn't stored, as `\"store\": false` \
                       asked: ask again with another Idempotency-Key for a new one.";
        Self::new(StatusCode::GONE, INVALID, "answer_not_stored", message).retry(Retry::Never)
    }

    /// The server stops soon and takes nothing new.
    pub(super) fn draining() -> Self {
        let message = "The server is draining: it finishes what it has and takes nothing new.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "server_is_draining", message)
            .retry(retry_after_secs(RETRY_AFTER_UNKNOWN_S))
    }

    /// Something that an operator asked for and that isn't there.
    pub(super) fn job_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, "job_not_found", "There is no such job.").about("id")
    }

    /// An id in a path that isn't one.
    pub(super) fn id_malformed(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_value", message).about("id")
    }

    /// An idempotency key that can't be one.
    pub(super) fn key_malformed(bytes_max: usize) -> Self {
        let message =
            format!("`Idempotency-Key` must be given once, as 1 to {bytes_max} printable ASCII characters.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_value", message).about("Idempotency-Key")
    }

    /// An operator's command that isn't one.
    pub(super) fn command_malformed(param: &str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_value", message).about(param)
    }

    /// An operator's command that changed nothing.
    pub(super) fn command_rejected(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::new(status, INVALID, code, message).retry(Retry::Never)
    }

    fn overloaded(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "server_is_overloaded", message)
    }

    /// What the core wouldn't accept.
    pub(super) fn refused(refusal: &Refusal, model: &str) -> Self {
        let after = retry_after_span(refusal.retry_after);
        match refusal.kind {
            RefusalKind::NamespaceQueueFull => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                RATE,
                "rate_limit_exceeded",
                "As many of your requests are waiting as your share of the queue holds: try again later.",
            )
            .retry(after),
            RefusalKind::DiskReserve => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                UNAVAILABLE,
                "disk",
                "The server's disk is nearly full: it takes new work again when there is room.",
            )
            .retry(after),
            RefusalKind::QueueFull | RefusalKind::QueueBytesFull => {
                Self::overloaded("The server is overloaded: its queue is full. Try again later.").retry(after)
            }
            RefusalKind::RingFull | RefusalKind::StoreBehind => {
                Self::overloaded("The server is overloaded: as much is under way as may be. Try again shortly.")
                    .retry(after)
            }
            RefusalKind::Draining => Self::draining(),
            RefusalKind::ModelUnknown => Self::model_not_found(model),
            RefusalKind::OutputTooLarge => Self::new(
                StatusCode::BAD_REQUEST,
                INVALID,
                "invalid_value",
                "`max_tokens` asks for a longer answer than this server keeps for one request: ask for fewer.",
            )
            .about("max_tokens"),
            RefusalKind::JobUnknown => Self::job_unknown(),
            kind => Self::refused_otherwise(kind).retry(after_of(kind, after)),
        }
    }

    fn refused_otherwise(kind: RefusalKind) -> Self {
        let (status, kind_word, code, message): (u16, _, _, &str) = match kind {
            RefusalKind::SizeInvalid => {
                (400, INVALID, "invalid_value", "The request asks for no output, or its body is too large.")
            }
            RefusalKind::TtlInvalid => (
                400,
                INVALID,
                "invalid_value",
                "The job would expire before it may start: give it more time.",
            ),
            RefusalKind::TooManyConstraints => (
                400,
                INVALID,
                "invalid_value",
                "The job has more constraints, fallbacks or metadata than one may have.",
            ),
            RefusalKind::SubcloudUnknown => {
                (404, INVALID, "subcloud_not_found", "No such subcloud in this environment.")
            }
            RefusalKind::SubcloudForbidden => {
                (403, INVALID, "subcloud_forbidden", "The subcloud doesn't admit this namespace or model.")
            }
            RefusalKind::TierForbidden => (400, INVALID, "invalid_value", "This tier is the system's own."),
            RefusalKind::Unrunnable(why) => (422, INVALID, "unrunnable", why.sentence()),
            RefusalKind::InsufficientCredits => (
                402,
                INVALID,
                "insufficient_credits",
                "The job's worst case costs more credits than there are.",
            ),
            RefusalKind::KeyConflict => (
                409,
                INVALID,
                "idempotency_key_reused",
                "This idempotency key came with another request: use a new one.",
            ),
            RefusalKind::KeysFull => (
                429,
                RATE,
                "rate_limit_exceeded",
                "As many idempotency keys as a namespace may have: the oldest expires within a day.",
            ),
            _ => (503, UNAVAILABLE, "server_is_overloaded", "The server can't tell any more names apart."),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, kind_word, code, message)
    }

    /// How a job ended that has no answer; `None` if it has one.
    pub(super) fn ended(end: &End) -> Option<Self> {
        let unavailable =
            |code, message: &str| Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, code, message);
        Some(match end {
            End::Succeeded(_) => return None,
            End::Failed(error) if error.class == ErrorClass::Terminal => {
                Self::new(StatusCode::BAD_REQUEST, INVALID, "request_rejected", error.message.clone())
            }
            End::Failed(error) => {
                Self::new(StatusCode::BAD_GATEWAY, SERVER, "node_error", error.message.clone())
            }
            End::Cancelled(CancelCause::Client) => {
                Self::new(StatusCode::CONFLICT, INVALID, "job_cancelled", "The job was cancelled on request.")
                    .retry(Retry::Never)
            }
            End::Cancelled(CancelCause::Operator) => {
                unavailable("job_cancelled", "The job was cancelled by the operator.")
                    .retry(retry_after_secs(RETRY_AFTER_UNKNOWN_S))
            }
            End::Cancelled(CancelCause::Shutdown) => {
                let message = "The server stopped before the job was done: nothing was charged.";
                unavailable("server_is_draining", message).retry(retry_after_secs(RETRY_AFTER_UNKNOWN_S))
            }
            End::Cancelled(CancelCause::Interrupted) => {
                let message = "The server restarted under the job: nothing was charged.";
                unavailable("job_interrupted", message).retry(retry_after_secs(RETRY_AFTER_MIN_S))
            }
            End::Expired => {
                let message = "The job waited longer than it was allowed to, and no node was free: nothing was charged.";
                unavailable("job_expired", message).retry(retry_after_secs(RETRY_AFTER_UNKNOWN_S))
            }
        })
    }

    /// The JSON body, without a line's end.
    pub(super) fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.message.len());
        out.extend_from_slice(b"{\"error\":{\"message\":");
        super::json::string(&mut out, &self.message);
        out.extend_from_slice(b",\"type\":");
        super::json::string(&mut out, self.kind);
        out.extend_from_slice(b",\"param\":");
        match &self.param {
            Some(param) => super::json::string(&mut out, param),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"code\":");
        super::json::string(&mut out, self.code);
        out.extend_from_slice(b"}}");
        out
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let RequestError { message, param, code } = error;
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, INVALID, code, message) }
    }
}

fn retry_after_secs(secs: u64) -> Retry {
    Retry::AfterSecs(secs.clamp(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S))
}

fn retry_after_span(after: Option<Span>) -> Retry {
    match after {
        Some(span) => retry_after_secs(span.as_ms().div_ceil(1_000)),
        None => retry_after_secs(RETRY_AFTER_UNKNOWN_S),
    }
}

/// How a client is told whether to try again: conflicts of keys never go away by themselves.
fn after_of(kind: RefusalKind, after: Retry) -> Retry {
    match kind {
        RefusalKind::KeyConflict => Retry::Never,
        RefusalKind::KeysFull | RefusalKind::NamesFull => after,
        _ => Retry::ByStatus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_map_to_statuses_with_bounded_waits() {
        let second = Span::from_secs(1);
        for (kind, after, status, code, retry) in [
            (RefusalKind::NamespaceQueueFull, Some(second), 429, "rate_limit_exceeded", Retry::AfterSecs(1)),
            (
                RefusalKind::QueueFull,
                Some(Span::from_secs(3_600)),
                503,
                "server_is_overloaded",
                Retry::AfterSecs(60),
            ),
            (RefusalKind::QueueBytesFull, Some(Span(1)), 503, "server_is_overloaded", Retry::AfterSecs(1)),
            (RefusalKind::DiskReserve, Some(second), 503, "disk", Retry::AfterSecs(1)),
            (RefusalKind::StoreBehind, Some(second), 503, "server_is_overloaded", Retry::AfterSecs(1)),
            (RefusalKind::RingFull, None, 503, "server_is_overloaded", Retry::AfterSecs(5)),
            (RefusalKind::Draining, Some(second), 503, "server_is_draining", Retry::AfterSecs(5)),
            (RefusalKind::ModelUnknown, None, 404, "model_not_found", Retry::ByStatus),
            (RefusalKind::OutputTooLarge, None, 400, "invalid_value", Retry::ByStatus),
            (RefusalKind::JobUnknown, None, 404, "job_not_found", Retry::ByStatus),
            (RefusalKind::InsufficientCredits, None, 402, "insufficient_credits", Retry::ByStatus),
            (RefusalKind::KeyConflict, None, 409, "idempotency_key_reused", Retry::Never),
            (RefusalKind::KeysFull, Some(second), 429, "rate_limit_exceeded", Retry::AfterSecs(1)),
            (RefusalKind::SubcloudForbidden, None, 403, "subcloud_forbidden", Retry::ByStatus),
        ] {
            let error = ApiError::refused(&Refusal { kind, retry_after: after }, "m");
            assert_eq!((error.status.as_u16(), error.code, error.retry), (status, code, retry), "{kind:?}");
        }
    }

    #[test]
    fn the_body_has_all_four_keys() {
        let error = ApiError::model_not_found("a\"b");
        let body: serde_json::Value = serde_json::from_slice(&error.render()).expect("JSON");
        let error = body["error"].as_object().expect("an object");
        assert_eq!(error.len(), 4);
        assert_eq!((&error["param"], &error["code"]), (&"model".into(), &"model_not_found".into()));
        let body: serde_json::Value = serde_json::from_slice(&ApiError::draining().render()).expect("JSON");
        assert!(body["error"]["param"].is_null());
    }

    #[test]
    fn every_unhappy_end_is_an_error() {
        use crate::coordinator::event::{FinishReason, JobError};
        let failed = |class| End::Failed(JobError { class, message: "no".into() });
        assert_eq!(ApiError::ended(&End::Succeeded(FinishReason::Stop)), None);
        for (end, status, code) in [
            (failed(ErrorClass::Terminal), 400, "request_rejected"),
            (failed(ErrorClass::Node), 502, "node_error"),
            (failed(ErrorClass::Transient), 502, "node_error"),
            (End::Cancelled(CancelCause::Client), 409, "job_cancelled"),
            (End::Cancelled(CancelCause::Operator), 503, "job_cancelled"),
            (End::Cancelled(CancelCause::Shutdown), 503, "server_is_draining"),
            (End::Cancelled(CancelCause::Interrupted), 503, "job_interrupted"),
            (End::Expired, 503, "job_expired"),
        ] {
            let error = ApiError::ended(&end).expect("unhappy");
            assert_eq!((error.status.as_u16(), error.code), (status, code));
        }
    }
}
