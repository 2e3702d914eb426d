//! Peers whose results aren't theirs, aren't true, or come more than once.

use serde_json::json;
use switchbox::coordinator::event::Environment;
use switchbox::wire::statement::ResultStatement;
use switchbox::wire::to_agent::Assign;
use switchbox::wire::{FromBox, Signed};

use super::{assert_closed, assert_others_work, box_of_others, faults, new_prompt, pause, resume, trace};
use crate::harness::chat;
use crate::harness::http::Response;
use crate::harness::peer::{Machine, Peer, statement};
use crate::harness::server::Server;
use crate::harness::wait_for;

const BAD_SIGNATURE: &str = "a signature wasn't the key's";

/// A job that a bad node is given first, and a good one then: what the bad one does, and that the client saw nothing of it.
fn retried(
    server: &Server,
    bad: &mut Peer<'_>,
    good: &mut Peer<'_>,
    misbehave: impl FnOnce(&mut Peer<'_>, &Assign),
) -> Response {
    pause(server, &good.machine.name());
    let prompt = new_prompt();
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(server, "echo", &prompt, json!({})));
        let assign = bad.assigned_about(&prompt);
        resume(server, &good.machine.name());
        misbehave(bad, &assign);
        let again = good.assigned_about(&prompt);
        assert_eq!((again.job, &again.body), (assign.job, &assign.body));
        good.answer(&again, &["good"]);
        asked.join().expect("no panic")
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.value()["choices"][0]["message"]["content"], "good");
    answer
}

fn job_of(answer: &Response) -> String {
    answer.header("x-switchbox-job-id").expect("an answer names its job").to_owned()
}

/// Waits for the refusal of a result, and says why.
fn refused(peer: &mut Peer<'_>) -> String {
    loop {
        // What else comes is about results before.
        if let FromBox::ResultRefused(refused) = peer.hear() {
            return refused.reason;
        }
    }
}

#[test]
fn a_signature_valid_for_another_environment_job_or_reservation() {
    let server = box_of_others("");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut bad, mut good) = (one.ready(), two.ready());
    // A result that was good once, for the job of the same words before.
    let mut earlier = None;
    let mut sign = |assign: &Assign, machine: &Machine| {
        let said = statement(assign, machine, &["good"]);
        earlier = Some(Signed::sign(said, &machine.identity, machine.join.box_key));
    };
    let answer = retried(&server, &mut bad, &mut good, |bad, assign| {
        sign(assign, bad.machine);
        let elsewhere =
            ResultStatement { environment: Environment::Testnet, ..statement(assign, bad.machine, &[]) };
        bad.complete(elsewhere, 0);
        assert!(refused(bad).contains("`environment` isn't what was assigned"));
    });
    let events = trace(&server, &job_of(&answer));
    assert!(events.contains(&"attempt_failed".to_owned()), "{events:?}");
    let earlier = earlier.expect("signed");
    // Its signature under a statement about this job; and the whole of it under this reservation's name.
    retried(&server, &mut bad, &mut good, |bad, assign| {
        bad.output(assign.reservation, 0, &["good"]);
        let forged =
            Signed { statement: statement(assign, bad.machine, &["good"]), signature: earlier.signature };
        bad.complete_as_signed(forged, 1);
        assert!(refused(bad).contains("the signature isn't the node's"));
    });
    assert_eq!(faults(&server, &one, BAD_SIGNATURE), 2);
    let metrics = server.metrics();
    assert_eq!(metrics.total("switchbox_node_strikes_total"), 2);
    assert_eq!(metrics.sum("switchbox_node_results_refused_total", &["why=\"elsewhere\""]), 1);
    assert_eq!(metrics.sum("switchbox_node_results_refused_total", &["why=\"signature\""]), 1);
    drop((bad, good));
    assert_others_work(&server);
}

#[test]
fn three_wrong_signatures_end_a_connection() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    let stranger = Machine::own(&server, 2, "echo");
    for nth in 1..=3 {
        // About a reservation of long ago: nobody waits for it, but it must be signed all the same.
        let old = r#"{"type":"stopped","statement":{"environment":"mainnet","job":"job_000000010000000001",
            "reservation":"res_000000010000000001","input_tokens":1,"output_tokens":1},"signature":"SIGNATURE"}"#;
        peer.ws.text(&old.replace("SIGNATURE", &format!("0{nth}").repeat(64))).expect("the box reads");
    }
    assert_closed(&server, &mut peer, 4016, "struck", "3 statements");
    assert_eq!(faults(&server, &machine, BAD_SIGNATURE), 3);
    assert_eq!(faults(&server, &stranger, BAD_SIGNATURE), 0);
    assert_others_work(&server);
}

#[test]
fn a_result_of_another_output_than_came() {
    let server = box_of_others("");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut bad, mut good) = (one.ready(), two.ready());
    retried(&server, &mut bad, &mut good, |bad, assign| {
        bad.output(assign.reservation, 0, &["said"]);
        bad.complete(statement(assign, bad.machine, &["signed"]), 1);
        assert!(refused(bad).contains("`output_hash`"));
    });
    // It isn't a forgery, but an attempt that failed.
    assert_eq!(faults(&server, &one, BAD_SIGNATURE), 0);
    assert_eq!(faults(&server, &one, "an attempt failed by the node's fault"), 1);
    assert_eq!(server.metrics().sum("switchbox_node_results_refused_total", &["why=\"output\""]), 1);
    drop((bad, good));
    assert_others_work(&server);
}

/// What a node's account holds, in micro-credits.
fn earned(server: &Server, machine: &Machine) -> u64 {
    let balances = server.admin("GET", "/admin/balances").value();
    let lines = balances["balances"].as_array().expect("a list");
    let line = lines.iter().find(|line| line["name"] == machine.name().as_str());
    let balance = line.map_or("0.0", |line| line["balance"].as_str().expect("decimal"));
    balance.replace('.', "").parse().expect("digits")
}

#[test]
fn answers_twice() {
    let server = box_of_others("");
    let deposit = json!({"operation": "1", "namespace": "default", "credits": "100"});
    assert_eq!(server.command("/admin/deposits", &deposit).status, 200);
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    let before = earned(&server, &machine);
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "echo", "once", json!({})));
        let assign = peer.assigned();
        peer.answer(&assign, &["once"]);
        let mut accepted = 0;
        while accepted < 2 {
            match peer.hear() {
                FromBox::ResultAccepted(settled) => {
                    assert_eq!(settled.reservation, assign.reservation);
                    accepted += 1;
                    if accepted == 1 {
                        // Another answer to the same assignment, and one that says more.
                        peer.complete(statement(&assign, &machine, &["once"]), 1);
                        peer.output(assign.reservation, 1, &[" more"]);
                    }
                }
                FromBox::ResultRefused(refused) => panic!("{}", refused.reason),
                _ => {}
            }
        }
        asked.join().expect("no panic")
    });
    assert_eq!(answer.value()["choices"][0]["message"]["content"], "once");
    let usage = answer.value()["usage"].clone();
    assert_eq!(usage["completion_tokens"], 1, "{usage}");
    // A million tokens cost a credit: charged once, to the micro-credit.
    let cost = usage["total_tokens"].as_u64().expect("a number");
    assert_eq!(earned(&server, &machine) - before, cost);
    drop(peer);
    assert_others_work(&server);
}

#[test]
fn answers_anothers_job() {
    let server = box_of_others("");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut owner, mut thief) = (one.ready(), two.ready());
    pause(&server, &two.name());
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "echo", "mine", json!({})));
        let assign = owner.assigned();
        owner.accept(&assign);
        // Signed well, by somebody who was never given it.
        thief.complete(statement(&assign, &two, &["stolen"]), 1);
        let told = loop {
            match thief.hear() {
                FromBox::ResultUnknown(settled) => break settled,
                FromBox::ResultAccepted(settled) => assert_ne!(settled.reservation, assign.reservation),
                _ => {}
            }
        };
        assert_eq!(told.reservation, assign.reservation);
        owner.output(assign.reservation, 0, &["mine"]);
        owner.complete(statement(&assign, &one, &["mine"]), 1);
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.value()["choices"][0]["message"]["content"], "mine", "{}", answer.text());
    });
    let foreign = "it named another node's reservation";
    wait_for("the fault", || (faults(&server, &two, foreign) == 1).then_some(()));
    drop((owner, thief));
    assert_others_work(&server);
}

#[test]
fn a_reservation_that_was_never_issued() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.join();
    let test = peer.assigned();
    let never =
        switchbox::ids::ReservationId { counter: test.reservation.counter + 1_000, ..test.reservation };
    let made_up = Assign { reservation: never, ..test.clone() };
    peer.complete(statement(&made_up, &machine, &[]), 0);
    // One of an earlier start of the box costs nothing.
    let stale = switchbox::ids::ReservationId { epoch: test.reservation.epoch - 1, ..test.reservation };
    peer.complete(statement(&Assign { reservation: stale, ..test.clone() }, &machine, &[]), 0);
    let mut unknown = Vec::new();
    while unknown.len() < 2 {
        if let FromBox::ResultUnknown(settled) = peer.hear() {
            unknown.push(settled.reservation);
        }
    }
    assert_eq!(unknown, [never, stale]);
    assert_eq!(faults(&server, &machine, "it named a reservation that was never issued"), 1);
    drop(peer);
    assert_others_work(&server);
}
