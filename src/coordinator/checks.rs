//! The looks that the box takes at results: what is billed, what is plausible, and the jobs that it mixes in among
//! the real ones to see whether nodes do what they say.

use super::Coordinator;
use super::effect::{CancelCause, Effect, End, Notice, Usage};
use super::event::{Completion, FinishReason, JobSpec, Origin, Submission};
use super::fleet::Sample;
use super::integrity::{
    Expect, Gravity, Judgement, ResultFacts, Seen, billed_input, billed_output, judge_blind, plausible,
};
use super::job::Job;
use super::ledger::{Account, Owner};
use super::names::NodeKey;
use super::noise::{Purpose, choose, noise};
use super::slab::Key;
use super::snapshot::Participation;
use super::spec::{Environment, InputCount};
use super::standing::{Check, Trust};
use super::upkeep::{Passed, submission_of};
use crate::ids::{JobId, ReservationId};
use crate::time::Time;

impl Coordinator {
    /// What nodes of an environment must put up with.
    pub(super) fn participation(&self, environment: Environment) -> Participation {
        self.snapshots.of(environment).map_or(self.limits.participation, |snapshot| snapshot.participation)
    }

    /// A result as it is judged.
    pub(super) fn facts_of(
        &self,
        completion: &Completion,
        finish: FinishReason,
        began_at: Time,
    ) -> ResultFacts {
        let max = self.fleet.reservation(completion.reservation).and_then(|reservation| reservation.job);
        let output_tokens_max = max.map_or(0, |key| self.jobs[key].row.spec.output_tokens_max);
        ResultFacts {
            output_tokens_max,
            output_tokens: completion.output_tokens,
            output_bytes: completion.seen.bytes,
            chunks: completion.seen.chunks,
            digest: completion.digest,
            took: self.now.since(began_at),
            finish,
        }
    }

    /// Whether a remote node's result can be. What can't is refused, what is odd is counted.
    pub(super) fn check_plausible(
        &mut self,
        node: NodeKey,
        key: Key,
        facts: &ResultFacts,
    ) -> Result<(), String> {
        if self.fleet.node(node).is_local() {
            return Ok(());
        }
        let usual = self.participation(self.jobs[key].row.spec.environment).plausibility;
        match plausible(facts, &usual) {
            Ok(()) => Ok(()),
            Err(implausible) if implausible.gravity() == Gravity::Rejected => {
                self.counts.results_rejected += 1;
                Err(format!("the node's result can't be: {}", implausible.sentence()))
            }
            Err(_) => {
                self.counts.results_flagged += 1;
                Ok(())
            }
        }
    }

    /// What a job's answer is billed as (SPEC section 6): the box's own counts where it has them.
    pub(super) fn billed(&self, key: Key, completion: &Completion) -> Usage {
        let row = &self.jobs[key].row;
        let spec = &row.spec;
        let count = match spec.input_count {
            InputCount::Exact => Some(spec.input_tokens),
            InputCount::AtMost => None,
        };
        let body_bytes = row.body.as_ref().map_or(0, |body| body.len() as u64);
        let input_tokens =
            billed_input(count, completion.input_tokens, body_bytes, spec.messages).min(spec.input_tokens);
        let seen = Seen { tokens: completion.seen.tokens, bytes: completion.seen.bytes };
        Usage {
            input_tokens,
            cached_tokens: completion.cached_tokens.min(input_tokens),
            output_tokens: billed_output(completion.output_tokens, seen, spec.output_tokens_max),
        }
    }

    /// Learns how fast the node and the model are.
    pub(super) fn learn_from(&mut self, id: ReservationId, completion: &Completion, usage: Usage) {
        let Some(reservation) = self.fleet.reservation(id) else { return };
        let (node, Some(model), began_at) = (reservation.node, reservation.model, reservation.began_at)
        else {
            return;
        };
        let (Some(first), Some(last)) = (completion.seen.first_at, completion.seen.last_at) else { return };
        let sample = Sample {
            input_tokens: usage.input_tokens - usage.cached_tokens,
            output_tokens: usage.output_tokens,
            prefill: first.since(began_at),
            decode: last.since(first),
        };
        self.fleet.means_mut(model).learn(&sample);
        if let Some(serving) = self.fleet.node_mut(node).serving_mut(model) {
            serving.pace.learn(&sample);
        }
    }

    /// After a client's job was accepted, a blind one may follow.
    pub(super) fn mix_in(&mut self, key: Key) {
        let row = &self.jobs[key].row;
        let (id, environment) = (row.id, row.spec.environment);
        let rate = self.participation(environment).blind_rate_ppm;
        let Some(template) = self.templates.after(&self.boot.secret, id, &row.spec.model, rate) else {
            return;
        };
        let origin = Origin::Blind { template: template.name.clone() };
        let mut submission = submission_of(template, environment);
        submission.spec.constraints.trust = Some(Trust::Open);
        // Nodes that left the global pool are checked where they work.
        submission.spec.constraints.subcloud = self.jobs[key].row.spec.constraints.subcloud.clone();
        let Some(node) = self.blind_node(id, &submission) else { return };
        if !self.is_paid(&submission.spec) {
            return;
        }
        submission.spec.constraints.allow = vec![self.fleet.node(node).id().clone()];
        if self.accept(submission, origin, None).is_ok() {
            self.counts.blind += 1;
        }
    }

    /// Whether the integrity account has what a check may cost. If it hasn't, the check isn't made: that is counted, and
    /// said once until there is credit again. (Test jobs are made on credit: without them no node could ever begin.)
    pub(super) fn is_paid(&mut self, spec: &JobSpec) -> bool {
        let environment = spec.environment;
        let price = self.prices.price_at(environment, &spec.model, spec.tier, self.now);
        let worst = price.worst_cost(spec.input_tokens, spec.output_tokens_max);
        let account = self.ledger.statement(&Account { environment, owner: Owner::Integrity });
        let is_paid = account.balance.0.saturating_sub(account.held.0) >= worst.0;
        let was_short = std::mem::replace(&mut self.checks_short[environment as usize], !is_paid);
        if !is_paid {
            self.counts.checks_unpaid += 1;
            if !was_short {
                self.effects.push(Effect::Notice(Notice::ChecksUnpaid(environment)));
            }
        }
        is_paid
    }

    /// A node for a blind job, drawn among those that could and aren't the operator's own.
    fn blind_node(&self, id: JobId, submission: &Submission) -> Option<NodeKey> {
        let spec = &submission.spec;
        let model = self.models.key(&spec.model)?;
        let need = super::eligibility::Need::of(spec, model, 0);
        let could = |key: &NodeKey| {
            let node = self.fleet.node(*key);
            node.record.row().trust < Trust::Own
                && super::eligibility::lack(node, &need, &spec.model, &self.subclouds, self.now).is_none()
        };
        // From a place that nobody can foresee, around the ring of nodes.
        let chance = noise(&self.boot.secret, Purpose::BlindNode, id.counter, u64::from(id.epoch));
        let count = self.fleet.serving(model).count();
        let start = choose(chance, count)?;
        let ring = self.fleet.serving(model).skip(start).chain(self.fleet.serving(model).take(start));
        ring.into_iter().find(could)
    }

    /// A job of the system's own ended: what it shows of its node is noted.
    pub(super) fn system_job_ended(&mut self, job: &Job, end: &End) {
        match &*job.row.origin {
            Origin::Client | Origin::Requeued { .. } => {}
            Origin::Test { node } => {
                let node = node.clone();
                self.test_ended(job, &node, passed(job, end, &self.test_judgement(job)));
            }
            Origin::Blind { template } => {
                let model = &job.row.spec.model;
                let template = self.templates.iter().find(|t| t.name == *template && t.model == *model);
                let judgement = template.zip(job.past.facts.as_ref()).map(|(t, facts)| judge_blind(t, facts));
                let node = job.row.node.as_ref().and_then(|node| self.fleet.find(node));
                if let (Some(judgement), Some(template), Some(node)) = (judgement, template, node)
                    && let Some(check) = blind_check(judgement, &template.expect)
                {
                    self.check_of(node, check);
                }
            }
            Origin::Validation { .. } => self.validated(job),
        }
    }

    /// A test job that came from the pool must give its answer.
    fn test_judgement(&self, job: &Job) -> Judgement {
        let (Some(facts), Some(body)) = (&job.past.facts, &job.row.body) else { return Judgement::Unclear };
        let model = &job.row.spec.model;
        let template = self.templates.iter().find(|t| t.model == *model && t.body == *body);
        template.map_or(Judgement::Unclear, |template| judge_blind(template, facts))
    }

    /// A check says something of a node. The operator's own machines are what the others are measured by.
    pub(super) fn check_of(&mut self, node: NodeKey, check: Check) {
        if self.fleet.node(node).record.row().trust == Trust::Own {
            return;
        }
        let (now, rules) = (self.now, self.limits.penalties);
        self.counts.check(check);
        let verdict = self.fleet.node_mut(node).record.on_check(check, now, &rules);
        self.judged(node, verdict);
    }
}

/// What a blind job shows: where its answers are known, one that isn't among them is a lie.
fn blind_check(judgement: Judgement, expect: &Expect) -> Option<Check> {
    match (judgement, expect) {
        (Judgement::Passed, _) => Some(Check::Passed),
        (Judgement::Failed, Expect::Digests(_)) => Some(Check::Lied),
        (Judgement::Failed, Expect::Tokens { .. }) => Some(Check::Failed),
        (Judgement::Unclear, _) => None,
    }
}

/// How a test job went, by its end and what its answer showed.
fn passed(job: &Job, end: &End, judgement: &Judgement) -> Passed {
    match end {
        End::Succeeded(_) if *judgement == Judgement::Failed => Passed::No,
        End::Succeeded(_) => Passed::Yes,
        End::Failed(_) if job.row.attempts > 0 && !was_taken_back(job) => Passed::No,
        End::Failed(_) | End::Expired => Passed::Unclear,
        End::Cancelled(CancelCause::Client | CancelCause::Operator) => Passed::Unclear,
        End::Cancelled(CancelCause::Shutdown | CancelCause::Interrupted) => Passed::Unclear,
    }
}

fn was_taken_back(job: &Job) -> bool {
    let outcome = job.row.history.last().map(|attempt| &attempt.outcome);
    use super::job::AttemptOutcome::{Declined, Lost, TakenBack};
    matches!(outcome, Some(TakenBack | Declined | Lost))
}
