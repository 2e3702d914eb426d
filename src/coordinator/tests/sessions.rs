//! Connections of nodes: what goes on, what is honoured, and what is lost (CORE section 3, SPEC section 5).

use super::super::effect::{NodeMessage, RefusalKind, Row};
use super::super::event::*;
use super::super::job::{AttemptOutcome, JobState};
use super::super::standing::{Fault, Standing};
use super::fleet::{STOP, held, open, remote};
use super::world::World;
use crate::credits::Credits;
use crate::ids::{NodeId, ReservationId, Session};
use crate::time::Span;

/// A session number that isn't newer changes nothing.
#[test]
fn a_stale_session_is_ignored() {
    let mut w = World::of(&[]);
    w.join(remote("a", 5));
    let job = w.submit(|_| {});
    let running = w.begin_on("a");
    w.connect(NodeHello { slots: 9, ..remote("a", 5) });
    w.connect(NodeHello { slots: 9, ..remote("a", 4) });
    assert_eq!((w.state(job), w.counts().slots_total), (JobState::Running, 1));
    w.gone("a", 4);
    w.beat("a", 6);
    assert_eq!(w.stands("a"), Standing::Ready, "another connection's end");
    w.gone("a", 5);
    assert_eq!(w.stands("a"), Standing::Away);
    assert_eq!(w.state(job), JobState::Running, "kept while it may come back");
    // Results are fenced by their reservation, not by a session.
    w.write(running, 2);
    w.succeed(running);
    assert_eq!(w.state(job), JobState::Succeeded);
}

#[test]
fn what_is_listed_goes_on_and_what_is_not_is_lost_at_once_with_its_place() {
    let mut w = World::of(&[]);
    w.join(NodeHello { slots: 2, models: vec![super::fleet::offer("m", 2)], ..remote("a", 1) });
    let listed = w.submit(|_| {});
    let unlisted = w.submit(|_| {});
    let waiting = w.submit(|_| {});
    let (first, second) = (w.begin_on("a"), w.begin_on("a"));
    w.gone("a", 1);
    w.connect(NodeHello {
        running: vec![held(first)],
        slots: 2,
        models: vec![super::fleet::offer("m", 2)],
        ..remote("a", 2)
    });
    assert_eq!(w.state(listed), JobState::Running);
    // Lost, requeued without backoff, before the one that came later, and so handed out again in the same step.
    assert_eq!((w.state(unlisted), w.state(waiting)), (JobState::Reserved, JobState::Queued));
    let row = w.row(unlisted);
    assert_eq!((row.lost_attempts, row.failed_attempts), (1, 0));
    assert_eq!(row.history[0].reservation, second);
    assert_eq!(row.history[0].outcome, AttemptOutcome::Lost);
    assert_eq!(w.faults("a"), [Fault::Died]);
    w.succeed(first);
    assert_eq!(w.state(listed), JobState::Succeeded);
}

#[test]
fn the_word_that_a_result_is_kept_hurries_no_commit() {
    let mut w = World::of(&["a"]);
    w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 3);
    let before = w.hurried;
    w.succeed(reservation);
    assert!(w.heard_by("a").contains(&NodeMessage::ResultAccepted(reservation)));
    assert_eq!(w.hurried - before, 1, "its client's answer does");
}

#[test]
fn a_node_hears_what_it_has_earned_when_that_changed() {
    let mut w = World::of(&["a"]);
    let earned = |w: &World| -> Vec<Credits> {
        let of = |message: NodeMessage| match message {
            NodeMessage::Earnings(Environment::Mainnet, balance) => Some(balance),
            _ => None,
        };
        w.heard_by("a").into_iter().filter_map(of).collect()
    };
    w.beat("a", 1);
    w.beat("a", 1);
    let before = earned(&w);
    assert_eq!(before.len(), 1, "once as long as it stays the same");
    w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 3);
    w.succeed(reservation);
    assert_eq!(earned(&w), before, "not with each job");
    w.beat("a", 1);
    assert!(earned(&w)[1..].iter().all(|balance| *balance > before[0]) && earned(&w).len() == 2);
    w.connect(remote("a", 2));
    w.beat("a", 2);
    assert_eq!(earned(&w).len(), 3, "a new connection hears it again");
}

#[test]
fn listed_results_are_honoured_before_anything_is_lost() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 3);
    w.gone("a", 1);
    let result = Verified::local(w.result(reservation, STOP));
    let earned = w.earned("a");
    w.connect(NodeHello { results: vec![result.clone()], ..remote("a", 2) });
    assert_eq!(w.state(job), JobState::Succeeded);
    assert_eq!(w.earned("a") - earned, 13);
    assert_eq!(w.faults("a"), []);
    assert!(w.heard_by("a").contains(&NodeMessage::ResultAccepted(reservation)));
    // A repeat is accepted again, and paid once.
    w.gone("a", 2);
    w.told.clear();
    w.connect(NodeHello { results: vec![result], ..remote("a", 3) });
    assert!(w.heard_by("a").contains(&NodeMessage::ResultAccepted(reservation)));
    assert_eq!(w.earned("a") - earned, 13);
}

#[test]
fn a_listed_reservation_that_is_dead_takes_room_until_it_stops() {
    let mut w = World::of(&["a"]);
    let stale = |counter| ReservationId { epoch: 6, counter };
    w.gone("a", 1);
    w.connect(NodeHello { running: vec![held(stale(3))], ..remote("a", 2) });
    assert_eq!(w.told_to_stop, [stale(3)]);
    let job = w.submit(|_| {});
    assert_eq!(w.state(job), JobState::Queued, "its only slot is still at work");
    w.stopped(stale(3), 0);
    w.step(Event::Stopped(Verified::local(Stopped {
        node: NodeId::named("a"),
        reservation: stale(3),
        input_tokens: 1,
        output_tokens: 1,
    })));
    assert_eq!(w.state(job), JobState::Reserved);
    assert_eq!(w.faults("a"), [], "an earlier epoch's reservation costs nothing");

    let mut w = World::of(&["a"]);
    w.gone("a", 1);
    w.connect(NodeHello { running: vec![held(stale(3))], ..remote("a", 2) });
    let job = w.submit(|_| {});
    w.pass_beating(w.limits.stop_timeout, &[("a", 2)]);
    assert_eq!(w.state(job), JobState::Reserved, "the deadline does it too");
}

#[test]
fn away_past_its_ttl_a_node_has_lost_what_it_ran() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(600));
    w.begin_on("a");
    w.gone("a", 1);
    w.pass(Span(w.limits.away_timeout.0 - 10_000));
    assert_eq!(w.state(job), JobState::Running);
    w.pass(Span::from_ms(10));
    assert_eq!(w.state(job), JobState::Queued);
    assert_eq!((w.row(job).lost_attempts, w.row(job).failed_attempts), (1, 0));
    w.join(remote("b", 1));
    assert_eq!(w.runs_on(job).as_deref(), Some("b"));
}

#[test]
fn while_a_node_is_away_its_accept_deadline_runs_on() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(600));
    w.next_of("a");
    w.gone("a", 1);
    w.pass(w.limits.accept_timeout);
    assert_eq!((w.state(job), w.row(job).failed_attempts), (JobState::Queued, 1));
}

#[test]
fn a_missed_heartbeat_is_away_and_the_next_one_is_back() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(600));
    let reservation = w.begin_on("a");
    w.write(reservation, 1);
    w.pass(w.limits.heartbeat_timeout);
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Away, JobState::Running));
    let waiting = w.submit(|_| {});
    w.beat("a", 1);
    assert_eq!((w.stands("a"), w.state(job)), (Standing::Ready, JobState::Running));
    w.succeed(reservation);
    assert_eq!(w.state(waiting), JobState::Reserved, "it has new work");
    assert_eq!(w.faults("a"), []);
    // And it may be missed again.
    let again = w.begin_on("a");
    w.succeed(again);
    w.pass(w.limits.heartbeat_timeout);
    assert_eq!(w.stands("a"), Standing::Away);
    w.beat("a", 1);
    assert_eq!(w.stands("a"), Standing::Ready);
    w.pass(w.limits.heartbeat_timeout);
    assert_eq!(w.stands("a"), Standing::Away, "an idle node that came back is watched like any other");
}

#[test]
fn what_was_never_sent_goes_back_and_is_not_counted() {
    let mut w = World::of(&["a", "b"]);
    let job = w.submit(|_| {});
    let first = w.runs_on(job).expect("placed");
    let reservation = w.next_of(&first).expect("assigned");
    w.step(Event::NodeGone(NodeGone {
        node: NodeId::named(&first),
        session: Session(1),
        undelivered: vec![reservation],
    }));
    assert_eq!(w.state(job), JobState::Reserved, "on the other, in the same step");
    assert_ne!(w.runs_on(job), Some(first.clone()));
    let row = w.row(job);
    assert_eq!((row.failed_attempts, row.lost_attempts, row.declines), (0, 0, 0));
    assert_eq!(w.faults(&first), []);
}

#[test]
fn whoever_runs_too_much_is_told_to_stop_once_more_on_its_next_connection() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.leave(job, Departure::Abandoned);
    assert_eq!(w.told_to_stop, [reservation]);
    w.gone("a", 1);
    w.connect(NodeHello { running: vec![held(reservation)], ..remote("a", 2) });
    assert_eq!(w.told_to_stop, [reservation, reservation]);
    w.stopped(reservation, 0);
    assert_eq!(w.state(job), JobState::Cancelled);
    // One that it doesn't list any more has stopped, without its word.
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.leave(job, Departure::Abandoned);
    w.write(reservation, 1);
    w.gone("a", 2);
    w.connect(remote("a", 3));
    assert_eq!((w.state(job), w.row(job).charged.0), (JobState::Cancelled, 0));
}

#[test]
fn late_duplicate_and_earlier_epochs_cost_an_honest_node_nothing() {
    let mut w = World::of(&["a"]);
    w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.step(Event::Accepted(NodeId::named("a"), reservation));
    w.write(reservation, 2);
    w.succeed(reservation);
    let earned = w.earned("a");
    w.told.clear();
    w.succeed(reservation);
    w.stopped(reservation, 9);
    w.decline(reservation);
    let old = ReservationId { epoch: 6, counter: 900 };
    w.complete_with(old, |result| result.node = NodeId::named("a"));
    assert_eq!(
        w.heard_by("a"),
        [NodeMessage::ResultAccepted(reservation), NodeMessage::ResultUnknown(old)],
        "a repeat is accepted again, what is unknown is finally so"
    );
    assert_eq!((w.earned("a"), w.faults("a")), (earned, vec![]));
    assert_eq!(w.counts().foreign_messages, 0);
}

#[test]
fn foreign_unissued_and_badly_signed_count_against_a_node() {
    let mut w = World::of(&["a", "b"]);
    let job = w.submit(|_| {});
    let runner = w.runs_on(job).expect("placed");
    let other = if runner == "a" { "b" } else { "a" };
    let reservation = w.begin_on(&runner);
    w.complete_with(reservation, |result| result.node = NodeId::named(other));
    assert_eq!((w.state(job), w.faults(other)), (JobState::Running, vec![Fault::ForeignReservation]));
    assert_eq!(w.faults(&runner), []);
    w.step(Event::BadSignature(NodeId::named(&runner)));
    assert_eq!(w.faults(&runner), [Fault::BadSignature]);
    let unissued = ReservationId { epoch: 7, counter: 900 };
    w.step(Event::Accepted(NodeId::named(&runner), unissued));
    assert_eq!(w.faults(&runner), [Fault::BadSignature, Fault::UnissuedReservation]);
}

/// Outside input never panics: ids that will be issued, or never could be.
#[test]
fn a_node_that_lists_what_was_never_issued_is_at_fault_and_nothing_else_happens() {
    let mut w = World::without_box(open());
    let made_up = |counter| ReservationId { epoch: 7, counter };
    let old = ReservationId { epoch: 3, counter: u64::MAX };
    let listed = (0..20).chain([1 << 50, u64::MAX]).map(made_up).chain([old]).map(held);
    w.connect(NodeHello { running: listed.collect(), slots: 30, ..remote("a", 1) });
    assert!(w.faults("a").contains(&Fault::UnissuedReservation));
    w.join(remote("b", 1));
    let jobs: Vec<_> = (0..20).map(|_| w.submit(|_| {})).collect();
    for job in jobs {
        let reservation = w.begin_on("b");
        w.write(reservation, 1);
        w.succeed(reservation);
        assert_eq!(w.state(job), JobState::Succeeded);
    }
}

/// What proves a result is kept with it, once, and never of what isn't an answer.
#[test]
fn a_proof_is_kept_with_its_answer() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 1);
    let proven = |w: &World, status| {
        let proof = Some(std::sync::Arc::from(*b"signed"));
        Verified::local(Completion { proof, ..w.result(reservation, status) })
    };
    let result = proven(&w, STOP);
    w.step(Event::Completed(result.clone()));
    w.step(Event::Completed(result));
    assert_eq!(w.state(job), JobState::Succeeded);
    let id = w.row(job).id;
    let proofs = |w: &World| {
        let of =
            |row: &Row| if let Row::Proof(job, proof) = row { Some((*job, proof.to_vec())) } else { None };
        w.kept.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(proofs(&w), [(id, b"signed".to_vec())]);

    w.submit(|_| {});
    let reservation = w.begin_on("a");
    let message = "broken".to_owned();
    let failed = Status::Failed(JobError { class: ErrorClass::Terminal, message });
    let proof = Some(std::sync::Arc::from(*b"signed"));
    w.step(Event::Completed(Verified::local(Completion { proof, ..w.result(reservation, failed) })));
    assert_eq!(proofs(&w).len(), 1);
}

fn offers(name: &str, session: u64, models: Vec<ModelOffer>) -> Event {
    Event::Offers(Box::new(Offers {
        node: NodeId::named(name),
        session: Session(session),
        models,
        equipment: None,
    }))
}

/// As an upstream server goes down and comes back: its model has no slots meanwhile.
#[test]
fn a_model_that_a_node_cannot_run_for_a_while_loses_nothing() {
    let mut w = World::of(&[]);
    w.join(NodeHello { slots: 2, models: vec![super::fleet::offer("m", 2)], ..remote("a", 1) });
    let running = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.step(offers("a", 9, vec![super::fleet::offer("m", 0)]));
    w.step(offers("b", 1, vec![]));
    let placed = w.submit(|_| {});
    assert_eq!(w.state(placed), JobState::Reserved, "another connection's offers, and another node's");
    w.begin_on("a");

    w.step(offers("a", 1, vec![super::fleet::offer("m", 0)]));
    let waiting = w.submit(|_| {});
    assert_eq!(w.state(waiting), JobState::Queued);
    assert_eq!((w.state(running), w.state(placed)), (JobState::Running, JobState::Running), "they go on");
    w.write(reservation, 1);
    w.succeed(reservation);
    assert_eq!((w.state(running), w.state(waiting)), (JobState::Succeeded, JobState::Queued));

    w.step(offers("a", 1, vec![super::fleet::offer("m", 2)]));
    assert_eq!(w.state(waiting), JobState::Reserved);
    assert_eq!(w.faults("a"), []);
}

#[test]
fn what_is_no_longer_offered_is_no_longer_assigned_and_what_is_new_is_tested_first() {
    let mut w = World::of(&["a"]);
    w.connect(remote("away", 1));
    w.gone("away", 1);
    w.step(offers("a", 1, vec![super::fleet::offer("n", 1)]));
    let gone = w.submit(|_| {});
    assert_eq!(w.state(gone), JobState::Queued, "a node that may come back listed it");
    w.connect(NodeHello { models: vec![], ..remote("away", 2) });
    assert_eq!(w.state(gone), JobState::Queued, "what was let in waits");
    let late = w.submit(|_| {});
    let refusal = w.clients[&late].refused.as_ref().expect("nobody has it any more");
    assert_eq!(refusal.kind, RefusalKind::ModelUnknown);
    let new = w.submit(|s| s.spec.model = "n".into());
    assert_eq!(w.state(new), JobState::Queued, "the node hasn't shown yet that it can");
    w.pass(Span::from_ms(10));
    let test = w.newest_of(&NodeId::named("a")).expect("a test job is due");
    w.serve(test, 1);
    assert_eq!(w.state(new), JobState::Reserved);
}
