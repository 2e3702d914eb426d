//! Peers that take work and don't do it, do too much of it, or don't stop.

use serde_json::json;
use switchbox::wire::FromBox;
use switchbox::wire::to_agent::Assign;

use super::{assert_others_work, box_of_others, faults, new_prompt, node, pause, resume, trace};
use crate::harness::chat::{self, Events};
use crate::harness::http::Response;
use crate::harness::peer::{Machine, Peer, statement};
use crate::harness::server::Server;
use crate::harness::wait_for;

const TIMED_OUT: &str = "an attempt passed its deadline";

/// A job that a bad node is given first; another answers it in the end.
fn answered_by_another(
    server: &Server,
    bad: &mut Peer<'_>,
    good: &mut Peer<'_>,
    misbehave: impl FnOnce(&mut Peer<'_>, &Assign),
) -> Response {
    pause(server, &good.machine.name());
    let prompt = new_prompt();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(server, "echo", &prompt, json!({"max_tokens": 8})));
        let assign = bad.assigned_about(&prompt);
        resume(server, &good.machine.name());
        misbehave(bad, &assign);
        let again = good.assigned_about(&prompt);
        good.answer(&again, &["done"]);
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.value()["choices"][0]["message"]["content"], "done");
        answer
    })
}

fn told_to_stop(peer: &mut Peer<'_>, assign: &Assign) {
    loop {
        if let FromBox::Stop(stop) = peer.hear() {
            assert_eq!(stop.reservation, assign.reservation);
            return;
        }
    }
}

fn events_of(server: &Server, answer: &Response) -> Vec<String> {
    trace(server, answer.header("x-switchbox-job-id").expect("an answer names its job"))
}

#[test]
fn takes_an_assignment_without_a_word() {
    let server = box_of_others("accept_timeout_ms = 300");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut bad, mut good) = (one.ready(), two.ready());
    let answer = answered_by_another(&server, &mut bad, &mut good, told_to_stop);
    let events = events_of(&server, &answer);
    assert!(events.contains(&"timed_out".to_owned()), "{events:?}");
    assert_eq!(faults(&server, &one, TIMED_OUT), 1);
    drop((bad, good));
    assert_others_work(&server);
}

#[test]
fn accepts_and_never_answers() {
    let server = box_of_others("first_output_timeout_ms = 300");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut bad, mut good) = (one.ready(), two.ready());
    let answer = answered_by_another(&server, &mut bad, &mut good, |bad, assign| {
        bad.accept(assign);
        told_to_stop(bad, assign);
        // What comes now is too late, and changes nothing.
        bad.output(assign.reservation, 0, &["late"]);
        bad.complete(statement(assign, bad.machine, &["late"]), 1);
    });
    let events = events_of(&server, &answer);
    assert!(
        events.contains(&"accepted".to_owned()) && events.contains(&"timed_out".to_owned()),
        "{events:?}"
    );
    assert_eq!(faults(&server, &one, TIMED_OUT), 1);
    drop((bad, good));
    assert_others_work(&server);
}

#[test]
fn begins_and_never_ends() {
    let server = box_of_others("progress_timeout_ms = 300");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut bad, mut good) = (one.ready(), two.ready());
    answered_by_another(&server, &mut bad, &mut good, |bad, assign| {
        bad.accept(assign);
        bad.output(assign.reservation, 0, &["do"]);
        told_to_stop(bad, assign);
    });
    assert_eq!(faults(&server, &one, TIMED_OUT), 1);
    drop((bad, good));
    assert_others_work(&server);
}

#[test]
fn streams_for_ever() {
    let server = box_of_others("");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut bad, mut good) = (one.ready(), two.ready());
    let answer = answered_by_another(&server, &mut bad, &mut good, |bad, assign| {
        assert_eq!(assign.output_tokens_max, 8);
        for index in 0..100 {
            bad.output(assign.reservation, index, &["more and more and more and more"]);
        }
        told_to_stop(bad, assign);
    });
    let events = events_of(&server, &answer);
    assert!(events.contains(&"attempt_failed".to_owned()), "{events:?}");
    assert_eq!(server.metrics().total("switchbox_node_outputs_too_large_total"), 1);
    // In pieces of nothing it goes no further.
    answered_by_another(&server, &mut bad, &mut good, |bad, assign| {
        for index in 0..400 {
            bad.output(assign.reservation, index, &[""]);
        }
        told_to_stop(bad, assign);
    });
    assert_eq!(server.metrics().total("switchbox_node_outputs_too_large_total"), 2);
    assert_eq!(faults(&server, &one, "an attempt failed by the node's fault"), 2);
    drop((bad, good));
    assert_others_work(&server);
}

#[test]
fn cancels_ignored() {
    let server = box_of_others("stop_timeout_ms = 300");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    let mut events = std::thread::scope(|scope| {
        let asked = scope.spawn(|| Events::of(chat::open(&server, "echo", "never mind", json!({}))));
        let assign = peer.assigned();
        peer.accept(&assign);
        peer.output(assign.reservation, 0, &["never "]);
        let mut events = asked.join().expect("no panic");
        assert_eq!(events.first_text(), "never ");
        // The client leaves; the node goes on as if nothing had been said.
        drop(events);
        told_to_stop(&mut peer, &assign);
        for index in 1..50 {
            peer.output(assign.reservation, index, &["mind "]);
        }
        wait_for("the stop deadline", || {
            (server.metrics().total("switchbox_reservations") == 0).then_some(())
        });
        // Its slot is free again, it earned nothing, and what it says of that job is about nothing.
        peer.output(assign.reservation, 50, &["mind "]);
        peer.stopped(&assign, 51);
        let asked = scope.spawn(|| Events::of(chat::open(&server, "echo", "the next", json!({}))));
        let next = peer.assigned();
        peer.answer(&next, &["next"]);
        asked.join().expect("no panic")
    });
    assert_eq!(events.rest().0, "next");
    assert_eq!(server.metrics().finished("cancelled"), 1);
    assert_eq!(node(&server, &machine)["standing"], "ready");
    drop(peer);
    assert_others_work(&server);
}

#[test]
fn a_cancel_that_is_heeded_is_paid() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| Events::of(chat::open(&server, "echo", "never mind", json!({}))));
        let assign = peer.assigned();
        peer.accept(&assign);
        peer.output(assign.reservation, 0, &["never "]);
        let mut events = asked.join().expect("no panic");
        events.first_text();
        drop(events);
        told_to_stop(&mut peer, &assign);
        // It claims far more than the box ever saw.
        peer.stopped(&assign, 1_000_000);
        wait_for("the end of the job", || (server.metrics().finished("cancelled") == 1).then_some(()));
        let job = server.admin("GET", &format!("/admin/jobs/{}", assign.job)).value();
        assert_eq!(job["usage"]["output_tokens"], 1, "{job}");
        assert_eq!(job["usage"]["input_tokens"], assign.input_tokens, "{job}");
    });
    drop(peer);
    assert_others_work(&server);
}

#[test]
fn declines_everything() {
    let server = box_of_others("");
    let (one, two) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let (mut bad, mut good) = (one.ready(), two.ready());
    let answer = answered_by_another(&server, &mut bad, &mut good, |bad, assign| {
        pause(&server, &bad.machine.name());
        let declined = format!(
            r#"{{"type":"declined","reservation":"{}","cause":"tired","reason":"not today"}}"#,
            assign.reservation
        );
        bad.ws.text(&declined).expect("the box reads");
    });
    let events = events_of(&server, &answer);
    assert!(events.contains(&"declined".to_owned()), "{events:?}");
    assert_eq!(node(&server, &one)["faults"], json!({}));
    drop((bad, good));
    assert_others_work(&server);
}
