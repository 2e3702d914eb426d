//! Peers that break WebSocket itself, or say nothing at all.

use super::{assert_closed, assert_others_work, box_of_others, box_with, closes, node};
use crate::harness::http::Request;
use crate::harness::peer::{Machine, Peer};
use crate::harness::server::Server;
use crate::harness::wait_for;
use crate::harness::ws::{BINARY, CONTINUATION, Got, PING, TEXT, Ws};

/// A connection that was upgraded, and nothing more.
fn upgraded(machine: &Machine) -> Peer<'_> {
    Peer { machine, ws: Ws::dial(machine.addr) }
}

/// Runs that against a peer that hasn't shaken hands and against one that serves.
fn before_and_after_the_handshake(server: &Server, machine: &Machine, test: impl Fn(&mut Peer<'_>, usize)) {
    test(&mut upgraded(machine), 4 << 10);
    test(&mut machine.ready(), 8 << 20);
    assert_others_work(server);
}

#[test]
fn silence_in_the_handshake() {
    let server = box_with("node_handshake_timeout_ms = 200");
    let machine = Machine::own(&server, 1, "echo");
    assert_closed(&server, &mut upgraded(&machine), 4003, "handshake_timeout", "200 ms");
    // Half of it isn't enough.
    let mut admitted = machine.dial();
    assert_closed(&server, &mut admitted, 4003, "handshake_timeout", "200 ms");
    assert_others_work(&server);
}

#[test]
fn silence_of_a_node() {
    let server = box_with("node_ping_ms = 100\nnode_silence_ms = 300");
    let machine = Machine::own(&server, 1, "echo");
    let mut quiet = machine.ready();
    let pinged = loop {
        match quiet.ws.receive() {
            Got::Text(_) => {}
            got => break got,
        }
    };
    assert_eq!(pinged, Got::Ping, "it is asked first");
    assert_closed(&server, &mut quiet_again(quiet), 4014, "silent", "300 ms");
    wait_for("the node to be away", || (node(&server, &machine)["standing"] == "away").then_some(()));
    assert_others_work(&server);
}

/// The same peer; its pings stay unanswered because it only looks for the close.
fn quiet_again(peer: Peer<'_>) -> Peer<'_> {
    peer
}

#[test]
fn a_half_open_connection() {
    let server = box_of_others("node_ping_ms = 100\nnode_silence_ms = 300\nheartbeat_ttl_ms = 5000");
    let machine = Machine::own(&server, 1, "echo");
    // It is gone without a word: neither data nor an end comes from it any more.
    let vanished = machine.ready();
    wait_for("the box to notice", || (closes(&server, "silent") > 0).then_some(()));
    wait_for("the node to be away", || (node(&server, &machine)["standing"] == "away").then_some(()));
    // The machine dials again, and is as good as before.
    let back = machine.join();
    wait_for("it to be back", || (node(&server, &machine)["standing"] == "ready").then_some(()));
    drop((vanished, back));
    assert_others_work(&server);
}

#[test]
fn an_oversize_message() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    before_and_after_the_handshake(&server, &machine, |peer, most| {
        // The head of a frame says it all; its rest may never come.
        let mut head = vec![0x80 | TEXT, 0x80 | 127];
        head.extend_from_slice(&(most as u64 + 1).max(65_536).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        peer.ws.raw(&head).expect("the box reads");
        assert_closed(&server, peer, 1009, "too_large", "");
    });
}

#[test]
fn endless_fragments() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    before_and_after_the_handshake(&server, &machine, |peer, most| {
        let piece = vec![b' '; most / 8];
        peer.ws.frame(false, TEXT, &piece).expect("the box reads");
        for _ in 0..8 {
            let _ = peer.ws.frame(false, CONTINUATION, &piece);
        }
        assert_closed(&server, peer, 1009, "too_large", "");
    });
}

#[test]
fn endless_fragments_with_nothing_in_them() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    let mut peer = upgraded(&machine);
    peer.ws.frame(false, TEXT, b"").expect("the box reads");
    // Six bytes each: more than any message of a handshake may take, whole.
    for _ in 0..20_000 {
        if peer.ws.frame(false, CONTINUATION, b"").is_err() {
            break;
        }
    }
    assert_closed(&server, &mut peer, 1009, "too_large", "");
    assert_others_work(&server);
}

#[test]
fn invalid_utf_8() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    before_and_after_the_handshake(&server, &machine, |peer, _| {
        peer.ws.frame(true, TEXT, b"{\"type\":\"\xff\"}").expect("the box reads");
        assert_closed(&server, peer, 1007, "text_invalid", "");
    });
    // Only the end is missing.
    let machine = Machine::own(&server, 2, "echo");
    before_and_after_the_handshake(&server, &machine, |peer, _| {
        peer.ws.frame(false, TEXT, b"{\"type\":\"\xe7").expect("the box reads");
        peer.ws.frame(true, CONTINUATION, b"").expect("the box reads");
        assert_closed(&server, peer, 1007, "text_invalid", "");
    });
}

#[test]
fn frames_that_are_none() {
    let server = box_with("");
    let machine = Machine::own(&server, 1, "echo");
    for frame in [
        // A reserved bit; an opcode that isn't one; a continuation of nothing; a ping in pieces; no mask.
        [0x80 | 0x40 | TEXT, 0x80, 0, 0, 0, 0],
        [0x80 | 3, 0x80, 0, 0, 0, 0],
        [0x80 | CONTINUATION, 0x80, 0, 0, 0, 0],
        [PING, 0x80, 0, 0, 0, 0],
        [0x80 | TEXT, 0, 0, 0, 0, 0],
    ] {
        let mut peer = upgraded(&machine);
        peer.ws.raw(&frame).expect("the box reads");
        assert_closed(&server, &mut peer, 1002, "frame_invalid", "");
    }
    let mut peer = upgraded(&machine);
    peer.ws.frame(true, BINARY, b"{}").expect("the box reads");
    assert_closed(&server, &mut peer, 4000, "message_invalid", "binary");
    assert_others_work(&server);
}

#[test]
fn what_is_no_upgrade_is_refused_with_words() {
    let server = box_with("");
    let get = || Request::new(server.addr, "GET", "/v1/nodes/connect");
    let upgrade = || {
        get()
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    for (request, status, code) in [
        (get(), 400, "not_an_upgrade"),
        (upgrade(), 400, "subprotocol_unknown"),
        (upgrade().header("sec-websocket-protocol", "graphql-ws"), 400, "subprotocol_unknown"),
        (
            upgrade()
                .header("sec-websocket-protocol", "switchbox.v1")
                .header("origin", "https://chat.example"),
            403,
            "origin_not_allowed",
        ),
    ] {
        let answer = request.send();
        assert_eq!((answer.status, &answer.error()["code"]), (status, &code.into()), "{}", answer.text());
    }
    assert_others_work(&server);
}
