//! The queue before somebody's own server: what goes there, what becomes of its errors, and that jobs wait while it is
//! down.

use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::upstream::{
    Act, Upstream, delta, finish, json, json_with, said, stream, stream_head, usage,
};
use crate::harness::{chat, wait_for};
use serde_json::{Value, json as value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const CHAT: &str = "/v1/chat/completions";

fn served(server: &Server) -> Vec<String> {
    let list = server.call("GET", "/v1/models", "").value();
    let data = list["data"].as_array().expect("a list").clone();
    data.iter().map(|model| model["id"].as_str().expect("a name").to_owned()).collect()
}

fn up(server: &Server) -> u64 {
    server.metrics().total("switchbox_upstream_up")
}

#[test]
fn a_request_goes_there_as_its_client_wrote_it() {
    let upstream = Upstream::start(&["org/Big-8B"], |_| said("Hi"));
    let server = Setup::keyed()
        .env("BIG_KEY", "sk-very-secret")
        .model("big", &format!("openai:{}", upstream.url()))
        .arg("--upstream-key-env")
        .arg("BIG_KEY")
        .start();
    let image = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#;
    let body = format!(
        "{{ \"messages\": [{{\"role\":\"user\",\"content\":[{image}]}},{{\"role\":\"tool\",\"tool_call_id\":\"x\",\"content\":null}}],\n\
         \"tools\":[{{\"type\":\"function\",\"function\":{{\"name\":\"f\"}}}}], \"model\" : \"big\", \"top_k\": 1.0e1,\
         \"response_format\":{{\"type\":\"json_object\"}},\"logprobs\":true,\"frequency_penalty\":0.5, \"n\":1 }}"
    );
    let answer = server.call("POST", CHAT, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.value()["usage"]["prompt_tokens"], 7);
    let [asked] = &upstream.asked(CHAT)[..] else { panic!("asked once") };
    // Its only model is meant, whatever it is called.
    let expected = body.replace("\"model\" : \"big\"", "\"model\" : \"org/Big-8B\"");
    let expected = expected.replacen('{', r#"{"stream":true,"stream_options":{"include_usage":true},"#, 1);
    assert_eq!(asked.body, expected);
    assert_eq!(asked.header("authorization").as_deref(), Some("Bearer sk-very-secret"));
    assert!(!server.stderr().contains("sk-very-secret"), "{}", server.stderr());
    let shown =
        |path| upstream.asked(path).iter().map(|asked| asked.header("authorization").is_some()).next();
    assert_eq!((shown("/v1/models"), shown("/health")), (Some(true), Some(false)));
    // What can't be carried, or contradicts itself, isn't sent.
    for (more, param) in [
        (value!({"n": 2}), "n"),
        (value!({"service_tier": "gold"}), "service_tier"),
        (value!({"stream_options": {"include_usage": true}}), "stream_options"),
        (value!({"messages": []}), "messages"),
    ] {
        let refused = chat::ask(&server, "big", "Hi", more);
        assert_eq!((refused.status, &refused.error()["param"]), (400, &value!(param)), "{}", refused.text());
    }
    let twice = server.call("POST", CHAT, r#"{"model":"big","messages":[1],"stream":true,"stream":false}"#);
    assert_eq!(twice.status, 400, "{}", twice.text());
    assert_eq!(upstream.asked(CHAT).len(), 1);
    server.assert_nothing_left();
}

#[test]
fn usage_is_the_servers_or_flagged_as_an_estimate() {
    let upstream = Upstream::start(&["m"], |_| stream(&[&delta("a"), &delta("b"), &finish("stop")]));
    let server = Setup::open().upstream(&upstream.url()).start();
    let body = chat::body("m", "Hi", value!({}));
    let answer = server.call("POST", CHAT, &body).value();
    let estimate = body.len() as u64 + 16;
    assert_eq!(answer["usage"]["prompt_tokens"], estimate, "bytes, and 16 for the message: {answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 2);
    assert_eq!(server.metrics().total("switchbox_upstream_usage_estimated_total"), 1);
    // Whatever it states, no more than was held.
    let cached = r#"{"choices":[],"usage":{"prompt_tokens":1000000,"completion_tokens":99,"prompt_tokens_details":{"cached_tokens":5}}}"#;
    upstream.answer(&["m"], move |_| stream(&[&delta("a"), &finish("stop"), cached]));
    let answer = chat::ask(&server, "m", "Hi", value!({"max_tokens": 10})).value();
    let usage = &answer["usage"];
    assert_eq!(
        (&usage["completion_tokens"], &usage["prompt_tokens_details"]["cached_tokens"]),
        (&value!(10), &value!(5))
    );
    assert!(usage["prompt_tokens"].as_u64().is_some_and(|tokens| tokens < 200), "{answer}");
    server.assert_nothing_left();
}

#[test]
fn errors_are_whoever_s_fault_they_are() {
    let upstream = Upstream::start(&["m"], |_| said("unused"));
    let server = Setup::open().upstream(&upstream.url()).start();
    let ask = |status: u16, body: &'static str| {
        let before = upstream.asked(CHAT).len();
        upstream.answer(&["m"], move |_| json(status, body));
        let answer = chat::ask(&server, "m", "Hi", value!({}));
        (answer.status, answer.error(), upstream.asked(CHAT).len() - before)
    };
    let (status, error, attempts) =
        ask(400, r#"{"error":{"message":"This model's maximum context length is 8 tokens.","code":400}}"#);
    assert_eq!((status, &error["code"], attempts), (400, &value!("request_rejected"), 1), "{error}");
    assert_eq!(error["message"], "This model's maximum context length is 8 tokens.");
    let (status, error, attempts) =
        ask(401, r#"{"error":{"message":"Incorrect API key provided: sk-ab***"}}"#);
    assert_eq!((status, attempts), (502, 3), "{error}");
    assert!(!error.to_string().contains("sk-ab"), "{error}");
    wait_for("the remedy in the log", || server.stderr().contains("--upstream-key-env").then_some(()));
    let (status, error, attempts) = ask(500, "boom");
    assert_eq!((status, attempts), (502, 3), "{error}");
    // What fails twice and then doesn't is a success.
    let times = AtomicUsize::new(0);
    upstream.answer(&["m"], move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 => json(500, "{}"),
        1 => vec![],
        _ => said("third"),
    });
    let answer = chat::ask(&server, "m", "Hi", value!({}));
    assert_eq!(answer.value()["choices"][0]["message"]["content"], "third", "{}", answer.text());
    assert_eq!(answer.header("x-switchbox-attempts"), Some("3"));
    server.assert_nothing_left();
}

#[test]
fn a_busy_server_is_left_alone_and_costs_no_attempt() {
    let times = AtomicUsize::new(0);
    let upstream = Upstream::start(&["m"], move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0..=3 => json_with(429, "retry-after: 0.05\r\n", r#"{"error":{"message":"slow down"}}"#),
        _ => said("at last"),
    });
    let server = Setup::open().upstream(&upstream.url()).start();
    let answer = chat::ask(&server, "m", "Hi", value!({}));
    assert_eq!(answer.value()["choices"][0]["message"]["content"], "at last", "{}", answer.text());
    let id = answer.header("x-switchbox-job-id").expect("a job").to_owned();
    let trace = server.admin("GET", &format!("/admin/jobs/{id}/trace")).text();
    assert_eq!(trace.matches("slow down").count(), 4, "declined, not failed: {trace}");
    assert_eq!(server.metrics().total("switchbox_attempts_failed_total"), 0);
    server.assert_nothing_left();
}

#[test]
fn jobs_wait_for_a_server_that_is_down_and_begin_when_it_is_back() {
    let mut upstream = Upstream::stopped(&["m"], |_| said("here"));
    let url = upstream.url();
    let server = Setup::open()
        .model("named", &format!("openai:{url}#m"))
        .upstream(&url)
        .arg("--slots")
        .arg("2")
        .start();
    assert_eq!(served(&server), ["named"], "nothing else is known of it yet");
    assert_eq!(chat::ask(&server, "m", "Hi", value!({})).status, 404);
    let first = chat::open(&server, "named", "Hi", value!({"stream": false}));
    wait_for("the job to wait", || (server.metrics().jobs("queued") == 1).then_some(()));
    upstream.start_again();
    assert_eq!(first.finish().value()["choices"][0]["message"]["content"], "here");
    wait_for("its models", || (served(&server) == ["m", "named"]).then_some(()));

    // It goes away under what runs, and nothing that waits is lost.
    let gate = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&gate);
    upstream.answer(&["m"], move |_| {
        vec![
            stream_head(),
            Act::Write(format!("data: {}\n\n", delta("begun")).into_bytes()),
            Act::Until(Arc::clone(&held)),
        ]
    });
    let mut running: Vec<_> =
        (0..2).map(|_| chat::Events::of(chat::open(&server, "m", "Hi", value!({})))).collect();
    running.iter_mut().for_each(|events| assert_eq!(events.first_text(), "begun"));
    let waiting: Vec<_> = (0..5).map(|_| chat::open(&server, "m", "Hi", value!({"stream": false}))).collect();
    wait_for("jobs to wait", || (server.metrics().jobs("queued") == 5).then_some(()));
    upstream.stop();
    for events in &mut running {
        let (_, end) = events.rest();
        assert!(
            matches!(&end, chat::Event::Data(error) if error["error"]["code"] == "node_error"),
            "{end:?}"
        );
    }
    wait_for("that to be noticed", || (up(&server) == 0).then_some(()));
    wait_for("all of them to wait", || (server.metrics().jobs("queued") == 5).then_some(()));
    assert_eq!(served(&server), ["m", "named"], "what is down is served again when it is back");
    upstream.answer(&["m"], |_| said("back"));
    upstream.start_again();
    for answer in waiting {
        let answer = answer.finish();
        assert_eq!(answer.value()["choices"][0]["message"]["content"], "back", "{}", answer.text());
    }
    assert_eq!(server.metrics().finished("failed"), 2, "those that were begun");
    server.assert_nothing_left();
}

#[test]
fn what_a_server_lists_is_what_is_served() {
    let mut upstream = Upstream::start(&["a", "b"], |asked| {
        let body: Value = serde_json::from_str(&asked.body).expect("JSON");
        said(body["model"].as_str().expect("a name"))
    });
    let server = Setup::open().model("a", "echo:").upstream(&upstream.url()).start();
    assert_eq!(served(&server), ["a", "b"]);
    let content = |model: &str| {
        chat::ask(&server, model, "echoed", value!({})).value()["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(
        (content("a"), content("b")),
        (value!("echoed"), value!("b")),
        "what is configured keeps its name"
    );
    wait_for("the log to say so", || server.stderr().contains("another model has this name").then_some(()));
    // A look is due every ten seconds; one that was down is looked at sooner.
    upstream.stop();
    let waiting = chat::open(&server, "b", "x", value!({"stream": false}));
    wait_for("that to be noticed", || (up(&server) == 0).then_some(()));
    upstream.answer(&["c", "has space"], |_| said("c"));
    upstream.start_again();
    wait_for("the new list", || (served(&server) == ["a", "c"]).then_some(()));
    assert_eq!(content("c"), "c");
    assert_eq!(server.metrics().jobs("queued"), 1, "it may come back");
    drop(waiting);
    assert_eq!(chat::ask(&server, "b", "x", value!({})).status, 404);
    server.assert_nothing_left();
}

#[test]
fn who_leaves_stops_the_server_too() {
    let upstream = Upstream::start(&["m"], |_| {
        vec![
            stream_head(),
            Act::Write(format!("data: {}\n\n", delta("endless")).into_bytes()),
            Act::UntilGone,
        ]
    });
    let server = Setup::open().upstream(&upstream.url()).start();
    let mut events = chat::Events::of(chat::open(&server, "m", "Hi", value!({})));
    assert_eq!(events.first_text(), "endless");
    drop(events);
    wait_for("the connection to be dropped", || (upstream.gone() == 1).then_some(()));
    wait_for("the cancel", || (server.metrics().finished("cancelled") == 1).then_some(()));
    // Before anything came, too: in the prompt, say.
    upstream.answer(&["m"], |_| vec![Act::UntilGone]);
    let silent = chat::open(&server, "m", "Hi", value!({}));
    wait_for("it to be asked", || (upstream.asked(CHAT).len() == 2).then_some(()));
    drop(silent);
    wait_for("the connection to be dropped", || (upstream.gone() == 2).then_some(()));
    server.assert_nothing_left();
}

#[test]
fn a_server_behind_tls_is_one_whose_certificate_this_machine_trusts() {
    let upstream = Upstream::start_secure(&["m"], |_| said("kept secret"));
    let trusted = crate::harness::root().join("tests/it/harness/tls/ca.pem");
    let trusted = trusted.to_str().expect("UTF-8").to_owned();
    let server = Setup::open().env("SSL_CERT_FILE", &trusted).upstream(&upstream.url()).start();
    let answer = chat::ask(&server, "m", "Hi", value!({}));
    assert_eq!(answer.value()["choices"][0]["message"]["content"], "kept secret", "{}", answer.text());
    server.assert_nothing_left();
    drop(server);
    let server = Setup::open().upstream(&upstream.url()).start();
    assert_eq!((up(&server), served(&server).len()), (0, 0));
    let said = server.stderr();
    assert!(said.contains("jobs of the server's models wait: no secure connection"), "{said}");
    assert_eq!(upstream.asked(CHAT).len(), 1);
}

#[test]
fn an_answer_of_more_than_text_is_kept_whole() {
    let call = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]}}]}"#;
    let upstream = Upstream::start(&["m"], move |_| {
        stream(&[&delta("Let me see. "), call, &finish("tool_calls"), &usage(3, 9)])
    });
    let dir = TempDir::new();
    let data = dir.join("data");
    let start = || Setup::open().upstream(&upstream.url()).start_in(&data);
    let send = |server: &Server, stream: bool| {
        let body = chat::body("m", "Hi", value!({"stream": stream}));
        let key = if stream { "streamed" } else { "whole" };
        server.request("POST", CHAT).header("idempotency-key", key).json(&body).send()
    };
    let server = start();
    let (whole, streamed) = (send(&server, false), send(&server, true));
    let job =
        value!({"endpoint": CHAT, "body": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}});
    let named =
        server.call("POST", "/v1/jobs", &job.to_string()).value()["id"].as_str().expect("an id").to_owned();
    let read = |server: &Server| server.call("GET", &format!("/v1/jobs/{named}?wait=60s"), "").value();
    let result = read(&server)["result"].clone();
    let message = &result["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["tool_calls"][0]["id"]),
        (&value!("Let me see. "), &value!("c")),
        "{result}"
    );
    assert_eq!(result["choices"][0]["finish_reason"], "tool_calls");
    server.assert_nothing_left();
    drop(server);
    // As it was kept, after a kill.
    let server = start();
    assert_eq!(read(&server)["result"]["choices"], result["choices"]);
    let again = send(&server, false);
    assert_eq!(again.value()["choices"], whole.value()["choices"]);
    let (before, after) = (streamed.text(), send(&server, true).text());
    let events = |text: &str| {
        text.lines().filter(|line| line.contains("tool_calls")).map(str::to_owned).collect::<Vec<_>>()
    };
    let choices = |line: &String| line.split("\"choices\"").nth(1).expect("choices").to_owned();
    let of = |text: &str| events(text).iter().map(choices).collect::<Vec<_>>();
    assert_eq!(of(&before), of(&after), "{before}\n{after}");
    assert_eq!(of(&before).len(), 2);
    assert_eq!(upstream.asked(CHAT).len(), 3, "each was asked once");
    server.assert_nothing_left();
}
