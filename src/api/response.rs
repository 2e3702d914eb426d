//! Answers as hyper sends them: bodies, and the headers that every answer has.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::error::{ApiError, Retry};
use super::sse::EventStream;
use super::unread::UnreadAnswer;
use crate::budget::Part;

/// Headers of a job's answer.
const HEADERS_USUAL: usize = 16;

/// The body of an answer.
pub(super) enum Body {
    /// All of it, until it was taken.
    Whole(Option<Bytes>),
    /// A job's large answer, slice by slice.
    Unread(Box<UnreadAnswer>),
    /// Events as they come.
    Events(Box<EventStream>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Unread(answer) => Poll::Ready(answer.take_slice().map(|slice| Ok(Frame::data(slice)))),
            Body::Events(events) => {
                events.poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Unread(answer) => answer.bytes_left() == 0,
            Body::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Unread(answer) => SizeHint::with_exact(answer.bytes_left() as u64),
            Body::Events(_) => SizeHint::default(),
        }
    }
}

/// An answer of that status and type.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let body = body.into();
    let mut response = Response::new(Body::Whole((!body.is_empty()).then_some(body)));
    *response.status_mut() = status;
    // Once for all of them: growing the map rehashes it.
    response.headers_mut().reserve(HEADERS_USUAL);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer of that status and type that keeps its part of a budget until the connection has taken it.
pub(super) fn held(
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    room: Part,
) -> Response<Body> {
    whole(status, content_type, Bytes::from_owner(HeldBytes { body, _room: room }))
}

/// Bytes that go with their part.
struct HeldBytes {
    body: Vec<u8>,
    _room: Part,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// A JSON answer.
pub(super) fn json(body: impl Into<Bytes>) -> Response<Body> {
    whole(StatusCode::OK, "application/json", body)
}

/// An error as an answer.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    let mut response = whole(error.status, "application/json", error.render());
    let headers = response.headers_mut();
    match error.retry {
        Retry::ByStatus => {}
        Retry::AfterSecs(secs) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        Retry::Never => {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
    }
    response
}

/// An error about the method, with the header that lists the right ones.
pub(super) fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let mut response = error(&ApiError::method_not_allowed(allow));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// Overrides what OpenAI's clients do by status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// Adds what every answer has.
pub(super) fn finish(headers: &mut HeaderMap, request_id: &RequestId, processing_ms: u64) {
    headers.insert(REQUEST_ID, request_id.header());
    headers.insert(PROCESSING_MS, HeaderValue::from(processing_ms));
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Names one request in its answer and in the logs: `req_` and 16 hexadecimal digits.
pub(super) struct RequestId([u8; 20]);

impl RequestId {
    /// The name that belongs to this number.
    pub(super) fn numbered(number: u64) -> Self {
        let mut text = *b"req_0000000000000000";
        for (index, digit) in text[4..].iter_mut().enumerate() {
            let nibble = (number >> (60 - 4 * index)) & 15;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        Self(text)
    }

    /// A name for a request that never was one.
    pub(super) fn random() -> Self {
        let mut number = [0; 8];
        // Without random bytes they share a name: it is only for the log.
        let _ = getrandom::fill(&mut number);
        Self::numbered(u64::from_le_bytes(number))
    }

    /// The name as text.
    pub(super) fn text(&self) -> &str {
        // Made of ASCII above.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static("req_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_hexadecimal() {
        assert_eq!(RequestId::numbered(0).text(), "req_0000000000000000");
        assert_eq!(RequestId::numbered(0x0123_4567_89ab_cdef).text(), "req_0123456789abcdef");
    }

    #[test]
    fn errors_say_when_to_try_again() {
        let draining = error(&ApiError::draining());
        assert_eq!(draining.status(), 503);
        assert_eq!(draining.headers()["retry-after"], "5");
        assert_eq!(method_not_allowed("GET, HEAD").headers()["allow"], "GET, HEAD");
    }
}
