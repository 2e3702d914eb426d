//! `/v1/nodes/connect`: turns an agent's request into a WebSocket, and hands that on. It looks at the upgrade and at
//! nothing that is said on it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::error::{ApiError, Retry};
use super::response::{self, Body};
use super::server::Peer;
use crate::arrivals::{Arrival, Arrivals, Place};
use crate::wire::SUBPROTOCOL;

/// What the key of an upgrade is hashed with (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of an upgrade's key.
const KEY_BYTES: usize = 16;
/// When an agent may try again that found no room.
const RETRY_AFTER_S: u64 = 1;

/// Answers an upgrade, and hands the connection on.
///
/// # Errors
/// When it isn't a proper upgrade, comes from a browser, or finds no room.
pub(super) fn upgrade(
    arrivals: &Arrivals,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let key = check(request.method(), request.version(), request.headers())?;
    let accept = HeaderValue::try_from(accept_of(key)).map_err(|_| ApiError::unexpected())?;
    let room = arrivals.room().ok_or_else(no_room)?;
    let from = match peer {
        Peer::Ip(ip) => Some(ip),
        Peer::Unix => None,
    };
    let place = request.extensions_mut().remove::<Place>();
    room.send(Arrival { upgrade: hyper::upgrade::on(&mut request), from, place });
    let mut response = response::whole(StatusCode::SWITCHING_PROTOCOLS, "application/json", "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

/// The key of an upgrade to our protocol.
fn check<'h>(method: &Method, version: Version, headers: &'h HeaderMap) -> Result<&'h [u8], ApiError> {
    if headers.contains_key(ORIGIN) {
        let message = "Agents connect here, and web pages don't: send no `Origin`.";
        return Err(refused(StatusCode::FORBIDDEN, "origin_not_allowed", message.into()));
    }
    let is_upgrade = method == Method::GET
        && version == Version::HTTP_11
        && has_word(headers, &UPGRADE, "websocket")
        && has_word(headers, &CONNECTION, "upgrade");
    if !is_upgrade {
        let message = "Agents connect here with a WebSocket: send `GET` with `Upgrade: websocket` and `Connection: \
                       Upgrade`. A proxy in between has to pass them on.";
        return Err(refused(StatusCode::BAD_REQUEST, "not_an_upgrade", message.into()));
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let message = "Only version 13 of WebSockets is spoken here: send `Sec-WebSocket-Version: 13`.";
        return Err(refused(StatusCode::BAD_REQUEST, "websocket_version", message.into()));
    }
    if !has_word(headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let message =
            format!("The subprotocol here is `{SUBPROTOCOL}`: name it in `Sec-WebSocket-Protocol`.");
        return Err(refused(StatusCode::BAD_REQUEST, "subprotocol_unknown", message));
    }
    let is_key = |key: &&[u8]| BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
    only(headers, &SEC_WEBSOCKET_KEY).filter(is_key).ok_or_else(|| {
        let message = "`Sec-WebSocket-Key` must be 16 random bytes in base64.";
        refused(StatusCode::BAD_REQUEST, "websocket_key", message.into())
    })
}

/// The value of a header that came once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// Whether a header's list has a word, in whatever case.
fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// What proves that an upgrade was understood.
fn accept_of(key: &[u8]) -> String {
    let mut sha = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha.update(key);
    sha.update(GUID);
    BASE64_STANDARD.encode(sha.finish())
}

fn refused(status: StatusCode, code: &'static str, message: String) -> ApiError {
    let kind = "invalid_request_error";
    ApiError { status, kind, code, param: None, message, retry: Retry::ByStatus }
}

fn no_room() -> ApiError {
    let message = "Too many agents connect at this moment: try again.".to_owned();
    let error = refused(StatusCode::SERVICE_UNAVAILABLE, "connections_full", message);
    ApiError { kind: "service_unavailable_error", retry: Retry::AfterSecs(RETRY_AFTER_S), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::{Dice, number};

    const GOOD: [(&str, &str); 5] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "other, switchbox.v1"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_isnt_a_proper_upgrade_is_refused_by_name() {
        let good = headers(&GOOD);
        assert_eq!(check(&Method::GET, Version::HTTP_11, &good), Ok(GOOD[4].1.as_bytes()));
        let code =
            |method, version, headers: &HeaderMap| check(&method, version, headers).err().map(|e| e.code);
        assert_eq!(code(Method::POST, Version::HTTP_11, &good), Some("not_an_upgrade"));
        assert_eq!(code(Method::GET, Version::HTTP_10, &good), Some("not_an_upgrade"));
        for (name, value, expected) in [
            ("connection", "keep-alive", "not_an_upgrade"),
            ("upgrade", "h2c", "not_an_upgrade"),
            ("sec-websocket-version", "8", "websocket_version"),
            ("sec-websocket-protocol", "switchbox.v10", "subprotocol_unknown"),
            ("sec-websocket-key", "", "websocket_key"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25j", "websocket_key"),
            ("sec-websocket-key", "not base64, not base64==", "websocket_key"),
            ("origin", "https://chat.example", "origin_not_allowed"),
        ] {
            let mut changed = good.clone();
            changed.insert(name, HeaderValue::from_static(value));
            assert_eq!(code(Method::GET, Version::HTTP_11, &changed), Some(expected), "{name}: {value}");
            let mut missing = good.clone();
            if missing.remove(name).is_some() {
                assert_eq!(code(Method::GET, Version::HTTP_11, &missing), Some(expected), "no {name}");
            }
        }
        let mut twice = good.clone();
        twice.append("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(code(Method::GET, Version::HTTP_11, &twice), Some("websocket_key"));
    }

    /// A header's value: what belongs there, what nearly does, and bytes.
    fn value(name: usize, dice: &mut Dice) -> Vec<u8> {
        const NEAR: [&[u8]; 8] = [
            b"",
            b",",
            b"upgrade",
            b"websocket;",
            b"013",
            b"switchbox.v1.1",
            b"AAAAAAAAAAAAAAAAAAAAAA==",
            b"=",
        ];
        let mut value = match dice.roll(4) {
            0 => NEAR[dice.roll(NEAR.len())].to_vec(),
            1 => (0..dice.roll(40)).map(|_| dice.roll(256) as u8).collect(),
            _ => GOOD[name].1.as_bytes().to_vec(),
        };
        match dice.roll(6) {
            0 => value.make_ascii_uppercase(),
            1 => value.extend_from_slice(b" "),
            2 if !value.is_empty() => {
                let at = dice.roll(value.len());
                value[at] ^= 1 << dice.roll(8);
            }
            _ => {}
        }
        value
    }

    /// `SWITCHBOX_FUZZ_RUNS` says how often. What is let in has all that the standard asks for, and its answer.
    #[test]
    fn no_headers_break_the_upgrade() {
        let (mut let_in, mut refused) = (0, 0);
        for seed in 0..number("SWITCHBOX_FUZZ_RUNS", 20_000) {
            let mut dice = Dice(seed);
            let mut headers = HeaderMap::new();
            for (at, (name, _)) in GOOD.iter().enumerate() {
                for _ in 0..[1, 1, 1, 1, 1, 1, 0, 2][dice.roll(8)] {
                    if let Ok(value) = HeaderValue::from_bytes(&value(at, &mut dice)) {
                        headers.append(*name, value);
                    }
                }
            }
            if dice.once_in(20) {
                headers.append(ORIGIN, HeaderValue::from_static("null"));
            }
            match check(&Method::GET, Version::HTTP_11, &headers) {
                Ok(key) => {
                    let sole = |name: &str| headers.get_all(name).iter().count() == 1;
                    assert!(sole("sec-websocket-key") && sole("sec-websocket-version"), "seed {seed}");
                    assert!(!headers.contains_key(ORIGIN) && key.len() == 24, "seed {seed}");
                    assert!(HeaderValue::try_from(accept_of(key)).is_ok(), "seed {seed}");
                    let_in += 1;
                }
                Err(error) => {
                    assert!(matches!(error.status.as_u16(), 400 | 403), "seed {seed}");
                    refused += 1;
                }
            }
        }
        assert!(let_in > 0 && refused > 0, "{let_in} let in, {refused} refused");
    }
}
