//! Who owes whom: double entry, append-only, in integers. The sum over all accounts of an environment is zero
//! at every moment, and nothing ever moves between environments.
//!
//! A live job has exactly one hold; settling it captures what it cost and releases the rest in one step. What
//! an operator does has an id that the operator chose, and happens once. The ledger never decides what a job
//! costs, and it never forgets a credit: whatever can't be done is refused before anything has changed.
//!
//! Its rows are balances and postings; a posting's row goes with its job, or when it is old, and leaves the balances
//! that say how much of them is no longer explained (`kept`). Holds come back with the live jobs, credit lines with the settings, and
//! which nodes are frozen with the nodes' standings.

mod account;
mod book;
mod kept;
mod operation;
mod posting;
mod prices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use self::account::{Account, Balance, CreditLine, Owner, Statement};
pub(super) use self::kept::OperationsKept;
pub use self::operation::{OPERATION_NOTE_BYTES_MAX, OPERATION_RETENTION, OPERATIONS_KEPT_MAX, Operation};
pub use self::posting::{Posting, PostingId, Step, Subject};

pub use self::prices::{PRICE_RULES_MAX, PriceRule, PriceRulesFull, PriceTable};

use self::book::Book;
use self::kept::{KeptPostings, Moved};
use self::operation::Operations;
use super::event::Environment;
use crate::credits::Credits;
use crate::ids::{JobId, NodeId, OperationId};
use crate::time::Time;

/// Accounts of one environment that operators and holds may open. (A node's is opened by its first earnings,
/// which can't be refused; nodes have a bound of their own.)
pub const ACCOUNTS_MAX: usize = 100_000;
/// A fee of everything.
pub const FEE_WHOLE_PPM: u32 = 1_000_000;

/// Why the ledger changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerRefusal {
    /// The account can't pay so much.
    Insufficient {
        /// What it can pay, its credit line included; below zero when the line was shortened.
        available: Credits,
        /// What was asked of it.
        needed: Credits,
    },
    /// Amounts of operations are above zero (an adjustment's may be below).
    AmountNotPositive,
    /// The environment's credits would exceed what an amount can hold.
    Overflow,
    /// The node's balance is locked.
    Frozen,
    /// This kind of operation isn't for that account.
    AccountUnsuitable,
    /// The id was used for something else.
    OperationDiffers,
    /// So many operations were made within a day that no more can be told from repeats.
    OperationsFull,
    /// The note is too long.
    NoteTooLong,
    /// There are as many accounts as there may be.
    AccountsFull,
}

impl fmt::Display for LedgerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insufficient { available, needed } => {
                return write!(f, "the account has {available} credits available, but {needed} are needed");
            }
            Self::AmountNotPositive => "the amount must be above zero (of an adjustment: not zero)",
            Self::Overflow => "the amount is too large for the ledger",
            Self::Frozen => "the node's balance is frozen until the operator clears it",
            Self::AccountUnsuitable => "the account isn't one that this can be done with",
            Self::OperationDiffers => "the operation's id was used for a different operation",
            Self::OperationsFull => "too many operations within 24 hours; try again later",
            Self::NoteTooLong => "the note is longer than 512 bytes",
            Self::AccountsFull => "there are as many accounts as there may be",
        })
    }
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It happened now.
    Posted(Posting),
    /// It had happened before, as told here; nothing changed.
    Repeated(Posting),
}

/// How a cost is divided.
#[derive(Debug, Clone, Copy)]
pub struct Split<'a> {
    /// Who earns what the fee leaves; without a node everything is the fee.
    pub node: Option<&'a NodeId>,
    /// The operator's share in millionths, rounded down; more than a million counts as a million.
    pub fee_ppm: u32,
}

/// The end of a hold.
#[derive(Debug, Clone, Copy)]
pub struct Settlement<'a> {
    /// Whose hold it is.
    pub job: JobId,
    /// In which world.
    pub environment: Environment,
    /// Who was held, and pays.
    pub payer: &'a Owner,
    /// How much was held.
    pub held: Credits,
    /// How much is captured; the rest is free again.
    pub cost: Credits,
    /// Who gets it.
    pub split: Split<'a>,
    /// When.
    pub at: Time,
}

/// Balances, holds, and what operators did lately.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    mainnet: Book,
    testnet: Book,
    frozen: BTreeSet<NodeId>,
    operations: Operations,
    kept: KeptPostings,
}

impl Ledger {
    /// How far an account may go below zero.
    pub(super) fn set_line(&mut self, account: &Account, line: CreditLine) -> Result<(), LedgerRefusal> {
        if !account.owner.may_pay() {
            return Err(LedgerRefusal::AccountUnsuitable);
        }
        if matches!(line, CreditLine::Limit(limit) if limit < Credits::ZERO) {
            return Err(LedgerRefusal::AmountNotPositive);
        }
        let book = self.book_mut(account.environment);
        book.check_room(&account.owner)?;
        book.entry(&account.owner).line = line;
        Ok(())
    }

    /// Sets aside a job's worst case, which may be zero, from a namespace or the integrity account.
    pub(super) fn hold(&mut self, payer: &Account, amount: Credits) -> Result<(), LedgerRefusal> {
        assert!(payer.owner.may_pay(), "{payer:?} pays for no job");
        if amount < Credits::ZERO {
            return Err(LedgerRefusal::AmountNotPositive);
        }
        let book = self.book_mut(payer.environment);
        book.check_growth(amount)?;
        let statement = book.statement(&payer.owner);
        if statement.available < amount {
            return Err(LedgerRefusal::Insufficient { available: statement.available, needed: amount });
        }
        book.check_room(&payer.owner)?;
        book.hold(&payer.owner, amount);
        Ok(())
    }

    /// Ends a job's hold: its cost goes to the node and the operator's fee, the rest is free again. Moving
    /// nothing leaves no posting. A job has a hold exactly as long as it lives, so for a job that has ended or
    /// is unknown there is nothing to call this with; what a caller may have got wrong is asserted.
    pub(super) fn settle(&mut self, settlement: Settlement<'_>) -> Option<Posting> {
        let Settlement { job, environment, payer, held, cost, split, at } = settlement;
        assert!(cost >= Credits::ZERO && cost <= held, "job {job}: capture {cost} outside its hold {held}");
        let book = self.book_mut(environment);
        let free = book.free(payer, held);
        assert!(free, "job {job}: {payer:?} has no such hold as {held}");
        if cost == Credits::ZERO {
            return None;
        }
        let legs = posting::capture_legs(payer, cost, split);
        let id = PostingId { subject: Subject::Job(job), step: Step::Capture };
        let posting = Posting { id, environment, at, legs, note: String::new() };
        book.post(&posting);
        self.kept.keep(&posting);
        Some(posting)
    }

    /// Ends a job's hold without a cost.
    pub(super) fn release(&mut self, job: JobId, payer: &Account, held: Credits) {
        let free = self.book_mut(payer.environment).free(&payer.owner, held);
        assert!(free, "job {job}: {payer:?} has no such hold as {held}");
    }

    /// Does what an operator asks, once for each id; the same again is answered with what was done.
    pub(super) fn operate(
        &mut self,
        id: OperationId,
        operation: &Operation,
        at: Time,
    ) -> Result<Applied, LedgerRefusal> {
        self.operations.forget_old(at);
        let posting = operation.posting(id, at)?;
        if let Some(before) = self.operations.find(id) {
            return match before.is_same_but_for_time(&posting) {
                true => Ok(Applied::Repeated(before.clone())),
                false => Err(LedgerRefusal::OperationDiffers),
            };
        }
        self.check_operation(operation, &posting)?;
        self.operations.check_room()?;
        self.operations.keep(posting.clone());
        self.book_mut(posting.environment).post(&posting);
        self.kept.keep(&posting);
        Ok(Applied::Posted(posting))
    }

    /// A job's posting isn't kept any more, if there is one.
    pub(super) fn forget_job(&mut self, job: JobId) {
        if let Some(moved) = self.kept.take_job(job) {
            self.fold(&moved);
        }
    }

    /// Forgets the oldest posting of an operator that is too old or one too many, and names it.
    pub(super) fn forget_operation(
        &mut self,
        bounds: OperationsKept,
        now: Time,
    ) -> Option<(OperationId, Time)> {
        let (id, at, moved) = self.kept.take_operation(bounds, now)?;
        self.fold(&moved);
        Some((id, at))
    }

    fn fold(&mut self, moved: &Moved) {
        self.book_mut(moved.environment).fold(&moved.legs);
    }

    /// Gives the rows of the accounts that were changed since the last time.
    pub(super) fn take_changed(&mut self, mut take: impl FnMut(Balance)) {
        self.mainnet.take_changed(Environment::Mainnet, &mut take);
        self.testnet.take_changed(Environment::Testnet, &mut take);
    }

    fn check_operation(&self, operation: &Operation, posting: &Posting) -> Result<(), LedgerRefusal> {
        if let Operation::Transfer { node, .. } = operation
            && self.frozen.contains(node)
        {
            return Err(LedgerRefusal::Frozen);
        }
        self.book(posting.environment).check_posting(posting)
    }

    /// Locks what a node has earned and will earn: earnings go on, transfers are refused.
    pub(super) fn freeze(&mut self, node: &NodeId) {
        self.frozen.insert(node.clone());
    }

    /// Unlocks it again.
    pub(super) fn thaw(&mut self, node: &NodeId) {
        self.frozen.remove(node);
    }

    /// Puts back a balance that was kept.
    pub(super) fn restore(&mut self, balance: &Balance) {
        self.book_mut(balance.account.environment).restore(balance);
    }

    /// Puts back the hold of a live job, whatever the payer's line is now.
    pub(super) fn restore_hold(&mut self, payer: &Account, amount: Credits) {
        assert!(payer.owner.may_pay() && amount >= Credits::ZERO, "{payer:?} can't be held for {amount}");
        self.book_mut(payer.environment).hold(&payer.owner, amount);
    }

    /// Puts back a posting; its balances are rows of their own. Operations that are too old to be repeats are
    /// forgotten as such with the next one.
    pub(super) fn restore_posting(&mut self, posting: Posting) {
        self.kept.keep(&posting);
        self.operations.keep(posting);
    }

    /// When all balances and postings are back: works out what rows of older builds don't say.
    pub(super) fn restore_folds(&mut self) {
        let sums = self.kept.sums();
        for environment in [Environment::Mainnet, Environment::Testnet] {
            let kept = |owner: &Owner| kept_of(&sums, environment, owner);
            self.book_mut(environment).restore_folds(kept);
        }
    }

    /// Live holds.
    pub(super) fn holds(&self) -> u64 {
        self.books().map(|(_, book)| book.holds()).sum()
    }

    /// Credits held, of both environments.
    pub(super) fn held_total(&self) -> Credits {
        self.books().fold(Credits::ZERO, |sum, (_, book)| Credits(sum.0.saturating_add(book.held().0)))
    }

    /// The sum over all accounts: zero, unless there is a bug.
    pub(super) fn sum(&self, environment: Environment) -> i128 {
        self.book(environment).sum()
    }

    /// An account's balance.
    #[cfg(test)]
    pub(super) fn balance(&self, account: &Account) -> Credits {
        self.statement(account).balance
    }

    /// What is held from an account.
    #[cfg(test)]
    pub(super) fn held(&self, account: &Account) -> Credits {
        self.statement(account).held
    }

    /// An account's figures.
    pub(super) fn statement(&self, account: &Account) -> Statement {
        self.book(account.environment).statement(&account.owner)
    }

    /// Every account with its figures, in order of opening.
    pub(super) fn statements(&self) -> impl Iterator<Item = (Account, Statement)> + '_ {
        self.books().flat_map(|(environment, book)| {
            book.statements().map(move |(owner, statement)| {
                let owner = owner.clone();
                (Account { environment, owner }, statement)
            })
        })
    }

    /// Every broken invariant in a sentence.
    pub(super) fn check(&self) -> Vec<String> {
        let sums = self.kept.sums();
        let books = self.books().flat_map(|(environment, book)| {
            let unexplained = book.unexplained(|owner| kept_of(&sums, environment, owner));
            book.check(environment).into_iter().chain(unexplained)
        });
        books.chain(self.operations.check()).collect()
    }

    fn books(&self) -> impl Iterator<Item = (Environment, &Book)> {
        [(Environment::Mainnet, &self.mainnet), (Environment::Testnet, &self.testnet)].into_iter()
    }

    fn book(&self, environment: Environment) -> &Book {
        match environment {
            Environment::Mainnet => &self.mainnet,
            Environment::Testnet => &self.testnet,
        }
    }

    fn book_mut(&mut self, environment: Environment) -> &mut Book {
        match environment {
            Environment::Mainnet => &mut self.mainnet,
            Environment::Testnet => &mut self.testnet,
        }
    }
}

/// What kept postings add up to on an account.
fn kept_of(sums: &BTreeMap<Account, i128>, environment: Environment, owner: &Owner) -> i128 {
    sums.get(&Account { environment, owner: owner.clone() }).copied().unwrap_or(0)
}
