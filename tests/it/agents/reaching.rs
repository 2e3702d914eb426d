//! Whom a job reaches: the members of its key's subcloud, and machines that its namespace trusts; nobody else, whatever
//! fails.

use super::*;
use crate::api_keys::{ask, create, submit};
use crate::harness::cli::said;
use crate::harness::peer::{Machine, Peer, statement};
use crate::harness::server::TempDir;
use switchbox::coordinator::event::ErrorClass;
use switchbox::wire::FromAgent;
use switchbox::wire::statement::{ResultStatement, StatedStatus};
use switchbox::wire::to_agent::Assign;
use switchbox::wire::to_box::{DeclineCause, Declined};

/// The nodes that a job was given to, one for each attempt that ended.
fn nodes_of(server: &Server, id: &str) -> Vec<String> {
    let job = server.admin("GET", &format!("/admin/jobs/{id}")).value();
    let history = job["history"].as_array().unwrap_or_else(|| panic!("no history: {job}"));
    history.iter().map(|attempt| attempt["node"].as_str().expect("a name").to_owned()).collect()
}

fn state(server: &Server, id: &str) -> Value {
    server.admin("GET", &format!("/admin/jobs/{id}")).value()["state"].clone()
}

fn succeeds(server: &Server, id: &str) {
    wait_for("the job to succeed", || (state(server, id) == "succeeded").then_some(()));
}

#[test]
fn a_subclouds_key_reaches_its_members_and_nobody_elses_does() {
    let server = Setup::keyed().model("echo", "echo:").model("slow", SLOW).start();
    paused(&server);
    let dir = TempDir::new();
    let (a, b) = (dir.join("a"), dir.join("b"));
    let (mut inside, mut outside) = (joined(&server, &a, None), joined(&server, &b, None));
    let (member, other) = (name_of(&inside), name_of(&outside));
    said(&server, &["subclouds", "create", "lab", "--isolate", "yes", "--owner", "team"]);
    said(&server, &["subclouds", "add", "lab", &member]);
    let scoped = create(&server, &["--namespace", "team", "--scope", "subcloud:lab"]);
    let first = server.key.clone().expect("a keyed box");
    let whole = create(&server, &["--namespace", "team"]);
    for (tier, word) in [("priority", "realtime"), ("default", "standard"), ("flex", "batch")] {
        let more = json!({"service_tier": tier});
        let expected = [(&scoped, &member), (&whole, &other), (&first, &other)];
        for (key, node) in expected.into_iter().chain(expected) {
            let answer = ask(&server, key, more.clone());
            assert_eq!(
                (answer.status, answer.header("x-switchbox-node")),
                (200, Some(node.as_str())),
                "{tier}"
            );
            let id = submit(&server, key, more.clone());
            succeeds(&server, &id);
            let job = server.admin("GET", &format!("/admin/jobs/{id}")).value();
            assert_eq!((&job["tier"], nodes_of(&server, &id)), (&json!(word), vec![node.clone()]));
        }
    }
    // Without its member nothing of it goes elsewhere, waiting or running.
    let running = submit(&server, &scoped, json!({"model": "slow", "messages": said_by(&words(300))}));
    wait_for("the job to run", || (state(&server, &running) == "running").then_some(()));
    inside.kill();
    let waiting = ["priority", "flex"].map(|tier| submit(&server, &scoped, json!({"service_tier": tier})));
    for key in [&first, &whole] {
        let answer = ask(&server, key, json!({}));
        assert_eq!((answer.status, answer.header("x-switchbox-node")), (200, Some(other.as_str())));
    }
    for id in &waiting {
        assert_eq!((state(&server, id), nodes_of(&server, id)), (json!("queued"), vec![]));
    }
    let _inside = both().start_in(&a);
    for id in waiting.iter().chain([&running]) {
        succeeds(&server, id);
        assert!(nodes_of(&server, id).iter().all(|node| *node == member), "{:?}", nodes_of(&server, id));
    }
    // Nor does anything of the others go to the member when theirs is gone.
    outside.kill();
    let others = [&first, &whole].map(|key| submit(&server, key, json!({})));
    assert_eq!(ask(&server, &scoped, json!({})).header("x-switchbox-node"), Some(member.as_str()));
    for id in &others {
        assert_eq!((state(&server, id), nodes_of(&server, id)), (json!("queued"), vec![]));
    }
    let _outside = both().start_in(&b);
    for id in &others {
        succeeds(&server, id);
        assert_eq!(nodes_of(&server, id), [other.as_str()]);
    }
}

fn said_by(content: &str) -> Value {
    json!([{"role": "user", "content": content}])
}

const SECRET: &str = "what no stranger may read";

fn speaks_of(assign: &Assign, text: &str) -> bool {
    String::from_utf8_lossy(&assign.body.0).contains(text)
}

/// Fails, as a node does that can't.
fn fail(peer: &mut Peer<'_>, assign: &Assign) {
    peer.accept(assign);
    let status = StatedStatus::Failed { class: ErrorClass::Node, message: "it can't".to_owned() };
    let failed = ResultStatement { status, ..statement(assign, peer.machine, &[]) };
    peer.complete(failed, 0);
}

/// Takes a job about that; whatever it is given until then, it may see.
fn serves_without_secrets(peer: &mut Peer<'_>, about: &str) {
    loop {
        let assign = peer.assigned();
        assert!(!speaks_of(&assign, SECRET), "a stranger was given the prompt");
        peer.answer(&assign, &["ok"]);
        if speaks_of(&assign, about) {
            return;
        }
    }
}

#[test]
fn a_prompt_of_the_default_trust_never_reaches_a_stranger_whatever_fails() {
    let server = box_of_agents("[limits]\nheartbeat_ttl_ms = 60000");
    let invited = |seed, trust: &str| Machine::invited(&server, seed, "echo", json!({"trust": trust}));
    let (owned, approved, open) = (invited(1, "own"), invited(2, "approved"), invited(3, "open"));
    let (mut own, mut friend, mut stranger) = (owned.ready(), approved.ready(), open.ready());
    let body = json!({"model": "echo", "messages": said_by(SECRET), "max_tokens": 8});
    let job = json!({"endpoint": "/v1/chat/completions", "body": body}).to_string();
    let id = server.call("POST", "/v1/jobs", &job).value()["id"].as_str().expect("an id").to_owned();
    // The only one that may see it fails, refuses, dies with it, and is held back: it waits for that one each time.
    let assign = own.assigned_about(SECRET);
    fail(&mut own, &assign);
    let assign = own.assigned_about(SECRET);
    let (reservation, cause) = (assign.reservation, DeclineCause::Busy);
    own.say(&FromAgent::Declined(Declined { reservation, cause, reason: "not now".to_owned() }));
    let assign = own.assigned_about(SECRET);
    own.accept(&assign);
    drop(own);
    let pause = |node: &str, verb: &str| {
        assert_eq!(server.command(&format!("/admin/nodes/{node}/{verb}"), &json!({})).status, 200);
    };
    pause(&owned.name(), "pause");
    let mut own = owned.join();
    wait_for("the job to wait again", || (state(&server, &id) == "queued").then_some(()));
    let why = server.admin("GET", &format!("/admin/jobs/{id}")).value()["not_runnable_why"].clone();
    assert_ne!(why, Value::Null, "nobody else can");
    pause(&owned.name(), "resume");
    let assign = own.assigned_about(SECRET);
    own.answer(&assign, &["for ", "your ", "eyes"]);
    succeeds(&server, &id);
    assert!(nodes_of(&server, &id).len() >= 4);
    assert!(nodes_of(&server, &id).iter().all(|node| *node == owned.name()), "{:?}", nodes_of(&server, &id));
    // A stream, whose node dies before its first word, goes nowhere else either.
    std::thread::scope(|scope| {
        let streamed = scope.spawn(|| stream(&server, "echo", SECRET).rest());
        let assign = own.assigned_about(SECRET);
        own.accept(&assign);
        drop(own);
        own = owned.join();
        let assign = own.assigned_about(SECRET);
        own.answer(&assign, &["again"]);
        assert_eq!(streamed.join().expect("no panic"), ("again".to_owned(), Event::Done));
    });
    // What the strangers were given, in order: nothing before what they may see.
    said(&server, &["namespaces", "set", "default", "--trust", "open"]);
    pause(&owned.name(), "pause");
    for (peer, other, about) in
        [(&mut friend, &open, "what a friend may read"), (&mut stranger, &approved, "what anyone may read")]
    {
        pause(&other.name(), "pause");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| chat::ask(&server, "echo", about, json!({"max_tokens": 8})));
            serves_without_secrets(peer, about);
            assert_eq!(asked.join().expect("no panic").status, 200);
        });
        pause(&other.name(), "resume");
    }
}
