//! How a box ends: what runs is finished, what is new is sent elsewhere, and whoever insists gets it at once.

use crate::harness::chat::{self, Event, Events};
use crate::harness::http::{Connection, Request};
use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

const STREAMS: usize = 8;

/// Echo that takes `ms` for each token, with a slot for each stream.
fn slow(ms: u32) -> Setup {
    Setup::open().model("slow", &format!("echo:{ms}")).arg("--slots").arg("8")
}

fn running_streams(server: &Server, count: usize) -> Vec<Events> {
    let words = chat::long_prompt(60);
    let open = |_| Events::of(chat::open(server, "slow", &words, json!({})));
    let mut streams: Vec<Events> = (0..count).map(open).collect();
    streams.iter_mut().for_each(|s| drop(s.first_text()));
    streams
}

fn wait_draining(server: &Server) {
    wait_for("draining", || (server.call("GET", "/readyz", "").status == 503).then_some(()));
}

fn assert_sent_elsewhere(server: &Server) {
    let answer = chat::ask(server, "slow", "too late", json!({}));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.error()["code"], "server_is_draining");
    assert_eq!(server.call("GET", "/healthz", "").status, 200, "alive while it drains");
}

fn assert_all_end_well(streams: Vec<Events>) {
    let whole = chat::long_prompt(60);
    for (i, mut stream) in streams.into_iter().enumerate() {
        let (text, end) = stream.rest();
        assert_eq!(end, Event::Done, "stream {i}");
        assert!(text.ends_with(whole.rsplit(' ').next().unwrap_or_default()), "stream {i}: {text}");
    }
}

#[test]
fn sigterm_finishes_what_runs() {
    let mut server = slow(50).start();
    let streams = running_streams(&server, STREAMS);
    server.signal(Signal::TERM);
    wait_draining(&server);
    assert_sent_elsewhere(&server);
    assert_all_end_well(streams);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
}

#[test]
fn an_idle_box_leaves_at_once_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = slow(0).start();
        server.signal(signal);
        assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
    }
}

/// The deadline is far beyond the test's patience, so only the second signal can end this box.
#[test]
fn a_second_sigterm_ends_it_at_once() {
    let mut server = slow(60_000).arg("--drain-deadline").arg("3600s").start();
    let waiting = chat::open(&server, "slow", "one two three", json!({}));
    wait_for("a running job", || (server.metrics().jobs("running") == 1).then_some(()));
    server.signal(Signal::TERM);
    wait_draining(&server);
    assert!(server.alive());
    server.signal(Signal::TERM);
    let status = server.wait_exit();
    assert!(!server.stderr().contains("panicked"), "{status}: {}", server.stderr());
    let answered = waiting.try_head().is_ok_and(|answer| answer.status == 200);
    assert!(!answered, "the job can't have had an answer");
}

#[test]
fn the_deadline_ends_what_does_not() {
    let mut server = slow(1000).arg("--drain-deadline").arg("1s").start();
    let mut stream = running_streams(&server, 1).remove(0);
    server.signal(Signal::TERM);
    let (_, end) = stream.rest();
    assert_ne!(end, Event::Done, "60 tokens of a second each can't have been sent");
    server.wait_exit();
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

/// What a client is told that waits with a key for a job which outlives the box; gives the job's name.
fn assert_goes_on(error: &Value) -> String {
    assert_eq!(error["code"], "job_goes_on", "{error}");
    let message = error["message"].as_str().expect("a sentence");
    let id =
        message.split(['/', ' ', ':', '.']).find(|word| word.starts_with("job_")).expect("it names its job");
    for way in ["`Idempotency-Key`", &format!("GET /v1/jobs/{id}")] {
        assert!(message.contains(way), "{way} in {message}");
    }
    id.to_owned()
}

#[test]
fn who_waits_with_a_key_at_the_deadline_is_told_that_the_job_goes_on() {
    let dir = TempDir::new();
    let boot = |ms| {
        let setup = slow(ms).arg("--drain-deadline").arg("1s").config("[limits]\nkeepalive_delay_ms = 50");
        setup.start_in(&dir.join("data"))
    };
    let ask = |server: &Server, key: &str, more: Value| {
        let body = chat::body("slow", "one two", more);
        server.request("POST", "/v1/chat/completions").header("idempotency-key", key).json(&body)
    };
    let mut server = boot(60_000);
    let whole = ask(&server, "whole", json!({})).open();
    let mut stream = Events::of(ask(&server, "stream", json!({"stream": true})).open());
    assert_eq!(stream.next(), Event::Comment, "its head has left");
    wait_for("both to run", || (server.metrics().jobs("running") == 2).then_some(()));
    server.signal(Signal::TERM);
    let whole = whole.finish();
    assert_eq!(whole.status, 503, "{}", whole.text());
    assert!(whole.header("retry-after").is_some());
    let first = assert_goes_on(&whole.error());
    assert_eq!(whole.header("x-switchbox-job-id"), Some(first.as_str()));
    let (text, end) = stream.rest();
    let Event::Data(error) = end else { panic!("{end:?} after {text:?}") };
    let second = assert_goes_on(&error["error"]);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
    // Both ways that they were told of lead to the answer.
    let server = boot(0);
    for id in [&first, &second] {
        let done = server.call("GET", &format!("/v1/jobs/{id}?wait=60s"), "").value();
        assert_eq!(done["state"], "succeeded", "{done}");
    }
    let again = ask(&server, "whole", json!({})).send();
    assert_eq!((again.status, again.header("x-switchbox-job-id")), (200, Some(first.as_str())));
    let mut again = Events::of(ask(&server, "stream", json!({"stream": true})).open());
    assert_eq!(again.rest(), ("one two".to_owned(), Event::Done));
    server.assert_nothing_left();
}

/// A job by name that runs, and doesn't end by itself.
fn running_job(server: &Server) -> String {
    let body: Value = serde_json::from_str(&chat::body("slow", "one two", json!({}))).expect("made as JSON");
    let job = json!({"endpoint": "/v1/chat/completions", "body": body}).to_string();
    let id = server.call("POST", "/v1/jobs", &job).value()["id"].as_str().expect("an id").to_owned();
    wait_for("the job to run", || (server.metrics().jobs("running") == 1).then_some(()));
    id
}

/// A request for a job's end, once it is seen to wait.
fn waiting_for(server: &Server, id: &str) -> Connection {
    let waiting = server.request("GET", &format!("/v1/jobs/{id}?wait=60s")).open();
    let waits = || server.admin("GET", "/metrics").text().contains("\nswitchbox_job_waiters 1\n");
    wait_for("it to wait", || waits().then_some(()));
    waiting
}

#[test]
fn who_waits_for_a_job_is_shown_where_it_stands_when_the_box_leaves() {
    let mut server = slow(60_000).arg("--drain-deadline").arg("1s").start();
    let id = running_job(&server);
    let waiting = waiting_for(&server, &id);
    server.signal(Signal::TERM);
    let seen = waiting.finish();
    assert_eq!((seen.status, &seen.value()["state"]), (200, &json!("queued")), "{}", seen.text());
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
}

#[test]
fn who_waits_for_a_job_waits_on_while_the_box_drains() {
    let server = slow(60_000).start();
    let id = running_job(&server);
    assert_eq!(server.admin("POST", "/admin/drain").status, 200);
    wait_draining(&server);
    let waiting = waiting_for(&server, &id);
    assert_eq!(server.call("DELETE", &format!("/v1/jobs/{id}"), "").status, 200);
    let seen = waiting.finish();
    assert_eq!((seen.status, &seen.value()["state"]), (200, &json!("cancelled")), "{}", seen.text());
    server.assert_nothing_left();
}

#[test]
fn the_operator_can_drain() {
    let mut server = slow(50).start();
    let streams = running_streams(&server, 2);
    let answer = server.admin("POST", "/admin/drain");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.value(), json!({"draining": true, "live": 2}));
    wait_draining(&server);
    assert_sent_elsewhere(&server);
    assert_all_end_well(streams);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
}

/// A data directory whose store never finishes opening: reading a pipe that nobody writes waits for ever.
fn stuck_store(data: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(data.join("store")).expect("made");
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    mknodat(CWD, data.join("store/format"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// What is said of a start that isn't through; also to whoever looks only at the status.
fn wait_starting(address: SocketAddr) {
    wait_for("the listener", || TcpStream::connect(address).ok());
    let answer = Request::new(address, "GET", "/readyz").send();
    let error = answer.value()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (503, &json!("server_is_starting")), "{}", answer.text());
    assert!(error["message"].as_str().is_some_and(|message| message.contains("0 stored rows")), "{error}");
    assert_eq!(Request::new(address, "GET", "/healthz").send().status, 200);
}

#[test]
fn a_box_that_still_starts_leaves_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = TempDir::new();
        let data = dir.join("data");
        stuck_store(&data);
        let address = free_address();
        let setup = Setup::open().model("echo", "echo:").arg("--listen").arg(&address.to_string());
        let mut starting = setup.launch_in(&data);
        wait_starting(address);
        starting.signal(signal);
        assert_eq!(starting.wait_exit().code(), Some(0), "{}", starting.stderr());
        assert!(starting.stderr().contains("told to stop while starting"), "{}", starting.stderr());
    }
}
