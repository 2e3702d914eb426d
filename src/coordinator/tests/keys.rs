//! Idempotency keys (SPEC sections 9 and 10).

use super::super::effect::{CancelCause, End, Lookup, Refusal, RefusalKind};
use super::super::event::*;
use super::super::job::JobState;
use super::super::limits::{KEY_LIFE, Limits};
use super::world::World;
use crate::ids::{ClientId, Digest, IdempotencyKey, Namespace};
use crate::time::Span;

fn world() -> World {
    World::new(1, Limits::default())
}

fn keyed(w: &mut World, key: u8, body: u8, mode: Mode) -> ClientId {
    w.submit(|s| {
        *s.spec.key = Some(Keyed { key: IdempotencyKey([key; 32]), body: Digest([body; 32]) });
        s.spec.mode = mode;
    })
}

#[test]
fn a_repeat_attaches_to_the_live_job_and_its_output() {
    let mut w = world();
    let first = keyed(&mut w, 1, 1, Mode::Stream);
    let queued = keyed(&mut w, 2, 1, Mode::Stream);
    let second = keyed(&mut w, 1, 1, Mode::Stream);
    assert_eq!((w.job(second), w.counts().accepted, w.counts().attached), (w.job(first), 2, 1));
    let reservation = w.accept();
    w.write(reservation, 2);
    let third = keyed(&mut w, 1, 1, Mode::Stream);
    assert_eq!(w.clients[&second].opened, [reservation]);
    assert_eq!(w.clients[&third].opened, [reservation]);
    let waits = keyed(&mut w, 2, 1, Mode::Stream);
    w.succeed(reservation);
    for client in [first, second, third] {
        let finished = w.clients[&client].finished.as_ref().expect("each is told");
        assert_eq!((finished.chunks, finished.charged.0), (2, 12));
    }
    let reservation = w.accept();
    assert_eq!(
        (&w.clients[&queued].opened, &w.clients[&waits].opened),
        (&vec![reservation], &vec![reservation])
    );
}

#[test]
fn after_success_the_stored_answer_and_another_body_is_a_conflict() {
    let mut w = world();
    let first = keyed(&mut w, 1, 1, Mode::Sync);
    let conflict = keyed(&mut w, 1, 2, Mode::Sync);
    let reservation = w.accept();
    w.write(reservation, 1);
    w.succeed(reservation);
    let again = keyed(&mut w, 1, 1, Mode::Sync);
    assert_eq!((w.reads.clone(), w.clients[&again].job), (vec![Lookup::Answer(w.job(first))], None));
    let late = keyed(&mut w, 1, 2, Mode::Sync);
    for client in [conflict, late] {
        let refused = w.clients[&client].refused.clone().expect("refused");
        assert_eq!((refused.kind, refused.retry_after), (RefusalKind::KeyConflict, None));
    }
    assert_eq!(w.counts().accepted, 1);
}

#[test]
fn while_closed_a_repeat_is_answered_and_a_new_request_is_refused() {
    let mut w = world();
    let first = keyed(&mut w, 1, 1, Mode::Polling);
    let closed = |w: &mut World, key: u8| {
        w.submit(|s| {
            *s.spec.key = Some(Keyed { key: IdempotencyKey([key; 32]), body: Digest([1; 32]) });
            let retry_after = Some(Span::from_secs(5));
            s.closed = Some(Refusal { kind: RefusalKind::DiskReserve, retry_after });
        })
    };
    let (repeat, new) = (closed(&mut w, 1), closed(&mut w, 2));
    assert_eq!(w.job(repeat), w.job(first));
    let refused = w.clients[&new].refused.clone().expect("refused");
    assert_eq!((refused.kind, refused.retry_after), (RefusalKind::DiskReserve, Some(Span::from_secs(5))));
    assert_eq!((w.counts().accepted, w.clients[&new].job), (1, None));
}

#[test]
fn a_key_whose_job_failed_or_was_refused_starts_a_new_one() {
    let mut w = world();
    let failed = keyed(&mut w, 1, 1, Mode::Polling);
    let reservation = w.accept();
    w.fail(reservation, ErrorClass::Terminal);
    let again = keyed(&mut w, 1, 2, Mode::Polling);
    assert_ne!(w.job(failed), w.job(again), "with another body even");
    let refused = w.submit(|s| {
        *s.spec.key = Some(Keyed { key: IdempotencyKey([9; 32]), body: Digest([1; 32]) });
        s.spec.model = "nobody".into();
    });
    assert_eq!(w.clients[&refused].refused.as_ref().expect("refused").kind, RefusalKind::ModelUnknown);
    assert_eq!(w.counts().keys, 1);
    let taken = keyed(&mut w, 9, 2, Mode::Polling);
    assert_eq!(w.state(taken), JobState::Queued);
}

#[test]
fn a_keyed_job_outlives_its_client() {
    let mut w = world();
    let running = keyed(&mut w, 1, 1, Mode::Sync);
    let queued = keyed(&mut w, 2, 1, Mode::Sync);
    let reservation = w.accept();
    w.leave(running, Departure::Abandoned);
    w.leave(queued, Departure::Abandoned);
    assert_eq!((w.state(running), w.state(queued)), (JobState::Running, JobState::Queued));
    w.write(reservation, 1);
    w.succeed(reservation);
    assert_eq!(w.state(running), JobState::Succeeded);
    let again = keyed(&mut w, 2, 1, Mode::Sync);
    assert_eq!(w.job(again), w.job(queued));
}

#[test]
fn a_key_means_something_for_24_hours_and_as_long_as_its_job_lives() {
    let mut w = world();
    let first = keyed(&mut w, 1, 1, Mode::Sync);
    let reservation = w.accept();
    w.succeed(reservation);
    w.pass(Span(KEY_LIFE.0 - 10_000));
    keyed(&mut w, 1, 1, Mode::Sync);
    assert_eq!(w.reads, [Lookup::Answer(w.job(first))]);
    w.pass(Span::from_ms(10));
    let new = keyed(&mut w, 1, 1, Mode::Sync);
    assert_ne!(w.job(new), w.job(first));
    let reservation = w.accept();
    w.succeed(reservation);
    let long = w.submit(|s| {
        *s.spec.key = Some(Keyed { key: IdempotencyKey([2; 32]), body: Digest([1; 32]) });
        s.spec.mode = Mode::Polling;
        s.spec.ttl = Span(KEY_LIFE.0 * 3);
        *s.spec.not_before = Some(w_after(KEY_LIFE.0 * 3));
    });
    w.pass(Span(KEY_LIFE.0 + 10_000));
    let again = keyed(&mut w, 2, 1, Mode::Polling);
    assert_eq!(w.job(again), w.job(long), "its job still lives");
}

fn w_after(micros: u64) -> crate::time::Time {
    super::fleet::after(Span(micros))
}

#[test]
fn a_namespace_has_so_many_keys() {
    let mut w = World::new(1, Limits { keys_per_namespace_max: 2, ..Limits::default() });
    keyed(&mut w, 1, 1, Mode::Polling);
    keyed(&mut w, 2, 1, Mode::Polling);
    let third = keyed(&mut w, 3, 1, Mode::Polling);
    let refused = w.clients[&third].refused.clone().expect("refused");
    assert_eq!(refused.kind, RefusalKind::KeysFull);
    assert!(refused.retry_after.is_some(), "it is a 429");
    let known = keyed(&mut w, 1, 1, Mode::Polling);
    assert!(w.clients[&known].job.is_some(), "a known one needs no room");
    let other = w.submit(|s| {
        s.spec.namespace = Namespace::named("other");
        *s.spec.key = Some(Keyed { key: IdempotencyKey([4; 32]), body: Digest([1; 32]) });
    });
    assert!(w.clients[&other].job.is_some(), "another's share");
}

#[test]
fn after_a_restart_keys_stand_for_what_they_stood_for() {
    let mut w = World::new(2, Limits::default());
    let done = keyed(&mut w, 1, 1, Mode::Sync);
    let reservation = w.accept();
    w.write(reservation, 1);
    w.succeed(reservation);
    let sync = keyed(&mut w, 2, 1, Mode::Sync);
    let reserved = keyed(&mut w, 3, 1, Mode::Stream);
    let queued = keyed(&mut w, 4, 1, Mode::Stream);
    let mut w2 = w.restarted();
    keyed(&mut w2, 1, 1, Mode::Sync);
    assert_eq!(w2.reads, [Lookup::Answer(w.job(done))]);
    // Keyed sync jobs continue, and so does a keyed stream that was still queued.
    for (key, before) in [(2, sync), (4, queued)] {
        let again = keyed(&mut w2, key, 1, w.row(before).spec.mode);
        assert_eq!(w2.job(again), w.job(before), "key {key}");
    }
    // A keyed stream that had been reserved was interrupted; its key starts a new job.
    let row = &w2.rows[&w.job(reserved)];
    assert_eq!(
        (row.state, row.end.clone()),
        (JobState::Cancelled, Some(End::Cancelled(CancelCause::Interrupted)))
    );
    w2.connect(NodeHello::local(vec![ModelOffer::warm("m".into(), 2)]));
    let again = keyed(&mut w2, 3, 1, Mode::Stream);
    assert_ne!(w2.job(again), w.job(reserved));
    let conflict = keyed(&mut w2, 2, 9, Mode::Sync);
    assert_eq!(w2.clients[&conflict].refused.as_ref().map(|r| r.kind), Some(RefusalKind::KeyConflict));
}
