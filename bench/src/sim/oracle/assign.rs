//! What may be handed to a node (SPEC 2, 3, 5). What should have gone before it is judged in `order`.

use switchbox::coordinator::command::Scope;
use switchbox::coordinator::effect::{Assignment, Effect, Row};
use switchbox::coordinator::trace::{PlacedBy, TraceEvent};
use switchbox::ids::{JobId, NodeId};
use switchbox::time::Time;

use super::book::JobFacts;
use super::fleet::AskNode;
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
        self.judge.check(Line::PlacementCloses, self.closed.is_none(), || {
            format!("{id} was placed though {:?}", self.closed)
        });
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

    pub(super) fn is_paused(&self, job: &JobFacts) -> bool {
        [
            Scope::Model(job.model.clone()),
            Scope::Namespace(job.spec.namespace.clone()),
            Scope::Tier(job.spec.tier),
        ]
        .iter()
        .any(|scope| self.book.paused.contains(scope))
    }
}
