//! What a restart of the box leaves as it was, and what it ends (SPEC section 10, CORE section 4).

use std::collections::BTreeSet;

use super::super::command::{Command, Scope};
use super::super::effect::{Answer, CancelCause, End, NodeMessage};
use super::super::event::*;
use super::super::job::{AttemptOutcome, JobState};
use super::super::limits::Limits;
use super::super::standing::Standing;
use super::super::subcloud::{Allowed, Isolation, Policy, Subcloud};
use super::fleet::{STOP, held, open, remote};
use super::world::World;
use crate::ids::{ClientId, Digest, IdempotencyKey, JobId, Lsn, NodeId};
use crate::time::Span;

fn polling(s: &mut Submission) {
    s.spec.mode = Mode::Polling;
    s.spec.ttl = Span::from_secs(3_600);
}

fn state(w: &World, job: JobId) -> JobState {
    w.rows[&job].state
}

#[test]
fn unattended_jobs_continue_and_attended_ones_are_interrupted() {
    let mut w = World::new(1, Limits::default());
    let modes = [Mode::Polling, Mode::Batch, Mode::Sync, Mode::Stream];
    let jobs = modes.map(|mode| {
        let client = w.submit(|s| s.spec.mode = mode);
        w.job(client)
    });
    let w = w.restarted();
    let states = jobs.map(|job| state(&w, job));
    assert_eq!(states, [JobState::Queued, JobState::Queued, JobState::Cancelled, JobState::Cancelled]);
    assert_eq!(w.rows[&jobs[2]].end, Some(End::Cancelled(CancelCause::Interrupted)));
    assert_eq!((w.counts().holds, w.counts().live()), (2, 2), "everything else is released");
}

/// A remote node with a running job, the box restarted under it.
fn remote_job() -> (World, JobId, crate::ids::ReservationId) {
    let mut w = World::of(&["a"]);
    let client = w.submit(polling);
    let reservation = w.begin_on("a");
    let job = w.job(client);
    (w.restarted(), job, reservation)
}

#[test]
fn a_remote_reservation_goes_on_when_it_is_listed() {
    let (mut w, job, reservation) = remote_job();
    assert_eq!(state(&w, job), JobState::Running);
    w.connect(NodeHello { running: vec![held(reservation)], ..remote("a", 1) });
    assert_eq!((state(&w, job), w.stands("a")), (JobState::Running, Standing::Ready), "tested before");
    let second = w.submit(|_| {});
    assert_eq!(w.state(second), JobState::Queued, "its slot is taken");
    w.write(reservation, 2);
    w.succeed(reservation);
    assert_eq!((state(&w, job), w.state(second)), (JobState::Succeeded, JobState::Reserved));
    assert_eq!(w.rows[&job].attempts, 1);
}

#[test]
fn a_remote_reservation_is_lost_when_it_is_not_listed_or_nobody_comes() {
    let (mut w, job, _) = remote_job();
    w.connect(remote("a", 1));
    assert_eq!(state(&w, job), JobState::Reserved, "again, at once");
    assert_eq!((w.rows[&job].lost_attempts, w.rows[&job].failed_attempts), (1, 0));
    for begun in [true, false] {
        let mut w = World::of(&["a"]);
        let client = w.submit(polling);
        if begun {
            w.begin_on("a");
        }
        let job = w.job(client);
        let mut w = w.restarted();
        w.pass(w.limits.away_timeout);
        let row = &w.rows[&job];
        assert_eq!(
            (row.state, row.lost_attempts, row.failed_attempts),
            (JobState::Queued, 1, 0),
            "begun: {begun}"
        );
    }
}

#[test]
fn a_result_from_before_the_restart_is_honoured_once() {
    let (mut w, job, reservation) = remote_job();
    let result = Verified::local(w.result(reservation, STOP));
    w.connect(NodeHello { results: vec![result.clone()], ..remote("a", 1) });
    assert_eq!(state(&w, job), JobState::Succeeded);
    let earned = w.earned("a");
    // The box crashes again before the node hears of it.
    let mut w = w.restarted();
    w.connect(NodeHello { results: vec![result], ..remote("a", 1) });
    assert!(w.heard_by("a").contains(&NodeMessage::ResultAccepted(reservation)), "{:?}", w.heard_by("a"));
    assert_eq!(w.earned("a"), earned);
}

#[test]
fn what_takes_the_box_down_is_tried_alone_once_more_and_then_a_dead_letter() {
    let offer = || NodeHello::local(vec![ModelOffer::warm("m".into(), 2)]);
    let mut w = World::new(2, Limits::default());
    let client = w.submit(polling);
    let job = w.job(client);
    w.accept();
    let mut w = w.restarted();
    assert_eq!((state(&w, job), w.rows[&job].box_cuts), (JobState::Queued, 1));
    assert_eq!(w.rows[&job].history[0].outcome, AttemptOutcome::Cut);
    w.connect(offer());
    assert_eq!(state(&w, job), JobState::Reserved);
    let other = w.submit(polling);
    assert_eq!(w.state(other), JobState::Queued, "it runs alone");
    w.accept();
    let mut w = w.restarted();
    assert_eq!((state(&w, job), w.rows[&job].box_cuts), (JobState::Failed, 2));
    let Some(Answer::DeadLetters(letters)) = w.ask(Question::DeadLetters(9)) else { panic!("a list") };
    assert_eq!(letters.len(), 1);
    w.connect(offer());
    assert_eq!(w.counts().jobs_reserved, 1, "no crash loop: the other one runs");
}

/// A little of everything.
fn story() -> World {
    let limits = Limits { attempts_max: 1, ..open() };
    let mut w = World::without_box(limits);
    w.connect(NodeHello::local(vec![ModelOffer::warm("m".into(), 1)]));
    w.join(remote("a", 1));
    w.admit("a", |settings| settings.owner = Some(crate::ids::Namespace::named("owner")));
    w.operate(Command::PutSubcloud(Box::new(Subcloud {
        name: "lab".parse().expect("a name"),
        environment: Environment::Mainnet,
        policy: Policy::default(),
        isolate: Isolation::Shared,
        owners: BTreeSet::new(),
        allowed: Allowed::Everyone,
        nodes: BTreeSet::new(),
    })));
    w.operate(Command::JoinSubcloud(
        Environment::Mainnet,
        "lab".parse().expect("a name"),
        NodeId::named("a"),
    ));
    w.operate(Command::Deposit(w.amount(1, 10_000), crate::ids::Namespace::default_namespace()));
    w.operate(Command::PutPrice(super::super::ledger::PriceRule {
        environment: None,
        model: Some("m".into()),
        tier: None,
        from: crate::time::Time(0),
        price: crate::credits::Price::uncached(2_000_000, 2_000_000),
    }));
    for number in 0..6_u8 {
        let key = Keyed { key: IdempotencyKey([number; 32]), body: Digest([1; 32]) };
        let mode = [Mode::Polling, Mode::Stream, Mode::Sync][usize::from(number % 3)];
        let client = w.submit(|s| {
            s.spec.mode = mode;
            *s.spec.key = Some(key).filter(|_| number % 2 == 0);
            s.spec.ttl = Span::from_secs(3_600);
        });
        let Some(reservation) = w.unseen.first().copied() else { continue };
        w.begin(reservation);
        match number {
            0 | 3 => w.serve_begun(reservation),
            1 => w.fail(reservation, ErrorClass::Terminal),
            2 => w.leave(client, Departure::Abandoned),
            _ => {}
        }
    }
    w.operate(Command::Pause(Scope::Tier(Tier::Batch)));
    for _ in 0..5 {
        w.step(Event::BadSignature(NodeId::named("a")));
    }
    w
}

impl World {
    fn serve_begun(&mut self, reservation: crate::ids::ReservationId) {
        self.write(reservation, 2);
        self.succeed(reservation);
    }
}

#[test]
fn every_prefix_of_a_story_recovers_into_a_clean_core() {
    let w = story();
    let last = w.core.lsn();
    for lsn in 0..=last.0 {
        // The world checks it, and again after everybody came back, and after time passed.
        let mut again = w.restarted_at(Lsn(lsn));
        again.connect(NodeHello::local(vec![ModelOffer::warm("m".into(), 1)]));
        let listed = w.reservations.iter().filter(|r| w.node_of(**r) == NodeId::named("a")).copied();
        again.connect(NodeHello { running: listed.map(held).collect(), ..remote("a", 2) });
        again.pass(Span::from_secs(20));
        again.pass(Span::from_secs(100));
        assert!(again.counts().foreign_messages == 0, "at {lsn}");
        assert!(
            again
                .faults("a")
                .iter()
                .all(|fault| w.rows.is_empty() || !format!("{fault}").contains("another node"))
        );
    }
}

#[test]
fn keys_pauses_nodes_exclusions_prices_subclouds_and_dead_letters_survive() {
    let w = story();
    let mut again = w.restarted();
    assert_eq!(again.counts().keys, w.counts().keys - interrupted_keys(&w, &again));
    assert_eq!(again.counts().dead_letters, w.counts().dead_letters);
    assert!(again.counts().dead_letters > 0);
    let (standing, row) = again.seen("a");
    assert_eq!((standing, row.owner.is_some()), (Standing::Excluded, true));
    assert!(row.exclusion.is_some());
    again.connect(remote("a", 2));
    let batch = again.submit(|s| {
        polling(s);
        s.spec.tier = Tier::Batch;
        s.spec.constraints.subcloud = Some("lab".parse().expect("a name"));
    });
    assert_eq!(again.row(batch).hold.0, 220, "the price");
    let no = super::super::effect::Runnable::No(super::super::effect::Why::Paused);
    assert_eq!(again.clients[&batch].runnable, Some(no), "the pause, in a subcloud that is known");
    assert_eq!(again.earned("a"), w.earned("a"));
}

/// Keys whose streams were interrupted are free again.
fn interrupted_keys(before: &World, after: &World) -> u64 {
    let ended = |job: &&JobId| before.rows[*job].state.is_live() && !state(after, **job).is_live();
    before.rows.keys().filter(|job| before.rows[*job].spec.key.is_some()).filter(ended).count() as u64
}

#[test]
fn an_end_that_was_asked_for_is_asked_for_again() {
    let mut w = World::of(&["a"]);
    let client: ClientId = w.submit(polling);
    let reservation = w.begin_on("a");
    let (job, asker) = (w.job(client), w.asker());
    w.step(Event::Cancel(Cancel { client: asker, tenant: None, job }));
    let mut w = w.restarted();
    assert_eq!(w.counts().jobs_cancelling, 1);
    w.connect(NodeHello { running: vec![held(reservation)], ..remote("a", 1) });
    assert!(w.told_to_stop.contains(&reservation));
    w.stopped(reservation, 0);
    assert_eq!(state(&w, job), JobState::Cancelled);
}
