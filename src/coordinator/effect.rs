//! Everything that the core can want done. The driver publishes effects in order, after each step.

use std::sync::Arc;

use super::command::Scope;
use super::event::{Endpoint, Environment};
use super::integrity::{Feedback, Template};
use super::invites::Invite;
use super::job::JobRow;
use super::keys::KeyRow;
use super::ledger::{Balance, Posting, PriceRule};
use super::namespaces::NamespaceRow;
use super::snapshot::Snapshot;
use super::standing::{NodeRow, Standing};
use super::subcloud::Subcloud;
use crate::credits::Credits;
use crate::ids::{
    ClientId, Digest, IdempotencyKey, JobId, Lsn, ModelName, NodeId, OperationId, ReservationId, SubcloudName,
};
use crate::time::{Span, Time};

pub use super::answer::{
    Answer, CancelCause, CancelState, DeadLetterView, End, Finished, JobView, NamespaceView, NodeCapacity,
    NodeView, QueueView, Rejection, ServedModel, SubcloudView, Usage,
};

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
    /// After a start: a remote node may still have this attempt, and come back with it. Its output is open.
    Continue {
        /// Which node.
        node: NodeId,
        /// What it was given.
        assignment: Assignment,
    },
    /// Stop an attempt; if the node hasn't seen it yet, take it back (`Event::Undeliverable`).
    Stop {
        /// Whom to tell.
        node: NodeId,
        /// Which attempt.
        reservation: ReservationId,
    },
    /// Tell a node something that isn't work.
    ToNode {
        /// Whom.
        node: NodeId,
        /// What.
        message: NodeMessage,
        /// When it may leave.
        when: When,
    },
    /// Make the output of a new attempt and attach the job's clients.
    OpenOutput(OpenOutput),
    /// Attach one more client to an output that is open.
    AttachOutput(AttachOutput),
    /// Close an output to its readers; answered by the local event `Revoked`.
    CloseOutput(ReservationId),
    /// Nobody will ask for this output again by name.
    ForgetOutput(ReservationId),
    /// Look at an output; answered by the local event `Progress`.
    CheckProgress(ReservationId),
    /// Say something to whoever reads the box's log.
    Notice(Notice),
    /// Answer a question from stored rows, once this step's LSN is durable.
    Read {
        /// Where to answer.
        client: ClientId,
        /// What to look up.
        what: Lookup,
        /// What must be durable before the look.
        lsn: Lsn,
    },
}

/// What an operator should know, and nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A blind or validation job was due in this environment, and the integrity account can't pay it.
    ChecksUnpaid(Environment),
}

/// What is looked up among stored rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A job's row.
    Job(JobId),
    /// The stored answer of a job that succeeded: a repeat of its request is answered with it.
    Answer(JobId),
}

/// When a message may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once: it acknowledges nothing.
    Now,
    /// Once this step is on stable storage.
    Durable(Lsn),
}

/// Something to keep: the newest of its kind counts.
#[derive(Debug, Clone)]
pub enum Row {
    /// A job, live or finished.
    Job(Box<JobRow>),
    /// A finished job that is too old to be kept; its posting goes too, and its balances say so.
    JobForgotten(JobId),
    /// The answer of a finished job that isn't to be stored any longer; the rest of the job stays.
    AnswerForgotten(JobId),
    /// Credits that moved.
    Posting(Posting),
    /// An operator's posting that is too old to be kept, by its id and time; its balances say so.
    OperationForgotten(OperationId, Time),
    /// An account's balance.
    Balance(Balance),
    /// A node's record.
    Node(Box<NodeRow>),
    /// A namespace's settings.
    Namespace(Box<NamespaceRow>),
    /// An idempotency key and its job.
    Key(KeyRow),
    /// A key that means nothing any more.
    KeyForgotten(IdempotencyKey),
    /// A dead letter, and the job that it was requeued as.
    DeadLetter(JobId, Option<JobId>),
    /// A dead letter that is too old to be listed.
    DeadLetterForgotten(JobId),
    /// Something that is paused.
    Paused(Scope),
    /// It isn't any more.
    Resumed(Scope),
    /// A price.
    Price(PriceRule),
    /// A blind job's template.
    Template(Box<Template>),
    /// No more: its model, its name.
    TemplateForgotten(ModelName, Arc<str>),
    /// A subcloud with its members.
    Subcloud(Box<Subcloud>),
    /// No more.
    SubcloudForgotten(Environment, SubcloudName),
    /// The configuration in force.
    Configuration(Box<Snapshot>),
    /// What a client thought of an answer.
    Feedback(Feedback),
    /// An open invite.
    Invite(Box<Invite>),
    /// It was used, revoked, or its time is over.
    InviteForgotten(Digest),
    /// What proves the result of a job that a remote node answered.
    Proof(JobId, Arc<[u8]>),
}

/// What a node is told apart from work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeMessage {
    /// Its result is kept: it needn't be.
    ResultAccepted(ReservationId),
    /// Nothing waits for this result any more, which isn't the node's fault: it needn't be kept.
    ResultUnknown(ReservationId),
    /// There is a configuration that it doesn't have.
    Configuration {
        /// Of which environment.
        environment: Environment,
        /// Its number.
        version: u64,
        /// SHA-256 of it.
        digest: Digest,
    },
    /// Where it stands now, and why.
    Standing(Standing, Arc<str>),
    /// What its account has there now.
    Earnings(Environment, Credits),
    /// It is through, and may leave: it drains and nothing is left.
    Drained,
    /// It isn't welcome.
    Banned,
}

/// What a node is given to run. Nothing in it tells whose job it is, or that it isn't a client's.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The claim that fences it.
    pub reservation: ReservationId,
    /// Which job.
    pub job: JobId,
    /// In which world.
    pub environment: Environment,
    /// What the client asked on.
    pub endpoint: Endpoint,
    /// Which model.
    pub model: ModelName,
    /// Which of the job's models that is: 0 is the one asked for, its fallbacks follow.
    pub model_index: u32,
    /// The client's raw body.
    pub body: Arc<[u8]>,
    /// Tokens of the prompt as the box counts them.
    pub input_tokens: u32,
    /// Most tokens to generate.
    pub output_tokens_max: u32,
}

/// The output of an attempt that begins.
#[derive(Debug, Clone)]
pub struct OpenOutput {
    /// The attempt's reservation.
    pub reservation: ReservationId,
    /// Which attempt of its job, from 1.
    pub attempt: u32,
    /// Who reads along.
    pub clients: Vec<ClientId>,
    /// Its share of the output budget.
    pub bytes_max: u64,
    /// The LSN of the job's acceptance, for whom it concerns before the first byte.
    pub submit_lsn: Lsn,
}

/// One more reader of an output.
#[derive(Debug, Clone, Copy)]
pub struct AttachOutput {
    /// The attempt's reservation.
    pub reservation: ReservationId,
    /// Which attempt of its job, from 1.
    pub attempt: u32,
    /// Who.
    pub client: ClientId,
    /// The LSN of the job's acceptance.
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
        /// Whether some node could run it, as things are.
        runnable: Runnable,
    },
    /// The job's last word.
    Finished(Box<Finished>),
    /// An answer to a question, a cancel or a command.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// The namespace's share of the queue is full (429).
    NamespaceQueueFull,
    /// The box's queue is full, by count (503).
    QueueFull,
    /// The box's queue is full, by bytes held (503).
    QueueBytesFull,
    /// The server is draining (503).
    Draining,
    /// Nobody knows this model (404).
    ModelUnknown,
    /// The job's worst-case output exceeds what an output may hold (400).
    OutputTooLarge,
    /// The event queue has no room for new work (503).
    RingFull,
    /// No such job, or not this namespace's (404).
    JobUnknown,
    /// Prompt, output or body are zero or beyond what a job may have (400).
    SizeInvalid,
    /// It would expire before it may start, or at once (400).
    TtlInvalid,
    /// More constraints, fallbacks or metadata than a job may have (400).
    TooManyConstraints,
    /// Nobody knows this subcloud in this environment (404).
    SubcloudUnknown,
    /// The subcloud doesn't admit this namespace or model (403).
    SubcloudForbidden,
    /// This tier is the system's own (400).
    TierForbidden,
    /// No node could run it, and the namespace wants to know at once (422).
    Unrunnable(Why),
    /// Its worst case costs more than the namespace has (402).
    InsufficientCredits,
    /// The same idempotency key came with another body (409).
    KeyConflict,
    /// The namespace has as many idempotency keys as it may (429).
    KeysFull,
    /// As many namespaces, models or nodes as the box can tell apart (503).
    NamesFull,
    /// The disk has less free than its reserve (503).
    DiskReserve,
    /// More rows than may wait for the disk do (503).
    StoreBehind,
}

/// Whether some node could run a job, as things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runnable {
    /// Some node could, now or when it is free.
    Yes,
    /// None could.
    No(Why),
}

/// Why a job can't run: of all nodes, how far the one that came furthest got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No node serves the model, under the digest that the configuration has.
    NoNodeServesModel,
    /// None that does works in this environment.
    NoNodeInEnvironment,
    /// None has this version.
    NoNodeWithVersion,
    /// None is trusted enough.
    NoNodeTrustedEnough,
    /// None is in the region.
    NoNodeInRegion,
    /// None has the GPU.
    NoNodeWithGpu,
    /// None has the memory.
    NoNodeWithMemory,
    /// None belongs to the subcloud and meets its policy, or the only ones belong to others that isolate.
    NoNodeInSubcloud,
    /// None is on the job's list of nodes.
    NoNodeAllowed,
    /// None holds so many tokens.
    TooLargeForEveryNode,
    /// Those that could are away, paused, excluded or not tested yet.
    NoNodeReady,
    /// Its model, namespace or tier is paused.
    Paused,
    /// It isn't time yet, by `not_before` or a backoff.
    TooEarly,
}

impl Why {
    /// In words, for the client.
    pub fn sentence(self) -> &'static str {
        match self {
            Why::NoNodeServesModel => {
                "no node serves the model, or only another file than the configuration in force names"
            }
            Why::NoNodeInEnvironment => "no node that serves the model works in this environment",
            Why::NoNodeWithVersion => "no node has this version of the model",
            Why::NoNodeTrustedEnough => "no node that serves the model is trusted enough",
            Why::NoNodeInRegion => "no node that could is in the region",
            Why::NoNodeWithGpu => "no node that could has the GPU",
            Why::NoNodeWithMemory => "no node that could has the memory",
            Why::NoNodeInSubcloud => "no node that could is in the subcloud and meets its policy",
            Why::NoNodeAllowed => "no node that could is on the job's list of nodes",
            Why::TooLargeForEveryNode => "the job is too large for every node that could",
            Why::NoNodeReady => "every node that could is away, paused, excluded or not tested yet",
            Why::Paused => "its model, namespace or tier is paused",
            Why::TooEarly => "it isn't time yet",
        }
    }
}
