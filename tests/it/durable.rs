//! What was acknowledged is there after `kill -9`, and is done exactly once.

use crate::harness::chat;
use crate::harness::http::Response;
use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::FileExt;

/// A box whose `slow` takes a while for a few words, on a data directory that outlives it.
fn boot(dir: &TempDir) -> Server {
    Setup::open().model("echo", "echo:").model("slow", "echo:50").start_in(&dir.join("data"))
}

fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait_exit();
}

fn submit(server: &Server, model: &str, content: &str) -> Response {
    let body: Value = serde_json::from_str(&chat::body(model, content, json!({}))).expect("made as JSON");
    let job = json!({"endpoint": "/v1/chat/completions", "body": body});
    server.call("POST", "/v1/jobs", &job.to_string())
}

fn id_of(answer: &Response) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.value()["id"].as_str().expect("a job has an id").to_owned()
}

fn job(server: &Server, id: &str, query: &str) -> Value {
    let answer = server.call("GET", &format!("/v1/jobs/{id}{query}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.value()
}

fn text_of(job: &Value) -> &str {
    job["result"]["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("no answer in {job}"))
}

/// How many attempts of a job gave its answer; what else became of one is that a restart cut it.
fn successes(server: &Server, id: &str) -> usize {
    let seen = server.admin("GET", &format!("/admin/jobs/{id}")).value();
    let history = seen["history"].as_array().unwrap_or_else(|| panic!("no history in {seen}"));
    let count = |outcome: &str| history.iter().filter(|attempt| attempt["outcome"] == outcome).count();
    assert_eq!(count("succeeded") + count("cut_by_a_restart"), history.len(), "{seen}");
    count("succeeded")
}

#[test]
fn an_acknowledged_job_is_there_after_a_kill_and_is_done_once() {
    let dir = TempDir::new();
    let server = boot(&dir);
    let ids: Vec<String> = (0..8).map(|n| id_of(&submit(&server, "slow", &format!("one two {n}")))).collect();
    // One of them is being run by now; all are on disk.
    kill(server);
    let server = boot(&dir);
    for (n, id) in ids.iter().enumerate() {
        let done = job(&server, id, "?wait=60s");
        assert_eq!(
            (&done["state"], text_of(&done)),
            (&json!("succeeded"), format!("one two {n}").as_str()),
            "{done}"
        );
        assert_eq!(successes(&server, id), 1);
    }
    server.assert_nothing_left();
    // Nothing is run again by another start, and what was done stays readable.
    kill(server);
    let server = boot(&dir);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(text_of(&job(&server, id, "")), format!("one two {n}"));
    }
    assert_eq!(server.metrics().finished("succeeded"), 0);
    server.assert_nothing_left();
}

#[test]
fn a_key_stands_for_its_answer_across_a_kill() {
    let dir = TempDir::new();
    let ask = |server: &Server, content: &str, more: Value| {
        let body = chat::body("echo", content, more);
        server.request("POST", "/v1/chat/completions").header("idempotency-key", "k-1").json(&body).send()
    };
    let server = boot(&dir);
    let first = ask(&server, "say this", json!({}));
    assert_eq!(first.status, 200, "{}", first.text());
    let again = ask(&server, "say this", json!({}));
    kill(server);
    let server = boot(&dir);
    let after = ask(&server, "say this", json!({}));
    for repeat in [&again, &after] {
        assert_eq!(repeat.status, 200, "{}", repeat.text());
        assert_eq!(repeat.header("x-switchbox-job-id"), first.header("x-switchbox-job-id"));
        let (first, repeat) = (first.value(), repeat.value());
        assert_eq!((&repeat["choices"], &repeat["usage"]), (&first["choices"], &first["usage"]));
    }
    let other = ask(&server, "say that", json!({}));
    assert_eq!((other.status, other.header("x-should-retry")), (409, Some("false")), "{}", other.text());
    server.assert_nothing_left();
}

#[test]
fn a_key_of_a_job_and_of_a_stream_work_alike() {
    let dir = TempDir::new();
    let server = boot(&dir);
    let body: Value = serde_json::from_str(&chat::body("echo", "by name", json!({}))).expect("made as JSON");
    let body = json!({"endpoint": "/v1/chat/completions", "body": body}).to_string();
    let send = |server: &Server| {
        server.request("POST", "/v1/jobs").header("idempotency-key", "k-2").json(&body).send()
    };
    let id = id_of(&send(&server));
    assert_eq!(job(&server, &id, "?wait=60s")["state"], "succeeded");
    let repeat = send(&server);
    assert_eq!((id_of(&repeat), text_of(&repeat.value())), (id, "by name"));

    let stream = |server: &Server| {
        let request = chat::stream(server, "echo", "in pieces", json!({}));
        chat::Events::of(request.header("idempotency-key", "k-3").open()).rest()
    };
    let expected = ("in pieces".to_owned(), chat::Event::Done);
    assert_eq!((stream(&server), stream(&server)), (expected, ("in pieces".to_owned(), chat::Event::Done)));
    server.assert_nothing_left();
}

#[test]
fn a_cancelled_job_stays_cancelled() {
    let dir = TempDir::new();
    let server = boot(&dir);
    // The model's slots are taken for a while, so that the last one waits.
    let busy: Vec<String> = (0..64).map(|_| id_of(&submit(&server, "slow", &"word ".repeat(40)))).collect();
    let id = id_of(&submit(&server, "slow", "never"));
    let answer = server.call("DELETE", &format!("/v1/jobs/{id}"), "");
    assert_eq!((answer.status, &answer.value()["state"]), (200, &json!("cancelled")), "{}", answer.text());
    kill(server);
    let server = boot(&dir);
    let seen = job(&server, &id, "");
    assert_eq!(
        (&seen["state"], &seen["error"]["code"]),
        (&json!("cancelled"), &json!("job_cancelled")),
        "{seen}"
    );
    let again = server.call("DELETE", &format!("/v1/jobs/{id}"), "");
    assert_eq!((again.status, &again.value()["state"]), (200, &json!("cancelled")));
    busy.iter().for_each(|id| drop(server.call("DELETE", &format!("/v1/jobs/{id}"), "")));
    server.assert_nothing_left();
}

#[test]
fn an_interrupted_stream_ends_and_is_charged_nothing() {
    let dir = TempDir::new();
    let server = boot(&dir);
    let mut events = chat::Events::of(chat::open(&server, "slow", &"word ".repeat(50), json!({})));
    let chat::Event::Data(first) = events.next() else { panic!("no first event") };
    let id = first["id"].as_str().and_then(|id| id.strip_prefix("chatcmpl-")).expect("an id").to_owned();
    // Its acceptance was durable before its first byte.
    kill(server);
    let server = boot(&dir);
    let seen = job(&server, &id, "");
    assert_eq!(
        (&seen["state"], &seen["error"]["code"]),
        (&json!("cancelled"), &json!("job_interrupted")),
        "{seen}"
    );
    server.assert_nothing_left();
}

#[test]
fn jobs_that_are_none_are_refused_by_name() {
    let dir = TempDir::new();
    let server = boot(&dir);
    for (body, status, code) in [
        ("{}", 400, "invalid_json"),
        (r#"{"endpoint":"/v1/embeddings","body":{}}"#, 400, "invalid_value"),
        (r#"{"endpoint":"/v1/chat/completions","body":{"model":"echo"}}"#, 400, "missing_required_parameter"),
        (r#"{"endpoint":"/v1/chat/completions","body":[]}"#, 400, "invalid_json"),
    ] {
        let answer = server.call("POST", "/v1/jobs", body);
        assert_eq!(
            (answer.status, &answer.error()["code"]),
            (status, &json!(code)),
            "{body}: {}",
            answer.text()
        );
    }
    for (path, status) in [
        ("/v1/jobs/nothing", 400),
        ("/v1/jobs/job_000000000000000000", 404),
        ("/v1/jobs/job_000000000000000000?wait=x", 400),
    ] {
        assert_eq!(server.call("GET", path, "").status, status, "{path}");
    }
    let key = server.request("POST", "/v1/chat/completions").header("idempotency-key", &"k".repeat(300));
    let answer = key.json(&chat::body("echo", "x", json!({}))).send();
    assert_eq!((answer.status, &answer.error()["param"]), (400, &json!("Idempotency-Key")));
}

#[test]
fn a_disk_below_its_reserve_closes_admission_and_nothing_else() {
    let dir = TempDir::new();
    let server = boot(&dir);
    let ready = server.call("GET", "/readyz", "");
    assert_eq!(ready.value(), json!({"status": "ready", "storage": "ok"}));
    let keyed = |server: &Server, path: &str, body: &str| {
        server.request("POST", path).header("idempotency-key", "k").json(body).send()
    };
    let body: Value = serde_json::from_str(&chat::body("echo", "kept", json!({}))).expect("made as JSON");
    let named = json!({"endpoint": "/v1/chat/completions", "body": body}).to_string();
    let id = id_of(&keyed(&server, "/v1/jobs", &named));
    assert_eq!(job(&server, &id, "?wait=60s")["state"], "succeeded");
    let asked = keyed(&server, "/v1/chat/completions", &body.to_string());
    assert_eq!(asked.status, 200, "{}", asked.text());
    kill(server);
    let reserve = "[limits]\ndisk_reserve_bytes = 1099511627776";
    let server = Setup::open().model("echo", "echo:").config(reserve).start_in(&dir.join("data"));
    let new = chat::body("echo", "new", json!({}));
    let fresh =
        server.request("POST", "/v1/chat/completions").header("idempotency-key", "k-2").json(&new).send();
    let ready = server.call("GET", "/readyz", "");
    for answer in [submit(&server, "echo", "new"), chat::ask(&server, "echo", "new", json!({})), fresh, ready]
    {
        assert_eq!((answer.status, &answer.error()["code"]), (503, &json!("disk")), "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
    }
    let state = server.admin("GET", "/admin/storage").value();
    assert_eq!((&state["admission_closed_by"], &state["snapshots_failing"]), (&json!("disk"), &Value::Null));
    assert!(
        server
            .admin("GET", "/metrics")
            .text()
            .contains("\nswitchbox_store_disk_reserve_bytes 1099511627776\n")
    );
    // What is there is shown, and a repeat is no new work.
    assert_eq!(text_of(&job(&server, &id, "")), "kept");
    let repeat = keyed(&server, "/v1/jobs", &named);
    assert_eq!((id_of(&repeat), text_of(&repeat.value())), (id, "kept"));
    let repeat = keyed(&server, "/v1/chat/completions", &body.to_string());
    assert_eq!(repeat.status, 200, "{}", repeat.text());
    assert_eq!(repeat.header("x-switchbox-job-id"), asked.header("x-switchbox-job-id"));
    let other = keyed(&server, "/v1/chat/completions", &new);
    assert_eq!((other.status, &other.error()["code"]), (409, &json!("idempotency_key_reused")));
    server.assert_nothing_left();
}

#[test]
fn a_shutdown_keeps_what_outlives_its_connection() {
    let dir = TempDir::new();
    let start = || {
        let setup = Setup::open().model("slow", "echo:50").arg("--drain-deadline").arg("1s");
        setup.start_in(&dir.join("data"))
    };
    let mut server = start();
    let words = chat::long_prompt(60);
    let ids: Vec<String> = (0..3).map(|_| id_of(&submit(&server, "slow", &words))).collect();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
    let server = start();
    for id in &ids {
        let done = job(&server, id, "?wait=60s");
        assert_eq!((&done["state"], text_of(&done)), (&json!("succeeded"), words.as_str()), "{done}");
        let seen = server.admin("GET", &format!("/admin/jobs/{id}")).value();
        assert!(!seen.to_string().contains("cut_by_a_restart"), "{seen}");
    }
    server.assert_nothing_left();
}

/// Enough of the largest bodies that the journal has been written for a snapshot.
const LARGE_BODIES: usize = 75;

#[test]
fn a_group_that_rots_before_it_is_in_a_snapshot_stops_nothing() {
    let dir = TempDir::new();
    let server = boot(&dir);
    let earliest = id_of(&submit(&server, "echo", "the first"));
    assert_eq!(job(&server, &earliest, "?wait=60s")["state"], "succeeded");
    let metric =
        |line: &str| server.admin("GET", "/metrics").text().contains(&format!("\nswitchbox_store_{line}\n"));
    wait_for("the state store to have the rows", || metric("groups_behind 0").then_some(()));
    let journal = server.data.join("store/journal");
    let segments = fs::read_dir(&journal).expect("a journal").map(|entry| entry.expect("an entry").path());
    let first = segments.min().expect("a segment");
    // A bit of the first group, which the first snapshot reads.
    let file = fs::OpenOptions::new().read(true).write(true).open(&first).expect("writable");
    let (mut byte, at) = ([0], 4096 + 60);
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    let large = "large ".repeat(690_000);
    let body: Value =
        serde_json::from_str(&chat::body("echo", &large, json!({"max_tokens": 1}))).expect("JSON");
    let large = json!({"endpoint": "/v1/chat/completions", "body": body}).to_string();
    for _ in 0..LARGE_BODIES {
        let id = id_of(&server.call("POST", "/v1/jobs", &large));
        assert_eq!(job(&server, &id, "?wait=60s")["state"], "succeeded");
    }
    // The state has these rows already, so a snapshot is made of that.
    let state = wait_for("a snapshot, or why there is none", || {
        let state = server.admin("GET", "/admin/storage").value();
        let tried = state["snapshots"] != 0 || state["snapshots_failing"] != Value::Null;
        tried.then_some(state)
    });
    assert_eq!(
        (&state["snapshots_failing"], &state["admission_closed_by"]),
        (&Value::Null, &Value::Null),
        "{state}"
    );
    let last = id_of(&submit(&server, "echo", "goes on"));
    kill(server);
    let server = boot(&dir);
    for id in [&earliest, &last] {
        assert_eq!(job(&server, id, "?wait=60s")["state"], "succeeded");
    }
    server.assert_nothing_left();
}
