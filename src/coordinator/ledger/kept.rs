//! Postings whose rows are kept: what each moved, so that a balance still adds up when its row goes.
//!
//! A job's posting goes with its job, an operator's when it is too old or one too many. What goes is *folded*: its
//! legs are added to what the accounts' rows say is no longer kept. So at every moment, and in every prefix of the
//! rows that a crash leaves, a balance is what was folded plus the postings that are there.

use std::collections::BTreeMap;

use super::super::event::Environment;
use super::operation::OPERATION_RETENTION;
use super::{Account, Owner, Posting, Subject};
use crate::credits::Credits;
use crate::ids::{JobId, OperationId};
use crate::time::{Span, Time};

/// How many postings of operators are kept, and how long.
#[derive(Debug, Clone, Copy)]
pub(in crate::coordinator) struct OperationsKept {
    /// The oldest of more go, but those that tell repeats stay.
    pub(in crate::coordinator) postings_max: usize,
    /// Older ones go.
    pub(in crate::coordinator) age_max: Span,
}

/// What one posting moved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) environment: Environment,
    pub(super) legs: Box<[(Owner, Credits)]>,
}

/// The postings whose rows are there.
#[derive(Debug, Default)]
pub(super) struct KeptPostings {
    of_jobs: BTreeMap<JobId, Moved>,
    /// By age: an operation's id may be used again after a day.
    of_operations: BTreeMap<(Time, OperationId), Moved>,
}

impl KeptPostings {
    pub(super) fn keep(&mut self, posting: &Posting) {
        let moved = Moved { environment: posting.environment, legs: posting.legs.clone().into_boxed_slice() };
        match posting.id.subject {
            Subject::Job(job) => drop(self.of_jobs.insert(job, moved)),
            Subject::Operation(id) => drop(self.of_operations.insert((posting.at, id), moved)),
        }
    }

    /// Takes out a job's, if it cost anything.
    pub(super) fn take_job(&mut self, job: JobId) -> Option<Moved> {
        self.of_jobs.remove(&job)
    }

    /// Takes out the oldest of an operator's that is too old or one too many.
    pub(super) fn take_operation(
        &mut self,
        bounds: OperationsKept,
        now: Time,
    ) -> Option<(OperationId, Time, Moved)> {
        let (at, id) = *self.of_operations.first_key_value()?.0;
        let too_many = self.of_operations.len() > bounds.postings_max && now.since(at) > OPERATION_RETENTION;
        if !too_many && now.since(at) <= bounds.age_max.max(OPERATION_RETENTION) {
            return None;
        }
        self.of_operations.remove(&(at, id)).map(|moved| (id, at, moved))
    }

    /// What they add up to on each account.
    pub(super) fn sums(&self) -> BTreeMap<Account, i128> {
        let mut sums = BTreeMap::new();
        for Moved { environment, legs } in self.of_jobs.values().chain(self.of_operations.values()) {
            for (owner, change) in legs {
                let account = Account { environment: *environment, owner: owner.clone() };
                *sums.entry(account).or_default() += i128::from(change.0);
            }
        }
        sums
    }
}
