//! Streams that share the executor don't share their fate: the same text as alone, and nobody waits for another's end.

use crate::harness::chat::{self, ENDLESS, Event, Events};
use crate::harness::model_path;
use crate::harness::server::{Server, Setup};
use serde_json::{Value, json};

const QUESTIONS: [&str; 4] = [
    "List the first ten prime numbers.",
    "Write a Python function that reverses a string.",
    "What is 12 + 30?",
    "What is the capital of France?",
];

fn seeded(i: usize) -> Value {
    json!({"temperature": 0.8, "top_p": 0.95, "seed": 100 + i, "max_tokens": 40})
}

fn answer(server: &Server, i: usize) -> String {
    let (text, end) = Events::of(chat::open(server, "small", QUESTIONS[i], seeded(i))).rest();
    assert_eq!(end, Event::Done, "stream {i}");
    text
}

#[test]
fn together_as_alone() {
    let server = Setup::open().model("small", model_path()).arg("--slots").arg("4").start();
    let alone: Vec<String> = (0..4).map(|i| answer(&server, i)).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                scope.spawn({
                    let server = &server;
                    move || answer(server, i)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a whole stream")).collect()
    });
    assert_eq!(together, alone);
    assert!(alone.iter().all(|text| !text.is_empty()));
    let whole = chat::ask(&server, "small", QUESTIONS[0], seeded(0)).value();
    assert_eq!(whole["choices"][0]["message"]["content"], alone[0].as_str(), "whole as streamed");
    server.assert_nothing_left();
}

#[test]
fn a_later_request_does_not_wait_for_an_earlier_one() {
    let server = Setup::open().model("small", model_path()).arg("--slots").arg("4").start();
    let endless = json!({"temperature": 0, "max_tokens": 1000});
    let mut first = Events::of(chat::open(&server, "small", ENDLESS, endless));
    first.first_text();
    for question in &QUESTIONS[..3] {
        let mut later = Events::of(chat::open(&server, "small", question, json!({"max_tokens": 8})));
        later.first_text();
        let metrics = server.metrics();
        assert!(metrics.jobs("running") >= 1, "the first stream goes on");
        assert_eq!(later.rest().1, Event::Done);
    }
    assert_eq!(server.metrics().finished("succeeded"), 3, "the first stream still goes on");
    drop(first);
    server.assert_nothing_left();
}

/// Many prompts read in turn: each waits for the others, and none is given up on for that.
#[test]
fn prompts_that_wait_for_one_another_are_not_overdue() {
    let limits = "[limits]\naccept_timeout_ms = 100\n";
    let server = Setup::open().config(limits).model("small", model_path()).arg("--slots").arg("8").start();
    let long = format!("{} What is the last word?", "The sea was calm that night. ".repeat(15));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let stream = chat::open(&server, "small", &long, json!({"max_tokens": 2}));
                assert_eq!(Events::of(stream).rest().1, Event::Done);
            });
        }
    });
    assert_eq!(server.metrics().total("switchbox_attempts_failed_total"), 0);
    server.assert_nothing_left();
}
