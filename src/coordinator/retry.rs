//! What becomes of a job whose attempt came to nothing (CORE section 4, SPEC section 5).

use super::Coordinator;
use super::effect::{End, Usage};
use super::event::{ErrorClass, JobError};
use super::finish::Ending;
use super::job::{JobState, TraceEvent};
use super::limits::DECLINES_MAX;
use super::slab::Key;
use crate::time::Span;

/// Whether the next attempt waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backoff {
    None,
    /// Grows with each of these.
    After(u32),
}

impl Coordinator {
    /// An attempt failed, and its client had taken `delivered` chunks of it.
    pub(super) fn attempt_failed(&mut self, key: Key, error: JobError, delivered: u32) {
        let now = self.now;
        self.counts.attempts_failed += 1;
        let job = &mut self.jobs[key];
        job.row.failed_attempts += 1;
        job.row.declines = 0;
        job.row.error = Some(error.clone());
        job.note(now, TraceEvent::AttemptFailed { error: error.clone() });
        let failed = job.row.failed_attempts;
        let hopeless = error.class == ErrorClass::Terminal || failed >= self.limits.attempts_max;
        if hopeless || delivered > 0 {
            self.fail(key, error);
        } else {
            self.requeue(key, Backoff::After(failed));
        }
    }

    /// A node refused; that uses no attempt, but it can't go on for ever.
    pub(super) fn attempt_declined(&mut self, key: Key, reason: String, delivered: u32) {
        let now = self.now;
        let job = &mut self.jobs[key];
        job.row.declines += 1;
        let declines = job.row.declines;
        job.note(now, TraceEvent::Declined { reason: reason.clone() });
        if declines >= DECLINES_MAX || delivered > 0 {
            let message = format!("declined {declines} times in a row; the last reason: {reason}");
            self.fail(key, JobError { class: ErrorClass::Node, message });
        } else {
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
        if delivered > 0 || lost >= self.limits.attempts_max {
            self.fail(key, error);
        } else {
            self.requeue(key, Backoff::None);
        }
    }

    fn fail(&mut self, key: Key, error: JobError) {
        self.jobs[key].row.error = Some(error.clone());
        let end = End::Failed(error);
        let usage = Usage::default();
        self.finish_served(key, Ending { state: JobState::Failed, end, chunks: 0, usage, unread_bytes: 0 });
    }

    /// Puts a job that a node had back to waiting, in its old place; one that was told to end, or whose TTL has
    /// passed, ends instead.
    pub(super) fn requeue(&mut self, key: Key, backoff: Backoff) {
        let now = self.now;
        if let Some(cause) = self.jobs[key].row.cancel_requested {
            self.finish_served(key, Self::cancelled(cause, Usage::default()));
            return;
        }
        self.leave_service(key);
        let until = now + self.backoff_of(key, backoff);
        let job = &mut self.jobs[key];
        job.transition(JobState::Queued);
        job.note(now, TraceEvent::Requeued { not_before: until });
        self.backlog.carry(&job.row, -super::backlog::expected_cost(&job.row));
        let expired = job.row.expires_at <= now;
        if until > now {
            self.back_off(key, until);
        } else {
            self.enqueue(key);
        }
        if expired {
            self.finish_unserved(key, JobState::Expired, End::Expired);
        } else {
            self.touch(key);
        }
    }

    /// Exponential, with jitter of up to a half that derives from the boot secret.
    fn backoff_of(&self, key: Key, backoff: Backoff) -> Span {
        let Backoff::After(times) = backoff else { return Span::default() };
        let doubled = self.limits.backoff.0.saturating_mul(1 << (times.saturating_sub(1)).min(20));
        let span = doubled.min(self.limits.backoff_max.0).max(1);
        let secret = u64::from_le_bytes(self.boot.secret[..8].try_into().expect("eight bytes"));
        let noise = mix(secret ^ self.jobs[key].row.id.counter.rotate_left(32) ^ u64::from(times));
        Span(span / 2 + noise % (span / 2 + 1))
    }

    /// A backoff is over: the job waits for a node again.
    pub(super) fn backoff_over(&mut self, key: Key) {
        self.leave_queue(key);
        self.enqueue(key);
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): spreads every bit over all.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
