//! Everything that the core can want done. The driver publishes effects in order, after each step.

use std::sync::Arc;

use super::event::{Endpoint, FinishReason, JobError, Question};
use super::job::JobRow;
use super::ledger::Posting;
use crate::credits::Credits;
use crate::ids::{ClientId, JobId, Lsn, ModelName, NodeId, ReservationId};
use crate::time::{Span, Time};

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Keep this row: part of the current step's LSN.
    Row(Row),
    /// Somebody waits for this step: commit it soon.
    Urgent,
    /// Tell a client.
    ToClient {
        /// Which outbox.
        client: ClientId,
        /// What.
        reply: Reply,
        /// When it may leave.
        when: When,
    },
    /// Hand a job to a node.
    Assign {
        /// To whom.
        node: NodeId,
        /// What.
        assignment: Assignment,
        /// When it may leave.
        when: When,
    },
    /// Stop an attempt; if the node hasn't seen it yet, take it back (`Event::Undeliverable`).
    Stop {
        /// Whom to tell.
        node: NodeId,
        /// Which attempt.
        reservation: ReservationId,
    },
    /// Make the output of a new attempt and attach the job's client.
    OpenOutput(OpenOutput),
    /// Close an output to its readers; answered by the local event `Revoked`.
    CloseOutput(ReservationId),
    /// Nobody will ask for this output again by name.
    ForgetOutput(ReservationId),
    /// Look at an output; answered by the local event `Progress`.
    CheckProgress(ReservationId),
    /// Answer a question from stored rows, once this step's LSN is durable.
    Read {
        /// Where to answer.
        client: ClientId,
        /// What to look up.
        job: JobId,
        /// What must be durable before the look.
        lsn: Lsn,
    },
}

/// When a message may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once: it acknowledges nothing.
    Now,
    /// Once everything up to this LSN is on stable storage.
    Durable(Lsn),
}

/// A changed row: the state after the change.
#[derive(Debug, Clone)]
pub enum Row {
    /// A job, live or finished.
    Job(Box<JobRow>),
    /// A finished job that is older than what is kept.
    JobForgotten(JobId),
    /// A ledger transfer with all its legs.
    Posting(Posting),
    /// An account's balance.
    Balance {
        /// Which account.
        account: super::ledger::Account,
        /// Its balance.
        balance: Credits,
    },
}

/// What a node is given to run.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The claim that fences it.
    pub reservation: ReservationId,
    /// Which job.
    pub job: JobId,
    /// What the client asked on.
    pub endpoint: Endpoint,
    /// Which model.
    pub model: ModelName,
    /// The client's raw body.
    pub body: Arc<[u8]>,
    /// Tokens of the prompt as the box counts them.
    pub input_tokens: u32,
    /// Most tokens to generate.
    pub output_tokens_max: u32,
}

/// The output of an attempt that begins.
#[derive(Debug, Clone, Copy)]
pub struct OpenOutput {
    /// The attempt's reservation.
    pub reservation: ReservationId,
    /// Which attempt of its job, from 1.
    pub attempt: u32,
    /// Who reads along; `None` when nobody does.
    pub client: Option<ClientId>,
    /// Its share of the output budget.
    pub bytes_max: u64,
    /// The LSN of the job's acceptance, for whom it concerns before the first byte.
    pub submit_lsn: Lsn,
}

/// What a client's outbox receives from the core.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The job was not accepted; nothing was kept.
    Refused(Refusal),
    /// The job waits or runs.
    Accepted {
        /// Its id.
        job: JobId,
        /// The step that accepted it.
        lsn: Lsn,
    },
    /// The job's last word.
    Finished(Box<Finished>),
    /// An answer to `Event::Ask` or `Event::Cancel`.
    Answer(Box<Answer>),
}

/// Why something was not accepted, with what the client needs to do better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which bound.
    pub kind: RefusalKind,
    /// When trying again makes sense: 1 to 60 s. `None` when it never does.
    pub retry_after: Option<Span>,
}

/// The typed reasons of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The namespace's share of the queue is full (429).
    NamespaceQueueFull,
    /// The box's queue is full, by count (503).
    QueueFull,
    /// The box's queue is full, by bytes held (503).
    QueueBytesFull,
    /// The server is draining (503).
    Draining,
    /// No node serves this model (404).
    ModelUnknown,
    /// The job's worst-case output exceeds what an output may hold (400).
    OutputTooLarge,
    /// The event queue has no room for new work (503).
    RingFull,
    /// No such job, or not this namespace's (404).
    JobUnknown,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Which job.
    pub job: JobId,
    /// How.
    pub end: End,
    /// The attempt whose output is the answer (from 1; 0 when there was none).
    pub attempt: u32,
    /// Chunks of that output that belong to the answer.
    pub chunks: u32,
    /// What was used, and billed.
    pub usage: Usage,
    /// How long the job waited before its last dispatch.
    pub queue: Span,
    /// Who ran it last.
    pub node: Option<NodeId>,
    /// What was charged.
    pub charged: Credits,
}

/// The outcome of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Succeeded(FinishReason),
    /// Without; retries are used up or make no sense.
    Failed(JobError),
    /// Ended before its time.
    Cancelled(CancelCause),
    /// It waited longer than its TTL.
    Expired,
}

/// Who ended a job before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelCause {
    /// The client, by name or by leaving.
    Client,
    /// The operator.
    Operator,
    /// The server stopped.
    Shutdown,
    /// The box restarted under it.
    Interrupted,
}

/// Token counts, as billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

/// What a question is answered with.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To `Question::Counts`.
    Counts(super::Counts),
    /// To `Question::Invariants`: the recount, and every difference found (none when all is well).
    Invariants {
        /// What counting everything again gives.
        recount: super::Counts,
        /// Each violated invariant in a sentence.
        violations: Vec<String>,
    },
    /// To `Question::Nodes`.
    Nodes(Vec<NodeView>),
    /// To `Question::Queue`.
    Queue(Vec<QueueView>),
    /// To `Question::Trace`, for a live job as for a finished one.
    Trace(Box<JobRow>),
    /// To `Question::Drain` and `Question::CancelAll`: how many jobs are still live.
    Draining {
        /// Jobs that haven't ended.
        live: u64,
    },
    /// To a cancel: the job has ended, or `cancelling`.
    Cancelled {
        /// Which job.
        job: JobId,
        /// Whether it waits for its node to stop.
        state: CancelState,
    },
    /// There is nothing to answer with: see the kind.
    Refused(RefusalKind, Question),
}

/// What a cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelState {
    /// It ended the job.
    Cancelled,
    /// The node was told; the job ends when it has stopped.
    Cancelling,
}

/// A node as the operator sees it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Who.
    pub node: NodeId,
    /// Since when.
    pub connected_at: Time,
    /// Per model: name, slots, slots taken.
    pub models: Vec<(ModelName, u32, u32)>,
}

/// What waits for a model in a tier.
#[derive(Debug, Clone)]
pub struct QueueView {
    /// Which model.
    pub model: ModelName,
    /// Which tier.
    pub tier: super::event::Tier,
    /// Jobs waiting.
    pub jobs: u64,
    /// When the one that waits longest was submitted.
    pub oldest_submitted_at: Time,
}
