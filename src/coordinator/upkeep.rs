//! What a node's time and conduct do: heartbeats missed, cooldowns over, tests due, faults, and where it stands by all
//! that. A change of standing moves the node into or out of the lanes.

use std::sync::Arc;

use super::effect::{NodeMessage, Row};
use super::event::{Environment, JobSpec, Mode, Origin, Submission, Tier};
use super::fleet::{Ending, ReservationState};
use super::integrity::{TEMPLATE_TOKENS_PER_MESSAGE, Template};
use super::job::Job;
use super::names::{ModelKey, NodeKey};
use super::noise::{Purpose, noise};
use super::slab::Key;
use super::spec::{Endpoint, InputCount};
use super::standing::{Fault, Standing, TrialDue, Trust, Verdict};
use super::{Coordinator, Timer};
use crate::ids::{Digest, ModelName, Namespace, NodeId, ReservationId};
use crate::time::{Span, Time};

/// After so many settled jobs a node's record is written, though nothing else changed.
const SETTLED_BETWEEN_ROWS: u64 = 32;
/// Tokens of the built-in test job.
const TEST_OUTPUT_TOKENS: u32 = 16;
const TEST_INPUT_TOKENS: u32 = 32;

impl Coordinator {
    /// Keeps a node's record.
    pub(super) fn keep_node(&mut self, key: NodeKey) {
        let row = self.fleet.node(key).record.row().clone();
        self.keep(Row::Node(Box::new(row)));
    }

    /// Counts a fault against a node; a bad enough record excludes it.
    pub(super) fn fault(&mut self, key: NodeKey, fault: Fault) {
        let (now, rules) = (self.now, self.limits.penalties);
        let node = self.fleet.node_mut(key);
        // What fails on the box itself is the box's: there is nobody to exclude it for.
        if node.is_local() {
            return;
        }
        let verdict = node.record.fault(fault, now, &rules);
        self.counts.faults += 1;
        self.judged(key, verdict);
    }

    /// A verdict is on record: an exclusion changes where the node stands.
    pub(super) fn judged(&mut self, key: NodeKey, verdict: Verdict) {
        if let Verdict::Excluded { .. } = verdict {
            self.counts.exclusions += 1;
            self.restand(key);
            self.arm_node(key);
        }
        self.keep_node(key);
    }

    /// A node brought a job to its end.
    pub(super) fn settled(&mut self, key: NodeKey) {
        let rules = self.limits.penalties;
        let node = self.fleet.node_mut(key);
        if node.is_local() {
            return;
        }
        node.record.on_settled(&rules);
        if node.record.row().conduct.settled_jobs.is_multiple_of(SETTLED_BETWEEN_ROWS) {
            self.keep_node(key);
        }
    }

    /// Takes a node out of its lanes. Jobs that it alone could serve may have to fall back.
    pub(super) fn leave_lanes(&mut self, key: NodeKey) {
        self.fleet.leave_lanes(key);
        self.nodes_moved = true;
    }

    /// Makes a node's lanes anew, and if it stands elsewhere than before, tells it and takes its work away where that
    /// is what it means.
    pub(super) fn restand(&mut self, key: NodeKey) {
        let now = self.now;
        self.leave_lanes(key);
        self.join_lanes(key);
        self.wake_picky(key);
        let node = self.fleet.node_mut(key);
        let standing = node.record.standing(now);
        let before = std::mem::replace(&mut node.stood, standing);
        if standing == before {
            return;
        }
        self.counts.standing(standing);
        if standing.revokes() {
            self.withdraw(key);
        }
        if self.fleet.node(key).is_here() {
            let cause = self.fleet.node(key).record.cause().cloned().unwrap_or_else(|| Arc::from(""));
            let node = self.fleet.node(key).id().clone();
            self.tell_node(node, NodeMessage::Standing(standing, cause));
        }
    }

    fn join_lanes(&mut self, key: NodeKey) {
        let models: Vec<ModelKey> = self.fleet.node(key).models.iter().map(|serving| serving.model).collect();
        for model in models {
            let name = self.models[model].clone();
            let node = self.fleet.node(key);
            let takes_work = node
                .serving(model)
                .is_some_and(|serving| node.standing_for(serving, &name, self.now).takes_work());
            if takes_work {
                self.fleet.note_cache(key, model);
            }
            for environment in Environment::ALL {
                let lanes: Vec<_> =
                    self.backlog.lanes_of(super::backlog::Home { environment, model }).collect();
                self.fleet.join_lanes(key, lanes.into_iter(), &name, &self.subclouds, self.now);
            }
        }
        self.placing.offer(key);
    }

    /// Jobs that avoided other nodes for this one's sake are looked at again: it may be gone.
    pub(super) fn wake_picky(&mut self, key: NodeKey) {
        for serving in &self.fleet.node(key).models {
            for environment in Environment::ALL {
                let home = super::backlog::Home { environment, model: serving.model };
                if let Some(lane) = self.backlog.picky_lane(home).filter(|lane| !self.backlog.is_empty(*lane))
                {
                    self.placing.wake(lane);
                }
            }
        }
    }

    /// Takes back everything that a node works on.
    pub(super) fn withdraw(&mut self, key: NodeKey) {
        let works = self.fleet.held_by(key).filter(|reservation| {
            matches!(reservation.state, ReservationState::Assigned | ReservationState::Running)
        });
        let ids: Vec<ReservationId> = works.map(|reservation| reservation.id).collect();
        for id in ids {
            self.revoke(id, Ending::Withdrawn);
        }
    }

    /// A node that drains and has nothing left may leave.
    pub(super) fn drained(&mut self, key: NodeKey) {
        let node = self.fleet.node(key);
        if node.stood == Standing::Draining && node.holds.is_empty() {
            let node = node.id().clone();
            self.tell_node(node, NodeMessage::Drained);
        }
    }

    /// Sets a node's timer to the next thing that time may do to it.
    pub(super) fn arm_node(&mut self, key: NodeKey) {
        let node = self.fleet.node(key);
        if node.is_local() {
            return;
        }
        let now = self.now;
        let mut at = node.record.changes_at(now);
        let mut sooner = |time: Time| at = Some(at.map_or(time, |at: Time| at.min(time)));
        match node.record.away_since() {
            None => {
                sooner(node.heard_at + self.limits.heartbeat_timeout);
                if let Some(test) = self.test_due_at(key).filter(|_| !node.test_waits) {
                    sooner(test.max(now));
                }
            }
            Some(since) if !node.holds.is_empty() => sooner(since + self.limits.away_timeout),
            Some(_) => {}
        }
        let Some(at) = at else { return };
        if self.fleet.node(key).timer.is_some_and(|(armed, _)| armed <= at) {
            return;
        }
        let timer = self.timers.set(at, Timer::Node(key));
        if let Some((_, before)) = self.fleet.node_mut(key).timer.replace((at, timer)) {
            self.timers.clear(before);
        }
    }

    /// When a test job of some model is due on a node that is here.
    fn test_due_at(&self, key: NodeKey) -> Option<Time> {
        let node = self.fleet.node(key);
        if node.testing.is_some() || !node.record.standing(self.now).takes_tests() {
            return None;
        }
        let due = |serving: &super::fleet::Serving| match node.record.trial_due(
            &self.models[serving.model],
            serving.digest,
            self.now,
        ) {
            TrialDue::No => None,
            TrialDue::Now => Some(self.now),
            TrialDue::At(at) => Some(at),
        };
        let first =
            node.models.iter().filter(|serving| testable(node, serving).is_some()).filter_map(due).min()?;
        Some(first.max(node.test_not_before))
    }

    /// A node's timer fired.
    pub(super) fn node_due(&mut self, key: NodeKey) {
        let now = self.now;
        self.fleet.node_mut(key).timer = None;
        let node = self.fleet.node(key);
        match node.record.away_since() {
            None if now.since(node.heard_at) >= self.limits.heartbeat_timeout => {
                self.counts.heartbeats_missed += 1;
                self.node_away(key);
            }
            Some(since) if now.since(since) >= self.limits.away_timeout => {
                let held: Vec<ReservationId> = self.fleet.held_by(key).map(|held| held.id).collect();
                self.lose(key, &held);
            }
            _ => {}
        }
        if self.fleet.node(key).record.standing(now) != self.fleet.node(key).stood {
            self.restand(key);
        }
        self.test_if_due(key);
        self.arm_node(key);
    }

    /// Sends a node the test job that is due, if it has room.
    fn test_if_due(&mut self, key: NodeKey) {
        let now = self.now;
        if !self.fleet.node(key).is_here() || self.test_due_at(key).is_none_or(|at| at > now) {
            return;
        }
        if !self.places() {
            self.fleet.node_mut(key).test_not_before = now + self.limits.test_retry;
            return;
        }
        let node = self.fleet.node(key);
        let due = |serving: &super::fleet::Serving| {
            let name = &self.models[serving.model];
            let is_due = node.record.trial_due(name, serving.digest, now) == TrialDue::Now;
            testable(node, serving).filter(|_| is_due).map(|environment| (serving.model, environment))
        };
        let models: Vec<(ModelKey, Environment)> = node.models.iter().filter_map(due).collect();
        // A node that is busy gives its next slot to the test.
        let busy = models.iter().any(|(model, _)| !node.has_slot(*model));
        let sent = models.iter().find_map(|(model, environment)| self.test(key, *model, *environment));
        let node = self.fleet.node_mut(key);
        node.test_waits = sent.is_none() && busy;
        if sent.is_none() {
            node.test_not_before = if busy { now } else { now + self.limits.test_retry };
        }
    }

    /// Slots may be free: tests that wait for one go before anything else is placed there.
    pub(super) fn send_waiting_tests(&mut self) {
        while let Some(key) = self.tests_due.pop_first() {
            self.test_if_due(key);
        }
    }

    fn test(&mut self, key: NodeKey, model: ModelKey, environment: Environment) -> Option<()> {
        let name = self.models[model].clone();
        let node = self.fleet.node(key).id().clone();
        let subject = self.jobs_made + 1;
        let chance = noise(&self.boot.secret, Purpose::TestTemplate, subject, u64::from(self.boot.epoch));
        let submission = match self.templates.pick(&name, chance) {
            Some(template) => submission_of(template, environment),
            None => built_in_test(&name, environment),
        };
        let mut submission = submission;
        submission.spec.tier = Tier::Background;
        submission.spec.ttl = self.limits.test_timeout;
        submission.spec.constraints.trust = Some(Trust::Open);
        let tokens = u64::from(submission.spec.input_tokens) + u64::from(submission.spec.output_tokens_max);
        if !self.fleet.node(key).has_slot(model) || !self.fleet.node(key).has_room(tokens) {
            return None;
        }
        let job = self.accept(submission, Origin::Test { node }, None).ok()?;
        self.fleet.node_mut(key).testing = Some(job);
        self.counts.tests += 1;
        let id = self.next_reservation_id();
        self.begin_attempt(job, key, id);
        Some(())
    }

    /// How long an attempt may take.
    pub(super) fn attempt_timeout_of(&self, key: Key) -> Span {
        match *self.jobs[key].row.origin {
            Origin::Test { .. } => self.limits.test_timeout,
            _ => self.limits.attempt_timeout,
        }
    }

    /// A test job ended: the node has proven a model, or not.
    pub(super) fn test_ended(&mut self, job: &Job, node: &NodeId, passed: Passed) {
        let Some(key) = self.fleet.find(node) else { return };
        let (now, rules) = (self.now, self.limits.penalties);
        let name: ModelName = job.row.spec.model.clone();
        let digest =
            self.fleet.node(key).serving(job.need.model).map_or(Digest::default(), |serving| serving.digest);
        let test_retry = self.limits.test_retry;
        let entry = self.fleet.node_mut(key);
        entry.testing = None;
        let verdict = match passed {
            Passed::Yes => {
                entry.record.on_test_passed(&name, digest, now, &rules);
                self.counts.tests_passed += 1;
                Verdict::Noted
            }
            Passed::No => entry.record.on_test_failed(&name, digest, now, &rules),
            Passed::Unclear => {
                entry.test_not_before = now + test_retry;
                Verdict::Noted
            }
        };
        self.judged(key, verdict);
        self.restand(key);
        self.arm_node(key);
    }
}

/// How a test job went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    Yes,
    No,
    /// It never came to it: that says nothing of the node.
    Unclear,
}

/// A template as a client would submit it.
pub(super) fn submission_of(template: &Template, environment: Environment) -> Submission {
    // No prompt has more tokens than its request has bytes: where a template says so, nobody counted.
    let beyond = u64::from(template.input_tokens).checked_sub(template.body.len() as u64);
    let (input_count, messages) = match beyond {
        None => (InputCount::Exact, 1),
        Some(beyond) => (InputCount::AtMost, beyond / TEMPLATE_TOKENS_PER_MESSAGE),
    };
    let spec = JobSpec {
        input_count,
        messages: u32::try_from(messages).unwrap_or(u32::MAX),
        environment,
        mode: template.mode,
        tier: template.tier,
        input_tokens: template.input_tokens,
        output_tokens_max: template.output_tokens_max,
        ..JobSpec::plain(Namespace::named(SYSTEM_NAMESPACE), template.endpoint, template.model.clone())
    };
    Submission::new(spec, template.body.clone())
}

/// The namespace of the system's own jobs: it stands in fairness beside the others; the integrity account pays.
pub const SYSTEM_NAMESPACE: &str = "system.integrity";

/// A request that any chat model can answer.
fn built_in_test(model: &ModelName, environment: Environment) -> Submission {
    let name: String = model.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\').collect();
    let body = format!(
        r#"{{"model":"{name}","messages":[{{"role":"user","content":"Say hello."}}],"max_tokens":{TEST_OUTPUT_TOKENS}}}"#
    );
    let spec = JobSpec {
        environment,
        mode: Mode::Polling,
        input_tokens: TEST_INPUT_TOKENS,
        output_tokens_max: TEST_OUTPUT_TOKENS,
        ..JobSpec::plain(Namespace::named(SYSTEM_NAMESPACE), Endpoint::ChatCompletions, model.clone())
    };
    Submission::new(spec, body.into_bytes().into())
}

/// Where a node can be tested with a model: where it may run it.
fn testable(node: &super::fleet::Node, serving: &super::fleet::Serving) -> Option<Environment> {
    Environment::ALL.into_iter().find(|environment| node.may_serve(serving, *environment))
}
