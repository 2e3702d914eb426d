//! Jobs by name and by key: what is shown of them, and what the box holds for those who ask.

use crate::harness::chat;
use crate::harness::http::{Request, Response};
use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn job_body(model: &str, content: &str, more: Value) -> String {
    let body: Value = serde_json::from_str(&chat::body(model, content, more)).expect("made as JSON");
    json!({"endpoint": "/v1/chat/completions", "body": body}).to_string()
}

fn submit(server: &Server, model: &str, content: &str, more: Value) -> Response {
    server.call("POST", "/v1/jobs", &job_body(model, content, more))
}

fn id_of(answer: &Response) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.value()["id"].as_str().expect("a job has an id").to_owned()
}

fn read(server: &Server, id: &str, query: &str) -> Response {
    server.call("GET", &format!("/v1/jobs/{id}{query}"), "")
}

/// A refusal that is about the asking namespace's share of something.
fn assert_share_is_full(refused: &Response) {
    let error = refused.error();
    assert_eq!((refused.status, &error["code"]), (429, &json!("rate_limit_exceeded")), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("your share")), "{error}");
    assert_eq!(refused.header("retry-after"), Some("1"));
}

fn waiters(server: &Server) -> String {
    let text = server.admin("GET", "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix("switchbox_job_waiters "));
    line.expect("the metric is there").to_owned()
}

#[test]
fn a_job_whose_answer_is_not_kept_is_shown_without_it() {
    let server = Setup::open().model("echo", "echo:").start();
    let asked = chat::ask(&server, "echo", "for once", json!({}));
    let id = asked.header("x-switchbox-job-id").expect("an answer names its job").to_owned();
    let seen = read(&server, &id, "");
    assert_eq!(seen.status, 200, "{}", seen.text());
    let seen = seen.value();
    assert_eq!((&seen["state"], &seen["result"]), (&json!("succeeded"), &Value::Null), "{seen}");
    assert!(seen["result_unavailable"].as_str().is_some_and(|why| why.contains("isn't kept")), "{seen}");
    let kept = submit(&server, "echo", "for good", json!({}));
    let kept = read(&server, &id_of(&kept), "?wait=60s").value();
    assert_eq!(kept["result"]["choices"][0]["message"]["content"], "for good", "{kept}");
    assert_eq!((&kept["object"], &kept["result"]["object"]), (&json!("job"), &json!("chat.completion")));
    assert!(kept.get("result_unavailable").is_none(), "{kept}");
    server.assert_nothing_left();
}

#[test]
fn a_repeat_is_told_the_true_state() {
    let server = Setup::open().model("slow", "echo:60000").start();
    let send = || {
        let body = job_body("slow", "one two three", json!({}));
        server.request("POST", "/v1/jobs").header("idempotency-key", "k").json(&body).send()
    };
    let first = send();
    assert_eq!((first.status, &first.value()["state"]), (202, &json!("queued")), "{}", first.text());
    let id = id_of(&first);
    wait_for("the job to run", || (read(&server, &id, "").value()["state"] == "running").then_some(()));
    let repeat = send();
    assert_eq!(
        (id_of(&repeat), &repeat.value()["state"]),
        (id.clone(), &json!("running")),
        "{}",
        repeat.text()
    );
    let ended = server.call("DELETE", &format!("/v1/jobs/{id}"), "");
    assert_eq!(ended.status, 200, "{}", ended.text());
    server.assert_nothing_left();
}

#[test]
fn who_waits_is_told_of_the_end_and_a_namespace_may_only_so_often() {
    let server = Setup::open().model("slow", "echo:60000").config("[limits]\njob_waiters_max = 4").start();
    let id = id_of(&submit(&server, "slow", "one two three", json!({})));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..2).map(|_| scope.spawn(|| read(&server, &id, "?wait=60s"))).collect();
        wait_for("both to wait", || (waiters(&server) == "2").then_some(()));
        let third = read(&server, &id, "?wait=60s");
        assert_share_is_full(&third);
        let plain = read(&server, &id, "");
        assert_eq!((plain.status, &plain.value()["state"]), (200, &json!("running")), "{}", plain.text());
        assert_eq!(server.call("DELETE", &format!("/v1/jobs/{id}"), "").status, 200);
        for waited in waiting {
            let waited = waited.join().expect("no panic");
            assert_eq!(
                (waited.status, &waited.value()["state"]),
                (200, &json!("cancelled")),
                "{}",
                waited.text()
            );
        }
    });
    assert_eq!(waiters(&server), "0");
    // Time that is up is no error, and nobody is left waiting.
    let id = id_of(&submit(&server, "slow", "one two three", json!({})));
    let early = read(&server, &id, "?wait=10ms");
    assert_eq!(early.status, 200, "{}", early.text());
    assert_eq!(waiters(&server), "0");
    assert_eq!(server.call("DELETE", &format!("/v1/jobs/{id}"), "").status, 200);
    server.assert_nothing_left();
}

/// As many tokens as an answer of 16 MiB may have; each word is one, of 32 bytes.
const WORDS: usize = 260_000;

#[test]
fn answers_that_nobody_takes_have_a_budget() {
    let limits =
        "[limits]\nbody_bytes_max = 16777216\nstored_bytes_max = 16777216\nclient_stall_ms = 3600000";
    let server = Setup::open().model("echo", "echo:").config(limits).start();
    let word = format!("{} ", "w".repeat(31));
    let id = id_of(&submit(&server, "echo", &word.repeat(WORDS), json!({"max_tokens": WORDS})));
    let done = read(&server, &id, "?wait=60s");
    assert_eq!(done.status, 200);
    assert!(done.body.len() > 8_000_000, "{}", done.text());
    let small = id_of(&submit(&server, "echo", "small", json!({})));
    assert_eq!(read(&server, &small, "?wait=60s").status, 200);
    // One that asks and hardly reads: its answer stays in memory, and there is no second one of its length in the
    // namespace's share.
    let mut stalled = Request::new(server.addr, "GET", &format!("/v1/jobs/{id}")).open_narrow();
    assert!(stalled.read_raw(64).starts_with(b"HTTP/1.1 200"));
    assert_share_is_full(&read(&server, &id, ""));
    assert_eq!(read(&server, &small, "").status, 200, "what is small still fits");
    drop(stalled);
    wait_for("the memory to be free again", || (read(&server, &id, "").status == 200).then_some(()));
    server.assert_nothing_left();
}

/// Whether any file of the store has these words.
fn is_on_disk(server: &Server, words: &str) -> bool {
    fn any(dir: &Path, words: &[u8]) -> bool {
        fs::read_dir(dir).expect("a directory").any(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                return any(&path, words);
            }
            // A file may go while it is looked at.
            fs::read(&path).is_ok_and(|bytes| bytes.windows(words.len()).any(|window| window == words))
        })
    }
    any(&server.data.join("store"), words.as_bytes())
}

#[test]
fn a_prompt_that_is_not_to_be_stored_is_not_kept_with_its_dead_letter() {
    let limits = "[limits]\nattempts_max = 1\nattempt_timeout_ms = 100";
    let server = Setup::open().model("slow", "echo:50").config(limits).start();
    let long = "word ".repeat(60);
    let fails = |secret: &str, more: Value| {
        let failed = chat::ask(&server, "slow", &format!("{secret} {long}"), more);
        assert_eq!(failed.status, 502, "{}", failed.text());
        failed.header("x-switchbox-job-id").expect("it names its job").to_owned()
    };
    let requeue = |job: &str| server.admin("POST", &format!("/admin/jobs/{job}/requeue"));
    let kept = fails("kept-with-its-dead-letter", json!({}));
    let job = fails("never-to-be-on-any-disk", json!({"store": false}));
    assert!(is_on_disk(&server, "kept-with-its-dead-letter"));
    assert!(!is_on_disk(&server, "never-to-be-on-any-disk"));
    let refused = requeue(&job);
    assert_eq!((refused.status, &refused.error()["code"]), (409, &json!("not_a_dead_letter")));
    assert_eq!(requeue(&kept).status, 200);
    // One by name is on disk while it lives, and its letter without it.
    let named = submit(&server, "slow", &format!("named {long}"), json!({"store": false}));
    let named = id_of(&named);
    assert_eq!(read(&server, &named, "?wait=60s").value()["state"], "failed");
    assert_eq!(requeue(&named).status, 409);
    let wrong = chat::ask(&server, "slow", "x", json!({"store": "no"}));
    assert_eq!((wrong.status, &wrong.error()["param"]), (400, &json!("store")));
    server.assert_nothing_left();
}

#[test]
fn an_answer_that_is_not_to_be_stored_is_given_once() {
    let dir = TempDir::new();
    let boot = || Setup::open().model("echo", "echo:").start_in(&dir.join("data"));
    let mut server = boot();
    let unstored = json!({"store": false});
    let id = id_of(&submit(&server, "echo", "just once", unstored.clone()));
    let first = read(&server, &id, "?wait=60s").value();
    assert_eq!(first["result"]["choices"][0]["message"]["content"], "just once", "{first}");
    let gone = |server: &Server| {
        let seen = read(server, &id, "");
        assert_eq!(seen.status, 200, "{}", seen.text());
        let seen = seen.value();
        assert_eq!((&seen["state"], &seen["result"]), (&json!("succeeded"), &Value::Null), "{seen}");
        assert!(seen["result_unavailable"].as_str().is_some_and(|why| why.contains("delivered")), "{seen}");
    };
    // The connection had its last byte a moment before the core hears of it.
    wait_for("the answer to be forgotten", || {
        read(&server, &id, "").value()["result"].is_null().then_some(())
    });
    gone(&server);
    let ask = |server: &Server| {
        let body = chat::body("echo", "by its key", unstored.clone());
        server.request("POST", "/v1/chat/completions").header("idempotency-key", "k").json(&body).send()
    };
    let answered = ask(&server);
    assert_eq!(answered.status, 200, "{}", answered.text());
    wait_for("that one to be forgotten", || (ask(&server).status == 410).then_some(()));
    let kept = id_of(&submit(&server, "echo", "not yet asked for", unstored.clone()));
    wait_for("its end", || (server.metrics().finished("succeeded") >= 3).then_some(()));
    server.signal(Signal::KILL);
    server.wait_exit();
    let server = boot();
    gone(&server);
    let again = ask(&server);
    assert_eq!(
        (again.status, &again.error()["code"]),
        (410, &json!("answer_not_stored")),
        "{}",
        again.text()
    );
    assert_eq!(again.header("x-should-retry"), Some("false"));
    let late = read(&server, &kept, "?wait=60s").value();
    assert_eq!(late["result"]["choices"][0]["message"]["content"], "not yet asked for", "{late}");
}
