//! The oracle's own books, kept from rows alone: what a store that holds these rows says about the world.
//!
//! After a crash they are read again from the rows that survived, so nothing in here outlives its row. Nothing here
//! judges; it only remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use switchbox::coordinator::command::{NamespaceSettings, Scope};
use switchbox::coordinator::effect::{End, Row};
use switchbox::coordinator::event::{Environment, ErrorClass, JobSpec, Origin, Storing, Tier};
use switchbox::coordinator::job::{AttemptOutcome, JobRow, JobState};
use switchbox::coordinator::ledger::{Account, Owner, Posting, PostingId, Step, Subject};
use switchbox::coordinator::snapshot::Snapshot;
use switchbox::coordinator::standing::NodeRow;
use switchbox::coordinator::subcloud::Subcloud;
use switchbox::credits::Price;
use switchbox::ids::{IdempotencyKey, JobId, ModelName, Namespace, NodeId, ReservationId, SubcloudName};
use switchbox::time::{Span, Time};

/// What is remembered of a job.
#[derive(Debug, Clone)]
pub(crate) struct JobFacts {
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) origin: Origin,
    pub(crate) state: JobState,
    pub(crate) model: ModelName,
    pub(crate) model_index: u32,
    pub(crate) submitted_at: Time,
    pub(crate) expires_at: Time,
    pub(crate) not_before: Time,
    pub(crate) prices: Arc<[Price]>,
    pub(crate) hold: i64,
    pub(crate) charged: i64,
    pub(crate) body_bytes: u64,
    pub(crate) reservation: Option<(ReservationId, NodeId)>,
    pub(crate) end: Option<End>,
    pub(crate) ended_at: Option<Time>,
    /// Of what is kept of it once it has ended: its body, and at most its answer.
    pub(crate) kept_bytes: u64,
    pub(crate) node: Option<NodeId>,
    /// Nodes that failed it by their own fault on the model that it runs on.
    pub(crate) failed_on: Vec<NodeId>,
    /// Nodes on which an attempt came to nothing, for whatever reason: it may be kept off them.
    pub(crate) avoids: Vec<NodeId>,
}

impl JobFacts {
    fn of(row: &JobRow, body_bytes: u64) -> Self {
        let by_fault = |outcome: &AttemptOutcome| match outcome {
            AttemptOutcome::Failed(error) => error.class == ErrorClass::Node,
            AttemptOutcome::TimedOut(_) => true,
            _ => false,
        };
        let failed = row.history.iter().filter(|a| a.model == *row.model() && by_fault(&a.outcome));
        Self {
            spec: Arc::clone(&row.spec),
            origin: (*row.origin).clone(),
            state: row.state,
            model: row.model().clone(),
            model_index: row.model_index,
            submitted_at: row.submitted_at,
            expires_at: row.expires_at,
            not_before: row.not_before,
            prices: Arc::clone(&row.prices),
            hold: row.hold.0,
            charged: row.charged.0,
            body_bytes,
            reservation: row.reservation.as_ref().map(|r| (r.id, r.node.clone())),
            end: row.end.clone(),
            ended_at: row.ended_at,
            kept_bytes: super::kept::bytes_of(row),
            node: row.node.clone(),
            failed_on: failed.map(|a| a.node.clone()).collect(),
            avoids: row.history.iter().map(|a| a.node.clone()).collect(),
        }
    }

    /// The tier that it may compete in at a time: an old batch job competes as a standard one.
    pub(crate) fn tier_at(&self, now: Time, batch_age: Span) -> Tier {
        match self.spec.tier {
            Tier::Batch if now.since(self.submitted_at) > batch_age => Tier::Standard,
            tier => tier,
        }
    }

    /// Tokens of cache that it may need.
    pub(crate) fn tokens_max(&self) -> u64 {
        u64::from(self.spec.input_tokens) + u64::from(self.spec.output_tokens_max)
    }

    /// Whose credits pay for it.
    pub(crate) fn payer(&self) -> Account {
        let owner = match self.origin.is_system() {
            true => Owner::Integrity,
            false => Owner::Namespace(self.spec.namespace.clone()),
        };
        Account { environment: self.spec.environment, owner }
    }
}

/// Everything that rows say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    pub(crate) jobs: BTreeMap<JobId, JobFacts>,
    /// Those that wait, by when they expire.
    pub(crate) waiting: BTreeSet<(Time, JobId)>,
    /// Which live job a reservation works for.
    pub(crate) live: BTreeMap<ReservationId, JobId>,
    pub(crate) postings: BTreeMap<PostingId, Posting>,
    /// What postings add up to.
    pub(crate) sums: BTreeMap<Account, i64>,
    /// What those that aren't forgotten add up to.
    pub(crate) kept_sums: BTreeMap<Account, i64>,
    pub(crate) balances: BTreeMap<Account, i64>,
    /// What balances say that forgotten ones add up to.
    pub(crate) folded: BTreeMap<Account, i64>,
    /// Held by live jobs.
    pub(crate) held: BTreeMap<Account, i64>,
    pub(crate) nodes: BTreeMap<NodeId, NodeRow>,
    pub(crate) namespaces: BTreeMap<Namespace, NamespaceSettings>,
    pub(crate) paused: BTreeSet<Scope>,
    pub(crate) subclouds: BTreeMap<(Environment, SubcloudName), Subcloud>,
    /// The configurations in force.
    pub(crate) configurations: BTreeMap<Environment, Snapshot>,
    /// Jobs that came with a key.
    pub(crate) keys: BTreeMap<IdempotencyKey, Vec<JobId>>,
    /// The job that each key stands for, as its row says.
    pub(crate) standing_keys: BTreeMap<IdempotencyKey, JobId>,
    /// Jobs whose answers are stored, each with whether it may stay when a client has it.
    pub(crate) answers: BTreeMap<JobId, Storing>,
    /// Jobs that ended and aren't forgotten.
    pub(crate) kept: BTreeSet<JobId>,
    /// Dead letters, and what they were requeued as.
    pub(crate) dead: BTreeMap<JobId, Option<JobId>>,
    /// When a test job of a model last succeeded on a node.
    pub(crate) tested: BTreeMap<(NodeId, ModelName), Time>,
}

impl Book {
    /// Takes a row over.
    pub(crate) fn apply(&mut self, row: &Row) {
        match row {
            Row::Job(job) => self.apply_job(job),
            Row::Posting(posting) => self.apply_posting(posting),
            Row::OperationForgotten(operation, _) => self.forget_posting(Subject::Operation(*operation)),
            Row::Balance(balance) => {
                self.balances.insert(balance.account.clone(), balance.balance.0);
                self.folded.insert(balance.account.clone(), balance.folded.map_or(0, |folded| folded.0));
            }
            Row::Node(node) => drop(self.nodes.insert(node.node.clone(), (**node).clone())),
            Row::Namespace(settings) => {
                self.namespaces.insert(settings.namespace.clone(), (**settings).clone());
            }
            Row::DeadLetter(job, requeued_as) => drop(self.dead.insert(*job, *requeued_as)),
            Row::DeadLetterForgotten(job) => drop(self.dead.remove(job)),
            Row::Paused(scope) => drop(self.paused.insert(scope.clone())),
            Row::Resumed(scope) => drop(self.paused.remove(scope)),
            Row::Subcloud(subcloud) => {
                let place = (subcloud.environment, subcloud.name.clone());
                self.subclouds.insert(place, (**subcloud).clone());
            }
            Row::Configuration(snapshot) => {
                self.configurations.insert(snapshot.environment, (**snapshot).clone());
            }
            Row::SubcloudForgotten(environment, name) => {
                self.subclouds.remove(&(*environment, name.clone()));
            }
            Row::JobForgotten(job) => {
                self.kept.remove(job);
                self.answers.remove(job);
                self.forget_posting(Subject::Job(*job));
            }
            Row::AnswerForgotten(job) => drop(self.answers.remove(job)),
            Row::Key(row) => drop(self.standing_keys.insert(row.key, row.entry.job)),
            Row::KeyForgotten(key) => drop(self.standing_keys.remove(key)),
            Row::Price(_)
            | Row::Template(_)
            | Row::TemplateForgotten(..)
            | Row::Feedback(..)
            | Row::Proof(..)
            | Row::Invite(_)
            | Row::InviteForgotten(_) => {}
        }
    }

    fn apply_job(&mut self, row: &JobRow) {
        let before = self.jobs.remove(&row.id);
        let body_bytes = match (&before, &row.body) {
            (Some(before), _) => before.body_bytes,
            (None, body) => body.as_ref().map_or(0, |body| body.len() as u64),
        };
        if let Some(before) = &before {
            self.waiting.remove(&(before.expires_at, row.id));
            self.hold(before, -1);
            if let Some((reservation, _)) = &before.reservation {
                self.live.remove(reservation);
            }
        } else if let (Some(keyed), Origin::Client) = (*row.spec.key, &*row.origin) {
            self.keys.entry(keyed.key).or_default().push(row.id);
        }
        let facts = JobFacts::of(row, body_bytes);
        if facts.state == JobState::Queued {
            self.waiting.insert((facts.expires_at, row.id));
        }
        if facts.state.is_live() {
            self.hold(&facts, 1);
            if let Some((reservation, _)) = &facts.reservation {
                self.live.insert(*reservation, row.id);
            }
        }
        if let (Origin::Test { node }, JobState::Succeeded, Some(at)) =
            (&*row.origin, row.state, row.ended_at)
        {
            self.tested.insert((node.clone(), row.model().clone()), at);
        }
        if !facts.state.is_live() {
            self.kept.insert(row.id);
            let stored = !row.spec.is_tied_to_client() && !row.origin.is_system();
            if row.state == JobState::Succeeded && stored {
                self.answers.insert(row.id, row.spec.storing);
            }
        }
        self.jobs.insert(row.id, facts);
    }

    fn hold(&mut self, facts: &JobFacts, sign: i64) {
        if facts.state.is_live() {
            *self.held.entry(facts.payer()).or_default() += sign * facts.hold;
        }
    }

    fn apply_posting(&mut self, posting: &Posting) {
        if self.postings.insert(posting.id, posting.clone()).is_some() {
            return;
        }
        for (owner, credits) in &posting.legs {
            let account = Account { environment: posting.environment, owner: owner.clone() };
            *self.sums.entry(account.clone()).or_default() += credits.0;
            *self.kept_sums.entry(account).or_default() += credits.0;
        }
    }

    fn forget_posting(&mut self, subject: Subject) {
        let steps = [Step::Capture, Step::Deposit, Step::Adjust, Step::Transfer];
        let ids = steps.map(|step| PostingId { subject, step });
        for posting in ids.iter().filter_map(|id| self.postings.get(id)) {
            for (owner, credits) in &posting.legs {
                let account = Account { environment: posting.environment, owner: owner.clone() };
                *self.kept_sums.entry(account).or_default() -= credits.0;
            }
        }
    }

    /// The job that a key stands for: one that lives, or that succeeded.
    pub(crate) fn key_job(&self, key: IdempotencyKey) -> Option<JobId> {
        let stands = |job: &&JobId| {
            let state = self.jobs[job].state;
            state.is_live() || state == JobState::Succeeded
        };
        self.keys.get(&key)?.iter().rev().find(stands).copied()
    }

    /// How many live jobs there are in each live state: queued, reserved, running.
    pub(crate) fn live_states(&self) -> [u64; 3] {
        let count = |state| self.live.values().filter(|job| self.jobs[job].state == state).count() as u64;
        [self.waiting.len() as u64, count(JobState::Reserved), count(JobState::Running)]
    }
}
