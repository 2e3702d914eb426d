//! Whether a node does honest work: blind and validation jobs, plausibility, and token counts that can be believed.
//!
//! Everything here judges; nothing here punishes (`standing` does) or moves credits (the ledger does). And nothing here
//! may make a blind job distinguishable: it is an ordinary submission of the operator's integrity account, so its id
//! comes from the same counter, it has the price, tier, mode, deadlines and retries of a real job, waits in the same
//! queue, and settles the same way. An assignment names no namespace, so who pays shows nowhere.

mod counting;
mod judge;
mod templates;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::ids::{JobId, Namespace};
use crate::time::Time;

pub use self::counting::{Seen, TEMPLATE_TOKENS_PER_MESSAGE, billed_input, billed_output};
pub use self::judge::{
    Gravity, Implausible, Judgement, Plausibility, ResultFacts, Sampling, judge_blind, judge_validation,
    plausible,
};
pub use self::templates::{
    Expect, Refused, TEMPLATE_BODY_BYTES_MAX, TEMPLATE_DIGESTS_MAX, TEMPLATE_NAME_BYTES_MAX,
    TEMPLATE_POOL_BYTES_MAX, TEMPLATES_MAX, Template, Templates,
};

/// Bytes of the note that comes with feedback.
pub const FEEDBACK_NOTE_BYTES_MAX: usize = 1_024;

/// SHA-256 over the bytes of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputDigest(pub [u8; 32]);

/// What a client thinks of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opinion {
    /// It was good.
    Good,
    /// It was bad.
    Bad,
    /// Someone should look at it.
    Flag,
}

/// A client's word on a job. It is kept and shown, and moves nothing by itself: otherwise a client could ruin a node,
/// or a node's owner praise it, with words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// On which job.
    pub job: JobId,
    /// Whose word it is.
    pub namespace: Namespace,
    /// What it thinks.
    pub opinion: Opinion,
    /// In its own words; may be empty.
    pub note: Note,
    /// When it was given.
    pub at: Time,
}

/// A note of at most [`FEEDBACK_NOTE_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(Arc<str>);

impl Note {
    /// Refuses a note that is too long rather than cut what somebody wrote.
    pub fn new(text: &str) -> Result<Self, NoteTooLong> {
        let bytes = text.len();
        if bytes > FEEDBACK_NOTE_BYTES_MAX { Err(NoteTooLong { bytes }) } else { Ok(Self(text.into())) }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A note is longer than [`FEEDBACK_NOTE_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteTooLong {
    /// So long, in bytes.
    pub bytes: usize,
}

impl fmt::Display for NoteTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the note has {} bytes: shorten it to at most {FEEDBACK_NOTE_BYTES_MAX}", self.bytes)
    }
}
