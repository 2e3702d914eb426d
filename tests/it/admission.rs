//! Who may ask: keys, the Host and Origin rules of a box without keys, CORS, and the admin listener's token.

use crate::harness::chat;
use crate::harness::http::{Request, Response};
use crate::harness::server::{Server, Setup};
use serde_json::json;

fn refused(answer: &Response, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.error()["code"], code);
}

fn models(server: &Server) -> Request {
    server.request("GET", "/v1/models")
}

#[test]
fn a_key_is_needed_and_only_the_right_one_does() {
    let server = Setup::keyed().model("echo", "echo:").start();
    let key = server.key.clone().expect("a keyed box");
    assert_eq!(server.call("GET", "/v1/models", "").status, 200);
    let bare = || Request::new(server.addr, "GET", "/v1/models");
    refused(&bare().send(), 401, "invalid_api_key");
    let other_secret = format!("{}x", &key[..key.len() - 1]);
    let swapped = key.replace("sk-", "sk-x");
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer sk-none",
        &format!("Basic {key}"),
        &format!("Bearer {other_secret}"),
        &format!("Bearer {swapped}"),
    ] {
        refused(&bare().header("authorization", wrong).send(), 401, "invalid_api_key");
    }
    let body = chat::body("echo", "x", json!({}));
    refused(
        &Request::new(server.addr, "POST", "/v1/chat/completions").json(&body).send(),
        401,
        "invalid_api_key",
    );
    for open in ["/healthz", "/readyz"] {
        assert_eq!(Request::new(server.addr, "GET", open).send().status, 200, "{open} needs no key");
    }
    server.assert_nothing_left();
}

/// Without keys, a page in a browser on the same machine must not reach the box: neither by a name that an attacker
/// resolves to loopback (the Host), nor from its own site (the Origin).
#[test]
fn a_box_without_keys_answers_only_its_own_names() {
    let server = Setup::open().model("echo", "echo:").start();
    let port = server.addr.port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "localhost".into(),
        format!("[::1]:{port}"),
    ] {
        assert_eq!(models(&server).header("host", &host).send().status, 200, "host {host}");
    }
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"] {
        refused(&models(&server).header("host", host).send(), 403, "host_not_allowed");
    }
    for origin in ["http://evil.example", "null", "https://localhost.evil.example"] {
        refused(&models(&server).header("origin", origin).send(), 403, "origin_not_allowed");
        let body = chat::body("echo", "x", json!({}));
        let post = server.request("POST", "/v1/chat/completions").header("origin", origin).json(&body);
        refused(&post.send(), 403, "origin_not_allowed");
    }
    server.assert_nothing_left();
}

#[test]
fn a_listed_origin_gets_cors() {
    let page = "https://chat.example";
    let server = Setup::open().model("echo", "echo:").arg("--cors-origin").arg(page).start();
    let answer = models(&server).header("origin", page).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), Some(page));
    let exposed =
        answer.header("access-control-expose-headers").expect("headers are exposed").to_ascii_lowercase();
    assert!(
        exposed.contains("x-request-id") && exposed.contains("x-ratelimit-remaining-requests"),
        "{exposed}"
    );
    let preflight = server
        .request("OPTIONS", "/v1/chat/completions")
        .header("origin", page)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .send();
    assert!(matches!(preflight.status, 200 | 204), "{}: {}", preflight.status, preflight.text());
    assert_eq!(preflight.header("access-control-allow-origin"), Some(page));
    assert!(preflight.header("access-control-allow-methods").is_some_and(|m| m.contains("POST")));
    let other = models(&server).header("origin", "https://other.example").send();
    refused(&other, 403, "origin_not_allowed");
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[test]
fn without_a_listed_origin_there_is_no_cors() {
    let server = Setup::keyed().model("echo", "echo:").start();
    let answer = models(&server).header("origin", "https://other.example").send();
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn the_admin_listener_wants_its_token() {
    let server = Setup::keyed().model("echo", "echo:").start();
    let key = server.key.clone().expect("a keyed box");
    for path in ["/metrics", "/admin/nodes", "/admin/queue", "/admin/invariants"] {
        let bare = Request::new(server.admin_addr(), "GET", path).send();
        assert_eq!(bare.status, 401, "{path} without a token: {}", bare.text());
        let with_key =
            Request::new(server.admin_addr(), "GET", path).header("authorization", &format!("Bearer {key}"));
        assert_eq!(with_key.send().status, 401, "{path} with an API key");
        assert_eq!(server.admin("GET", path).status, 200, "{path} with the token");
        assert_eq!(server.call("GET", path, "").status, 404, "{path} isn't on the inference listener");
    }
    let drain = Request::new(server.admin_addr(), "POST", "/admin/drain").json("{}").send();
    assert_eq!(drain.status, 401);
    assert_eq!(server.call("GET", "/readyz", "").status, 200, "nobody drained the box");
}

#[test]
fn the_admin_listener_answers_only_its_own_names() {
    let server = Setup::keyed().model("echo", "echo:").start();
    let token = crate::harness::server::read_trimmed(&server.data.join("admin.token"));
    let ask = || {
        Request::new(server.admin_addr(), "GET", "/metrics")
            .header("authorization", &format!("Bearer {token}"))
    };
    assert_eq!(ask().header("host", "evil.example").send().status, 403);
    assert_eq!(ask().header("origin", "http://evil.example").send().status, 403);
    assert_eq!(ask().send().status, 200);
}
