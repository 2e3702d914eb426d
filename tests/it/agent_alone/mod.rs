//! The agent against a box whose every message the test says by hand.

mod configured;
mod connecting;
mod keeping;
mod leaving;
mod owner;
mod working;

use crate::harness::agent::{Agent, Setup};
use crate::harness::scripted_box::{Call, Peer};
use std::sync::Arc;
use switchbox::coordinator::event::{Endpoint, Environment, Seen};
use switchbox::ids::{JobId, ReservationId};
use switchbox::wire::handshake::Authenticated;
use switchbox::wire::to_agent::{Assign, Body, Resume, Settled, Verdict};
use switchbox::wire::to_box::{Completed, Hold, Stopped};
use switchbox::wire::verify::{self, Issued, Parties};
use switchbox::wire::{FromAgent, FromBox, OutputHasher, request_hash};

fn reservation(counter: u64) -> ReservationId {
    ReservationId { epoch: 1, counter }
}

/// A chat with one message, on the model `echo`.
fn assign(counter: u64, said: &str) -> Assign {
    let body =
        serde_json::json!({"model": "echo", "messages": [{"role": "user", "content": said}]}).to_string();
    Assign {
        reservation: reservation(counter),
        job: JobId { epoch: 1, counter },
        environment: Environment::Mainnet,
        endpoint: Endpoint::ChatCompletions,
        model: "echo".into(),
        model_index: 0,
        body: Body(Arc::from(body.into_bytes())),
        input_tokens: 3,
        output_tokens_max: 1_000,
    }
}

/// An agent that works for a box, and the box's end of the line.
fn working(spec: &str) -> (Peer, Agent, Call, Authenticated) {
    let peer = Peer::start(1);
    let agent = Setup::model("echo", spec).join(&peer.join_string()).start();
    let (call, authenticated) = peer.work();
    (peer, agent, call, authenticated)
}

fn give(call: &Call, assign: &Assign) {
    call.say(&FromBox::Assign(Box::new(assign.clone())));
}

fn settle(call: &Call, assign: &Assign) {
    call.say(&FromBox::ResultAccepted(Settled { reservation: assign.reservation }));
}

/// Some output of an attempt: how many chunks there are then, and their text.
fn some_output(call: &Call) -> (u32, String) {
    loop {
        match call.hear() {
            FromAgent::Accepted(_) => {}
            FromAgent::Output(output) => {
                let text = output.chunks.iter().map(|chunk| &*chunk.text).collect();
                return (output.index + output.chunks.len() as u32, text);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What came of an attempt, from chunk `from` on, up to its result.
fn follow(call: &Call, from: u32) -> (String, Completed) {
    let (mut text, mut next) = (String::new(), from);
    loop {
        match call.hear() {
            FromAgent::Accepted(_) => {}
            FromAgent::Output(output) => {
                assert_eq!(output.index, next, "chunks follow one another");
                next += output.chunks.len() as u32;
                output.chunks.iter().for_each(|chunk| text.push_str(&chunk.text));
            }
            FromAgent::Completed(completed) => {
                assert_eq!(completed.chunks, next);
                return (text, *completed);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn issued(assign: &Assign, text: &str) -> Issued {
    let mut hasher = OutputHasher::new();
    hasher.text(text);
    Issued {
        environment: assign.environment,
        job: assign.job,
        reservation: assign.reservation,
        model: assign.model.clone(),
        model_index: assign.model_index,
        model_digest: None,
        request_hash: request_hash(assign.endpoint, &assign.body.0),
        output_hash: Some(hasher.hash()),
    }
}

/// Checks a result as a box does.
fn check(completed: Completed, parties: &Parties, assign: &Assign, text: &str) {
    let issued = issued(assign, text);
    verify::result(&completed.signed(), parties, Some(&issued), Seen::default())
        .expect("a result that holds");
}

/// Waits for the word that an attempt was stopped, and checks it as a box does; output may cross the stop.
fn stopped(call: &Call, parties: &Parties, assign: &Assign) -> Stopped {
    loop {
        match call.hear() {
            FromAgent::Output(_) | FromAgent::Accepted(_) => {}
            FromAgent::Stopped(stopped) => {
                verify::stopped(&stopped, parties, Some(&issued(assign, ""))).expect("a word that holds");
                return stopped;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn verdict(assign: &Assign, verdict: Verdict) -> Vec<Resume> {
    vec![Resume { reservation: assign.reservation, verdict }]
}

fn only(holds: &[Hold]) -> &Hold {
    assert_eq!(holds.len(), 1, "{holds:?}");
    &holds[0]
}
