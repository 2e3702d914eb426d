//! Whose fault it is.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode};

use super::super::fault::{Cause, Fault, retry_after};
use crate::coordinator::event::ErrorClass::{Node, Terminal, Transient};

#[test]
fn statuses_say_whose_fault_it_is() {
    let said = r#"{"error":{"message":"as it\nis","type":"x","param":null,"code":null}}"#;
    for (status, class, cause) in [
        (400, Terminal, Cause::Request),
        (401, Node, Cause::Key),
        (402, Terminal, Cause::Request),
        (403, Node, Cause::Key),
        (404, Node, Cause::Missing),
        (405, Terminal, Cause::Request),
        (408, Transient, Cause::Server),
        (409, Terminal, Cause::Request),
        (413, Terminal, Cause::Request),
        (422, Terminal, Cause::Request),
        (429, Transient, Cause::Busy),
        (500, Transient, Cause::Server),
        (501, Node, Cause::Missing),
        (502, Transient, Cause::Server),
        (503, Transient, Cause::Busy),
        (504, Transient, Cause::Server),
        (302, Node, Cause::Server),
        (204, Node, Cause::Server),
    ] {
        let fault = Fault::of_status(StatusCode::from_u16(status).expect("a status"), said.as_bytes());
        assert_eq!((fault.class, fault.cause), (class, cause), "{status}");
        match cause {
            Cause::Request => assert_eq!(fault.message, "as it is", "{status}: the server's own words"),
            Cause::Key => assert!(!fault.message.contains("as it is"), "they may have a part of the key"),
            _ => assert!(fault.message.contains("as it is"), "{status}: {}", fault.message),
        }
    }
}

#[test]
fn a_servers_words_are_found_where_servers_put_them() {
    let words = |body: &str| Fault::of_status(StatusCode::BAD_REQUEST, body.as_bytes()).message;
    for body in [
        r#"{"error":{"message":"too long"}}"#,
        r#"{"error":"too long"}"#,
        r#"{"object":"error","message":"too long","code":400}"#,
        // FastAPI's, of vLLM, TGI and others.
        r#"{"detail":"too long"}"#,
        r#"{"detail":[{"loc":["body"],"msg":"too long","type":"value_error"}]}"#,
        "too long\n",
    ] {
        assert_eq!(words(body), "too long", "{body}");
    }
    for body in ["", "{}", "<html>a proxy's page</html>", r#"{"error":{"message":""}}"#] {
        assert!(words(body).contains("status 400"), "{body}: {}", words(body));
    }
    assert!(words(&"x".repeat(60_000)).len() < 1_100);
    assert_eq!(words("\u{1F600}\u{0}\u{1F600}").chars().filter(|c| *c == '\u{1F600}').count(), 2);
    assert!(!Fault::of_status(StatusCode::BAD_REQUEST, b"\xff\xfe").message.is_empty());
}

#[test]
fn a_busy_server_is_left_alone_as_long_as_it_asks_within_reason() {
    for (value, expected) in
        [("2", Some(2_000)), ("0.5", Some(500)), ("9999", Some(60_000)), ("soon", None), ("-1", None)]
    {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", value.parse().expect("a value"));
        assert_eq!(retry_after(&headers), expected.map(Duration::from_millis), "{value}");
    }
    assert_eq!(retry_after(&HeaderMap::new()), None);
}
