//! A client that leaves costs the executor at most two further steps, wherever its job was. Read from the counters,
//! never from the clock.

use crate::harness::chat::{self, ENDLESS, Events};
use crate::harness::metrics::Metrics;
use crate::harness::server::{Server, Setup};
use crate::harness::{PATIENCE, model_path};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const STEPS_AFTER_CANCEL_MAX: u64 = 2;

fn endless() -> Value {
    json!({"temperature": 0, "max_tokens": 1500})
}

fn small(slots: &str) -> Server {
    Setup::open().model("small", model_path()).arg("--slots").arg(slots).start()
}

fn wait_until(server: &Server, what: &str, seen: impl Fn(&Metrics) -> bool) {
    let begun = Instant::now();
    while !seen(&server.metrics()) {
        assert!(
            begun.elapsed() < PATIENCE,
            "gave up waiting for {what}: {}",
            server.admin("GET", "/metrics").text()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_cheap(server: &Server) {
    let metrics = server.metrics();
    let most = metrics.total("switchbox_executor_steps_after_cancel_max");
    assert!(most <= STEPS_AFTER_CANCEL_MAX, "a cancelled job went on for {most} steps");
}

#[test]
fn in_the_queue_it_costs_nothing() {
    let server = small("1");
    let mut running = Events::of(chat::open(&server, "small", ENDLESS, endless()));
    running.first_text();
    let prefilled = server.metrics().total("switchbox_executor_prefill_tokens_total");
    let waiting = chat::open(&server, "small", &chat::long_prompt(300), json!({}));
    wait_until(&server, "the second job in the queue", |m| m.jobs("queued") == 1);
    drop(waiting);
    wait_until(&server, "the queued job's end", |m| m.finished("cancelled") == 1);
    let metrics = server.metrics();
    assert_eq!(metrics.disconnects("queued"), 1);
    assert_eq!(
        metrics.total("switchbox_executor_prefill_tokens_total"),
        prefilled,
        "the executor never saw it"
    );
    assert_eq!(metrics.total("switchbox_executor_cancelled_total"), 0, "the executor never saw it");
    assert_eq!(metrics.jobs("running"), 1, "the other job goes on");
    drop(running);
    server.assert_nothing_left();
    assert_cheap(&server);
}

#[test]
fn in_prefill_it_stops_within_two_steps() {
    let server = small("2");
    let connection = chat::open(&server, "small", &chat::long_prompt(1500), json!({"max_tokens": 50}));
    wait_until(&server, "prefill", |m| m.total("switchbox_executor_prefill_tokens_total") > 0);
    drop(connection);
    wait_until(&server, "the cancel", |m| m.total("switchbox_executor_cancelled_total") == 1);
    let metrics = server.metrics();
    assert_eq!(metrics.executor_cancelled("prefill"), 1);
    assert_eq!(metrics.total("switchbox_executor_decode_tokens_total"), 0, "no token was made for nobody");
    assert_cheap(&server);
    server.assert_nothing_left();
    assert_eq!(server.metrics().disconnects("prefill"), 1);
}

#[test]
fn in_decode_it_stops_within_two_steps() {
    let server = small("2");
    let mut events = Events::of(chat::open(&server, "small", ENDLESS, endless()));
    events.first_text();
    drop(events);
    wait_until(&server, "the cancel", |m| m.executor_cancelled("decode") == 1);
    assert_cheap(&server);
    server.assert_nothing_left();
    let metrics = server.metrics();
    assert_eq!(metrics.disconnects("decode"), 1);
    assert_eq!(metrics.finished("cancelled"), 1);
}

#[test]
fn a_client_that_waits_for_a_whole_answer_can_leave_too() {
    let server = small("2");
    let body = chat::body("small", ENDLESS, endless());
    let connection = server.request("POST", "/v1/chat/completions").json(&body).open();
    wait_until(&server, "decode", |m| m.total("switchbox_executor_decode_tokens_total") > 3);
    drop(connection);
    wait_until(&server, "the cancel", |m| m.executor_cancelled("decode") == 1);
    assert_cheap(&server);
    server.assert_nothing_left();
}
