//! Who owes whom: double entry, append-only, in integers. The sum over all accounts is zero at every moment.
//!
//! A live job has exactly one hold; ending it captures what it cost and releases the rest in one step.
//! For now every namespace has unlimited credit, so a hold is never refused.

use std::collections::BTreeMap;

use super::effect::Row;
use crate::credits::Credits;
use crate::ids::{JobId, Namespace, NodeId};

/// Where credits can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// A namespace's: below zero where it owes.
    Namespace(Namespace),
    /// A node's earnings.
    Node(NodeId),
}

/// A transfer between accounts, for one job. There is at most one a job: its id is the job's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Whose settlement it is.
    pub job: JobId,
    /// Changes that sum to zero.
    pub legs: Vec<(Account, Credits)>,
}

/// Balances and holds.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    balances: BTreeMap<Account, Credits>,
    holds: u64,
    held: Credits,
}

impl Ledger {
    /// Sets aside a job's worst case.
    pub(super) fn hold(&mut self, amount: Credits) {
        self.holds += 1;
        self.held.0 += amount.0;
    }

    /// Ends a hold: `cost` goes from the namespace to the node, the rest is free again. A settlement that
    /// moves nothing leaves no posting.
    pub(super) fn settle(&mut self, settlement: Settlement<'_>) -> Vec<Row> {
        let Settlement { job, held, cost, namespace, node } = settlement;
        assert!(cost >= Credits::ZERO && cost <= held, "job {job}: capture {cost} outside its hold {held}");
        assert!(self.holds > 0, "job {job}: released twice");
        self.holds -= 1;
        self.held.0 -= held.0;
        let Some(node) = node.filter(|_| cost > Credits::ZERO) else {
            return Vec::new();
        };
        let legs = vec![
            (Account::Namespace(namespace.clone()), Credits(-cost.0)),
            (Account::Node(node.clone()), cost),
        ];
        let mut rows = Vec::with_capacity(legs.len() + 1);
        for (account, change) in &legs {
            let balance = self.balances.entry(account.clone()).or_default();
            balance.0 += change.0;
            rows.push(Row::Balance { account: account.clone(), balance: *balance });
        }
        rows.push(Row::Posting(Posting { job, legs }));
        rows
    }

    /// Puts back a balance that was kept.
    pub(super) fn restore(&mut self, account: Account, balance: Credits) {
        self.balances.insert(account, balance);
    }

    /// Live holds.
    pub(super) fn holds(&self) -> u64 {
        self.holds
    }

    /// Credits held.
    pub(super) fn held(&self) -> Credits {
        self.held
    }

    /// The sum over all accounts: zero, unless there is a bug.
    pub(super) fn sum(&self) -> Credits {
        Credits(self.balances.values().map(|balance| balance.0).sum())
    }

    /// An account's balance.
    #[cfg(test)]
    pub(super) fn balance(&self, account: &Account) -> Credits {
        self.balances.get(account).copied().unwrap_or_default()
    }
}

/// The end of a hold.
pub(super) struct Settlement<'a> {
    pub(super) job: JobId,
    pub(super) held: Credits,
    pub(super) cost: Credits,
    pub(super) namespace: &'a Namespace,
    pub(super) node: Option<&'a NodeId>,
}
