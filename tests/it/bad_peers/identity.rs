//! Peers that aren't who they say, aren't let in, or are there twice.

use serde_json::json;
use switchbox::coordinator::event::Environment;
use switchbox::wire::handshake::{AgentSide, BoxSide};
use switchbox::wire::keys::Hex;
use switchbox::wire::to_box::Hold;
use switchbox::wire::{CloseCode, FromAgent, FromBox, Identity, Parsed};
use zeroize::Zeroizing;

use super::{assert_closed, assert_others_work, box_of_others, box_with, closes, node, pause, resume};
use crate::harness::chat;
use crate::harness::peer::{Machine, Peer, invite};
use crate::harness::wait_for;
use crate::harness::ws::{Got, Ws};

#[test]
fn a_handshake_that_somebody_else_signed() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = Peer { machine: &machine, ws: Ws::dial(machine.addr) };
    let (side, hello) = AgentSide::call(&machine.identity, machine.join.box_key, Hex([9; 32]));
    peer.say(&FromAgent::Hello(hello));
    let FromBox::Challenge(challenge) = peer.hear() else { panic!("no challenge") };
    let thief = Identity::of_seed(&Zeroizing::new([66; 32]));
    let (_, proof) = side
        .answer(&thief, &challenge, &machine.environments, Some(&machine.join.token))
        .expect("the box proves itself");
    peer.say(&FromAgent::Authenticate(proof));
    assert_closed(&server, &mut peer, 4006, "signature_invalid", "isn't the node's");
    assert_others_work(&server);
}

#[test]
fn a_relay_that_poses_as_the_box() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let call = || AgentSide::call(&machine.identity, machine.join.box_key, Hex([9; 32]));
    let worlds = [Environment::Mainnet];
    // With a key of its own it isn't the box that the agent knows.
    let posing = Identity::of_seed(&Zeroizing::new([66; 32]));
    let (side, hello) = call();
    let (_, own) = BoxSide::answer(&posing, &hello, Hex([1; 32])).expect("a challenge");
    let refusal = side.answer(&machine.identity, &own, &worlds, None).expect_err("it isn't the box");
    assert_eq!(refusal.code, CloseCode::BoxUnknown, "{refusal}");
    // What the box said to somebody else's nonce, or to another node, proves nothing to this one.
    for (who, nonce) in [(&machine.identity, Hex([8; 32])), (&posing, Hex([9; 32]))] {
        let mut peer = Peer { machine: &machine, ws: Ws::dial(machine.addr) };
        let (_, hello) = AgentSide::call(who, machine.join.box_key, nonce);
        peer.say(&FromAgent::Hello(hello));
        let FromBox::Challenge(overheard) = peer.hear() else { panic!("no challenge") };
        let (side, _) = call();
        let refusal =
            side.answer(&machine.identity, &overheard, &worlds, None).expect_err("it was overheard");
        assert_eq!(refusal.code, CloseCode::BoxUnknown, "{refusal}");
    }
    assert_others_work(&server);
}

#[test]
fn two_agents_with_one_key() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut first = machine.ready();
    let mut second = machine.join();
    assert_closed(&server, &mut first, 4012, "superseded", "a newer connection");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "echo", "to the newer one", json!({})));
        let assign = second.assigned();
        second.answer(&assign, &["here"]);
        assert_eq!(asked.join().expect("no panic").status, 200);
    });
    assert_others_work(&server);
}

#[test]
fn a_session_taken_over_by_a_late_disconnect() {
    let server = box_of_others("");
    let machine = Machine::own(&server, 1, "echo");
    let mut first = machine.ready();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "echo", "carried over", json!({})));
        let assign = first.assigned();
        first.accept(&assign);
        first.output(assign.reservation, 0, &["carried "]);
        // The same machine comes back over another way, before the first connection has ended.
        let hold = Hold {
            reservation: assign.reservation,
            model: assign.model.clone(),
            kv_tokens: u64::from(assign.input_tokens + assign.output_tokens_max),
            chunks: 1,
            result: None,
        };
        let (mut second, welcome) = machine.join_holding(vec![hold]);
        assert_eq!(welcome.holds.len(), 1);
        let verdict = serde_json::to_value(&welcome.holds[0]).expect("JSON");
        assert_eq!((&verdict["verdict"], &verdict["from"]), (&"resume".into(), &1.into()), "{verdict}");
        // Only now the end of the first arrives, and changes nothing.
        drop(first);
        wait_for("the end of the first", || (closes(&server, "superseded") > 0).then_some(()));
        assert_eq!(node(&server, &machine)["standing"], "ready");
        second.output(assign.reservation, 1, &["over"]);
        let statement = crate::harness::peer::statement(&assign, &machine, &["carried ", "over"]);
        second.complete(statement, 2);
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.value()["choices"][0]["message"]["content"], "carried over", "{}", answer.text());
    });
    assert_others_work(&server);
}

#[test]
fn an_invite_is_good_once() {
    let server = box_with("");
    let first = Machine::own(&server, 1, "echo");
    let second =
        Machine { identity: Identity::of_seed(&Zeroizing::new([2; 32])), ..Machine::own(&server, 2, "echo") };
    let thief = Machine { join: first.join.clone(), ..second };
    drop(first.ready());
    assert_closed(&server, &mut thief.dial(), 4008, "invite_invalid", "ask for a new one");
    // Who registered needs it no more.
    drop(first.join());
    assert_others_work(&server);
}

#[test]
fn a_revoked_invite_an_old_one_and_none_at_all() {
    let server = box_with("");
    let open =
        || server.admin("GET", "/admin/invites").value()["invites"].as_array().expect("a list").clone();
    let revoked = Machine::own(&server, 1, "echo");
    let name = open()[0]["invite"].as_str().expect("a name").to_owned();
    assert_eq!(server.command(&format!("/admin/invites/{name}/revoke"), &json!({})).status, 200);
    let again = server.command(&format!("/admin/invites/{name}/revoke"), &json!({}));
    assert_eq!((again.status, &again.error()["code"]), (404, &"invite_not_found".into()));
    assert_closed(&server, &mut revoked.dial(), 4008, "invite_invalid", "ask for a new one");
    let old = Machine::invited(&server, 1, "echo", json!({"ttl_s": 1}));
    wait_for("its time to be over", || open().is_empty().then_some(()));
    assert_closed(&server, &mut old.dial(), 4008, "invite_invalid", "its time is over");
    // An agent that was never invited.
    let mut peer = Peer { machine: &old, ws: Ws::dial(old.addr) };
    let (side, hello) = AgentSide::call(&old.identity, old.join.box_key, Hex([9; 32]));
    peer.say(&FromAgent::Hello(hello));
    let FromBox::Challenge(challenge) = peer.hear() else { panic!("no challenge") };
    let (_, proof) =
        side.answer(&old.identity, &challenge, &old.environments, None).expect("the box proves itself");
    peer.say(&FromAgent::Authenticate(proof));
    assert_closed(&server, &mut peer, 4007, "key_unknown", "switchbox nodes invite");
    assert_others_work(&server);
}

#[test]
fn an_environment_that_it_isnt_registered_for() {
    let server = box_with("");
    let machine = Machine { environments: vec![Environment::Testnet], ..Machine::own(&server, 1, "echo") };
    assert_closed(&server, &mut machine.dial(), 4010, "environment_refused", "isn't registered for testnet");
    // The invite wasn't used up by that.
    let machine = Machine { environments: Environment::ALL.to_vec(), ..machine };
    drop(machine.ready());
    assert_eq!(node(&server, &machine)["environments"], json!(["mainnet"]));
    assert_others_work(&server);
}

#[test]
fn a_banned_node() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    let ban = format!("/admin/nodes/{}/ban", machine.name());
    assert_eq!(server.command(&ban, &json!({})).status, 200);
    assert_closed(&server, &mut peer, 4009, "banned", "the operator refuses");
    assert_closed(&server, &mut machine.dial(), 4009, "banned", "the operator refuses");
    assert_others_work(&server);
}

#[test]
fn more_nodes_than_the_box_takes() {
    let server = box_with("node_sessions_max = 1");
    let (first, second) = (Machine::own(&server, 1, "echo"), Machine::own(&server, 2, "echo"));
    let here = first.ready();
    let mut peer = second.dial();
    let FromBox::Admitted(_) = peer.hear() else { panic!("not admitted") };
    peer.ws
        .text(r#"{"type":"ready","offer":{"models":[],"slots":1,"kv_tokens":1,"memory_bytes":1}}"#)
        .expect("sent");
    assert_closed(&server, &mut peer, 4011, "full", "as many nodes");
    drop(here);
    assert_others_work(&server);
}

#[test]
fn a_node_that_doesnt_read() {
    let server = box_of_others("client_stall_ms = 500\nreconnect_ttl_ms = 500");
    let machine = Machine::own(&server, 1, "echo");
    let other = Machine::own(&server, 2, "echo");
    let mut node_that_reads = other.ready();
    pause(&server, &other.name());
    let peer = machine.ready();
    // A prompt that no socket buffers whole.
    let prompt = "x".repeat(3_000_000);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| chat::ask(&server, "echo", &prompt, json!({"max_tokens": 4}))))
            .collect();
        // It has stalled: what it never read goes to another, and counts as no attempt.
        wait_for("the box to give it up", || (node(&server, &machine)["standing"] == "away").then_some(()));
        resume(&server, &other.name());
        for _ in 0..4 {
            let assign = node_that_reads.assigned();
            node_that_reads.answer(&assign, &["read"]);
        }
        for asked in asked {
            assert_eq!(asked.join().expect("no panic").status, 200);
        }
    });
    drop(peer);
    assert_others_work(&server);
}

#[test]
fn the_box_stops() {
    let mut server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    server.signal(rustix::process::Signal::TERM);
    let (code, reason) = peer.closed();
    assert_eq!(code, 1012, "{reason}");
    drop(peer);
    assert!(server.wait_exit().success());
}

#[test]
fn a_node_that_drains_is_told_when_it_is_through() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    peer.ws.text(r#"{"type":"wish","wish":"drain"}"#).expect("the box reads");
    let drained = loop {
        match peer.receive() {
            Got::Text(text) => match FromBox::parse(&text, usize::MAX) {
                Ok(Parsed::Known(FromBox::Drained(_))) => break true,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            },
            got => panic!("{got:?}"),
        }
    };
    assert!(drained);
    assert_closed(&server, &mut peer, 4017, "drained", "nothing is left");
    assert_others_work(&server);
}

#[test]
fn what_an_invite_says_is_what_the_node_is() {
    let server = box_with("");
    let invited = json!({"trust": "approved", "environments": ["testnet", "mainnet"], "account": "alice", "region": "eu"});
    let machine = Machine::invited(&server, 1, "echo", invited);
    drop(machine.ready());
    let seen = node(&server, &machine);
    assert_eq!(
        (&seen["trust"], &seen["owner"], &seen["region"]),
        (&"approved".into(), &"alice".into(), &"eu".into())
    );
    assert_eq!(seen["environments"], json!(["mainnet", "testnet"]));
    for (body, param) in [
        (json!({"trust": "best"}), "trust"),
        (json!({"environments": []}), "environments"),
        (json!({"environments": ["prod"]}), "environments"),
        (json!({"region": "E U"}), "region"),
        (json!({"ttl_s": 0}), "ttl_s"),
        (json!({"url": "ftp://box"}), "url"),
        (json!({"turst": "own"}), "body"),
    ] {
        let answer = server.command("/admin/invites/new", &body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let error = answer.error();
        let found = error["param"].as_str().unwrap_or_default();
        assert!(found == param || (param == "environments" && found == "environment"), "{body}: {error}");
    }
    let elsewhere = invite(&server, json!({"url": "https://box.example/below"}));
    assert_eq!(elsewhere.connect_url(), "wss://box.example/below/v1/nodes/connect");
    assert_others_work(&server);
}
