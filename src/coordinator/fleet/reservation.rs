//! A claim of a job on a node's capacity (CORE section 3): its states, deadlines and endings.

use super::super::event::JobError;
use super::super::names::{ModelKey, NodeKey};
use super::super::slab::Key;
use super::super::timers::TimerKey;
use crate::ids::{ReservationId, Session};
use crate::time::Time;

/// A claim of a job on a node's capacity.
#[derive(Debug, Clone)]
pub(in crate::coordinator) struct Reservation {
    pub(in crate::coordinator) id: ReservationId,
    /// The job that it works for; `None` once that goes on without it.
    pub(in crate::coordinator) job: Option<Key>,
    pub(in crate::coordinator) node: NodeKey,
    /// `None` for one that a node brought, of a model that the box doesn't know: it takes a slot all the same.
    pub(in crate::coordinator) model: Option<ModelKey>,
    pub(in crate::coordinator) state: ReservationState,
    pub(in crate::coordinator) capacity: Capacity,
    /// Tokens of the node's cache that it takes, while it takes capacity.
    pub(in crate::coordinator) kv_tokens: u64,
    /// Whether the node ever said that it began.
    pub(in crate::coordinator) began: Began,
    /// The connection on which it was assigned, or last listed.
    pub(in crate::coordinator) session: Session,
    /// When its current deadline is due, and which that is.
    pub(in crate::coordinator) due: (Time, Deadline),
    /// Its timer; `None` only while what it was for is being decided.
    pub(in crate::coordinator) timer: Option<TimerKey>,
    /// When the node was told.
    pub(in crate::coordinator) assigned_at: Time,
    /// When the node said that it began.
    pub(in crate::coordinator) began_at: Time,
    /// When the whole attempt is overdue.
    pub(in crate::coordinator) attempt_due: Time,
    /// When the first output is overdue.
    pub(in crate::coordinator) first_output_due: Time,
    /// Its share of the output budget; 0 once given back.
    pub(in crate::coordinator) output_bytes: u64,
    /// Tokens that the box saw when it closed the output; what a cancel may be charged at most.
    pub(in crate::coordinator) seen_tokens: u32,
}

/// Where a reservation stands; *gone* is its absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::coordinator) enum ReservationState {
    /// The node was told.
    Assigned,
    /// The node began.
    Running,
    /// Its output is closed; it waits for the node's word or the stop deadline.
    Stopping(Ending),
}

/// Why a reservation stops, and so what becomes of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::coordinator) enum Ending {
    /// The job is to end: when the node has stopped, it does.
    Cancel(Left),
    /// The node refused, in its words: the job is decided when the output is closed.
    Declined(String),
    /// The node doesn't have it any more: the job is decided when the output is closed.
    Lost,
    /// A failed result: the job is decided when the output is closed.
    Failed(JobError),
    /// A result that can't be: likewise, but it counts as a failed check.
    Contradicted(JobError),
    /// A result that isn't believed, or output beyond its bounds: likewise, and its node is told at the edge.
    Discredited(JobError),
    /// A missed deadline: likewise.
    Overdue(Deadline),
    /// Nobody waits for it: a node brought it, or the box takes back what a frozen or banned node has.
    Nobody,
    /// The operator took the node out: the job is decided when the output is closed.
    Withdrawn,
}

/// Whether a cancel comes from a client that left, which is counted by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum Left {
    ClientLeft,
    Stays,
}

/// Whether a reservation takes a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum Capacity {
    Taken,
    Free,
}

/// Whether a node began an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum Began {
    Yes,
    No,
}

/// What a reservation must do in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::coordinator) enum Deadline {
    Accept,
    FirstOutput,
    Progress,
    Attempt,
    Stop,
}

impl Deadline {
    /// The word in traces.
    pub(in crate::coordinator) fn word(self) -> &'static str {
        match self {
            Deadline::Accept => "accept",
            Deadline::FirstOutput => "first_output",
            Deadline::Progress => "progress",
            Deadline::Attempt => "attempt",
            Deadline::Stop => "stop",
        }
    }
}
