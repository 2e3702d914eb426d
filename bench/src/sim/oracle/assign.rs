//! What may be handed to a node, and what should have been handed to it instead (SPEC 2, 3, 5; CORE 5).

use switchbox::coordinator::command::Scope;
use switchbox::coordinator::effect::{Assignment, Effect, Row};
use switchbox::coordinator::event::Tier;
use switchbox::coordinator::trace::{PlacedBy, TraceEvent};
use switchbox::ids::{JobId, NodeId};
use switchbox::time::Time;

use super::book::JobFacts;
use super::fleet::{AskNode, TICKS, takes_no_more};
use super::judge::Line;
use super::{Oracle, Step};

/// Lines that every assignment is held against.
const HELD_AGAINST: [Line; 9] = [
    Line::StandingKept,
    Line::EnvironmentKept,
    Line::ModelKept,
    Line::TrustKept,
    Line::ListsKept,
    Line::HardwareKept,
    Line::SubcloudKept,
    Line::TestedFirst,
    Line::CooldownKept,
];

impl Oracle {
    pub(super) fn check_assigns(&mut self, step: &Step<'_>) {
        for effect in step.effects {
            match effect {
                Effect::Assign { node, assignment, .. } => self.check_assign(step, node, assignment),
                Effect::Row(Row::Job(row)) => {
                    if let Some(TraceEvent::Placed(placed)) = row.trace.last().map(|entry| &entry.what) {
                        let word = match placed.by {
                            PlacedBy::Job => "by the job",
                            PlacedBy::Node => "by the node",
                        };
                        self.coverage.count("placed", word);
                    }
                }
                _ => {}
            }
        }
    }

    fn check_assign(&mut self, step: &Step<'_>, node: &NodeId, assignment: &Assignment) {
        let id = assignment.job;
        self.issued.insert(assignment.reservation, (node.clone(), id));
        let Some(job) = self.book.jobs.get(&id).cloned() else {
            return self.judge.violated("an assignment is of a job", format!("{id} has no row"));
        };
        let ask = AskNode { book: &self.book, limits: &self.limits, node, job: &job, now: step.now };
        let verdict = self.fleet.may_take(&ask);
        let other = self.idle_other(&ask);
        HELD_AGAINST.iter().for_each(|line| self.judge.tested(*line));
        if let Err((line, why)) = verdict {
            self.judge.check(line, false, || format!("{id} ({:?}) went to {node}: {why}", job.origin));
        }
        if job.failed_on.contains(node) && !job.origin.is_system() {
            self.judge.check(Line::FailedNodeAvoided, other.is_none(), || {
                format!("{id} went to {node} again, though {other:?} has nothing to do")
            });
        }
        self.check_moment(step.now, id, &job);
        self.check_order(step, node, id, &job);
        self.fleet.takes(node, assignment.reservation, step.now);
    }

    fn idle_other(&self, ask: &AskNode<'_>) -> Option<NodeId> {
        let failed = ask.job.failed_on.contains(ask.node) && !ask.job.origin.is_system();
        if failed { self.fleet.idle_other(ask) } else { None }
    }

    fn check_moment(&mut self, now: Time, id: JobId, job: &JobFacts) {
        self.judge.check(Line::NotAfterTtl, now <= job.expires_at, || {
            format!("{id} was dispatched at {now:?}, its ttl passed at {:?}", job.expires_at)
        });
        self.judge.check(Line::NotBeforeKept, now >= job.not_before, || {
            format!("{id} was dispatched at {now:?}, before {:?}", job.not_before)
        });
        self.judge.check(Line::DeliveredNotRerun, !self.delivered.contains(&id), || {
            format!("{id} runs again after its client took output")
        });
        let paused = self.is_paused(job);
        self.judge.check(Line::PauseKept, !paused || job.origin.is_system(), || {
            format!("{id} was placed although {:?} is paused", self.book.paused)
        });
    }

    fn is_paused(&self, job: &JobFacts) -> bool {
        [
            Scope::Model(job.model.clone()),
            Scope::Namespace(job.spec.namespace.clone()),
            Scope::Tier(job.spec.tier),
        ]
        .iter()
        .any(|scope| self.book.paused.contains(scope))
    }

    /// No job of a higher tier still waits that this node could have taken in the same room.
    fn check_order(&mut self, step: &Step<'_>, node: &NodeId, id: JobId, job: &JobFacts) {
        let age = self.limits.batch_age;
        let tier = job.tier_at(step.now, age);
        let changed = |other: &JobId| {
            step.effects.iter().any(|effect| matches!(effect, Effect::Row(Row::Job(row)) if row.id == *other))
        };
        let mut passed_over = None;
        let mut rivals = 0;
        for (_, other) in &self.book.waiting {
            let rival = &self.book.jobs[other];
            // What became due between two ticks is looked at with the next one.
            let since = step.now - TICKS;
            let due = rival.not_before <= since && rival.submitted_at <= since && rival.expires_at > step.now;
            // Nothing ages while it is paused, so a pause leaves the age of what waits unknown.
            let aged = if self.was_paused { rival.spec.tier } else { rival.sure_tier_at(since, age) };
            let higher = aged < tier && rival.spec.environment == job.spec.environment;
            if !higher || !due || !takes_no_more(rival, job) {
                continue;
            }
            let ask = AskNode { book: &self.book, limits: &self.limits, node, job: rival, now: step.now };
            let able = self.fleet.surely_takes(&ask)
                && !rival.avoids.contains(node)
                && !self.stands_behind(*other, rival, job);
            if able && !self.is_paused(rival) && !rival.origin.is_system() && !changed(other) {
                passed_over = Some(*other);
            }
            rivals += 1;
        }
        let fills = job.spec.tier >= Tier::Batch && tier >= Tier::Batch;
        let line = if fills { Line::BatchIdleOnly } else { Line::TierOrder };
        if rivals > 0 || !self.book.waiting.is_empty() {
            self.judge.check(line, passed_over.is_none(), || {
                format!(
                    "{id} ({tier:?}) went to {node}, though {passed_over:?} of a higher tier waits for it: {:?}",
                    passed_over.map(|other| &self.book.jobs[&other])
                )
            });
        }
    }

    /// Whether another job of the same namespace, model and tier waits that needs more room than there may be: jobs of
    /// one flow go in the order in which they could first have gone, and only heads are tried (CORE section 5).
    fn stands_behind(&self, id: JobId, rival: &JobFacts, job: &JobFacts) -> bool {
        self.book.waiting.iter().any(|(_, other)| {
            let before = &self.book.jobs[other];
            *other != id
                && before.spec.namespace == rival.spec.namespace
                && before.spec.environment == rival.spec.environment
                && before.spec.tier == rival.spec.tier
                && before.model == rival.model
                && !takes_no_more(before, job)
        })
    }
}
