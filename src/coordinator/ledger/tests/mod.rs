//! The ledger by single cases, against a plain model, and how fast it is.

mod model;
mod prices;
mod speed;

use super::*;
use crate::ids::Namespace;
use crate::time::Span;

fn node(number: usize) -> NodeId {
    NodeId::named(&format!("node_{number}"))
}

fn job(counter: u64) -> JobId {
    JobId { epoch: 1, counter }
}

fn of_namespace(name: &str) -> Account {
    Account { environment: Environment::Mainnet, owner: Owner::Namespace(Namespace::named(name)) }
}

fn of(owner: Owner) -> Account {
    Account { environment: Environment::Mainnet, owner }
}

fn deposit(name: &str, amount: i64) -> Operation {
    let namespace = Namespace::named(name);
    Operation::Deposit { environment: Environment::Mainnet, namespace, amount: Credits(amount) }
}

fn transfer(from: usize, to: &str, amount: i64) -> Operation {
    let (node, namespace) = (node(from), Namespace::named(to));
    Operation::Transfer { environment: Environment::Mainnet, node, namespace, amount: Credits(amount) }
}

fn adjust(owner: Owner, amount: i64) -> Operation {
    let (environment, note) = (Environment::Mainnet, "a mistake".to_owned());
    Operation::Adjust { environment, owner, amount: Credits(amount), note }
}

fn funded(name: &str, amount: i64) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.operate(OperationId(0), &deposit(name, amount), Time(0)).expect("a deposit is accepted");
    ledger
}

fn operate(ledger: &mut Ledger, id: u128, operation: &Operation) -> Result<Applied, LedgerRefusal> {
    ledger.operate(OperationId(id), operation, Time(1))
}

fn changed(ledger: &mut Ledger) -> Vec<Balance> {
    let mut rows = Vec::new();
    ledger.take_changed(|row| rows.push(row));
    rows
}

/// Holds `held` for a job of `payer`'s and settles it at once.
fn run(ledger: &mut Ledger, payer: &Account, held: i64, cost: i64, split: Split<'_>) -> Option<Posting> {
    let held = Credits(held);
    ledger.hold(payer, held).expect("it can pay");
    let (environment, payer) = (payer.environment, &payer.owner);
    let (job, cost, at) = (job(1), Credits(cost), Time(5));
    ledger.settle(Settlement { job, environment, payer, held, cost, split, at })
}

#[test]
fn a_cost_is_split_between_node_and_fee_and_nothing_is_lost() {
    // Cost, fee in millionths, who ran it; what the node and the operator get.
    let cases: [(i64, u32, Option<usize>, i64, i64); 8] = [
        (100, 0, Some(1), 100, 0),
        (100, 50_000, Some(1), 95, 5),
        (19, 50_000, Some(1), 19, 0),
        (21, 50_000, Some(1), 20, 1),
        (100, 1_000_000, Some(1), 0, 100),
        (100, u32::MAX, Some(1), 0, 100),
        (100, 50_000, None, 0, 100),
        (i64::MAX / 2, 999_999, Some(1), 4_611_686_018_428, 4_611_681_406_741_369_475),
    ];
    for (cost, fee_ppm, runner, to_node, to_fee) in cases {
        let mut ledger = funded("a", cost);
        let runner = runner.map(node);
        let split = Split { node: runner.as_ref(), fee_ppm };
        let posted = run(&mut ledger, &of_namespace("a"), cost, cost, split).expect("it cost something");
        assert_eq!(ledger.balance(&of(Owner::Node(node(1)))), Credits(to_node), "{cost} at {fee_ppm}");
        assert_eq!(ledger.balance(&of(Owner::Fee)), Credits(to_fee), "{cost} at {fee_ppm}");
        assert_eq!(ledger.balance(&of_namespace("a")), Credits::ZERO);
        assert!(posted.legs.iter().all(|(_, change)| *change != Credits::ZERO), "{posted:?}");
        for row in changed(&mut ledger) {
            assert_eq!(row.balance, ledger.balance(&row.account), "rows say how it is");
        }
        assert_eq!(ledger.check(), Vec::<String>::new());
    }
}

#[test]
fn what_a_job_did_not_cost_is_free_again() {
    let mut ledger = funded("a", 100);
    let (a, split) = (of_namespace("a"), Split { node: None, fee_ppm: 0 });
    assert_eq!(run(&mut ledger, &a, 100, 0, split), None, "what moves nothing leaves no posting");
    run(&mut ledger, &a, 100, 30, split).expect("it cost something");
    assert_eq!(ledger.statement(&a).available, Credits(70));
    ledger.hold(&a, Credits(70)).expect("so much is left");
    let refused = LedgerRefusal::Insufficient { available: Credits::ZERO, needed: Credits(1) };
    assert_eq!(refused.to_string(), "the account has 0.000000 credits available, but 0.000001 are needed");
    assert_eq!(ledger.hold(&a, Credits(1)), Err(refused));
    ledger.release(job(2), &a, Credits(70));
    assert_eq!((ledger.holds(), ledger.held_total(), ledger.held(&a)), (0, Credits::ZERO, Credits::ZERO));
    assert_eq!(ledger.statement(&a).available, Credits(70));
}

#[test]
fn a_credit_line_is_how_far_below_zero_it_goes() {
    let (mut ledger, a) = (Ledger::default(), of_namespace("a"));
    assert!(ledger.hold(&a, Credits(1)).is_err(), "without a line, nothing");
    ledger.set_line(&a, CreditLine::Limit(Credits(10))).expect("a namespace has a line");
    ledger.hold(&a, Credits(10)).expect("within the line");
    assert!(ledger.hold(&a, Credits(1)).is_err());
    ledger.set_line(&a, CreditLine::Limit(Credits(4))).expect("it can be shortened");
    assert_eq!(ledger.statement(&a).available, Credits(-6));
    ledger.set_line(&a, CreditLine::Unlimited).expect("or lifted");
    ledger.hold(&a, Credits(i64::MAX - 10)).expect("as much as the ledger can hold");
    assert_eq!(ledger.hold(&a, Credits(1)), Err(LedgerRefusal::Overflow));
    let negative = CreditLine::Limit(Credits(-1));
    assert_eq!(ledger.set_line(&a, negative), Err(LedgerRefusal::AmountNotPositive));
    let fee = ledger.set_line(&of(Owner::Fee), CreditLine::Unlimited);
    assert_eq!(fee, Err(LedgerRefusal::AccountUnsuitable));
}

#[test]
fn integrity_pays_like_a_namespace() {
    let (mut ledger, integrity) = (Ledger::default(), of(Owner::Integrity));
    assert!(ledger.hold(&integrity, Credits(5)).is_err());
    operate(&mut ledger, 1, &adjust(Owner::Integrity, 5)).expect("it can be funded");
    let runner = node(3);
    run(&mut ledger, &integrity, 5, 4, Split { node: Some(&runner), fee_ppm: 500_000 });
    assert_eq!(ledger.balance(&integrity), Credits(1));
    assert_eq!(ledger.balance(&of(Owner::Node(runner))), Credits(2));
}

#[test]
fn a_frozen_node_earns_but_its_earnings_stay() {
    let mut ledger = funded("a", 100);
    let runner = node(1);
    ledger.freeze(&runner);
    run(&mut ledger, &of_namespace("a"), 10, 10, Split { node: Some(&runner), fee_ppm: 0 });
    assert_eq!(operate(&mut ledger, 1, &transfer(1, "b", 10)), Err(LedgerRefusal::Frozen));
    ledger.thaw(&runner);
    operate(&mut ledger, 1, &transfer(1, "b", 10)).expect("a refused id wasn't used up");
    assert_eq!(ledger.balance(&of_namespace("b")), Credits(10));
    ledger.freeze(&runner);
    let again = operate(&mut ledger, 1, &transfer(1, "b", 10));
    assert!(matches!(again, Ok(Applied::Repeated(_))), "what happened, happened: {again:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut ledger = funded("a", 100);
    let long = "x".repeat(OPERATION_NOTE_BYTES_MAX + 1);
    let with_long_note = Operation::Adjust {
        environment: Environment::Mainnet,
        owner: Owner::Fee,
        amount: Credits(1),
        note: long,
    };
    let insufficient = |available, needed| LedgerRefusal::Insufficient {
        available: Credits(available),
        needed: Credits(needed),
    };
    let cases = [
        (deposit("a", 0), LedgerRefusal::AmountNotPositive),
        (deposit("a", -1), LedgerRefusal::AmountNotPositive),
        (deposit("a", i64::MAX), LedgerRefusal::Overflow),
        (transfer(1, "a", -5), LedgerRefusal::AmountNotPositive),
        (transfer(1, "a", 5), insufficient(0, 5)),
        (adjust(Owner::Fee, 0), LedgerRefusal::AmountNotPositive),
        (adjust(Owner::Fee, -1), insufficient(0, 1)),
        (adjust(of_namespace("a").owner, -101), insufficient(100, 101)),
        (adjust(of_namespace("a").owner, i64::MIN), LedgerRefusal::Overflow),
        (adjust(Owner::Issuance, 1), LedgerRefusal::AccountUnsuitable),
        (with_long_note, LedgerRefusal::NoteTooLong),
    ];
    for (operation, refusal) in cases {
        let answer = operate(&mut ledger, 9, &operation);
        assert_eq!(answer, Err(refusal.clone()), "{operation:?}: {refusal}");
        assert_eq!(ledger.check(), Vec::<String>::new());
    }
    operate(&mut ledger, 9, &deposit("a", 1)).expect("none of them used the id up");
}

#[test]
fn an_operation_happens_once_within_a_day() {
    let mut ledger = funded("a", 100);
    assert!(matches!(operate(&mut ledger, 0, &deposit("a", 100)), Ok(Applied::Repeated(_))));
    assert_eq!(operate(&mut ledger, 0, &deposit("a", 99)), Err(LedgerRefusal::OperationDiffers));
    assert_eq!(operate(&mut ledger, 0, &deposit("b", 100)), Err(LedgerRefusal::OperationDiffers));
    assert_eq!(ledger.balance(&of_namespace("a")), Credits(100));
    let next_day = Time(0) + OPERATION_RETENTION;
    let later = ledger.operate(OperationId(0), &deposit("b", 1), next_day);
    assert!(matches!(later, Ok(Applied::Posted(_))), "the id is free again: {later:?}");
}

#[test]
fn what_is_forgotten_stays_in_the_balances() {
    let mut ledger = funded("a", 100);
    let runner = node(1);
    run(&mut ledger, &of_namespace("a"), 40, 40, Split { node: Some(&runner), fee_ppm: 250_000 });
    changed(&mut ledger);
    ledger.forget_job(job(1));
    let rows = changed(&mut ledger);
    let folded: Vec<_> = rows.iter().map(|row| (row.balance.0, row.folded.map(|f| f.0))).collect();
    assert_eq!(folded, [(60, Some(-40)), (30, Some(30)), (10, Some(10))]);
    ledger.forget_job(job(1));
    assert_eq!(changed(&mut ledger), [], "once");
    let (bounds, soon) = (OperationsKept { postings_max: 0, age_max: Span::default() }, Time(0));
    assert_eq!(ledger.forget_operation(bounds, soon), None, "it still tells a repeat");
    let later = Time(1) + OPERATION_RETENTION;
    assert_eq!(ledger.forget_operation(bounds, later), Some((OperationId(0), Time(0))));
    let rows = changed(&mut ledger);
    let folded: Vec<_> = rows.iter().map(|row| (row.balance.0, row.folded.map(|f| f.0))).collect();
    assert_eq!(folded, [(-100, Some(-100)), (60, Some(60))]);
    assert_eq!(ledger.check(), Vec::<String>::new());
}

#[test]
fn a_start_works_out_what_older_rows_do_not_say() {
    let mut ledger = funded("a", 100);
    let row =
        |name: &str, micro| Balance { account: of_namespace(name), balance: Credits(micro), folded: None };
    let mut again = Ledger::default();
    again.restore(&row("a", 160));
    let id = OperationId(0);
    let posting = ledger.operate(id, &deposit("a", 100), Time(0)).expect("a repeat");
    let Applied::Repeated(posting) = posting else { panic!("{posting:?} isn't a repeat") };
    again.restore_posting(posting);
    again.restore(&Balance { account: of(Owner::Issuance), ..row("a", -160) });
    again.restore_folds();
    assert_eq!(again.check(), Vec::<String>::new());
    again.operate(OperationId(1), &deposit("a", 1), Time(1)).expect("a deposit");
    let of_a = changed(&mut again).into_iter().find(|row| row.account == of_namespace("a"));
    assert_eq!(of_a.map(|row| (row.balance, row.folded)), Some((Credits(161), Some(Credits(60)))));
}

#[test]
fn when_too_many_were_made_none_is_forgotten_early() {
    let mut ledger = Ledger::default();
    for id in 0..OPERATIONS_KEPT_MAX as u128 {
        operate(&mut ledger, id, &deposit("a", 1)).expect("there is room");
    }
    assert_eq!(operate(&mut ledger, u128::MAX, &deposit("a", 1)), Err(LedgerRefusal::OperationsFull));
    assert!(matches!(operate(&mut ledger, 7, &deposit("a", 1)), Ok(Applied::Repeated(_))));
    assert_eq!(ledger.balance(&of_namespace("a")), Credits(OPERATIONS_KEPT_MAX as i64));
    let later = ledger.operate(OperationId(u128::MAX), &deposit("a", 1), Time(1) + OPERATION_RETENTION);
    assert!(matches!(later, Ok(Applied::Posted(_))), "{later:?}");
}

#[test]
#[should_panic(expected = "has no such hold")]
fn a_hold_is_not_ended_twice() {
    let (mut ledger, a) = (funded("a", 100), of_namespace("a"));
    ledger.hold(&a, Credits(5)).expect("it can pay");
    ledger.release(job(1), &a, Credits(5));
    ledger.release(job(1), &a, Credits(5));
}

#[test]
#[should_panic(expected = "outside its hold")]
fn a_capture_does_not_exceed_its_hold() {
    run(&mut funded("a", 100), &of_namespace("a"), 5, 6, Split { node: None, fee_ppm: 0 });
}
