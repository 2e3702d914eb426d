//! Answers with the words of the last user message, at once or one by one: for tests and measurements.
//!
//! A token is a word up to and with the space after it, cut into pieces of at most 32 bytes.

use std::time::Duration;

use super::{Attempt, INLINE_BODY_BYTES_MAX};
use crate::coordinator::event::{ErrorClass, FinishReason, JobError, Status};
use crate::node::{Bytes, SlotResult};
use crate::output::{AppendError, Chunk};
use crate::request::{Prompt, Request, Role};

/// Tokens that an echo takes.
pub(super) const CONTEXT_TOKENS: u32 = 8 << 20;
/// Tokens of a chunk where there is no delay between them.
const CHUNK_TOKENS: u32 = 16;
/// Bytes of a token at most.
const TOKEN_BYTES_MAX: usize = 32;

/// The echo runtime.
#[derive(Debug, Clone, Copy)]
pub struct Echo {
    delay: Duration,
}

impl Echo {
    /// An echo that waits so long before each token.
    pub fn new(delay: Duration) -> Self {
        Self { delay }
    }

    pub(super) fn start(self, attempt: Attempt) {
        let inline = self.delay.is_zero() && attempt.assignment.body.len() <= INLINE_BODY_BYTES_MAX;
        if inline {
            self.answer_at_once(attempt);
        } else {
            tokio::spawn(self.answer(attempt));
        }
    }

    /// Without a task of its own: this is what the latency harness measures.
    fn answer_at_once(self, attempt: Attempt) {
        let parsed = crate::request::parse(attempt.assignment.endpoint, &attempt.assignment.body);
        let mut answer = match parsed {
            Ok(request) => Answer::to(&request, attempt.assignment.output_tokens_max),
            Err(error) => return refuse(attempt, error.message),
        };
        let now_us = attempt.clock.now().0;
        let outcome = loop {
            match answer.write_next(&attempt, CHUNK_TOKENS, now_us) {
                Ok(More::Yes) => {}
                Ok(More::No) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        finish(attempt, &answer, outcome);
    }

    async fn answer(self, attempt: Attempt) {
        attempt.slot.accepted();
        let mut answer = match attempt.request().await {
            Ok(request) => Answer::to(&request, attempt.assignment.output_tokens_max),
            Err(error) => return refuse(attempt, error.message),
        };
        let outcome = loop {
            if !self.delay.is_zero() && !answer.is_whole() {
                tokio::select! {
                    () = tokio::time::sleep(self.delay) => {}
                    () = attempt.stop.told() => {}
                }
            }
            if attempt.stop.is_told() {
                break Ok(());
            }
            match answer.write_next(&attempt, 1, attempt.clock.now().0) {
                Ok(More::Yes) => {}
                Ok(More::No) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        finish(attempt, &answer, outcome);
    }
}

/// Tokens of a request's prompt.
pub(super) fn input_tokens(request: &Request) -> u32 {
    let count = |text: &str| Tokens { rest: text }.count();
    let tokens = match &request.prompt {
        Prompt::Text(text) => count(text),
        Prompt::Chat(messages) => messages.iter().map(|message| count(&message.content)).sum(),
    };
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// Tokens of a text that an echo could have said.
pub(super) fn output_tokens(text: &str) -> u32 {
    u32::try_from(Tokens { rest: text }.count()).unwrap_or(u32::MAX)
}

/// What an echo says, and how much of it is written.
struct Answer {
    text: String,
    /// Bytes of the text that are written.
    written_bytes: usize,
    written_tokens: u32,
    chunks: u32,
    tokens_max: u32,
}

/// Ends the process at the prompt in `SWITCHBOX_POISON`, as a bug of a real runtime could, for the torture rig.
#[cfg(feature = "mutants")]
fn poisoned(text: &str) {
    if std::env::var("SWITCHBOX_POISON").is_ok_and(|poison| poison == text) {
        std::process::abort();
    }
}

/// No prompt is poison to an echo.
#[cfg(not(feature = "mutants"))]
fn poisoned(_text: &str) {}

/// Whether there is more to write.
enum More {
    Yes,
    No,
}

impl Answer {
    fn to(request: &Request, tokens_max: u32) -> Self {
        let text = match &request.prompt {
            Prompt::Text(text) => text.as_str(),
            Prompt::Chat(messages) => {
                let said = messages.iter().rev().find(|message| message.role == Role::User);
                said.map_or("", |message| message.content.as_str())
            }
        };
        poisoned(text);
        let stop = request.stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
        let text = text[..stop.unwrap_or(text.len())].to_owned();
        Self { text, written_bytes: 0, written_tokens: 0, chunks: 0, tokens_max }
    }

    /// Writes the next chunk, of at most `tokens_max` tokens.
    fn write_next(&mut self, attempt: &Attempt, tokens_max: u32, now_us: u64) -> Result<More, AppendError> {
        let rest = &self.text[self.written_bytes..];
        let room = tokens_max.min(self.tokens_max - self.written_tokens);
        let (mut bytes, mut tokens) = (0, 0);
        for token in (Tokens { rest }).take(room as usize) {
            bytes += token.len();
            tokens += 1;
        }
        if tokens == 0 {
            return Ok(More::No);
        }
        attempt.output.append(self.chunks, Chunk::text(&rest[..bytes], tokens), now_us)?;
        self.chunks += 1;
        self.written_bytes += bytes;
        self.written_tokens += tokens;
        Ok(More::Yes)
    }

    fn is_whole(&self) -> bool {
        self.written_bytes == self.text.len() || self.written_tokens == self.tokens_max
    }

    fn reason(&self) -> FinishReason {
        if self.written_bytes == self.text.len() { FinishReason::Stop } else { FinishReason::Length }
    }
}

fn finish(attempt: Attempt, answer: &Answer, outcome: Result<(), AppendError>) {
    let input_tokens = attempt.assignment.input_tokens;
    let (output_tokens, chunks) = (answer.written_tokens, answer.chunks);
    let result = |status| SlotResult {
        status,
        input_tokens,
        cached_tokens: 0,
        output_tokens,
        chunks,
        bytes: Bytes::Any,
    };
    match outcome {
        Err(error @ (AppendError::TooLarge { .. } | AppendError::Gap { .. })) => {
            let status = Status::Failed(JobError { class: ErrorClass::Node, message: error.to_string() });
            attempt.slot.completed(result(status));
        }
        Ok(()) if answer.is_whole() => attempt.slot.completed(result(Status::Succeeded(answer.reason()))),
        Ok(()) | Err(AppendError::Closed) => attempt.slot.stopped(input_tokens, output_tokens),
    }
}

fn refuse(attempt: Attempt, message: String) {
    let status = Status::Failed(JobError { class: ErrorClass::Terminal, message });
    attempt.slot.completed(SlotResult::without_output(status));
}

/// Cuts a text into an echo's tokens.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        // Words are short: looking at each byte is cheaper than setting out to search.
        let window = &self.rest.as_bytes()[..self.rest.len().min(TOKEN_BYTES_MAX)];
        let end = match window.iter().position(|byte| *byte == b' ') {
            Some(space) => space + 1,
            None => self.rest.floor_char_boundary(window.len()),
        };
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_and_nothing_is_lost() {
        for (text, tokens) in [
            ("", vec![]),
            ("one two  three", vec!["one ", "two ", " ", "three"]),
            (" lead", vec![" ", "lead"]),
            ("äöü\u{1F600} x", vec!["äöü\u{1F600} ", "x"]),
        ] {
            assert_eq!(Tokens { rest: text }.collect::<Vec<_>>(), tokens, "{text:?}");
        }
        let long = "\u{1F600}".repeat(100);
        let tokens: Vec<_> = Tokens { rest: &long }.collect();
        assert!(tokens.iter().all(|token| token.len() <= TOKEN_BYTES_MAX));
        assert_eq!(tokens.concat(), long);
    }
}
