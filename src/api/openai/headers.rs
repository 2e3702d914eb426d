//! The headers of inference answers, and the one of requests that says how long their client will wait.

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};

use crate::api::Context;
use crate::api::auth::InFlight;
use crate::api::limits::Limits;
use crate::coordinator::effect::Finished;
use crate::ids::JobId;
use crate::time::Span;

const JOB_ID: HeaderName = HeaderName::from_static("x-switchbox-job-id");
const QUEUE_MS: HeaderName = HeaderName::from_static("x-switchbox-queue-ms");
const NODE: HeaderName = HeaderName::from_static("x-switchbox-node");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-switchbox-attempts");
const CREDITS: HeaderName = HeaderName::from_static("x-switchbox-credits");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");

/// Shortest wait that a client can ask for.
const TTL_MIN: Duration = Duration::from_secs(1);

/// How a client announces how long it waits: Python's client always, Node's if it was told to.
const CLIENT_TIMEOUTS: [&str; 2] = ["x-stainless-read-timeout", "x-stainless-timeout"];

/// Writes what is known of a job that ended.
pub(super) fn write_finished(headers: &mut HeaderMap, finished: &Finished) {
    headers.insert(JOB_ID, displayed(finished.job));
    headers.insert(QUEUE_MS, HeaderValue::from(finished.queue.as_ms()));
    // 0 if it never ran; a job that failed or was cancelled says its last attempt as well.
    if finished.attempt > 0 {
        headers.insert(ATTEMPTS, HeaderValue::from(finished.attempt));
    }
    headers.insert(CREDITS, displayed(finished.charged));
    if let Some(node) = &finished.node {
        headers.insert(NODE, displayed(node));
    }
}

/// Writes what is known of a job whose events begin.
pub(super) fn write_stream(headers: &mut HeaderMap, job: Option<JobId>) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    write_job(headers, job);
}

/// Writes which job it is, if there is one.
pub(super) fn write_job(headers: &mut HeaderMap, job: Option<JobId>) {
    if let Some(job) = job {
        headers.insert(JOB_ID, displayed(job));
    }
}

fn displayed(value: impl std::fmt::Display) -> HeaderValue {
    // Ids and amounts are ASCII; a node's name that isn't is left out rather than mangled.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(value.to_string()))
        .unwrap_or(HeaderValue::from_static(""))
}

/// How long a job may wait: what the operator set, or less if its client gives up earlier.
pub(super) fn ttl(headers: &HeaderMap, limits: &Limits) -> Span {
    let default = Duration::from_millis(limits.ttl_default_ms);
    let seconds = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let announced = CLIENT_TIMEOUTS.into_iter().find_map(seconds);
    let announced = announced.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let ttl = announced.map_or(default, |announced| announced.max(TTL_MIN).min(default));
    Span::from_ms(ttl.as_millis() as u64)
}

/// What `x-ratelimit-*` says: there is no rate here, but the namespace's share of the queue is a bound of the
/// same kind. Requests: how many may be in the queue, and how many more that leaves at least (running ones are
/// counted too). Tokens: what these could hold of this model's context. Reset: the soonest that a place can be
/// free again, `0s` when none is taken.
pub(super) struct Quota {
    requests: u64,
    taken: u64,
    /// `None` where nobody here knows: then nothing is said of tokens.
    context_tokens: Option<u64>,
}

impl Quota {
    /// The quota of a namespace as it is with this request in it.
    pub(super) fn new(context: &Context, in_flight: &InFlight, context_tokens: Option<u32>) -> Self {
        Self {
            requests: context.limits.namespace_queue_jobs_max,
            taken: in_flight.count(),
            context_tokens: context_tokens.map(u64::from),
        }
    }

    /// Writes it.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let remaining = self.requests.saturating_sub(self.taken);
        let reset = HeaderValue::from_static(if self.taken == 0 { "0s" } else { "1s" });
        headers.insert(LIMIT_REQUESTS, HeaderValue::from(self.requests));
        headers.insert(REMAINING_REQUESTS, HeaderValue::from(remaining));
        headers.insert(RESET_REQUESTS, reset.clone());
        let Some(context_tokens) = self.context_tokens else { return };
        let tokens = |requests: u64| HeaderValue::from(requests.saturating_mul(context_tokens));
        headers.insert(LIMIT_TOKENS, tokens(self.requests));
        headers.insert(REMAINING_TOKENS, tokens(remaining));
        headers.insert(RESET_TOKENS, reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_patience_bounds_the_wait() {
        let limits = Limits { ttl_default_ms: 600_000, ..Limits::default() };
        for (name, value, expected_ms) in [
            ("x-other", "1", 600_000),
            ("x-stainless-read-timeout", "600", 600_000),
            ("x-stainless-read-timeout", "30.5", 30_500),
            ("x-stainless-timeout", "20", 20_000),
            ("x-stainless-timeout", "0", 1_000),
            ("x-stainless-timeout", "-5", 600_000),
            ("x-stainless-timeout", "inf", 600_000),
            ("x-stainless-timeout", "NaN", 600_000),
            ("x-stainless-timeout", "1e300", 600_000),
            ("x-stainless-timeout", "soon", 600_000),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            assert_eq!(ttl(&headers, &limits), Span::from_ms(expected_ms), "{name}: {value}");
        }
    }

    #[test]
    fn quotas_never_underflow() {
        let mut headers = HeaderMap::new();
        Quota { requests: 2, taken: 5, context_tokens: Some(u64::MAX) }.write(&mut headers);
        assert_eq!(headers["x-ratelimit-remaining-requests"], "0");
        assert_eq!(headers["x-ratelimit-limit-tokens"], u64::MAX.to_string().as_str());
    }
}
