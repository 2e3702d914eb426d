//! What a job's trace tells: every decision on it, with its time and reasons.

use super::effect::{CancelCause, Why};
use super::event::JobError;
use super::job::JobState;
use super::score::Score;
use crate::ids::{ModelName, NodeId, ReservationId};
use crate::time::Time;

/// Most lines of a job's trace.
pub const TRACE_ENTRIES_MAX: usize = 64;

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
        /// How it was found.
        by: PlacedBy,
        /// The winner's score.
        score: Score,
        /// The best of the others, at most `LOSERS_KEPT_MAX`: who, and why not.
        losers: Vec<(NodeId, Loss)>,
    },
    /// It can't run for now.
    NotRunnable {
        /// Why.
        why: Why,
    },
    /// Another model stands in from here on.
    FellBack {
        /// Which.
        model: ModelName,
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
    /// The box started again, and it waits again.
    Recovered,
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

/// Losers whose reasons a trace keeps per placement.
pub const LOSERS_KEPT_MAX: usize = 3;

/// How a placement came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacedBy {
    /// The job came and chose among nodes with room.
    Job,
    /// A node had room and took the job that was next for it.
    Node,
}

/// Why a node lost against the chosen one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its score was larger.
    Slower(Score),
    /// It had failed this job.
    FailedBefore,
    /// It had too little free capacity for it.
    NoRoom,
}
