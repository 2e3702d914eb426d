//! Rows of the core as keys and values of the store. (Bytes are `persist.rs`'s, once there is a journal.)

use switchbox_storage::Change;

use crate::coordinator::effect::Row;
use crate::coordinator::job::JobRow;
use crate::coordinator::ledger::{Account, Posting};
use crate::credits::Credits;
use crate::ids::JobId;

/// What a row is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// A job.
    Job(JobId),
    /// A job's settlement.
    Posting(JobId),
    /// An account's balance.
    Balance(Account),
}

/// A row as it is kept.
#[derive(Debug, Clone)]
pub enum RowValue {
    /// A job, live or finished.
    Job(Box<JobRow>),
    /// A settlement.
    Posting(Posting),
    /// A balance with its account.
    Balance(Account, Credits),
}

/// Turns a row into the changes that keep it.
pub(crate) fn changes_of(row: Row, changes: &mut Vec<Change<RowKey, RowValue>>) {
    match row {
        Row::Job(job) => changes.push((RowKey::Job(job.id), Some(RowValue::Job(job)))),
        Row::JobForgotten(job) => {
            // Its settlement is in the balances; in memory there is no room to keep it for ever.
            changes.push((RowKey::Job(job), None));
            changes.push((RowKey::Posting(job), None));
        }
        Row::Posting(posting) => {
            changes.push((RowKey::Posting(posting.job), Some(RowValue::Posting(posting))));
        }
        Row::Balance { account, balance } => {
            changes.push((RowKey::Balance(account.clone()), Some(RowValue::Balance(account, balance))));
        }
    }
}

/// Turns what was kept back into rows, for recovery.
pub fn row_of(value: RowValue) -> Row {
    match value {
        RowValue::Job(job) => Row::Job(job),
        RowValue::Posting(posting) => Row::Posting(posting),
        RowValue::Balance(account, balance) => Row::Balance { account, balance },
    }
}
