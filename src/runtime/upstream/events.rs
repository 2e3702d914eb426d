//! Server-sent events, from bytes as they come: lines may be cut anywhere, in the middle of a character too.
//!
//! Follows the standard, and what servers make of it: no space behind the colon, no empty line at the end, JSON objects
//! on lines of one event. Everything but data, and llama.cpp's `error:` of old, is skipped.

/// Bytes of one event at most.
pub(super) const EVENT_BYTES_MAX: usize = 4 << 20;

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A piece of JSON, as it should be.
    Data(String),
    /// The server says that it is through.
    Done,
}

/// A stream that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// An event is too long.
    #[error("it sent an event of more than {EVENT_BYTES_MAX} bytes")]
    TooLong,
    /// It isn't text.
    #[error("it sent what isn't UTF-8")]
    NotText,
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Bytes that were fed and not looked at.
    unread: Vec<u8>,
    read: usize,
    /// Of the line that isn't ended yet; what is before was looked through for its end.
    looked: usize,
    /// The data lines of the event that isn't ended yet.
    data: Vec<String>,
    data_bytes: usize,
    /// Of an event that was taken apart, what is still to be given.
    pending: std::collections::VecDeque<Event>,
}

impl Events {
    /// Takes in bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.unread.drain(..self.read);
            self.looked -= self.read;
            self.read = 0;
        }
        self.unread.extend_from_slice(bytes);
    }

    /// The next event that is whole; `None` until more is fed.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Unreadable> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            let Some(line) = self.line()? else { return Ok(None) };
            self.take_line(&line)?;
        }
    }

    /// The stream ended: what it didn't end itself is an event too.
    pub(super) fn end(&mut self) -> Result<Option<Event>, Unreadable> {
        if self.pending.is_empty() {
            let rest = self.unread.split_off(self.read);
            (self.read, self.looked) = (0, 0);
            self.unread.clear();
            if !rest.is_empty() {
                let line = String::from_utf8(rest).map_err(|_| Unreadable::NotText)?;
                self.take_line(line.trim_end_matches('\r'))?;
            }
            self.dispatch();
        }
        Ok(self.pending.pop_front())
    }

    /// The next line that is ended, without its end: a line feed, with or without a carriage return before it.
    fn line(&mut self) -> Result<Option<String>, Unreadable> {
        let from = self.looked.max(self.read);
        let Some(end) = self.unread[from..].iter().position(|byte| *byte == b'\n') else {
            self.looked = self.unread.len();
            let long = self.unread.len() - self.read > EVENT_BYTES_MAX;
            return if long { Err(Unreadable::TooLong) } else { Ok(None) };
        };
        let line = &self.unread[self.read..from + end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = str::from_utf8(line).map_err(|_| Unreadable::NotText)?.to_owned();
        self.read = from + end + 1;
        self.looked = self.read;
        Ok(Some(line))
    }

    fn take_line(&mut self, line: &str) -> Result<(), Unreadable> {
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        // A comment begins with the colon; the byte order mark may be before the very first field.
        if matches!(field.trim_start_matches('\u{feff}'), "data" | "error") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            self.data_bytes += value.len();
            if self.data_bytes > EVENT_BYTES_MAX {
                return Err(Unreadable::TooLong);
            }
            self.data.push(if field == "error" { as_error(value) } else { value.to_owned() });
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        let lines = std::mem::take(&mut self.data);
        self.data_bytes = 0;
        // An object on every line is as many events, whose empty lines were left out.
        let each_is_whole = |line: &String| is_json(line) || line.trim() == DONE;
        if lines.len() > 1 && !lines.iter().all(each_is_whole) {
            // White space in JSON: the line's end mustn't end an event of ours.
            return self.pending.push_back(Event::Data(lines.join(" ")));
        }
        let event = |line: String| if line.trim() == DONE { Event::Done } else { Event::Data(line) };
        self.pending.extend(lines.into_iter().filter(|line| !line.trim().is_empty()).map(event));
    }
}

/// What ends a stream in OpenAI's API.
const DONE: &str = "[DONE]";

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

/// The value of an `error` field as an error in data would be.
fn as_error(value: &str) -> String {
    if is_json(value) {
        return format!("{{\"error\":{value}}}");
    }
    serde_json::json!({ "error": value }).to_string()
}
