//! Where nodes stand: new work, running work, pay, and what ends it (SPEC sections 3 and 5).

use super::super::command::{Command, NodeCommand};
use super::super::effect::{Answer, NodeMessage, Rejection};
use super::super::event::*;
use super::super::job::JobState;
use super::super::ledger::LedgerRefusal;
use super::super::limits::Limits;
use super::super::standing::{Fault, PenaltyRules, Standing};
use super::fleet::{offer, open, remote};
use super::world::World;
use crate::ids::{ClientId, Digest, Namespace, NodeId, ReservationId};
use crate::time::Span;

/// A node with a running job and another that waits for its slot.
fn at_work(limits: Limits) -> (World, ClientId, ReservationId) {
    let mut w = World::without_box(limits);
    w.join(remote("a", 1));
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    let reservation = w.begin_on("a");
    w.write(reservation, 3);
    (w, job, reservation)
}

/// Ends what runs, and sees that there was pay and that there is no new work.
fn goes_on_paid_without_new_work(w: &mut World, job: ClientId, reservation: ReservationId) -> ClientId {
    let earned = w.earned("a");
    w.succeed(reservation);
    assert_eq!((w.state(job), w.earned("a") - earned), (JobState::Succeeded, 13));
    let waiting = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    assert_eq!(w.state(waiting), JobState::Queued, "no new work");
    waiting
}

#[test]
fn a_paused_node_ends_what_it_has_and_each_pause_is_its_own() {
    let (mut w, job, reservation) = at_work(open());
    w.wish("a", 1, Wish::Pause);
    w.command("a", NodeCommand::Pause);
    assert_eq!(w.stands("a"), Standing::Paused);
    let waiting = goes_on_paid_without_new_work(&mut w, job, reservation);
    w.wish("a", 1, Wish::Resume);
    assert_eq!((w.stands("a"), w.state(waiting)), (Standing::Paused, JobState::Queued));
    w.command("a", NodeCommand::Resume);
    assert_eq!((w.stands("a"), w.state(waiting)), (Standing::Ready, JobState::Reserved));
}

#[test]
fn a_draining_node_ends_what_it_has_and_leaves() {
    let (mut w, job, reservation) = at_work(open());
    w.wish("a", 1, Wish::Drain);
    assert_eq!(w.stands("a"), Standing::Draining);
    assert!(!w.heard_by("a").contains(&NodeMessage::Drained));
    goes_on_paid_without_new_work(&mut w, job, reservation);
    assert!(w.heard_by("a").contains(&NodeMessage::Drained));
    w.gone("a", 1);
    w.connect(remote("a", 2));
    assert_eq!(w.stands("a"), Standing::Ready, "it left; what comes back is a node like any other");
}

#[test]
fn an_away_node_keeps_its_work_and_gets_none() {
    let (mut w, job, reservation) = at_work(open());
    w.gone("a", 1);
    let waiting = goes_on_paid_without_new_work(&mut w, job, reservation);
    w.connect(remote("a", 2));
    assert_eq!(w.state(waiting), JobState::Reserved);
}

#[test]
fn a_frozen_node_loses_its_work_and_its_balance_is_locked() {
    let (mut w, job, reservation) = at_work(open());
    w.admit("a", |settings| settings.owner = Some(Namespace::named("owner")));
    let earned = w.earned("a");
    w.command("a", NodeCommand::Freeze);
    assert_eq!(w.stands("a"), Standing::Frozen);
    assert_eq!((w.state(job), w.told_to_stop.clone()), (JobState::Queued, vec![reservation]));
    assert_eq!(w.row(job).failed_attempts, 0, "the operator took it, it didn't fail");
    // What it still sends is too late, and costs it nothing either.
    w.succeed(reservation);
    assert_eq!((w.earned("a"), w.faults("a")), (earned, vec![]));
    let transfer = Command::Transfer(w.amount(1, earned), NodeId::named("a"));
    let refused = w.operate(transfer.clone());
    assert!(matches!(refused, Answer::Rejected(Rejection::Ledger(LedgerRefusal::Frozen))), "{refused:?}");
    // It survives a restart.
    let mut w2 = w.restarted();
    let refused = w2.operate(transfer.clone());
    assert!(matches!(refused, Answer::Rejected(Rejection::Ledger(LedgerRefusal::Frozen))), "{refused:?}");
    w.command("a", NodeCommand::Unfreeze);
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Ready, JobState::Reserved));
    assert!(matches!(w.operate(transfer), Answer::Done));
}

#[test]
fn a_banned_node_is_cut_off_unpaid() {
    let (mut w, job, reservation) = at_work(open());
    let earned = w.earned("a");
    w.command("a", NodeCommand::Ban);
    assert_eq!(w.stands("a"), Standing::Banned);
    assert!(w.heard_by("a").contains(&NodeMessage::Banned));
    assert_eq!(w.state(job), JobState::Queued);
    w.succeed(reservation);
    assert_eq!((w.earned("a"), w.state(job)), (earned, JobState::Queued));
    w.told.clear();
    w.connect(remote("a", 2));
    assert_eq!(w.heard_by("a"), [NodeMessage::Banned], "connection refused");
    assert_eq!(w.counts().nodes, 0);
    w.command("a", NodeCommand::Unban);
    w.connect(remote("a", 3));
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Untested, JobState::Queued), "a test job first");
    w.pass(Span::from_ms(10));
    let test = w.newest_of(&NodeId::named("a")).expect("a test");
    w.serve(test, 1);
    assert_eq!(w.state(job), JobState::Reserved);
}

#[test]
fn the_box_itself_is_not_thrown_out() {
    let mut w = World::new(1, Limits::default());
    for command in [NodeCommand::Ban, NodeCommand::Freeze, NodeCommand::Drain] {
        let answer = w.operate(Command::Node(NodeId::local(), command));
        assert!(matches!(answer, Answer::Rejected(Rejection::NodeIsTheBox)), "{answer:?}");
    }
}

#[test]
fn the_first_work_is_a_test_and_other_bytes_need_another() {
    let mut w = World::without_box(open());
    w.connect(remote("a", 1));
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Untested, JobState::Queued));
    w.pass(Span::from_ms(10));
    assert_eq!(w.counts().tests, 1);
    let test = w.newest_of(&NodeId::named("a")).expect("a test");
    w.serve(test, 1);
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Ready, JobState::Reserved));
    let reservation = w.begin_on("a");
    w.write(reservation, 1);
    w.succeed(reservation);
    // The same name, but other bytes under it.
    w.gone("a", 1);
    let other = ModelOffer { digest: Some(Digest([2; 32])), ..offer("m", 1) };
    w.connect(NodeHello { models: vec![other], ..remote("a", 2) });
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    assert_eq!(w.state(job), JobState::Queued);
    w.pass(Span::from_ms(10));
    let test = w.newest_of(&NodeId::named("a")).expect("another test");
    w.serve(test, 1);
    assert_eq!(w.state(job), JobState::Reserved);
    // The integrity account pays for tests.
    assert!(w.balance(super::super::ledger::Owner::Integrity) < 0);
}

#[test]
fn a_test_has_room_for_a_cold_load() {
    let mut w = World::without_box(open());
    let cold = ModelOffer { warmth: Warmth::Cold, load: Span::from_secs(100), ..offer("m", 1) };
    w.connect(NodeHello { models: vec![cold], ..remote("a", 1) });
    w.pass(Span::from_ms(10));
    let test = w.begin_on("a");
    w.pass_beating(Span(w.limits.first_output_timeout.0 + 99_000_000), &[("a", 1)]);
    w.write(test, 1);
    w.succeed(test);
    assert_eq!(w.stands("a"), Standing::Ready);
}

#[test]
fn failures_exclude_and_the_cooldown_belongs_to_the_key() {
    let limits = Limits { attempts_max: 100, ..open() };
    let cooldown = limits.penalties.cooldown;
    let (mut w, job, reservation) = at_work(limits.clone());
    w.fail(reservation, ErrorClass::Node);
    for _ in 1..limits.penalties.failures_in_a_row_max {
        w.pass(Span::from_secs(10));
        w.beat("a", 1);
        w.pass(Span::from_secs(10));
        w.beat("a", 1);
        w.pass(Span::from_secs(10));
        w.beat("a", 1);
        let reservation = w.begin_on("a");
        w.fail(reservation, ErrorClass::Node);
    }
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Excluded, JobState::Queued));
    let (_, row) = w.seen("a");
    let cause = row.exclusion.expect("excluded").order.cause;
    let told = NodeMessage::Standing(Standing::Excluded, cause.clone());
    assert!(w.heard_by("a").contains(&told), "its cause is visible to it");
    // Reconnecting sheds nothing, and the node is told again why it gets no work.
    w.gone("a", 1);
    w.told.clear();
    w.connect(remote("a", 2));
    assert_eq!(w.stands("a"), Standing::Excluded);
    assert!(w.heard_by("a").contains(&told), "{:?}", w.heard_by("a"));
    let mut again = w.restarted();
    again.connect(remote("a", 3));
    assert_eq!(again.stands("a"), Standing::Excluded, "nor does a restart of the box");
    assert!(again.heard_by("a").contains(&told), "{:?}", again.heard_by("a"));
    w.pass_beating(cooldown, &[("a", 2)]);
    assert_eq!(w.state(job), JobState::Queued, "after the cooldown a test job comes first");
    let test = w.newest_of(&NodeId::named("a")).expect("a test");
    assert_eq!(w.stands("a"), Standing::Untested);
    w.serve(test, 1);
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Ready, JobState::Reserved));
    assert_eq!(w.seen("a").1.exclusions.len(), 1, "it stays on record");
}

#[test]
fn running_work_of_an_excluded_node_goes_on_paid_and_the_operator_reinstates() {
    let penalties = PenaltyRules { failures_in_a_row_max: 2, ..PenaltyRules::default() };
    let (mut w, job, reservation) = at_work(Limits { penalties, ..open() });
    w.step(Event::BadSignature(NodeId::named("a")));
    w.step(Event::BadSignature(NodeId::named("a")));
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Excluded, JobState::Running));
    let waiting = goes_on_paid_without_new_work(&mut w, job, reservation);
    w.command("a", NodeCommand::Reinstate);
    assert_eq!((w.stands("a"), w.state(waiting)), (Standing::Ready, JobState::Reserved));
}

#[test]
fn cooldowns_grow() {
    let penalties = PenaltyRules { failures_in_a_row_max: 1, ..PenaltyRules::default() };
    let mut w = World::without_box(Limits { penalties, ..open() });
    w.join(remote("a", 1));
    let mut until = Vec::new();
    for _ in 0..3 {
        w.step(Event::BadSignature(NodeId::named("a")));
        let exclusion = w.seen("a").1.exclusion.expect("excluded");
        until.push(exclusion.until.since(exclusion.order.since));
        w.command("a", NodeCommand::Reinstate);
    }
    let first = penalties.cooldown;
    assert_eq!(until, [1, 2, 4].map(|times| Span(first.0 * times)));
}

#[test]
fn deadlines_and_deaths_count_terminal_errors_declines_and_cancels_do_not() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.fail(reservation, ErrorClass::Terminal);
    w.leave(job, Departure::Served);
    let job = w.submit(|_| {});
    let reservation = w.next_of("a").expect("assigned");
    w.decline(reservation);
    w.leave(job, Departure::Abandoned);
    w.submit(|_| {});
    let reservation = w.begin_on("a");
    // A hand-back is lost for the job, but the node is honest.
    w.stopped(reservation, 0);
    assert_eq!(w.faults("a"), []);
    w.next_of("a");
    w.pass(w.limits.accept_timeout);
    assert_eq!(w.faults("a"), [Fault::TimedOut]);
}

#[test]
fn a_failed_test_excludes_a_node_that_has_proven_nothing() {
    let mut w = World::without_box(open());
    w.connect(remote("a", 1));
    w.pass(Span::from_ms(10));
    let test = w.begin_on("a");
    w.fail(test, ErrorClass::Node);
    assert_eq!((w.stands("a"), w.counts().dead_letters), (Standing::Excluded, 0));
    assert!(w.faults("a").contains(&Fault::FailedTest));
}
