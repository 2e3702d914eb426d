//! Reading request bodies: bounded in bytes, in time, and in the memory of all of them together.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::Context;
use super::error::ApiError;
use super::limits::Limits;
use crate::budget::{Budget, Share};
use crate::runtime::INLINE_BODY_BYTES_MAX;

/// A body with the room that it takes.
pub(super) struct ReadBody {
    pub(super) bytes: Vec<u8>,
    /// It counts the bytes as they came; what parsing makes of them meanwhile (up to a few times as much) is bounded by
    /// [`Parsers`].
    pub(super) room: Share,
}

/// Who parses large bodies: as many at once as there are cores, on threads where that blocks nobody.
pub(super) struct Parsers(Arc<Semaphore>);

impl Parsers {
    /// One for each core.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Does `work` there and waits for it. If this future is dropped before its turn, nothing is done; if it is
    /// dropped later, `work` goes on, and everything that it owns stays taken until its end. `None` if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let place = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let placed = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(placed).await.ok()
    }
}

/// Reads the body of a request for work, which a box that drains doesn't take.
pub(super) async fn of_work(
    context: &Context,
    request: Request<Incoming>,
) -> Result<(Parts, ReadBody), ApiError> {
    if context.drain.is_draining() {
        return Err(ApiError::draining());
    }
    let (head, body) = request.into_parts();
    check_type(&head.headers)?;
    let read = read(body, &context.limits, &context.bodies).await;
    Ok((head, read.inspect_err(|_| context.tally.bodies_refused.add())?))
}

/// Does the work of parsing a body: of a large one where that blocks nobody.
pub(super) async fn parse<T: Send + 'static>(
    context: &Arc<Context>,
    read: ReadBody,
    work: impl FnOnce(&Context, ReadBody) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if read.bytes.len() <= INLINE_BODY_BYTES_MAX {
        return work(context, read);
    }
    let parsing = Arc::clone(context);
    let parsed = context.parsers.run(move || work(&parsing, read)).await;
    parsed.ok_or_else(|| ApiError::internal("The request could not be parsed: please report it."))?
}

/// Whether the headers promise JSON as it is; without a type it is taken to be JSON.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(value) = headers.get(CONTENT_TYPE) {
        let text = value.to_str().unwrap_or_default();
        let media = text.split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::media_type("content-type"));
        }
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(ApiError::media_type("content-encoding")),
        _ => Ok(()),
    }
}

/// Reads a body to its end. Its announced length is checked, and room for it taken, before its first byte is read.
pub(super) async fn read(
    mut body: Incoming,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<ReadBody, ApiError> {
    let bytes_max = limits.body_bytes_max;
    let announced = body.size_hint().exact();
    if announced.is_some_and(|announced| announced > bytes_max) {
        return Err(ApiError::body_too_large(bytes_max));
    }
    let room = budget.take(announced.unwrap_or(bytes_max)).ok_or_else(ApiError::bodies_full)?;
    let mut pace = Pace::new(limits);
    let Some(first) = pace.frame(&mut body).await? else {
        return Ok(ReadBody { bytes: Vec::new(), room });
    };
    let mut bytes = Vec::with_capacity(announced.map_or(0, |announced| announced as usize));
    bytes.extend_from_slice(&first);
    // One piece is all of a small body.
    if announced == Some(bytes.len() as u64) {
        return Ok(ReadBody { bytes, room });
    }
    loop {
        if bytes.len() as u64 > bytes_max {
            return Err(ApiError::body_too_large(bytes_max));
        }
        match pace.frame(&mut body).await? {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => return Ok(ReadBody { bytes, room }),
        }
    }
}

/// How long the body and each of its pieces may take.
struct Pace {
    idle: Duration,
    whole_until: Instant,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        Self {
            idle: Duration::from_millis(limits.body_idle_timeout_ms),
            whole_until: Instant::now() + Duration::from_millis(limits.body_timeout_ms),
        }
    }

    /// The next piece of data; trailers are ignored.
    async fn frame(&mut self, body: &mut Incoming) -> Result<Option<bytes::Bytes>, ApiError> {
        loop {
            let until = self.whole_until.min(Instant::now() + self.idle);
            match timeout_at(until, body.frame()).await {
                Err(_) => return Err(ApiError::body_timeout()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(ApiError::body_broken()),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_has_as_many_places_as_cores() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let parsers = Arc::new(Parsers(Arc::new(Semaphore::new(1))));
            let (free, blocked) = std::sync::mpsc::channel::<()>();
            let first = Arc::clone(&parsers);
            let first = tokio::spawn(async move { first.run(move || blocked.recv()).await });
            tokio::task::yield_now().await;
            let second = Arc::clone(&parsers);
            let second = tokio::spawn(async move { second.run(|| 2).await });
            tokio::task::yield_now().await;
            // The place is the work's, not that of whoever waits for it.
            first.abort();
            assert!(first.await.expect_err("aborted").is_cancelled());
            assert_eq!(parsers.0.available_permits(), 0);
            assert!(!second.is_finished());
            free.send(()).expect("the work goes on");
            assert_eq!(second.await.expect("no panic"), Some(2));
            assert!(parsers.run(|| panic!("on purpose")).await.is_none_or(|()| false));
            assert_eq!(parsers.0.available_permits(), 1);
        });
    }

    #[test]
    fn only_plain_json_is_taken() {
        for (name, value, fits) in [
            ("content-type", "application/json", true),
            ("content-type", "Application/JSON; charset=utf-8", true),
            ("content-type", "text/plain", false),
            ("content-type", "multipart/form-data; boundary=application/json", false),
            ("content-encoding", "identity", true),
            ("content-encoding", "gzip", false),
            ("x-other", "y", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            assert_eq!(check_type(&headers).is_ok(), fits, "{name}: {value}");
        }
    }
}
