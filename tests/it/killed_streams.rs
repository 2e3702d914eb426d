//! `kill -9` in the middle of streams: what began ends as interrupted and costs nothing, what waited goes on.

use crate::harness::chat::{self, Event, Events};
use crate::harness::server::{Server, Setup, TempDir};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A stream with that key, or without one.
fn open(server: &Server, model: &str, key: Option<&str>, words: &str) -> Events {
    let request = chat::stream(server, model, words, json!({}));
    Events::of(key.into_iter().fold(request, |request, key| request.header("idempotency-key", key)).open())
}

/// The job of a stream, by its first event.
fn job_of(events: &mut Events) -> String {
    loop {
        match events.next() {
            Event::Data(event) => {
                let id = event["id"].as_str().and_then(|id| id.strip_prefix("chatcmpl-"));
                return id.unwrap_or_else(|| panic!("no id in {event}")).to_owned();
            }
            Event::Comment => {}
            end => panic!("no first event, but {end:?}"),
        }
    }
}

fn seen(server: &Server, id: &str) -> Value {
    let answer = server.call("GET", &format!("/v1/jobs/{id}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.value()
}

/// Millionths of a credit.
fn micros(credits: &Value) -> i64 {
    let text = credits.as_str().unwrap_or_else(|| panic!("no amount: {credits}"));
    text.replace('.', "").parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What each account has, where anything is; nothing is held of any.
fn balances(server: &Server) -> Vec<(String, i64)> {
    let all = server.admin("GET", "/admin/balances").value();
    let lines = all["balances"].as_array().expect("a list");
    lines.iter().for_each(|line| assert_eq!(micros(&line["held"]), 0, "{line}"));
    let named =
        |line: &Value| (line["account"].as_str().expect("a word").to_owned(), micros(&line["balance"]));
    lines.iter().map(named).filter(|(_, balance)| *balance != 0).collect()
}

#[test]
fn a_kill_in_the_middle_of_streams_leaves_the_right_states_and_nothing_held() {
    let dir = TempDir::new();
    let boot = || {
        let setup = Setup::open().model("slow", "echo:50").model("later", "echo:");
        setup.config("[limits]\nkeepalive_delay_ms = 50").start_in(&dir.join("data"))
    };
    let mut server = boot();
    let price = json!({"input": "1000000", "output": "1000000"});
    assert_eq!(server.command("/admin/prices", &price).status, 200);
    let whole = chat::ask(&server, "slow", "is paid for", json!({}));
    let whole = whole.header("x-switchbox-job-id").expect("an answer names its job").to_owned();
    let words = chat::long_prompt(100);
    let mut begun = [open(&server, "slow", None, &words), open(&server, "slow", Some("k-1"), &words)];
    let ids = begun.each_mut().map(job_of);
    begun.iter_mut().for_each(|stream| drop(stream.first_text()));
    let later = json!({"model": "later"});
    assert_eq!(server.command("/admin/pause", &later).status, 200);
    let waiting = open(&server, "later", Some("k-2"), "one two");
    assert_eq!((server.metrics().jobs("running"), server.metrics().jobs("queued")), (2, 1));
    server.signal(Signal::KILL);
    server.wait_exit();
    drop((begun, waiting));

    let server = boot();
    for id in &ids {
        let cut = seen(&server, id);
        assert_eq!((&cut["state"], &cut["error"]["code"]), (&json!("cancelled"), &json!("job_interrupted")));
        assert_eq!(micros(&cut["credits"]), 0, "{cut}");
    }
    // The one that waited goes on under its key, and is no new job.
    assert_eq!(server.command("/admin/resume", &later).status, 200);
    let mut again = open(&server, "later", Some("k-2"), "one two");
    let late = job_of(&mut again);
    assert_eq!(again.rest(), ("one two".to_owned(), Event::Done));
    assert_eq!(server.metrics().total("switchbox_jobs_accepted_total"), 0);
    assert_eq!(seen(&server, &late)["state"], "succeeded");
    server.assert_nothing_left();
    let charged: i64 = [&whole, &late].iter().map(|id| micros(&seen(&server, id)["credits"])).sum();
    assert!(charged > 0);
    let balances = balances(&server);
    assert!(balances.contains(&("namespace".to_owned(), -charged)), "{charged} in {balances:?}");
    assert_eq!(balances.iter().map(|(_, balance)| balance).sum::<i64>(), 0, "{balances:?}");
    // The key of what was cut is free: the same request is a new job.
    let mut again = open(&server, "slow", Some("k-1"), &words);
    assert!(!ids.contains(&job_of(&mut again)));
    assert_eq!(again.rest(), (words, Event::Done));
    server.assert_nothing_left();
}
