//! Peers that break the node protocol, each in its own way: each ends in its documented close code or refusal, with a
//! counter, and a trace entry where a job is concerned; and nobody else notices.

mod frames;
mod identity;
mod messages;
mod results;
mod work;

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::harness::chat;
use crate::harness::peer::{Machine, Peer};
use crate::harness::server::{Server, Setup};
use crate::harness::wait_for;

/// A box whose own node serves the model `echo`, with these limits.
fn box_with(limits: &str) -> Server {
    Setup::open().model("echo", "echo:").config(&format!("[limits]\n{limits}")).start()
}

/// The same, whose own node is paused: what comes goes to others.
fn box_of_others(limits: &str) -> Server {
    let server = box_with(limits);
    pause(&server, "node_local");
    server
}

fn pause(server: &Server, node: &str) {
    let answer = server.command(&format!("/admin/nodes/{node}/pause"), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn resume(server: &Server, node: &str) {
    let answer = server.command(&format!("/admin/nodes/{node}/resume"), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Checks how the box closes a connection: code, words of the reason, and the counter of that code.
#[track_caller]
fn assert_closed(server: &Server, peer: &mut Peer<'_>, code: u16, word: &str, said: &str) {
    let (closed, reason) = peer.closed();
    assert_eq!(closed, code, "{reason}");
    assert!(reason.contains(said), "`{said}` isn't in: {reason}");
    wait_for(&format!("the count of {word}"), || (closes(server, word) > 0).then_some(()));
}

fn closes(server: &Server, word: &str) -> u64 {
    server.metrics().sum("switchbox_node_closes_total", &[&format!("code=\"{word}\"")])
}

/// Nobody else noticed: the box's own node still answers.
#[track_caller]
fn assert_others_work(server: &Server) {
    resume(server, "node_local");
    let answer = chat::ask(server, "echo", "still here", json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.assert_nothing_left();
}

/// A prompt that no other job of the test has: some are repeated by the box.
fn new_prompt() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("prompt number {} of this test", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What the operator sees of a node.
fn node(server: &Server, machine: &Machine) -> Value {
    let nodes = server.admin("GET", "/admin/nodes").value();
    let name = machine.name();
    let found = nodes["nodes"].as_array().expect("a list").iter().find(|node| node["node"] == name.as_str());
    found.cloned().unwrap_or(Value::Null)
}

/// How often a node did something that counts against it.
fn faults(server: &Server, machine: &Machine, fault: &str) -> u64 {
    node(server, machine)["faults"][fault].as_u64().unwrap_or(0)
}

/// The events of a job's trace.
fn trace(server: &Server, job: &str) -> Vec<String> {
    let trace = server.admin("GET", &format!("/admin/jobs/{job}/trace")).value();
    let events = trace["trace"].as_array().unwrap_or_else(|| panic!("{trace}"));
    events.iter().map(|entry| entry["event"].as_str().expect("a word").to_owned()).collect()
}
