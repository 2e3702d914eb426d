//! What the best of all nodes would have scored: the simulator holds the candidate rule against it (CORE section 6).
//!
//! It looks at every node that serves the model and asks each anew whether it may take the job, so it also sees what an
//! index would have hidden. It changes nothing, and is never there in a server.

use super::Coordinator;
use super::slab::Key;
use crate::ids::{JobId, NodeId};

/// A node that a job chose, held against all that could have taken it at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Which job.
    pub job: JobId,
    /// The score of the node that the rule chose, in microseconds.
    pub chosen_us: i64,
    /// The best score of all, in microseconds; at most the chosen one.
    pub best_us: i64,
    /// Who has it.
    pub best: NodeId,
    /// How many nodes could have taken the job.
    pub able: usize,
}

impl Coordinator {
    /// From now on, every placement that a job asks for is held against an exhaustive search.
    pub fn compare_placements(&mut self) {
        self.comparisons.get_or_insert_default();
    }

    /// The comparisons since the last call.
    pub fn take_comparisons(&mut self) -> Vec<Comparison> {
        self.comparisons.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Holds a choice against all nodes as they are now.
    pub(super) fn compare(&self, key: Key, chosen_us: i64) -> Option<Comparison> {
        self.comparisons.as_ref()?;
        let job = &self.jobs[key];
        let look = self.look();
        let able =
            |at: &_| self.fleet.node(*at).is_here() && look.fits(self.fleet.node(*at), *at, job).is_ok();
        let scores: Vec<_> = self
            .fleet
            .serving(job.need.model)
            .filter(able)
            .map(|at| (self.score_of(at, job).sum(), at))
            .collect();
        let (best_us, best) = *scores.iter().min()?;
        let best = self.fleet.node(best).id().clone();
        Some(Comparison { job: job.row.id, chosen_us, best_us, best, able: scores.len() })
    }
}
