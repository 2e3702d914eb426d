//! An answer that is given whole, made piece by piece: text goes straight into the answer's bytes, and what JSON chunks
//! say beside it is merged and written behind it.

use super::render::Shown;
use crate::api::json;
use crate::choice::Merged;
use crate::coordinator::effect::Usage;
use crate::coordinator::event::{Endpoint, FinishReason};
use crate::ids::JobId;
use crate::output::ChunkKind;

/// A whole answer that isn't ended yet.
pub(in crate::api) struct Whole<'s> {
    shown: &'s Shown,
    out: Vec<u8>,
    /// Where its text begins.
    text_at: usize,
    /// What came beside the text, if anything did.
    beside: Option<Box<Merged>>,
}

impl<'s> Whole<'s> {
    /// The answer of a job, without text yet.
    pub(in crate::api) fn begin(shown: &'s Shown, job: JobId) -> Self {
        let out = shown.begin_whole(job);
        let text_at = out.len();
        Self { shown, out, text_at, beside: None }
    }

    /// Adds a piece.
    pub(in crate::api) fn add(&mut self, kind: ChunkKind, text: &str) {
        match kind {
            ChunkKind::Text => json::escaped(&mut self.out, text),
            ChunkKind::Json => self.beside.get_or_insert_default().add(text, &mut self.out),
        }
    }

    /// The answer.
    pub(in crate::api) fn end(self, reason: FinishReason, usage: Usage) -> Vec<u8> {
        let Self { shown, mut out, text_at, beside } = self;
        match beside {
            None => out.extend_from_slice(shown.shape().whole_after_text.as_bytes()),
            Some(mut beside) => {
                if out.len() == text_at && beside.calls_tools() {
                    // Who calls a tool and says nothing has null for a text.
                    out.truncate(text_at - 1);
                    out.extend_from_slice(b"null");
                } else {
                    out.push(b'"');
                }
                write_beside(shown.endpoint, &mut beside, &mut out);
            }
        }
        shown.end_whole(&mut out, reason, usage);
        out
    }
}

/// From behind the text to before the finish reason.
fn write_beside(endpoint: Endpoint, beside: &mut Merged, out: &mut Vec<u8>) {
    if endpoint == Endpoint::ChatCompletions {
        for (name, otherwise) in [("refusal", "null"), ("annotations", "[]")] {
            write_name(name, out);
            if !beside.write_message_member(name, out) {
                out.extend_from_slice(otherwise.as_bytes());
            }
        }
        beside.write_message_rest(out);
        out.push(b'}');
    }
    write_name("logprobs", out);
    if !beside.write_choice_member("logprobs", out) {
        out.extend_from_slice(b"null");
    }
    beside.write_choice_rest(out);
    write_name("finish_reason", out);
}

/// A comma and a member's name.
fn write_name(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    json::string(out, name);
    out.push(b':');
}
