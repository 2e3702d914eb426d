//! What clients did and were told: the only truth that a verdict rests on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A job as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What was asked, which is also the answer.
    pub prompt: String,
    /// Whether the box keeps its answer.
    pub answer: Kept,
    /// Whether its client ever asked for its end.
    pub cancel: Cancel,
    /// What the client was told, each with the number of log records that the recorder had by then.
    pub told: Vec<(Told, u64)>,
}

/// Whether the box keeps a job's answer for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A job that outlives its connection.
    Yes,
    /// An unkeyed sync job's answer is gone with its connection.
    No,
}

/// Whether a client asked for a job's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// No.
    NotAsked,
    /// Yes, whatever came of it.
    Asked,
}

/// An acknowledgement about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// It is taken.
    Accepted,
    /// Here is its answer.
    Answered,
    /// It is cancelled.
    Cancelled,
    /// It will be.
    Cancelling,
}

/// A deposit as its operator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// Whose account.
    pub namespace: String,
    /// How much, in millionths of a credit.
    pub micro: i64,
    /// The records that the recorder had when it was acknowledged; none if it never was.
    pub told: Option<u64>,
}

/// Acknowledgements by their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mix {
    /// 202s.
    pub accepted: u64,
    /// Results.
    pub answered: u64,
    /// Cancels.
    pub cancelled: u64,
    /// Deposits.
    pub deposited: u64,
}

impl Mix {
    /// All.
    pub fn total(&self) -> u64 {
        self.accepted + self.answered + self.cancelled + self.deposited
    }

    /// The smallest kind's share of all, in percent.
    pub fn least_percent(&self) -> u64 {
        let least = [self.accepted, self.answered, self.cancelled, self.deposited].into_iter().min();
        least.unwrap_or(0) * 100 / self.total().max(1)
    }

    /// Both together.
    pub fn plus(self, other: Mix) -> Mix {
        Mix {
            accepted: self.accepted + other.accepted,
            answered: self.answered + other.answered,
            cancelled: self.cancelled + other.cancelled,
            deposited: self.deposited + other.deposited,
        }
    }
}

/// Something that was sent and whose answer never came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// A job with an idempotency key: sent again, it is the same job.
    Keyed {
        /// The request that it was.
        path: &'static str,
        /// The key.
        key: String,
        /// The prompt.
        prompt: String,
        /// The model.
        model: &'static str,
    },
    /// A job without: nobody can ask for it any more.
    Unkeyed,
    /// A cancel of this job.
    Cancel(String),
    /// A deposit of this operation.
    Deposit(u128),
}

/// A request with an idempotency key that was acknowledged: sent again, it is the same job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The request that it was.
    pub path: &'static str,
    /// The key.
    pub key: String,
    /// The prompt.
    pub prompt: String,
    /// The model.
    pub model: &'static str,
    /// The job.
    pub id: String,
    /// The records that the recorder had when it was acknowledged.
    pub records: u64,
}

/// Everything that was ever sent to one data directory.
#[derive(Debug, Default)]
pub struct Client {
    entries: Mutex<Entries>,
    next: AtomicU64,
}

/// What is behind the lock.
#[derive(Debug, Clone, Default)]
pub struct Entries {
    /// Jobs by their ids.
    pub jobs: BTreeMap<String, Job>,
    /// Deposits by their operations, acknowledged or not.
    pub deposits: BTreeMap<u128, Deposit>,
    /// What has no answer yet.
    pub unanswered: Vec<Unanswered>,
    /// What was acknowledged under a key, in that order.
    pub keyed: Vec<Keyed>,
    /// Submissions, answered or not: there can't be more jobs.
    pub submissions: u64,
    /// Acknowledgements.
    pub mix: Mix,
}

impl Client {
    /// The entries.
    pub fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that this client has never used.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes over what another client of the same directory knows; numbers go on far behind its own.
    pub fn goes_on(&self, entries: &Entries) {
        *self.entries() = entries.clone();
        self.next.fetch_add(1 << 32, Ordering::Relaxed);
    }

    /// Notes that a job is about to be submitted.
    pub fn submits(&self) {
        self.entries().submissions += 1;
    }

    /// Notes what the client was told of a job.
    pub fn told(&self, id: &str, prompt: &str, answer: Kept, told: Told, records: u64) {
        let mut entries = self.entries();
        match told {
            Told::Accepted => entries.mix.accepted += 1,
            Told::Answered => entries.mix.answered += 1,
            Told::Cancelled | Told::Cancelling => entries.mix.cancelled += 1,
        }
        let fresh = || Job { prompt: prompt.to_owned(), answer, cancel: Cancel::NotAsked, told: Vec::new() };
        let job = entries.jobs.entry(id.to_owned()).or_insert_with(fresh);
        if matches!(told, Told::Cancelled | Told::Cancelling) {
            job.cancel = Cancel::Asked;
        }
        job.told.push((told, records));
    }

    /// Notes that a job's end is about to be asked for.
    pub fn cancels(&self, id: &str) {
        if let Some(job) = self.entries().jobs.get_mut(id) {
            job.cancel = Cancel::Asked;
        }
    }

    /// Notes that a deposit is about to be made.
    pub fn deposits(&self, operation: u128, namespace: &str, micro: i64) {
        let deposit = Deposit { namespace: namespace.to_owned(), micro, told: None };
        self.entries().deposits.insert(operation, deposit);
    }

    /// Notes that a deposit was acknowledged.
    pub fn deposited(&self, operation: u128, records: u64) {
        let mut entries = self.entries();
        entries.mix.deposited += 1;
        if let Some(deposit) = entries.deposits.get_mut(&operation) {
            deposit.told.get_or_insert(records);
        }
    }

    /// Notes that a request with a key was acknowledged.
    pub fn keyed(&self, keyed: Keyed) {
        self.entries().keyed.push(keyed);
    }

    /// Notes that an answer never came.
    pub fn unanswered(&self, what: Unanswered) {
        self.entries().unanswered.push(what);
    }
}
