//! What becomes of a job whose attempt came to nothing (CORE section 4, SPEC section 5).

use super::Coordinator;
use super::effect::{CancelCause, End, Usage};
use super::event::{ErrorClass, JobError};
use super::finish::Ending;
use super::job::{AttemptOutcome, JobState};
use super::limits::{DECLINES_MAX, FAILED_NODES_MAX};
use super::mutant::mutant;
use super::names::NodeKey;
use super::noise::{Purpose, noise};
use super::slab::Key;
use super::trace::TraceEvent;
use crate::time::Span;

/// Whether the next attempt waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backoff {
    None,
    /// Grows with each of these.
    After(u32),
}

/// What an attempt that came to nothing left behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remains {
    /// On which node.
    pub(super) node: NodeKey,
    /// Chunks that a client had taken.
    pub(super) delivered: u32,
}

impl Coordinator {
    /// An attempt failed or missed a deadline.
    pub(super) fn attempt_failed(
        &mut self,
        key: Key,
        error: JobError,
        remains: Remains,
        outcome: AttemptOutcome,
    ) {
        let now = self.now;
        self.counts.attempts_failed += 1;
        let job = &mut self.jobs[key];
        job.row.failed_attempts += 1;
        job.row.failed_on_model += 1;
        job.row.declines = 0;
        job.row.error = Some(error.clone());
        if !matches!(outcome, AttemptOutcome::TimedOut(_)) {
            job.note(now, TraceEvent::AttemptFailed { error: error.clone().into() });
        }
        if error.class != ErrorClass::Terminal && !job.past.failed_on.contains(&remains.node) {
            if job.past.failed_on.len() >= FAILED_NODES_MAX {
                job.past.failed_on.remove(0);
            }
            job.past.failed_on.push(remains.node);
        }
        let failed = job.row.failed_attempts;
        let hopeless = error.class == ErrorClass::Terminal || failed >= self.attempts_max_of(key);
        if hopeless || remains.delivered > 0 && !mutant!(DeliveredRequeued) {
            self.fail(key, error, outcome);
            return;
        }
        self.record_attempt(key, outcome);
        self.fall_back_after_failures(key);
        self.requeue(key, Backoff::After(failed));
    }

    /// How many attempts of a job may fail.
    fn attempts_max_of(&self, key: Key) -> u32 {
        if self.jobs[key].row.origin.is_test() { 1 } else { self.limits.attempts_max }
    }

    /// After its threshold of failed attempts on a model, a job's next model is used.
    fn fall_back_after_failures(&mut self, key: Key) {
        let row = &self.jobs[key].row;
        let fallbacks = &row.spec.fallbacks;
        let threshold = match fallbacks.after_failures {
            0 => self.limits.fallback_after_failures,
            after => after,
        };
        let (next, last) = (row.model_index + 1, fallbacks.models.len() as u32);
        if row.failed_on_model < threshold {
            return;
        }
        // One that nobody serves is no way out.
        if let Some(next) = (next..=last).find(|next| self.is_servable(key, *next)) {
            self.fall_back(key, next);
        }
    }

    /// A node refused; that uses no attempt, but it can't go on for ever.
    pub(super) fn attempt_declined(&mut self, key: Key, reason: String, delivered: u32) {
        let now = self.now;
        self.counts.attempts_declined += 1;
        let job = &mut self.jobs[key];
        job.row.declines += 1;
        let declines = job.row.declines;
        job.note(now, TraceEvent::Declined { reason: reason.as_str().into() });
        if declines >= DECLINES_MAX || delivered > 0 || job.row.origin.is_test() {
            let message = format!("declined {declines} times in a row; the last reason: {reason}");
            self.fail(key, JobError { class: ErrorClass::Node, message }, AttemptOutcome::Declined);
        } else {
            self.record_attempt(key, AttemptOutcome::Declined);
            self.requeue(key, Backoff::After(declines));
        }
    }

    /// The node lost it: tried again at once if nobody saw any of it.
    pub(super) fn attempt_lost(&mut self, key: Key, delivered: u32) {
        let message = "the node lost the job while it ran".to_owned();
        let error = JobError { class: ErrorClass::Node, message };
        let now = self.now;
        self.counts.attempts_lost += 1;
        let job = &mut self.jobs[key];
        job.row.lost_attempts += 1;
        job.note(now, TraceEvent::Lost);
        let lost = job.row.lost_attempts;
        if delivered > 0 && !mutant!(DeliveredRequeued) || lost >= self.attempts_max_of(key) {
            self.fail(key, error, AttemptOutcome::Lost);
        } else {
            self.record_attempt(key, AttemptOutcome::Lost);
            self.requeue(key, Backoff::None);
        }
    }

    /// The box took it back from a node that is frozen or banned: no attempt is used.
    pub(super) fn attempt_withdrawn(&mut self, key: Key, delivered: u32) {
        let now = self.now;
        self.jobs[key].note(now, TraceEvent::TakenBack);
        if delivered > 0 && self.service_ends() {
            // As a restart without a word would end it.
            let ending = Self::cancelled(CancelCause::Interrupted, Usage::default());
            self.finish_served(key, ending, AttemptOutcome::TakenBack);
        } else if delivered > 0 || self.jobs[key].row.origin.is_test() {
            let message = "the operator took the node out while it ran the job".to_owned();
            self.fail(key, JobError { class: ErrorClass::Node, message }, AttemptOutcome::TakenBack);
        } else {
            self.record_attempt(key, AttemptOutcome::TakenBack);
            self.requeue(key, Backoff::None);
        }
    }

    fn fail(&mut self, key: Key, error: JobError, outcome: AttemptOutcome) {
        self.jobs[key].row.error = Some(error.clone());
        let end = End::Failed(error);
        let ending =
            Ending { state: JobState::Failed, end, chunks: 0, usage: Usage::default(), unread_bytes: 0 };
        self.finish_served(key, ending, outcome);
    }

    /// Puts a job that a node had back to waiting, in its old place; one that was told to end, or whose TTL has
    /// passed, ends instead.
    pub(super) fn requeue(&mut self, key: Key, backoff: Backoff) {
        let now = self.now;
        if let Some(cause) = self.jobs[key].row.cancel_requested {
            self.finish_served(key, Self::cancelled(cause, Usage::default()), AttemptOutcome::Stopped);
            return;
        }
        self.leave_service(key);
        // What its dispatch was charged is given back: it will be charged again.
        let expected = self.expected_tokens(key);
        self.carry(key, -expected);
        let until = now + self.backoff_of(key, backoff);
        let job = &mut self.jobs[key];
        job.transition(JobState::Queued);
        job.row.not_before = until;
        job.note(now, TraceEvent::Requeued { not_before: until });
        let ends = job.row.expires_at <= now || job.row.origin.is_test();
        self.file(key);
        if ends {
            self.expire(key);
        } else {
            self.touch(key);
        }
    }

    /// Exponential, with jitter of up to a half that derives from the boot secret.
    fn backoff_of(&self, key: Key, backoff: Backoff) -> Span {
        let Backoff::After(times) = backoff else { return Span::default() };
        let doubled = self.limits.backoff.0.saturating_mul(1 << (times.saturating_sub(1)).min(20));
        let span = doubled.min(self.limits.backoff_max.0).max(1);
        let id = self.jobs[key].row.id;
        let step = u64::from(id.epoch) << 32 | u64::from(times);
        let noise = noise(&self.boot.secret, Purpose::Backoff, id.counter, step);
        Span(span / 2 + noise % (span / 2 + 1))
    }
}
