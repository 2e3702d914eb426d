//! Checks of nodes, over the wire: what clients ask is repeated on other nodes, and who lies is found out.

use serde_json::{Value, json};
use std::time::Duration;
use switchbox::executor::{Numerics, runtime_name};
use switchbox::wire::hash::plain_hash;
use switchbox::wire::{FromBox, Parsed};

use crate::harness::chat;
use crate::harness::cli::said;
use crate::harness::peer::{Machine, Peer, offer};
use crate::harness::server::{Server, Setup};
use crate::harness::ws::Got;
use crate::harness::{model_path, wait_for};

/// Jobs of clients within which a liar must be found out, of which every one is checked.
const JOBS_MAX: usize = 200;
/// Jobs that are there at once, more than one node takes.
const AT_ONCE: usize = 10;
/// How long a machine works on each: long enough that jobs meet.
const WORK: Duration = Duration::from_millis(30);
/// Names to the byte what the machines here compute with.
const RUNTIME: &str = "test-1";

/// What is right.
const RIGHT: [&str; 3] = ["so ", "it ", "is"];
const WRONG: [&str; 3] = ["no ", "it ", "isn't"];

/// Passes its test job, and from then on answers whatever it is given with the same text, until its connection ends.
fn serve(mut peer: Peer<'_>, texts: &[&str]) {
    let test = peer.assigned();
    peer.answer(&test, &RIGHT);
    while let Got::Text(text) = peer.receive() {
        if let Ok(Parsed::Known(FromBox::Assign(assign))) = FromBox::parse(&text, usize::MAX) {
            std::thread::sleep(WORK);
            peer.answer(&assign, texts);
        }
    }
}

/// A stranger's machine, with the model of all of them.
fn stranger(server: &Server, seed: u8) -> Machine {
    let mut machine = Machine::invited(server, seed, "m", json!({"trust": "open"}));
    machine.offer = offer("m", 1);
    machine.offer.models[0].runtime = Some(RUNTIME.parse().expect("a name"));
    machine
}

fn standing(server: &Server, machine: &Machine) -> Value {
    server.admin("GET", &format!("/admin/nodes/{}", machine.name())).value()["standing"].clone()
}

/// Waits for the checks that follow a job.
fn settle(server: &Server) {
    let over = || server.metrics().left_behind().iter().all(|gauge| !gauge.contains("jobs{"));
    wait_for("the checks", || over().then_some(()));
}

/// A job that nobody waits for.
fn submit(server: &Server) {
    let body: Value =
        serde_json::from_str(&chat::body("m", "what is it?", json!({"temperature": 0, "max_tokens": 8})))
            .expect("JSON");
    let job = json!({"endpoint": "/v1/chat/completions", "body": body});
    assert_eq!(server.call("POST", "/v1/jobs", &job.to_string()).status, 202);
}

/// Strangers may have the jobs, each of which is checked, and that is paid for.
fn check_everything(server: &Server) {
    let path = server.data.with_extension("nodes.toml");
    let all = "[participation]\nprobation_check_rate_ppm = 1_000_000\n";
    std::fs::write(&path, all).expect("written");
    said(server, &["snapshot", "apply", path.to_str().expect("UTF-8")]);
    said(server, &["namespaces", "set", "default", "--trust", "open"]);
    said(server, &["credits", "price", "1000000", "1000000"]);
    said(server, &["credits", "deposit", "--integrity", "100000"]);
}

/// Submits jobs until a machine that lies is excluded: more at once than the others take, so that it is given some.
fn find_out(server: &Server, liar: &Machine) {
    let mut asked = 0;
    while standing(server, liar) != "excluded" {
        assert!(asked < JOBS_MAX, "it still takes work after {asked} jobs: {}", server.stderr());
        for _ in 0..AT_ONCE {
            submit(server);
        }
        asked += AT_ONCE;
        settle(server);
    }
    assert!(server.metrics().total("switchbox_lies_proven_total") >= 2);
}

/// Whether it was answered, and by whom.
fn ask(server: &Server) -> Option<String> {
    let answer = chat::ask(server, "m", "what is it?", json!({"temperature": 0}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-switchbox-node").map(str::to_owned)
}

#[test]
fn a_node_that_answers_otherwise_than_its_like_is_excluded_and_they_are_not() {
    let mut server = Setup::open().arg("--nodes-only").start();
    check_everything(&server);
    let machines = [1, 2, 3].map(|seed| stranger(&server, seed));
    let [honest_a, honest_b, liar] = &machines;
    std::thread::scope(|scope| {
        scope.spawn(|| serve(honest_a.join(), &RIGHT));
        scope.spawn(|| serve(honest_b.join(), &RIGHT));
        scope.spawn(|| serve(liar.join(), &WRONG));
        let ready = |machine| standing(&server, machine) == "ready";
        wait_for("the nodes", || machines.iter().all(ready).then_some(()));
        find_out(&server, liar);
        assert!(ready(honest_a) && ready(honest_b));
        for _ in 0..10 {
            assert_ne!(ask(&server), Some(liar.name()), "it is given no work any more");
        }
        assert!(ready(honest_a) && ready(honest_b), "and nobody else is");
        let all = server.admin("GET", "/admin/balances").value();
        let mut lines = all["balances"].as_array().expect("a list").iter();
        let pays = lines.find(|line| line["account"] == "integrity" && line["environment"] == "mainnet");
        assert_ne!(pays.expect("a line")["balance"], "100000.000000", "the checks were paid");
        server.signal(rustix::process::Signal::TERM);
        server.wait_exit();
    });
}

/// A blind job looks like any other, and its answer is known.
#[test]
fn a_node_that_fails_blind_jobs_is_excluded() {
    let mut server = Setup::open().arg("--nodes-only").start();
    let path = server.data.with_extension("nodes.toml");
    let all = "[participation]\nprobation_check_rate_ppm = 0\ncheck_rate_ppm = 0\nblind_rate_ppm = 1_000_000\n\
               [penalties]\nquality_checks_min = 4\n";
    std::fs::write(&path, all).expect("written");
    said(&server, &["snapshot", "apply", path.to_str().expect("UTF-8")]);
    said(&server, &["namespaces", "set", "default", "--trust", "open"]);
    said(&server, &["credits", "price", "1000000", "1000000"]);
    let template = json!({"name": "sum", "body": {"model": "m", "temperature": 0,
        "messages": [{"role": "user", "content": "what is it?"}]}, "answers": ["so it is"]});
    assert_eq!(server.command("/admin/templates", &template).status, 200);
    let machines = [1, 2].map(|seed| stranger(&server, seed));
    let [honest, wrong] = &machines;
    std::thread::scope(|scope| {
        scope.spawn(|| serve(honest.join(), &RIGHT));
        scope.spawn(|| serve(wrong.join(), &WRONG));
        wait_for("the nodes", || {
            machines.iter().all(|machine| standing(&server, machine) == "ready").then_some(())
        });
        let count = |name: &str| server.metrics().total(name);
        // Nobody pays for them yet.
        for _ in 0..3 {
            ask(&server);
            settle(&server);
        }
        assert_eq!((count("switchbox_blind_jobs_total"), count("switchbox_checks_total")), (0, 0));
        assert!(count("switchbox_checks_unpaid_total") > 0);
        assert!(server.stderr().contains("integrity"), "the log says why: {}", server.stderr());
        said(&server, &["credits", "deposit", "--integrity", "100000"]);
        let mut asked = 0;
        while standing(&server, wrong) != "excluded" {
            assert!(asked < JOBS_MAX, "it still takes work after {asked} jobs: {}", server.stderr());
            ask(&server);
            asked += 1;
            settle(&server);
        }
        assert_eq!(standing(&server, honest), "ready");
        server.signal(rustix::process::Signal::TERM);
        server.wait_exit();
    });
}

/// The operator's own machine needs no third to be believed, and the box itself is one.
#[test]
fn who_answers_otherwise_than_the_box_itself_is_excluded() {
    let mut server = Setup::open().model("m", model_path()).start();
    check_everything(&server);
    let own = server.admin("GET", "/admin/nodes/node_local").value();
    let digest = plain_hash(&std::fs::read(model_path()).expect("the model was fetched"));
    assert_eq!(own["models"][0]["digest"], digest.to_string());
    assert!(server.data.join("digests.json").exists(), "the next start needn't read it all");
    let mut liar = stranger(&server, 1);
    liar.offer.models[0].digest = Some(digest);
    liar.offer.models[0].runtime = runtime_name(Numerics::Auto.arithmetic()).parse().ok();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(liar.join(), &WRONG));
        wait_for("the node", || (standing(&server, &liar) == "ready").then_some(()));
        find_out(&server, &liar);
        server.signal(rustix::process::Signal::TERM);
        server.wait_exit();
    });
}
