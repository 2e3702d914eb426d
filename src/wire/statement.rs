//! What a node states of an attempt, and signs: its result, or that it stopped.
//!
//! A statement says everything but who: the keys of box and node are those of the connection, or of the receipt, and
//! are part of what is signed.

use serde::{Deserialize, Serialize};

use super::hash::{Hash, plain_hash};
use super::layout::Layout;
use super::text;
use super::text::Word as _;
use super::verify::Parties;
use crate::coordinator::event::{Environment, ErrorClass, FinishReason};
use crate::ids::{JobId, ModelName, ReservationId};

/// The tag of a signed result.
pub const RESULT_TAG: &str = "switchbox.v1.result";
/// The tag of a signed stop.
pub const STOPPED_TAG: &str = "switchbox.v1.stopped";

/// A node's result of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultStatement {
    /// In which world.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// Which job.
    #[serde(with = "text::shown")]
    pub job: JobId,
    /// Which attempt of it.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// The model that answered.
    #[serde(deserialize_with = "text::model")]
    pub model: ModelName,
    /// SHA-256 of what the node has under that name, if it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<Hash>,
    /// Which of the job's models it is: 0 is the one asked for, its fallbacks follow.
    pub model_index: u32,
    /// What was asked ([`super::request_hash`]).
    pub request_hash: Hash,
    /// What was answered ([`super::OutputHasher`]); of a failed attempt, what of it was sent.
    pub output_hash: Hash,
    /// Tokens of the prompt, as the node counts them.
    pub input_tokens: u32,
    /// Of those, found in its cache.
    pub cached_tokens: u32,
    /// Tokens generated, as the node counts them.
    pub output_tokens: u32,
    /// How it went.
    pub status: StatedStatus,
}

/// How an attempt went, as its node states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StatedStatus {
    /// The answer is whole.
    Succeeded {
        /// Why generation ended.
        #[serde(with = "text::word")]
        finish_reason: FinishReason,
    },
    /// There is none.
    Failed {
        /// What may be done about it.
        #[serde(with = "text::word")]
        class: ErrorClass,
        /// For the client: what was wrong. Its hash is signed.
        #[serde(deserialize_with = "text::text::<_, _, { super::ERROR_MESSAGE_BYTES_MAX }>")]
        message: String,
    },
}

/// A node's word that it stopped an attempt, with what it had done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedStatement {
    /// In which world.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// Which job.
    #[serde(with = "text::shown")]
    pub job: JobId,
    /// Which attempt of it.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// Tokens of the prompt; 0 when the node hadn't begun.
    pub input_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

/// Something that a node signs.
pub trait Statement {
    /// The bytes that are signed, between those two.
    fn layout(&self, parties: &Parties) -> Vec<u8>;
    /// Which attempt it is about.
    fn reservation(&self) -> ReservationId;
}

impl Statement for ResultStatement {
    fn layout(&self, parties: &Parties) -> Vec<u8> {
        let layout = attempt(RESULT_TAG, parties, self.environment, self.job, self.reservation)
            .text(&self.model)
            .maybe(self.model_digest.as_ref())
            .number(self.model_index.into())
            .bytes(&self.request_hash.0)
            .bytes(&self.output_hash.0)
            .number(self.input_tokens.into())
            .number(self.cached_tokens.into())
            .number(self.output_tokens.into());
        let layout = match &self.status {
            StatedStatus::Succeeded { finish_reason } => {
                layout.text("succeeded").text(finish_reason.word()).bytes(&[])
            }
            StatedStatus::Failed { class, message } => {
                layout.text("failed").text(class.word()).bytes(&plain_hash(message.as_bytes()).0)
            }
        };
        layout.finish()
    }

    fn reservation(&self) -> ReservationId {
        self.reservation
    }
}

impl Statement for StoppedStatement {
    fn layout(&self, parties: &Parties) -> Vec<u8> {
        attempt(STOPPED_TAG, parties, self.environment, self.job, self.reservation)
            .number(self.input_tokens.into())
            .number(self.output_tokens.into())
            .finish()
    }

    fn reservation(&self) -> ReservationId {
        self.reservation
    }
}

/// The fields that every statement on an attempt begins with.
fn attempt(
    tag: &str,
    parties: &Parties,
    environment: Environment,
    job: JobId,
    reservation: ReservationId,
) -> Layout {
    Layout::new(tag)
        .text(environment.word())
        .bytes(parties.box_key.bytes())
        .bytes(parties.node_key.bytes())
        .text(&job.to_string())
        .text(&reservation.to_string())
}
