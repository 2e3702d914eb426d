//! Box and agent as two real processes.

mod configured;
mod kills;
mod reaching;
mod serving;

use crate::harness::agent::{Agent, Setup as AgentSetup};
use crate::harness::chat::{self, Event, Events};
use crate::harness::peer;
use crate::harness::proxy::Proxy;
use crate::harness::server::{Server, Setup};
use crate::harness::wait_for;
use serde_json::{Value, json};
use std::path::Path;
use switchbox::wire::JoinString;

/// A token each so many milliseconds.
const SLOW: &str = "echo:10";

/// A box whose own node runs nothing, and that charges for tokens: what comes goes to agents.
fn box_of_agents(config: &str) -> Server {
    let server = Setup::open().model("echo", "echo:").model("slow", SLOW).config(config).start();
    paused(&server);
    let price = json!({"input": "1000000", "output": "1000000"});
    assert_eq!(server.command("/admin/prices", &price).status, 200);
    server
}

fn paused(server: &Server) {
    assert_eq!(server.command("/admin/nodes/node_local/pause", &json!({})).status, 200);
}

/// How a stream that was cut by its node's death ends: with an error event, after what came before.
fn is_error(end: &Event) -> bool {
    matches!(end, Event::Data(event) if event["error"]["message"].is_string())
}

/// The flags of an agent with both models.
fn both() -> AgentSetup {
    AgentSetup::model("echo", "echo:").arg("--model").arg(&format!("slow={SLOW}"))
}

/// A join string of that box, by way of a proxy where there is one.
fn join(server: &Server, proxy: Option<&Proxy>) -> String {
    let join = peer::invite(server, json!({}));
    let url = proxy.map_or_else(|| join.url.clone(), |proxy| format!("http://{}", proxy.addr));
    JoinString { url, ..join }.text()
}

/// An agent that has joined and may work: a test job of each of its models has passed.
fn joined(server: &Server, data: &Path, proxy: Option<&Proxy>) -> Agent {
    let passed = || server.metrics().total("switchbox_test_jobs_passed_total");
    let before = passed();
    let mut agent = both().join(&join(server, proxy)).start_in(data);
    agent.wait_ready();
    wait_for("the test jobs", || (passed() == before + 2).then_some(()));
    agent
}

/// The node's name at the box.
fn name_of(agent: &Agent) -> String {
    let line = agent.stdout();
    line.split(' ').find(|word| word.starts_with("node_")).expect("the ready line names the node").to_owned()
}

fn node(server: &Server, name: &str) -> Value {
    let nodes = server.admin("GET", "/admin/nodes").value();
    let list = nodes["nodes"].as_array().unwrap_or_else(|| panic!("no list: {nodes}"));
    let found = list.iter().find(|node| node["node"] == name);
    found.unwrap_or_else(|| panic!("{name} isn't in {nodes}")).clone()
}

fn wait_until_ready(server: &Server, name: &str) {
    wait_for("the node to be ready", || (node(server, name)["standing"] == "ready").then_some(()));
}

/// The job of a stream that was just opened, by its first event.
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

/// A job as its owner sees it.
fn seen(server: &Server, id: &str) -> Value {
    let answer = server.call("GET", &format!("/v1/jobs/{id}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.value()
}

/// What the default namespace has paid, in credits: one for each token. Nothing is held of it.
fn paid(server: &Server) -> i64 {
    let all = server.admin("GET", "/admin/balances").value();
    let micros = |credits: &Value| -> i64 {
        let text = credits.as_str().unwrap_or_else(|| panic!("no amount: {credits}"));
        text.replace('.', "").parse().unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let lines = all["balances"].as_array().expect("a list");
    let of = lines.iter().find(|line| line["account"] == "namespace" && line["name"] == "default");
    of.map_or(0, |line| {
        assert_eq!(micros(&line["held"]), 0, "{line}");
        -micros(&line["balance"]) / 1_000_000
    })
}

/// Some words, each its own.
fn words(count: usize) -> String {
    (0..count).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
}

fn stream(server: &Server, model: &str, said: &str) -> Events {
    Events::of(chat::open(server, model, said, json!({})))
}
