//! Nodes of other machines: they join, run jobs, leave and come back.

use rustix::process::Signal;
use serde_json::{Value, json};
use switchbox::wire::to_agent::Assign;
use switchbox::wire::to_box::{Chunk, ChunkKind, Hold, Output};
use switchbox::wire::{FromAgent, FromBox, OutputHasher, Signed};

use crate::harness::chat::{self, Event, Events};
use crate::harness::peer::{Machine, offer, statement};
use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::wait_for;
use crate::harness::ws::Ws;

/// A box whose own node runs nothing: what comes goes to others.
fn box_of_others(config: &str) -> Server {
    let server = Setup::open().model("echo", "echo:").config(config).start();
    assert_eq!(server.command("/admin/nodes/node_local/pause", &json!({})).status, 200);
    server
}

/// A box that serves nothing itself.
fn nodes_only() -> Setup {
    Setup::open().arg("--nodes-only")
}

/// Nothing is left, once the box's own node has done what it repeats to check the others.
fn assert_nothing_left(server: &Server) {
    server.command("/admin/nodes/node_local/resume", &json!({}));
    server.assert_nothing_left();
}

/// A job by name.
fn job(model: &str, content: &str) -> String {
    let body: Value = serde_json::from_str(&chat::body(model, content, json!({}))).expect("JSON");
    json!({"endpoint": "/v1/chat/completions", "body": body}).to_string()
}

/// What a node says that it holds of an assignment.
fn hold(assign: &Assign, chunks: u32) -> Hold {
    let kv_tokens = u64::from(assign.input_tokens) + u64::from(assign.output_tokens_max);
    let (reservation, model) = (assign.reservation, assign.model.clone());
    Hold { reservation, model, kv_tokens, chunks, result: None }
}

fn verdict(welcome: &switchbox::wire::to_agent::Welcome) -> Value {
    serde_json::to_value(&welcome.holds[0]).expect("JSON")
}

#[test]
fn a_session_serves_a_stream() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut node = machine.ready();
    let mut events = std::thread::scope(|scope| {
        let asked = scope.spawn(|| Events::of(chat::open(&server, "echo", "over the wire", json!({}))));
        let assign = node.assigned();
        assert!(std::str::from_utf8(&assign.body.0).expect("UTF-8").contains("over the wire"));
        node.answer(&assign, &["across ", "the ", "wire"]);
        asked.join().expect("no panic")
    });
    assert_eq!(events.rest(), ("across the wire".to_owned(), Event::Done));
    drop(node);
    assert_nothing_left(&server);
}

#[test]
fn a_model_that_only_a_node_has_is_listed_and_served() {
    let server = nodes_only().start();
    let names = || {
        let list = server.call("GET", "/v1/models", "").value();
        let models = list["data"].as_array().expect("a list").clone();
        models.iter().map(|model| model["id"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(), Vec::<String>::new());
    assert_eq!(chat::ask(&server, "far", "nobody has it", json!({})).error()["code"], "model_not_found");
    let machine = Machine::own(&server, 1, "far");
    let mut node = machine.ready();
    assert_eq!(names(), ["far"]);
    std::thread::scope(|scope| {
        // Fields that the box doesn't know go through as they came.
        let asked = scope.spawn(|| chat::ask(&server, "far", "hello", json!({"top_k": 3, "max_tokens": 7})));
        let assign = node.assigned();
        assert!(std::str::from_utf8(&assign.body.0).expect("UTF-8").contains("\"top_k\":3"));
        assert_eq!(assign.output_tokens_max, 7);
        node.answer(&assign, &["hi ", "there"]);
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.value()["choices"][0]["message"]["content"], "hi there", "{}", answer.text());
    });
    // What it offers may change while it is here.
    node.say(&FromAgent::Offer(offer("farther", 2)));
    wait_for("the new offer", || (names() == ["farther"]).then_some(()));
    drop(node);
    wait_for("the end of the session", || names().is_empty().then_some(()));
    assert_nothing_left(&server);
}

#[test]
fn what_isnt_text_reaches_the_client_as_it_is() {
    let server = nodes_only().start();
    let machine = Machine::own(&server, 1, "far");
    let mut node = machine.ready();
    let thought = r#"{"delta":{"reasoning_content":"Hm"}}"#;
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| Events::of(chat::open(&server, "far", "think", json!({}))));
        let assign = node.assigned();
        let chunk = |kind, text: &str| Chunk { kind, text: text.into(), tokens: 1 };
        let chunks = vec![chunk(ChunkKind::Json, thought), chunk(ChunkKind::Text, "yes")];
        node.say(&FromAgent::Output(Output { reservation: assign.reservation, index: 0, chunks }));
        let mut hasher = OutputHasher::new();
        hasher.json(thought);
        hasher.text("yes");
        let mut stated = statement(&assign, &machine, &[]);
        (stated.output_hash, stated.output_tokens) = (hasher.hash(), 2);
        node.complete(stated, 2);
        let mut events = asked.join().expect("no panic");
        let mut thoughts = Vec::new();
        loop {
            match events.next() {
                Event::Data(data) => thoughts.push(data["choices"][0]["delta"]["reasoning_content"].clone()),
                Event::Comment => {}
                Event::Done => break,
                Event::Cut => panic!("the stream was cut"),
            }
        }
        assert!(thoughts.contains(&json!("Hm")), "{thoughts:?}");
    });
    drop(node);
    assert_nothing_left(&server);
}

#[test]
fn a_count_of_tokens_beyond_the_boxs_own_is_not_billed() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut node = machine.ready();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "echo", "count", json!({"max_tokens": 50})));
        let assign = node.assigned();
        node.output(assign.reservation, 0, &["one ", "two ", "three"]);
        let mut stated = statement(&assign, &machine, &["one ", "two ", "three"]);
        stated.output_tokens = 9;
        node.complete(stated, 3);
        let answer = asked.join().expect("no panic");
        // Three words, and the one that ends them and shows in no text.
        assert_eq!(answer.value()["usage"]["completion_tokens"], 4, "{}", answer.text());
    });
    drop(node);
    assert_nothing_left(&server);
}

#[test]
fn a_broken_connection_goes_on_with_every_token_once() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut first = machine.ready();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| Events::of(chat::open(&server, "echo", "again", json!({}))));
        let assign = first.assigned();
        first.accept(&assign);
        first.output(assign.reservation, 0, &["one ", "two "]);
        let mut events = asked.join().expect("no panic");
        assert_eq!(events.first_text(), "one ");
        drop(first);
        // Back with more than the box has, and with the result.
        let (mut second, welcome) = machine.join_holding(vec![hold(&assign, 4)]);
        let verdict = verdict(&welcome);
        assert_eq!(verdict["verdict"], "resume", "{verdict}");
        let from = verdict["from"].as_u64().expect("an index");
        assert_eq!(from, 2);
        let all = ["one ", "two ", "three ", "four"];
        // From before what is asked for: repeats change nothing.
        second.output(assign.reservation, 1, &all[1..]);
        second.complete(statement(&assign, &machine, &all), 4);
        assert_eq!(events.rest(), ("two three four".to_owned(), Event::Done));
    });
    assert_nothing_left(&server);
}

#[test]
fn a_job_outlives_the_boxs_restart_on_its_node() {
    let dir = TempDir::new();
    let data = dir.join("data");
    let mut server = nodes_only().start_in(&data);
    let machine = Machine::own(&server, 1, "far");
    let mut node = machine.ready();
    let submitted = server.call("POST", "/v1/jobs", &job("far", "go on"));
    assert_eq!(submitted.status, 202, "{}", submitted.text());
    let id = submitted.value()["id"].as_str().expect("an id").to_owned();
    let assign = node.assigned();
    node.accept(&assign);
    node.output(assign.reservation, 0, &["go "]);
    let state = |server: &Server| server.call("GET", &format!("/v1/jobs/{id}"), "").value();
    wait_for("the job to run", || (state(&server)["state"] == "running").then_some(()));
    server.signal(Signal::KILL);
    server.wait_exit();
    drop(node);
    let server = nodes_only().start_in(&data);
    let machine = Machine { addr: server.addr, ..machine };
    // It worked on meanwhile, and has its result; the box has nothing of it any more.
    let texts = ["go ", "on"];
    let signed = Signed::sign(statement(&assign, &machine, &texts), &machine.identity, machine.join.box_key);
    let listed = Hold { result: Some(signed.clone()), ..hold(&assign, 2) };
    let (mut node, welcome) = machine.join_holding(vec![listed]);
    let verdict = verdict(&welcome);
    assert_eq!((&verdict["verdict"], &verdict["from"]), (&"resume".into(), &0.into()), "{verdict}");
    node.output(assign.reservation, 0, &texts);
    node.complete_as_signed(signed.clone(), 2);
    loop {
        match node.hear() {
            FromBox::ResultAccepted(settled) if settled.reservation == assign.reservation => break,
            FromBox::ResultRefused(refused) => panic!("{}", refused.reason),
            _ => {}
        }
    }
    let done = state(&server);
    assert_eq!(done["state"], "succeeded", "{done}");
    // The acknowledgement may be lost: the same result gets the same answer.
    drop(node);
    let listed = Hold { result: Some(signed), ..hold(&assign, 2) };
    let (mut node, welcome) = machine.join_holding(vec![listed]);
    assert_eq!(self::verdict(&welcome)["verdict"], "taken");
    while !matches!(node.hear(), FromBox::ResultAccepted(settled) if settled.reservation == assign.reservation)
    {
    }
    drop(node);
    assert_nothing_left(&server);
}

#[test]
fn what_a_node_comes_back_without_runs_elsewhere() {
    let server = box_of_others("");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let mut first = one.ready();
    let mut other = two.ready();
    assert_eq!(server.command(&format!("/admin/nodes/{}/pause", two.name()), &json!({})).status, 200);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "echo", "who?", json!({})));
        let assign = first.assigned();
        first.accept(&assign);
        assert_eq!(server.command(&format!("/admin/nodes/{}/resume", two.name()), &json!({})).status, 200);
        drop(first);
        let (mut back, welcome) = one.join_holding(Vec::new());
        assert!(welcome.holds.is_empty());
        // Whichever of the two is given it now, it is a new attempt.
        assert_eq!(server.command(&format!("/admin/nodes/{}/pause", one.name()), &json!({})).status, 200);
        let again = other.assigned();
        assert_eq!(again.job, assign.job);
        assert_ne!(again.reservation, assign.reservation);
        other.answer(&again, &["me"]);
        assert_eq!(asked.join().expect("no panic").value()["choices"][0]["message"]["content"], "me");
        // What it says of the lost one comes too late, and costs nothing.
        back.complete(statement(&assign, &one, &[]), 0);
        while !matches!(back.hear(), FromBox::ResultUnknown(settled) if settled.reservation == assign.reservation)
        {
        }
    });
    drop(other);
    assert_nothing_left(&server);
}

#[test]
fn agents_that_dial_in_the_same_moment_are_all_taken() {
    let server = nodes_only().start();
    let mut here: Vec<Ws> = (0..300).map(|_| Ws::known(server.addr)).collect();
    server.signal(Signal::STOP);
    here.iter_mut().for_each(|agent| agent.ask(server.addr));
    // More than these may come at once, before the box takes them.
    here.extend((0..300).map(|_| {
        let mut agent = Ws::open(server.addr);
        agent.ask(server.addr);
        agent
    }));
    server.signal(Signal::CONT);
    here.iter_mut().for_each(Ws::upgraded);
}

#[test]
fn a_prompt_stays_on_machines_of_the_trust_that_it_asks_for() {
    let server = nodes_only().start();
    let strangers = ["open", "approved"].map(|trust| (trust, json!({"trust": trust})));
    let machines: Vec<Machine> = (1..)
        .zip(strangers)
        .map(|(seed, (_, invited))| Machine::invited(&server, seed, "far", invited))
        .collect();
    let here: Vec<_> = machines.iter().map(Machine::ready).collect();
    let submitted = server.call("POST", "/v1/jobs", &job("far", "for my own machines"));
    assert_eq!(submitted.status, 202, "{}", submitted.text());
    let id = submitted.value()["id"].as_str().expect("an id").to_owned();
    let view = server.admin("GET", &format!("/admin/jobs/{id}")).value();
    assert_eq!((&view["state"], &view["runnable"]), (&"queued".into(), &false.into()), "{view}");
    assert_eq!(view["not_runnable_why"], "no node that serves the model is trusted enough");
    let own = Machine::own(&server, 9, "far");
    let mut node = own.ready();
    let assign = node.assigned();
    node.answer(&assign, &["here"]);
    wait_for("the answer", || {
        let state = server.call("GET", &format!("/v1/jobs/{id}"), "").value();
        (state["state"] == "succeeded").then_some(())
    });
    drop((here, node));
    assert_nothing_left(&server);
}
