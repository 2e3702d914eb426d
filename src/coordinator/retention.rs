//! What is kept of jobs that have ended: their rows, bodies of dead letters and answers, until they are too many, too
//! large or too old.
//!
//! There are two kinds. *Unnamed* jobs can't be asked for again with profit: the system's own, and those whose client
//! had its answer on its connection. They have a bound of their own, so that traffic of that kind pushes out nothing
//! else. *Named* are the others: jobs with results that can be fetched, and dead letters. Where there are too many of
//! those, or of dead letters, the namespace that keeps the most loses its oldest.
//!
//! An answer that isn't to be stored is forgotten once a client has it, and the rest of its job later, as others'. Its
//! bytes count as long as its job, for rows don't say whether it is gone, and a start is to forget the same jobs.
//!
//! An answer that an idempotency key stands for is kept apart, as long as the key: of keys there are only so many.

use std::collections::{BTreeMap, BTreeSet};

use super::Coordinator;
use super::effect::Row;
use super::job::{Job, JobRow, JobState};
use super::keys::Look;
use super::ledger::OperationsKept;
use super::limits::Limits;
use super::mutant::mutant;
use super::shelf::{Age, Shelf, Whose};
use super::spec::{Keyed, Storing};
use crate::ids::{JobId, Namespace, OperationId};
use crate::time::Time;

/// Finished jobs, dead letters and postings that one step forgets: each deletes rows.
const FORGOTTEN_MAX: usize = 64;

/// What the core knows of jobs that have ended; their rows are in the store.
#[derive(Debug, Default)]
pub(super) struct Retention {
    unnamed: BTreeSet<Age>,
    named: Shelf,
    for_keys: BTreeMap<JobId, Kept>,
    /// Jobs whose answer is forgotten once it was taken. After a start also those of which that has happened.
    once: BTreeSet<JobId>,
    /// What each dead letter was requeued as.
    dead_letters: BTreeMap<JobId, Option<JobId>>,
    /// The same letters, each of them named too.
    dead: Shelf,
}

/// A job that has ended.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    namespace: Namespace,
    age: Age,
    /// Of its body, and at most of its answer.
    bytes: u64,
    class: Class,
    lasts: Lasts,
}

/// How long an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasts {
    /// As its job.
    AsItsJob,
    /// Until a client took it.
    UntilTaken,
}

/// What becomes of a job that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Unnamed,
    Named,
    /// Named, and the key may stand for its answer.
    Keyed(Keyed),
}

impl Kept {
    /// Of a job that has ended.
    pub(super) fn of(row: &JobRow) -> Self {
        let succeeded = row.state == JobState::Succeeded;
        let (system, tied) = (row.origin.is_system(), row.spec.is_tied_to_client());
        let answered = succeeded && !tied && !system;
        let answer = if answered { row.spec.bytes_of(row.usage.output_tokens) } else { 0 };
        let class = match *row.spec.key {
            _ if system || tied && row.state != JobState::Failed => Class::Unnamed,
            Some(keyed) if succeeded => Class::Keyed(keyed),
            _ => Class::Named,
        };
        let once = answered && row.spec.storing == Storing::Forbidden;
        Self {
            namespace: row.spec.namespace.clone(),
            age: (row.ended_at.unwrap_or_default(), row.id),
            bytes: row.body_bytes() + answer,
            class,
            lasts: if once { Lasts::UntilTaken } else { Lasts::AsItsJob },
        }
    }
}

impl Retention {
    /// A dead letter, before its job is there: as recovery finds it.
    pub(super) fn restore_dead_letter(&mut self, job: JobId, requeued_as: Option<JobId>) {
        self.dead_letters.insert(job, requeued_as);
    }

    /// What a dead letter was requeued as; `None` for what is none.
    pub(super) fn dead_letter(&self, job: JobId) -> Option<Option<JobId>> {
        self.dead_letters.get(&job).copied()
    }

    /// A dead letter was requeued.
    pub(super) fn requeued(&mut self, job: JobId, as_job: JobId) {
        self.dead_letters.insert(job, Some(as_job));
    }

    /// All dead letters, by their ids.
    pub(super) fn dead_letters(&self) -> impl DoubleEndedIterator<Item = (JobId, Option<JobId>)> {
        self.dead_letters.iter().map(|(job, requeued_as)| (*job, *requeued_as))
    }

    pub(super) fn dead_letters_len(&self) -> usize {
        self.dead_letters.len()
    }

    fn put(&mut self, kept: &Kept) {
        if kept.class == Class::Unnamed {
            self.unnamed.insert(kept.age);
        } else {
            self.named.put(&kept.namespace, kept.age, kept.bytes);
        }
        if self.dead_letters.contains_key(&kept.age.1) {
            self.dead.put(&kept.namespace, kept.age, 0);
        }
    }

    /// Takes out a job that is too much or too old.
    fn take(&mut self, limits: &Limits, now: Time) -> Option<(Option<Namespace>, Age)> {
        let old = |at: &Time| now.since(*at) > limits.finished_age_max;
        let oldest = self.unnamed.first().map(|(at, _)| *at);
        if self.unnamed.len() > limits.finished_unnamed_jobs_max || oldest.as_ref().is_some_and(old) {
            return self.unnamed.pop_first().map(|age| (None, age));
        }
        let whose = if self.named.oldest().as_ref().is_some_and(old) {
            Whose::Anybodys
        } else if self.named.len() > limits.finished_jobs_max {
            Whose::MostThings
        } else if self.named.bytes() > limits.finished_bytes_max {
            Whose::MostBytes
        } else {
            return None;
        };
        self.named.take(whose).map(|(namespace, age)| (Some(namespace), age))
    }

    /// Takes a dead letter off the list that is one too many; its job stays.
    fn take_dead_letter(&mut self, limits: &Limits) -> Option<JobId> {
        if self.dead.len() <= limits.dead_letters_max {
            return None;
        }
        let (_, (_, job)) = self.dead.take(Whose::MostThings)?;
        self.dead_letters.remove(&job);
        Some(job)
    }

    /// Every broken invariant in a sentence.
    pub(super) fn check(&self) -> Vec<String> {
        let mut violations = self.named.check();
        violations.extend(self.dead.check());
        if self.dead.len() != self.dead_letters.len() {
            let (piled, listed) = (self.dead.len(), self.dead_letters.len());
            violations.push(format!("{listed} dead letters are listed, {piled} are kept"));
        }
        violations
    }
}

impl Coordinator {
    /// Keeps a finished job's row, and forgets what is too much.
    pub(super) fn remember(&mut self, job: Job) {
        let is_dead_letter = job.row.state == JobState::Failed && !job.row.origin.is_system();
        let id = job.row.id;
        let kept = Kept::of(&job.row);
        self.keep(Row::Job(Box::new(job.row)));
        if is_dead_letter {
            self.retention.dead_letters.insert(id, None);
            self.keep(Row::DeadLetter(id, None));
        }
        self.retain(kept);
        self.forget_old();
    }

    /// Jobs that ended before the start, when all keys and dead letters are known.
    pub(super) fn retain(&mut self, kept: Kept) {
        if kept.lasts == Lasts::UntilTaken {
            self.retention.once.insert(kept.age.1);
        }
        match kept.class {
            Class::Keyed(Keyed { key, body }) if self.keys.look(&key, &body) == Look::Attach(kept.age.1) => {
                self.retention.for_keys.insert(kept.age.1, kept);
            }
            _ => self.retention.put(&kept),
        }
    }

    /// A client has a job's whole answer.
    pub(super) fn answer_was_taken(&mut self, job: JobId) {
        if self.retention.once.remove(&job) {
            self.keep(Row::AnswerForgotten(job));
        }
    }

    /// No key stands for a job's answer any more: it is kept as others are.
    pub(super) fn no_key_stands_for(&mut self, job: JobId) {
        if let Some(kept) = self.retention.for_keys.remove(&job) {
            self.retention.put(&kept);
        }
    }

    /// Forgets what is too much or too old, a number of jobs a step: after a start with smaller bounds it may be
    /// more.
    pub(super) fn forget_old(&mut self) {
        for _ in 0..FORGOTTEN_MAX {
            if let Some((namespace, age)) = self.retention.take(&self.limits, self.now) {
                self.forget(namespace, age);
            } else if let Some(job) = self.retention.take_dead_letter(&self.limits) {
                self.keep(Row::DeadLetterForgotten(job));
            } else if let Some((operation, at)) = self.forget_operation() {
                self.keep(Row::OperationForgotten(operation, at));
            } else {
                return;
            }
        }
    }

    fn forget(&mut self, namespace: Option<Namespace>, age: Age) {
        let job = age.1;
        self.retention.once.remove(&job);
        if let Some(namespace) = namespace
            && self.retention.dead_letters.remove(&job).is_some()
        {
            self.retention.dead.remove(&namespace, age);
            self.keep(Row::DeadLetterForgotten(job));
        }
        if !mutant!(ForgottenNotFolded) {
            self.ledger.forget_job(job);
        }
        self.keep(Row::JobForgotten(job));
    }

    fn forget_operation(&mut self) -> Option<(OperationId, Time)> {
        let bounds = OperationsKept {
            postings_max: self.limits.operation_postings_max,
            age_max: self.limits.operation_postings_age_max,
        };
        self.ledger.forget_operation(bounds, self.now)
    }
}
