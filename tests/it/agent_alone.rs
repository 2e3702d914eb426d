//! The agent against a box whose every message the test says by hand.

use crate::harness::agent::Setup;
use crate::harness::peer::{Call, Heard, Peer};
use std::sync::Arc;
use switchbox::coordinator::event::{Endpoint, Environment, Seen};
use switchbox::ids::{JobId, ReservationId};
use switchbox::wire::statement::StatedStatus;
use switchbox::wire::to_agent::{Assign, Body, Settled};
use switchbox::wire::to_box::{Completed, Hold};
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

/// Checks a result as a box does.
fn check(completed: Completed, parties: &Parties, assign: &Assign, text: &str) {
    let mut hasher = OutputHasher::new();
    hasher.text(text);
    let issued = Issued {
        environment: assign.environment,
        job: assign.job,
        reservation: assign.reservation,
        model: assign.model.clone(),
        model_index: assign.model_index,
        model_digest: None,
        request_hash: request_hash(assign.endpoint, &assign.body.0),
        output_hash: Some(hasher.hash()),
    };
    verify::result(&completed.signed(), parties, Some(&issued), Seen::default())
        .expect("a result that holds");
}

#[test]
fn an_agent_joins_serves_and_signs() {
    let peer = Peer::start(1);
    let mut agent = Setup::model("echo", "echo:").join(&peer.join_string()).start();
    let (call, authenticated, ready) = peer.admit();
    assert_eq!(authenticated.environments, [Environment::Mainnet]);
    assert!(authenticated.invite.is_some());
    let model = &ready.offer.models[0];
    assert_eq!((&*model.name, model.slots, model.digest), ("echo", 64, None));
    assert!(ready.offer.memory_bytes > 0 && ready.offer.slots == 64, "{:?}", ready.offer);
    call.welcome(Vec::new());
    let node = authenticated.parties.node_key.node();
    assert_eq!(agent.wait_ready().trim(), format!("switchbox agent ready: {node} at http://{}", peer.addr));
    call.heartbeat();
    for (counter, said) in [(1, "one two three"), (2, "")] {
        let assign = assign(counter, said);
        call.say(&FromBox::Assign(Box::new(assign.clone())));
        let (text, completed) = follow(&call, 0);
        assert_eq!(text, said);
        assert!(matches!(completed.statement.status, StatedStatus::Succeeded { .. }));
        check(completed, &authenticated.parties, &assign, &text);
        call.say(&FromBox::ResultAccepted(Settled { reservation: assign.reservation }));
    }
    agent.signal(rustix::process::Signal::TERM);
    assert!(matches!(call.hear(), FromAgent::Wish(_)));
    call.say(&FromBox::Drained(switchbox::wire::to_agent::Empty {}));
    assert!(matches!(call.hear(), FromAgent::Goodbye(_)));
    assert!(matches!(call.next(), Heard::Closed(Some(1000))));
    agent.ends(0, &[]);
}

#[allow(dead_code, reason = "used by what follows")]
fn listed(holds: &[Hold]) -> Vec<ReservationId> {
    holds.iter().map(|hold| hold.reservation).collect()
}
