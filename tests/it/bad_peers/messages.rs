//! Peers whose messages aren't messages, aren't known, come at the wrong place, or come too fast.

use switchbox::wire::to_box::Ready;
use switchbox::wire::{FromAgent, FromBox};

use super::{assert_closed, assert_others_work, box_with};
use crate::harness::peer::{Machine, Peer};
use crate::harness::ws::Ws;

#[test]
fn invalid_json() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    for (text, said) in [
        ("", "begins otherwise"),
        ("[]", "begins otherwise"),
        ("{", "isn't a JSON object"),
        ("{\"kind\":\"accepted\"}", "`type`"),
        ("{\"type\":\"accepted\"}", "`accepted` is wrong: missing field `reservation`"),
        ("{\"type\":\"accepted\",\"reservation\":\"res_1\"}", "isn't a reservation id"),
        ("{\"type\":\"heartbeat\",\"running\":-1}", "`heartbeat` is wrong"),
        (
            &format!("{{\"type\":\"heartbeat\",\"running\":0,\"x\":{}{}}}", "[".repeat(99), "]".repeat(99)),
            "deeper",
        ),
    ] {
        let mut peer = machine.join();
        peer.ws.text(text).expect("the box reads");
        assert_closed(&server, &mut peer, 4000, "message_invalid", said);
    }
    assert_others_work(&server);
}

#[test]
fn messages_out_of_order() {
    let server = box_with("reconnect_ttl_ms = 300");
    let machine = Machine::own(&server, 1, "echo");
    // Ready before anybody knows who it is.
    let mut peer = Peer { machine: &machine, ws: Ws::dial(machine.addr) };
    let ready = Ready { offer: machine.offer.clone(), configurations: Vec::new(), holds: Vec::new() };
    peer.say(&FromAgent::Ready(Box::new(ready.clone())));
    assert_closed(&server, &mut peer, 4002, "out_of_order", "`ready` came where `hello` is expected");
    // A heartbeat before it is ready.
    let mut peer = machine.dial();
    peer.ws.text(r#"{"type":"heartbeat","running":0}"#).expect("the box reads");
    assert_closed(&server, &mut peer, 4002, "out_of_order", "`heartbeat` came where `ready` is expected");
    // Ready twice.
    let mut peer = machine.join();
    peer.say(&FromAgent::Ready(Box::new(ready)));
    assert_closed(&server, &mut peer, 4002, "out_of_order", "`ready` came where");
    // Output with a piece missing, of a machine that wasn't given a test before.
    let machine = Machine::own(&server, 2, "echo");
    let mut peer = machine.join();
    let test = peer.assigned();
    peer.accept(&test);
    peer.output(test.reservation, 0, &["a", "b"]);
    peer.output(test.reservation, 3, &["d"]);
    assert_closed(&server, &mut peer, 4002, "out_of_order", "begins with chunk 3, and chunk 2 is next");
    assert_others_work(&server);
}

#[test]
fn unknown_kinds_of_messages() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    peer.ws.text(r#"{"type":"weather","optional":true,"rain":1}"#).expect("the box reads");
    // It was skipped: the connection is as good as before.
    peer.ws.text(r#"{"type":"heartbeat","running":0}"#).expect("the box reads");
    peer.ws.text(r#"{"type":"weather","rain":1}"#).expect("the box reads");
    assert_closed(&server, &mut peer, 4001, "message_unknown", "unknown kind of message `weather`");
    assert_eq!(server.metrics().total("switchbox_node_messages_ignored_total"), 1);
    assert_others_work(&server);
}

#[test]
fn a_flood() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = machine.ready();
    // Whole seconds' worth at once; what it doesn't read any more doesn't matter.
    for _ in 0..5_000 {
        if peer.ws.text(r#"{"type":"heartbeat","running":0}"#).is_err() {
            break;
        }
    }
    assert_closed(&server, &mut peer, 4013, "too_fast", "200 messages a second");
    assert!(server.metrics().total("switchbox_node_stray_messages_total") >= 1_000);
    assert_others_work(&server);
}

#[test]
fn an_agent_too_old_and_one_too_new() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    for (version, code, word, said) in [
        ("0.9", 4004, "agent_too_old", "update the agent"),
        ("1.1", 4005, "agent_too_new", "update the box"),
        ("2.0", 4005, "agent_too_new", "update the box"),
    ] {
        let mut peer = Peer { machine: &machine, ws: Ws::dial(machine.addr) };
        let (key, nonce) = (machine.identity.public(), "09".repeat(32));
        let hello = format!(
            r#"{{"type":"hello","version":"{version}","node_key":"{key}","nonce":"{nonce}","later":[]}}"#
        );
        peer.ws.text(&hello).expect("the box reads");
        assert_closed(&server, &mut peer, code, word, said);
    }
    assert_others_work(&server);
}

#[test]
fn a_clock_that_is_a_day_off() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let (mut peer, welcome) = machine.join_holding(Vec::new());
    assert!(welcome.time_ms > 0, "the box shows its clock");
    // The peer's clock is whatever it is: there is no place in what it says where it could show.
    let heartbeat = r#"{"type":"heartbeat","running":0,"time_ms":86400000,"sent_at":"1970-01-02T00:00:00Z"}"#;
    peer.ws.text(heartbeat).expect("the box reads");
    let test = peer.assigned();
    peer.answer(&test, &["on ", "time"]);
    while !matches!(peer.hear(), FromBox::Standing(standing) if standing.standing.takes_work()) {}
    assert_others_work(&server);
}
