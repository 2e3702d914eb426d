//! Who pays what to whom (SPEC section 6), case by case.

use super::super::command::{Command, NamespaceSettings, Unrunnable};
use super::super::effect::{Answer, RefusalKind, Rejection};
use super::super::event::*;
use super::super::job::JobState;
use super::super::ledger::{LedgerRefusal, Owner, PriceRule};
use super::super::limits::Limits;
use super::super::standing::Trust;
use super::fleet::{after, open, remote};
use super::world::World;
use super::world::tenant;
use crate::credits::{Credits, Price};
use crate::ids::{ClientId, Namespace, NodeId, ReservationId};
use crate::time::{Span, Time};

/// 2 a token in, 1 where cached, 10 a token out.
const PRICE: Price = Price { input: 2_000_000, cached_input: 1_000_000, output: 10_000_000 };

fn world() -> World {
    let mut w = World::without_box(Limits { price: PRICE, fee_ppm: 200_000, ..open() });
    w.join(remote("a", 1));
    w
}

fn running(w: &mut World) -> (ClientId, ReservationId) {
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 5);
    (job, reservation)
}

/// Ends in a state with a charge, all holds gone; what moved to whom adds up.
fn charged(w: &World, job: ClientId, state: JobState, cost: i64) {
    let row = w.row(job);
    assert_eq!((row.state, row.charged.0, row.hold.0), (state, cost, 0));
    let payer = w.balance(Owner::Namespace(Namespace::default_namespace()));
    let (node, fee, tests) = (w.earned("a"), w.balance(Owner::Fee), w.balance(Owner::Integrity));
    assert_eq!(payer + node + fee + tests, 0);
    assert_eq!(w.counts().holds, 0);
}

#[test]
fn success_costs_input_and_output_and_the_fee_is_split_off() {
    let mut w = world();
    let (node, fee) = (w.earned("a"), w.balance(Owner::Fee));
    let job = w.submit(|_| {});
    assert_eq!(w.row(job).hold.0, 10 * 2 + 100 * 10);
    let reservation = w.begin_on("a");
    w.write(reservation, 5);
    w.succeed(reservation);
    charged(&w, job, JobState::Succeeded, 10 * 2 + 5 * 10);
    assert_eq!((w.earned("a") - node, w.balance(Owner::Fee) - fee), (56, 14));
    let usage = w.clients[&job].finished.as_ref().expect("told").usage;
    assert_eq!((usage, usage.output_tokens), (w.row(job).usage, 5), "what is shown is what is billed");
}

#[test]
fn cached_input_has_its_own_price_and_counts_are_the_smaller_ones() {
    let mut w = world();
    let (job, reservation) = running(&mut w);
    w.complete_with(reservation, |result| {
        result.cached_tokens = 4;
        result.input_tokens = 900;
        result.output_tokens = 50;
    });
    // The box's own input count; 4 of it cached; the box's own output count and one more.
    charged(&w, job, JobState::Succeeded, 6 * 2 + 4 + 6 * 10);
    // Where the box has no tokenizer: the signed count, at most the bytes.
    let job = w.submit(|s| {
        s.spec.input_tokens = 18;
        s.spec.input_count = InputCount::AtMost;
    });
    let reservation = w.begin_on("a");
    w.write(reservation, 2);
    w.complete_with(reservation, |result| {
        result.input_tokens = 7;
        result.output_tokens = 50;
        result.seen.tokens = None;
    });
    charged(&w, job, JobState::Succeeded, 7 * 2 + 8 * 10);
}

#[test]
fn a_client_that_cancels_pays_what_the_node_signs_and_the_box_saw() {
    for (signed, cost) in [(3, 20 + 30), (900, 20 + 50)] {
        let mut w = world();
        let (job, reservation) = running(&mut w);
        w.leave(job, Departure::Abandoned);
        w.stopped(reservation, signed);
        charged(&w, job, JobState::Cancelled, cost);
    }
    // A result that crosses the cancel says as much as `Stopped`.
    let mut w = world();
    let (job, reservation) = running(&mut w);
    w.leave(job, Departure::Abandoned);
    w.succeed(reservation);
    charged(&w, job, JobState::Cancelled, 20 + 50);
    // No word by the deadline: nothing.
    let mut w = world();
    let (job, _) = running(&mut w);
    w.leave(job, Departure::Abandoned);
    w.pass(w.limits.stop_timeout);
    charged(&w, job, JobState::Cancelled, 0);
}

#[test]
fn what_never_began_or_the_operator_ended_costs_nothing() {
    // Queued.
    let mut w = world();
    let (_, reservation) = running(&mut w);
    let job = w.submit(|_| {});
    w.leave(job, Departure::Abandoned);
    assert_eq!((w.state(job), w.row(job).charged.0), (JobState::Cancelled, 0));
    w.succeed(reservation);
    // Assigned, but not begun.
    let job = w.submit(|_| {});
    let reservation = w.next_of("a").expect("assigned");
    w.leave(job, Departure::Abandoned);
    w.stopped(reservation, 5);
    charged(&w, job, JobState::Cancelled, 0);
    // By the operator.
    let (job, reservation) = running(&mut w);
    let asker = w.asker();
    w.step(Event::Cancel(Cancel { client: asker, tenant: None, job: w.job(job) }));
    w.stopped(reservation, 5);
    charged(&w, job, JobState::Cancelled, 0);
    // Cancelled by its namespace by name: that is the client.
    let (job, reservation) = running(&mut w);
    let asker = w.asker();
    let tenant = Some(tenant(Namespace::default_namespace()));
    w.step(Event::Cancel(Cancel { client: asker, tenant, job: w.job(job) }));
    w.stopped(reservation, 5);
    charged(&w, job, JobState::Cancelled, 70);
}

#[test]
fn failed_expired_and_interrupted_cost_nothing_whatever_was_delivered() {
    let mut w = world();
    let (job, reservation) = running(&mut w);
    w.take(reservation);
    w.fail(reservation, ErrorClass::Node);
    charged(&w, job, JobState::Failed, 0);
    let (_, reservation) = running(&mut w);
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(1));
    w.pass(Span::from_secs(1));
    w.succeed(reservation);
    charged(&w, job, JobState::Expired, 0);
    let (job, reservation) = running(&mut w);
    w.take(reservation);
    let w2 = w.restarted();
    let row = &w2.rows[&w.job(job)];
    assert_eq!((row.state, row.charged.0, w2.counts().holds), (JobState::Cancelled, 0, 0));
    assert_eq!(w2.earned("a"), w.earned("a"));
}

fn rule(model: &str, from: Time, output: u64) -> Command {
    let price = Price { output, ..PRICE };
    Command::PutPrice(PriceRule { environment: None, model: Some(model.into()), tier: None, from, price })
}

#[test]
fn the_hold_is_the_dearest_of_the_model_and_its_fallbacks() {
    let mut w = world();
    w.operate(rule("dear", Time(0), 100_000_000));
    let job = w.submit(|s| {
        s.spec.fallbacks =
            Fallbacks { models: vec!["cheap".into(), "dear".into()], after_failures: 1 }.into();
    });
    assert_eq!(w.row(job).hold.0, 20 + 100 * 100);
    let reservation = w.begin_on("a");
    w.write(reservation, 5);
    w.succeed(reservation);
    charged(&w, job, JobState::Succeeded, 20 + 50);
}

#[test]
fn the_price_in_force_at_acceptance_is_the_jobs() {
    let mut w = world();
    let soon = w.now + Span::from_secs(10);
    w.operate(rule("m", soon, 20_000_000));
    let before = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 5);
    w.pass_beating(Span::from_secs(10), &[("a", 1)]);
    let now = w.now;
    w.operate(rule("m", now + Span(1), 99_000_000));
    let dated = w.submit(|_| {});
    assert_eq!(w.row(dated).hold.0, 20 + 100 * 20);
    w.now = w.now + Span(1);
    w.succeed(reservation);
    assert_eq!(w.row(before).charged.0, 20 + 5 * 10);
    let mut w = w.restarted();
    assert!(w.now >= after(Span::from_secs(10)));
    w.connect(remote("a", 1));
    // The price is in the job's row, and survives; so do the rules.
    let new = w.submit(|_| {});
    assert_eq!(w.row(new).hold.0, 20 + 100 * 99);
}

fn line(credit: i64) -> Command {
    Command::PutNamespace(NamespaceSettings {
        namespace: Namespace::default_namespace(),
        weight: 1,
        trust: Trust::Open,
        credit: [Some(Credits(credit)), Some(Credits(credit))],
        unrunnable: Unrunnable::Accept,
        queue_jobs_max: 100,
    })
}

#[test]
fn what_exceeds_the_balance_is_refused_and_concurrency_cannot_overspend() {
    let mut w = world();
    w.operate(line(0));
    let refused =
        |w: &World, job: ClientId| w.clients[&job].refused.as_ref().map(|r| (r.kind, r.retry_after));
    let job = w.submit(|_| {});
    assert_eq!(refused(&w, job), Some((RefusalKind::InsufficientCredits, None)));
    assert_eq!((w.counts().holds, w.counts().jobs_queued), (0, 0));
    let deposit = Command::Deposit(w.amount(1, 1_500), Namespace::default_namespace());
    assert!(matches!(w.operate(deposit.clone()), Answer::Done));
    assert!(matches!(w.operate(deposit), Answer::Done), "a repeat is answered the same way");
    assert_eq!(w.balance(Owner::Namespace(Namespace::default_namespace())), 1_500);
    let first = w.submit(|_| {});
    let second = w.submit(|_| {});
    assert_eq!(w.state(first), JobState::Reserved);
    assert_eq!(refused(&w, second), Some((RefusalKind::InsufficientCredits, None)), "1,020 are held");
    let reservation = w.begin_on("a");
    w.write(reservation, 5);
    w.succeed(reservation);
    let third = w.submit(|_| {});
    assert_eq!(refused(&w, third), None, "what wasn't used is free again");
    // Another environment's credits are none.
    let testnet = w.submit(|s| s.spec.environment = Environment::Testnet);
    assert_eq!(refused(&w, testnet), Some((RefusalKind::InsufficientCredits, None)));
}

#[test]
fn an_operation_happens_once_and_its_id_means_one_thing() {
    let mut w = world();
    let owner = || Namespace::named("owner");
    let of = |w: &World| w.balance(Owner::Namespace(owner()));
    w.operate(Command::Deposit(w.amount(1, 100), owner()));
    let answer = w.operate(Command::Deposit(w.amount(1, 101), owner()));
    let differs =
        |answer| matches!(answer, Answer::Rejected(Rejection::Ledger(LedgerRefusal::OperationDiffers)));
    assert!(differs(answer));
    let adjust = Command::Adjust(w.amount(2, -30), Owner::Namespace(owner()), "a mistake".into());
    w.operate(adjust.clone());
    w.operate(adjust.clone());
    assert_eq!((of(&w), w.counts().operations_repeated), (70, 1));
    let mut w = w.restarted();
    w.operate(adjust);
    assert_eq!(of(&w), 70, "nor after a restart");
    assert!(differs(w.operate(Command::Deposit(w.amount(2, 5), owner()))));
    for amount in [0, -1] {
        let answer = w.operate(Command::Deposit(w.amount(9, amount), owner()));
        assert!(matches!(answer, Answer::Rejected(Rejection::Ledger(LedgerRefusal::AmountNotPositive))));
    }
}

#[test]
fn earnings_go_to_the_nodes_owner_only() {
    let mut w = world();
    let (_, reservation) = running(&mut w);
    w.succeed(reservation);
    let earned = w.earned("a");
    let transfer =
        |w: &World, operation, credits| Command::Transfer(w.amount(operation, credits), NodeId::named("a"));
    let answer = w.operate(transfer(&w, 1, 10));
    assert!(matches!(answer, Answer::Rejected(Rejection::NodeHasNoOwner)));
    w.admit("a", |settings| settings.owner = Some(Namespace::named("owner")));
    let answer = w.operate(transfer(&w, 2, earned + 1));
    assert!(matches!(answer, Answer::Rejected(Rejection::Ledger(LedgerRefusal::Insufficient { .. }))));
    assert!(matches!(w.operate(transfer(&w, 3, earned)), Answer::Done));
    assert_eq!((w.earned("a"), w.balance(Owner::Namespace(Namespace::named("owner")))), (0, earned));
    let unknown = w.operate(Command::Transfer(w.amount(4, 1), NodeId::named("z")));
    assert!(matches!(unknown, Answer::Rejected(Rejection::NodeUnknown)));
}

#[test]
fn testnet_credits_never_mix_with_mainnets() {
    let mut w = world();
    let before = w.earned("a");
    let job = w.submit(|s| s.spec.environment = Environment::Testnet);
    let reservation = w.begin_on("a");
    w.write(reservation, 5);
    w.succeed(reservation);
    assert_eq!((w.row(job).charged.0, w.earned("a")), (70, before));
}
