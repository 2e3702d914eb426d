//! The accounts of one environment. It has no way to another one's.
//!
//! What is above zero on all accounts together, plus all that is held, is never more than an amount can hold.
//! So no settlement can overflow, whoever it pays: that is refused where credits are made or set aside.

use super::super::by_hash::{ByHash, Number};
use super::super::event::Environment;
use super::{ACCOUNTS_MAX, Account, Balance, CreditLine, LedgerRefusal, Owner, Posting, Statement};
use crate::credits::Credits;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    owner: Owner,
    balance: Credits,
    /// What of it comes from postings that aren't kept any more; `None` until a start has worked it out.
    folded: Option<Credits>,
    held: Credits,
    holds: u64,
    pub(super) line: CreditLine,
    row: EntryRow,
}

/// Whether an account's row says how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryRow {
    /// It does, or there is nothing to say.
    Kept,
    /// It was changed in this step.
    Changed,
}

impl Entry {
    fn new(owner: &Owner) -> Self {
        Self {
            owner: owner.clone(),
            balance: Credits::ZERO,
            folded: Some(Credits::ZERO),
            held: Credits::ZERO,
            holds: 0,
            line: CreditLine::default(),
            row: EntryRow::Kept,
        }
    }

    fn available(&self) -> Credits {
        let CreditLine::Limit(limit) = self.line else {
            // However much it owes: what bounds it is the whole environment.
            return Credits(i64::MAX);
        };
        let available = i128::from(self.balance.0) + i128::from(limit.0) - i128::from(self.held.0);
        let end = if available < 0 { i64::MIN } else { i64::MAX };
        Credits(i64::try_from(available).unwrap_or(end))
    }

    fn statement(&self) -> Statement {
        let Entry { balance, held, holds, line, .. } = *self;
        Statement { balance, held, holds, line, available: self.available() }
    }

    fn above_zero(&self) -> i128 {
        i128::from(self.balance.0.max(0))
    }
}

#[derive(Debug, Default)]
pub(super) struct Book {
    /// In order of opening; none is ever closed.
    entries: Vec<Entry>,
    by_hash: ByHash,
    /// What all accounts above zero have.
    above_zero: i128,
    held: i128,
    holds: u64,
    /// Places of the accounts that were changed in this step.
    changed: Vec<usize>,
}

impl Book {
    /// An account, opened if need be.
    pub(super) fn entry(&mut self, owner: &Owner) -> &mut Entry {
        let place = self.opened(owner);
        &mut self.entries[place]
    }

    fn opened(&mut self, owner: &Owner) -> usize {
        self.place(owner).unwrap_or_else(|number| {
            self.entries.push(Entry::new(owner));
            let place = self.entries.len() - 1;
            self.by_hash.file(number, place);
            place
        })
    }

    fn find(&self, owner: &Owner) -> Option<&Entry> {
        self.place(owner).ok().map(|place| &self.entries[place])
    }

    /// Where an account is, or the number under which it would be found.
    fn place(&self, owner: &Owner) -> Result<usize, Number> {
        self.by_hash.find(owner, |place| self.entries[place].owner == *owner)
    }

    /// Refuses what would open an account too many.
    pub(super) fn check_room(&self, owner: &Owner) -> Result<(), LedgerRefusal> {
        if self.entries.len() >= ACCOUNTS_MAX && self.find(owner).is_none() {
            return Err(LedgerRefusal::AccountsFull);
        }
        Ok(())
    }

    /// Refuses an amount with which the environment would hold more than an amount can.
    pub(super) fn check_growth(&self, amount: Credits) -> Result<(), LedgerRefusal> {
        if self.above_zero + self.held + i128::from(amount.0) > i128::from(i64::MAX) {
            return Err(LedgerRefusal::Overflow);
        }
        Ok(())
    }

    /// Refuses a posting that an account can't afford or that would be too large. Issuance can afford anything.
    pub(super) fn check_posting(&self, posting: &Posting) -> Result<(), LedgerRefusal> {
        for (owner, change) in &posting.legs {
            self.check_room(owner)?;
            let available = self.statement(owner).available;
            let lacks = *change < Credits::ZERO && i128::from(available.0) + i128::from(change.0) < 0;
            if *owner != Owner::Issuance && lacks {
                return Err(LedgerRefusal::Insufficient { available, needed: Credits(-change.0) });
            }
        }
        let added: i128 = posting.legs.iter().map(|(owner, change)| self.rise(owner, *change)).sum();
        // What is below zero on all accounts is as much as what is above: neither can overflow alone.
        match self.above_zero + self.held + added > i128::from(i64::MAX) {
            true => Err(LedgerRefusal::Overflow),
            false => Ok(()),
        }
    }

    /// By how much a change raises what is above zero.
    fn rise(&self, owner: &Owner, change: Credits) -> i128 {
        let before = i128::from(self.statement(owner).balance.0);
        (before + i128::from(change.0)).max(0) - before.max(0)
    }

    pub(super) fn hold(&mut self, owner: &Owner, amount: Credits) {
        let entry = self.entry(owner);
        entry.held.0 = entry.held.0.checked_add(amount.0).expect("holds fit into an amount");
        entry.holds += 1;
        self.held += i128::from(amount.0);
        self.holds += 1;
    }

    /// Ends a hold; says whether there was one so large.
    #[must_use]
    pub(super) fn free(&mut self, owner: &Owner, held: Credits) -> bool {
        let Ok(place) = self.place(owner) else { return false };
        let entry = &mut self.entries[place];
        if entry.holds == 0 || entry.held < held {
            return false;
        }
        entry.held.0 -= held.0;
        entry.holds -= 1;
        self.held -= i128::from(held.0);
        self.holds -= 1;
        true
    }

    /// Changes the accounts.
    pub(super) fn post(&mut self, posting: &Posting) {
        let sum: i128 = posting.legs.iter().map(|(_, change)| i128::from(change.0)).sum();
        assert_eq!(sum, 0, "a posting sums to zero: {posting:?}");
        posting.legs.iter().for_each(|(owner, change)| self.change(owner, *change));
    }

    fn change(&mut self, owner: &Owner, change: Credits) {
        let place = self.opened(owner);
        let entry = &mut self.entries[place];
        let before = entry.above_zero();
        let balance = entry.balance.0.checked_add(change.0);
        entry.balance.0 = balance.expect("what can overflow is refused before");
        let risen = entry.above_zero() - before;
        self.above_zero += risen;
        self.row_changes(place);
    }

    /// A posting's row goes: its legs are in the balances alone from now on.
    pub(super) fn fold(&mut self, legs: &[(Owner, Credits)]) {
        for (owner, change) in legs {
            let place = self.opened(owner);
            let folded = &mut self.entries[place].folded;
            // Partial sums of postings may be larger than any balance ever was; what wraps comes back.
            *folded = folded.map(|folded| Credits(folded.0.wrapping_add(change.0)));
            self.row_changes(place);
        }
    }

    fn row_changes(&mut self, place: usize) {
        let row = &mut self.entries[place].row;
        if std::mem::replace(row, EntryRow::Changed) == EntryRow::Kept {
            self.changed.push(place);
        }
    }

    /// Gives the rows of the accounts that were changed since the last time.
    pub(super) fn take_changed(&mut self, environment: Environment, mut take: impl FnMut(Balance)) {
        for place in self.changed.drain(..) {
            let entry = &mut self.entries[place];
            entry.row = EntryRow::Kept;
            let account = Account { environment, owner: entry.owner.clone() };
            take(Balance { account, balance: entry.balance, folded: entry.folded });
        }
    }

    pub(super) fn restore(&mut self, balance: &Balance) {
        let entry = self.entry(&balance.account.owner);
        let before = entry.above_zero();
        (entry.balance, entry.folded) = (balance.balance, balance.folded);
        let risen = entry.above_zero() - before;
        self.above_zero += risen;
    }

    /// Works out what isn't known to be folded, of rows that didn't say: what the kept postings don't explain.
    pub(super) fn restore_folds(&mut self, kept: impl Fn(&Owner) -> i128) {
        for entry in self.entries.iter_mut().filter(|entry| entry.folded.is_none()) {
            let folded = i128::from(entry.balance.0) - kept(&entry.owner);
            // As in `fold`.
            entry.folded = Some(Credits(folded as i64));
        }
    }

    /// Accounts whose balance isn't what was folded and the kept postings add up to.
    pub(super) fn unexplained(&self, kept: impl Fn(&Owner) -> i128) -> Vec<String> {
        let explained = |entry: &Entry| {
            let folded = entry.folded.map(|folded| folded.0.wrapping_add(kept(&entry.owner) as i64));
            folded.is_none_or(|sum| sum == entry.balance.0)
        };
        let odd = self.entries.iter().filter(|entry| !explained(entry));
        odd.map(|entry| {
            format!("{entry:?}: its kept postings add up to {}, which isn't the rest", kept(&entry.owner))
        })
        .collect()
    }

    pub(super) fn statement(&self, owner: &Owner) -> Statement {
        self.find(owner).map(Entry::statement).unwrap_or_default()
    }

    pub(super) fn statements(&self) -> impl Iterator<Item = (&Owner, Statement)> {
        self.entries.iter().map(|entry| (&entry.owner, entry.statement()))
    }

    pub(super) fn holds(&self) -> u64 {
        self.holds
    }

    pub(super) fn held(&self) -> Credits {
        Credits(i64::try_from(self.held).unwrap_or(i64::MAX))
    }

    pub(super) fn sum(&self) -> i128 {
        self.entries.iter().map(|entry| i128::from(entry.balance.0)).sum()
    }

    pub(super) fn check(&self, environment: Environment) -> Vec<String> {
        let above_zero: i128 = self.entries.iter().map(Entry::above_zero).sum();
        let held: i128 = self.entries.iter().map(|entry| i128::from(entry.held.0)).sum();
        let holds: u64 = self.entries.iter().map(|entry| entry.holds).sum();
        let figures = [
            ("sum over all accounts", 0, self.sum()),
            ("credits above zero", self.above_zero, above_zero),
            ("credits held", self.held, held),
            ("holds", i128::from(self.holds), i128::from(holds)),
        ];
        let wrong = figures.into_iter().filter(|(_, kept, counted)| kept != counted);
        let wrong = wrong.map(|(what, kept, counted)| {
            format!("ledger of {environment:?}: {what}: kept {kept}, counted {counted}")
        });
        let is_odd = |entry: &&Entry| {
            let lost = self.find(&entry.owner).is_none_or(|found| !std::ptr::eq(found, *entry));
            lost || entry.held < Credits::ZERO || (entry.holds > 0 && !entry.owner.may_pay())
        };
        let odd = self.entries.iter().filter(is_odd);
        wrong
            .chain(odd.map(|odd| format!("ledger of {environment:?}: no such account can be: {odd:?}")))
            .collect()
    }
}
