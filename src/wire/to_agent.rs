//! The messages of a box. Fields, units and bounds as in `docs/node-protocol.md`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::close::{CloseCode, Refusal};
use super::keys::{Nonce, PublicKey, Signature};
use super::text;
use super::to_box::Capability;
use super::version::Version;
use super::{Hash, REASON_BYTES_MAX};
use crate::coordinator::effect::Assignment;
use crate::coordinator::event::{Endpoint, Environment};
use crate::coordinator::standing;
use crate::ids::{JobId, ModelName, ReservationId};

/// Proves the box's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Challenge {
    /// What the box speaks.
    #[serde(with = "text::shown")]
    pub version: Version,
    /// What it can do beyond that.
    #[serde(default, deserialize_with = "text::list::<_, _, { super::CAPABILITIES_MAX }>")]
    pub capabilities: Vec<Capability>,
    /// The box's key: the agent compares it with the one that it knows.
    pub box_key: PublicKey,
    /// 32 random bytes, new for each connection.
    pub challenge: Nonce,
    /// Over [`super::handshake::box_proof`], by the box's key.
    pub signature: Signature,
}

/// The node's key is proven and registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admitted {
    /// The node's name at the box.
    #[serde(deserialize_with = "text::text::<_, _, 64>")]
    pub node: String,
    /// Numbers the node's connections.
    #[serde(deserialize_with = "text::number")]
    pub session: u64,
}

/// The answer to `ready`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// A heartbeat is due every so many milliseconds.
    #[serde(deserialize_with = "text::number")]
    pub heartbeat_interval_ms: u64,
    /// Without one for so many milliseconds the node is away.
    #[serde(deserialize_with = "text::number")]
    pub heartbeat_ttl_ms: u64,
    /// What the box's clock shows, in milliseconds since 1970: to be shown, never relied on.
    #[serde(deserialize_with = "text::number")]
    pub time_ms: u64,
    /// What becomes of each listed hold, in the order of the list.
    #[serde(default, deserialize_with = "text::list::<_, _, { super::HOLDS_MAX }>")]
    pub holds: Vec<Resume>,
}

/// What becomes of a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Which.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// What to do.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What an agent does with a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Go on: send the output from this chunk on, and then the result (again, if it was listed).
    Resume {
        /// The index of the first chunk that the box hasn't.
        from: u32,
    },
    /// Its output is whole and its result was taken: `result_accepted`, `result_unknown` or `result_refused` follows.
    Taken,
    /// Nothing waits for it. Stop, say `stopped`, and forget it.
    Unknown,
}

/// The client's raw body, byte for byte. Its `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(pub Arc<[u8]>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Arc<str>>::deserialize(deserializer)?;
        Ok(Self(text.into()))
    }
}

/// Run this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assign {
    /// The claim that fences it.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// Which job.
    #[serde(with = "text::shown")]
    pub job: JobId,
    /// In which world.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// What the client asked on.
    #[serde(with = "text::word")]
    pub endpoint: Endpoint,
    /// Which model.
    #[serde(deserialize_with = "text::model")]
    pub model: ModelName,
    /// Which of the job's models that is: 0 is the one asked for, its fallbacks follow.
    pub model_index: u32,
    /// The client's raw body.
    pub body: Body,
    /// Tokens of the prompt as the box counts them.
    pub input_tokens: u32,
    /// Most tokens to generate.
    pub output_tokens_max: u32,
}

impl From<&Assignment> for Assign {
    fn from(assignment: &Assignment) -> Self {
        Self {
            reservation: assignment.reservation,
            job: assignment.job,
            environment: assignment.environment,
            endpoint: assignment.endpoint,
            model: assignment.model.clone(),
            model_index: assignment.model_index,
            body: Body(Arc::clone(&assignment.body)),
            input_tokens: assignment.input_tokens,
            output_tokens_max: assignment.output_tokens_max,
        }
    }
}

/// Stop an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// Which.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
}

/// What became of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// Of which attempt.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
}

/// A result that the box doesn't believe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRefused {
    /// Of which attempt.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// What is wrong with it.
    #[serde(deserialize_with = "text::text::<_, _, REASON_BYTES_MAX>")]
    pub reason: String,
}

/// There is a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Of which environment.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// Its number: grows.
    #[serde(deserialize_with = "text::number")]
    pub version: u64,
    /// SHA-256 of its bytes.
    pub digest: Hash,
}

/// A configuration's text with the box's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotText {
    /// Of which environment.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// Its number.
    #[serde(deserialize_with = "text::number")]
    pub version: u64,
    /// The configuration itself: the digest is over these bytes.
    pub text: String,
    /// Over [`super::verify::snapshot_layout`], by the box's key.
    pub signature: Signature,
}

/// Where the node stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// In a word.
    #[serde(with = "text::word")]
    pub standing: standing::Standing,
    /// Why; may be empty.
    #[serde(deserialize_with = "text::text::<_, _, REASON_BYTES_MAX>")]
    pub cause: String,
}

/// What the node has earned in one environment, in micro-credits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earnings {
    /// Where.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// Its account's balance.
    pub balance_microcredits: i64,
}

/// A message that says all with its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Why a side closes the connection; the close frame follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goodbye {
    /// The code of the close frame.
    pub code: u16,
    /// What was wrong and what to do about it.
    #[serde(deserialize_with = "text::text::<_, _, REASON_BYTES_MAX>")]
    pub reason: String,
}

impl From<&Refusal> for Goodbye {
    fn from(refusal: &Refusal) -> Self {
        Self { code: refusal.code.code(), reason: refusal.reason.clone() }
    }
}

impl Goodbye {
    /// Its code, if this side knows it.
    pub fn known_code(&self) -> Option<CloseCode> {
        CloseCode::of(self.code)
    }
}
