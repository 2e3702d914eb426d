//! What rots on the disk under a running box costs what rotted, and nothing else.

use crate::harness::chat;
use crate::harness::http::Response;
use crate::harness::server::{Server, Setup};
use crate::harness::wait_for;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::FileExt;

fn submit(server: &Server, key: &str, content: &str) -> Response {
    let more = json!({"max_tokens": 5_000});
    let body: Value = serde_json::from_str(&chat::body("echo", content, more)).expect("made as JSON");
    let job = json!({"endpoint": "/v1/chat/completions", "body": body}).to_string();
    server.request("POST", "/v1/jobs").header("idempotency-key", key).json(&job).send()
}

/// A job whose answer is that text.
fn done(server: &Server, key: &str, content: &str) -> String {
    let accepted = submit(server, key, content);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.value()["id"].as_str().expect("a job has an id").to_owned();
    assert_eq!(text_of(&read(server, &id, "?wait=60s")), content);
    id
}

fn read(server: &Server, id: &str, query: &str) -> Response {
    server.call("GET", &format!("/v1/jobs/{id}{query}"), "")
}

fn text_of(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let job = answer.value();
    job["result"]["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned()
}

/// Changes a byte of each run of that word in the journal: in the body, and in the answer.
fn damage(server: &Server, word: &str) {
    let word = word.as_bytes();
    let mut runs = 0;
    for entry in fs::read_dir(server.data.join("store/journal")).expect("a journal") {
        let path = entry.expect("an entry").path();
        // One that is being made gets its name meanwhile.
        let Ok(bytes) = fs::read(&path) else { continue };
        let file = fs::OpenOptions::new().write(true).open(&path).expect("writable");
        for at in (word.len()..bytes.len()).filter(|at| bytes[*at..].starts_with(word)) {
            if !bytes[..at].ends_with(word) {
                file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("written");
                runs += 1;
            }
        }
    }
    assert!(runs >= 2, "{runs} runs");
}

#[test]
fn a_damaged_answer_is_said_of_its_job_and_of_no_other() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let word = "unmistakable ";
    let long = format!("{}end", word.repeat(2_000));
    let whole = done(&server, "k-1", &format!("{}end", "another ".repeat(2_000)));
    let rotten = done(&server, "k-2", &long);
    damage(&server, word);
    let told = |answer: &Response| {
        let error = answer.error();
        assert_eq!((answer.status, &error["code"]), (500, &json!("stored_data_damaged")), "{error}");
        let message = error["message"].as_str().expect("a sentence");
        assert!(message.contains("answer") && message.contains(&rotten), "{message}");
        let place = server.data.to_str().expect("UTF-8");
        assert!(!answer.text().contains(place) && !message.contains(".seg"), "{message}");
        assert_eq!(answer.header("x-should-retry"), Some("false"), "it stays damaged");
    };
    told(&read(&server, &rotten, ""));
    told(&submit(&server, "k-2", &long));
    wait_for("the log to say where", || {
        let log = server.stderr();
        let line = log.lines().find(|line| line.contains(&rotten) && line.contains("is damaged at byte "))?;
        line.contains("store/journal/").then_some(())
    });
    assert!(text_of(&read(&server, &whole, "")).starts_with("another another "));
    done(&server, "k-3", "and goes on");
    assert!(server.alive());
    server.assert_nothing_left();
}
