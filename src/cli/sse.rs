//! Server-sent events, read piece by piece (WHATWG HTML section 9.2.6). Knows lines and `data`; never what is in it.

use std::collections::VecDeque;

/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// An event that doesn't end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent an event of more than {EVENT_BYTES_MAX} bytes")]
pub(super) struct EventTooLong;

/// Turns bytes, however they are cut, into the data of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: String,
    after_return: AfterReturn,
    ready: VecDeque<String>,
}

/// Whether the last byte was a carriage return, whose line feed is no line of its own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum AfterReturn {
    #[default]
    No,
    Yes,
}

impl Events {
    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), EventTooLong> {
        for &byte in bytes {
            let after_return = std::mem::replace(
                &mut self.after_return,
                if byte == b'\r' { AfterReturn::Yes } else { AfterReturn::No },
            );
            match byte {
                b'\n' if after_return == AfterReturn::Yes => {}
                b'\n' | b'\r' => self.end_line(),
                _ if self.line.len() + self.data.len() >= EVENT_BYTES_MAX => return Err(EventTooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    /// The data of the next whole event.
    pub(super) fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            // An event without data is none.
            if self.data.pop().is_some() {
                self.ready.push_back(std::mem::take(&mut self.data));
            }
            return;
        }
        let line = String::from_utf8_lossy(&self.line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        // A line without a field's name is a comment; other fields than data carry nothing that we need.
        if field == "data" {
            self.data.push_str(value.strip_prefix(' ').unwrap_or(value));
            self.data.push('\n');
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &str, expected: &[&str]) {
        for piece in [1, 2, 3, 7, stream.len().max(1)] {
            let mut events = Events::default();
            let mut found = Vec::new();
            for bytes in stream.as_bytes().chunks(piece) {
                events.push(bytes).expect("short events");
                found.extend(std::iter::from_fn(|| events.next()));
            }
            assert_eq!(found, expected, "{stream:?} in pieces of {piece}");
        }
    }

    #[test]
    fn events_whatever_the_line_ends_and_pieces() {
        check("", &[]);
        check("data: a\n\ndata: b\n\n", &["a", "b"]);
        check("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]);
        check("data: a\r\rdata: b\r\r", &["a", "b"]);
        check(": keep-alive\n\ndata: é\n\n", &["é"]);
        check("event: x\nid: 1\nretry: 5\ndata:no space\ndata:  two\n\n", &["no space\n two"]);
        check("data\n\n", &[""]);
        check("data: unfinished\n", &[]);
        check("event: nothing\n\n\n\ndata: [DONE]\n\n", &["[DONE]"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        let line = [&b"data: "[..], &[b'x'; 1 << 20], b"\n"].concat();
        let refused = (0..5).map(|_| events.push(&line)).find(Result::is_err);
        assert_eq!(refused, Some(Err(EventTooLong)));
    }
}
