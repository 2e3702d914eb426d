//! The messages of an agent. Fields, units and bounds as in `docs/node-protocol.md`.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::keys::{InviteToken, Nonce, PublicKey, Signature};
use super::statement::{ResultStatement, StoppedStatement};
use super::text;
use super::verify::Signed;
use super::version::Version;
use super::{CAPABILITY_BYTES_MAX, CHUNKS_MAX, HOLDS_MAX, Hash, MODELS_MAX, OutputHasher, REASON_BYTES_MAX};
use crate::coordinator::event::{Environment, Wish};
use crate::ids::{GpuClass, ModelName, ModelVersion, Region, ReservationId, RuntimeName};
use crate::output;

/// The name of something that a side can do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(#[serde(deserialize_with = "text::text::<_, _, CAPABILITY_BYTES_MAX>")] pub String);

/// The first message: who calls, and what the box is to prove itself with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// What the agent speaks.
    #[serde(with = "text::shown")]
    pub version: Version,
    /// What it can do beyond that.
    #[serde(default, deserialize_with = "text::list::<_, _, { super::CAPABILITIES_MAX }>")]
    pub capabilities: Vec<Capability>,
    /// The node's key.
    pub node_key: PublicKey,
    /// 32 random bytes, new for each connection.
    pub nonce: Nonce,
}

/// Proves the node's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authenticate {
    /// For which environments it wants to work: at least one.
    #[serde(with = "text::words")]
    pub environments: Vec<Environment>,
    /// Lets a key that the box doesn't know register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<InviteToken>,
    /// Over [`super::handshake::agent_proof`], by the node's key.
    pub signature: Signature,
}

/// What the node offers and holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// What it offers.
    pub offer: Offer,
    /// Configurations that it has.
    #[serde(default, deserialize_with = "text::list::<_, _, 2>")]
    pub configurations: Vec<ConfigurationHeld>,
    /// Attempts that it still runs, and results that it was not told are settled.
    #[serde(default, deserialize_with = "text::list::<_, _, HOLDS_MAX>")]
    pub holds: Vec<Hold>,
}

/// What a node offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// What it serves, each name once.
    #[serde(deserialize_with = "models")]
    pub models: Vec<OfferedModel>,
    /// Jobs that it runs at once, over all models.
    pub slots: u32,
    /// Tokens of KV cache that all its jobs share.
    #[serde(deserialize_with = "text::number")]
    pub kv_tokens: u64,
    /// Memory for models, in bytes.
    #[serde(deserialize_with = "text::number")]
    pub memory_bytes: u64,
    /// Its GPUs; none for a node that computes on its CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpus>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

/// Models, each name once.
fn models<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<OfferedModel>, D::Error> {
    let models: Vec<OfferedModel> = text::list::<_, _, MODELS_MAX>(from)?;
    let mut names: Vec<&str> = models.iter().map(|model| &*model.name).collect();
    names.sort_unstable();
    let twice = names.windows(2).any(|pair| pair[0] == pair[1]);
    if twice { Err(D::Error::custom("names a model twice")) } else { Ok(models) }
}

/// The GPUs of a node, all of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// Which kind.
    pub class: GpuClass,
    /// How many: 1 to `GPUS_MAX`.
    pub count: u32,
}

/// A model that a node serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfferedModel {
    /// The name that clients use.
    #[serde(deserialize_with = "text::model")]
    pub name: ModelName,
    /// Which version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<ModelVersion>,
    /// SHA-256 of what the node has under that name; an upstream server's is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Hash>,
    /// What computes it, to the byte; left out where the node can't promise that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// How many jobs of it run at once.
    pub slots: u32,
    /// Whether it is in memory.
    pub warm: bool,
    /// How long loading it takes, in milliseconds.
    #[serde(deserialize_with = "text::number")]
    pub load_ms: u64,
}

/// A configuration that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationHeld {
    /// Of which environment.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// SHA-256 of its bytes.
    pub digest: Hash,
}

/// An attempt that a node still runs, or whose result it still keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Which.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// On which model.
    #[serde(deserialize_with = "text::model")]
    pub model: ModelName,
    /// Tokens of its cache that it may take.
    #[serde(deserialize_with = "text::number")]
    pub kv_tokens: u64,
    /// Chunks of output that there are so far: the index of the next one.
    pub chunks: u32,
    /// Its result, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Signed<ResultStatement>>,
}

/// The node takes an assignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
}

/// The node refuses an assignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declined {
    /// Which.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// Why, in a word.
    pub cause: DeclineCause,
    /// Why, in a sentence, for the trace.
    #[serde(deserialize_with = "text::text::<_, _, REASON_BYTES_MAX>")]
    pub reason: String,
}

/// Why a node refuses. No decline uses up an attempt of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclineCause {
    /// It has no room just now.
    Busy,
    /// It hasn't the model, or not under that digest.
    Model,
    /// Its configuration doesn't allow it.
    Configuration,
    /// It is about to stop.
    Stopping,
    /// Anything else; also any word that the box doesn't know.
    #[serde(other)]
    Other,
}

/// A part of an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Of which attempt.
    #[serde(with = "text::shown")]
    pub reservation: ReservationId,
    /// The index of the first chunk: the attempt's first has 0, the others follow without a gap.
    pub index: u32,
    /// At least one.
    #[serde(deserialize_with = "text::list::<_, _, CHUNKS_MAX>")]
    pub chunks: Vec<Chunk>,
}

/// A piece of an output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedChunk")]
pub struct Chunk {
    /// What its text is.
    #[serde(default, skip_serializing_if = "ChunkKind::is_text")]
    pub kind: ChunkKind,
    /// Generated text, or a JSON chunk ([`crate::choice`]).
    pub text: Arc<str>,
    /// Generated tokens that it covers.
    pub tokens: u32,
}

/// A chunk as it came.
#[derive(Deserialize)]
struct UncheckedChunk {
    #[serde(default)]
    kind: ChunkKind,
    text: Arc<str>,
    tokens: u32,
}

impl TryFrom<UncheckedChunk> for Chunk {
    type Error = crate::choice::NotAChunk;
    fn try_from(chunk: UncheckedChunk) -> Result<Self, Self::Error> {
        let UncheckedChunk { kind, text, tokens } = chunk;
        match kind {
            ChunkKind::Text => {}
            ChunkKind::Json => crate::choice::check(&text)?,
        }
        Ok(Self { kind, text, tokens })
    }
}

impl From<output::Chunk> for Chunk {
    fn from(chunk: output::Chunk) -> Self {
        let output::Chunk { kind, text, tokens } = chunk;
        let kind = match kind {
            output::ChunkKind::Text => ChunkKind::Text,
            output::ChunkKind::Json => ChunkKind::Json,
        };
        Self { kind, text, tokens }
    }
}

impl From<Chunk> for output::Chunk {
    fn from(chunk: Chunk) -> Self {
        let Chunk { kind, text, tokens } = chunk;
        let kind = match kind {
            ChunkKind::Text => output::ChunkKind::Text,
            ChunkKind::Json => output::ChunkKind::Json,
        };
        Self { kind, text, tokens }
    }
}

impl Chunk {
    /// Adds it to the hash of its output.
    pub fn add_to(&self, hasher: &mut OutputHasher) {
        match self.kind {
            ChunkKind::Text => hasher.text(&self.text),
            ChunkKind::Json => hasher.json(&self.text),
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({:?}, {} bytes, {} tokens)", self.kind, self.text.len(), self.tokens)
    }
}

/// What the text of a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkKind {
    /// Generated text.
    #[default]
    Text,
    /// A JSON object: the `delta` of OpenAI's API, with what isn't plain text (reasoning, tool calls).
    Json,
}

impl ChunkKind {
    fn is_text(&self) -> bool {
        *self == ChunkKind::Text
    }
}

/// The signed result of an attempt. It implies `accepted`, and comes after all of the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// Chunks of its output.
    pub chunks: u32,
    /// What the node states.
    pub statement: ResultStatement,
    /// Over the statement's layout, by the node's key.
    pub signature: Signature,
}

impl Completed {
    /// The statement with its signature, to be checked.
    pub fn signed(self) -> Signed<ResultStatement> {
        Signed { statement: self.statement, signature: self.signature }
    }
}

/// The signed word that an attempt was stopped.
pub type Stopped = Signed<StoppedStatement>;

/// The node is still here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Models that are in its memory now.
    #[serde(default, deserialize_with = "text::list::<_, _, MODELS_MAX>")]
    pub warm: Vec<Named>,
    /// Jobs that it runs now, over all models; those that others than the box gave it too.
    pub running: u32,
}

/// A model's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Named(#[serde(deserialize_with = "text::model")] pub ModelName);

/// The node's owner asks for something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wished {
    /// What.
    #[serde(with = "text::word")]
    pub wish: Wish,
}

/// The node wants a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// Of which environment.
    #[serde(with = "text::word")]
    pub environment: Environment,
    /// Which: as `configuration` named it.
    pub digest: Hash,
}
