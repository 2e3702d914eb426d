//! Templates of blind jobs, and the account that pays for checks.

use crate::harness::chat;
use crate::harness::cli::{on, said};
use crate::harness::server::{Server, Setup, TempDir};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = dir.join(name);
    fs::write(&path, text).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

fn list(server: &Server) -> Vec<Value> {
    let all = server.admin("GET", "/admin/templates").value();
    all["templates"].as_array().expect("a list").clone()
}

#[test]
fn templates_are_what_a_clients_request_would_be_and_are_kept() {
    let dir = TempDir::new();
    let mut server = Setup::open().model("echo", "echo:").start();
    let body = chat::body("echo", "one two three", json!({"stream": true, "service_tier": "priority"}));
    let request = file(&dir, "request.json", &format!("\n{body}\n"));
    let answer = file(&dir, "answer.txt", "one two three");
    let add = ["templates", "add", "said-back", "--request", &request, "--answer", &answer];
    assert_eq!(said(&server, &add), "done\n");
    on(&server, &add).check(1, &["template_refused", "remove it first"]);
    let remote = chat::body("far", "x", json!({"max_tokens": 30}));
    let far = file(&dir, "far.json", &remote);
    said(&server, &["templates", "add", "story", "--request", &far, "--tokens", "5-30"]);
    let real = chat::ask(&server, "echo", "one two three", json!({})).value();
    let shown = list(&server);
    let expected = json!({"name": "said-back", "model": "echo", "endpoint": "/v1/chat/completions",
        "tier": "realtime", "stream": true, "body_bytes": body.len(),
        "input_tokens": real["usage"]["prompt_tokens"], "output_tokens_max": shown[0]["output_tokens_max"],
        "answers": 1, "tokens": null});
    assert_eq!(shown[0], expected);
    assert_eq!(shown[1]["input_tokens"], remote.len() + 16, "bounds, where the box has no template");
    assert_eq!(shown[1]["tokens"], json!({"min": 5, "max": 30}));
    let table = said(&server, &["templates", "list"]);
    assert!(
        table.contains("echo   said-back  realtime, stream") && table.contains("5 to 30 tokens"),
        "{table}"
    );
    assert!(!table.contains("one two"), "{table}");
    server.signal(Signal::KILL);
    server.wait_exit();
    let server = Setup::open().model("echo", "echo:").start_in(&server.data);
    assert_eq!(list(&server), shown);
    assert_eq!(said(&server, &["templates", "remove", "far", "story"]), "done\n");
    assert_eq!(list(&server).len(), 1);
    on(&server, &["templates", "remove", "far", "story"]).check(1, &["template_not_found", "templates list"]);
    server.assert_nothing_left();
}

#[test]
fn templates_that_make_no_sense_are_refused_by_name() {
    let dir = TempDir::new();
    let server = Setup::open().model("echo", "echo:").start();
    let body: Value = serde_json::from_str(&chat::body("echo", "x", json!({}))).expect("JSON");
    let refused = |template: Value, param: &str| {
        let error = server.command("/admin/templates", &template).assert_refused(400, "invalid_value");
        assert_eq!(error["param"], param, "{template}");
    };
    refused(json!({"name": "a", "body": body}), "answers");
    refused(json!({"name": "a", "body": body, "answers": ["x"], "tokens": {"min": 1, "max": 2}}), "answers");
    refused(json!({"name": "a", "body": body, "digests": ["12"]}), "digests");
    refused(json!({"name": "a", "body": body, "answers": ["x"], "endpoint": "/v1/embeddings"}), "endpoint");
    refused(json!({"name": "", "body": body, "answers": ["x"]}), "name");
    refused(json!({"name": "a", "answers": ["x"]}), "body");
    let odd = json!({"name": "a", "body": {"model": "echo"}, "answers": ["x"]});
    server.command("/admin/templates", &odd).assert_refused(400, "missing_required_parameter");
    let range = json!({"name": "a", "body": body, "tokens": {"min": 3, "max": 2}});
    server.command("/admin/templates", &range).assert_refused(409, "template_refused");
    let long = json!({"name": "n".repeat(65), "body": body, "answers": ["x"]});
    server.command("/admin/templates", &long).assert_refused(409, "template_refused");
    let (text, request) = (file(&dir, "text.json", "no JSON"), file(&dir, "ok.json", &body.to_string()));
    on(&server, &["templates", "add", "a", "--request", &text, "--tokens", "1-2"]).check(2, &["isn't JSON"]);
    on(&server, &["templates", "add", "a", "--request", &request, "--tokens", "12"])
        .check(2, &["isn't MIN-MAX"]);
    on(&server, &["templates", "add", "a", "--request", "/nowhere", "--tokens", "1-2"])
        .check(2, &["can't read"]);
    assert!(list(&server).is_empty());
}

#[test]
fn the_integrity_account_takes_deposits_and_nodes_earnings_go_to_their_owner() {
    let server = Setup::open().model("echo", "echo:").start();
    let balance = |account: &str| {
        let all = server.admin("GET", "/admin/balances").value();
        let mut found =
            all["balances"].as_array().expect("a list").iter().filter(|line| {
                (&line["account"], &line["environment"]) == (&json!(account), &json!("testnet"))
            });
        found.next().map_or(Value::Null, |line| line["balance"].clone())
    };
    let deposit =
        ["credits", "deposit", "--integrity", "2.5", "--environment", "testnet", "--operation", "beef"];
    for _ in 0..2 {
        assert_eq!(said(&server, &deposit), "deposited, as operation beef\n");
        assert_eq!((balance("integrity"), balance("issuance")), (json!("2.500000"), json!("-2.500000")));
    }
    on(&server, &["credits", "deposit", "--integrity", "team", "1"]).check(2, &["no namespace"]);
    on(&server, &["credits", "deposit", "5"]).check(2, &["NAMESPACE and CREDITS"]);
    // A node earns, and its owner gets it.
    said(&server, &["credits", "price", "1000000", "1000000"]);
    assert_eq!(chat::ask(&server, "echo", "one two", json!({})).status, 200);
    let earned = server.admin("GET", "/admin/nodes/node_local").value()["earnings"]["mainnet"].clone();
    let earned = earned.as_str().expect("an amount").to_owned();
    assert_ne!(earned, "0.000000");
    let transfer = ["credits", "transfer", "node_local", &earned, "--operation", "cafe"];
    on(&server, &transfer).check(1, &["node_has_no_owner", "nodes trust"]);
    said(&server, &["nodes", "trust", "node_local", "own", "--owner", "team"]);
    assert_eq!(said(&server, &transfer), "transferred, as operation cafe\n");
    let table = said(&server, &["credits", "balances"]);
    assert!(table.contains(&format!("namespace  team        {earned}")), "{table}");
    on(&server, &["credits", "transfer", "node_local", "1"]).check(1, &["ledger_refused"]);
    server.assert_nothing_left();
}
