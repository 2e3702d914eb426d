//! A job from acceptance to outcome: its states, who may change them, and the row that survives.

use std::sync::Arc;

use super::effect::{CancelCause, End, Usage};
use super::event::{Endpoint, Environment, JobError, Mode, Submission, Tier};
use crate::credits::{Credits, Price};
use crate::ids::{ClientId, JobId, Lsn, ModelName, Namespace, NodeId, ReservationId};
use crate::time::Time;

/// Where a job stands. [`Job::transition`] is the only writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Waits for a node: from a submit, or back from an attempt that delivered nothing.
    Queued,
    /// A node has capacity set aside and was told.
    Reserved,
    /// The node began.
    Running,
    /// Ended with an answer.
    Succeeded,
    /// Ended without; a dead letter.
    Failed,
    /// Ended by its client, the operator or a restart.
    Cancelled,
    /// Waited longer than its TTL.
    Expired,
}

impl JobState {
    /// Every allowed change of state (CORE section 4), and no other.
    pub fn may_become(self, next: JobState) -> bool {
        use JobState::{Cancelled, Expired, Failed, Queued, Reserved, Running, Succeeded};
        match self {
            Queued => matches!(next, Reserved | Failed | Cancelled | Expired),
            Reserved => matches!(next, Queued | Running | Succeeded | Failed | Cancelled | Expired),
            Running => matches!(next, Queued | Succeeded | Failed | Cancelled | Expired),
            Succeeded | Failed | Cancelled | Expired => false,
        }
    }

    /// Whether the job has not ended.
    pub fn is_live(self) -> bool {
        matches!(self, JobState::Queued | JobState::Reserved | JobState::Running)
    }

    /// The word that the API, the logs and the metrics use.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Reserved => "reserved",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Expired => "expired",
        }
    }
}

/// A live job as the core holds it.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// What survives.
    pub(super) row: JobRow,
    /// Whose outbox hears of it; `None` when nobody waits.
    pub(super) client: Option<ClientId>,
    /// The reservation that works for it now.
    pub(super) reservation: Option<ReservationId>,
    /// Orders jobs of a namespace; a job that lost its node keeps it.
    pub(super) sequence: u64,
    /// Not before this; the end of a backoff. `None` while it is in the backlog or with a node.
    pub(super) backoff_until: Option<Time>,
    /// The step that accepted it.
    pub(super) submit_lsn: Lsn,
    /// Bytes of the body, which stay counted until the job ends.
    pub(super) body_bytes: u64,
    /// Its namespace's virtual start when it was last dispatched: a job that comes back keeps its place.
    pub(super) virtual_start: Option<u64>,
    /// Whether its row is to be emitted at the end of this step.
    pub(super) row_state: RowState,
}

/// Whether a job's row changed in the step that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowState {
    Kept,
    Changed,
}

impl Job {
    /// The only writer of a job's state.
    pub(super) fn transition(&mut self, next: JobState) {
        let state = self.row.state;
        assert!(
            state.may_become(next),
            "job {}: {} may not become {}",
            self.row.id,
            state.word(),
            next.word()
        );
        self.row.state = next;
    }

    /// Adds a line to the trace; beyond the bound, only the count goes on.
    pub(super) fn note(&mut self, at: Time, what: TraceEvent) {
        if self.row.trace.len() < TRACE_ENTRIES_MAX {
            self.row.trace.push(TraceEntry { at, what });
        } else {
            self.row.trace_dropped += 1;
        }
    }
}

/// Most lines of a job's trace.
pub const TRACE_ENTRIES_MAX: usize = 64;

/// What is kept of a job: the state after each change. A finished job is only this.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Who pays.
    pub namespace: Namespace,
    /// In which world.
    pub environment: Environment,
    /// What was asked on.
    pub endpoint: Endpoint,
    /// Which model.
    pub model: ModelName,
    /// The client's raw body; dropped once an attended job has ended, unless it failed: dead letters are kept
    /// whole.
    pub body: Option<Arc<[u8]>>,
    /// How the client waits.
    pub mode: Mode,
    /// Priority.
    pub tier: Tier,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Most tokens to generate.
    pub output_tokens_max: u32,
    /// Where it stands.
    pub state: JobState,
    /// Set once somebody asked for its end while a node had it.
    pub cancel_requested: Option<CancelCause>,
    /// When it was accepted.
    pub submitted_at: Time,
    /// When it was last handed to a node.
    pub dispatched_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// When it expires if it still waits.
    pub expires_at: Time,
    /// The price that was in force.
    pub price: Price,
    /// Held from its namespace while it lives; zero afterwards.
    pub hold: Credits,
    /// What was charged at the end.
    pub charged: Credits,
    /// Times that a node was given it, whatever came of that; names the output.
    pub attempts: u32,
    /// Attempts that failed or missed a deadline.
    pub failed_attempts: u32,
    /// Nodes that lost it; counted apart from failures.
    pub lost_attempts: u32,
    /// Declines since the last attempt.
    pub declines: u32,
    /// Who ran it last.
    pub node: Option<NodeId>,
    /// The last failure.
    pub error: Option<JobError>,
    /// How it ended; set with the final state.
    pub end: Option<End>,
    /// What was used and billed.
    pub usage: Usage,
    /// Every decision with its time, oldest first.
    pub trace: Vec<TraceEntry>,
    /// Lines that the trace had no room for.
    pub trace_dropped: u32,
}

impl JobRow {
    /// The row of a job that was just accepted.
    pub(super) fn accepted(
        id: JobId,
        submission: &Submission,
        price: Price,
        hold: Credits,
        now: Time,
    ) -> Self {
        Self {
            id,
            namespace: submission.namespace.clone(),
            environment: submission.environment,
            endpoint: submission.endpoint,
            model: Arc::clone(&submission.model),
            body: Some(Arc::clone(&submission.body)),
            mode: submission.mode,
            tier: submission.tier,
            input_tokens: submission.input_tokens,
            output_tokens_max: submission.output_tokens_max,
            state: JobState::Queued,
            cancel_requested: None,
            submitted_at: now,
            dispatched_at: None,
            ended_at: None,
            expires_at: now + submission.ttl,
            price,
            hold,
            charged: Credits::ZERO,
            attempts: 0,
            failed_attempts: 0,
            lost_attempts: 0,
            declines: 0,
            node: None,
            error: None,
            end: None,
            usage: Usage::default(),
            trace: Vec::with_capacity(8),
            trace_dropped: 0,
        }
    }
}

/// One decision on a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEntry {
    /// When.
    pub at: Time,
    /// What.
    pub what: TraceEvent,
}

/// What a trace tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEvent {
    /// Accepted, with so many jobs waiting before it in its tier.
    Submitted {
        /// Jobs of its tier and model that waited.
        ahead: u64,
    },
    /// A node was chosen.
    Placed {
        /// The claim.
        reservation: ReservationId,
        /// Who.
        node: NodeId,
        /// How many nodes were looked at.
        candidates: u32,
        /// The score's named terms in microseconds; the smallest sum wins.
        score: Vec<(&'static str, u64)>,
    },
    /// The node began.
    Accepted,
    /// The node refused.
    Declined {
        /// In its words.
        reason: String,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Why.
        error: JobError,
    },
    /// An attempt missed a deadline.
    TimedOut {
        /// Which deadline.
        deadline: &'static str,
    },
    /// The assignment was taken back before the node saw it.
    TakenBack,
    /// The node lost it.
    Lost,
    /// The attempt's output was closed.
    Revoked {
        /// Chunks that the client had taken.
        delivered: u32,
        /// Chunks that were there.
        written: u32,
    },
    /// It waits again.
    Requeued {
        /// Not before this.
        not_before: Time,
    },
    /// Somebody asked for its end.
    CancelRequested {
        /// Who.
        cause: CancelCause,
    },
    /// It ended.
    Ended {
        /// In which state.
        state: JobState,
    },
}
