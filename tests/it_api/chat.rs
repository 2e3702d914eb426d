//! Answers: whole and as events, with everything that OpenAI's clients look at.

use serde_json::{Value, json};
use switchbox::api::Limits;
use tokio::io::AsyncReadExt;

use crate::rig::{CHAT, COMPLETIONS, Setup, chat_body, read_answer, request_text, run, send, start};

#[test]
fn a_whole_chat_answer() {
    run(async {
        let rig = start(Setup::default()).await;
        let text = "one \"two\"\nthree \u{1F600}";
        let answer = rig.post(CHAT, &chat_body("echo", text, r#","service_tier":"fast""#)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        let job = answer.header("x-switchbox-job-id").expect("a job");
        assert_eq!(body["id"], format!("chatcmpl-{job}"));
        assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("echo")));
        assert_eq!(body["service_tier"], "priority");
        let message = json!({"role": "assistant", "content": text, "refusal": null, "annotations": []});
        let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
        assert_eq!(body["choices"], json!([choice]));
        let usage = &body["usage"];
        let sum = usage["prompt_tokens"].as_u64().expect("a count")
            + usage["completion_tokens"].as_u64().expect("a count");
        assert_eq!(usage["total_tokens"], sum);
        for (name, value) in [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-switchbox-attempts", "1"),
            ("x-switchbox-node", "node_local"),
            ("x-ratelimit-limit-requests", "5000"),
            ("x-ratelimit-remaining-requests", "4999"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name} in {}", answer.head);
        }
        for name in ["x-request-id", "openai-processing-ms", "x-switchbox-queue-ms", "x-switchbox-credits"] {
            assert!(answer.header(name).is_some(), "{name} in {}", answer.head);
        }
        rig.wait_for("switchbox_outputs", 0).await;
    });
}

#[test]
fn a_whole_completion() {
    run(async {
        let rig = start(Setup::default()).await;
        let answer = rig.post(COMPLETIONS, r#"{"model":"echo","prompt":"a b c d","max_tokens":2}"#).await;
        let body = answer.json();
        assert_eq!(body["object"], "text_completion");
        assert_eq!(body["choices"][0]["text"], "a b ");
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body["usage"]["completion_tokens"], 2);
    });
}

#[test]
fn a_streamed_answer_to_the_letter() {
    run(async {
        let rig = start(Setup::default()).await;
        let body =
            chat_body("slow", "one two three", r#","stream":true,"stream_options":{"include_usage":true}"#);
        let answer = rig.post(CHAT, &body).await;
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.header("cache-control"), Some("no-cache, no-store"));
        assert_eq!(answer.header("x-accel-buffering"), Some("no"));
        let job = answer.header("x-switchbox-job-id").expect("a job");
        assert!(answer.body.ends_with("\n\ndata: [DONE]\n\n"), "{:?}", answer.body);
        let mut events = answer.events();
        assert_eq!(events.pop(), Some(Value::from("[DONE]")));
        let usage = events.pop().expect("a usage chunk");
        assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(3)));
        let created = &usage["created"];
        for event in &events {
            assert_eq!(event["id"], format!("chatcmpl-{job}"));
            assert_eq!((&event["created"], &event["model"]), (created, &json!("slow")));
            assert_eq!(event.get("usage"), Some(&Value::Null));
        }
        let deltas: Vec<_> = events.iter().map(|event| event["choices"][0]["delta"].clone()).collect();
        assert_eq!(deltas[0]["role"], "assistant");
        let text: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
        assert_eq!(text, "one two three");
        assert_eq!(deltas.last(), Some(&json!({})));
        assert_eq!(events.last().map(|event| &event["choices"][0]["finish_reason"]), Some(&json!("stop")));
    });
}

#[test]
fn streams_of_everything_at_once_and_of_nothing() {
    run(async {
        let rig = start(Setup::default()).await;
        let long = "word ".repeat(500);
        for (text, path) in
            [(long.as_str(), CHAT), ("", CHAT), (long.as_str(), COMPLETIONS), ("", COMPLETIONS)]
        {
            let body = match path {
                CHAT => chat_body("echo", text, r#","stream":true"#),
                _ => format!(r#"{{"model":"echo","prompt":"{text}","stream":true}}"#),
            };
            let answer = rig.post(path, &body).await;
            let mut events = answer.events();
            assert_eq!(events.pop(), Some(Value::from("[DONE]")));
            assert!(events.iter().all(|event| event.get("usage").is_none()));
            let piece = |event: &Value| match path {
                CHAT => event["choices"][0]["delta"]["content"].as_str().map(str::to_owned),
                _ => event["choices"][0]["text"].as_str().map(str::to_owned),
            };
            assert_eq!(events.iter().filter_map(piece).collect::<String>(), text);
        }
        assert_eq!(rig.metric("switchbox_jobs_finished_total{end=\"succeeded\"}").await, 4);
        rig.wait_for("switchbox_outputs", 0).await;
    });
}

#[test]
fn a_silent_stream_is_kept_alive_by_comments() {
    run(async {
        let limits = Limits { keepalive_ms: 5, ..Limits::default() };
        let rig = start(Setup { limits, ..Setup::default() }).await;
        let answer = rig.post(CHAT, &chat_body("slow", "one two", r#","stream":true"#)).await;
        assert!(answer.body.starts_with(": "), "{:?}", answer.body);
        assert!(answer.body.matches("\n\n: ").count() >= 2, "{:?}", answer.body);
        assert_eq!(answer.events().last(), Some(&Value::from("[DONE]")));
    });
}

#[test]
fn large_bodies_are_answered_too() {
    run(async {
        let rig = start(Setup::default()).await;
        let text = "0123456789abcde ".repeat(12_000);
        let answer = rig.post(CHAT, &chat_body("echo", &text, r#","max_tokens":50000"#)).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], text.as_str());
    });
}

#[test]
fn a_client_that_leaves_cancels_its_job() {
    run(async {
        let rig = start(Setup { slots: 1, ..Setup::default() }).await;
        let long = "word ".repeat(400);
        for (count, stream) in [(1, ""), (2, r#","stream":true"#)] {
            let body = chat_body("slow", &long, stream);
            let mut client = send(rig.inference, request_text("POST", CHAT, "", &body).as_bytes()).await;
            if !stream.is_empty() {
                client.read_exact(&mut [0; 64]).await.expect("the stream has begun");
            }
            rig.wait_for("switchbox_jobs{state=\"running\"}", 1).await;
            // Another one waits behind it, and is given up as well.
            let waiting = send(rig.inference, request_text("POST", CHAT, "", &body).as_bytes()).await;
            rig.wait_for("switchbox_jobs{state=\"queued\"}", 1).await;
            drop(waiting);
            drop(client);
            rig.wait_for("switchbox_jobs_finished_total{end=\"cancelled\"}", 2 * count).await;
        }
        assert_eq!(rig.metric("switchbox_disconnects_total{phase=\"queued\"}").await, 2);
        for gauge in
            ["reservations", "holds", "held_credits", "outputs", "body_bytes_held", "bodies_in_flight_bytes"]
        {
            rig.wait_for(&format!("switchbox_{gauge}"), 0).await;
        }
        let verdict = rig.ask("GET", "/admin/invariants").await.json();
        assert_eq!(verdict["ok"], true, "{verdict}");
    });
}

#[test]
fn a_job_that_waits_too_long_is_an_error_before_the_first_byte() {
    run(async {
        let limits = Limits { ttl_default_ms: 50, ..Limits::default() };
        let rig = start(Setup { limits, slots: 1, ..Setup::default() }).await;
        let blocker = chat_body("slow", &"word ".repeat(200), "");
        let _blocker = send(rig.inference, request_text("POST", CHAT, "", &blocker).as_bytes()).await;
        rig.wait_for("switchbox_jobs{state=\"running\"}", 1).await;
        for stream in ["", r#","stream":true"#] {
            let answer = rig.post(CHAT, &chat_body("slow", "x", stream)).await;
            answer.assert_error(503, "job_expired");
            assert_eq!(answer.header("retry-after"), Some("5"));
            assert!(answer.header("x-switchbox-job-id").is_some(), "{}", answer.head);
        }
    });
}

#[test]
fn a_full_queue_is_a_clean_refusal() {
    run(async {
        let mut setup = Setup { slots: 1, ..Setup::default() };
        setup.core.namespace_queue_jobs_max = 1;
        setup.limits.namespace_queue_jobs_max = 1;
        let rig = start(setup).await;
        let text = request_text("POST", CHAT, "", &chat_body("slow", &"word ".repeat(200), ""));
        let _running = send(rig.inference, text.as_bytes()).await;
        rig.wait_for("switchbox_jobs{state=\"running\"}", 1).await;
        let _waiting = send(rig.inference, text.as_bytes()).await;
        rig.wait_for("switchbox_jobs{state=\"queued\"}", 1).await;
        for stream in ["", r#","stream":true"#] {
            let answer = rig.post(CHAT, &chat_body("slow", "x", stream)).await;
            let error = answer.assert_error(429, "rate_limit_exceeded");
            assert_eq!(error["type"], "rate_limit_error");
            let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a wait");
            assert!((1..=60).contains(&wait));
            assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
        }
    });
}

#[test]
fn draining_answers_503_everywhere() {
    run(async {
        let rig = start(Setup::default()).await;
        assert_eq!(rig.get("/readyz").await.status, 200);
        let slow = request_text("POST", CHAT, "", &chat_body("slow", "one two three four", ""));
        let running = send(rig.inference, slow.as_bytes()).await;
        rig.wait_for("switchbox_jobs{state=\"running\"}", 1).await;
        let drained = rig.ask("POST", "/admin/drain").await.json();
        assert_eq!(drained, json!({"draining": true, "live": 1}));
        let refused = rig.post(CHAT, &chat_body("echo", "x", "")).await;
        refused.assert_error(503, "server_is_draining");
        assert!(refused.header("retry-after").is_some());
        rig.get("/readyz").await.assert_error(503, "server_is_draining");
        assert_eq!(rig.get("/healthz").await.status, 200);
        assert_eq!(read_answer(running).await.status, 200);
    });
}

#[test]
fn one_connection_serves_many_requests() {
    run(async {
        use tokio::io::AsyncWriteExt;
        let rig = start(Setup::default()).await;
        let text =
            request_text("POST", CHAT, "", &chat_body("echo", "hi", "")).replace("connection: close\r\n", "");
        let mut client = send(rig.inference, text.as_bytes()).await;
        for _ in 0..20 {
            let mut seen = String::new();
            while !seen.contains("\"system_fingerprint\"") || !seen.ends_with('}') {
                let mut piece = [0; 4_096];
                let len = client.read(&mut piece).await.expect("open");
                assert_ne!(len, 0, "closed after {seen:?}");
                seen.push_str(std::str::from_utf8(&piece[..len]).expect("UTF-8"));
            }
            client.write_all(text.as_bytes()).await.expect("open");
        }
    });
}

#[test]
fn a_failure_after_the_first_byte_is_an_event() {
    run(async {
        let mut setup = Setup::default();
        setup.core.attempt_timeout = switchbox::time::Span::from_ms(150);
        let rig = start(setup).await;
        let long = "word ".repeat(400);
        let answer = rig.post(CHAT, &chat_body("slow", &long, r#","stream":true"#)).await;
        assert_eq!(answer.status, 200);
        let mut events = answer.events();
        let error = events.pop().expect("an error")["error"].clone();
        assert_eq!((&error["code"], &error["param"]), (&json!("node_error"), &Value::Null));
        assert!(error["message"].is_string() && error["type"].is_string());
        assert!(events.len() > 1 && events.iter().all(|event| event.get("error").is_none()));
        rig.wait_for("switchbox_outputs", 0).await;
    });
}

#[test]
fn a_failure_before_the_first_byte_is_a_status() {
    run(async {
        let mut setup = Setup::default();
        setup.core.attempt_timeout = switchbox::time::Span::from_ms(30);
        setup.core.attempts_max = 2;
        setup.core.backoff = switchbox::time::Span::from_ms(1);
        let rig = start(setup).await;
        let long = "word ".repeat(400);
        let answer = rig.post(CHAT, &chat_body("slow", &long, "")).await;
        answer.assert_error(502, "node_error");
        assert_eq!(rig.metric("switchbox_attempts_failed_total").await, 2);
        rig.wait_for("switchbox_outputs", 0).await;
    });
}
