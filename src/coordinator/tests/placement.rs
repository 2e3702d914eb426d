//! Which node a job goes to, and which job a node takes (SPEC sections 2 and 3, CORE sections 5 and 6).

use super::super::command::{Command, Scope};
use super::super::effect::{Answer, Runnable, Why};
use super::super::event::*;
use super::super::job::JobState;
use super::super::limits::{CANDIDATES_MAX, FIT_WAIT, Limits};
use super::super::trace::{LOSERS_KEPT_MAX, Loss, PlacedBy, TraceEvent};
use super::fleet::{STOP, offer, open, remote};
use super::world::World;
use crate::ids::{ClientId, Namespace, NodeId};
use crate::time::Span;

fn patient(s: &mut Submission) {
    s.spec.ttl = Span::from_secs(100_000);
}

/// Teaches the box how fast a node is: two answers of 10 tokens in, 11 out.
fn teach(w: &mut World, name: &str, ms_a_token: u64) {
    for _ in 0..2 {
        let job = w.submit(|s| s.spec.constraints.allow = vec![NodeId::named(name)]);
        let reservation = w.begin_on(name);
        let began = w.now;
        w.write(reservation, 11);
        w.now = w.now + Span::from_ms(20 * ms_a_token);
        let (first, last) = (began + Span::from_ms(10 * ms_a_token), w.now);
        w.complete_with(reservation, |result| {
            result.seen.first_at = Some(first);
            result.seen.last_at = Some(last);
        });
        w.leave(job, Departure::Served);
    }
}

#[test]
fn the_fastest_measured_node_wins_and_the_trace_says_why() {
    let mut w = World::of(&["slow", "quick", "middling"]);
    teach(&mut w, "slow", 90);
    teach(&mut w, "middling", 40);
    teach(&mut w, "quick", 5);
    let job = w.submit(|_| {});
    assert_eq!(w.runs_on(job).as_deref(), Some("quick"));
    let placed = w.told_of(job).find_map(|told| match told {
        TraceEvent::Placed(placed) => {
            Some((placed.candidates, placed.by, placed.score, placed.losers.clone()))
        }
        _ => None,
    });
    let (candidates, by, score, losers) = placed.expect("it was placed");
    assert_eq!((candidates, by), (3, PlacedBy::Job));
    assert_eq!(score.sum(), score.terms().iter().map(|(_, us)| us).sum::<i64>());
    assert!(score.prefill_us > 0 && score.decode_us > 0);
    let names: Vec<String> = losers.iter().map(|(node, _)| node.to_string()).collect();
    assert_eq!(names, ["middling", "slow"], "the best of the others first");
    for (_, loss) in losers {
        assert!(
            matches!(loss, Loss::Slower(other) if other.sum() > score.sum() && other.decode_us > score.decode_us)
        );
    }
}

#[test]
fn a_cold_model_costs_its_load_and_memory_of_the_beginning_helps() {
    let mut w = World::without_box(open());
    let two = |name: &str, warmth| NodeHello {
        slots: 2,
        models: vec![ModelOffer { warmth, load: Span::from_secs(30), ..offer("m", 2) }],
        ..remote(name, 1)
    };
    w.join(two("cold", Warmth::Warm));
    w.join(two("warm", Warmth::Warm));
    w.step(Event::Heartbeat(Heartbeat {
        node: NodeId::named("cold"),
        session: crate::ids::Session(1),
        warm: Vec::new(),
    }));
    let prefix = |s: &mut Submission| {
        *s.spec.prefix = Some(77);
        s.spec.input_tokens = 5_000;
    };
    let job = w.submit(prefix);
    assert_eq!(w.runs_on(job).as_deref(), Some("warm"));
    let loss = w.told_of(job).find_map(|told| match told {
        TraceEvent::Placed(placed) => placed.losers.first().cloned(),
        _ => None,
    });
    assert!(matches!(loss, Some((_, Loss::Slower(score))) if score.load_us == 30_000_000));
    // Two equal nodes, but one may have the prompt's beginning in its cache.
    w.beat("cold", 1);
    let again = w.submit(prefix);
    assert_eq!(w.runs_on(again).as_deref(), Some("warm"));
    let near =
        w.told_of(again).any(|told| matches!(told, TraceEvent::Placed(placed) if placed.score.prefix_us < 0));
    assert!(near);
}

#[test]
fn at_most_sixteen_candidates_are_compared() {
    let names: Vec<String> = (0..20).map(|n| format!("n{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut w = World::of(&names);
    let job = w.submit(|_| {});
    let looked = w.told_of(job).find_map(|told| match told {
        TraceEvent::Placed(placed) => Some((placed.candidates as usize, placed.losers.len())),
        _ => None,
    });
    assert_eq!(looked, Some((CANDIDATES_MAX, LOSERS_KEPT_MAX)));
}

#[test]
fn lists_of_nodes_are_kept_to() {
    let mut w = World::of(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        let allowed = w.submit(|s| s.spec.constraints.allow = vec![NodeId::named(name)]);
        assert_eq!(w.runs_on(allowed).as_deref(), Some(name));
        w.leave(allowed, Departure::Abandoned);
    }
    let denied = w.submit(|s| s.spec.constraints.deny = vec![NodeId::named("a"), NodeId::named("c")]);
    assert_eq!(w.runs_on(denied).as_deref(), Some("b"));
    let waiting = w.submit(|s| s.spec.constraints.allow = vec![NodeId::named("b")]);
    assert_eq!(w.state(waiting), JobState::Queued, "though two others are free");
    let nobody = w.submit(|s| {
        s.spec.mode = Mode::Polling;
        s.spec.constraints.allow = vec![NodeId::named("z")];
    });
    assert_eq!(w.clients[&nobody].runnable, Some(Runnable::No(Why::NoNodeAllowed)));
}

#[test]
fn a_node_that_failed_a_job_is_avoided_while_another_could() {
    let mut w = World::of(&["a", "b"]);
    let job = w.submit(patient);
    let first = w.runs_on(job).expect("placed");
    let other = if first == "a" { "b" } else { "a" };
    // The other is busy, and the job waits for it all the same.
    let blocker = w.submit(patient);
    assert_eq!(w.runs_on(blocker).as_deref(), Some(other));
    let (reservation, blocking) = (w.begin_on(&first), w.begin_on(other));
    w.fail(reservation, ErrorClass::Node);
    w.pass_beating(w.limits.backoff_max, &[("a", 1), ("b", 1)]);
    assert_eq!(w.state(job), JobState::Queued, "{first} is free, but {other} is eligible");
    w.write(blocking, 1);
    w.succeed(blocking);
    assert_eq!(w.runs_on(job).as_deref(), Some(other));
    let reservation = w.begin_on(other);
    w.fail(reservation, ErrorClass::Node);
    w.gone(other, 1);
    w.pass(Span::from_secs(1));
    assert_eq!(w.runs_on(job), Some(first), "no other eligible node is online: the same one, after backoff");
}

/// A node of so many slots and tokens of cache.
fn roomy(slots: u32, kv_tokens: u64) -> World {
    let mut w = World::without_box(open());
    w.join(NodeHello { slots, kv_tokens, models: vec![offer("m", slots)], ..remote("a", 1) });
    w
}

fn of_tokens(w: &mut World, tokens: u32) -> ClientId {
    w.submit(|s| {
        s.spec.ttl = Span::from_secs(1_000);
        s.spec.output_tokens_max = tokens - 10;
    })
}

/// Of another namespace: within one, jobs of a kind go in order.
fn of_another(w: &mut World, tokens: u32) -> ClientId {
    w.submit(|s| {
        s.spec.namespace = Namespace::named("another");
        s.spec.ttl = Span::from_secs(1_000);
        s.spec.output_tokens_max = tokens - 10;
    })
}

#[test]
fn a_job_that_fits_a_node_but_not_what_is_free_blocks_lower_offers_after_a_while() {
    let mut w = roomy(4, 300);
    let (first, second) = (of_tokens(&mut w, 100), of_tokens(&mut w, 100));
    let large = of_tokens(&mut w, 250);
    assert_eq!(w.state(large), JobState::Queued);
    let small = of_another(&mut w, 50);
    assert_eq!(w.state(small), JobState::Reserved, "there is room, and the large one hasn't waited long");
    let ids = [w.begin_on("a"), w.begin_on("a"), w.begin_on("a")];
    w.pass(FIT_WAIT);
    w.succeed(ids[2]);
    let later = w.submit(|s| {
        s.spec.tier = Tier::Batch;
        s.spec.ttl = Span::from_secs(1_000);
    });
    assert_eq!(w.state(later), JobState::Queued, "the node is kept for the large one");
    w.succeed(ids[0]);
    w.succeed(ids[1]);
    assert_eq!((w.state(large), w.state(later)), (JobState::Reserved, JobState::Queued), "110 of 50 left");
    assert_eq!((w.state(first), w.state(second)), (JobState::Succeeded, JobState::Succeeded));
}

#[test]
fn a_job_too_large_for_every_node_waits_and_stands_in_nobodys_way() {
    let mut w = roomy(2, 300);
    let never = w.submit(|s| {
        s.spec.mode = Mode::Polling;
        s.spec.output_tokens_max = 1_000;
    });
    assert_eq!(w.clients[&never].runnable, Some(Runnable::No(Why::TooLargeForEveryNode)));
    w.pass(FIT_WAIT);
    w.pass(FIT_WAIT);
    let small = of_tokens(&mut w, 50);
    assert_eq!(w.state(small), JobState::Reserved);
}

#[test]
fn batch_takes_what_nobody_above_could_use_until_it_has_aged() {
    let limits = Limits { batch_age: Span::from_secs(100), ..open() };
    let mut w = World::new(1, limits);
    let tiered = |w: &mut World, tier| {
        w.submit(|s| {
            s.spec.tier = tier;
            patient(s);
        })
    };
    let running = tiered(&mut w, Tier::Standard);
    let batch = tiered(&mut w, Tier::Batch);
    let standard = tiered(&mut w, Tier::Standard);
    let realtime = tiered(&mut w, Tier::Realtime);
    let mut order = Vec::new();
    for _ in 0..4 {
        let reservation = w.accept();
        order.extend(
            [running, batch, standard, realtime].into_iter().find(|c| w.state(*c) == JobState::Running),
        );
        w.succeed(reservation);
    }
    assert_eq!(order, [running, realtime, standard, batch]);
    // Aged, it competes in standard, by the order of arrival there, but never above.
    tiered(&mut w, Tier::Standard);
    let batch = tiered(&mut w, Tier::Batch);
    w.pass(Span::from_secs(100));
    let later = w.submit(|s| {
        s.spec.namespace = Namespace::named("other");
        patient(s);
    });
    let realtime = tiered(&mut w, Tier::Realtime);
    let reservation = w.accept();
    w.succeed(reservation);
    assert_eq!(w.state(realtime), JobState::Reserved);
    let reservation = w.accept();
    w.succeed(reservation);
    assert!(w.state(batch) == JobState::Reserved || w.state(later) == JobState::Reserved);
    let reservation = w.accept();
    w.succeed(reservation);
    assert_ne!(w.state(batch), JobState::Queued, "in standard, it isn't starved");
}

#[test]
fn paused_scopes_accept_and_wait() {
    let scopes = [
        Scope::Model("m".into()),
        Scope::Namespace(Namespace::default_namespace()),
        Scope::Tier(Tier::Standard),
    ];
    for scope in scopes {
        let mut w = World::new(2, Limits::default());
        let running = w.submit(patient);
        let reservation = w.accept();
        let answer = w.operate(Command::Pause(scope.clone()));
        assert!(matches!(answer, Answer::Paused { waiting: 0, expiring: 0 }), "{answer:?}");
        let waiting = w.submit(|s| s.spec.mode = Mode::Polling);
        assert_eq!(
            (w.state(waiting), w.clients[&waiting].runnable),
            (JobState::Queued, Some(Runnable::No(Why::Paused)))
        );
        let Some(Answer::Job(view)) = w.ask(Question::Job(w.job(waiting), None)) else { panic!("its view") };
        assert_eq!((view.runnable, view.starts_at), (Runnable::No(Why::Paused), None));
        let brief = w.submit(|s| s.spec.ttl = Span::from_secs(5));
        w.submit(patient);
        let answer = w.operate(Command::Pause(scope.clone()));
        assert!(matches!(answer, Answer::Paused { waiting: 3, expiring: 2 }), "{answer:?}");
        // Running work goes on; a failed attempt goes back to waiting; TTL runs on.
        w.fail(reservation, ErrorClass::Transient);
        w.pass(Span::from_secs(5));
        assert_eq!((w.state(running), w.state(brief)), (JobState::Queued, JobState::Expired));
        let mut w = w.restarted();
        w.connect(NodeHello::local(vec![ModelOffer::warm("m".into(), 2)]));
        assert_eq!(w.rows[&w.rows.keys().nth(1).copied().expect("waiting")].state, JobState::Queued);
        assert_eq!(w.counts().jobs_reserved, 0, "a pause survives");
        w.operate(Command::Resume(scope));
        assert!(w.counts().jobs_reserved > 0);
    }
}

#[test]
fn not_before_its_time() {
    let mut w = World::new(1, Limits::default());
    let at = w.now + Span::from_secs(10);
    let job = w.submit(|s| {
        s.spec.mode = Mode::Polling;
        *s.spec.not_before = Some(at);
    });
    assert_eq!(
        (w.state(job), w.clients[&job].runnable),
        (JobState::Queued, Some(Runnable::No(Why::TooEarly)))
    );
    w.pass(Span::from_ms(9_990));
    assert_eq!(w.state(job), JobState::Queued);
    w.pass(Span::from_ms(10));
    assert_eq!(w.state(job), JobState::Reserved);
}

#[test]
fn what_a_job_needs_of_a_node_is_looked_at() {
    type Change = fn(&mut JobSpec);
    let table: [(Change, Why); 6] = [
        (|s| s.constraints.version = Some("2".parse().expect("a version")), Why::NoNodeWithVersion),
        (|s| s.constraints.region = Some("mars".parse().expect("a region")), Why::NoNodeInRegion),
        (|s| s.constraints.gpu = Some("h900".parse().expect("a class")), Why::NoNodeWithGpu),
        (|s| s.constraints.memory_bytes_min = 1 << 50, Why::NoNodeWithMemory),
        (|s| s.constraints.trust = Some(super::super::standing::Trust::Own), Why::NoNodeTrustedEnough),
        (|s| s.environment = Environment::Testnet, Why::NoNodeInEnvironment),
    ];
    for (change, why) in table {
        let mut w = World::without_box(open());
        w.join(NodeHello { environments: vec![Environment::Mainnet], ..remote("a", 1) });
        let job = w.submit(|s| {
            s.spec.mode = Mode::Polling;
            change(&mut s.spec);
        });
        assert_eq!((w.state(job), w.clients[&job].runnable), (JobState::Queued, Some(Runnable::No(why))));
        assert!(w.told_of(job).any(|told| *told == TraceEvent::NotRunnable { why }), "the trace says so");
    }
}

#[test]
fn what_came_meanwhile_is_not_overtaken() {
    let mut w = World::of(&["a"]);
    let job = w.submit(patient);
    let reservation = w.begin_on("a");
    let second = w.submit(patient);
    w.complete(reservation, STOP);
    assert_eq!((w.state(job), w.state(second)), (JobState::Succeeded, JobState::Reserved));
    let by_node = w
        .told_of(second)
        .any(|told| matches!(told, TraceEvent::Placed(placed) if placed.by == PlacedBy::Node));
    assert!(by_node, "the freed node took it");
}
