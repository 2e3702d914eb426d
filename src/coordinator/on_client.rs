//! What clients do: submit, cancel, leave.

use super::effect::{Answer, CancelCause, CancelState, Effect, Refusal, RefusalKind, Reply};
use super::event::{Cancel, ClientGone, Departure, Question, Submission, Tier};
use super::fleet::{Ending, Left, ReservationState};
use super::job::{Job, JobRow, JobState, RowState, TraceEvent};
use super::limits::BYTES_PER_TOKEN_MAX;
use super::slab::Key;
use super::{Admission, Client, Coordinator};
use crate::ids::ClientId;
use crate::time::Span;

/// How soon a client may look for the server's successor.
const DRAINING_RETRY_AFTER: Span = Span::from_secs(5);

impl Coordinator {
    pub(super) fn on_submit(&mut self, client: ClientId, submission: Submission) {
        if let Some(kind) = self.refusal_of(&submission) {
            self.count_refusal(kind);
            let refusal = Refusal { kind, retry_after: self.retry_after(kind, &submission) };
            self.reply_now(client, Reply::Refused(refusal));
            return;
        }
        let id = self.next_job_id();
        let price = self.limits.price;
        let hold = price.cost(submission.input_tokens, submission.output_tokens_max);
        self.ledger.hold(hold);
        let body_bytes = submission.body.len() as u64;
        self.counts.body_bytes_held += body_bytes;
        self.counts.accepted += 1;
        let mut job = Job {
            row: JobRow::accepted(id, &submission, price, hold, self.now),
            client: Some(client),
            reservation: None,
            sequence: self.jobs_made,
            backoff_until: None,
            submit_lsn: crate::ids::Lsn(self.lsn.0 + 1),
            body_bytes,
            virtual_start: None,
            row_state: RowState::Kept,
        };
        let ahead = self.backlog.ahead(submission.environment, &submission.model, submission.tier);
        job.note(self.now, TraceEvent::Submitted { ahead });
        let key = self.jobs.insert(job);
        self.job_keys.insert(id, key);
        self.clients.insert(client, Client { job: Some(key), unread_bytes: 0 });
        self.enqueue(key);
        self.touch(key);
        self.acknowledge_submit(key, client);
    }

    /// Attended jobs are acknowledged by their answer; the others only once they are on disk.
    fn acknowledge_submit(&mut self, key: Key, client: ClientId) {
        let Job { row, submit_lsn, .. } = &self.jobs[key];
        let reply = Reply::Accepted { job: row.id, lsn: *submit_lsn };
        if row.mode.is_attended() {
            self.reply_now(client, reply);
        } else {
            self.reply_durable(client, reply);
        }
    }

    fn refusal_of(&self, submission: &Submission) -> Option<RefusalKind> {
        let limits = &self.limits;
        let waiting = self.waiting_by_namespace.get(&submission.namespace).copied().unwrap_or(0);
        let bytes = self.counts.body_bytes_held.saturating_add(submission.body.len() as u64);
        let output = u64::from(submission.output_tokens_max) * BYTES_PER_TOKEN_MAX;
        if self.admission == Admission::Draining {
            return Some(RefusalKind::Draining);
        }
        if !self.fleet.serves(&submission.model) {
            return Some(RefusalKind::ModelUnknown);
        }
        if output > limits.output_bytes_max.min(limits.output_budget_bytes) {
            return Some(RefusalKind::OutputTooLarge);
        }
        if waiting >= limits.namespace_queue_jobs_max {
            return Some(RefusalKind::NamespaceQueueFull);
        }
        if self.counts.jobs_queued >= limits.queue_jobs_max {
            return Some(RefusalKind::QueueFull);
        }
        (bytes > limits.queue_bytes_max).then_some(RefusalKind::QueueBytesFull)
    }

    fn count_refusal(&mut self, kind: RefusalKind) {
        let counts = &mut self.counts;
        match kind {
            RefusalKind::NamespaceQueueFull => counts.refused_namespace_queue_full += 1,
            RefusalKind::QueueFull => counts.refused_queue_full += 1,
            RefusalKind::QueueBytesFull => counts.refused_queue_bytes_full += 1,
            RefusalKind::Draining => counts.refused_draining += 1,
            RefusalKind::ModelUnknown => counts.refused_model_unknown += 1,
            RefusalKind::OutputTooLarge => counts.refused_output_too_large += 1,
            // Counted at the door: the core never saw it, or never kept it.
            RefusalKind::RingFull | RefusalKind::JobUnknown => {}
        }
    }

    /// When trying again makes sense: once a tenth of what waits for this model is gone, at its measured pace.
    fn retry_after(&self, kind: RefusalKind, submission: &Submission) -> Option<Span> {
        match kind {
            RefusalKind::NamespaceQueueFull | RefusalKind::QueueFull | RefusalKind::QueueBytesFull => {}
            RefusalKind::Draining => return Some(DRAINING_RETRY_AFTER),
            _ => return None,
        }
        let model = &submission.model;
        let waiting = self.backlog.ahead(submission.environment, model, Tier::Background);
        let one_leaves = self.service_of(model).0 / self.fleet.slots_of(model).max(1);
        let micros = one_leaves.saturating_mul((waiting / 10).max(1));
        Some(Span(micros.clamp(Span::from_secs(1).0, Span::from_secs(60).0)))
    }

    pub(super) fn on_client_gone(&mut self, gone: ClientGone) {
        let Some(client) = self.clients.remove(&gone.client) else { return };
        self.release_output(client.unread_bytes);
        let Some(key) = client.job else {
            if gone.departure == Departure::Abandoned {
                self.counts.disconnects_unread += 1;
            }
            return;
        };
        self.jobs[key].client = None;
        if self.jobs[key].row.mode.is_attended() {
            if self.jobs[key].reservation.is_none() {
                self.counts.disconnects_queued += 1;
            }
            self.cancel(key, CancelCause::Client, Left::ClientLeft);
        }
    }

    pub(super) fn on_cancel(&mut self, cancel: Cancel) {
        let job = cancel.job;
        let owned =
            |row: &JobRow| cancel.namespace.as_ref().is_none_or(|namespace| row.namespace == *namespace);
        let key = self.job_keys.get(&job).copied().filter(|key| owned(&self.jobs[*key].row));
        let Some(key) = key else {
            let answer = Answer::Refused(RefusalKind::JobUnknown, Question::Trace(job));
            self.reply_durable(cancel.client, Reply::Answer(Box::new(answer)));
            return;
        };
        let cause = if cancel.namespace.is_some() { CancelCause::Client } else { CancelCause::Operator };
        let state = self.cancel(key, cause, Left::Stays);
        self.reply_durable(cancel.client, Reply::Answer(Box::new(Answer::Cancelled { job, state })));
    }

    /// Ends a live job: at once where no node has it, else when its node has stopped.
    pub(super) fn cancel(&mut self, key: Key, cause: CancelCause, left: Left) -> CancelState {
        let Some(id) = self.jobs[key].reservation else {
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
}
