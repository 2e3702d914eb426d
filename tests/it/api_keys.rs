//! API keys, made and revoked while a box runs; and keys whose jobs keep to a subcloud.

use crate::harness::chat;
use crate::harness::cli::{self, on, said};
use crate::harness::http::Response;
use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::{http, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn boxed() -> Setup {
    Setup::keyed().model("echo", "echo:")
}

/// Makes a key by the command line, which prints it alone.
pub fn create(server: &Server, more: &[&str]) -> String {
    let args: Vec<&str> = ["keys", "create"].iter().chain(more).copied().collect();
    let printed = said(server, &args);
    let key = printed.trim_end();
    assert!(key.starts_with("sk-") && key.len() == 55 && printed.lines().count() == 1, "{printed}");
    key.to_owned()
}

fn id(key: &str) -> &str {
    &key[3..11]
}

fn list(server: &Server) -> Vec<Value> {
    let all = server.admin("GET", "/admin/keys").value();
    all["keys"].as_array().expect("a list").clone()
}

/// A request with a key that needn't be the first.
pub fn call(server: &Server, key: &str, method: &str, path: &str, body: &str) -> Response {
    let request = http::Request::new(server.addr, method, path);
    request.header("authorization", &format!("Bearer {key}")).json(body).send()
}

pub fn ask(server: &Server, key: &str, more: Value) -> Response {
    call(server, key, "POST", "/v1/chat/completions", &chat::body("echo", "hello", more))
}

pub fn submit(server: &Server, key: &str, more: Value) -> String {
    let body = chat::body("echo", "hello", more);
    let job = format!(r#"{{"endpoint": "/v1/chat/completions", "body": {body}}}"#);
    let answer = call(server, key, "POST", "/v1/jobs", &job);
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.value()["id"].as_str().expect("an id").to_owned()
}

/// A job as the operator sees it.
fn job(server: &Server, id: &str) -> Value {
    server.admin("GET", &format!("/admin/jobs/{id}")).value()
}

fn has_ended(server: &Server, id: &str) {
    wait_for("the job to end", || (job(server, id)["state"] == "succeeded").then_some(()));
}

#[test]
fn a_key_works_from_its_making_to_its_revoking_also_after_a_crash() {
    let mut server = boxed().start();
    let key = create(&server, &["--namespace", "team"]);
    assert_eq!(ask(&server, &key, json!({})).status, 200);
    let other = create(&server, &["--namespace", "team", "--environment", "testnet"]);
    let shown = list(&server);
    assert_eq!(shown.len(), 3);
    assert_eq!((&shown[0]["first"], &shown[0]["namespace"]), (&json!(true), &json!("default")));
    let of = |key: &str| shown.iter().find(|shown| shown["id"] == id(key)).expect("it is listed").clone();
    assert_eq!(of(&key)["last"].as_str(), key.get(51..));
    assert_eq!((&of(&other)["environment"], &of(&other)["scope"]), (&json!("testnet"), &Value::Null));
    let table = said(&server, &["keys", "list"]);
    assert!(table.contains(&format!("{}  ...{}  team       mainnet", id(&key), &key[51..])), "{table}");
    assert!(!table.contains(&key[12..]) && !server.stderr().contains(&key[12..]));
    // Its namespace is its own.
    let foreign = submit(&server, &key, json!({}));
    server.call("GET", &format!("/v1/jobs/{foreign}"), "").assert_refused(404, "job_not_found");
    server.signal(Signal::KILL);
    server.wait_exit();
    let server = boxed().start_in(&server.data);
    assert_eq!(ask(&server, &key, json!({})).status, 200);
    assert_eq!(said(&server, &["keys", "revoke", id(&key)]), "done\n");
    ask(&server, &key, json!({})).assert_refused(401, "invalid_api_key");
    assert_eq!(ask(&server, &other, json!({})).status, 200);
    on(&server, &["keys", "revoke", id(&key)]).check(1, &["key_not_found", "switchbox keys list"]);
    let kept = fs::metadata(server.data.join("api.keys")).expect("it is kept").permissions().mode();
    assert_eq!(kept & 0o777, 0o600);
    let text = fs::read_to_string(server.data.join("api.keys")).expect("text");
    assert!(!text.contains(&other[12..]) && !text.contains(id(&key)) && text.contains(id(&other)), "{text}");
    server.assert_nothing_left();
}

#[test]
fn the_first_key_can_be_revoked_and_the_next_start_makes_another() {
    let mut server = boxed().start();
    let first = server.key.clone().expect("a keyed box");
    let key = create(&server, &["--namespace", "team"]);
    said(&server, &["keys", "revoke", id(&first)]);
    ask(&server, &first, json!({})).assert_refused(401, "invalid_api_key");
    assert_eq!(ask(&server, &key, json!({})).status, 200);
    assert_eq!(list(&server).len(), 1);
    server.signal(Signal::KILL);
    server.wait_exit();
    let server = boxed().start_in(&server.data);
    ask(&server, &first, json!({})).assert_refused(401, "invalid_api_key");
    let again = server.key.clone().expect("a keyed box");
    assert_ne!(again, first);
    assert_eq!(ask(&server, &again, json!({})).status, 200);
    assert_eq!(ask(&server, &key, json!({})).status, 200);
}

#[test]
fn what_makes_no_sense_about_keys_is_refused() {
    let server = boxed().start();
    said(&server, &["subclouds", "create", "lab", "--allow", "guests"]);
    for (body, param) in [
        (json!({"namespace": ""}), "namespace"),
        (json!({"namespace": "a", "environment": "prod"}), "environment"),
        (json!({"namespace": "a", "scope": "lab"}), "scope"),
        (json!({"namespace": "a", "scope": "subcloud:No Name"}), "scope"),
        (json!({"namespace": "a", "scopes": []}), "body"),
        (json!({}), "body"),
    ] {
        let error = server.command("/admin/keys", &body).assert_refused(400, "invalid_value");
        assert_eq!(error["param"], param, "{body}");
    }
    on(&server, &["keys", "create", "--namespace", "a", "--scope", "subcloud:nowhere"])
        .check(1, &["subcloud_not_found"]);
    on(&server, &["keys", "create", "--namespace", "a", "--scope", "subcloud:lab"])
        .check(1, &["subcloud_forbidden", "doesn't admit the namespace a", "subclouds set"]);
    on(
        &server,
        &["keys", "create", "--namespace", "guests", "--scope", "subcloud:lab", "--environment", "testnet"],
    )
    .check(1, &["subcloud_not_found"]);
    on(&server, &["keys", "revoke", "../../drain"]).check(2, &["isn't a key's id"]);
    on(&server, &["keys", "revoke", "-_-_-_-_"]).check(1, &["key_not_found"]);
    assert_eq!(list(&server).len(), 1);
    let open = Setup::open().model("echo", "echo:").start();
    on(&open, &["keys", "create", "--namespace", "a"]).check(1, &["no_keys", "--no-auth"]);
}

#[test]
fn a_key_with_a_scope_reaches_its_subcloud_and_nobody_else_does() {
    let server = boxed().start();
    let first = server.key.clone().expect("a keyed box");
    said(
        &server,
        &["subclouds", "create", "lab", "--isolate", "yes", "--owner", "team", "--allow", "guests"],
    );
    said(&server, &["subclouds", "create", "empty"]);
    let [whole, scoped, guest, elsewhere] = [
        &["--namespace", "team"][..],
        &["--namespace", "team", "--scope", "subcloud:lab"],
        &["--namespace", "guests", "--scope", "subcloud:lab"],
        &["--namespace", "team", "--scope", "subcloud:empty"],
    ]
    .map(|args| create(&server, args));
    // While nobody is in it, its jobs wait, though the box has room.
    let early = submit(&server, &scoped, json!({}));
    assert_eq!(ask(&server, &first, json!({})).status, 200);
    let view = job(&server, &early);
    let why = "no node that could is in the subcloud and meets its policy";
    assert_eq!((&view["state"], &view["not_runnable_why"]), (&json!("queued"), &json!(why)), "{view}");
    said(&server, &["subclouds", "add", "lab", "node_local"]);
    has_ended(&server, &early);
    // Nobody else's jobs reach the node now: not a stranger's, not the owner's own without the scope, not another scope's.
    let waiting = [&first, &whole, &elsewhere].map(|key| submit(&server, key, json!({})));
    for (tier, word) in [("priority", "realtime"), ("default", "standard"), ("flex", "batch")] {
        let answer = ask(&server, &scoped, json!({"service_tier": tier}));
        assert_eq!((answer.status, answer.header("x-switchbox-node")), (200, Some("node_local")), "{tier}");
        for key in [&scoped, &guest] {
            let id = submit(&server, key, json!({"service_tier": tier}));
            has_ended(&server, &id);
            assert_eq!(job(&server, &id)["tier"], word);
        }
    }
    for id in &waiting {
        let view = job(&server, id);
        assert_eq!((&view["state"], &view["not_runnable_why"]), (&json!("queued"), &json!(why)), "{view}");
        assert_eq!(view["history"], json!([]), "{view}");
    }
    // A key with a scope is for jobs: it changes nothing.
    call(&server, &scoped, "POST", "/v1/subclouds/lab/drop", "{}").assert_refused(403, "key_scope");
    assert_eq!(call(&server, &whole, "GET", "/v1/subclouds/lab", "").status, 200);
    // The same request under the same idempotency key is another job for another scope.
    let keyed = |key: &str| {
        let request = http::Request::new(server.addr, "POST", "/v1/jobs");
        let body = format!(
            r#"{{"endpoint": "/v1/chat/completions", "body": {}}}"#,
            chat::body("echo", "x", json!({}))
        );
        let request =
            request.header("authorization", &format!("Bearer {key}")).header("idempotency-key", "once");
        request.json(&body).send().value()["id"].clone()
    };
    assert_eq!(keyed(&scoped), keyed(&scoped));
    assert_ne!(keyed(&scoped), keyed(&whole));
    // Who is put out is put out, key or not.
    call(&server, &whole, "POST", "/v1/subclouds/lab/set", r#"{"allowed": []}"#);
    ask(&server, &guest, json!({})).assert_refused(403, "subcloud_forbidden");
    call(&server, &whole, "POST", "/v1/subclouds/lab/drop", "");
    ask(&server, &scoped, json!({})).assert_refused(404, "subcloud_not_found");
    for id in &waiting[..2] {
        has_ended(&server, id);
    }
}

#[test]
fn keys_that_are_not_what_was_written_are_refused_by_name() {
    let mut server = boxed().start();
    create(&server, &["--namespace", "team"]);
    server.signal(Signal::TERM);
    server.wait_exit();
    let file = server.data.join("api.keys");
    let whole = fs::read_to_string(&file).expect("it is kept");
    let data = server.data.to_str().expect("UTF-8");
    let refused = |words: &[&str]| {
        let mut start = boxed().launch_in(&server.data);
        assert_eq!(start.wait_exit().code(), Some(1));
        wait_for("what it said", || words.iter().all(|word| start.stderr().contains(word)).then_some(()));
        cli::run(["doctor", data]).check(1, words);
    };
    fs::write(&file, whole.replace("team", "mine")).expect("written");
    refused(&["api.keys", "isn't what was written"]);
    fs::write(&file, whole.replace("keys 1\n", "keys 2\n")).expect("written");
    refused(&["api.keys", "newer version"]);
    fs::write(&file, &whole).expect("written");
    cli::run(["doctor", data]).check(0, &["healthy"]);
    // Without the secret that they were digested with they would open nothing.
    fs::remove_file(server.data.join("key.pepper")).expect("removed");
    fs::remove_file(server.data.join("secrets.sums")).expect("removed");
    refused(&["api.keys", "key.pepper"]);
}

#[test]
fn a_backup_has_the_keys_and_a_clone_has_none_of_them() {
    let dir = TempDir::new();
    let (backup, clone) = (dir.join("copy"), dir.join("clone"));
    let server = boxed().start();
    let key = create(&server, &["--namespace", "team"]);
    let data = server.data.to_str().expect("UTF-8").to_owned();
    for target in [&backup, &clone] {
        cli::run(["backup", &data, target.to_str().expect("UTF-8")]).check(0, &[]);
    }
    drop(server);
    let restored = boxed().start_in(&backup);
    assert_eq!(ask(&restored, &key, json!({})).status, 200);
    let cloned = boxed().arg("--as-new-identity").start_in(&clone);
    ask(&cloned, &key, json!({})).assert_refused(401, "invalid_api_key");
    assert_eq!(list(&cloned).len(), 1);
}
