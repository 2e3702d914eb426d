//! What a job's trace tells: every decision on it, with its time and reasons.

use std::sync::Arc;

use super::effect::{CancelCause, Why};
use super::event::JobError;
use super::job::JobState;
use super::rare::{Rare, Usual};
use super::score::Score;
use crate::ids::{ModelName, NodeId, ReservationId};
use crate::time::Time;

/// Most lines of a job's trace.
pub const TRACE_ENTRIES_MAX: usize = 64;

/// Every decision on a job with its time, oldest first. That it was accepted is nearly always all there is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Trace {
    first: Option<TraceEntry>,
    more: Rare<Vec<TraceEntry>>,
}

impl Trace {
    /// Adds a line.
    pub(super) fn push(&mut self, entry: TraceEntry) {
        match &self.first {
            None => self.first = Some(entry),
            Some(_) => self.more.push(entry),
        }
    }

    /// All lines.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &TraceEntry> {
        self.first.iter().chain(self.more.iter())
    }

    /// The newest line.
    pub fn last(&self) -> Option<&TraceEntry> {
        self.iter().next_back()
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }
}

impl FromIterator<TraceEntry> for Trace {
    fn from_iter<I: IntoIterator<Item = TraceEntry>>(entries: I) -> Self {
        let mut trace = Self::default();
        entries.into_iter().for_each(|entry| trace.push(entry));
        trace
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Usual for Vec<TraceEntry> {
    fn usual() -> &'static Self {
        static USUAL: Vec<TraceEntry> = Vec::new();
        &USUAL
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
    Placed(Arc<Placement>),
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
        reason: Arc<str>,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Why.
        error: Arc<JobError>,
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

/// How a node was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The claim.
    pub reservation: ReservationId,
    /// Who.
    pub node: NodeId,
    /// How many nodes were looked at.
    pub candidates: u32,
    /// How it was found.
    pub by: PlacedBy,
    /// The winner's score.
    pub score: Score,
    /// The best of the others, at most `LOSERS_KEPT_MAX`: who, and why not.
    pub losers: Vec<(NodeId, Loss)>,
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
