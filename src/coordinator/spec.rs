//! What a job asks for: the part of a job that never changes once it was accepted.

use std::sync::{Arc, LazyLock};

use super::limits::BYTES_PER_TOKEN_MAX;
use super::rare::{Rare, Usual};
use super::standing::Trust;
use crate::ids::{
    Digest, GpuClass, IdempotencyKey, JobId, ModelName, ModelVersion, Namespace, NodeId, Region, SubcloudName,
};
use crate::time::{Span, Time};

/// Node names that a job may list, allowed and denied together.
pub const CONSTRAINT_NODES_MAX: usize = 64;
/// Models that a job may fall back to.
pub const FALLBACKS_MAX: usize = 4;
/// Pairs of metadata, as in OpenAI's API.
pub const METADATA_PAIRS_MAX: usize = 16;
/// Bytes of all metadata of a job.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;

/// Which world a job belongs to; nothing of one ever meets the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Environment {
    /// The default everywhere.
    #[default]
    Mainnet,
    /// For trying things out.
    Testnet,
}

impl Environment {
    /// Both.
    pub const ALL: [Environment; 2] = [Environment::Mainnet, Environment::Testnet];

    /// The word that configurations, the API and logs use.
    pub fn word(self) -> &'static str {
        match self {
            Environment::Mainnet => "mainnet",
            Environment::Testnet => "testnet",
        }
    }
}

/// What the client asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
}

impl Endpoint {
    /// The path as clients write it.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
        }
    }
}

/// How the client waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One answer on the open connection.
    Sync,
    /// Tokens on the open connection as they come.
    Stream,
    /// No connection: the client asks later.
    Polling,
    /// One of many, without hurry.
    Batch,
}

impl Mode {
    /// Whether a client waits on a connection.
    pub fn is_attended(self) -> bool {
        matches!(self, Mode::Sync | Mode::Stream)
    }
}

/// Priority, highest first (`Realtime` orders before `Standard`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Before everything else.
    Realtime,
    /// What a request is unless it says otherwise.
    Standard,
    /// Fills idle capacity; competes in `Standard` once it has aged.
    Batch,
    /// The system's own test and validation jobs.
    Background,
}

impl Tier {
    /// All, highest first.
    pub const ALL: [Tier; 4] = [Tier::Realtime, Tier::Standard, Tier::Batch, Tier::Background];

    /// The word that configurations, the API and logs use.
    pub fn word(self) -> &'static str {
        match self {
            Tier::Realtime => "realtime",
            Tier::Standard => "standard",
            Tier::Batch => "batch",
            Tier::Background => "background",
        }
    }
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// Who pays.
    pub namespace: Namespace,
    /// In which world.
    pub environment: Environment,
    /// What was asked on.
    pub endpoint: Endpoint,
    /// Which model.
    pub model: ModelName,
    /// How the client waits.
    pub mode: Mode,
    /// Priority.
    pub tier: Tier,
    /// How long the job may wait before it is dispatched.
    pub ttl: Span,
    /// Not dispatched before this.
    pub not_before: Rare<Option<Time>>,
    /// Tokens of the prompt as the box counts them under the model's template.
    pub input_tokens: u32,
    /// How well that is known.
    pub input_count: InputCount,
    /// Most tokens that may be generated.
    pub output_tokens_max: u32,
    /// Messages of the prompt; 1 where the endpoint has none.
    pub messages: u32,
    /// Bytes of output that its budget counts for each token: more than [`BYTES_PER_TOKEN_MAX`] where an answer may be
    /// more than text (calls of tools, probabilities).
    pub bytes_per_token: u32,
    /// Where it may run.
    pub constraints: Rare<Constraints>,
    /// Which models may stand in.
    pub fallbacks: Rare<Fallbacks>,
    /// Ties repeats of the same request to one job.
    pub key: Rare<Option<Keyed>>,
    /// The client's own pairs, given back as they came.
    pub metadata: Rare<Vec<(String, String)>>,
    /// Hash of the beginning of the prompt: jobs that share it may find it in a node's cache.
    pub prefix: Rare<Option<u64>>,
    /// Whether the same request gives the same answer.
    pub determinism: Determinism,
    /// Whether prompt and answer may stay when the client has its answer.
    pub storing: Storing,
}

impl JobSpec {
    /// An ordinary request: sync, standard, without constraints, waiting for at most ten minutes.
    pub fn plain(namespace: Namespace, endpoint: Endpoint, model: ModelName) -> Self {
        Self {
            namespace,
            environment: Environment::Mainnet,
            endpoint,
            model,
            mode: Mode::Sync,
            tier: Tier::Standard,
            ttl: Span::from_secs(600),
            not_before: Rare::default(),
            input_tokens: 0,
            input_count: InputCount::Exact,
            output_tokens_max: 1,
            messages: 1,
            bytes_per_token: BYTES_PER_TOKEN_MAX,
            constraints: Rare::default(),
            fallbacks: Rare::default(),
            key: Rare::default(),
            metadata: Rare::default(),
            prefix: Rare::default(),
            determinism: Determinism::Sampled,
            storing: Storing::Allowed,
        }
    }

    /// The model of that index: 0 is the one asked for, its fallbacks follow.
    pub fn model_at(&self, index: u32) -> &ModelName {
        match index.checked_sub(1) {
            None => &self.model,
            Some(fallback) => &self.fallbacks.models[fallback as usize],
        }
    }

    /// Bytes that so many tokens of its answer may have.
    pub fn bytes_of(&self, output_tokens: u32) -> u64 {
        u64::from(output_tokens) * u64::from(self.bytes_per_token)
    }

    /// Whether the job lives and dies with its client's connection.
    pub fn is_tied_to_client(&self) -> bool {
        self.mode.is_attended() && self.key.is_none()
    }
}

/// Where a job may run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constraints {
    /// Only this version of the model that was asked for; `None` takes any.
    pub version: Option<ModelVersion>,
    /// Only on a GPU of this class.
    pub gpu: Option<GpuClass>,
    /// Only on nodes with at least this much memory for models, in bytes.
    pub memory_bytes_min: u64,
    /// Only there.
    pub region: Option<Region>,
    /// Only on this group of nodes, and under its policy.
    pub subcloud: Option<SubcloudName>,
    /// Only on these nodes; empty allows all.
    pub allow: Vec<NodeId>,
    /// Never on these.
    pub deny: Vec<NodeId>,
    /// Least trust; `None` takes the namespace's.
    pub trust: Option<Trust>,
}

impl Constraints {
    /// These, with at least that much trust where they say nothing of it. Those that want nothing else are shared:
    /// nearly all jobs' are.
    pub(super) fn trusting(mut constraints: Rare<Self>, trust: Trust) -> Rare<Self> {
        static PLAIN: LazyLock<[Rare<Constraints>; 3]> = LazyLock::new(|| {
            let plain = |trust| Constraints { trust: Some(trust), ..Constraints::default() }.into();
            [Trust::Open, Trust::Approved, Trust::Own].map(plain)
        });
        if constraints == Rare::default() {
            return PLAIN[trust as usize].clone();
        }
        constraints.trust.get_or_insert(trust);
        constraints
    }
}

impl Usual for Constraints {
    fn usual() -> &'static Self {
        static USUAL: LazyLock<Constraints> = LazyLock::new(Constraints::default);
        &USUAL
    }
}

/// Models that stand in for the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fallbacks {
    /// In this order.
    pub models: Vec<ModelName>,
    /// After so many failed attempts on a model the next is used; 0 leaves it to the server's default.
    pub after_failures: u32,
}

impl Usual for Fallbacks {
    fn usual() -> &'static Self {
        static USUAL: LazyLock<Fallbacks> = LazyLock::new(Fallbacks::default);
        &USUAL
    }
}

/// An idempotency key with what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyed {
    /// SHA-256 over namespace, endpoint and the client's key.
    pub key: IdempotencyKey,
    /// SHA-256 of the raw body: the same key with another body is a mistake.
    pub body: Digest,
}

impl Usual for Vec<(String, String)> {
    fn usual() -> &'static Self {
        static USUAL: Vec<(String, String)> = Vec::new();
        &USUAL
    }
}

impl Usual for Option<Time> {
    fn usual() -> &'static Self {
        &None
    }
}

impl Usual for Option<u64> {
    fn usual() -> &'static Self {
        &None
    }
}

impl Usual for Option<Keyed> {
    fn usual() -> &'static Self {
        &None
    }
}

/// How well the tokens of a prompt are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputCount {
    /// The box counted them under the model's template.
    Exact,
    /// It has no template for the model: bytes of the body, and 16 for each message.
    AtMost,
}

/// Whether the same request gives the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Determinism {
    /// It does (temperature zero).
    Exact,
    /// It draws.
    Sampled,
}

/// Whether what was asked and answered may stay when the client has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storing {
    /// It may.
    Allowed,
    /// The client said `"store": false`.
    Forbidden,
}

/// Where a job comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A client's request.
    Client,
    /// An operator requeued a dead letter.
    Requeued {
        /// Which.
        from: JobId,
    },
    /// The system looks whether a node can do it.
    Test {
        /// Which node.
        node: NodeId,
    },
    /// The system asks what it knows the answer to; the template's name.
    Blind {
        /// Which template.
        template: Arc<str>,
    },
    /// A real job repeated on a second node.
    Validation {
        /// Of which job.
        of: JobId,
    },
}

impl Usual for Origin {
    fn usual() -> &'static Self {
        &Origin::Client
    }
}

impl Origin {
    /// Whether the system itself asked, and pays.
    pub fn is_system(&self) -> bool {
        matches!(self, Origin::Test { .. } | Origin::Blind { .. } | Origin::Validation { .. })
    }
}
