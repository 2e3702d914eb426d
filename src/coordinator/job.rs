//! A job from acceptance to outcome: its states, who may change them, and the row that survives.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};

use super::admit::Admitted;
use super::backlog::{Place, Seat, Stamp};
use super::effect::{Assignment, CancelCause, End, Usage};
use super::eligibility::Need;
use super::event::{JobError, JobSpec, Origin, Tenant};
use super::integrity::ResultFacts;
use super::ledger::Owner;
use super::names::{NamespaceKey, NodeKey};
use super::rare::{Rare, Usual};
use super::timers::TimerKey;
use super::trace::{TRACE_ENTRIES_MAX, Trace, TraceEntry, TraceEvent};
use crate::credits::{Credits, Price};
use crate::ids::{ClientId, JobId, Lsn, ModelName, Namespace, NodeId, ReservationId};

use crate::time::{Span, Time};

/// Where a job stands. [`Job::transition`] is the only writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Waits for a node: from a submit, or back from an attempt that delivered nothing.
    Queued,
    /// A node has capacity set aside and was told.
    Reserved,
    /// The node began.
    Running,
    /// Ended with an answer.
    Succeeded,
    /// Ended without; a dead letter.
    Failed,
    /// Ended by its client, the operator or a restart.
    Cancelled,
    /// Waited longer than its TTL.
    Expired,
}

impl JobState {
    /// Every allowed change of state (CORE section 4), and no other.
    pub fn may_become(self, next: JobState) -> bool {
        use JobState::{Cancelled, Expired, Failed, Queued, Reserved, Running, Succeeded};
        match self {
            Queued => matches!(next, Reserved | Failed | Cancelled | Expired),
            Reserved => matches!(next, Queued | Running | Succeeded | Failed | Cancelled | Expired),
            Running => matches!(next, Queued | Succeeded | Failed | Cancelled | Expired),
            Succeeded | Failed | Cancelled | Expired => false,
        }
    }

    /// Whether the job has not ended.
    pub fn is_live(self) -> bool {
        matches!(self, JobState::Queued | JobState::Reserved | JobState::Running)
    }

    /// The word that the API, the logs and the metrics use.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Reserved => "reserved",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Expired => "expired",
        }
    }
}

/// A live job as the core holds it.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// What survives.
    pub(super) row: JobRow,
    /// Whose outboxes hear of it; none when nobody waits.
    pub(super) clients: Listeners,
    /// Where it waits.
    pub(super) waits: Waits,
    /// Its TTL's timer, while it waits.
    pub(super) ttl_timer: Option<TimerKey>,
    /// The step that accepted it.
    pub(super) submit_lsn: Lsn,
    /// Dense names, so that the hot path looks nothing up.
    pub(super) namespace: NamespaceKey,
    /// What it needs of a node, on the model that it runs on now.
    pub(super) need: Need,
    /// What the rest of the core knows of it once it is more than one that waits.
    pub(super) past: Rare<Past>,
    /// Whether its row is to be emitted at the end of this step.
    pub(super) row_state: RowState,
}

/// What most waiting jobs don't have yet.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Past {
    /// The reservation that works for it now.
    pub(super) reservation: Option<ReservationId>,
    /// Its namespace's virtual start when it was last dispatched: a job that comes back keeps its place.
    pub(super) stamp: Option<Stamp>,
    /// How long it could have been placed before it was last taken out of the backlog.
    pub(super) waited: Span,
    /// What its answer looks like to whoever judges it; set just before it ends.
    pub(super) facts: Option<ResultFacts>,
    /// Nodes that failed it and can't be trusted to do better, at most `FAILED_NODES_MAX`.
    pub(super) failed_on: Vec<NodeKey>,
    /// Since when it has been the next one but didn't fit a node's free capacity.
    pub(super) unfit_since: Option<Time>,
}

impl Usual for Past {
    fn usual() -> &'static Self {
        static USUAL: LazyLock<Past> = LazyLock::new(Past::default);
        &USUAL
    }
}

/// The clients of a job: hardly ever more than one.
#[derive(Debug, Clone, Default)]
pub(super) struct Listeners {
    first: Option<ClientId>,
    more: Rare<Vec<ClientId>>,
}

impl Listeners {
    pub(super) fn iter(&self) -> impl Iterator<Item = &ClientId> {
        self.first.iter().chain(self.more.iter())
    }

    pub(super) fn push(&mut self, client: ClientId) {
        match self.first {
            None => self.first = Some(client),
            Some(_) => self.more.push(client),
        }
    }

    pub(super) fn remove(&mut self, client: ClientId) {
        if self.first == Some(client) {
            self.first = (!self.more.is_empty()).then(|| self.more.remove(0));
        } else if !self.more.is_empty() {
            self.more.retain(|id| *id != client);
        }
    }
}

impl From<Option<ClientId>> for Listeners {
    fn from(first: Option<ClientId>) -> Self {
        Self { first, more: Rare::default() }
    }
}

impl Usual for Vec<ClientId> {
    fn usual() -> &'static Self {
        static USUAL: Vec<ClientId> = Vec::new();
        &USUAL
    }
}

/// Where a queued job waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waits {
    /// It doesn't: a node has it.
    Not,
    /// For its time: `not_before`, or the end of a backoff.
    ForTime(TimerKey),
    /// For a node.
    ForNode(Seat),
}

/// Whether a job's row changed in the step that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowState {
    Kept,
    Changed,
}

impl Job {
    /// What a node is given to run it with.
    pub(super) fn assignment(&self, reservation: ReservationId) -> Assignment {
        let (row, spec) = (&self.row, &self.row.spec);
        Assignment {
            reservation,
            job: row.id,
            environment: spec.environment,
            endpoint: spec.endpoint,
            model: row.model().clone(),
            model_index: row.model_index,
            body: row.body.clone().expect("a live job has its body"),
            input_tokens: spec.input_tokens,
            output_tokens_max: spec.output_tokens_max,
        }
    }

    /// Tokens of a node's cache that it takes.
    pub(super) fn kv_tokens(&self) -> u64 {
        self.row.tokens_max()
    }

    /// The place of a seat that it has in the backlog.
    pub(super) fn place_of(&self, seat: Seat) -> Place {
        seat.place(self.row.spec.tier, self.namespace, self.row.sequence)
    }

    /// The only writer of a job's state.
    pub(super) fn transition(&mut self, next: JobState) {
        let state = self.row.state;
        assert!(
            state.may_become(next),
            "job {}: {} may not become {}",
            self.row.id,
            state.word(),
            next.word()
        );
        self.row.state = next;
    }

    /// Adds a line to the trace; beyond the bound, only the count goes on.
    pub(super) fn note(&mut self, at: Time, what: TraceEvent) {
        if self.row.trace.len() < TRACE_ENTRIES_MAX {
            self.row.trace.push(TraceEntry { at, what });
        } else {
            self.row.trace_dropped += 1;
        }
    }
}

/// Most attempts whose history is kept with a job.
pub const ATTEMPTS_KEPT_MAX: usize = 16;

/// What is kept of a job: the state after each change. A finished job is only this.
///
/// What nodes and the end leave, which a job that waits for its first node doesn't have, is kept apart as its
/// [`Progress`], and read as if it stood here.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// What was asked for.
    pub spec: Arc<JobSpec>,
    /// Where it comes from.
    pub origin: Rare<Origin>,
    /// The client's raw body; dropped once the job has ended, unless it failed: dead letters are kept whole.
    pub body: Option<Arc<[u8]>>,
    /// Which model it runs on: 0 is the one asked for, its fallbacks follow.
    pub model_index: u32,
    /// Where it stands.
    pub state: JobState,
    /// When it was accepted.
    pub submitted_at: Time,
    /// When it expires if it still waits.
    pub expires_at: Time,
    /// Not dispatched before this: from the request, or the end of a backoff.
    pub not_before: Time,
    /// Prices that were in force, of the model and its fallbacks in order.
    pub prices: Arc<[Price]>,
    /// Held from its payer while it lives; zero afterwards.
    pub hold: Credits,
    /// Its place among all jobs, by when it could first have been placed; 0 until then. It keeps it for life.
    pub sequence: u64,
    /// Every decision with its time, oldest first.
    pub trace: Trace,
    /// What else has happened to it.
    pub progress: Rare<Progress>,
}

/// What has happened to a job since it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Set once somebody asked for its end while a node had it.
    pub cancel_requested: Option<CancelCause>,
    /// When it was last handed to a node.
    pub dispatched_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// What was charged at the end.
    pub charged: Credits,
    /// Times that a node was given it, whatever came of that; names the output.
    pub attempts: u32,
    /// Attempts that failed or missed a deadline.
    pub failed_attempts: u32,
    /// Of those, on the model that it runs on now.
    pub failed_on_model: u32,
    /// Nodes that lost it; counted apart from failures.
    pub lost_attempts: u32,
    /// Declines since the last attempt.
    pub declines: u32,
    /// Local attempts that the box itself didn't survive.
    pub box_cuts: u32,
    /// The claim that works for it now.
    pub reservation: Option<ReservationRow>,
    /// Who ran it last.
    pub node: Option<NodeId>,
    /// The last failure.
    pub error: Option<JobError>,
    /// How it ended; set with the final state.
    pub end: Option<End>,
    /// What was used and billed.
    pub usage: Usage,
    /// Attempts that are over, oldest first.
    pub history: Vec<AttemptRow>,
    /// Lines that the trace had no room for.
    pub trace_dropped: u32,
}

impl Usual for Progress {
    fn usual() -> &'static Self {
        static USUAL: LazyLock<Progress> = LazyLock::new(Progress::default);
        &USUAL
    }
}

impl Deref for JobRow {
    type Target = Progress;
    fn deref(&self) -> &Progress {
        &self.progress
    }
}

impl DerefMut for JobRow {
    fn deref_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }
}

/// Who pays for a job.
pub(super) fn payer_of(origin: &Origin, namespace: &Namespace) -> Owner {
    if origin.is_system() { Owner::Integrity } else { Owner::Namespace(namespace.clone()) }
}

impl JobRow {
    /// The row of a job that was just accepted.
    pub(super) fn accepted(
        id: JobId,
        spec: JobSpec,
        origin: Origin,
        body: Arc<[u8]>,
        admitted: &Admitted,
        now: Time,
    ) -> Self {
        Self {
            id,
            origin: origin.into(),
            body: Some(body),
            model_index: 0,
            state: JobState::Queued,
            submitted_at: now,
            expires_at: now + spec.ttl,
            not_before: spec.not_before.unwrap_or_default(),
            spec: Arc::new(spec),
            prices: Arc::clone(&admitted.prices),
            hold: admitted.hold,
            sequence: 0,
            trace: Trace::default(),
            progress: Rare::default(),
        }
    }

    /// Bytes of its body.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.len() as u64)
    }

    /// Whether it belongs to whom asks; `None` asks as the operator.
    pub fn is_of(&self, tenant: Option<&Tenant>) -> bool {
        tenant.is_none_or(|tenant| {
            self.spec.namespace == tenant.namespace
                && self.spec.environment == tenant.environment
                && !self.origin.is_system()
        })
    }

    /// Who pays for it.
    pub fn payer(&self) -> Owner {
        payer_of(&self.origin, &self.spec.namespace)
    }

    /// The model that it runs on: the one asked for, or one of its fallbacks.
    pub fn model(&self) -> &ModelName {
        self.spec.model_at(self.model_index)
    }

    /// The price on the model that it runs on.
    pub fn price(&self) -> Price {
        self.prices[self.model_index as usize]
    }

    /// Every token that it may use: what a dispatch charges its namespace's virtual time with.
    pub fn tokens_max(&self) -> u64 {
        u64::from(self.spec.input_tokens) + u64::from(self.spec.output_tokens_max)
    }
}

/// What is kept of a live reservation, with its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRow {
    /// The claim.
    pub id: ReservationId,
    /// On whom.
    pub node: NodeId,
    /// When the node was told.
    pub assigned_at: Time,
    /// When the whole attempt is overdue.
    pub attempt_due: Time,
}

/// An attempt that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// The claim.
    pub reservation: ReservationId,
    /// Who.
    pub node: NodeId,
    /// On which model.
    pub model: ModelName,
    /// When the node was told.
    pub assigned_at: Time,
    /// When it was over.
    pub ended_at: Time,
    /// What came of it.
    pub outcome: AttemptOutcome,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The answer.
    Succeeded,
    /// Nothing, and why.
    Failed(JobError),
    /// A missed deadline, which.
    TimedOut(&'static str),
    /// The node refused.
    Declined,
    /// The node lost it.
    Lost,
    /// The node never saw it.
    TakenBack,
    /// Its job ended meanwhile.
    Stopped,
    /// The box restarted under it.
    Cut,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_waits_takes_little() {
        // A million of them wait; what few of them have belongs into something rare.
        let place = super::super::slab::place_bytes::<Job>();
        assert!(place <= 280, "{place}");
        // With its two counts, 128 bytes: a size that allocators have.
        assert!(size_of::<JobSpec>() <= 112, "{}", size_of::<JobSpec>());
        assert!(size_of::<super::super::Timer>() <= 8, "{}", size_of::<super::super::Timer>());
    }

    #[test]
    fn clients_stay_in_order_of_coming() {
        let ids = |listeners: &Listeners| listeners.iter().map(|id| id.0).collect::<Vec<_>>();
        let mut listeners = Listeners::from(Some(ClientId(1)));
        [2, 3, 4].map(ClientId).into_iter().for_each(|id| listeners.push(id));
        listeners.remove(ClientId(3));
        listeners.remove(ClientId(1));
        listeners.remove(ClientId(9));
        assert_eq!(ids(&listeners), [2, 4]);
        [2, 4].map(ClientId).into_iter().for_each(|id| listeners.remove(id));
        assert_eq!(ids(&listeners), Vec::<u64>::new());
        listeners.push(ClientId(5));
        assert_eq!(ids(&listeners), [5]);
    }
}
