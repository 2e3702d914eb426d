//! As of which group a set of rows is, and how to recognise it: in the state store and in a snapshot.

use std::collections::BTreeMap;

use crate::bytes::Reader;
use crate::journal::segment::DirectoryId;
use crate::row::Stored;

/// The caller's number for a row, by key and value (rows with a payload aren't asked). At every group boundary the
/// sum over all rows is compared with what was kept, so a ledger that must sum to zero is checked with it.
pub type Audit = fn(key: &[u8], value: &[u8]) -> i128;

/// What is counted over all rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Number of rows by table (the first byte of the key); none that is 0.
    pub rows: BTreeMap<u8, u64>,
    /// Sum of the caller's audit.
    pub audit: i128,
}

impl Totals {
    /// Counts a row.
    pub(crate) fn add(&mut self, audit: Audit, key: &[u8], stored: &Stored) {
        *self.rows.entry(key[0]).or_default() += 1;
        self.audit = self.audit.wrapping_add(audit_of(audit, key, stored));
    }

    /// Takes a row that was counted out again.
    pub(crate) fn remove(&mut self, audit: Audit, key: &[u8], stored: &Stored) {
        let count = self.rows.get_mut(&key[0]).expect("a row is counted before it goes");
        *count -= 1;
        if *count == 0 {
            self.rows.remove(&key[0]);
        }
        self.audit = self.audit.wrapping_sub(audit_of(audit, key, stored));
    }

    /// Number of rows in all tables.
    pub fn all_rows(&self) -> u64 {
        self.rows.values().sum()
    }
}

fn audit_of(audit: Audit, key: &[u8], stored: &Stored) -> i128 {
    match stored {
        Stored::Value(value) => audit(key, value),
        Stored::Payload(_) => 0,
    }
}

/// As of which group rows are, and what they sum to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) id: DirectoryId,
    pub(crate) group: u64,
    pub(crate) lsn: u64,
    pub(crate) epoch: u64,
    pub(crate) totals: Totals,
}

impl Mark {
    /// No rows, before the first group.
    pub(crate) fn empty(id: DirectoryId) -> Self {
        Self { id, group: 0, lsn: 0, epoch: 0, totals: Totals::default() }
    }

    /// `id 16 | group 8 | lsn 8 | epoch 8 | audit 16 | tables 2 | per table: table 1, rows 8`, little-endian.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + 9 * self.totals.rows.len());
        bytes.extend_from_slice(&self.id);
        for number in [self.group, self.lsn, self.epoch] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.totals.audit.to_le_bytes());
        let tables = u16::try_from(self.totals.rows.len()).expect("a table is one byte");
        bytes.extend_from_slice(&tables.to_le_bytes());
        for (table, rows) in &self.totals.rows {
            bytes.push(*table);
            bytes.extend_from_slice(&rows.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let (id, group, lsn, epoch) = (r.array()?, r.u64()?, r.u64()?, r.u64()?);
        let (audit, tables) = (r.i128()?, r.u16()?);
        let rows = (0..tables).map(|_| Some((r.u8()?, r.u64()?))).collect::<Option<_>>()?;
        r.is_empty().then_some(Self { id, group, lsn, epoch, totals: Totals { rows, audit } })
    }
}
