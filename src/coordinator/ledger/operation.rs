//! What operators do to the ledger, and the memory of it that tells a repeat from something new.
//!
//! It only says what an operation moves and whether it was there before; whether an account can afford it is
//! the book's to say.

use std::collections::{BTreeMap, BTreeSet};

use super::super::event::Environment;
use super::{LedgerRefusal, Owner, Posting, PostingId, Step, Subject};
use crate::credits::Credits;
use crate::ids::OperationId;
use crate::ids::{Namespace, NodeId};
use crate::time::{Span, Time};

/// Operations that are remembered.
pub const OPERATIONS_KEPT_MAX: usize = 100_000;
/// For how long.
pub const OPERATION_RETENTION: Span = Span::from_secs(24 * 3_600);
/// The longest note.
pub const OPERATION_NOTE_BYTES_MAX: usize = 512;
/// Operations forgotten at once, at most; more than are made at once, so that it catches up.
const FORGOTTEN_AT_ONCE_MAX: usize = 64;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// New credits for a namespace.
    Deposit {
        /// In which world.
        environment: Environment,
        /// Whose.
        namespace: Namespace,
        /// How many, above zero.
        amount: Credits,
    },
    /// Credits put into an account or taken out of it, against issuance.
    Adjust {
        /// In which world.
        environment: Environment,
        /// Whose account, except issuance's own.
        owner: Owner,
        /// How many; below zero to take them out, no more than are available.
        amount: Credits,
        /// Why.
        note: String,
    },
    /// A node's earnings, to its owner's namespace.
    Transfer {
        /// In which world.
        environment: Environment,
        /// Whose earnings.
        node: NodeId,
        /// To whom.
        namespace: Namespace,
        /// How many, above zero, no more than it has.
        amount: Credits,
    },
}

impl Operation {
    /// What it moves, if that makes sense at all.
    pub(super) fn posting(&self, id: OperationId, at: Time) -> Result<Posting, LedgerRefusal> {
        let to = |namespace: &Namespace| Owner::Namespace(namespace.clone());
        let (environment, step, from, into, amount, note) = match self {
            Self::Deposit { environment, namespace, amount } => {
                (environment, Step::Deposit, Owner::Issuance, to(namespace), *amount, "")
            }
            Self::Adjust { environment, owner, amount, note } => {
                (environment, Step::Adjust, Owner::Issuance, owner.clone(), *amount, note.as_str())
            }
            Self::Transfer { environment, node, namespace, amount } => {
                (environment, Step::Transfer, Owner::Node(node.clone()), to(namespace), *amount, "")
            }
        };
        if amount == Credits::ZERO || (amount < Credits::ZERO && step != Step::Adjust) {
            return Err(LedgerRefusal::AmountNotPositive);
        }
        if from == into {
            return Err(LedgerRefusal::AccountUnsuitable);
        }
        if note.len() > OPERATION_NOTE_BYTES_MAX {
            return Err(LedgerRefusal::NoteTooLong);
        }
        let taken = Credits(amount.0.checked_neg().ok_or(LedgerRefusal::Overflow)?);
        let id = PostingId { subject: Subject::Operation(id), step };
        let legs = vec![(from, taken), (into, amount)];
        Ok(Posting { id, environment: *environment, at, legs, note: note.to_owned() })
    }
}

/// The operations of a day.
#[derive(Debug, Default)]
pub(super) struct Operations {
    kept: BTreeMap<OperationId, Posting>,
    by_time: BTreeSet<(Time, OperationId)>,
}

impl Operations {
    pub(super) fn find(&self, id: OperationId) -> Option<&Posting> {
        self.kept.get(&id)
    }

    pub(super) fn check_room(&self) -> Result<(), LedgerRefusal> {
        if self.kept.len() >= OPERATIONS_KEPT_MAX {
            return Err(LedgerRefusal::OperationsFull);
        }
        Ok(())
    }

    /// Remembers a posting, if it is an operation's; of two with one id (more than a day apart) the later.
    pub(super) fn keep(&mut self, posting: Posting) {
        if let Subject::Operation(id) = posting.id.subject {
            match self.kept.get(&id).map(|before| before.at) {
                Some(before) if before >= posting.at => return,
                Some(before) => drop(self.by_time.remove(&(before, id))),
                None => {}
            }
            self.by_time.insert((posting.at, id));
            self.kept.insert(id, posting);
        }
    }

    /// Forgets what is older than the retention, a bounded number at once.
    pub(super) fn forget_old(&mut self, now: Time) {
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let Some((at, id)) = self.by_time.first().copied() else { return };
            if at + OPERATION_RETENTION > now {
                return;
            }
            self.by_time.remove(&(at, id));
            self.kept.remove(&id);
        }
    }

    pub(super) fn check(&self) -> Vec<String> {
        let times: BTreeSet<(Time, OperationId)> =
            self.kept.iter().map(|(id, posting)| (posting.at, *id)).collect();
        let all_known = times == self.by_time;
        let violation = || format!("{} operations, but {} of their times", times.len(), self.by_time.len());
        if all_known { Vec::new() } else { vec![violation()] }
    }
}
