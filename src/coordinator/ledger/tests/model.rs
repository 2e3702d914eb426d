//! Random acts on the ledger and on a plain model: tables and sums, every figure worked out anew.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MOST: i128 = i64::MAX as i128;

#[derive(Debug, Clone)]
enum Act {
    Hold(Account, i64),
    /// Which hold, how many of its thousandths it costs, who ran it, the fee.
    Settle(usize, i64, Option<usize>, u32),
    Release(usize),
    Operate(u8, Operation),
    /// An operation that was made, again.
    Again(usize),
    Freeze(usize),
    Thaw(usize),
    Line(Account, Option<i64>),
    Pass(u64),
    /// The oldest job whose posting is kept.
    ForgetJob,
    /// Operations beyond so many, and older than so many hours.
    ForgetOperations(usize, u64),
}

#[derive(Default)]
struct Model {
    balances: BTreeMap<Account, i128>,
    holds: Vec<(Account, i64)>,
    lines: BTreeMap<Account, Option<i64>>,
    frozen: BTreeSet<NodeId>,
    operations: BTreeMap<u8, (Operation, Time)>,
}

fn environment() -> impl Strategy<Value = Environment> {
    prop_oneof![2 => Just(Environment::Mainnet), 1 => Just(Environment::Testnet)]
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => 1..1_000_i64,
        1 => -5..1_i64,
        1 => prop::sample::select(vec![i64::MAX, i64::MAX / 2, i64::MAX - 1_000, i64::MIN, -100]),
    ]
}

fn namespace() -> impl Strategy<Value = Namespace> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(Namespace::named)
}

fn payer() -> impl Strategy<Value = Account> {
    let owner = prop_oneof![4 => namespace().prop_map(Owner::Namespace), 1 => Just(Owner::Integrity)];
    (environment(), owner).prop_map(|(environment, owner)| Account { environment, owner })
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        2 => namespace().prop_map(Owner::Namespace),
        2 => (0..3_usize).prop_map(|number| Owner::Node(node(number))),
        1 => prop::sample::select(vec![Owner::Fee, Owner::Integrity, Owner::Issuance]),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let credits = || amount().prop_map(Credits);
    prop_oneof![
        2 => (environment(), namespace(), credits()).prop_map(|(environment, namespace, amount)| {
            Operation::Deposit { environment, namespace, amount }
        }),
        1 => (environment(), owner(), credits()).prop_map(|(environment, owner, amount)| {
            Operation::Adjust { environment, owner, amount, note: String::new() }
        }),
        2 => (environment(), 0..3_usize, namespace(), credits()).prop_map(|(environment, from, namespace, amount)| {
            Operation::Transfer { environment, node: node(from), namespace, amount }
        }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let choice = || 0..1_000_usize;
    let fee = prop::sample::select(vec![0, 50_000, 333_333, 1_000_000]);
    prop_oneof![
        6 => (payer(), amount()).prop_map(|(payer, amount)| Act::Hold(payer, amount)),
        4 => (choice(), 0..1_001_i64, prop::option::of(0..3_usize), fee)
            .prop_map(|(which, share, runner, fee)| Act::Settle(which, share, runner, fee)),
        1 => choice().prop_map(Act::Release),
        4 => (any::<u8>(), operation()).prop_map(|(id, operation)| Act::Operate(id, operation)),
        1 => choice().prop_map(Act::Again),
        1 => (0..3_usize).prop_map(Act::Freeze),
        1 => (0..3_usize).prop_map(Act::Thaw),
        2 => (payer(), prop::option::weighted(0.8, 0..2_000_i64)).prop_map(|(of, line)| Act::Line(of, line)),
        1 => (0..20_u64).prop_map(|hours| Act::Pass(hours * 3_600_000_000)),
        2 => Just(Act::ForgetJob),
        1 => (0..4_usize, 0..60_u64).prop_map(|(most, hours)| Act::ForgetOperations(most, hours)),
    ]
}

impl Model {
    fn balance(&self, account: &Account) -> i128 {
        self.balances.get(account).copied().unwrap_or(0)
    }

    fn held(&self, of: impl Fn(&Account) -> bool) -> i128 {
        self.holds.iter().filter(|(account, _)| of(account)).map(|(_, amount)| i128::from(*amount)).sum()
    }

    fn available(&self, account: &Account) -> i128 {
        match self.lines.get(account) {
            Some(None) => MOST,
            line => {
                let line = line.copied().flatten().unwrap_or(0);
                self.balance(account) + i128::from(line) - self.held(|of| of == account)
            }
        }
    }

    /// What an environment holds: that of all accounts above zero, and the holds.
    fn total(&self, environment: Environment) -> i128 {
        let here = self.balances.iter().filter(|(account, _)| account.environment == environment);
        let above: i128 = here.map(|(_, balance)| (*balance).max(0)).sum();
        above + self.held(|of| of.environment == environment)
    }

    fn hold(&mut self, payer: &Account, amount: i64) -> Result<(), LedgerRefusal> {
        if amount < 0 {
            return Err(LedgerRefusal::AmountNotPositive);
        }
        if self.total(payer.environment) + i128::from(amount) > MOST {
            return Err(LedgerRefusal::Overflow);
        }
        let available = self.available(payer);
        if available < i128::from(amount) {
            let available = Credits(available as i64);
            return Err(LedgerRefusal::Insufficient { available, needed: Credits(amount) });
        }
        self.holds.push((payer.clone(), amount));
        Ok(())
    }

    fn move_credits(&mut self, environment: Environment, from: Owner, into: Owner, amount: i64) {
        let account = |owner| Account { environment, owner };
        *self.balances.entry(account(from)).or_default() -= i128::from(amount);
        *self.balances.entry(account(into)).or_default() += i128::from(amount);
    }

    /// What the ledger must answer; `Ok(true)` when it happened now.
    fn operate(&mut self, id: u8, operation: &Operation, at: Time) -> Result<bool, LedgerRefusal> {
        self.operations.retain(|_, (_, made)| *made + OPERATION_RETENTION > at);
        let (environment, from, into, amount, signed) = match operation.clone() {
            Operation::Deposit { environment, namespace, amount } => {
                (environment, Owner::Issuance, Owner::Namespace(namespace), amount.0, false)
            }
            Operation::Adjust { environment, owner, amount, .. } => {
                (environment, Owner::Issuance, owner, amount.0, true)
            }
            Operation::Transfer { environment, node, namespace, amount } => {
                (environment, Owner::Node(node), Owner::Namespace(namespace), amount.0, false)
            }
        };
        if amount == 0 || (amount < 0 && !signed) {
            return Err(LedgerRefusal::AmountNotPositive);
        }
        if from == into {
            return Err(LedgerRefusal::AccountUnsuitable);
        }
        if amount == i64::MIN {
            return Err(LedgerRefusal::Overflow);
        }
        if let Some((before, _)) = self.operations.get(&id) {
            return if before == operation { Ok(false) } else { Err(LedgerRefusal::OperationDiffers) };
        }
        if matches!(&from, Owner::Node(node) if self.frozen.contains(node)) {
            return Err(LedgerRefusal::Frozen);
        }
        let payer = Account { environment, owner: if amount < 0 { into.clone() } else { from.clone() } };
        let available = self.available(&payer);
        if payer.owner != Owner::Issuance && available < i128::from(amount).abs() {
            let needed = Credits(amount.abs());
            return Err(LedgerRefusal::Insufficient { available: Credits(available as i64), needed });
        }
        self.move_credits(environment, from.clone(), into.clone(), amount);
        if self.total(environment) > MOST {
            self.move_credits(environment, into, from, amount);
            return Err(LedgerRefusal::Overflow);
        }
        self.operations.insert(id, (operation.clone(), at));
        Ok(true)
    }

    fn settle(&mut self, which: usize, cost: i64, runner: Option<usize>, fee_ppm: u32) {
        let (Account { environment, owner }, _) = self.holds.remove(which);
        let fee = match runner {
            None => cost,
            Some(_) => (i128::from(cost) * i128::from(fee_ppm) / 1_000_000) as i64,
        };
        self.move_credits(environment, owner.clone(), Owner::Fee, fee);
        if let Some(runner) = runner {
            self.move_credits(environment, owner, Owner::Node(node(runner)), cost - fee);
        }
    }
}

/// The ledger beside its model, and the rows that it gave.
#[derive(Default)]
struct Pair {
    ledger: Ledger,
    model: Model,
    now: Time,
    balance_rows: BTreeMap<Account, Balance>,
    postings: BTreeMap<(PostingId, Time), Posting>,
    ended: u64,
}

impl Pair {
    fn keep(&mut self, posting: Posting) {
        let before = self.postings.insert((posting.id, posting.at), posting);
        assert_eq!(before, None, "posted twice");
    }

    fn forget_job(&mut self) {
        let jobs = self.postings.keys().filter(|(id, _)| matches!(id.subject, Subject::Job(_)));
        let oldest = jobs.min_by_key(|(_, at)| *at);
        let Some(key) = oldest.copied() else { return };
        self.postings.remove(&key);
        if let Subject::Job(job) = key.0.subject {
            self.ledger.forget_job(job);
        }
    }

    fn forget_operations(&mut self, postings_max: usize, hours: u64) {
        let bounds = OperationsKept { postings_max, age_max: Span::from_secs(hours * 3_600) };
        while let Some((operation, at)) = self.ledger.forget_operation(bounds, self.now) {
            assert!(self.now.since(at) > OPERATION_RETENTION, "it may be repeated");
            let subject = Subject::Operation(operation);
            let of_it = |key: &(PostingId, Time)| key.0.subject == subject && key.1 == at;
            let before = self.postings.len();
            self.postings.retain(|key, _| !of_it(key));
            assert_eq!(self.postings.len() + 1, before, "there was one");
        }
        let day = |at: &Time| self.now.since(*at) > OPERATION_RETENTION;
        let operations = self.postings.keys().filter(|(id, _)| matches!(id.subject, Subject::Operation(_)));
        let old = operations.clone().filter(|(_, at)| day(at) && self.now.since(*at) > bounds.age_max);
        assert_eq!(old.count(), 0);
        assert!(operations.clone().count() <= postings_max || operations.clone().all(|(_, at)| !day(at)));
    }

    fn operate(&mut self, id: u8, operation: &Operation) {
        let expected = self.model.operate(id, operation, self.now);
        match (self.ledger.operate(OperationId(id.into()), operation, self.now), expected) {
            (Ok(Applied::Posted(posted)), Ok(true)) => self.keep(posted),
            (Ok(Applied::Repeated(posting)), Ok(false)) => {
                assert_eq!(self.postings[&(posting.id, posting.at)], posting)
            }
            (Err(refusal), Err(expected)) => assert_eq!(refusal, expected),
            (answer, expected) => panic!("{answer:?}, not {expected:?}"),
        }
    }

    fn settle(&mut self, which: usize, share: i64, runner: Option<usize>, fee_ppm: u32) {
        let Some((payer, held)) = self.model.holds.get(which % self.model.holds.len().max(1)).cloned() else {
            return;
        };
        let cost = (i128::from(held) * i128::from(share) / 1_000) as i64;
        self.model.settle(which % self.model.holds.len(), cost, runner, fee_ppm);
        self.ended += 1;
        let runner = runner.map(node);
        let posted = self.ledger.settle(Settlement {
            job: job(self.ended),
            environment: payer.environment,
            payer: &payer.owner,
            held: Credits(held),
            cost: Credits(cost),
            split: Split { node: runner.as_ref(), fee_ppm },
            at: self.now,
        });
        assert_eq!(posted.is_some(), cost > 0);
        posted.into_iter().for_each(|posted| self.keep(posted));
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Hold(payer, amount) => {
                let expected = self.model.hold(&payer, amount);
                assert_eq!(self.ledger.hold(&payer, Credits(amount)), expected);
            }
            Act::Settle(which, share, runner, fee) => self.settle(which, share, runner, fee),
            Act::Release(which) if !self.model.holds.is_empty() => {
                let (payer, held) = self.model.holds.remove(which % self.model.holds.len());
                self.ledger.release(job(0), &payer, Credits(held));
            }
            Act::Release(_) => {}
            Act::Operate(id, operation) => self.operate(id, &operation),
            Act::Again(which) => {
                let made = self.model.operations.iter().nth(which % self.model.operations.len().max(1));
                if let Some((id, operation)) = made.map(|(id, (operation, _))| (*id, operation.clone())) {
                    self.operate(id, &operation);
                }
            }
            Act::Freeze(number) => {
                self.model.frozen.insert(node(number));
                self.ledger.freeze(&node(number));
            }
            Act::Thaw(number) => {
                self.model.frozen.remove(&node(number));
                self.ledger.thaw(&node(number));
            }
            Act::Line(account, limit) => {
                let line = limit.map_or(CreditLine::Unlimited, |limit| CreditLine::Limit(Credits(limit)));
                self.ledger.set_line(&account, line).expect("a payer has a line");
                self.model.lines.insert(account, limit);
            }
            Act::Pass(span) => self.now = Time(self.now.0 + span),
            Act::ForgetJob => self.forget_job(),
            Act::ForgetOperations(most, hours) => self.forget_operations(most, hours),
        }
        let rows = &mut self.balance_rows;
        self.ledger.take_changed(|row| drop(rows.insert(row.account.clone(), row)));
        self.compare();
    }

    fn compare(&self) {
        assert_eq!(self.ledger.check(), Vec::<String>::new());
        for (account, statement) in self.ledger.statements() {
            assert_eq!(i128::from(statement.balance.0), self.model.balance(&account), "{account:?}");
            let held = self.model.held(|of| *of == account);
            assert_eq!(i128::from(statement.held.0), held, "{account:?}");
            let row = self.balance_rows.get(&account);
            let balance = row.map(|row| row.balance).unwrap_or_default();
            assert_eq!(statement.balance, balance, "{account:?} was changed without a row");
            let folded = row.map_or(0, |row| i128::from(row.folded.expect("new rows say so").0));
            let kept = self.postings.values().filter(|posting| posting.environment == account.environment);
            let legs = kept.flat_map(|posting| &posting.legs).filter(|(owner, _)| *owner == account.owner);
            let kept: i128 = legs.map(|(_, change)| i128::from(change.0)).sum();
            assert_eq!(balance.0, (folded + kept) as i64, "{account:?} isn't explained by rows");
        }
        let known: BTreeSet<Account> = self.ledger.statements().map(|(account, _)| account).collect();
        let missing = |(account, balance): &(&Account, &i128)| **balance != 0 && !known.contains(account);
        assert_eq!(self.model.balances.iter().find(missing), None);
        assert_eq!(self.ledger.holds(), self.model.holds.len() as u64);
        for environment in [Environment::Mainnet, Environment::Testnet] {
            assert_eq!(self.ledger.sum(environment), 0);
        }
    }

    /// The ledger as a restart brings it back.
    fn recovered(&self) -> Ledger {
        let mut ledger = Ledger::default();
        self.balance_rows.values().for_each(|row| ledger.restore(row));
        for (payer, amount) in &self.model.holds {
            ledger.restore_hold(payer, Credits(*amount));
        }
        self.postings.values().for_each(|posting| ledger.restore_posting(posting.clone()));
        self.model.frozen.iter().for_each(|node| ledger.freeze(node));
        for (account, limit) in &self.model.lines {
            let line = limit.map_or(CreditLine::Unlimited, |limit| CreditLine::Limit(Credits(limit)));
            ledger.set_line(account, line).expect("a payer has a line");
        }
        ledger
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn it_does_what_plain_sums_would(
        before in prop::collection::vec(act(), 1..120),
        after in prop::collection::vec(act(), 0..30),
    ) {
        let mut pair = Pair::default();
        before.into_iter().for_each(|act| pair.perform(act));
        pair.ledger = pair.recovered();
        pair.compare();
        after.into_iter().for_each(|act| pair.perform(act));
    }
}
