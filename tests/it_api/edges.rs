//! What is refused at the edge, and how it says so.

use switchbox::api::{Limits, Origins};

use crate::rig::{CHAT, COMPLETIONS, Rig, Setup, chat_body, read_answer, request_text, run, send, start};

async fn raw(rig: &Rig, text: &str) -> crate::rig::Answer {
    read_answer(send(rig.inference, text.as_bytes()).await).await
}

#[test]
fn models_are_listed_and_found() {
    run(async {
        let rig = start(Setup::default()).await;
        let list = rig.get("/v1/models").await.json();
        assert_eq!(list["object"], "list");
        assert_eq!(list["data"][0]["id"], "echo");
        assert_eq!(
            (&list["data"][0]["object"], &list["data"][0]["created"]),
            (&"model".into(), &1_700.into())
        );
        assert_eq!(rig.get("/v1/models/slow").await.json()["owned_by"], "switchbox");
        let error = rig.get("/v1/models/none%22").await.assert_error(404, "model_not_found");
        assert_eq!(error["param"], "model");
    });
}

#[test]
fn wrong_requests_are_named() {
    run(async {
        let rig = start(Setup::default()).await;
        rig.get("/nowhere").await.assert_error(404, "unknown_url");
        let wrong = rig.get(CHAT).await;
        wrong.assert_error(405, "method_not_allowed");
        assert_eq!(wrong.header("allow"), Some("POST"));
        for (body, code, param) in [
            ("", "invalid_json", None),
            ("{", "invalid_json", None),
            ("{}", "missing_required_parameter", Some("model")),
            (r#"{"model":"echo"}"#, "missing_required_parameter", Some("messages")),
            (&chat_body("echo", "x", r#","n":2"#), "unsupported_value", Some("n")),
            (&chat_body("echo", "x", r#","tools":[{}]"#), "unsupported_parameter", Some("tools")),
            (&chat_body("echo", "x", r#","temperature":9"#), "invalid_value", Some("temperature")),
        ] {
            let error = rig.post(CHAT, body).await.assert_error(400, code);
            assert_eq!(error["param"].as_str(), param, "{body}");
            assert_eq!(error["type"], "invalid_request_error");
        }
        let error = rig.post(CHAT, &chat_body("none", "x", "")).await.assert_error(404, "model_not_found");
        assert_eq!(error["param"], "model");
        let huge = chat_body("echo", "x", r#","max_tokens":4294967295"#);
        let error = rig.post(CHAT, &huge).await.assert_error(400, "context_length_exceeded");
        assert_eq!(error["param"], "messages");
        let huge = r#"{"model":"echo","prompt":"x","max_tokens":4294967295}"#;
        let error = rig.post(COMPLETIONS, huge).await.assert_error(400, "context_length_exceeded");
        assert_eq!(error["param"], "prompt");
        let text = request_text("POST", CHAT, "content-type: text/plain\r\n", "{}");
        raw(&rig, &text).await.assert_error(415, "unsupported_media_type");
    });
}

#[test]
fn bodies_are_bounded_in_size() {
    run(async {
        let limits = Limits { body_bytes_max: 1_000, ..Limits::default() };
        let rig = start(Setup { limits, ..Setup::default() }).await;
        let fits = chat_body("echo", &"x".repeat(800), "");
        assert_eq!(rig.post(CHAT, &fits).await.status, 200);
        let large = chat_body("echo", &"x".repeat(1_000), "");
        rig.post(CHAT, &large).await.assert_error(413, "body_too_large");
        // Announced only: refused without a byte of it.
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000000000\r\n\r\n");
        raw(&rig, &head).await.assert_error(413, "body_too_large");
        for (body, status) in [(&fits, 200), (&large, 413)] {
            let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
            let chunks = body.as_bytes().chunks(100).map(|chunk| {
                format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).expect("ASCII"))
            });
            let text =
                format!("{head}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.collect::<String>());
            assert_eq!(raw(&rig, &text).await.status, status);
        }
        assert_eq!(rig.metric("switchbox_bodies_in_flight_bytes").await, 0);
    });
}

#[test]
fn slow_bodies_are_cut_off() {
    run(async {
        for limits in [
            Limits { body_idle_timeout_ms: 40, ..Limits::default() },
            Limits { body_timeout_ms: 40, ..Limits::default() },
        ] {
            let rig = start(Setup { limits, ..Setup::default() }).await;
            let head =
                format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{\"mod");
            raw(&rig, &head).await.assert_error(408, "body_timeout");
            assert_eq!(rig.metric("switchbox_bodies_in_flight_bytes").await, 0);
        }
    });
}

#[test]
fn bodies_in_flight_share_a_budget() {
    run(async {
        let limits = Limits { bodies_in_flight_bytes_max: 1_000, ..Limits::default() };
        let rig = start(Setup { limits, ..Setup::default() }).await;
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 950\r\n\r\n");
        let slow = send(rig.inference, head.as_bytes()).await;
        rig.wait_for("switchbox_bodies_in_flight_bytes", 950).await;
        let refused = rig.post(CHAT, &chat_body("echo", "x", "")).await;
        refused.assert_error(503, "server_is_overloaded");
        assert_eq!(refused.header("retry-after"), Some("1"));
        drop(slow);
        rig.wait_for("switchbox_bodies_in_flight_bytes", 0).await;
        assert_eq!(rig.post(CHAT, &chat_body("echo", "x", "")).await.status, 200);
    });
}

#[test]
fn without_keys_only_this_machine_and_listed_pages_are_answered() {
    run(async {
        let origins = Origins::listed(["https://chat.example"]);
        let rig = start(Setup { origins, ..Setup::default() }).await;
        let with_host = |host: &str| {
            let text = request_text("POST", CHAT, "", &chat_body("echo", "x", ""));
            text.replace("host: localhost", &format!("host: {host}"))
        };
        for host in ["localhost:1", "127.0.0.1", "[::1]:9"] {
            assert_eq!(raw(&rig, &with_host(host)).await.status, 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", ""] {
            raw(&rig, &with_host(host)).await.assert_error(403, "host_not_allowed");
        }
        let with_origin = |origin: &str| {
            request_text("POST", CHAT, &format!("origin: {origin}\r\n"), &chat_body("echo", "x", ""))
        };
        raw(&rig, &with_origin("https://evil.example")).await.assert_error(403, "origin_not_allowed");
        let answer = raw(&rig, &with_origin("https://chat.example")).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://chat.example"));
        assert!(
            answer
                .header("access-control-expose-headers")
                .is_some_and(|names| names.contains("x-request-id"))
        );
        let preflight = |origin: &str| {
            let more = format!("origin: {origin}\r\naccess-control-request-method: POST\r\n");
            request_text("OPTIONS", CHAT, &more, "")
        };
        let answer = raw(&rig, &preflight("https://chat.example")).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://chat.example"));
        raw(&rig, &preflight("https://evil.example")).await.assert_error(403, "origin_not_allowed");
    });
}
