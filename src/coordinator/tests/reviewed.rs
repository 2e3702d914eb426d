//! Stories that a review found told wrongly; each failed before it was mended.

use super::super::command::NodeCommand;
use super::super::effect::{RefusalKind, Row};
use super::super::event::*;
use super::super::job::JobState;
use super::super::limits::{Limits, TICK_TIMERS_MAX};
use super::fleet::{held, remote};
use super::world::{World, local_again};
use crate::credits::Credits;
use crate::ids::Namespace;
use crate::time::Span;

fn world(slots: u32) -> World {
    World::new(slots, Limits::default())
}

#[test]
fn a_job_is_never_dispatched_after_its_ttl() {
    let mut w = world(1);
    w.submit(|_| {});
    let waiting = w.submit(|s| s.spec.ttl = Span::from_secs(5));
    let first = w.accept();
    // The slot is freed between two ticks, 5 ms after the TTL.
    w.now = w.now + Span::from_ms(5_005);
    w.succeed(first);
    assert_ne!(w.state(waiting), JobState::Reserved, "dispatched after its TTL");
}

#[test]
fn a_job_that_expires_while_its_node_takes_another_is_gone() {
    let mut w = world(2);
    let then = w.now + Span::from_ms(100);
    // As many as one tick wakes; their TTLs, a millisecond later, are for the next one.
    let come_then = |w: &mut World, ttl: Span, tier: Tier| {
        w.submit(|s| (s.spec.not_before, s.spec.ttl, s.spec.tier) = (Some(then).into(), ttl, tier))
    };
    let late: Vec<_> =
        (1..TICK_TIMERS_MAX).map(|_| come_then(&mut w, Span::from_ms(101), Tier::Standard)).collect();
    let urgent = come_then(&mut w, Span::from_secs(60), Tier::Realtime);
    for _ in 0..3 {
        w.pass(Span::from_ms(110));
    }
    assert_eq!(w.state(urgent), JobState::Reserved);
    assert!(late.iter().all(|late| w.state(*late) == JobState::Expired));
}

#[test]
fn a_starved_head_that_leaves_lets_the_next_one_run() {
    let limits = Limits { output_budget_bytes: 100 * 64, ..Limits::default() };
    let mut w = World::new(3, limits);
    let running = w.submit(|s| s.spec.output_tokens_max = 60);
    w.accept();
    let large = w.submit(|s| s.spec.output_tokens_max = 60);
    let small = w.submit(|s| s.spec.output_tokens_max = 30);
    assert_eq!((w.state(running), w.state(large)), (JobState::Running, JobState::Queued));
    assert_eq!(w.state(small), JobState::Queued, "in order");
    w.leave(large, Departure::Abandoned);
    for _ in 0..100 {
        w.pass(Span::from_ms(10));
    }
    assert_eq!(w.state(small), JobState::Reserved, "a slot and budget are free, and nobody is before it");
}

#[test]
fn a_failed_result_that_crosses_the_cancel_is_not_charged() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    let reservation = w.accept();
    w.write(reservation, 2);
    w.leave(client, Departure::Abandoned);
    w.fail(reservation, ErrorClass::Node);
    let row = &w.rows[&w.clients[&client].job.expect("accepted")];
    assert_eq!(row.charged, Credits::ZERO, "failed by the node: nothing is charged (SPEC 6)");
}

#[test]
fn who_has_an_answer_or_runs_it_has_begun_though_its_word_of_that_was_lost() {
    for by_result in [true, false] {
        let mut w = World::of(&["node_a"]);
        let client = w.submit(|s| s.spec.input_tokens = 50);
        let reservation = w.next_of("node_a").expect("it runs there");
        w.leave(client, Departure::Abandoned);
        if by_result {
            w.complete_with(reservation, |result| result.input_tokens = 50);
        } else {
            w.gone("node_a", 1);
            w.connect(NodeHello { running: vec![held(reservation)], ..remote("node_a", 2) });
            w.stopped(reservation, 0);
        }
        assert_eq!(w.state(client), JobState::Cancelled);
        let charged = w.row(client).charged;
        assert!(charged > Credits::ZERO, "SPEC 6: input, and what was stated (by a result: {by_result})");
    }
}

#[test]
fn a_node_that_was_banned_just_before_a_crash_has_no_work_after_it() {
    let mut w = World::of(&["node_a"]);
    let client = w.submit(|s| s.spec.mode = Mode::Polling);
    w.begin_on("node_a");
    w.command("node_a", NodeCommand::Ban);
    let banned = w.kept.iter().position(|row| matches!(row, Row::Node(row) if row.banned.is_some()));
    let mut again = w.restarted_at(w.kept_at[banned.expect("it is banned")]);
    assert_eq!(again.rows[&w.job(client)].state, JobState::Queued, "nobody is there to run it");
    again.pass(Span::from_secs(3_600));
    assert!(again.faults("node_a").is_empty(), "it was told to go: that it went is no fault");
}

#[test]
fn an_answered_job_keeps_no_body_however_its_client_waits() {
    for mode in [Mode::Sync, Mode::Polling] {
        let mut w = world(1);
        let client = w.submit(|s| s.spec.mode = mode);
        let reservation = w.accept();
        w.succeed(reservation);
        assert!(w.row(client).body.is_none(), "{mode:?}: nobody asks for it any more");
    }
}

#[test]
fn retry_after_is_about_the_model_that_is_full() {
    let limits = Limits { namespace_queue_jobs_max: 100, ..Limits::default() };
    let mut w = World::new(1, limits);
    let offer = |model: &str, slots| ModelOffer::warm(model.into(), slots);
    let models = vec![offer("m", 1), offer("other", 1_000)];
    w.step(Event::NodeConnected(Box::new(local_again(models))));
    // Fifty answers of a minute each: the measured pace is one a minute.
    for _ in 0..50 {
        let client = w.submit(|s| s.spec.ttl = Span::from_secs(100_000));
        let reservation = w.accept();
        for _ in 0..6 {
            w.write(reservation, 1);
            w.pass(Span::from_secs(10));
        }
        w.succeed(reservation);
        w.leave(client, Departure::Served);
    }
    for _ in 0..101 {
        w.submit(|s| s.spec.ttl = Span::from_secs(100_000));
    }
    let full = w.submit(|_| {});
    let refused = w.clients[&full].refused.clone().expect("refused");
    assert_eq!(refused.kind, RefusalKind::NamespaceQueueFull);
    assert_eq!(refused.retry_after, Some(Span::from_secs(60)), "one leaves a minute");
}

#[test]
fn a_large_job_is_not_starved_of_output_budget_by_another_model() {
    let limits = Limits { output_budget_bytes: 100 * 64, ..Limits::default() };
    let mut w = World::new(1, limits);
    let offer = |model: &str, slots| ModelOffer::warm(model.into(), slots);
    let models = vec![offer("a-small", 2), offer("m", 1)];
    w.step(Event::NodeConnected(Box::new(local_again(models))));
    let small = |w: &mut World| {
        w.submit(|s| {
            s.spec.model = "a-small".into();
            s.spec.tier = Tier::Batch;
            s.spec.output_tokens_max = 50;
        })
    };
    let mut running = std::collections::VecDeque::from([small(&mut w), small(&mut w)]);
    let large = w.submit(|s| {
        s.spec.tier = Tier::Realtime;
        s.spec.ttl = Span::from_secs(100_000);
    });
    for _ in 0..1_000 {
        running.push_back(small(&mut w));
        let reservation = w.accept();
        w.write(reservation, 1);
        w.pass(Span::from_secs(1));
        w.succeed(reservation);
        w.leave(running.pop_front().expect("two run"), Departure::Served);
        if w.state(large) != JobState::Queued {
            return;
        }
    }
    panic!("a realtime job waited while a thousand batch jobs that came later ran");
}

#[test]
fn a_lost_job_keeps_its_place() {
    let mut w = world(1);
    let mine = w.submit(|s| s.spec.output_tokens_max = 1_000);
    let others: Vec<_> = (0..3)
        .map(|_| {
            w.submit(|s| {
                s.spec.namespace = Namespace::named("other");
                s.spec.output_tokens_max = 90;
            })
        })
        .collect();
    let reservation = w.accept();
    // A hand-back: lost, requeued at once, keeping its place (SPEC 5, CORE 5: its stamped key).
    w.stopped(reservation, 0);
    assert_eq!(w.state(others[0]), JobState::Queued, "came later, goes first");
    assert_eq!(w.state(mine), JobState::Reserved);
}
