//! How long what has ended stays readable.

use super::super::effect::Row;
use super::super::event::*;
use super::super::limits::Limits;
use super::fleet::open;
use super::world::{World, local_again};
use crate::ids::JobId;
use crate::time::Span;

fn forgotten(w: &World) -> Vec<JobId> {
    let job = |row: &Row| if let Row::JobForgotten(job) = row { Some(*job) } else { None };
    w.kept.iter().filter_map(job).collect()
}

/// Submits a job by name, or with a key, which answers.
fn answered(w: &mut World, change: impl FnOnce(&mut Submission)) -> JobId {
    let client = w.submit(|s| {
        s.spec.mode = Mode::Polling;
        change(s);
    });
    let reservation = w.accept();
    w.write(reservation, 20);
    w.succeed(reservation);
    w.leave(client, Departure::Served);
    w.job(client)
}

#[test]
fn what_ended_is_forgotten_when_it_is_old_and_not_before() {
    let mut w = World::new(1, Limits { finished_age_max: Span::from_secs(100), ..open() });
    let first = answered(&mut w, |_| {});
    w.pass(Span::from_secs(60));
    let second = answered(&mut w, |_| {});
    w.pass(Span::from_secs(40));
    assert_eq!(forgotten(&w), []);
    w.pass(Span::from_secs(1));
    assert_eq!(forgotten(&w), [first]);
    // The next start knows how old what it finds is.
    let mut w = w.restarted();
    w.pass(Span::from_secs(58));
    assert_eq!(forgotten(&w), []);
    w.pass(Span::from_secs(2));
    assert_eq!(forgotten(&w), [second]);
}

#[test]
fn answers_are_bounded_by_the_bytes_that_they_may_have() {
    // Each answer has at least 20 tokens, of 64 bytes at most.
    let mut w = World::new(1, Limits { finished_bytes_max: 10 * 20 * 64, ..open() });
    let jobs: Vec<JobId> = (0..20).map(|_| answered(&mut w, |_| {})).collect();
    let gone = forgotten(&w);
    assert!((10..20).contains(&gone.len()), "{} are forgotten", gone.len());
    assert_eq!(gone, jobs[..gone.len()], "the oldest");
}

#[test]
fn an_answer_that_a_key_stands_for_is_kept_as_long_as_the_key() {
    let mut w = World::new(1, Limits { finished_age_max: Span::from_secs(100), ..open() });
    let keyed = Keyed { key: crate::ids::IdempotencyKey([7; 32]), body: crate::ids::Digest([8; 32]) };
    let job = answered(&mut w, |s| *s.spec.key = Some(keyed));
    w.pass(Span::from_secs(23 * 3_600));
    assert_eq!(forgotten(&w), []);
    w.pass(Span::from_secs(2 * 3_600));
    assert_eq!(forgotten(&w), [job]);
}

#[test]
fn smaller_bounds_after_a_start_forget_a_few_jobs_at_a_time() {
    let mut w = World::new(1, Limits::default());
    for _ in 0..200 {
        let client = w.submit(|_| {});
        let reservation = w.accept();
        w.succeed(reservation);
        w.leave(client, Departure::Served);
    }
    w.limits.finished_unnamed_jobs_max = 10;
    let mut w = w.restarted();
    w.step(Event::NodeConnected(Box::new(local_again(vec![ModelOffer::warm(
        super::world::MODEL.into(),
        1,
    )]))));
    let mut forgotten = 0;
    for at_most in [64, 128, 192, 194, 195] {
        let client = w.submit(|_| {});
        let reservation = w.accept();
        w.succeed(reservation);
        w.leave(client, Departure::Served);
        forgotten = w.kept.iter().filter(|row| matches!(row, Row::JobForgotten(_))).count();
        assert!(forgotten <= at_most, "{forgotten}");
    }
    assert_eq!(forgotten, 195, "and in the end as many as the bound says");
}

#[test]
fn bodies_of_dead_letters_are_bounded() {
    let limits = Limits { finished_bytes_max: 4_000, ..Limits::default() };
    let mut w = World::new(1, limits);
    for _ in 0..100 {
        let client = w.submit(|s| s.body = vec![b'x'; 4_000].into());
        let reservation = w.accept();
        w.fail(reservation, ErrorClass::Terminal);
        w.leave(client, Departure::Served);
    }
    for row in &w.kept {
        if let Row::JobForgotten(job) = row {
            w.rows.remove(job);
        }
    }
    let kept: usize = w.rows.values().filter_map(|row| row.body.as_ref()).map(|body| body.len()).sum();
    assert!(kept <= 2 * 4_000, "{kept} bytes of bodies are kept, {} are counted", w.counts().body_bytes_held);
}

/// What the store still has of what was ever kept.
fn still_kept(w: &World, jobs: &[JobId]) -> usize {
    let gone = forgotten(w);
    jobs.iter().filter(|job| !gone.contains(job)).count()
}

fn of(namespace: &str) -> impl Fn(&mut Submission) {
    let namespace = crate::ids::Namespace::named(namespace);
    move |s| s.spec.namespace = namespace.clone()
}

#[test]
fn answers_given_on_a_connection_push_out_nobodys_results() {
    let limits = Limits { finished_jobs_max: 10, finished_unnamed_jobs_max: 5, ..open() };
    let mut w = World::new(1, limits);
    let named: Vec<JobId> = (0..10).map(|_| answered(&mut w, of("calm"))).collect();
    let unnamed: Vec<JobId> = (0..50)
        .map(|_| {
            answered(&mut w, |s| {
                of("busy")(s);
                s.spec.mode = Mode::Sync;
            })
        })
        .collect();
    assert_eq!((still_kept(&w, &named), still_kept(&w, &unnamed)), (10, 5));
    assert_eq!(forgotten(&w), unnamed[..45], "the oldest");
}

#[test]
fn one_namespace_pushes_out_only_its_own_results() {
    let mut w = World::new(1, Limits { finished_jobs_max: 10, ..open() });
    let calm: Vec<JobId> = (0..3).map(|_| answered(&mut w, of("calm"))).collect();
    let busy: Vec<JobId> = (0..50).map(|_| answered(&mut w, of("busy"))).collect();
    assert_eq!((still_kept(&w, &calm), still_kept(&w, &busy)), (3, 7));
    assert_eq!(forgotten(&w), busy[..43]);
    // The next start forgets as this one would have.
    let mut again = w.restarted();
    again.step(Event::NodeConnected(Box::new(local_again(vec![ModelOffer::warm(
        super::world::MODEL.into(),
        1,
    )]))));
    for _ in 0..5 {
        answered(&mut w, of("calm"));
        answered(&mut again, of("calm"));
    }
    assert_eq!(forgotten(&again), forgotten(&w)[43..], "busy and calm have five each");
    assert_eq!(forgotten(&w)[43..][..2], busy[43..45]);
}

#[test]
fn one_namespace_pushes_out_only_its_own_dead_letters() {
    let mut w = World::new(1, Limits { dead_letters_max: 4, ..Limits::default() });
    let mut fail = |namespace: &str| {
        let client = w.submit(of(namespace));
        let reservation = w.accept();
        w.fail(reservation, ErrorClass::Terminal);
        w.leave(client, Departure::Served);
        w.job(client)
    };
    let calm = fail("calm");
    let busy: Vec<JobId> = (0..10).map(|_| fail("busy")).collect();
    let dropped: Vec<JobId> = w
        .kept
        .iter()
        .filter_map(|row| if let Row::DeadLetterForgotten(job) = row { Some(*job) } else { None })
        .collect();
    assert_eq!(dropped, busy[..7]);
    assert!(!dropped.contains(&calm));
    assert_eq!((w.counts().dead_letters, forgotten(&w).len()), (4, 0), "their jobs can still be read");
}

fn answers_forgotten(w: &World) -> Vec<JobId> {
    let job = |row: &Row| if let Row::AnswerForgotten(job) = row { Some(*job) } else { None };
    w.kept.iter().filter_map(job).collect()
}

/// Somebody looks at a job and takes its answer.
fn takes(w: &mut World, job: JobId) {
    let client = crate::ids::ClientId(1_000_000 + w.kept.len() as u64);
    w.step(Event::ClientGone(ClientGone { client, departure: Departure::Took(job) }));
}

#[test]
fn an_answer_that_is_not_to_be_stored_is_forgotten_once_it_was_taken() {
    let mut w = World::new(1, open());
    let unstored = answered(&mut w, |s| s.spec.storing = Storing::Forbidden);
    let stored = answered(&mut w, |_| {});
    let keyed = Keyed { key: crate::ids::IdempotencyKey([7; 32]), body: crate::ids::Digest([8; 32]) };
    let by_key = answered(&mut w, |s| {
        (*s.spec.key, s.spec.storing) = (Some(keyed), Storing::Forbidden);
    });
    takes(&mut w, stored);
    takes(&mut w, unstored);
    takes(&mut w, unstored);
    assert_eq!(answers_forgotten(&w), [unstored], "once, and only what isn't to be stored");
    // The next start knows what it still is to forget.
    let mut w = w.restarted();
    takes(&mut w, stored);
    takes(&mut w, by_key);
    takes(&mut w, by_key);
    assert_eq!(answers_forgotten(&w), [by_key]);
    assert_eq!(forgotten(&w), [], "their jobs stay");
}

#[test]
fn a_dead_letter_that_is_not_to_be_stored_has_no_body() {
    let mut w = World::new(1, Limits::default());
    for (storing, kept) in [(Storing::Allowed, true), (Storing::Forbidden, false)] {
        let client = w.submit(|s| s.spec.storing = storing);
        let reservation = w.accept();
        w.fail(reservation, ErrorClass::Terminal);
        w.leave(client, Departure::Served);
        assert_eq!(w.row(client).body.is_some(), kept);
    }
}

#[test]
fn what_a_start_ends_pushes_out_what_is_older_than_it() {
    let mut w = World::new(1, Limits { finished_unnamed_jobs_max: 3, ..open() });
    let sync = |s: &mut Submission| s.spec.mode = Mode::Sync;
    let ended: Vec<JobId> = (0..3).map(|_| answered(&mut w, sync)).collect();
    w.pass(Span::from_secs(1));
    let cut: Vec<JobId> = (0..4)
        .map(|_| {
            let client = w.submit(sync);
            w.job(client)
        })
        .collect();
    let w = w.restarted();
    assert_eq!(forgotten(&w), [ended[0], ended[1], ended[2], cut[0]], "the oldest first");
}
