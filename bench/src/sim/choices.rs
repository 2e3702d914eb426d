//! What jobs chose, held against all nodes: among few, the candidate rule must find the best (CORE section 6).

use switchbox::coordinator::Comparison;
use switchbox::coordinator::limits::CANDIDATES_MAX;

use super::oracle::Line;
use super::world::World;

impl World<'_> {
    /// What a job chose, held against all nodes that could have taken it.
    pub(crate) fn compare(&mut self) {
        let group = "choices of jobs among nodes";
        for Comparison { job, chosen_us, best_us, best, able } in self.core.take_comparisons() {
            let regret = chosen_us - best_us;
            self.oracle.coverage.count(group, "all");
            self.oracle.coverage.add(group, "not the best", u64::from(regret != 0));
            self.oracle.coverage.add(group, "best scores, microseconds", best_us.unsigned_abs());
            self.oracle.coverage.add(group, "regret, microseconds", regret.unsigned_abs());
            if able <= CANDIDATES_MAX {
                self.oracle.judge.check(Line::BestOfFew, regret == 0, || {
                    format!("{job} chose a node of {chosen_us} us, though {best} of {able} has {best_us} us")
                });
            }
        }
    }
}
