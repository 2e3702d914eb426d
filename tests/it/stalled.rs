//! A client that stops reading blocks nobody, and doesn't keep its job for ever.

use crate::harness::chat::{self, Event, Events};
use crate::harness::server::Setup;
use crate::harness::wait_for;
use serde_json::json;

/// Enough that the answer doesn't fit the system's socket buffers, which take some megabytes.
const WORDS: usize = 40_000;
/// An event of one word has more than that.
const EVENT_BYTES: usize = 200;

#[test]
fn a_reader_that_stalls_is_let_go_and_others_go_on() {
    let models = "[[model]]\nname = \"echo\"\nspec = \"echo:\"\nslots = 4";
    let server = Setup::open().config("[limits]\nclient_stall_ms = 1000").config(models).start();
    let big = chat::long_prompt(WORDS);
    let mut stalled = chat::stream(&server, "echo", &big, json!({"max_tokens": 2 * WORDS})).open_narrow();
    let start = stalled.read_raw(512);
    assert!(start.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&start));
    for i in 0..20 {
        let (text, end) = Events::of(chat::open(&server, "echo", &format!("other {i}"), json!({}))).rest();
        assert!(text.contains(&format!("other {i}")) && end == Event::Done, "{text}: {end:?}");
    }
    wait_for("the stalled client's disconnect", || {
        let metrics = server.metrics();
        (metrics.disconnects("unread") + metrics.disconnects("decode") == 1).then_some(())
    });
    server.assert_nothing_left();
    let more = stalled.read_to_close();
    assert!(more < WORDS * EVENT_BYTES, "the connection was closed before the whole answer was sent");
}

/// A slow reader isn't a stalled one: as long as it reads, it gets everything.
#[test]
fn a_slow_reader_gets_it_all() {
    let server = Setup::open().model("echo", "echo:").config("[limits]\nclient_stall_ms = 5000").start();
    let big = chat::long_prompt(2000);
    let connection = chat::stream(&server, "echo", &big, json!({"max_tokens": 5000})).open_narrow();
    let mut events = Events::of(connection);
    let mut text = String::new();
    loop {
        match events.next() {
            Event::Data(chunk) => text.push_str(chat::text_of(&chunk)),
            Event::Comment => {}
            end => {
                assert_eq!(end, Event::Done);
                break;
            }
        }
        if text.len().is_multiple_of(64) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    assert!(text.contains(&big), "the whole text came");
    server.assert_nothing_left();
}
