//! Whether the balances among a store's rows are what its postings say: for `switchbox doctor`.

use std::collections::BTreeMap;

use super::keys::Table;
use super::{DecodeError, decode};
use crate::coordinator::effect::Row;
use crate::coordinator::ledger::{Account, Balance};

/// What rows say of each account. Rows come once each, in any order.
#[derive(Debug, Default)]
pub struct Books {
    /// A balance, less what is folded into it and less its postings: zero.
    unexplained: BTreeMap<Account, i128>,
    /// Accounts whose row is of a build that didn't say what was folded.
    unsaid: u64,
    postings: u64,
}

impl Books {
    /// Takes in a row, if it is the ledger's.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        if !matches!(Table::of(key), Some(Table::Balances | Table::Settlements | Table::Operations)) {
            return Ok(());
        }
        match decode::<DecodeError>(key, value, &mut |_, _| Ok(None))? {
            Row::Balance(Balance { account, balance, folded }) => match folded {
                Some(folded) => {
                    *self.unexplained.entry(account).or_default() +=
                        i128::from(balance.0) - i128::from(folded.0);
                }
                None => self.unsaid += 1,
            },
            Row::Posting(posting) => {
                self.postings += 1;
                for (owner, change) in posting.legs {
                    let account = Account { environment: posting.environment, owner };
                    *self.unexplained.entry(account).or_default() -= i128::from(change.0);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Postings that are there.
    pub fn postings(&self) -> u64 {
        self.postings
    }

    /// Accounts whose balance isn't what its postings say, with the difference in micro-credits. Nothing is said while
    /// rows of older builds are there: a start makes their accounts whole with the next change.
    pub fn unexplained(&self) -> Vec<(&Account, i128)> {
        let wrong = self.unexplained.iter().filter(|(_, rest)| self.unsaid == 0 && **rest as i64 != 0);
        wrong.map(|(account, rest)| (account, *rest)).collect()
    }
}
