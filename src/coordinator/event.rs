//! Everything that can happen to the core. A closed list: to see what triggers a decision, read `Event`.
//!
//! Events are values that were parsed and verified at the edge; nothing here is text from outside that
//! still needs checking, and nothing here knows sockets.

mod local;
mod verified;

use std::sync::Arc;

use super::command::Operation;
use super::effect::Refusal;
use super::integrity::OutputDigest;
use super::job::JobRow;
use crate::ids::{
    ClientId, Digest, JobId, ModelName, ModelVersion, Namespace, NodeId, ReservationId, RuntimeName, Session,
};
use crate::time::{Span, Time};

pub use self::local::{Progress, Revoked, StoreRoom};
pub use self::verified::Verified;
pub use super::hello::{Equipment, Held, NodeHello};
pub use super::outcome::{ErrorClass, FinishReason, JobError, Status};
pub use super::question::{Ask, Question};
pub use super::spec::{
    Constraints, Determinism, Endpoint, Environment, Fallbacks, InputCount, JobSpec, Keyed, Mode, Origin,
    Storing, Tier,
};

/// One thing that happened, with everything that the core needs to decide on it.
#[derive(Debug)]
pub enum Event {
    /// A client asks for an inference, and is answered in its outbox.
    Submit(ClientId, Box<Submission>),
    /// A request's client is through with its job, or went away from it.
    ClientGone(ClientGone),
    /// A client or operator cancels a job by name.
    Cancel(Cancel),
    /// An operator or reader asks something.
    Ask(Ask),
    /// A client says what it thinks of an answer.
    Feedback(Feedback),
    /// A dead letter, read back from the store, is to be tried again as a new job.
    Requeue(Requeue),
    /// An operator (or the owner of a subcloud) changes something.
    Operate(Box<Operation>),
    /// A node joined, with what it can do and what it still holds.
    NodeConnected(Box<NodeHello>),
    /// A node's connection ended.
    NodeGone(NodeGone),
    /// A node is still here.
    Heartbeat(Heartbeat),
    /// What a node serves isn't what it was.
    Offers(Box<Offers>),
    /// A node's owner asks for something.
    NodeWish(NodeWish),
    /// A node signed something wrongly; counts against it.
    BadSignature(NodeId),
    /// What a node says of an attempt isn't believed: the attempt has failed by its fault.
    Discredited(Discredited),
    /// A node took an assignment and began.
    Accepted(NodeId, ReservationId),
    /// A node refused an assignment.
    Declined(Declined),
    /// A node finished an attempt, well or not.
    Completed(Verified<Completion>),
    /// A node stopped an attempt because it was told to, or hands it back.
    Stopped(Verified<Stopped>),
    /// Local: an output was closed; what it held and what had been taken from it, exactly.
    Revoked(Revoked),
    /// Local: what `CheckProgress` found.
    Progress(Progress),
    /// Local: an assignment was taken back before the node saw it.
    Undeliverable(ReservationId),
    /// Whether the way to the disk has room for the rows of new attempts, when that changed.
    StoreRoom(StoreRoom),
    /// Ten milliseconds passed; drives every timer.
    Tick,
}

/// When what ends an unkeyed sync or stream job may leave. Everything else waits for its commit either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After its commit; and a stream's first byte after the commit of the job's acceptance.
    Strict,
    /// At once.
    Relaxed,
}

/// A parsed, authenticated, counted request.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// What is asked for.
    pub spec: JobSpec,
    /// The client's raw body, byte for byte.
    pub body: Arc<[u8]>,
    /// Why no new work is let in, if none is: then it may only be the repeat, by its key, of a job that is there.
    pub closed: Option<Refusal>,
}

impl Submission {
    /// One that may become a job.
    pub fn new(spec: JobSpec, body: Arc<[u8]>) -> Self {
        Self { spec, body, closed: None }
    }

    /// Who asks.
    pub fn tenant(&self) -> Tenant {
        Tenant { namespace: self.spec.namespace.clone(), environment: self.spec.environment }
    }
}

/// A request's client left its outbox. Pushed exactly once for every request that was submitted.
#[derive(Debug, Clone, Copy)]
pub struct ClientGone {
    /// Whose outbox it was.
    pub client: ClientId,
    /// Whether it had everything that it wanted.
    pub departure: Departure,
}

/// How a client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It has everything that it wanted: a refusal, an error, or something that isn't an answer.
    Served,
    /// It took the whole answer of that job.
    Took(JobId),
    /// It went away before that.
    Abandoned,
}

/// A cancel by name.
#[derive(Debug, Clone)]
pub struct Cancel {
    /// Where to answer.
    pub client: ClientId,
    /// Whose job it must be; `None` for the operator, who may cancel anyone's.
    pub tenant: Option<Tenant>,
    /// Which job.
    pub job: JobId,
}

/// Who asks with a client's key: a namespace in one environment. Another's jobs are none to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The namespace.
    pub namespace: Namespace,
    /// Where.
    pub environment: Environment,
}

/// What a client thinks of an answer: kept and shown, moves nothing. Who sends it has found the job in the store, and
/// that it is the namespace's (the core knows live jobs only, and checks those).
#[derive(Debug, Clone)]
pub struct Feedback {
    /// Where to answer.
    pub client: ClientId,
    /// Whose job it is.
    pub namespace: Namespace,
    /// Which job.
    pub job: JobId,
    /// What it thinks.
    pub opinion: super::integrity::Opinion,
    /// In its own words; may be empty.
    pub note: super::integrity::Note,
}

/// A dead letter to try again, as a new job that names it.
#[derive(Debug, Clone)]
pub struct Requeue {
    /// Where to answer.
    pub client: ClientId,
    /// Its row, as the store has it.
    pub row: Box<JobRow>,
}

impl ModelOffer {
    /// A model that is in memory, of no particular version.
    pub fn warm(model: ModelName, slots: u32) -> Self {
        let (version, digest, runtime, load) = (None, None, None, Span::default());
        Self { model, version, digest, runtime, slots, warmth: Warmth::Warm, load }
    }
}

/// A model that a node serves.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOffer {
    /// The name that clients use.
    pub model: ModelName,
    /// Which version.
    pub version: Option<ModelVersion>,
    /// SHA-256 of what it has under that name.
    pub digest: Option<Digest>,
    /// What computes it, to the byte: nodes that have the same bytes under that name and the same runtime give the same
    /// answer to a request that allows only one. `None` from who can't promise that.
    pub runtime: Option<RuntimeName>,
    /// How many jobs of it run at once.
    pub slots: u32,
    /// Whether it is in memory.
    pub warmth: Warmth,
    /// How long loading it takes.
    pub load: Span,
}

/// Whether a model is in a node's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    /// It is.
    Warm,
    /// It must be loaded first.
    Cold,
}

/// A node's connection ended.
#[derive(Debug, Clone)]
pub struct NodeGone {
    /// Who.
    pub node: NodeId,
    /// Which connection.
    pub session: Session,
    /// Assignments that were never sent.
    pub undelivered: Vec<ReservationId>,
}

/// A node is still here.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Who.
    pub node: NodeId,
    /// On which connection.
    pub session: Session,
    /// Models that are in its memory now.
    pub warm: Vec<ModelName>,
}

/// What a node serves now, all of it, on the connection that it has: what runs goes on.
#[derive(Debug, Clone)]
pub struct Offers {
    /// Who.
    pub node: NodeId,
    /// On which connection.
    pub session: Session,
    /// What it serves. A model that it knows and can't run now has no slots.
    pub models: Vec<ModelOffer>,
    /// What it has for its jobs; `None` if that is as it was.
    pub equipment: Option<Equipment>,
}

/// What a node's owner asks for.
#[derive(Debug, Clone)]
pub struct NodeWish {
    /// Whose node.
    pub node: NodeId,
    /// On which connection.
    pub session: Session,
    /// What.
    pub wish: Wish,
}

/// The things that a node's owner may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// No new work.
    Pause,
    /// New work again.
    Resume,
    /// No new work; the node leaves when it is through.
    Drain,
}

/// A node's refusal of an assignment.
#[derive(Debug, Clone)]
pub struct Declined {
    /// Who.
    pub node: NodeId,
    /// What it refused.
    pub reservation: ReservationId,
    /// Why, for the trace.
    pub reason: String,
}

/// An attempt whose output or result contradicts what was assigned, or itself.
#[derive(Debug, Clone)]
pub struct Discredited {
    /// Whose words.
    pub node: NodeId,
    /// On which reservation.
    pub reservation: ReservationId,
    /// What is wrong with them, for the trace.
    pub reason: String,
}

/// A node's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Who.
    pub node: NodeId,
    /// Of which reservation.
    pub reservation: ReservationId,
    /// How it went.
    pub status: Status,
    /// Tokens of the prompt, as the node counts them.
    pub input_tokens: u32,
    /// Of those, found in its cache.
    pub cached_tokens: u32,
    /// Tokens generated, as the node counts them.
    pub output_tokens: u32,
    /// SHA-256 over the output; `None` from the box itself, which has no need to sign.
    pub digest: Option<OutputDigest>,
    /// What the box saw of it.
    pub seen: Seen,
    /// What proves it to others: the node's words and signature, opaque here and at most [`PROOF_BYTES_MAX`] bytes.
    /// Kept as long as the job; `None` from the box itself.
    pub proof: Option<Arc<[u8]>>,
}

/// Bytes of what proves a result.
pub const PROOF_BYTES_MAX: usize = 1_024;

/// What the box itself saw of an attempt's output, at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Chunks that the output holds.
    pub chunks: u32,
    /// Bytes that the output holds.
    pub bytes: u64,
    /// Tokens as the box counts them; `None` where it has no tokenizer for the model.
    pub tokens: Option<u32>,
    /// When the first chunk came.
    pub first_at: Option<Time>,
    /// When the last chunk came.
    pub last_at: Option<Time>,
}

/// A node's word that it stopped, with what it had done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Who.
    pub node: NodeId,
    /// Of which reservation.
    pub reservation: ReservationId,
    /// Tokens of the prompt; 0 when the node hadn't begun.
    pub input_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}
