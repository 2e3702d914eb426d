//! Chat requests and the server-sent events that answer them.

use super::http::{Answer, Connection, Request, Response};
use super::server::Server;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};

/// The small model, asked this greedily, tells on and on: as good as endless.
pub const ENDLESS: &str = "Tell me a story about a river.";

/// A chat request with one user message; `more` is merged over it.
pub fn body(model: &str, content: &str, more: Value) -> String {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": content}]});
    let fields = body.as_object_mut().expect("made above");
    fields.extend(more.as_object().expect("fields to merge").clone());
    body.to_string()
}

/// A prompt of about `words` tokens for the small model.
pub fn long_prompt(words: usize) -> String {
    let some = ["river", "stone", "light", "house", "winter", "music", "paper", "garden"];
    (0..words).map(|i| some[(i * i + i / 7) % some.len()]).collect::<Vec<_>>().join(" ")
}

/// A streamed chat request, not yet sent.
pub fn stream(server: &Server, model: &str, content: &str, more: Value) -> Request {
    let mut fields = json!({"stream": true});
    fields.as_object_mut().expect("made above").extend(more.as_object().expect("fields").clone());
    server.request("POST", "/v1/chat/completions").json(&body(model, content, fields))
}

/// Sends a streamed chat request and returns the connection, unread.
pub fn open(server: &Server, model: &str, content: &str, more: Value) -> Connection {
    stream(server, model, content, more).open()
}

/// Sends a chat request that isn't streamed and reads its answer.
pub fn ask(server: &Server, model: &str, content: &str, more: Value) -> Response {
    server.call("POST", "/v1/chat/completions", &body(model, content, more))
}

/// A stream of events that is being read.
pub struct Events {
    lines: BufReader<Answer>,
}

/// One thing that an event stream says.
#[derive(Debug, PartialEq)]
pub enum Event {
    Data(Value),
    Comment,
    Done,
    /// The connection ended, properly or not, without `[DONE]`.
    Cut,
}

impl Events {
    /// Reads the head of the response, which must be a stream.
    pub fn of(connection: Connection) -> Events {
        let mut answer = connection.head();
        if answer.status != 200 {
            let mut text = String::new();
            let _ = answer.read_to_string(&mut text);
            panic!("status {}: {text}", answer.status);
        }
        assert!(answer.header("content-type").is_some_and(|t| t.starts_with("text/event-stream")));
        Events { lines: BufReader::with_capacity(512, answer) }
    }

    pub fn next(&mut self) -> Event {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) | Err(_) => return Event::Cut,
            Ok(_) => self.expect_blank(),
        }
        match line.trim_end_matches('\n') {
            "data: [DONE]" => Event::Done,
            comment if comment.starts_with(':') => Event::Comment,
            data => match data.strip_prefix("data: ") {
                Some(text) => {
                    Event::Data(serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")))
                }
                None => panic!("neither data nor comment: {data:?}"),
            },
        }
    }

    fn expect_blank(&mut self) {
        let mut line = String::new();
        let _ = self.lines.read_line(&mut line);
        assert_eq!(line.trim_end(), "", "an event is one line and a blank one");
    }

    /// Reads on until some text came; returns it.
    pub fn first_text(&mut self) -> String {
        loop {
            match self.next() {
                Event::Data(chunk) => match text_of(&chunk) {
                    "" => {}
                    text => return text.to_owned(),
                },
                Event::Comment => {}
                end => panic!("no text before {end:?}"),
            }
        }
    }

    /// Reads to the end; returns the text, and how it ended.
    pub fn rest(&mut self) -> (String, Event) {
        let mut text = String::new();
        loop {
            match self.next() {
                Event::Data(chunk) if chunk.get("error").is_some() => return (text, Event::Data(chunk)),
                Event::Data(chunk) => text.push_str(text_of(&chunk)),
                Event::Comment => {}
                end => return (text, end),
            }
        }
    }
}

/// The text of one chunk of a chat stream.
pub fn text_of(chunk: &Value) -> &str {
    chunk["choices"][0]["delta"]["content"].as_str().unwrap_or("")
}
