//! How the server stops, and what it does while the disk is behind.

use super::super::effect::{Answer, CancelCause, End};
use super::super::event::*;
use super::super::job::JobState;
use super::fleet::open;
use super::world::World;
use crate::time::Span;

fn left(w: &mut World, question: Question) -> u64 {
    match w.ask(question) {
        Some(Answer::Draining { left }) => left,
        other => panic!("another answer: {other:?}"),
    }
}

fn polling(submission: &mut Submission) {
    submission.spec.mode = Mode::Polling;
}

#[test]
fn at_the_deadline_open_requests_end_and_the_rest_waits_for_the_next_start() {
    let mut w = World::new(1, open());
    let running = w.submit(|_| {});
    let queued = w.submit(|_| {});
    let kept = w.submit(polling);
    let reservation = w.accept();
    assert_eq!(left(&mut w, Question::WindDown), 2);
    assert_eq!(left(&mut w, Question::EndService), 1, "the one that stops");
    assert_eq!(w.end(queued), Some(&End::Cancelled(CancelCause::Shutdown)));
    w.stopped(reservation, 0);
    assert_eq!(w.end(running), Some(&End::Cancelled(CancelCause::Shutdown)));
    assert_eq!(left(&mut w, Question::EndService), 0);
    assert_eq!(w.state(kept), JobState::Queued, "though its node is free");
    let job = w.job(kept);
    let w = w.restarted();
    assert_eq!(w.rows[&job].state, JobState::Queued);
    assert_eq!(w.counts().live(), 1);
}

#[test]
fn the_boxs_own_node_gives_back_what_it_runs_without_an_attempt_or_a_cut_counted() {
    let mut w = World::new(1, open());
    let client = w.submit(polling);
    let reservation = w.accept();
    w.write(reservation, 3);
    assert_eq!(left(&mut w, Question::EndService), 1);
    w.stopped(reservation, 3);
    assert_eq!(left(&mut w, Question::EndService), 0);
    let row = w.row(client);
    assert_eq!((row.state, row.failed_attempts, row.box_cuts), (JobState::Queued, 0, 0));
}

#[test]
fn remote_nodes_go_on_with_what_outlives_the_box() {
    let mut w = World::of(&["a"]);
    let client = w.submit(polling);
    w.begin_on("a");
    assert_eq!(left(&mut w, Question::WindDown), 1);
    assert_eq!(left(&mut w, Question::EndService), 0);
    assert_eq!(w.state(client), JobState::Running);
}

#[test]
fn while_somebody_waits_on_a_connection_work_goes_on_and_then_no_more_starts() {
    let mut w = World::new(1, open());
    let first = w.submit(|_| {});
    let second = w.submit(|_| {});
    let later = w.submit(polling);
    let refused = w.submit(|s| s.body = b"other".as_slice().into());
    w.leave(refused, Departure::Abandoned);
    let reservation = w.accept();
    assert_eq!(left(&mut w, Question::WindDown), 2);
    w.succeed(reservation);
    let reservation = w.accept();
    assert_eq!(left(&mut w, Question::WindDown), 1);
    w.succeed(reservation);
    assert!(w.end(first).is_some() && w.end(second).is_some());
    assert_eq!(w.state(later), JobState::Reserved, "it was next before anybody asked again");
    let reservation = w.accept();
    let last = w.submit(polling);
    assert!(w.clients[&last].refused.is_some());
    assert_eq!(left(&mut w, Question::WindDown), 1);
    w.fail(reservation, ErrorClass::Transient);
    w.pass(Span::from_secs(30));
    assert_eq!(w.state(later), JobState::Queued);
    assert_eq!(left(&mut w, Question::WindDown), 0);
}

#[test]
fn a_keyed_stream_that_is_being_read_ends_as_interrupted_and_is_no_dead_letter() {
    let mut w = World::new(1, open());
    let client = w.submit(|s| {
        let (key, body) = (crate::ids::IdempotencyKey([1; 32]), crate::ids::Digest([2; 32]));
        *s.spec.key = Some(Keyed { key, body });
    });
    let reservation = w.accept();
    w.write(reservation, 3);
    w.take(reservation);
    assert_eq!(left(&mut w, Question::WindDown), 1, "somebody waits for it");
    left(&mut w, Question::EndService);
    assert_eq!(w.end(client), Some(&End::Cancelled(CancelCause::Interrupted)));
    assert_eq!((w.row(client).charged.0, w.counts().dead_letters, w.counts().keys), (0, 0, 0));
    w.stopped(reservation, 3);
    assert_eq!(left(&mut w, Question::EndService), 0);
}

#[test]
fn what_runs_ends_before_what_waits_however_many_wait() {
    let mut w = World::new(1, open());
    w.submit(|_| {});
    let first = w.accept();
    let waiting: Vec<_> = (0..300).map(|_| w.submit(|_| {})).collect();
    let last = w.submit(|s| s.spec.tier = Tier::Realtime);
    w.succeed(first);
    assert_eq!(w.state(last), JobState::Reserved);
    let reservation = w.accept();
    w.write(reservation, 3);
    w.take(reservation);
    left(&mut w, Question::EndService);
    w.stopped(reservation, 3);
    assert_eq!(w.end(last), Some(&End::Cancelled(CancelCause::Shutdown)));
    assert_eq!(w.counts().dead_letters, 0);
    assert_eq!(w.state(waiting[299]), JobState::Queued, "the next step ends it");
}

#[test]
fn a_shutdown_of_many_open_requests_ends_some_at_a_time() {
    let mut w = World::new(1, open());
    let clients: Vec<_> = (0..600).map(|_| w.submit(|_| {})).collect();
    w.accept();
    assert_eq!(left(&mut w, Question::EndService), 600 - 255, "the running one stops");
    assert_eq!(left(&mut w, Question::EndService), 600 - 255 - 256);
    assert_eq!(left(&mut w, Question::EndService), 1);
    assert!(clients[1..].iter().all(|client| w.end(*client) == Some(&End::Cancelled(CancelCause::Shutdown))));
}

#[test]
fn nothing_starts_while_the_disk_is_behind_and_all_goes_on_when_it_caught_up() {
    let mut w = World::new(2, open());
    let first = w.submit(|_| {});
    let reservation = w.accept();
    w.step(Event::StoreRoom(StoreRoom::Behind));
    let second = w.submit(|_| {});
    let third = w.submit(|_| {});
    w.pass(Span::from_secs(1));
    assert_eq!((w.state(second), w.state(third)), (JobState::Queued, JobState::Queued));
    w.succeed(reservation);
    assert_eq!(w.end(first).map(|end| matches!(end, End::Succeeded(_))), Some(true), "what runs may end");
    w.step(Event::StoreRoom(StoreRoom::Open));
    assert_eq!((w.state(second), w.state(third)), (JobState::Reserved, JobState::Reserved));
}
