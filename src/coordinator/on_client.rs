//! What clients do: submit, cancel, leave, give feedback.

use super::Coordinator;
use super::clients::Had;
use super::effect::{
    Answer, AttachOutput, CancelCause, CancelState, Effect, Lookup, Refusal, RefusalKind, Rejection, Reply,
    Row, Runnable,
};
use super::event::{
    Cancel, ClientGone, Departure, Feedback, Keyed, Origin, Question, Requeue, Submission, Tenant,
};
use super::fleet::{Ending, Left, ReservationState};
use super::integrity::Feedback as FeedbackRow;
use super::job::{Job, JobRow, JobState};
use super::keys::{KeyEntry, KeyRow, Look};
use super::ledger::Account;
use super::limits::KEY_LIFE;
use super::rare::Rare;
use super::slab::Key;
use super::trace::TraceEvent;
use crate::ids::{ClientId, JobId};

impl Coordinator {
    pub(super) fn on_submit(&mut self, client: ClientId, submission: Submission) {
        if let Some(keyed) = *submission.spec.key
            && self.attached(client, keyed, &submission)
        {
            return;
        }
        if let Some(refusal) = &submission.closed {
            self.reply_now(client, Reply::Refused(refusal.clone()));
            return;
        }
        let spec = submission.spec.clone();
        match self.accept(submission, Origin::Client, Some(client)) {
            Ok(key) => {
                self.acknowledge_submit(key, client);
                self.mix_in(key);
            }
            Err(kind) => self.refuse(client, kind, &spec),
        }
    }

    /// Takes a job on, if nothing speaks against it: held, waiting, its key claimed.
    pub(super) fn accept(
        &mut self,
        submission: Submission,
        origin: Origin,
        client: Option<ClientId>,
    ) -> Result<Key, RefusalKind> {
        let admitted = self.admit(&submission, &origin)?;
        let spec = &submission.spec;
        let namespace = admitted.namespace;
        if let Some(keyed) = *spec.key
            && self.keys.look(&keyed.key, &keyed.body) == Look::Unknown
        {
            self.keys.room(&spec.namespace).map_err(|_| RefusalKind::KeysFull)?;
        }
        let owner = super::job::payer_of(&origin, &spec.namespace);
        let held = self.ledger.hold(&Account { environment: spec.environment, owner }, admitted.hold);
        held.map_err(|_| RefusalKind::InsufficientCredits)?;
        let is_client = origin == Origin::Client;
        let key = self.begin_job(submission, origin, admitted, client);
        if is_client
            && self.refuses_unrunnable(namespace)
            && let Some(why) = self.reason_against_all(key)
        {
            self.unbegin(key);
            return Err(RefusalKind::Unrunnable(why));
        }
        self.claim_key(key);
        if let Some(client) = client {
            self.clients.wait(client, key);
        }
        if !self.jobs[key].row.origin.is_test() {
            self.file(key);
        }
        Ok(key)
    }

    /// Takes back a job that nobody heard of yet.
    fn unbegin(&mut self, key: Key) {
        let job = self.jobs.remove(key);
        self.job_keys.remove(job.row.id);
        self.counts.body_bytes_held -= job.row.body_bytes();
        self.counts.accepted -= 1;
        let account = Account { environment: job.row.spec.environment, owner: job.row.payer() };
        self.ledger.release(job.row.id, &account, job.row.hold);
        self.changed.retain(|(id, _)| *id != job.row.id);
        if self.changed.is_empty() {
            self.writes = super::Writes::None;
        }
    }

    fn claim_key(&mut self, key: Key) {
        let row = &self.jobs[key].row;
        let Some(Keyed { key: name, body }) = *row.spec.key else { return };
        let entry = KeyEntry {
            body,
            job: row.id,
            namespace: row.spec.namespace.clone(),
            expires_at: self.now + KEY_LIFE,
        };
        // A key whose job ended without an answer was given free then; and there is room, or the job was refused.
        self.keys.claim(name, entry.clone()).expect("there is room for the key");
        self.keep(Row::Key(KeyRow { key: name, entry }));
    }

    /// Answers a repeat of a request by its key. Says whether that was all.
    fn attached(&mut self, client: ClientId, keyed: Keyed, submission: &Submission) -> bool {
        match self.keys.look(&keyed.key, &keyed.body) {
            Look::Unknown => false,
            Look::Conflict(_) => {
                self.refuse(client, RefusalKind::KeyConflict, &submission.spec);
                true
            }
            Look::Attach(job) => {
                match self.job_keys.find(job) {
                    Some(key) => self.attach(key, client),
                    // It succeeded: keys of jobs that ended otherwise are given free.
                    None => {
                        self.counts.attached += 1;
                        self.effects.push(Effect::Read {
                            client,
                            what: Lookup::Answer(job),
                            lsn: self.newest_lsn(),
                        });
                        self.effects.push(Effect::Urgent);
                    }
                }
                true
            }
        }
    }

    /// One more client waits for a live job.
    fn attach(&mut self, key: Key, client: ClientId) {
        self.counts.attached += 1;
        self.clients.wait(client, key);
        let runnable = self.runnable(key);
        let job = &mut self.jobs[key];
        job.clients.push(client);
        let (id, submit_lsn, attempt) = (job.row.id, job.submit_lsn, job.row.attempts);
        let reads = job.row.spec.mode.is_attended();
        let reservation = job.past.reservation.filter(|_| reads && job.row.cancel_requested.is_none());
        self.reply_durable(client, Reply::Accepted { job: id, lsn: submit_lsn, runnable });
        if let Some(reservation) = reservation {
            let attach = AttachOutput { reservation, attempt, client, submit_lsn };
            self.effects.push(Effect::AttachOutput(attach));
        }
    }

    /// Attended jobs are acknowledged by their answer; the others, and keyed ones, only once they are on disk.
    fn acknowledge_submit(&mut self, key: Key, client: ClientId) {
        let runnable = self.runnable_shown(key);
        if let Runnable::No(why) = runnable {
            let now = self.now;
            self.jobs[key].note(now, TraceEvent::NotRunnable { why });
        }
        let Job { row, submit_lsn, .. } = &self.jobs[key];
        let reply = Reply::Accepted { job: row.id, lsn: *submit_lsn, runnable };
        if row.spec.is_tied_to_client() {
            self.reply_now(client, reply);
        } else {
            self.reply_durable(client, reply);
        }
    }

    /// Whether some node could run it. Who waits on a connection isn't told, and it isn't looked for then.
    fn runnable_shown(&self, key: Key) -> Runnable {
        if self.jobs[key].row.spec.mode.is_attended() { Runnable::Yes } else { self.runnable(key) }
    }

    /// A key whose job didn't succeed starts a new one.
    pub(super) fn free_key(&mut self, job: &Job, state: JobState) {
        let Some(keyed) = job.row.spec.key.filter(|_| state != JobState::Succeeded) else { return };
        if self.keys.look(&keyed.key, &keyed.body) == Look::Attach(job.row.id) {
            self.keys.forget(&keyed.key);
            self.keep(Row::KeyForgotten(keyed.key));
        }
    }

    pub(super) fn on_client_gone(&mut self, gone: ClientGone) {
        if let Departure::Took(job) = gone.departure {
            self.answer_was_taken(job);
        }
        let key = match self.clients.leave(gone.client) {
            None => return,
            Some(Had::Job(key)) => key,
            Some(Had::Answer(unread_bytes)) => {
                self.release_output(unread_bytes);
                if gone.departure == Departure::Abandoned {
                    self.counts.disconnects_unread += 1;
                }
                return;
            }
        };
        self.jobs[key].clients.remove(gone.client);
        if self.jobs[key].row.spec.is_tied_to_client() {
            if self.jobs[key].past.reservation.is_none() {
                self.counts.disconnects_queued += 1;
            }
            self.cancel(key, CancelCause::Client, Left::ClientLeft);
        }
    }

    pub(super) fn on_cancel(&mut self, cancel: Cancel) {
        let job = cancel.job;
        let Some(key) = self.live_job(job, cancel.tenant.as_ref()) else {
            let answer = Answer::Refused(RefusalKind::JobUnknown, Question::Trace(job));
            self.reply_durable(cancel.client, Reply::Answer(Box::new(answer)));
            return;
        };
        let cause = if cancel.tenant.is_some() { CancelCause::Client } else { CancelCause::Operator };
        let state = self.cancel(key, cause, Left::Stays);
        self.reply_durable(cancel.client, Reply::Answer(Box::new(Answer::Cancelled { job, state })));
    }

    /// Ends a live job: at once where no node has it, else when its node has stopped.
    pub(super) fn cancel(&mut self, key: Key, cause: CancelCause, left: Left) -> CancelState {
        let Some(id) = self.jobs[key].past.reservation else {
            self.finish_unserved(key, JobState::Cancelled, super::effect::End::Cancelled(cause));
            return CancelState::Cancelled;
        };
        if self.jobs[key].row.cancel_requested.is_some() {
            return CancelState::Cancelling;
        }
        let now = self.now;
        let job = &mut self.jobs[key];
        job.row.cancel_requested = Some(cause);
        job.note(now, TraceEvent::CancelRequested { cause });
        self.counts.jobs_cancelling += 1;
        self.touch(key);
        let reservation = self.fleet.reservation_mut(id).expect("a job's reservation is live");
        if matches!(reservation.state, ReservationState::Stopping(_)) {
            // Its output is being closed for another reason; `Revoked` finds the request.
            return CancelState::Cancelling;
        }
        reservation.state = ReservationState::Stopping(Ending::Cancel(left));
        self.effects.push(Effect::CloseOutput(id));
        self.stop(id);
        CancelState::Cancelling
    }

    pub(super) fn on_feedback(&mut self, feedback: Feedback) {
        let Feedback { client, namespace, job, opinion, note } = feedback;
        let is_its_own = |row: &JobRow| row.spec.namespace == namespace && !row.origin.is_system();
        if self.job_keys.find(job).is_some_and(|key| !is_its_own(&self.jobs[key].row)) {
            return self.answer_durable(client, Answer::Rejected(Rejection::JobUnknown));
        }
        let row = FeedbackRow { job, namespace, opinion, note, at: self.now };
        self.counts.feedback += 1;
        self.keep(Row::Feedback(row));
        self.answer_durable(client, Answer::Done);
    }

    /// Makes a new job of a dead letter.
    pub(super) fn on_requeue(&mut self, requeue: Requeue) {
        let Requeue { client, row } = requeue;
        let answer = match self.retention.dead_letter(row.id) {
            None => Answer::Rejected(Rejection::NotADeadLetter(None)),
            Some(Some(before)) => Answer::Rejected(Rejection::NotADeadLetter(Some(before))),
            Some(None) => self.requeue_dead_letter(*row),
        };
        self.answer_durable(client, answer);
    }

    fn requeue_dead_letter(&mut self, row: JobRow) -> Answer {
        let Some(body) = row.body else {
            return Answer::Rejected(Rejection::NotADeadLetter(None));
        };
        let mut spec = (*row.spec).clone();
        // Nobody waits on a connection for it, its key stands for the first job, and its time is now.
        spec.mode = super::event::Mode::Polling;
        spec.key = Rare::default();
        spec.not_before = Rare::default();
        let origin = Origin::Requeued { from: row.id };
        match self.accept(Submission::new(spec, body), origin, None) {
            Ok(key) => {
                let job = self.jobs[key].row.id;
                self.retention.requeued(row.id, job);
                self.keep(Row::DeadLetter(row.id, Some(job)));
                self.counts.requeued += 1;
                Answer::Requeued { job }
            }
            Err(kind) => {
                let refusal: Refusal = self.refusal(kind, &row.spec);
                Answer::Rejected(Rejection::JobRefused(refusal))
            }
        }
    }

    /// A live job by name, if it belongs to whom asks.
    pub(super) fn live_job(&self, job: JobId, tenant: Option<&Tenant>) -> Option<Key> {
        self.job_keys.find(job).filter(|key| self.jobs[*key].row.is_of(tenant))
    }
}
