//! Accounts: whose they are, and how far they may go. Values only.

use super::super::event::Environment;
use crate::credits::Credits;
use crate::ids::{Namespace, NodeId};

/// Whose credits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A namespace's: below zero where it owes.
    Namespace(Namespace),
    /// A node's earnings.
    Node(NodeId),
    /// What the operator takes of every job.
    Fee,
    /// What pays for the box's own test and blind jobs.
    Integrity,
    /// Where all credits come from: below zero by what there is of them.
    Issuance,
}

impl Owner {
    /// Whether jobs can be paid from such an account.
    pub fn may_pay(&self) -> bool {
        matches!(self, Owner::Namespace(_) | Owner::Integrity)
    }
}

/// Where credits can be. Nothing moves between environments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    /// In which world.
    pub environment: Environment,
    /// Whose.
    pub owner: Owner,
}

/// An account's balance: a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Which account.
    pub account: Account,
    /// What it has; below zero where it owes.
    pub balance: Credits,
    /// What of it comes from postings that aren't kept any more; the rest is what the kept ones add up to. `None` in
    /// rows of builds that didn't say so: a start works it out.
    pub folded: Option<Credits>,
}

/// How far below zero an account may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditLine {
    /// By so much, zero or more.
    Limit(Credits),
    /// By as much as the ledger can hold.
    Unlimited,
}

impl Default for CreditLine {
    fn default() -> Self {
        CreditLine::Limit(Credits::ZERO)
    }
}

/// An account's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statement {
    /// What it has; below zero where it owes.
    pub balance: Credits,
    /// What live jobs have set aside of it.
    pub held: Credits,
    /// Live holds.
    pub holds: u64,
    /// How far below zero it may go.
    pub line: CreditLine,
    /// What a new job may set aside: balance and line less what is held.
    pub available: Credits,
}
