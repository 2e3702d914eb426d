//! What clients, readers and operators are told: a job's last word, and answers to questions and commands.

use super::effect::{RefusalKind, Runnable};
use super::event::{FinishReason, JobError, Question, Tier};
use super::integrity::Refused as TemplateRefusal;
use super::invites::{Enrolled, Invite, NotEnrolled};
use super::job::JobRow;
use super::ledger::{Account, LedgerRefusal};
use super::snapshot::Refused as SnapshotRefusal;
use super::standing::{NodeRow, Standing};
use super::subcloud::Refused as SubcloudRefusal;
use crate::credits::Credits;
use crate::ids::{JobId, ModelName, NodeId};
use crate::time::{Span, Time};

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
    /// The model that answered: another than was asked for if it had to stand in.
    pub model: ModelName,
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
    /// Of those, found in the node's cache.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

/// What a question or a command is answered with.
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
    /// To `Question::Job`, for a live job.
    Job(Box<JobView>),
    /// To `Question::Trace`, for a live job.
    Trace(Box<JobRow>),
    /// To `Question::DeadLetters`, newest first.
    DeadLetters(Vec<DeadLetterView>),
    /// To `Question::Balances`: account, balance, held.
    Balances(Vec<(Account, Credits, Credits)>),
    /// To `Question::Drain`, `WindDown` and `EndService`.
    Draining {
        /// Jobs that are left to wait for. To `Drain`: all that live. To `WindDown`: those tied to a client's
        /// connection and those that a node has. To `EndService`: those tied, and those that the box's own node has.
        left: u64,
    },
    /// To a cancel: the job has ended, or `cancelling`.
    Cancelled {
        /// Which job.
        job: JobId,
        /// Whether it waits for its node to stop.
        state: CancelState,
    },
    /// To a requeue: the new job.
    Requeued {
        /// Its id.
        job: JobId,
    },
    /// To a pause: waiting jobs that it holds back, and how many of them would expire within the hour.
    Paused {
        /// Jobs that wait behind it.
        waiting: u64,
        /// Of those looked at (at most `PAUSE_LOOK_MAX`), how many have less than an hour to live.
        expiring: u64,
    },
    /// To `Question::Invites`: those that are open.
    Invites(Vec<Invite>),
    /// To an enrolment.
    Enrolled(Result<Enrolled, NotEnrolled>),
    /// To any other command: it is done (or had been done before).
    Done,
    /// There is nothing to answer with: see the kind.
    Refused(RefusalKind, Question),
    /// A command changed nothing, and why.
    Rejected(Rejection),
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Only the operator may.
    NotAllowed,
    /// No node of that name is known.
    NodeUnknown,
    /// The box's own node can't be told that.
    NodeIsTheBox,
    /// The node has no owner to pay.
    NodeHasNoOwner,
    /// No such job.
    JobUnknown,
    /// The job isn't a dead letter that is still kept, or was requeued before, as the job named.
    NotADeadLetter(Option<JobId>),
    /// A new job would be refused.
    JobRefused(super::effect::Refusal),
    /// A weight beyond 1 to `WEIGHT_MAX`, or a negative credit line.
    SettingsInvalid,
    /// As many names as the box can tell apart.
    NamesFull,
    /// There are as many prices as may be kept.
    PricesFull,
    /// The ledger's reason.
    Ledger(LedgerRefusal),
    /// The subclouds' reason.
    Subcloud(SubcloudRefusal),
    /// The configuration's reason.
    Snapshot(SnapshotRefusal),
    /// The template pool's reason.
    Template(TemplateRefusal),
    /// No such invite is open.
    InviteUnknown,
    /// As many invites are open as may be.
    InvitesFull,
}

/// What a cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelState {
    /// It ended the job.
    Cancelled,
    /// The node was told; the job ends when it has stopped.
    Cancelling,
}

/// Where a live job stands.
#[derive(Debug, Clone)]
pub struct JobView {
    /// Its row.
    pub row: JobRow,
    /// Set while it waits: jobs of its model and of its tier or above that wait, itself included; approximate,
    /// and an upper bound on its position.
    pub position: Option<u64>,
    /// When it may start, at the measured pace of its model; `None` where nothing can be said.
    pub starts_at: Option<Time>,
    /// Whether some node could run it.
    pub runnable: Runnable,
    /// Whether its end was asked for and its node has not stopped yet.
    pub cancelling: bool,
}

/// A dead letter in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterView {
    /// Which job failed.
    pub job: JobId,
    /// What it was requeued as.
    pub requeued_as: Option<JobId>,
}

/// A node as the operator sees it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Who, and what is kept of it: trust, record, exclusions with their causes.
    pub row: NodeRow,
    /// Where it stands.
    pub standing: Standing,
    /// Since when this connection.
    pub connected_at: Option<Time>,
    /// Per model: name, slots, slots taken.
    pub models: Vec<(ModelName, u32, u32)>,
}

/// What waits for a model in a tier.
#[derive(Debug, Clone)]
pub struct QueueView {
    /// Which model.
    pub model: ModelName,
    /// Which tier.
    pub tier: Tier,
    /// Jobs waiting.
    pub jobs: u64,
    /// When the one that waits longest was submitted.
    pub oldest_submitted_at: Time,
}
