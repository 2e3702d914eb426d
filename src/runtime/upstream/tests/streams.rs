//! Bytes to events.

use proptest::prelude::*;

use super::super::events::{EVENT_BYTES_MAX, Event, Events, Unreadable};

/// The events of a stream that comes in pieces.
fn events_of<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<Vec<Event>, Unreadable> {
    let (mut events, mut found) = (Events::default(), Vec::new());
    for piece in pieces {
        events.feed(piece);
        while let Some(event) = events.next()? {
            found.push(event);
        }
    }
    while let Some(event) = events.end()? {
        found.push(event);
    }
    Ok(found)
}

fn data(text: &str) -> Event {
    Event::Data(text.to_owned())
}

#[test]
fn streams_are_read_as_servers_write_them() {
    for (what, stream, expected) in [
        ("the standard", "data: {\"a\":1}\n\ndata: [DONE]\n\n", vec![data("{\"a\":1}"), Event::Done]),
        ("no space behind the colon", "data:{}\n\ndata:[DONE]\n\n", vec![data("{}"), Event::Done]),
        ("a space behind the end's word (a proxy's)", "data: [DONE] \n\n", vec![Event::Done]),
        (
            "lines with a carriage return",
            "data: {}\r\n\r\ndata: [DONE]\r\n\r\n",
            vec![data("{}"), Event::Done],
        ),
        (
            "comments, as OpenRouter and others send while they wait",
            ": OPENROUTER PROCESSING\n\n:\n\ndata: {}\n\n",
            vec![data("{}")],
        ),
        ("other fields", "event: chunk\nid: 7\nretry: 10\ndata: {}\n\n", vec![data("{}")]),
        ("no empty line at the end", "data: {}\n\ndata: [DONE]", vec![data("{}"), Event::Done]),
        (
            "no empty lines between",
            "data: {\"a\":1}\ndata: {\"a\":2}\ndata: [DONE]\n\n",
            vec![data("{\"a\":1}"), data("{\"a\":2}"), Event::Done],
        ),
        ("JSON over several lines", "data: {\"a\":\ndata: 1}\n\n", vec![data("{\"a\": 1}")]),
        ("empty data", "data:\n\ndata: \n\ndata: {}\n\n", vec![data("{}")]),
        (
            "llama.cpp's errors of old",
            "error: {\"code\":500,\"message\":\"no\"}\n\n",
            vec![data("{\"error\":{\"code\":500,\"message\":\"no\"}}")],
        ),
        ("an error that is text", "error: out of memory\n\n", vec![data("{\"error\":\"out of memory\"}")]),
        ("a byte order mark", "\u{feff}data: {}\n\n", vec![data("{}")]),
        ("nothing", "", vec![]),
    ] {
        assert_eq!(events_of([stream.as_bytes()]), Ok(expected), "{what}");
    }
}

#[test]
fn what_is_no_text_or_too_long_is_refused() {
    assert_eq!(events_of([b"data: \xff\n\n".as_slice()]), Err(Unreadable::NotText));
    assert_eq!(events_of([b"data: \xc3".as_slice()]), Err(Unreadable::NotText));
    let long = vec![b'x'; EVENT_BYTES_MAX + 1];
    assert_eq!(events_of([long.as_slice()]), Err(Unreadable::TooLong), "a line without an end");
    let line = [b"data: ".as_slice(), &long[..EVENT_BYTES_MAX / 2], b"\n"].concat();
    assert_eq!(
        events_of([line.as_slice(), &line, &line]),
        Err(Unreadable::TooLong),
        "an event without an end"
    );
}

proptest! {
    #[test]
    fn where_a_stream_is_cut_changes_nothing(cuts in proptest::collection::vec(0_usize..90, 0..6)) {
        let stream = "data: {\"a\":\"H\u{e9}\u{1F600}\"}\r\n\r\n: wait\r\ndata: {\"b\":\ndata: 2}\n\ndata: [DONE]\n\n".as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        let expected = vec![data("{\"a\":\"H\u{e9}\u{1F600}\"}"), data("{\"b\": 2}"), Event::Done];
        prop_assert_eq!(events_of(pieces), Ok(expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = events_of([bytes.as_slice()]);
    }
}
