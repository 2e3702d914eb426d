//! What clients, readers and operators are told: a job's last word, and answers to questions and commands.

use std::sync::Arc;

use super::command::NamespaceSettings;
use super::effect::{RefusalKind, Runnable};
use super::event::{Environment, FinishReason, JobError, Question, Tier, Warmth};
use super::integrity::{Refused as TemplateRefusal, Template};
use super::invites::{Enrolled, Invite, NotEnrolled};
use super::job::JobRow;
use super::ledger::{Account, LedgerRefusal};
use super::snapshot::{Refused as SnapshotRefusal, Snapshot};
use super::standing::{NodeRow, Standing};
use super::subcloud::{Refused as SubcloudRefusal, Subcloud, Unmet};
use crate::credits::Credits;
use crate::ids::{Digest, GpuClass, JobId, ModelName, ModelVersion, NodeId, Region};
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
    /// To `Question::Node`.
    Node(Box<NodeView>),
    /// To `Question::Namespaces`.
    Namespaces(Vec<NamespaceView>),
    /// To `Question::Subclouds`.
    Subclouds(Vec<Subcloud>),
    /// To `Question::Subcloud`.
    Subcloud(Box<SubcloudView>),
    /// To `Question::Templates`, by model and name.
    Templates(Vec<Template>),
    /// To `Question::Configuration`; `None` while there is none.
    Configuration(Option<Arc<Snapshot>>),
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
    /// Since when it is away; `None` while it is here.
    pub away_since: Option<Time>,
    /// For which environments it wants to work; it does where it is registered, too.
    pub wants: Vec<Environment>,
    /// What it serves.
    pub models: Vec<ServedModel>,
    /// What it has, as its last connection said.
    pub capacity: NodeCapacity,
    /// How reliable it is, in per mille.
    pub reliability: u32,
    /// What it has earned and nobody has taken yet, by environment.
    pub earnings: [Credits; 2],
}

/// A model on a node.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// Its name.
    pub model: ModelName,
    /// Which version.
    pub version: Option<ModelVersion>,
    /// SHA-256 of what the node has; zero where it doesn't say.
    pub digest: Digest,
    /// Jobs of it that run at once.
    pub slots: u32,
    /// Of those, taken.
    pub taken: u32,
    /// Whether it is in memory.
    pub warmth: Warmth,
    /// Whether the node may run it: it has to pass a test for each model.
    pub standing: Standing,
}

/// What a node has.
#[derive(Debug, Clone)]
pub struct NodeCapacity {
    /// Jobs that it runs at once, over all models.
    pub slots: u32,
    /// Of those, taken.
    pub taken: u32,
    /// Tokens of KV cache that all its jobs share.
    pub kv_tokens: u64,
    /// Of those, taken.
    pub kv_taken: u64,
    /// Memory for models, in bytes; `u64::MAX` where nothing bounds it.
    pub memory_bytes: u64,
    /// Its GPU.
    pub gpu: Option<GpuClass>,
    /// Where it is.
    pub region: Option<Region>,
}

/// A subcloud, and what its policy says of its nodes.
#[derive(Debug, Clone)]
pub struct SubcloudView {
    /// Its row.
    pub subcloud: Subcloud,
    /// Each node, with what of the policy it doesn't meet.
    pub members: Vec<(NodeId, Option<Unmet>)>,
}

/// A namespace as the operator sees it.
#[derive(Debug, Clone)]
pub struct NamespaceView {
    /// What is settled about it; the box's defaults where nothing is.
    pub settings: NamespaceSettings,
    /// Jobs of it that wait.
    pub waiting: u64,
    /// What it has, and what its live jobs hold of that, by environment.
    pub accounts: [(Credits, Credits); 2],
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
