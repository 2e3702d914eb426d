//! Validation: a client's job run again on a second node, and on a third where those two disagree.
//!
//! Two answers that differ don't say whose is wrong. So nothing is held against either until a third node that would
//! give the very same bytes has answered too: the one that stands alone against two has lied, and that is proven. Only
//! nodes that serve the same file with the same runtime must agree to the byte, and only where the request allows one
//! answer; all others are compared by length, which is a hint and no proof. The operator's own machines are what the
//! others are measured by: where one of them is at hand it is the second node, and nobody needs a third.

use super::Coordinator;
use super::eligibility::{self, Need};
use super::event::{Determinism, Mode, Origin, Submission, Tier};
use super::integrity::{Judgement, ResultFacts, Sampling, judge_validation};
use super::job::Job;
use super::names::{ModelKey, NodeKey};
use super::noise::{Purpose, choose, draw, noise};
use super::rare::Rare;
use super::slab::Key;
use super::spec::{CONSTRAINT_NODES_MAX, JobSpec};
use super::standing::{Check, Trust};
use super::upkeep::SYSTEM_NAMESPACE;
use crate::ids::{Digest, JobId, Namespace, NodeId, RuntimeName};

/// Validation jobs whose earlier results are remembered.
const VALIDATIONS_MAX: usize = 1_000;
/// Nodes that the next witness may be of.
const NEXT_NODES_MAX: usize = 8;
/// Nodes that are looked at for them.
const NEXT_LOOKS_MAX: usize = 256;

/// What was answered so far to a job that other nodes repeat.
#[derive(Debug, Clone)]
pub(super) struct Validating {
    witnesses: Vec<Witness>,
}

/// One node's answer.
#[derive(Debug, Clone)]
struct Witness {
    node: NodeKey,
    trust: Trust,
    /// What computed it, to the byte, where the node says so.
    class: Option<Class>,
    facts: ResultFacts,
}

/// Nodes of one class give the same bytes to a request that allows only one answer.
type Class = (Digest, RuntimeName);

impl Coordinator {
    /// A job with an answer may be repeated on a second node.
    pub(super) fn validate(&mut self, key: Key, node: NodeKey, facts: &ResultFacts) {
        let row = &self.jobs[key].row;
        if *row.origin != Origin::Client || self.fleet.node(node).is_local() {
            return;
        }
        let record = self.fleet.node(node).record.row();
        let (settled, checks) = (record.conduct.settled_jobs, record.quality.checks_ever);
        let rate = self.participation(row.spec.environment).check_rate_of(settled, checks);
        let id = row.id;
        let chance = noise(&self.boot.secret, Purpose::ValidationDraw, id.counter, u64::from(id.epoch));
        if !draw(chance, rate) {
            return;
        }
        let Some(body) = row.body.clone() else { return };
        let mut spec = (*row.spec).clone();
        spec.namespace = Namespace::named(SYSTEM_NAMESPACE);
        spec.model = row.model().clone();
        spec.mode = Mode::Polling;
        spec.tier = Tier::Background;
        spec.key = Rare::default();
        spec.not_before = Rare::default();
        spec.fallbacks = Default::default();
        let first = self.witness(node, self.jobs[key].need.model, *facts);
        if self.repeat(id, Submission::new(spec, body), vec![first]) {
            self.counts.validations += 1;
        }
    }

    fn witness(&self, node: NodeKey, model: ModelKey, facts: ResultFacts) -> Witness {
        let trust = self.fleet.node(node).record.row().trust;
        Witness { node, trust, class: self.class_of(node, model), facts }
    }

    fn class_of(&self, node: NodeKey, model: ModelKey) -> Option<Class> {
        let serving = self.fleet.node(node).serving(model)?;
        let known = (serving.digest != Digest::default()).then_some(serving.digest);
        known.zip(serving.runtime.clone())
    }

    /// Has a job run once more, on a node that hasn't answered it yet. Says whether it will be.
    fn repeat(&mut self, of: JobId, mut submission: Submission, witnesses: Vec<Witness>) -> bool {
        if self.validating.len() >= VALIDATIONS_MAX {
            return false;
        }
        let constraints = &mut submission.spec.constraints;
        for witness in &witnesses {
            let node = self.fleet.node(witness.node).id();
            if !constraints.deny.contains(node) {
                constraints.deny.push(node.clone());
            }
        }
        let able = self.able(of, &submission.spec, &witnesses);
        let peers = self.peers(&able, &submission.spec, &witnesses);
        if !peers.is_empty() {
            submission.spec.constraints.allow = peers;
        } else if able.is_empty() || witnesses.len() > 1 {
            // It would wait for nobody; and another length would settle nothing between two that should have agreed.
            return false;
        }
        if !self.is_paid(&submission.spec) {
            return false;
        }
        let Ok(job) = self.accept(submission, Origin::Validation { of }, None) else { return false };
        let validation = self.jobs[job].row.id;
        self.validating.insert(validation, Validating { witnesses });
        true
    }

    /// Nodes that could run a job next, of those that are looked at: from a place that nobody can foresee.
    fn able(&self, of: JobId, spec: &JobSpec, witnesses: &[Witness]) -> Vec<NodeKey> {
        let Some(model) = self.models.key(&spec.model) else { return Vec::new() };
        let need = Need::of(spec, model, 0);
        let constraints = &spec.constraints;
        let could = |key: &NodeKey| {
            let node = self.fleet.node(*key);
            let listed = constraints.allow.is_empty() || constraints.allow.contains(node.id());
            listed
                && !constraints.deny.contains(node.id())
                && eligibility::lack(node, &need, &spec.model, &self.subclouds, self.now).is_none()
        };
        let step = (u64::from(of.epoch) << 8) | witnesses.len() as u64;
        let chance = noise(&self.boot.secret, Purpose::ValidationNode, of.counter, step);
        let Some(start) = choose(chance, self.fleet.serving(model).count()) else { return Vec::new() };
        let ring = self.fleet.serving(model).skip(start).chain(self.fleet.serving(model).take(start));
        ring.take(NEXT_LOOKS_MAX).filter(could).collect()
    }

    /// Those of them that must give the same bytes as the witnesses: the operator's own, or else some others.
    fn peers(&self, able: &[NodeKey], spec: &JobSpec, witnesses: &[Witness]) -> Vec<NodeId> {
        let class = witnesses.first().and_then(|witness| witness.class.as_ref());
        let (Some(class), Some(model)) = (class, self.models.key(&spec.model)) else { return Vec::new() };
        let room = CONSTRAINT_NODES_MAX.saturating_sub(spec.constraints.deny.len()).min(NEXT_NODES_MAX);
        let same = |key: &&NodeKey| self.class_of(**key, model).as_ref() == Some(class);
        let peers: Vec<NodeKey> = able.iter().filter(same).copied().collect();
        let own = |key: &&NodeKey| self.fleet.node(**key).record.row().trust == Trust::Own;
        let name = |key: &NodeKey| self.fleet.node(*key).id().clone();
        match peers.iter().any(|key| own(&key)) {
            true => peers.iter().filter(own).take(room).map(name).collect(),
            false => peers.iter().take(room).map(name).collect(),
        }
    }

    /// A validation job ended: with its answer something may be known of those who answered.
    pub(super) fn validated(&mut self, job: &Job) {
        let Some(Validating { mut witnesses }) = self.validating.remove(&job.row.id) else { return };
        let (Some(facts), Some(node)) =
            (job.past.facts, job.row.node.as_ref().and_then(|node| self.fleet.find(node)))
        else {
            return;
        };
        witnesses.push(self.witness(node, job.need.model, facts));
        let factor = self.participation(job.row.spec.environment).validation_tokens_factor_max;
        let court = Court { exact: job.row.spec.determinism, factor };
        match court.verdict(&witnesses) {
            Verdict::Known(checks) => {
                for (witness, check) in witnesses.iter().zip(checks) {
                    check.inspect(|check| self.check_of(witness.node, *check));
                }
            }
            Verdict::Undecided => self.counts.validations_undecided += 1,
            Verdict::AskAnother => {
                let Origin::Validation { of } = *job.row.origin else { return };
                let Some(body) = job.row.body.clone() else { return };
                if !self.repeat(of, Submission::new((*job.row.spec).clone(), body), witnesses) {
                    self.counts.validations_undecided += 1;
                }
            }
        }
    }
}

/// Compares answers.
struct Court {
    exact: Determinism,
    factor: u32,
}

/// What two or three answers show.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// So much of each witness, in their order.
    Known(Vec<Option<Check>>),
    /// Two differ that should have agreed.
    AskAnother,
    /// Nothing, and a further one wouldn't help.
    Undecided,
}

impl Court {
    fn sampling(&self, a: &Witness, b: &Witness) -> Sampling {
        let same = a.class.is_some() && a.class == b.class;
        match self.exact {
            Determinism::Exact if same => Sampling::Deterministic,
            _ => Sampling::Random,
        }
    }

    fn agree(&self, a: &Witness, b: &Witness) -> Judgement {
        judge_validation(self.sampling(a, b), &a.facts, &b.facts, self.factor)
    }

    fn verdict(&self, witnesses: &[Witness]) -> Verdict {
        match witnesses {
            [a, b] => self.of_two(a, b),
            [a, b, c] => self.of_three(a, b, c),
            _ => Verdict::Undecided,
        }
    }

    fn of_two(&self, a: &Witness, b: &Witness) -> Verdict {
        match (self.agree(a, b), self.sampling(a, b)) {
            (Judgement::Passed, _) => Verdict::Known(vec![Some(Check::Passed); 2]),
            (Judgement::Unclear, _) => Verdict::Undecided,
            // One of them is odd, and nobody knows which. It takes many such pairs to exclude anybody.
            (Judgement::Failed, Sampling::Random) => Verdict::Known(vec![Some(Check::Failed); 2]),
            (Judgement::Failed, Sampling::Deterministic) => match (a.trust, b.trust) {
                (Trust::Own, Trust::Own) => Verdict::Undecided,
                (Trust::Own, _) => Verdict::Known(vec![None, Some(Check::Lied)]),
                (_, Trust::Own) => Verdict::Known(vec![Some(Check::Lied), None]),
                _ => Verdict::AskAnother,
            },
        }
    }

    /// The first two are of one class and differ, and the third was asked because it is of that class too.
    fn of_three(&self, a: &Witness, b: &Witness, c: &Witness) -> Verdict {
        if self.sampling(a, c) == Sampling::Random || self.sampling(b, c) == Sampling::Random {
            // It changed what it serves before it answered.
            return Verdict::Undecided;
        }
        let (passed, lied) = (Some(Check::Passed), Some(Check::Lied));
        match (self.agree(a, c), self.agree(b, c)) {
            (Judgement::Passed, Judgement::Failed) => Verdict::Known(vec![passed, lied, passed]),
            (Judgement::Failed, Judgement::Passed) => Verdict::Known(vec![lied, passed, passed]),
            (Judgement::Failed, Judgement::Failed) if c.trust == Trust::Own => {
                Verdict::Known(vec![lied, lied, None])
            }
            _ => Verdict::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::event::FinishReason;
    use crate::coordinator::integrity::OutputDigest;
    use crate::time::Span;

    /// A node of a class that gave an answer of 40 tokens.
    fn said(class: Option<u8>, answer: u8, trust: Trust) -> Witness {
        let facts = ResultFacts {
            output_tokens_max: 500,
            output_tokens: 40,
            output_bytes: 160,
            chunks: 4,
            digest: Some(OutputDigest([answer; 32])),
            took: Span::from_secs(1),
            finish: FinishReason::Stop,
        };
        let class = class.map(|class| (Digest([class; 32]), "r1".parse().expect("a name")));
        Witness { node: NodeKey::at(0), trust, class, facts }
    }

    #[test]
    fn only_who_stands_alone_against_two_has_lied() {
        use Check::{Failed, Lied, Passed};
        use Trust::{Open, Own};
        let one = |answer, trust| said(Some(1), answer, trust);
        let long = |class| {
            let mut witness = said(class, 9, Open);
            witness.facts.output_tokens = 400;
            witness
        };
        let known = |checks: &[Option<Check>]| Verdict::Known(checks.to_vec());
        let exact = Court { exact: Determinism::Exact, factor: 4 };
        for (witnesses, expected) in [
            (vec![one(1, Open), one(1, Open)], known(&[Some(Passed); 2])),
            (vec![one(1, Open), one(2, Open)], Verdict::AskAnother),
            (vec![one(1, Own), one(2, Open)], known(&[None, Some(Lied)])),
            (vec![one(1, Open), one(2, Own)], known(&[Some(Lied), None])),
            (vec![one(1, Own), one(2, Own)], Verdict::Undecided),
            (vec![one(1, Open), said(Some(2), 2, Open)], known(&[Some(Passed); 2])),
            (vec![one(1, Open), said(None, 2, Open)], known(&[Some(Passed); 2])),
            (vec![said(None, 1, Open), said(None, 2, Open)], known(&[Some(Passed); 2])),
            (vec![one(1, Open), long(Some(2))], known(&[Some(Failed); 2])),
            (
                vec![one(1, Open), one(2, Open), one(1, Open)],
                known(&[Some(Passed), Some(Lied), Some(Passed)]),
            ),
            (
                vec![one(1, Open), one(2, Open), one(2, Open)],
                known(&[Some(Lied), Some(Passed), Some(Passed)]),
            ),
            (vec![one(1, Open), one(2, Open), one(3, Open)], Verdict::Undecided),
            (vec![one(1, Open), one(2, Open), one(3, Own)], known(&[Some(Lied), Some(Lied), None])),
            (vec![one(1, Open), one(2, Open), said(Some(2), 1, Open)], Verdict::Undecided),
        ] {
            assert_eq!(exact.verdict(&witnesses), expected, "{witnesses:?}");
        }
        let sampled = Court { exact: Determinism::Sampled, factor: 4 };
        assert_eq!(sampled.verdict(&[one(1, Open), one(2, Open)]), known(&[Some(Passed); 2]));
    }
}
