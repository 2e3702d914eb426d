//! Models that stand in, retries, dead letters (SPEC sections 2 and 5).

use super::super::command::{Command, NamespaceSettings, Unrunnable};
use super::super::effect::{Answer, RefusalKind, Rejection, Why};
use super::super::event::*;
use super::super::job::{AttemptOutcome, JobState};
use super::super::limits::{FALLBACK_SWEEP_MAX, Limits};
use super::super::standing::Trust;
use super::super::trace::TraceEvent;
use super::fleet::{offer, open, remote};
use super::world::World;
use crate::ids::{ClientId, Namespace};
use crate::time::Span;

fn with_fallback(s: &mut Submission, after_failures: u32) {
    s.spec.fallbacks = Fallbacks { models: vec!["spare".into()], after_failures }.into();
    s.spec.ttl = Span::from_secs(3_600);
}

/// `a` serves `m`, `b` serves `spare`.
fn world() -> World {
    let mut w = World::without_box(open());
    w.join(remote("a", 1));
    w.join(NodeHello { models: vec![offer("spare", 1)], ..remote("b", 1) });
    w
}

#[test]
fn after_its_threshold_of_failures_the_next_model_is_used_and_the_answer_says_so() {
    let mut w = world();
    let job = w.submit(|s| with_fallback(s, 2));
    for _ in 0..2 {
        assert_eq!(w.runs_on(job).as_deref(), Some("a"));
        let reservation = w.begin_on("a");
        w.fail(reservation, ErrorClass::Node);
        w.pass(Span::from_secs(1));
    }
    assert_eq!(w.runs_on(job).as_deref(), Some("b"));
    let reservation = w.begin_on("b");
    assert_eq!(&*w.assigned[&reservation].1.model, "spare");
    w.write(reservation, 1);
    w.succeed(reservation);
    assert_eq!(&*w.clients[&job].finished.as_ref().expect("told").model, "spare");
    assert!(w.told_of(job).any(|told| *told == TraceEvent::FellBack { model: "spare".into() }));
    assert_eq!(w.row(job).failed_attempts, 2);
}

#[test]
fn when_no_node_can_serve_the_first_the_next_is_used() {
    // From the start.
    let mut w = world();
    w.gone("a", 1);
    let job = w.submit(|s| with_fallback(s, 2));
    assert_eq!(w.runs_on(job).as_deref(), Some("b"));
    // While it waits.
    let mut w = world();
    let busy = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    let job = w.submit(|s| with_fallback(s, 2));
    assert_eq!((w.state(busy), w.state(job)), (JobState::Reserved, JobState::Queued));
    w.gone("a", 1);
    w.pass(Span::from_ms(10));
    assert_eq!(w.runs_on(job).as_deref(), Some("b"));
    // When somebody who can comes only later.
    let mut w = World::without_box(open());
    w.join(remote("a", 1));
    w.gone("a", 1);
    let job = w.submit(|s| with_fallback(s, 2));
    assert_eq!(w.state(job), JobState::Queued);
    w.join(NodeHello { models: vec![offer("spare", 1)], ..remote("b", 1) });
    w.pass(Span::from_ms(10));
    assert_eq!(w.runs_on(job).as_deref(), Some("b"));
}

#[test]
fn who_stays_hides_nobody_who_could_move_however_many_come() {
    let mut w = World::without_box(open());
    for (name, model) in [("a", "m"), ("c", "other")] {
        w.join(NodeHello { models: vec![offer(model, 1)], ..remote(name, 1) });
        w.gone(name, 1);
    }
    let stays = |s: &mut Submission| {
        with_fallback(s, 2);
        s.spec.fallbacks = Fallbacks { models: vec!["other".into()], after_failures: 2 }.into();
    };
    for _ in 0..FALLBACK_SWEEP_MAX + 8 {
        w.submit(stays);
    }
    let job = w.submit(|s| with_fallback(s, 2));
    w.join(NodeHello { models: vec![offer("spare", 1)], ..remote("b", 1) });
    for _ in 0..4 {
        w.submit(stays);
        w.pass(Span::from_ms(10));
    }
    assert_eq!(w.runs_on(job).as_deref(), Some("b"));
}

#[test]
fn backoff_grows_with_jitter_and_attempts_run_out_into_a_dead_letter() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    let limits = w.limits.clone();
    let mut waits = Vec::new();
    for attempt in 1..=limits.attempts_max {
        let reservation = w.begin_on("a");
        w.fail(reservation, ErrorClass::Transient);
        if attempt < limits.attempts_max {
            waits.push(w.row(job).not_before.since(w.now));
            w.pass(Span::from_secs(1));
        }
    }
    for (wait, base) in waits.iter().zip([100_000, 200_000]) {
        assert!((base / 2..=base).contains(&wait.0), "{waits:?}");
    }
    assert_eq!(w.state(job), JobState::Failed);
    assert!(w.row(job).history.iter().all(|a| matches!(a.outcome, AttemptOutcome::Failed(_))));
    assert_eq!(w.row(job).history.len(), 3, "with its history");
    let Some(Answer::DeadLetters(letters)) = w.ask(Question::DeadLetters(10)) else { panic!("a list") };
    assert_eq!(letters.iter().map(|l| (l.job, l.requeued_as)).collect::<Vec<_>>(), [(w.job(job), None)]);
}

#[test]
fn declines_wait_but_use_no_attempt_and_lost_waits_for_nothing() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    let reservation = w.next_of("a").expect("assigned");
    w.decline(reservation);
    let row = w.row(job);
    assert_eq!(
        (row.state, row.failed_attempts, row.lost_attempts, row.declines),
        (JobState::Queued, 0, 0, 1)
    );
    assert!(row.not_before > w.now);
    w.pass(Span::from_secs(1));
    w.begin_on("a");
    w.gone("a", 1);
    w.connect(remote("a", 2));
    let row = w.row(job);
    assert_eq!((row.state, row.failed_attempts, row.lost_attempts), (JobState::Reserved, 0, 1));
    assert_eq!(row.not_before, w.now, "no backoff");
    // Died nodes are counted apart, and end too.
    for session in 3..5 {
        w.begin_on("a");
        w.gone("a", session - 1);
        w.connect(remote("a", session));
    }
    assert_eq!((w.state(job), w.row(job).failed_attempts), (JobState::Failed, 0));
}

#[test]
fn a_requeued_job_whose_ttl_has_passed_expires_in_the_same_step() {
    let mut w = World::of(&["a"]);
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(5));
    let reservation = w.begin_on("a");
    w.pass(Span::from_secs(6));
    w.fail(reservation, ErrorClass::Transient);
    assert_eq!(w.state(job), JobState::Expired);
}

fn requeue(w: &mut World, of: ClientId) -> Answer {
    let client = w.asker();
    let row = Box::new(w.row(of).clone());
    w.step(Event::Requeue(Requeue { client, row }));
    w.clients[&client].answers.last().cloned().expect("answered")
}

#[test]
fn a_dead_letter_is_requeued_once_as_a_new_job() {
    let mut w = World::new(1, Limits::default());
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(30));
    let reservation = w.accept();
    w.fail(reservation, ErrorClass::Terminal);
    w.pass(Span::from_secs(100));
    let mut w = w.restarted();
    w.connect(NodeHello::local(vec![ModelOffer::warm("m".into(), 1)]));
    let dear = crate::credits::Price::uncached(3_000_000, 3_000_000);
    w.operate(Command::PutPrice(super::super::ledger::PriceRule {
        environment: None,
        model: None,
        tier: None,
        from: crate::time::Time(0),
        price: dear,
    }));
    let row = w.rows.values().next().expect("the dead letter").clone();
    let id = row.id;
    let client = w.asker();
    w.step(Event::Requeue(Requeue { client, row: Box::new(row) }));
    let Some(Answer::Requeued { job: new }) = w.clients[&client].answers.last().cloned() else {
        panic!("requeued")
    };
    let row = w.rows[&new].clone();
    assert_eq!(*row.origin, Origin::Requeued { from: id });
    assert_eq!((row.hold.0, row.expires_at), (330, w.now + Span::from_secs(30)), "a new hold, price and TTL");
    assert_eq!((row.attempts, row.failed_attempts, row.state), (1, 0, JobState::Reserved));
    let old = w.rows[&id].clone();
    let client = w.asker();
    w.step(Event::Requeue(Requeue { client, row: Box::new(old) }));
    let again = w.clients[&client].answers.last().cloned();
    assert!(
        matches!(again, Some(Answer::Rejected(Rejection::NotADeadLetter(Some(as_job)))) if as_job == new)
    );
    let Some(Answer::DeadLetters(letters)) = w.ask(Question::DeadLetters(1)) else { panic!("a list") };
    assert_eq!(letters[0].requeued_as, Some(new));
    assert_eq!(job, ClientId(1));
}

#[test]
fn what_is_no_dead_letter_is_not_requeued() {
    let mut w = World::new(1, Limits::default());
    let job = w.submit(|s| s.spec.mode = Mode::Polling);
    let reservation = w.accept();
    w.succeed(reservation);
    let answer = requeue(&mut w, job);
    assert!(matches!(answer, Answer::Rejected(Rejection::NotADeadLetter(None))), "{answer:?}");
}

#[test]
fn a_namespace_that_asks_so_has_unrunnable_jobs_refused() {
    let mut w = world();
    w.operate(Command::PutNamespace(NamespaceSettings {
        namespace: Namespace::default_namespace(),
        weight: 1,
        trust: Trust::Open,
        credit: [None, None],
        unrunnable: Unrunnable::Refuse,
        queue_jobs_max: 100,
    }));
    let far = |s: &mut Submission| s.spec.constraints.region = Some("mars".parse().expect("a region"));
    let job = w.submit(far);
    let refused = |w: &World, job| w.clients[&job].refused.as_ref().map(|refusal| refusal.kind);
    assert_eq!(refused(&w, job), Some(RefusalKind::Unrunnable(Why::NoNodeInRegion)));
    let job = w.submit(|s| {
        far(s);
        with_fallback(s, 1);
    });
    assert_eq!(refused(&w, job), Some(RefusalKind::Unrunnable(Why::NoNodeInRegion)), "nor on what stands in");
    assert_eq!((w.counts().holds, w.counts().body_bytes_held), (0, 0));
    w.gone("a", 1);
    let job = w.submit(|s| with_fallback(s, 1));
    assert_eq!(w.runs_on(job).as_deref(), Some("b"), "another model stands in");
}
