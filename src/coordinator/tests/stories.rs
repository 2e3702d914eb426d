//! Single stories of jobs, each a transcript.

use super::super::effect::{Answer, CancelCause, CancelState, End, RefusalKind, Usage};
use super::super::event::*;
use super::super::job::JobState;
use super::super::ledger::{Account, Owner};
use super::super::limits::{DECLINES_MAX, Limits};
use super::super::{Boot, Coordinator, Counts};
use super::world::World;
use super::world::tenant;
use crate::credits::Credits;
use crate::ids::{ClientId, Lsn, Namespace, NodeId};
use crate::time::Span;

fn world(slots: u32) -> World {
    World::new(slots, Limits::default())
}

/// Nothing is left behind: every gauge of work in progress is zero.
fn assert_idle(counts: Counts) {
    let left: Vec<_> = [
        ("queued", counts.jobs_queued),
        ("reserved", counts.jobs_reserved),
        ("running", counts.jobs_running),
        ("cancelling", counts.jobs_cancelling),
        ("reservations", counts.reservations),
        ("slots", counts.slots_taken),
        ("holds", counts.holds),
        ("held", counts.held_credits),
        ("output bytes", counts.output_bytes_held),
        ("body bytes", counts.body_bytes_held),
        ("clients", counts.clients),
        ("timers", counts.timers),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_answer_is_charged_as_used_and_leaves_nothing() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    assert_eq!(w.state(client), JobState::Reserved);
    assert_eq!((w.counts().holds, w.counts().held_credits), (1, 110));
    let reservation = w.accept();
    assert_eq!(w.state(client), JobState::Running);
    w.write(reservation, 5);
    w.succeed(reservation);
    assert_eq!(w.state(client), JobState::Succeeded);
    let finished = w.clients[&client].finished.clone().expect("told");
    assert_eq!(finished.usage, Usage { input_tokens: 10, cached_tokens: 0, output_tokens: 5 });
    assert_eq!((finished.charged, finished.chunks, finished.attempt), (Credits(15), 5, 1));
    assert_eq!(w.counts().output_bytes_held, 5 * 4, "unread output is counted, as long as it is");
    w.leave(client, Departure::Served);
    assert_idle(w.counts());
    let balance = |owner| w.core.ledger.balance(&Account { environment: Environment::Mainnet, owner });
    assert_eq!(balance(Owner::Node(NodeId::local())), Credits(15));
    assert_eq!(balance(Owner::Namespace(Namespace::default_namespace())), Credits(-15));
}

#[test]
fn a_client_that_leaves_is_counted_by_phase_and_cancels() {
    let mut w = world(1);
    let running = w.submit(|_| {});
    let queued = w.submit(|_| {});
    assert_eq!(w.state(queued), JobState::Queued);
    w.leave(queued, Departure::Abandoned);
    assert_eq!(w.state(queued), JobState::Cancelled);
    assert_eq!(w.counts().disconnects_queued, 1);
    let reservation = w.accept();
    w.leave(running, Departure::Abandoned);
    assert_eq!((w.counts().disconnects_prefill, w.counts().jobs_cancelling), (1, 1));
    assert_eq!(w.told_to_stop, [reservation]);
    assert_eq!(w.counts().slots_taken, 1, "a stopping reservation still takes its slot");
    w.stopped(reservation, 0);
    assert_eq!(w.state(running), JobState::Cancelled);
    assert_idle(w.counts());

    let decoding = w.submit(|_| {});
    let reservation = w.accept();
    w.write(reservation, 3);
    w.leave(decoding, Departure::Abandoned);
    assert_eq!(w.counts().disconnects_decode, 1);
    w.stopped(reservation, 7);
    let row = &w.rows[&w.clients[&decoding].job.expect("accepted")];
    // Charged at most what the box saw, though the node says more.
    assert_eq!((row.usage.output_tokens, row.charged), (3, Credits(13)));

    let unread = w.submit(|_| {});
    let reservation = w.accept();
    w.write(reservation, 3);
    w.succeed(reservation);
    w.leave(unread, Departure::Abandoned);
    assert_eq!(w.counts().disconnects_unread, 1);
    assert_eq!(w.state(unread), JobState::Succeeded);
    assert_idle(w.counts());
}

#[test]
fn an_assignment_that_the_node_never_saw_is_taken_back() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    w.leave(client, Departure::Abandoned);
    assert!(w.unseen.is_empty() && w.told_to_stop.is_empty());
    assert_eq!(w.state(client), JobState::Cancelled);
    assert_eq!(w.rows[&w.clients[&client].job.expect("accepted")].charged, Credits::ZERO);
    assert_idle(w.counts());
}

#[test]
fn a_result_that_crosses_the_cancel_counts_as_stopped() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    let reservation = w.accept();
    w.write(reservation, 2);
    w.leave(client, Departure::Abandoned);
    w.succeed(reservation);
    assert_eq!(w.state(client), JobState::Cancelled);
    w.succeed(reservation);
    assert_eq!(w.counts().late_messages, 1);
    assert_idle(w.counts());
}

#[test]
fn a_node_that_never_stops_gives_its_slot_back_at_the_deadline_and_earns_nothing() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    let reservation = w.accept();
    w.write(reservation, 2);
    w.leave(client, Departure::Abandoned);
    w.pass(Limits::default().stop_timeout);
    assert_eq!(w.state(client), JobState::Cancelled);
    assert_eq!(w.rows[&w.clients[&client].job.expect("accepted")].charged, Credits::ZERO);
    w.stopped(reservation, 2);
    assert_eq!(w.counts().late_messages, 1);
    assert_idle(w.counts());
}

#[test]
fn a_failed_attempt_runs_again_only_if_nobody_saw_any_of_it() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    let first = w.accept();
    w.write(first, 2);
    w.fail(first, ErrorClass::Node);
    assert_eq!(w.state(client), JobState::Queued);
    assert_eq!(w.counts().slots_taken, 0);
    w.pass(Span::from_secs(1));
    let second = w.accept();
    assert_eq!(w.clients[&client].opened, [first, second]);
    w.write(second, 2);
    w.take(second);
    w.fail(second, ErrorClass::Node);
    assert_eq!(w.state(client), JobState::Failed);
    assert!(matches!(w.end(client), Some(End::Failed(_))));
    w.leave(client, Departure::Served);
    assert_idle(w.counts());
}

#[test]
fn terminal_errors_are_not_tried_again_and_attempts_run_out() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    let reservation = w.accept();
    w.fail(reservation, ErrorClass::Terminal);
    assert_eq!(w.state(client), JobState::Failed);

    let client = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    for attempt in 1..=Limits::default().attempts_max {
        let reservation = w.accept();
        w.fail(reservation, ErrorClass::Transient);
        let last = attempt == Limits::default().attempts_max;
        assert_eq!(w.state(client), if last { JobState::Failed } else { JobState::Queued });
        w.pass(Limits::default().backoff_max);
    }
    assert_eq!(w.counts().attempts_failed, 1 + u64::from(Limits::default().attempts_max));
}

#[test]
fn declines_use_no_attempt_but_not_for_ever() {
    let mut w = world(1);
    let client = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    for declines in 1..=DECLINES_MAX {
        let reservation = w.see();
        w.step(Event::Declined(Declined { node: NodeId::local(), reservation, reason: "busy".to_owned() }));
        let last = declines == DECLINES_MAX;
        assert_eq!(w.state(client), if last { JobState::Failed } else { JobState::Queued });
        w.pass(Limits::default().backoff_max);
    }
    assert_eq!(w.counts().attempts_failed, 0);
}

#[test]
fn deadlines_close_the_output_and_decide() {
    let limits = Limits::default();
    // Never accepted.
    let mut w = world(1);
    let client = w.submit(|s| s.spec.ttl = Span::from_secs(3_600));
    w.see();
    w.pass(limits.accept_timeout);
    assert_eq!((w.state(client), w.counts().slots_taken), (JobState::Queued, 1));
    w.pass(limits.stop_timeout);
    assert_eq!(w.state(client), JobState::Reserved, "tried again once the slot is free");
    // Accepted, but no first output.
    let reservation = w.accept();
    w.pass(limits.first_output_timeout);
    assert_eq!(w.state(client), JobState::Queued);
    w.stopped(reservation, 0);
    w.pass(limits.backoff_max);
    // Output, then none for too long; the client has seen some.
    let reservation = w.accept();
    w.write(reservation, 1);
    w.pass(limits.first_output_timeout);
    w.take(reservation);
    w.pass(limits.progress_timeout);
    assert_eq!(w.state(client), JobState::Failed);
}

#[test]
fn a_job_that_waits_too_long_expires_and_says_so() {
    let mut w = world(1);
    let running = w.submit(|_| {});
    let waiting = w.submit(|s| s.spec.ttl = Span::from_secs(5));
    w.accept();
    w.pass(Span::from_ms(4_990));
    assert_eq!(w.state(waiting), JobState::Queued);
    w.pass(Span::from_ms(10));
    assert_eq!((w.state(waiting), w.end(waiting)), (JobState::Expired, Some(&End::Expired)));
    assert_eq!(w.state(running), JobState::Running);
}

#[test]
fn tiers_go_first_and_namespaces_share_by_tokens() {
    let mut w = world(1);
    w.submit(|_| {});
    let mut order = Vec::new();
    let heavy: Vec<_> = (0..4).map(|_| w.submit(|s| s.spec.output_tokens_max = 1_000)).collect();
    let light: Vec<_> = (0..4)
        .map(|_| {
            w.submit(|s| {
                s.spec.namespace = Namespace::named("light");
                s.spec.output_tokens_max = 90;
            })
        })
        .collect();
    let urgent = w.submit(|s| s.spec.tier = Tier::Realtime);
    for _ in 0..9 {
        let reservation = w.accept();
        w.succeed(reservation);
        order.extend(w.clients.iter().filter(|(_, v)| v.opened.last().is_some()).map(|(id, _)| *id));
    }
    let mut seen = Vec::new();
    order.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });
    let at = |id: &ClientId| order.iter().position(|o| o == id).expect("served");
    assert!(at(&urgent) < at(&heavy[0]) && at(&urgent) < at(&light[0]));
    assert!(at(&light[3]) < at(&heavy[2]), "four light jobs cost less than one heavy one: {order:?}");
}

#[test]
fn bounds_refuse_new_work_by_name() {
    let limits = Limits { namespace_queue_jobs_max: 1, queue_jobs_max: 2, ..Limits::default() };
    let mut w = World::new(1, limits);
    w.submit(|_| {});
    w.submit(|_| {});
    let refused = |w: &World, id: ClientId| w.clients[&id].refused.clone().expect("refused");
    let full = w.submit(|_| {});
    assert_eq!(refused(&w, full).kind, RefusalKind::NamespaceQueueFull);
    let retry_after = refused(&w, full).retry_after.expect("it makes sense later");
    assert!((Span::from_secs(1)..=Span::from_secs(60)).contains(&retry_after));
    w.submit(|s| s.spec.namespace = Namespace::named("other"));
    let full = w.submit(|s| s.spec.namespace = Namespace::named("third"));
    assert_eq!(refused(&w, full).kind, RefusalKind::QueueFull);
    let unknown = w.submit(|s| s.spec.model = "nobody".into());
    assert_eq!(refused(&w, unknown).kind, RefusalKind::ModelUnknown);
    let huge = w.submit(|s| s.spec.output_tokens_max = u32::MAX);
    assert_eq!(refused(&w, huge).kind, RefusalKind::OutputTooLarge);
    w.ask(Question::Drain);
    let draining = w.submit(|_| {});
    assert_eq!(refused(&w, draining).kind, RefusalKind::Draining);
    assert_eq!(w.counts().accepted, 3);
}

#[test]
fn a_full_output_budget_holds_placement_until_readers_leave() {
    let limits = Limits { output_budget_bytes: 100 * 64, ..Limits::default() };
    let mut w = World::new(2, limits);
    let first = w.submit(|_| {});
    let second = w.submit(|_| {});
    assert_eq!((w.state(first), w.state(second)), (JobState::Reserved, JobState::Queued));
    let reservation = w.accept();
    w.write(reservation, 1);
    w.succeed(reservation);
    assert_eq!(w.state(second), JobState::Queued, "the first answer is unread");
    w.leave(first, Departure::Served);
    assert_eq!(w.state(second), JobState::Reserved);
}

#[test]
fn cancel_by_name_keeps_to_the_namespace_and_tells_the_truth() {
    let mut w = world(1);
    let client = w.submit(|_| {});
    let job = w.clients[&client].job.expect("accepted");
    let cancel = |w: &mut World, namespace: Option<&str>| {
        let asker = ClientId(w.clients.len() as u64 + 1);
        w.clients.insert(asker, Default::default());
        let tenant = namespace.map(|name| tenant(Namespace::named(name)));
        w.step(Event::Cancel(Cancel { client: asker, tenant, job }));
        w.clients[&asker].answers.last().cloned()
    };
    let foreign = cancel(&mut w, Some("stranger"));
    assert!(matches!(foreign, Some(Answer::Refused(RefusalKind::JobUnknown, _))));
    let elsewhere = Tenant { environment: Environment::Testnet, ..tenant(Namespace::default_namespace()) };
    let asker = w.asker();
    w.step(Event::Cancel(Cancel { client: asker, tenant: Some(elsewhere.clone()), job }));
    assert!(matches!(w.clients[&asker].answers[..], [Answer::Refused(RefusalKind::JobUnknown, _)]));
    assert!(matches!(w.ask(Question::Job(job, Some(elsewhere))), Some(Answer::Refused(..))));
    w.accept();
    let state = |answer| match answer {
        Some(Answer::Cancelled { state, .. }) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(state(cancel(&mut w, None)), CancelState::Cancelling);
    assert_eq!(state(cancel(&mut w, None)), CancelState::Cancelling);
    let reservation = w.node[0];
    w.stopped(reservation, 0);
    assert_eq!(w.end(client), Some(&End::Cancelled(CancelCause::Operator)));
}

#[test]
fn recovery_goes_on_with_what_can_and_ends_what_nobody_waits_for() {
    let mut w = world(1);
    let stream = w.submit(|_| {});
    let polling = w.submit(|s| s.spec.mode = Mode::Polling);
    let done = w.submit(|s| s.spec.mode = Mode::Polling);
    let reservation = w.accept();
    w.succeed(reservation);
    let third = w.submit(|_| {});
    let ids = [stream, polling, done, third].map(|client| w.clients[&client].job.expect("accepted"));
    let rows: Vec<_> =
        w.rows.values().map(|row| super::super::effect::Row::Job(Box::new(row.clone()))).collect();
    let boot = Boot { epoch: 8, secret: [4; 32], lsn: Lsn(50), at: crate::time::Time(0) };
    let mut effects = Vec::new();
    let core = Coordinator::recover(boot, Limits::default(), Durability::Strict, rows, &mut effects);
    assert_eq!(core.invariants(), Vec::<String>::new());
    let counts = core.counts();
    assert_eq!((counts.jobs_queued, counts.holds, counts.cancelled), (2, 2, 1));
    assert!(core.job_keys.find(ids[1]).is_some() && core.job_keys.find(ids[2]).is_some());
    assert!(core.job_keys.find(ids[3]).is_none(), "its stream died with the process");
    assert_eq!(core.lsn(), Lsn(51));
}
