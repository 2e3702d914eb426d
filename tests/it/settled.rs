//! What an operator settles about nodes, subclouds and namespaces, and what an owner of a subcloud may.

use crate::harness::chat;
use crate::harness::cli::{self, on, said};
use crate::harness::server::{Server, Setup};
use crate::harness::wait_for;
use serde_json::{Value, json};

/// Names that nodes could have.
const NEW: &str = "node_00000000000000000000000000000001";
const M: &str = "node_00000000000000000000000000000002";
const MINE: &str = "node_00000000000000000000000000000003";

fn node(server: &Server, name: &str) -> Value {
    server.admin("GET", &format!("/admin/nodes/{name}")).value()
}

fn subcloud(server: &Server, name: &str) -> Value {
    server.admin("GET", &format!("/admin/subclouds/{name}")).value()
}

/// Submits a job by name, with the box's first key where there is one.
fn submit(server: &Server) -> String {
    let body = chat::body("echo", "hello", json!({}));
    let job = format!(r#"{{"endpoint": "/v1/chat/completions", "body": {body}}}"#);
    let answer = server.call("POST", "/v1/jobs", &job);
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.value()["id"].as_str().expect("an id").to_owned()
}

fn job(server: &Server, id: &str) -> Value {
    server.call("GET", &format!("/v1/jobs/{id}?wait=200ms"), "").value()
}

/// Runs a command with an API key instead of the admin token.
fn with_key(server: &Server, args: &[&str]) -> cli::Ran {
    let key = server.data.join("api.key");
    let url = format!("http://{}", server.addr);
    let more = ["--url", &url, "--key-file", key.to_str().expect("UTF-8")];
    cli::run(args.iter().chain(&more))
}

#[test]
fn a_node_is_shown_with_everything_and_settled_piece_by_piece() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let shown = said(&server, &["nodes", "show", "node_local"]);
    for line in [
        "node_local  ready\n",
        "  trust own, owner none\n",
        "  registered for mainnet+testnet, wants mainnet+testnet\n",
        "memory not bounded\n",
        "  model echo: 0 of ",
        "slots taken, in memory, ready\n",
        "  reliability 1000 and quality 1000 of 1000, 0 jobs settled, 0 of 0 checks failed\n",
        "  has earned 0.000000 credits in mainnet\n",
    ] {
        assert!(shown.contains(line), "{line:?} in\n{shown}");
    }
    assert_eq!(said(&server, &["nodes", "admit", NEW, "approved", "--owner", "team"]), "done\n");
    let list = said(&server, &["nodes", "list"]);
    assert!(list.contains(&format!("{NEW}  away")), "{list}");
    for wrong in ["node_new", "node_ABCDEF00000000000000000000000000", "local"] {
        on(&server, &["nodes", "admit", wrong, "open"]).check(1, &["32 digits"]);
    }
    on(&server, &["nodes", "admit", NEW, "open"]).check(1, &["node_exists", &format!("knows {NEW} already")]);
    // What isn't said stays.
    said(&server, &["nodes", "trust", NEW, "open", "--environment", "testnet"]);
    let view = node(&server, NEW);
    let settled = |view: &Value| ["trust", "environments", "owner"].map(|key| view[key].clone());
    assert_eq!(settled(&view), [json!("open"), json!(["testnet"]), json!("team")], "{view}");
    said(&server, &["nodes", "trust", NEW, "open", "--no-owner"]);
    assert_eq!(settled(&node(&server, NEW)), [json!("open"), json!(["testnet"]), Value::Null]);
    // Each cause with who set it; ending one ends no other.
    for verb in ["pause", "freeze", "ban", "drain"] {
        said(&server, &["nodes", verb, NEW]);
    }
    let causes = |view: &Value| -> Vec<(Value, Value)> {
        let all = view["because"].as_array().expect("causes");
        all.iter().map(|cause| (cause["standing"].clone(), cause["by"].clone())).collect()
    };
    let pair = |standing: &str, by: &str| (json!(standing), json!(by));
    let view = node(&server, NEW);
    assert_eq!(
        (&view["standing"], causes(&view)),
        (
            &json!("banned"),
            vec![
                pair("banned", "operator"),
                pair("frozen", "operator"),
                pair("away", "node"),
                pair("draining", "operator"),
                pair("paused", "operator")
            ]
        ),
        "{view}"
    );
    assert_eq!(view["earnings_locked"], true);
    said(&server, &["nodes", "unban", NEW]);
    said(&server, &["nodes", "unfreeze", NEW]);
    assert_eq!(node(&server, NEW)["standing"], "away");
    // It is on disk.
    server.signal(rustix::process::Signal::KILL);
    server.wait_exit();
    let server = Setup::open().model("echo", "echo:").start_in(&server.data);
    assert_eq!(settled(&node(&server, NEW)), [json!("open"), json!(["testnet"]), Value::Null]);
}

#[test]
fn what_makes_no_sense_about_nodes_is_refused() {
    let server = Setup::open().model("echo", "echo:").start();
    on(&server, &["nodes", "show", "node_nobody"]).check(1, &["node_not_found", "switchbox nodes list"]);
    on(&server, &["nodes", "trust", "node_nobody", "own"]).check(1, &["node_not_found"]);
    on(&server, &["nodes", "trust", "node_local", "friend"]).check(2, &["own, approved, open"]);
    on(&server, &["nodes", "show", "../drain"]).check(2, &["isn't a node's name"]);
    for (path, body, param) in [
        ("/admin/nodes/node_local/settings", json!({"trust": "friend"}), "trust"),
        ("/admin/nodes/node_local/settings", json!({"environments": []}), "environments"),
        ("/admin/nodes/node_local/settings", json!({"environments": ["prod"]}), "environment"),
        ("/admin/nodes/node_local/settings", json!({"owner": ""}), "owner"),
        ("/admin/nodes/node_local/settings", json!({"trusst": "own"}), "body"),
        ("/admin/nodes", json!({"node": "a b", "trust": "own"}), "node"),
        ("/admin/nodes", json!({"node": "a"}), "body"),
    ] {
        let error = server.command(path, &body).assert_refused(400, "invalid_value");
        assert_eq!(error["param"], param, "{path} {body}");
    }
    assert_eq!(node(&server, "node_local")["trust"], "own");
}

#[test]
fn an_isolated_subcloud_takes_its_nodes_out_of_the_pool() {
    let server = Setup::open().model("echo", "echo:").start();
    let create = [
        "subclouds",
        "create",
        "lab",
        "--model",
        "echo",
        "--memory-mib",
        "1",
        "--isolate",
        "yes",
        "--owner",
        "team",
    ];
    assert_eq!(said(&server, &create), "done\n");
    on(&server, &create).check(1, &["subcloud_exists", "lab in mainnet already"]);
    let pool = |server: &Server| job(server, &submit(server))["state"].clone();
    assert_eq!(pool(&server), "succeeded");
    assert_eq!(said(&server, &["subclouds", "add", "lab", "node_local"]), "done\n");
    let waiting = submit(&server);
    let view = job(&server, &waiting);
    assert_eq!(
        (&view["state"], &view["not_runnable_why"]),
        (&json!("queued"), &json!("no node that could is in the subcloud and meets its policy")),
        "{view}"
    );
    let shown = said(&server, &["subclouds", "show", "lab"]);
    let expected = "lab  mainnet\n  its nodes are at least: trust open, models echo, memory 1 MiB\n  \
                    its nodes serve only jobs that name one of their subclouds\n  owned by team\n  \
                    may be used by everyone\n  node node_local\n";
    assert_eq!(shown, expected);
    // What isn't said stays; null lifts a restriction.
    said(&server, &["subclouds", "set", "lab", "--isolate", "no", "--any-model", "--gpu", "h100"]);
    wait_for("the job to run in the pool", || (job(&server, &waiting)["state"] == "succeeded").then_some(()));
    let view = subcloud(&server, "lab");
    assert_eq!(
        view,
        json!({"name": "lab", "environment": "mainnet", "models": null, "regions": null, "trust_min": "open",
            "memory_min_bytes": 1 << 20, "gpu": "h100", "isolate": false, "owners": ["team"], "allowed": null,
            "nodes": [{"node": "node_local", "unmet": "gpu"}]})
    );
    let list = said(&server, &["subclouds", "list"]);
    assert!(
        list.contains("lab   mainnet      1      shared  trust open, memory 1 MiB, GPU h100  team"),
        "{list}"
    );
    said(&server, &["subclouds", "remove", "lab", "node_local"]);
    assert_eq!(subcloud(&server, "lab")["nodes"], json!([]));
    said(&server, &["subclouds", "drop", "lab"]);
    server.admin("GET", "/admin/subclouds/lab").assert_refused(404, "subcloud_not_found");
    server.assert_nothing_left();
}

#[test]
fn a_subcloud_belongs_to_its_environment() {
    let server = Setup::open().model("echo", "echo:").start();
    said(&server, &["subclouds", "create", "lab", "--environment", "testnet", "--isolate", "yes"]);
    on(&server, &["subclouds", "show", "lab"]).check(1, &["subcloud_not_found"]);
    said(&server, &["subclouds", "add", "lab", "node_local", "--environment", "testnet"]);
    assert_eq!(job(&server, &submit(&server))["state"], "succeeded", "isolated in testnet only");
    let view = server.admin("GET", "/admin/subclouds/lab?environment=testnet").value();
    assert_eq!(view["nodes"][0]["node"], "node_local", "{view}");
    said(&server, &["nodes", "admit", M, "open"]);
    on(&server, &["subclouds", "add", "lab", M, "--environment", "testnet"])
        .check(1, &["subcloud_refused", "register it there first"]);
}

#[test]
fn an_owner_changes_its_subcloud_with_a_key_and_nothing_else() {
    let server = Setup::keyed().model("echo", "echo:").start();
    said(&server, &["subclouds", "create", "ours", "--owner", "default"]);
    said(&server, &["subclouds", "create", "theirs", "--owner", "team"]);
    said(&server, &["nodes", "admit", MINE, "open", "--owner", "default"]);
    let list = with_key(&server, &["subclouds", "list"]);
    list.check(0, &["ours"]);
    assert!(!list.stdout.contains("theirs"), "{}", list.stdout);
    with_key(&server, &["subclouds", "set", "ours", "--trust", "own", "--allow", "guest"])
        .check(0, &["done"]);
    let view = subcloud(&server, "ours");
    assert_eq!((&view["trust_min"], &view["allowed"]), (&json!("own"), &json!(["guest"])), "{view}");
    with_key(&server, &["subclouds", "add", "ours", MINE]).check(0, &["done"]);
    with_key(&server, &["subclouds", "show", "ours"])
        .check(0, &[&format!("node {MINE}: doesn't meet the policy's trust")]);
    // Others' nodes are the operator's to add: an owner could take the whole pool otherwise.
    with_key(&server, &["subclouds", "add", "ours", "node_local"])
        .check(1, &["not_allowed", "ask the operator"]);
    with_key(&server, &["subclouds", "remove", "ours", MINE]).check(0, &["done"]);
    for args in [["subclouds", "show", "theirs"], ["subclouds", "show", "nobodys"]] {
        with_key(&server, &args).check(1, &["subcloud_not_found"]);
    }
    with_key(&server, &["subclouds", "drop", "theirs"]).check(1, &["not_allowed", "doesn't own"]);
    with_key(&server, &["subclouds", "set", "ours", "--environment", "testnet"])
        .check(1, &["works in mainnet only"]);
    with_key(&server, &["subclouds", "create", "more"]).check(2, &["only the operator makes subclouds"]);
    with_key(&server, &["subclouds", "drop", "ours"]).check(0, &["done"]);
    server.admin("GET", "/admin/subclouds/ours").assert_refused(404, "subcloud_not_found");
}

#[test]
fn what_makes_no_sense_about_subclouds_is_refused() {
    let server = Setup::open().model("echo", "echo:").start();
    said(&server, &["subclouds", "create", "lab"]);
    for (path, body, param) in [
        ("/admin/subclouds", json!({"name": "No Name"}), "name"),
        ("/admin/subclouds", json!({"models": []}), "body"),
        ("/admin/subclouds/lab/set", json!({"regions": ["Mars!"]}), "regions"),
        ("/admin/subclouds/lab/set", json!({"trust_min": "some"}), "trust_min"),
        ("/admin/subclouds/lab/set", json!({"isolated": true}), "body"),
        ("/admin/subclouds/lab/set", json!({"environment": "prod"}), "environment"),
        ("/admin/subclouds/lab/add", json!({}), "body"),
        ("/admin/subclouds/lab/add", json!({"node": "a/b"}), "node"),
    ] {
        let error = server.command(path, &body).assert_refused(400, "invalid_value");
        assert_eq!(error["param"], param, "{path} {body}");
    }
    let many: Vec<String> = (0..65).map(|number| format!("team-{number}")).collect();
    server
        .command("/admin/subclouds/lab/set", &json!({"owners": many}))
        .assert_refused(409, "subcloud_refused");
    server
        .command("/admin/subclouds/lab/add", &json!({"node": "node_x"}))
        .assert_refused(404, "node_not_found");
    server.command("/admin/subclouds/nowhere/drop", &json!({})).assert_refused(404, "subcloud_not_found");
    server.command("/admin/subclouds/lab/melt", &json!({})).assert_refused(404, "unknown_url");
    server.admin("GET", "/admin/subclouds/lab/add").assert_refused(405, "method_not_allowed");
}

#[test]
fn namespaces_are_settled_piece_by_piece() {
    let mut server = Setup::open().model("echo", "echo:").start();
    let set = ["namespaces", "set", "default", "--weight", "3", "--credit", "1.5", "--queue-max", "7"];
    assert_eq!(said(&server, &set), "done\n");
    said(&server, &["namespaces", "set", "default", "--trust", "approved"]);
    let namespace = |server: &Server| -> Value {
        let all = server.admin("GET", "/admin/namespaces").value();
        let all = all["namespaces"].as_array().expect("a list").clone();
        all.into_iter().find(|view| view["namespace"] == "default").expect("it was seen")
    };
    let expected = json!({"namespace": "default", "weight": 3, "trust": "approved", "unrunnable": "accept",
        "queue_jobs_max": 7, "waiting": 0, "credit": {"mainnet": "1.500000", "testnet": null},
        "balance": {"mainnet": "0.000000", "testnet": "0.000000"},
        "held": {"mainnet": "0.000000", "testnet": "0.000000"}});
    assert_eq!(namespace(&server), expected);
    let list = said(&server, &["namespaces", "list"]);
    assert!(
        list.contains("default    3       approved  accept      0/7           1.500000 / unlimited"),
        "{list}"
    );
    // The credit counts: a job's worst case costs more.
    said(&server, &["credits", "price", "1000000", "1000000"]);
    chat::ask(&server, "echo", "hello", json!({})).assert_refused(402, "insufficient_credits");
    said(&server, &["namespaces", "set", "default", "--unlimited-credit", "--unrunnable", "refuse"]);
    assert_eq!(chat::ask(&server, "echo", "hello", json!({})).status, 200);
    said(&server, &["nodes", "pause", "node_local"]);
    chat::ask(&server, "echo", "hello", json!({})).assert_refused(422, "unrunnable");
    for (body, param) in [
        (json!({"namespace": "a", "weight": 0}), Value::Null),
        (json!({"namespace": "a", "credit": "-1"}), json!("credit")),
        (json!({"namespace": "a", "unrunnable": "drop"}), json!("unrunnable")),
        (json!({"namespace": "a", "environment": "testnet"}), json!("environment")),
        (json!({"namespace": "", "weight": 1}), json!("namespace")),
        (json!({"namespace": "a", "wait": 1}), json!("body")),
    ] {
        let error = server.command("/admin/namespaces", &body).assert_refused(400, "invalid_value");
        assert_eq!(error["param"], param, "{body}");
    }
    server.signal(rustix::process::Signal::KILL);
    server.wait_exit();
    let server = Setup::open().model("echo", "echo:").start_in(&server.data);
    assert_eq!(
        (&namespace(&server)["weight"], &namespace(&server)["unrunnable"]),
        (&json!(3), &json!("refuse"))
    );
}
