//! Receipts: what a box gives out, and what `switchbox verify`, another process that asks nobody, makes of it.

use crate::harness::chat;
use crate::harness::cli;
use crate::harness::server::{Setup, TempDir};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn verify(receipt: &Path, more: &[&str]) -> cli::Ran {
    let args = [&["verify", receipt.to_str().expect("UTF-8")], more].concat();
    cli::run(args)
}

/// The receipts of the protocol's test vectors: of a node, and of a box's own node; with the box's key.
fn vectors() -> (Vec<Value>, String, Value) {
    let path = crate::harness::root().join("docs/node-protocol-vectors.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON");
    let key = vectors["keys"]["box"]["public"].as_str().expect("a key").to_owned();
    let receipts = vectors["receipts"].as_array().expect("a list").clone();
    (receipts, key, vectors["request_hashes"][0].clone())
}

#[test]
fn a_receipt_is_verified_without_the_box() {
    let dir = TempDir::new();
    let file = dir.join("receipt.json");
    let (receipts, key, request) = vectors();
    for (receipt, by) in receipts.iter().zip(["countersigned by the box", "the box alone"]) {
        fs::write(&file, receipt.to_string()).expect("writable");
        verify(&file, &["--box-key", &key]).check(0, &["VERIFIED", by, "small", "1290 micro-credits"]);
        verify(&file, &[]).check(2, &["UNTRUSTED KEY", &key, "--box-key"]);
        let another = receipts[0]["node_key"].as_str().expect("a key");
        verify(&file, &["--box-key", another]).check(1, &["`box_key`", "another box's"]);
        for (pointer, value) in [
            ("/stated/output_tokens", json!(8)),
            ("/stated/model", json!("large")),
            ("/billed/microcredits", json!(1)),
            ("/ended_at_ms", json!(1)),
        ] {
            let mut changed = receipt.clone();
            *changed.pointer_mut(pointer).expect("a field") = value;
            fs::write(&file, changed.to_string()).expect("writable");
            let field = pointer.rsplit('/').next().expect("a name");
            verify(&file, &["--box-key", &key]).check(1, &[field, "isn't what was signed"]);
            verify(&file, &[]).check(1, &[field]);
        }
    }
    fs::write(&file, receipts[0].to_string()).expect("writable");
    let (body, other) = (dir.join("body"), dir.join("other"));
    fs::write(&body, request["body"].as_str().expect("a body")).expect("writable");
    fs::write(&other, "{}").expect("writable");
    let compared =
        |body: &Path| verify(&file, &["--box-key", &key, "--request", body.to_str().expect("UTF-8")]);
    compared(&body).check(0, &["VERIFIED", "the request is the one that was signed"]);
    compared(&other).check(1, &["`request_hash`"]);
}

#[test]
fn what_is_no_receipt_is_refused_in_words() {
    let dir = TempDir::new();
    let file = dir.join("receipt.json");
    verify(&file, &[]).check(2, &["can't read", "receipt.json"]);
    for text in ["", "{}", "[1]", "{\"object\": \"switchbox.receipt\"}", "\u{0}"] {
        fs::write(&file, text).expect("writable");
        verify(&file, &[]).check(1, &["no receipt"]);
    }
    fs::write(&file, vec![b' '; 70_000]).expect("writable");
    verify(&file, &[]).check(2, &["more than 65536 bytes"]);
    let (receipts, key, _) = vectors();
    fs::write(&file, receipts[0].to_string()).expect("writable");
    verify(&file, &["--box-key", &key[1..]]).check(2, &["`--box-key`", "64 lower-case hexadecimal digits"]);
    verify(&file, &["--box-key", &"0".repeat(64)]).check(2, &["usable ed25519 public key"]);
}

#[test]
fn a_box_vouches_for_its_own_node_and_gives_receipts_of_answers_only() {
    let server = Setup::open().model("echo", "echo:").model("slow", "echo:50").start();
    let body: Value = serde_json::from_str(&chat::body("echo", "hello", json!({}))).expect("JSON");
    let job = json!({"endpoint": "/v1/chat/completions", "body": body}).to_string();
    let id = server.call("POST", "/v1/jobs", &job).value()["id"].as_str().expect("an id").to_owned();
    let done = server.call("GET", &format!("/v1/jobs/{id}?wait=60s"), "").value();
    let answer = done["result"]["choices"][0]["message"]["content"].as_str().expect("an answer").to_owned();

    let given = server.call("GET", &format!("/v1/jobs/{id}/receipt"), "");
    assert_eq!(given.status, 200, "{}", given.text());
    let receipt = given.value();
    let usage = &done["result"]["usage"];
    assert_eq!(receipt["billed"]["output_tokens"], usage["completion_tokens"], "{receipt}");
    assert_eq!(receipt["stated"]["job"].as_str(), Some(&*id));
    assert!(receipt.get("node_key").is_none(), "{receipt}");
    let dir = TempDir::new();
    let (file, text) = (dir.join("receipt.json"), dir.join("answer"));
    fs::write(&file, given.text()).expect("writable");
    fs::write(&text, answer).expect("writable");
    let key = receipt["box_key"].as_str().expect("a key");
    let answer = ["--box-key", key, "--answer", text.to_str().expect("UTF-8")];
    verify(&file, &answer).check(0, &["VERIFIED", "the box alone", &id, "the answer is the one"]);

    let running = chat::body("slow", &"word ".repeat(2_000), json!({}));
    let running: Value = serde_json::from_str(&running).expect("JSON");
    let job = json!({"endpoint": "/v1/chat/completions", "body": running}).to_string();
    let live = server.call("POST", "/v1/jobs", &job).value()["id"].as_str().expect("an id").to_owned();
    let refused = server.call("GET", &format!("/v1/jobs/{live}/receipt"), "");
    assert_eq!((refused.status, &refused.error()["code"]), (409, &json!("job_not_ended")));
    server.call("DELETE", &format!("/v1/jobs/{live}"), "");
    server.call("GET", &format!("/v1/jobs/{live}?wait=60s"), "");
    let refused = server.call("GET", &format!("/v1/jobs/{live}/receipt"), "");
    assert_eq!((refused.status, &refused.error()["code"]), (404, &json!("no_receipt")));
    let unknown = server.call("GET", "/v1/jobs/job_000000000000000000/receipt", "");
    assert_eq!(unknown.status, 404);
    server.assert_nothing_left();
}
