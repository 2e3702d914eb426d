//! Browsers: which web pages may use this server, and whether a request's `Host` is this machine.
//!
//! A page of any site can send requests to 127.0.0.1, or make its own name resolve to it. So without keys the
//! `Host` must be a loopback name and an `Origin`, which only browsers send, must have been listed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, Response, StatusCode};

use super::error::ApiError;
use super::response::Body;

/// Headers of ours that scripts of a listed page may read.
const EXPOSED: &str = "x-request-id, openai-processing-ms, retry-after, x-should-retry, x-switchbox-job-id, \
x-switchbox-queue-ms, x-switchbox-node, x-switchbox-attempts, x-switchbox-credits, x-ratelimit-limit-requests, \
x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, \
x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";
const METHODS: &str = "GET, POST, OPTIONS";
const MAX_AGE_S: u64 = 600;

/// The origins of web pages that may use this server, as browsers write them (`https://chat.example`).
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Exactly these; what can't be a header's value can't be an origin either and is left out.
    pub fn listed<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        Self(origins.into_iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// The request's origin, if it has one and it is listed.
    pub(super) fn allowed<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        headers.get(ORIGIN).filter(|origin| self.0.contains(origin))
    }
}

/// Without keys: refuses what a strange web page could have sent.
pub(super) fn check_local<B>(request: &Request<B>, origins: &Origins) -> Result<(), ApiError> {
    if !is_to_loopback(request) {
        return Err(ApiError::host_not_allowed());
    }
    let headers = request.headers();
    if headers.contains_key(ORIGIN) && origins.allowed(headers).is_none() {
        return Err(ApiError::origin_not_allowed());
    }
    Ok(())
}

/// Whether a request names this very machine, in its one `Host` header and in its target if that is absolute.
pub(super) fn is_to_loopback<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let is_loopback_target = request.uri().host().is_none_or(is_loopback_name);
    is_loopback_target && host.to_str().is_ok_and(|host| is_loopback_name(without_port(host)))
}

/// Whether this is a preflight: what a browser asks before it lets a page send a request.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a preflight; origins that aren't listed are refused.
pub(super) fn preflight(headers: &HeaderMap, origins: &Origins) -> Response<Body> {
    if origins.allowed(headers).is_none() {
        return super::response::error(&ApiError::origin_not_allowed());
    }
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    // Clients send x-stainless-* and more; which ones says nothing about what they may do.
    let wanted = headers.get("access-control-request-headers").cloned();
    let fallback = HeaderValue::from_static("authorization, content-type");
    answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(fallback));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_S));
    response
}

/// Lets the browser hand the answer to the page.
pub(super) fn allow(answer: &mut HeaderMap, origin: HeaderValue) {
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    answer.append(VARY, HeaderValue::from_static("Origin"));
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn is_loopback_name(name: &str) -> bool {
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let ip = match bracketed {
        Some(name) => name.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    ip.is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, origin: Option<&str>) -> Request<()> {
        let builder = Request::builder().uri("/v1/models").header(HOST, host);
        let builder = origin.into_iter().fold(builder, |builder, origin| builder.header(ORIGIN, origin));
        builder.body(()).expect("a request")
    }

    #[test]
    fn only_loopback_hosts_are_local() {
        for (host, local) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1", true),
            ("127.9.9.9:1", true),
            ("[::1]", true),
            ("[::1]:8080", true),
            ("", false),
            ("::1", false),
            ("example.com", false),
            ("localhost.example.com:8080", false),
            ("127.0.0.1.example.com", false),
            ("128.0.0.1", false),
            ("[::2]:1", false),
            ("localhost:80:80", false),
            ("evil@localhost", false),
        ] {
            assert_eq!(is_to_loopback(&request(host, None)), local, "{host}");
        }
        let absolute = Request::builder().uri("http://evil.example/v1/models").header(HOST, "localhost");
        assert!(!is_to_loopback(&absolute.body(()).expect("a request")));
        let two = Request::builder().uri("/").header(HOST, "localhost").header(HOST, "evil.example");
        assert!(!is_to_loopback(&two.body(()).expect("a request")));
        assert!(!is_to_loopback(&Request::builder().uri("/").body(()).expect("a request")));
    }

    #[test]
    fn only_listed_origins_pass() {
        let origins = Origins::listed(["https://chat.example"]);
        for (origin, refused) in [
            (None, None),
            (Some("https://chat.example"), None),
            (Some("https://chat.example.evil"), Some("origin_not_allowed")),
            (Some("null"), Some("origin_not_allowed")),
        ] {
            let result = check_local(&request("localhost:1", origin), &origins);
            assert_eq!(result.err().map(|error| error.code), refused, "{origin:?}");
        }
    }

    #[test]
    fn preflights_answer_listed_origins_only() {
        let origins = Origins::listed(["https://chat.example"]);
        for (origin, status) in [("https://chat.example", 204), ("https://evil.example", 403)] {
            let request = request("localhost", Some(origin));
            assert_eq!(preflight(request.headers(), &origins).status(), status);
        }
    }
}
