//! Nodes of other machines: they join, run jobs, leave and come back.

use serde_json::json;

use crate::harness::chat::{self, Event, Events};
use crate::harness::peer::Machine;
use crate::harness::server::{Server, Setup};

/// A box whose own node runs nothing: what comes goes to others.
fn box_of_others(config: &str) -> Server {
    let server = Setup::open().model("echo", "echo:").config(config).start();
    assert_eq!(server.command("/admin/nodes/node_local/pause", &json!({})).status, 200);
    server
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
    server.assert_nothing_left();
}
