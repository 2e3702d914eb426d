//! Random stories: after every event a full recount, at the end nothing is left. Planted bugs must be found.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::Counts;
use super::super::event::*;
use super::super::limits::Limits;
use super::super::mutant::{Mutant, plant};
use super::world::World;
use crate::ids::{ClientId, Namespace, NodeId, ReservationId};
use crate::time::Span;

/// One random thing to do; indexes choose among what is there.
#[derive(Debug, Clone)]
enum Act {
    Submit { mode: u8, tier: u8, namespace: u8, tokens: u16 },
    Leave(u8),
    Cancel(u8),
    See,
    Accept(u8),
    Decline(u8),
    Write(u8),
    Take(u8),
    Succeed(u8),
    Fail(u8, u8),
    Stopped(u8),
    Pass(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..4_u8, 0..4_u8, 0..3_u8, 1..2_000_u16)
            .prop_map(|(mode, tier, namespace, tokens)| Act::Submit { mode, tier, namespace, tokens }),
        2 => any::<u8>().prop_map(Act::Leave),
        1 => any::<u8>().prop_map(Act::Cancel),
        4 => Just(Act::See),
        3 => any::<u8>().prop_map(Act::Accept),
        1 => any::<u8>().prop_map(Act::Decline),
        3 => any::<u8>().prop_map(Act::Write),
        2 => any::<u8>().prop_map(Act::Take),
        3 => any::<u8>().prop_map(Act::Succeed),
        2 => (any::<u8>(), 0..3_u8).prop_map(|(at, class)| Act::Fail(at, class)),
        2 => any::<u8>().prop_map(Act::Stopped),
        2 => (0..40_000_u32).prop_map(Act::Pass),
    ]
}

fn limits() -> Limits {
    Limits {
        namespace_queue_jobs_max: 4,
        queue_jobs_max: 6,
        queue_bytes_max: 36,
        output_budget_bytes: 6_000 * 64,
        output_bytes_max: 1_500 * 64,
        finished_jobs_max: 5,
        ..Limits::default()
    }
}

fn perform(w: &mut World, act: Act) {
    match act {
        Act::Submit { mode, tier, namespace, tokens } => {
            w.submit(|s| {
                s.spec.mode = [Mode::Sync, Mode::Stream, Mode::Polling, Mode::Batch][usize::from(mode)];
                s.spec.tier = Tier::ALL[usize::from(tier)];
                s.spec.namespace = Namespace::named(["a", "b", "c"][usize::from(namespace)]);
                s.spec.output_tokens_max = u32::from(tokens);
                s.spec.ttl = Span::from_ms(u64::from(tokens) * 20);
                s.body = vec![b'x'; usize::from(namespace) * 4].into();
            });
        }
        Act::Leave(at) => {
            if let Some(client) = present(w, at) {
                let served = w.clients[&client].finished.is_some() && at % 2 == 0;
                let departure = if served { Departure::Served } else { Departure::Abandoned };
                w.leave(client, departure);
            }
        }
        Act::Cancel(at) => {
            let job = pick(&w.rows.keys().copied().collect::<Vec<_>>(), at);
            if let Some(job) = job {
                let client = ClientId(w.clients.len() as u64 + 1);
                w.clients.insert(client, Default::default());
                w.step(Event::Cancel(Cancel { client, tenant: None, job }));
            }
        }
        Act::See => {
            if !w.unseen.is_empty() {
                w.see();
            }
        }
        Act::Pass(ms) => w.pass(Span::from_ms(u64::from(ms))),
        Act::Accept(at) => on_node(w, at, |w, r| w.step(Event::Accepted(NodeId::local(), r))),
        Act::Decline(at) => on_node(w, at, |w, r| {
            w.step(Event::Declined(Declined {
                node: NodeId::local(),
                reservation: r,
                reason: "busy".to_owned(),
            }));
        }),
        Act::Write(at) => on_node(w, at, |w, r| w.write(r, 1 + u32::from(at % 3))),
        Act::Take(at) => on_node(w, at, World::take),
        Act::Succeed(at) => on_node(w, at, World::succeed),
        Act::Fail(at, class) => on_node(w, at, |w, r| {
            let classes = [ErrorClass::Terminal, ErrorClass::Node, ErrorClass::Transient];
            w.fail(r, classes[usize::from(class)]);
        }),
        Act::Stopped(at) => on_node(w, at, |w, r| w.stopped(r, u32::from(at))),
    }
}

/// A message about any reservation that the node ever saw: live, dead, repeated.
fn on_node(w: &mut World, at: u8, f: impl FnOnce(&mut World, ReservationId)) {
    // Mostly a recent one, so that stories get somewhere.
    let recent = w.node.len().saturating_sub(6);
    if let Some(reservation) = pick(&w.node[recent..], at) {
        f(w, reservation);
    }
}

fn present(w: &World, at: u8) -> Option<ClientId> {
    let here =
        w.clients.iter().filter(|(_, view)| !view.gone && (view.job.is_some() || view.refused.is_some()));
    pick(&here.map(|(id, _)| *id).collect::<Vec<_>>(), at)
}

fn pick<T: Copy>(from: &[T], at: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(at) % from.len()])
}

/// Nobody's connection carries output of two attempts, and a last word was heard by everyone who waited.
fn check_outputs(w: &World) {
    for view in w.clients.values() {
        let seen = view.opened.iter().filter(|id| w.outputs[id].delivered > 0).count();
        assert!(seen <= 1, "a client took output of {seen} attempts");
    }
    let occupied = w.counts().slots_taken;
    assert!(occupied <= w.counts().slots_total, "{occupied} slots taken");
}

/// Everybody leaves, every job ends: then nothing may be left.
fn wind_down(w: &mut World) {
    while let Some(client) = present(w, 0) {
        w.leave(client, Departure::Abandoned);
    }
    for _ in 0..400 {
        w.pass(Span::from_secs(60));
        while !w.unseen.is_empty() {
            let reservation = w.accept();
            w.succeed(reservation);
        }
    }
    let left: Vec<_> =
        w.counts().entries().filter(|(name, count)| *count > 0 && GAUGES.contains(name)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(w.rows.values().all(|row| !row.state.is_live()), "a job never ended");
    let ended = w.counts().succeeded + w.counts().failed + w.counts().cancelled + w.counts().expired;
    assert_eq!(ended, w.counts().accepted, "every accepted job ends exactly once");
}

const GAUGES: [&str; 12] = [
    "jobs_queued",
    "jobs_reserved",
    "jobs_running",
    "jobs_cancelling",
    "reservations",
    "slots_taken",
    "holds",
    "held_credits",
    "output_bytes_held",
    "body_bytes_held",
    "clients",
    "timers",
];

const HAPPENS: [&str; 20] = [
    "accepted",
    "succeeded",
    "failed",
    "cancelled",
    "expired",
    "attempts_failed",
    "attempts_lost",
    "attempts_declined",
    "errors_terminal",
    "errors_node",
    "errors_transient",
    "refused_namespace_queue_full",
    "refused_queue_full",
    "refused_queue_bytes_full",
    "refused_output_too_large",
    "disconnects_queued",
    "disconnects_prefill",
    "disconnects_decode",
    "disconnects_unread",
    "late_messages",
];

/// Runs a story and says what happened in it.
fn run(acts: Vec<Act>) -> Counts {
    let mut w = World::new(3, limits());
    for act in acts {
        perform(&mut w, act);
        check_outputs(&w);
    }
    wind_down(&mut w);
    w.counts()
}

fn stories() -> impl Strategy<Value = Vec<Act>> {
    proptest::collection::vec(act(), 1..250)
}

fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    )
}

#[test]
fn random_stories_keep_every_invariant() {
    let seen = std::cell::RefCell::new(BTreeMap::<&str, u64>::new());
    let story = |acts| {
        for (name, count) in run(acts).entries() {
            *seen.borrow_mut().entry(name).or_default() += count;
        }
        Ok(())
    };
    runner(2_000).run(&stories(), story).expect("invariants hold");
    // Not vacuous: everything that one node and plain clients can bring about happened. (The simulator has the rest.)
    let seen = seen.into_inner();
    let never: Vec<_> = HAPPENS.iter().filter(|name| seen[**name] == 0).collect();
    assert!(never.is_empty(), "never happened: {never:?}");
}

#[test]
fn planted_bugs_are_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let planted = [Mutant::LeakReservation, Mutant::LeakHold, Mutant::LeakOutputBytes];
    let found = planted.map(|planted| {
        let story = |acts| {
            run(acts);
            Ok(())
        };
        plant(Some(planted));
        let found = runner(100).run(&stories(), story).is_err();
        plant(None);
        (planted, found)
    });
    std::panic::set_hook(quiet);
    for (planted, found) in found {
        assert!(found, "{planted:?} escaped");
    }
}
