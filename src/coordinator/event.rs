//! Everything that can happen to the core. A closed list: to see what triggers a decision, read `Event`.
//!
//! Events are values that were parsed and verified at the edge; nothing here is text from outside that
//! still needs checking, and nothing here knows sockets.

use std::sync::Arc;

use crate::ids::{ClientId, JobId, ModelName, Namespace, NodeId, ReservationId};
use crate::time::{Span, Time};

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
    /// A node joined, with what it can do.
    NodeConnected(Box<NodeHello>),
    /// A node took an assignment and began.
    Accepted(ReservationId),
    /// A node refused an assignment.
    Declined(Declined),
    /// A node finished an attempt, well or not.
    Completed(Verified<Completion>),
    /// A node stopped an attempt because it was told to.
    Stopped(Verified<Stopped>),
    /// Local: an output was closed; what it held and what had been taken from it, exactly.
    Revoked(Revoked),
    /// Local: what `CheckProgress` found.
    Progress(Progress),
    /// Local: an assignment was taken back before the node saw it.
    Undeliverable(ReservationId),
    /// Ten milliseconds passed; drives every timer.
    Tick,
}

/// A statement of a node whose origin is proven. Only `wire::verify` (remote nodes) and
/// [`Verified::local`] (the box's own node, which needs no signature) make one.
#[derive(Debug, Clone)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// A statement of the box's own node: it came over a channel of this process.
    pub fn local(statement: T) -> Self {
        Self(statement)
    }

    /// The statement itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// When what ends an unkeyed sync or stream job may leave. Everything else waits for its commit either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After its commit; and a stream's first byte after the commit of the job's acceptance.
    Strict,
    /// At once.
    Relaxed,
}

/// Which world a job belongs to; nothing of one ever meets the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Environment {
    /// The default everywhere.
    #[default]
    Mainnet,
    /// For trying things out.
    Testnet,
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
    /// Whether the job lives and dies with its client's connection.
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
    /// Fills idle capacity.
    Batch,
    /// The system's own test and validation jobs.
    Background,
}

impl Tier {
    /// All, highest first.
    pub const ALL: [Tier; 4] = [Tier::Realtime, Tier::Standard, Tier::Batch, Tier::Background];
}

/// A parsed, authenticated, counted request.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who pays.
    pub namespace: Namespace,
    /// In which world.
    pub environment: Environment,
    /// What was asked on.
    pub endpoint: Endpoint,
    /// Which model.
    pub model: ModelName,
    /// The client's raw body, byte for byte.
    pub body: Arc<[u8]>,
    /// How the client waits.
    pub mode: Mode,
    /// Priority.
    pub tier: Tier,
    /// How long the job may wait before it is dispatched.
    pub ttl: Span,
    /// Tokens of the prompt under the model's template.
    pub input_tokens: u32,
    /// Most tokens that may be generated.
    pub output_tokens_max: u32,
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
    /// It took its whole answer (or its refusal).
    Served,
    /// It went away before that.
    Abandoned,
}

/// A cancel by name.
#[derive(Debug, Clone)]
pub struct Cancel {
    /// Where to answer.
    pub client: ClientId,
    /// Whose job it must be; `None` for the operator, who may cancel anyone's.
    pub namespace: Option<Namespace>,
    /// Which job.
    pub job: JobId,
}

/// A question to the core, answered to `client` by [`super::effect::Answer`].
#[derive(Debug, Clone)]
pub struct Ask {
    /// Where to answer.
    pub client: ClientId,
    /// What is asked.
    pub question: Question,
}

/// What can be asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// Every gauge and counter.
    Counts,
    /// A full recount of everything, compared with the kept counters.
    Invariants,
    /// All nodes with capacity and load.
    Nodes,
    /// What waits, per model and tier.
    Queue,
    /// The decisions on one job, with times and reasons.
    Trace(JobId),
    /// Take no more work from clients.
    Drain,
    /// End every live job now: the server stops.
    CancelAll,
}

/// What a node brings when it joins.
#[derive(Debug, Clone)]
pub struct NodeHello {
    /// Who it is.
    pub node: NodeId,
    /// What it serves.
    pub models: Vec<ModelOffer>,
}

/// A model that a node serves.
#[derive(Debug, Clone)]
pub struct ModelOffer {
    /// The name that clients use.
    pub model: ModelName,
    /// How many jobs of it run at once.
    pub slots: u32,
}

/// A node's refusal of an assignment.
#[derive(Debug, Clone)]
pub struct Declined {
    /// What it refused.
    pub reservation: ReservationId,
    /// Why, for the trace.
    pub reason: String,
}

/// A node's result.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Of which reservation.
    pub reservation: ReservationId,
    /// How it went.
    pub status: Status,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// Chunks that the output holds.
    pub chunks: u32,
    /// Bytes that the output holds.
    pub output_bytes: u64,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The answer is whole.
    Succeeded(FinishReason),
    /// There is none.
    Failed(JobError),
}

/// Why generation ended, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended, or a stop string came.
    Stop,
    /// The most tokens allowed were generated.
    Length,
}

/// Why an attempt or a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// What may be done about it.
    pub class: ErrorClass,
    /// For the client: what was wrong.
    pub message: String,
}

/// What a failure says about trying again (SPEC section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request is wrong: never retried.
    Terminal,
    /// The node is at fault: retried elsewhere.
    Node,
    /// It may go better later: retried with backoff.
    Transient,
}

/// A node's word that it stopped, with what it had done.
#[derive(Debug, Clone, Copy)]
pub struct Stopped {
    /// Of which reservation.
    pub reservation: ReservationId,
    /// Tokens of the prompt; 0 when the node hadn't begun.
    pub input_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

/// What closing an output found.
#[derive(Debug, Clone, Copy)]
pub struct Revoked {
    /// Whose output.
    pub reservation: ReservationId,
    /// Chunks that an attended client took.
    pub delivered: u32,
    /// Chunks that had been written.
    pub written: u32,
    /// Tokens that had been written.
    pub written_tokens: u32,
}

/// What an output looked like when a progress deadline was due.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Whose output.
    pub reservation: ReservationId,
    /// Chunks written so far.
    pub written: u32,
    /// When the last one was written; `None` while there is none.
    pub last_at: Option<Time>,
}
