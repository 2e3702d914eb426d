//! A core from rows: every live job is put back by the ordinary insert path.
//!
//! Whoever waited on a connection is gone with the process. Jobs that were tied to one end as interrupted, and so do
//! keyed streams that a node had; the others go on: those that a remote node has wait for it to come back and list
//! them, those that the box itself ran wait again, and one that keeps taking the box down is a dead letter.

use std::sync::Arc;

use super::backlog::Stamp;
use super::effect::{CancelCause, Effect, End, OpenOutput, Row};
use super::event::{Durability, ErrorClass, JobError, Mode, Origin};
use super::fleet::{Began, Capacity, Deadline, Reservation, ReservationState};
use super::job::{AttemptOutcome, Job, JobRow, JobState, Listeners, Past, ReservationRow, RowState, Waits};
use super::keys::KeyRow;
use super::ledger::Account;
use super::limits::{BOX_CUTS_MAX, Limits};
use super::mutant::mutant;
use super::names::NodeKey;
use super::retention::Kept;
use super::slab::Key;
use super::snapshot::{Snapshot, Snapshots};
use super::subcloud::{Subcloud, Subclouds};
use super::suits::output_bytes;
use super::trace::TraceEvent;
use super::{Boot, Coordinator, eligibility::Need};
use crate::ids::{NodeId, ReservationId, Session};
use crate::time::Time;

/// Rows that are put back after all others.
#[derive(Default)]
struct Read {
    jobs: Vec<JobRow>,
    subclouds: Vec<Subcloud>,
    snapshots: Vec<Snapshot>,
}

/// What becomes of a live job that was read back.
enum Fate {
    /// It waits for a node.
    Waits,
    /// A remote node may still have it.
    Continues(ReservationRow, Began),
    /// It ends.
    Interrupted(CancelCause),
    /// It took the box down once too often.
    Dead,
}

impl Coordinator {
    /// Rebuilds the core from rows, each the newest of its kind, in any order; `boot.at` is the time. What recovery
    /// itself decides is appended to `effects` as a first step.
    pub fn recover(
        boot: Boot,
        limits: Limits,
        durability: Durability,
        rows: Vec<Row>,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let at = rows.iter().map(latest).max().unwrap_or_default().max(boot.at);
        let mut core = Self::starting_at(at, boot, limits, durability);
        let mut read = Read::default();
        for row in rows {
            core.restore_row(row, &mut read);
        }
        core.ledger.restore_folds();
        let Read { mut jobs, subclouds, snapshots } = read;
        core.subclouds = Subclouds::recover(subclouds);
        // A configuration that was in force passed its checks then; one that doesn't any more isn't.
        core.snapshots = Snapshots::recover(snapshots).0;
        let in_force: Vec<_> = core.snapshots.iter().cloned().collect();
        in_force.iter().for_each(|snapshot| core.limits.adopt(snapshot));
        jobs.sort_by_key(|job| job.id);
        // Before any of them waits again: places are never given twice.
        core.sequences_given = jobs.iter().map(|job| job.sequence).max().unwrap_or(0);
        // What had ended first: those that end now may make it too much.
        jobs.iter().filter(|job| !job.state.is_live()).for_each(|job| core.restore_ended(job));
        jobs.into_iter().filter(|job| job.state.is_live()).for_each(|job| core.restore_live(job));
        core.arm_recovered();
        core.place();
        core.emit_rows();
        effects.append(&mut core.effects);
        core
    }

    fn restore_row(&mut self, row: Row, read: &mut Read) {
        match row {
            Row::Job(job) => read.jobs.push(*job),
            Row::Balance(balance) => self.ledger.restore(&balance),
            Row::Posting(posting) => self.ledger.restore_posting(posting),
            Row::Node(row) => {
                if row.frozen.is_some() {
                    self.ledger.freeze(&row.node);
                }
                for model in row.trials.keys() {
                    let model = self.models.intern(model);
                    self.proven_models.extend(model);
                }
                // More nodes than the bound of today: the rest connects as unknown, trusted as little as possible.
                let _ = self.fleet.admit(*row, self.now);
            }
            Row::Namespace(settings) => drop(self.settle_namespace(&settings)),
            Row::Key(KeyRow { key, entry }) => {
                if !mutant!(KeyLostInCrash) {
                    self.keys.restore(key, entry);
                }
            }
            Row::DeadLetter(job, requeued_as) => self.retention.restore_dead_letter(job, requeued_as),
            Row::Paused(scope) => {
                if let Ok(inner) = self.backlog_scope(&scope) {
                    self.backlog.pause(inner, self.now);
                    self.paused.insert(scope);
                }
            }
            Row::Price(rule) => drop(self.prices.set(&rule)),
            Row::Template(template) => {
                // A pool of today's bounds; what is beyond isn't drawn from any more.
                let _ = self.templates.add(*template);
            }
            Row::Subcloud(subcloud) => read.subclouds.push(*subcloud),
            Row::Configuration(snapshot) => read.snapshots.push(*snapshot),
            Row::Invite(invite) => self.invites.restore(*invite),
            Row::JobForgotten(_)
            | Row::OperationForgotten(..)
            | Row::AnswerForgotten(_)
            | Row::KeyForgotten(_)
            | Row::DeadLetterForgotten(_)
            | Row::Resumed(_)
            | Row::TemplateForgotten(..)
            | Row::SubcloudForgotten(..)
            | Row::InviteForgotten(_)
            | Row::Feedback(..)
            | Row::Proof(..) => {}
        }
    }

    fn restore_ended(&mut self, row: &JobRow) {
        // Its node may not have heard yet that the answer is kept.
        let answers = row.history.iter().filter(|attempt| attempt.outcome == AttemptOutcome::Succeeded);
        answers.for_each(|attempt| self.accept_result(attempt.reservation));
        self.retain(Kept::of(row));
    }

    fn restore_live(&mut self, mut row: JobRow) {
        if let Origin::Blind { template } = &*row.origin {
            row.body = self.templates.body_of(row.model(), template);
        }
        let fate = fate_of(&mut row);
        let (Some(namespace), Some(model)) =
            (self.namespace_key(&row.spec.namespace), self.models.intern(row.model()))
        else {
            panic!("job {}: more names than the bound that it was accepted under", row.id);
        };
        let body_bytes = row.body_bytes();
        row.body.get_or_insert_with(|| Arc::from([]));
        row.prices = self.prices.shared(&row.prices);
        let account = Account { environment: row.spec.environment, owner: row.payer() };
        self.ledger.restore_hold(&account, row.hold);
        self.counts.body_bytes_held += body_bytes;
        let id = row.id;
        // A job that had a node goes before those that never had one: virtual time begins again at zero.
        let stamp = (row.attempts > 0).then_some(Stamp { tier: row.spec.tier, start: 0 });
        row.state = JobState::Queued;
        let job = Job {
            need: Need::of(&row.spec, model, row.model_index),
            row,
            clients: Listeners::default(),
            waits: Waits::Not,
            ttl_timer: None,
            submit_lsn: self.lsn,
            namespace,
            past: Past { stamp, ..Past::default() }.into(),
            row_state: RowState::Kept,
        };
        let key = self.jobs.insert(job);
        self.job_keys.insert(id, key);
        self.meet(key, fate);
    }

    fn meet(&mut self, key: Key, fate: Fate) {
        self.remember_failures(key);
        match fate {
            Fate::Continues(reservation, began) => self.continue_with(key, reservation, began),
            Fate::Waits => {
                let now = self.now;
                // What only waited is as its row says: a million of them needn't be written at every start.
                let was_cut = self.jobs[key].row.reservation.is_some();
                self.record_attempt(key, AttemptOutcome::Cut);
                self.file(key);
                if was_cut {
                    self.jobs[key].note(now, TraceEvent::Recovered);
                    self.touch(key);
                }
            }
            Fate::Interrupted(cause) => {
                self.record_attempt(key, AttemptOutcome::Cut);
                self.file(key);
                self.finish_unserved(key, JobState::Cancelled, End::Cancelled(cause));
            }
            Fate::Dead => {
                self.record_attempt(key, AttemptOutcome::Cut);
                let message = "the box didn't survive running it, twice".to_owned();
                let error = JobError { class: ErrorClass::Node, message };
                self.jobs[key].row.error = Some(error.clone());
                self.file(key);
                self.finish_unserved(key, JobState::Failed, End::Failed(error));
            }
        }
    }

    /// Which nodes failed a job, from its history.
    fn remember_failures(&mut self, key: Key) {
        let row = &self.jobs[key].row;
        let failed = row.history.iter().filter(|attempt| {
            matches!(attempt.outcome, AttemptOutcome::Failed(_) | AttemptOutcome::TimedOut(_))
        });
        let mut nodes: Vec<NodeKey> = failed.filter_map(|attempt| self.fleet.find(&attempt.node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if !nodes.is_empty() {
            self.jobs[key].past.failed_on = nodes;
        }
    }

    /// The job's reservation stays valid until its deadline: its node may come back and list it.
    fn continue_with(&mut self, key: Key, row: ReservationRow, began: Began) {
        let ReservationRow { id, node, assigned_at, attempt_due } = row;
        let Some(node) = self.fleet.find(&node) else {
            self.meet(key, Fate::Waits);
            return;
        };
        let now = self.now;
        let job = &mut self.jobs[key];
        let bytes = output_bytes(job, &self.limits);
        let kv_tokens = job.kv_tokens();
        job.transition(JobState::Reserved);
        self.counts.jobs_reserved += 1;
        if began == Began::Yes {
            job.transition(JobState::Running);
            self.counts.jobs_reserved -= 1;
            self.counts.jobs_running += 1;
        }
        let job = &mut self.jobs[key];
        job.past.reservation = Some(id);
        let (model, attempt, submit_lsn) = (job.need.model, job.row.attempts, job.submit_lsn);
        self.counts.output_bytes_held += bytes;
        let first_output_due = now + self.limits.first_output_timeout;
        let due = match began {
            Began::Yes => (first_output_due.min(attempt_due), Deadline::FirstOutput),
            // Past its time away the node has lost it, which isn't the same as not having accepted it.
            Began::No => {
                let lost_at = now + self.limits.away_timeout;
                ((lost_at + self.limits.accept_timeout).min(attempt_due), Deadline::Accept)
            }
        };
        let due = if due.0 == attempt_due { (attempt_due, Deadline::Attempt) } else { due };
        let state = match began {
            Began::Yes => ReservationState::Running,
            Began::No => ReservationState::Assigned,
        };
        self.fleet.reserve(Reservation {
            id,
            job: Some(key),
            node,
            model: Some(model),
            state,
            capacity: Capacity::Taken,
            kv_tokens,
            began,
            session: Session::default(),
            due,
            timer: None,
            assigned_at,
            began_at: assigned_at,
            attempt_due,
            first_output_due,
            output_bytes: bytes,
            seen_tokens: 0,
        });
        self.set_due(id, due.0, due.1);
        let open = OpenOutput { reservation: id, attempt, clients: Vec::new(), bytes_max: bytes, submit_lsn };
        self.effects.push(Effect::OpenOutput(open));
        let assignment = self.jobs[key].assignment(id);
        let node = self.fleet.node(node).id().clone();
        self.effects.push(Effect::Continue { node, assignment });
        self.touch(key);
        self.was_to_end(key, id);
    }

    /// An end that was asked for before the restart is asked for again.
    fn was_to_end(&mut self, key: Key, id: ReservationId) {
        use super::fleet::{Ending, Left};
        if self.jobs[key].row.cancel_requested.is_some() {
            self.counts.jobs_cancelling += 1;
            self.revoke(id, Ending::Cancel(Left::Stays));
        }
    }

    /// Nodes have as long as ever to come back.
    fn arm_recovered(&mut self) {
        let nodes: Vec<NodeKey> = self.fleet.nodes().map(|(key, _)| key).collect();
        for key in nodes {
            let standing = self.fleet.node(key).record.standing(self.now);
            self.fleet.node_mut(key).stood = standing;
            if standing.revokes() {
                // It was taken out just before, and its work wasn't decided any more.
                self.withdraw(key);
            }
            self.arm_node(key);
        }
    }
}

/// What becomes of a live job, and what recovery changes in its row before.
fn fate_of(row: &mut JobRow) -> Fate {
    let had_node = row.reservation.is_some();
    let was_local = row.reservation.as_ref().is_some_and(|r| r.node == NodeId::local());
    // Bodies of the system's own jobs aren't kept: a blind job has its template's, if there still is one. What a
    // validation was to be compared with is gone.
    let bodiless = match *row.origin {
        Origin::Client | Origin::Requeued { .. } => false,
        Origin::Blind { .. } => row.body.is_none(),
        Origin::Test { .. } | Origin::Validation { .. } => true,
    };
    if row.spec.is_tied_to_client() || bodiless {
        return Fate::Interrupted(row.cancel_requested.unwrap_or(CancelCause::Interrupted));
    }
    if row.spec.mode == Mode::Stream && row.spec.key.is_some() && had_node {
        return Fate::Interrupted(row.cancel_requested.unwrap_or(CancelCause::Interrupted));
    }
    if was_local {
        if let Some(cause) = row.cancel_requested {
            return Fate::Interrupted(cause);
        }
        row.box_cuts += 1;
        return if row.box_cuts >= BOX_CUTS_MAX { Fate::Dead } else { Fate::Waits };
    }
    match row.reservation.clone() {
        Some(reservation) => {
            let began = if row.state == JobState::Running { Began::Yes } else { Began::No };
            Fate::Continues(reservation, began)
        }
        None => Fate::Waits,
    }
}

/// The newest time that a row knows.
fn latest(row: &Row) -> Time {
    match row {
        Row::Job(job) => {
            [job.ended_at, job.dispatched_at].into_iter().flatten().max().unwrap_or(job.submitted_at)
        }
        Row::Posting(posting) => posting.at,
        _ => Time::default(),
    }
}
