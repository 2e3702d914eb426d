//! What is kept of jobs that have ended: their rows, bodies of dead letters and answers, until they are too many, too
//! large or too old. An answer that an idempotency key stands for is kept as long as the key.

use super::Coordinator;
use super::effect::Row;
use super::job::{Job, JobRow, JobState};
use super::keys::Look;
use super::limits::BYTES_PER_TOKEN_MAX;
use super::spec::Keyed;
use crate::ids::JobId;
use crate::time::Time;

/// Finished jobs that one step forgets: each deletes rows.
const FORGOTTEN_MAX: usize = 64;

/// What the core knows of a job that has ended; its row is in the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    job: JobId,
    ended_at: Time,
    /// Of its body, and at most of its answer.
    bytes: u64,
    /// The key that stands for its answer.
    key: Option<Keyed>,
}

impl Kept {
    /// Of a job that has ended.
    pub(super) fn of(row: &JobRow) -> Self {
        let answered = row.state == JobState::Succeeded && !row.spec.is_tied_to_client();
        let answer = if answered { u64::from(row.usage.output_tokens) * BYTES_PER_TOKEN_MAX } else { 0 };
        Self {
            job: row.id,
            ended_at: row.ended_at.unwrap_or_default(),
            bytes: row.body_bytes() + answer,
            key: row.spec.key.filter(|_| row.state == JobState::Succeeded),
        }
    }
}

impl Coordinator {
    /// Keeps a finished job's row, and forgets the oldest beyond the bounds.
    pub(super) fn remember(&mut self, job: Job) {
        let is_dead_letter = job.row.state == JobState::Failed && !job.row.origin.is_system();
        let id = job.row.id;
        self.keep_count_of(Kept::of(&job.row));
        self.keep(Row::Job(Box::new(job.row)));
        if is_dead_letter {
            self.bury(id);
        }
        self.forget_old();
    }

    /// Counts what is kept of a job that has ended.
    pub(super) fn keep_count_of(&mut self, kept: Kept) {
        self.finished_bytes += kept.bytes;
        self.finished.push_back(kept);
    }

    /// Jobs that ended before the start, in any order.
    pub(super) fn restore_finished(&mut self, mut finished: Vec<Kept>) {
        finished.sort_by_key(|kept| (kept.ended_at, kept.job));
        finished.into_iter().for_each(|kept| self.keep_count_of(kept));
    }

    /// Forgets what is too much or too old, a number of jobs a step: after a start with smaller bounds it may be
    /// more.
    pub(super) fn forget_old(&mut self) {
        for _ in 0..FORGOTTEN_MAX {
            let Some(oldest) = self.finished.front().copied().filter(|oldest| self.is_too_much(oldest))
            else {
                return;
            };
            self.finished.pop_front();
            self.finished_bytes -= oldest.bytes;
            self.forget(oldest);
        }
    }

    fn is_too_much(&self, oldest: &Kept) -> bool {
        self.finished.len() > self.limits.finished_jobs_max
            || self.finished_bytes > self.limits.finished_bytes_max
            || self.now.since(oldest.ended_at) > self.limits.finished_age_max
    }

    fn forget(&mut self, kept: Kept) {
        if self.dead_letters.remove(&kept.job).is_some() {
            self.keep(Row::DeadLetterForgotten(kept.job));
        }
        // Of keys there are only so many.
        if kept.key.is_some_and(|k| self.keys.look(&k.key, &k.body) == Look::Attach(kept.job)) {
            self.kept_for_keys.insert(kept.job);
        } else {
            self.keep(Row::JobForgotten(kept.job));
        }
    }

    fn bury(&mut self, job: JobId) {
        self.dead_letters.insert(job, None);
        self.keep(Row::DeadLetter(job, None));
        while self.dead_letters.len() > self.limits.dead_letters_max {
            let Some((oldest, _)) = self.dead_letters.pop_first() else { return };
            self.keep(Row::DeadLetterForgotten(oldest));
        }
    }
}
