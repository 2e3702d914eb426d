//! One question and its answer: the request, the stream that comes back, the spinner before its first token. Keeps
//! the history; letting go of the stream is what cancels it.

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::Signal;

use crate::cli::CliError;
use crate::cli::client::{Client, ClientError, ErrorText, Exchange};
use crate::cli::sse::Events;
use crate::cli::terminal::printable;

const SPINNER_FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const SPINNER_FRAME: Duration = Duration::from_millis(100);
const CLEAR_LINE: &str = "\r\x1b[K";

#[derive(Debug, Clone, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Message],
    stream: bool,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With everything that the model had to say.
    Whole,
    /// At the most tokens allowed.
    Cut,
    /// By Ctrl-C.
    Cancelled,
}

/// A conversation with one model.
pub(super) struct Talk {
    client: Client,
    model: String,
    messages: Vec<Message>,
}

impl Talk {
    pub(super) fn new(client: Client, model: String, system: Option<String>) -> Self {
        let messages = system.map(|content| Message { role: "system", content }).into_iter().collect();
        Self { client, model, messages }
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Asks and writes the answer to stdout as it comes. What came stays in the history, even if it was cut.
    pub(super) async fn ask(&mut self, question: &str, interrupt: &mut Signal) -> Result<Ended, CliError> {
        self.messages.push(Message { role: "user", content: question.to_owned() });
        let mut waiting = Waiting { interrupt, spinner: Spinner::start() };
        let mut answer = String::new();
        let ended = self.stream(&mut waiting, &mut answer).await;
        waiting.spinner.stop();
        if answer.is_empty() {
            // A question without an answer would confuse the model the next time.
            self.messages.pop();
        } else {
            self.messages.push(Message { role: "assistant", content: answer });
        }
        ended
    }

    async fn stream(&self, waiting: &mut Waiting<'_>, answer: &mut String) -> Result<Ended, CliError> {
        let body = Body { model: &self.model, messages: &self.messages, stream: true };
        let body = serde_json::to_vec(&body).map_err(|error| CliError::Failed(error.to_string()))?;
        let posting = self.client.post("/v1/chat/completions", body);
        let Some(exchange) = waiting.unless_interrupted(posting).await else {
            return Ok(Ended::Cancelled);
        };
        let mut exchange: Exchange = exchange?;
        let (mut events, mut reader) = (Events::default(), AnswerReader::default());
        loop {
            let Some(piece) = waiting.unless_interrupted(self.client.piece(&mut exchange)).await else {
                return Ok(Ended::Cancelled);
            };
            let Some(piece) = piece? else {
                return Err(self.client.unreadable("it ended before the model did").into());
            };
            events.push(&piece).map_err(|error| self.client.unreadable(&error.to_string()))?;
            while let Some(data) = events.next() {
                match reader.read(&data, &self.client)? {
                    Part::Text(text) => {
                        waiting.spinner.stop();
                        write_out(&text)?;
                        answer.push_str(&text);
                    }
                    Part::Nothing => {}
                    Part::Done(ended) => return Ok(ended),
                }
            }
        }
    }
}

fn write_out(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(printable(text).as_bytes())?;
    out.flush()
}

/// What an event of the stream says.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Nothing,
    Done(Ended),
}

/// Reads the events of one stream.
#[derive(Debug, Default)]
struct AnswerReader {
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    error: Option<ErrorText>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

impl AnswerReader {
    fn read(&mut self, data: &str, client: &Client) -> Result<Part, ClientError> {
        if data == "[DONE]" {
            let is_cut = self.finish_reason.as_deref() == Some("length");
            return Ok(Part::Done(if is_cut { Ended::Cut } else { Ended::Whole }));
        }
        let chunk: Chunk =
            serde_json::from_str(data).map_err(|error| client.unreadable(&format!("an event: {error}")))?;
        if let Some(ErrorText { code, message }) = chunk.error {
            return Err(ClientError::Ended { code: code.unwrap_or_else(|| "error".to_owned()), message });
        }
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(Part::Nothing) };
        self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        Ok(choice.delta.content.filter(|text| !text.is_empty()).map_or(Part::Nothing, Part::Text))
    }
}

/// What else happens while something is waited for.
struct Waiting<'a> {
    interrupt: &'a mut Signal,
    spinner: Spinner,
}

impl Waiting<'_> {
    /// The work's result; `None` if Ctrl-C came first.
    async fn unless_interrupted<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                _ = self.interrupt.recv() => return None,
                () = self.spinner.turn() => {}
            }
        }
    }
}

/// Shows that something is going on; only to a terminal.
enum Spinner {
    Turning { frame: usize },
    Still,
}

impl Spinner {
    fn start() -> Self {
        let is_seen = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        if is_seen { Spinner::Turning { frame: 0 } } else { Spinner::Still }
    }

    /// Shows the next frame when it is time; never, if there is nothing to show.
    async fn turn(&mut self) {
        match self {
            Spinner::Still => std::future::pending().await,
            Spinner::Turning { frame } => {
                tokio::time::sleep(SPINNER_FRAME).await;
                eprint!("{CLEAR_LINE}{}", SPINNER_FRAMES[*frame % SPINNER_FRAMES.len()]);
                *frame += 1;
            }
        }
    }

    fn stop(&mut self) {
        if let Spinner::Turning { .. } = self {
            eprint!("{CLEAR_LINE}");
            *self = Spinner::Still;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Address;

    fn read_all(events: &[&str]) -> Result<(String, Option<Ended>), ClientError> {
        let client = Client::new(Address::Unix("/nowhere".into()), None)?;
        let mut reader = AnswerReader::default();
        let mut text = String::new();
        for event in events {
            match reader.read(event, &client)? {
                Part::Text(part) => text.push_str(&part),
                Part::Nothing => {}
                Part::Done(ended) => return Ok((text, Some(ended))),
            }
        }
        Ok((text, None))
    }

    #[test]
    fn streams_are_read_to_their_end() {
        let role =
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
        let hello = r#"{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}"#;
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let length = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":1}}"#;
        for (events, expected) in [
            (&[role, hello, hello, stop, "[DONE]"][..], ("hellohello", Some(Ended::Whole))),
            (&[role, hello, length, usage, "[DONE]"], ("hello", Some(Ended::Cut))),
            (&[role, hello], ("hello", None)),
        ] {
            let (text, ended) = read_all(events).expect("a stream");
            assert_eq!((text.as_str(), ended), expected);
        }
    }

    #[test]
    fn errors_in_a_stream_are_readable() {
        for (event, part) in [
            (
                r#"{"error":{"message":"node lost","type":"x","param":null,"code":"node_error"}}"#,
                "(node_error): node lost",
            ),
            ("{", "can't be read"),
        ] {
            let error = read_all(&[event]).expect_err("an error").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
