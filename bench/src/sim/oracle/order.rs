//! What should have been handed to a node instead: no lower tier takes what a runnable job of a higher one could have
//! (SPEC 2, CORE 5).
//!
//! A rival could have gone if it surely found room: in the job's own place, or beside everything that may still run
//! there. Where room, age or standing are in doubt, nothing is said.

use switchbox::coordinator::effect::{Effect, Row};
use switchbox::coordinator::event::{Origin, Tier};
use switchbox::coordinator::job::JobState;
use switchbox::ids::{JobId, NodeId};

use super::book::JobFacts;
use super::fleet::{AskNode, TICKS, takes_no_more};
use super::judge::Line;
use super::{Oracle, Step};

/// An output budget that nothing in these worlds ever fills.
const AMPLE_BUDGET_BYTES: u64 = 16 << 20;

impl Oracle {
    /// No job of a higher tier still waits that this node could have taken instead.
    pub(super) fn check_order(&mut self, step: &Step<'_>, node: &NodeId, id: JobId, job: &JobFacts) {
        let tier = job.tier_at(step.now, self.limits.batch_age);
        let changed = |other: &JobId| {
            step.effects.iter().any(|effect| matches!(effect, Effect::Row(Row::Job(row)) if row.id == *other))
        };
        let mut passed_over = None;
        let (mut rivals, mut elsewhere) = (0, 0);
        // What became due between two ticks is looked at with the next one.
        let since = step.now - TICKS;
        for (_, other) in &self.book.waiting {
            let rival = &self.book.jobs[other];
            let due = rival.not_before <= since && rival.submitted_at <= since && rival.expires_at > step.now;
            let higher = self.ages.sure_tier(rival, since, self.limits.batch_age) < tier;
            if !higher || !due || rival.spec.environment != job.spec.environment {
                continue;
            }
            if !self.finds_room(node, rival, job) {
                continue;
            }
            let ask = AskNode { book: &self.book, limits: &self.limits, node, job: rival, now: step.now };
            let able = self.fleet.surely_takes(&ask)
                && !rival.avoids.contains(node)
                && !self.stands_behind(step, node, *other, rival, job);
            if able && !self.is_paused(rival) && !rival.origin.is_system() && !changed(other) {
                passed_over = Some(*other);
            }
            rivals += 1;
            elsewhere += u64::from(able && !takes_no_more(rival, job));
        }
        self.coverage.add("order", "rivals that would find room of their own", elsewhere);
        let fills = job.spec.tier >= Tier::Batch && tier >= Tier::Batch;
        let line = if fills { Line::BatchIdleOnly } else { Line::TierOrder };
        if rivals > 0 || !self.book.waiting.is_empty() {
            self.judge.check(line, passed_over.is_none(), || {
                let known = self.fleet.nodes.get(node);
                format!(
                    "{id} ({tier:?}) went to {node}, though {passed_over:?} of a higher tier waits for it: {:?}; \
                     taken: {:?} of {:?} slots, {:?} tokens, {:?}",
                    passed_over.map(|other| &self.book.jobs[&other]),
                    known.map(|known| &known.taken),
                    known.map(|known| known.hello.slots),
                    known.map(|known| known.hello.kv_tokens),
                    known.map(|known| &known.hello.models),
                )
            });
        }
    }

    /// Whether a rival would surely have found room on the node where a job did.
    fn finds_room(&self, node: &NodeId, rival: &JobFacts, job: &JobFacts) -> bool {
        // The system's own jobs are named for their node, or looked at one by one: only for their own room.
        takes_no_more(rival, job)
            || !matches!(job.origin, Origin::Test { .. }) && self.fits_beside_all(node, rival)
    }

    /// Whether a job fits on a node beside everything that may take its capacity.
    fn fits_beside_all(&self, node: &NodeId, job: &JobFacts) -> bool {
        let Some(known) = self.fleet.nodes.get(node) else { return false };
        if self.limits.output_budget_bytes < AMPLE_BUDGET_BYTES || *node == NodeId::local() {
            return false;
        }
        let offer = known.hello.models.iter().find(|offer| offer.model == job.model);
        let (mut slots, mut of_model) = (known.hello.slots, offer.map_or(0, |offer| offer.slots));
        let mut tokens = known.hello.kv_tokens;
        for reservation in known.taken.keys() {
            let other = self.issued.get(reservation).and_then(|(_, other)| self.book.jobs.get(other));
            // The box knows more of it than these books do.
            let Some(other) = other else { return false };
            slots = slots.saturating_sub(1);
            tokens = tokens.saturating_sub(other.tokens_max());
            // It may have begun on another model than its job has now.
            let is_current = other.reservation.as_ref().is_some_and(|(current, _)| current == reservation);
            if other.model == job.model || !is_current {
                of_model = of_model.saturating_sub(1);
            }
        }
        slots > 0 && of_model > 0 && tokens >= job.tokens_max()
    }

    /// Whether another job of the same namespace, model and tier waits, or waited until this step, that needs more room
    /// than there may be: jobs of one flow go in the order in which they could first have gone, and only heads are tried
    /// (CORE section 5). Of the aged batch jobs of a lane, whosever they are, only the oldest is.
    fn stands_behind(
        &self,
        step: &Step<'_>,
        node: &NodeId,
        id: JobId,
        rival: &JobFacts,
        job: &JobFacts,
    ) -> bool {
        let waiting = self.book.waiting.iter().map(|(_, other)| *other);
        let left = step.effects.iter().filter_map(|effect| match effect {
            Effect::Row(Row::Job(row)) if row.state == JobState::Reserved => Some(row.id),
            _ => None,
        });
        waiting.chain(left).any(|other| {
            let before = &self.book.jobs[&other];
            other != id
                && (rival.spec.tier == Tier::Batch || before.spec.namespace == rival.spec.namespace)
                && before.spec.environment == rival.spec.environment
                && before.spec.tier == rival.spec.tier
                && before.model == rival.model
                && !self.finds_room(node, before, job)
        })
    }
}
