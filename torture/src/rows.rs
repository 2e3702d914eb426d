//! Rows as a start finds them, read through the library: all of them, in a moment.

use std::collections::BTreeMap;
use std::path::Path;

use switchbox::coordinator::effect::Row;
use switchbox::coordinator::job::JobRow;
use switchbox::coordinator::ledger::{Account, Balance, Posting};
use switchbox::persist::keys::Table;
use switchbox::persist::{self, DecodeError, LoadError};
use switchbox_storage::{Error, JournalOptions, StateKind, Store, StoreOptions, Stored};

/// Every row by its key, payloads read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Keys and values.
    pub values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Payloads that were refused by file and offset: their keys, and what was said.
    pub refused: BTreeMap<Vec<u8>, String>,
}

/// The options of the rig's own opens: a store so small that its spares cost nothing.
pub fn options(state: StateKind) -> StoreOptions {
    let defaults = StoreOptions::default();
    StoreOptions {
        state,
        audit: persist::audit,
        disk_reserve_bytes: 1 << 20,
        journal: JournalOptions { segment_bytes: 1 << 20, group_bytes: 128 << 10, ..defaults.journal },
        ..defaults
    }
}

impl Rows {
    /// Starts on a store's directory and reads everything.
    ///
    /// # Errors
    /// When the start is refused, or a row can't be read.
    pub fn open(dir: &Path, state: StateKind) -> Result<Self, Error> {
        let (store, _) = Store::open(dir, options(state))?;
        let mut rows = Rows::default();
        store.for_each(&[], None, |key, stored| {
            let value = match stored {
                Stored::Value(value) => value.into(),
                Stored::Payload(at) => match store.payload(at) {
                    Ok(bytes) => bytes,
                    Err(error @ Error::Damaged { .. }) => {
                        rows.refused.insert(key.into(), error.to_string());
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                },
            };
            rows.values.insert(key.into(), value);
            Ok(())
        })?;
        Ok(rows)
    }

    /// What differs between two, by table and key; at most a few.
    pub fn differences(&self, other: &Rows) -> Vec<String> {
        let keys = self.values.keys().chain(other.values.keys());
        let mut differ: Vec<&Vec<u8>> =
            keys.filter(|key| self.values.get(*key) != other.values.get(*key)).collect();
        differ.dedup();
        let word = |key: &[u8]| Table::of(key).map_or("?", Table::word);
        differ.iter().take(3).map(|key| format!("{} {key:02x?}", word(key))).collect()
    }
}

/// What the rows say.
#[derive(Debug, Default)]
pub struct Facts {
    /// Jobs by their ids as clients know them.
    pub jobs: BTreeMap<String, JobRow>,
    /// Answers of jobs.
    pub answers: BTreeMap<String, String>,
    /// Credits that moved.
    pub postings: Vec<Posting>,
    /// Balances.
    pub balances: BTreeMap<Account, i128>,
    /// What of them comes from postings that aren't there any more.
    pub folded: BTreeMap<Account, i128>,
}

impl Facts {
    /// Decodes all rows.
    ///
    /// # Errors
    /// When one can't be.
    pub fn of(rows: &Rows) -> Result<Self, LoadError> {
        let mut facts = Facts::default();
        for (key, value) in &rows.values {
            match Table::of(key) {
                Some(Table::Bodies | Table::Extras | Table::Traces) => {}
                Some(Table::Answers) => {
                    let job = switchbox::ids::JobId {
                        epoch: number(key.get(1..5)) as u32,
                        counter: number(key.get(5..13)),
                    };
                    let text = String::from_utf8_lossy(value.get(1..).unwrap_or_default()).into_owned();
                    facts.answers.insert(job.to_string(), text);
                }
                _ => facts.take(rows, key, value)?,
            }
        }
        Ok(facts)
    }

    fn take(&mut self, rows: &Rows, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let row = persist::decode::<DecodeError>(key, value, &mut |table, _| {
            let mut part = key.to_vec();
            part[0] = table as u8;
            Ok(rows.values.get(&part).cloned())
        })?;
        match row {
            Row::Job(job) => drop(self.jobs.insert(job.id.to_string(), *job)),
            Row::Posting(posting) => self.postings.push(posting),
            Row::Balance(Balance { account, balance, folded }) => {
                self.folded.insert(account.clone(), folded.map_or(0, |folded| folded.0.into()));
                self.balances.insert(account, balance.0.into());
            }
            _ => {}
        }
        Ok(())
    }
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.unwrap_or_default().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
