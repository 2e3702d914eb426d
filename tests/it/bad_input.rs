//! What comes from outside and is wrong: each case gets its status, its code, the field's name and the four keys of an
//! error, the box lives on, and nothing stays behind.

use crate::harness::chat;
use crate::harness::http::{Connection, Response};
use crate::harness::model_path;
use crate::harness::server::{Server, Setup};
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

/// A body, and the status, code and param of its refusal.
struct Case<'a> {
    path: &'a str,
    body: &'a str,
    status: u16,
    code: &'a str,
    param: Option<&'a str>,
}

const fn chat_case<'a>(body: &'a str, status: u16, code: &'a str, param: Option<&'a str>) -> Case<'a> {
    Case { path: CHAT, body, status, code, param }
}

/// `{}` in a body stands for a valid `model` and `messages`.
const BODIES: &[Case] = &[
    chat_case("{", 400, "invalid_json", None),
    chat_case("nonsense", 400, "invalid_json", None),
    chat_case("{{}} trailing", 400, "invalid_json", None),
    chat_case("[[[[[[[[", 400, "invalid_json", None),
    chat_case(
        r#"{"messages":[{"role":"user","content":"x"}]}"#,
        400,
        "missing_required_parameter",
        Some("model"),
    ),
    chat_case(r#"{"model":"echo"}"#, 400, "missing_required_parameter", Some("messages")),
    chat_case(
        r#"{"model":7,"messages":[{"role":"user","content":"x"}]}"#,
        400,
        "invalid_type",
        Some("model"),
    ),
    chat_case(r#"{"model":"echo","messages":"hello"}"#, 400, "invalid_type", Some("messages")),
    chat_case(r#"{"model":"echo","messages":[]}"#, 400, "invalid_value", Some("messages")),
    chat_case(
        r#"{"model":"nope","messages":[{"role":"user","content":"x"}]}"#,
        404,
        "model_not_found",
        Some("model"),
    ),
    chat_case(r#"{{},"temperature":"warm"}"#, 400, "invalid_type", Some("temperature")),
    chat_case(r#"{{},"temperature":-1}"#, 400, "invalid_value", Some("temperature")),
    chat_case(r#"{{},"temperature":1e300}"#, 400, "invalid_value", Some("temperature")),
    chat_case(r#"{{},"top_p":0}"#, 400, "invalid_value", Some("top_p")),
    chat_case(r#"{{},"max_tokens":-5}"#, 400, "invalid_value", Some("max_tokens")),
    chat_case(r#"{{},"max_tokens":1.5}"#, 400, "invalid_type", Some("max_tokens")),
    chat_case(r#"{{},"max_tokens":0}"#, 400, "invalid_value", Some("max_tokens")),
    chat_case(r#"{{},"stream":"yes"}"#, 400, "invalid_type", Some("stream")),
    chat_case(r#"{{},"stop":["a","b","c","d","e"]}"#, 400, "invalid_value", Some("stop")),
    chat_case(r#"{{},"seed":"s"}"#, 400, "invalid_type", Some("seed")),
    chat_case(r#"{{},"n":2}"#, 400, "unsupported_value", Some("n")),
    chat_case(
        r#"{{},"tools":[{"type":"function","function":{"name":"f"}}]}"#,
        400,
        "unsupported_parameter",
        Some("tools"),
    ),
    chat_case(r#"{{},"logprobs":true}"#, 400, "unsupported_value", Some("logprobs")),
    Case {
        path: "/v1/completions",
        body: r#"{"model":"echo"}"#,
        status: 400,
        code: "missing_required_parameter",
        param: Some("prompt"),
    },
    Case {
        path: "/v1/completions",
        body: r#"{"model":"nope","prompt":"x"}"#,
        status: 404,
        code: "model_not_found",
        param: Some("model"),
    },
];

fn check(
    server: &mut Server,
    what: &str,
    answer: &Response,
    status: u16,
    code: Option<&str>,
    param: Option<&str>,
) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let error = answer.error();
    if let Some(code) = code {
        assert_eq!(error["code"], code, "{what}: {error}");
        assert_eq!(error["param"].as_str(), param, "{what}: {error}");
    }
    assert!(server.alive(), "{what}: the box died");
}

#[test]
fn bad_bodies_are_refused_by_name() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let valid = r#""model":"echo","messages":[{"role":"user","content":"x"}]"#;
    for case in BODIES {
        let body = case.body.replace("{}", valid);
        let answer = server.call("POST", case.path, &body);
        check(&mut server, &body, &answer, case.status, Some(case.code), case.param);
    }
    still_serves(&server);
    server.assert_nothing_left();
}

#[test]
fn bytes_that_are_no_text_and_depth_without_end() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let mut bad_utf8 = br#"{"model":"echo","messages":[{"role":"user","content":""#.to_vec();
    bad_utf8.extend([0xff, 0xfe, 0xc3]);
    bad_utf8.extend(br#""}]}"#);
    let deep = format!(r#"{{"model":"echo","messages":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for body in [bad_utf8, deep.into_bytes(), vec![0; 1000]] {
        let request = server.request("POST", CHAT).header("content-type", "application/json").body(&body);
        let answer = request.send();
        let what = String::from_utf8_lossy(&body[..40]).into_owned();
        check(&mut server, &what, &answer, 400, Some("invalid_json"), None);
    }
    still_serves(&server);
    server.assert_nothing_left();
}

#[test]
fn wrong_addresses_and_methods() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let cases = [
        ("GET", "/", 404),
        ("GET", "/v2/models", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/models/nope", 404),
        ("GET", CHAT, 405),
        ("DELETE", CHAT, 405),
        ("PUT", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
    ];
    for (method, path, status) in cases {
        let answer = server.request(method, path).send();
        check(&mut server, &format!("{method} {path}"), &answer, status, None, None);
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{method} {path}: 405 names what is allowed");
        }
    }
    server.assert_nothing_left();
}

#[test]
fn a_body_of_another_type_is_not_guessed_at() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let body = chat::body("echo", "x", json!({}));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let answer = server.request("POST", CHAT).header("content-type", kind).body(body.as_bytes()).send();
        check(&mut server, kind, &answer, 415, None, None);
    }
    let spelled = server.request("POST", CHAT).header("content-type", "application/json; charset=utf-8");
    assert_eq!(spelled.body(body.as_bytes()).send().status, 200);
    server.assert_nothing_left();
}

#[test]
fn too_big_is_said_before_it_is_read() {
    let mut server = Setup::open().model("echo", "echo:").config("[limits]\nbody_bytes_max = 10000").start();
    let big = chat::body("echo", &"x".repeat(20_000), json!({}));
    let answer = server.call("POST", CHAT, &big);
    check(&mut server, "content-length above the bound", &answer, 413, None, None);
    let mut chunked = Connection::new(server.addr);
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        server.addr
    );
    let _ = chunked.send(head.as_bytes());
    for _ in 0..20 {
        let _ = chunked.send(format!("400\r\n{}\r\n", "x".repeat(0x400)).as_bytes());
    }
    let _ = chunked.send(b"0\r\n\r\n");
    let answer = chunked.finish();
    check(&mut server, "chunked beyond the bound", &answer, 413, None, None);
    still_serves(&server);
    server.assert_nothing_left();
}

#[test]
fn heads_beyond_their_bounds() {
    let mut server = Setup::open().model("echo", "echo:").start();
    // The HTTP library answers these itself, before any of our code runs, and without a body.
    let answer = server.request("GET", "/v1/models").header("x-filler", &"y".repeat(300_000)).send();
    assert_eq!(answer.status, 431, "one header of 300 kB");
    let many = (0..500).fold(server.request("GET", "/v1/models"), |r, i| r.header(&format!("x-{i}"), "y"));
    assert_eq!(many.send().status, 431, "500 headers");
    assert!(server.alive());
    still_serves(&server);
    server.assert_nothing_left();
}

#[test]
fn what_is_no_http_gets_no_further_than_its_connection() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let lines = [
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long_line,
    ];
    for line in lines {
        let mut connection = Connection::new(server.addr);
        let _ = connection.send(line.as_bytes());
        connection.read_to_close();
        assert!(server.alive());
    }
    still_serves(&server);
    server.assert_nothing_left();
}

#[test]
fn a_prompt_longer_than_the_context() {
    let mut server = Setup::open().model("small", model_path()).start();
    let long = chat::long_prompt(9_000);
    let answer = chat::ask(&server, "small", &long, json!({}));
    check(&mut server, "9,000 tokens", &answer, 400, Some("context_length_exceeded"), Some("messages"));
    let text = json!({"model": "small", "prompt": long}).to_string();
    let answer = server.call("POST", "/v1/completions", &text);
    check(&mut server, "9,000 tokens", &answer, 400, Some("context_length_exceeded"), Some("prompt"));
    let answer = chat::ask(&server, "small", "hi", json!({"max_tokens": 4_000_000_000_u64}));
    check(&mut server, "4e9 tokens wanted", &answer, 400, None, None);
    server.assert_nothing_left();
}

#[test]
fn a_body_that_never_comes() {
    let limits = "[limits]\nbody_idle_timeout_ms = 200\nheader_read_timeout_ms = 200";
    let mut server = Setup::open().model("echo", "echo:").config(limits).start();
    let mut half = Connection::new(server.addr);
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{{\"mod",
        server.addr
    );
    half.send(head.as_bytes()).expect("the box takes the head");
    let answer = half.finish();
    check(&mut server, "a body that stops", &answer, 408, None, None);
    let mut headless = Connection::new(server.addr);
    headless.send(b"GET /v1/models HTTP/1.1\r\nhost: ").expect("the box takes the start");
    headless.read_to_close();
    server.assert_nothing_left();
}

fn still_serves(server: &Server) {
    let answer = chat::ask(server, "echo", "still here", json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}
