//! Worst cases: the longest turn when everything happens at once.

use switchbox::coordinator::command::{Command, Scope};
use switchbox::coordinator::event::{ModelOffer, Tier};
use switchbox::ids::NodeId;
use switchbox::time::Span;

use crate::rig::{Rig, Shape, Size, Timed};
use crate::stats::Times;

/// Turns of a case that goes on and on.
const TURNS: usize = 20_000;
/// How often a world is made anew and its turns are measured.
const REPEATS: usize = 3;
const TICK: Span = Span::from_ms(10);
const MINUTE: Span = Span::from_secs(60);

/// The turns of one case.
#[derive(Debug)]
pub struct Case {
    /// What happens.
    pub name: &'static str,
    /// By the clock.
    pub wall: Times,
    /// Of the processor: what other processes took is no part of it.
    pub cpu: Times,
}

impl Case {
    fn new(name: &'static str) -> Self {
        Self { name, wall: Times::default(), cpu: Times::default() }
    }

    fn add(&mut self, timed: Timed) {
        self.wall.add(timed.took);
        self.cpu.add(timed.cpu);
    }
}

/// What measures the cases of a group at a size.
type Group = fn(Size) -> Vec<Case>;

/// The groups of cases, by name.
pub const GROUPS: [(&str, Group); 6] = [
    ("expire", comes_and_expires),
    ("age", ages),
    ("pause", pauses),
    ("avoid", avoids),
    ("need", needs_one),
    ("lane", lane_begins),
];

/// The cases of a group at that size. The world is the same each time, and so is the work of its every turn: of
/// several times the shortest counts, which leaves most of the machine's hiccups out. One of them is that of memory
/// that is touched for the first time: on a virtual machine it may take milliseconds to get. So the later times
/// should run in memory that the first one leaves (`keep_memory`).
pub fn measure(group: fn(Size) -> Vec<Case>, size: Size) -> Vec<Case> {
    let mut best = group(size);
    for _ in 1..REPEATS {
        for (best, again) in best.iter_mut().zip(group(size)) {
            best.wall.keep_shorter(&again.wall);
            best.cpu.keep_shorter(&again.cpu);
        }
    }
    best
}

fn watched(size: Size, shape: Shape) -> Rig {
    let mut rig = Rig::idle(size, shape);
    rig.watch_processor();
    rig
}

/// All jobs come one after the other, and then all expire at the same moment.
fn comes_and_expires(size: Size) -> Vec<Case> {
    let [mut comes, mut expires] = [Case::new("all come, one by one"), Case::new("all expire at once")];
    let mut jumps = Case::new("the clock jumps: all have expired");
    let mut rig = watched(size, Shape { ttl: MINUTE, ..Shape::default() });
    rig.fill(size.jobs, |timed| comes.add(timed));
    passes(&mut rig, MINUTE, &mut expires);
    while rig.waiting() > 0 {
        expires.add(rig.pass(TICK));
        while rig.leave().is_some() {}
    }
    rig.fill(size.jobs / 10, |_| {});
    jumps.add(rig.pass(MINUTE));
    while rig.waiting() > 0 {
        jumps.add(rig.pass(TICK));
        while rig.leave().is_some() {}
    }
    vec![comes, expires, jumps]
}

/// A span passes tick by tick, as it does on a box that doesn't sleep.
fn passes(rig: &mut Rig, span: Span, case: &mut Case) {
    for _ in 0..span.0 / TICK.0 {
        case.add(rig.pass(TICK));
    }
}

/// All are batch jobs, and all come to compete as standard ones at the same moment.
fn ages(size: Size) -> Vec<Case> {
    let mut case = Case::new("all batch jobs age at once");
    let mut rig = watched(size, Shape { tier: Tier::Batch, batch_age: MINUTE, ..Shape::default() });
    rig.fill(size.jobs, |_| {});
    passes(&mut rig, Span::from_secs(120), &mut case);
    for _ in 0..TURNS {
        case.add(rig.complete_any());
        rig.accept_newest().into_iter().for_each(|timed| case.add(timed));
        rig.leave().into_iter().for_each(|timed| case.add(timed));
        case.add(rig.pass(TICK));
    }
    vec![case]
}

/// Everything is paused, a quarter of the slots comes free, and everything goes on.
fn pauses(size: Size) -> Vec<Case> {
    let [mut pause, mut resume] = [Case::new("the tier is paused"), Case::new("the tier goes on")];
    let mut rig = watched(size, Shape::default());
    rig.fill(size.jobs, |_| {});
    for _ in 0..20 {
        pause.add(rig.operate(Command::Pause(Scope::Tier(Tier::Standard))));
        for _ in 0..rig.slots() / 4 {
            rig.complete_any();
            rig.leave();
        }
        resume.add(rig.operate(Command::Resume(Scope::Tier(Tier::Standard))));
        for _ in 0..100 {
            resume.add(rig.pass(TICK));
        }
        rig.fill(size.jobs, |_| {});
    }
    vec![pause, resume]
}

/// Every job failed on the same node, and waits for another.
fn avoids(size: Size) -> Vec<Case> {
    let mut cases = [
        Case::new("every job avoids a node: fails there"),
        Case::new("every job avoids a node: waits again"),
        Case::new("every job avoids a node: the next ones run"),
    ];
    let [fails, again, run] = &mut cases;
    let mut rig = watched(size, Shape::default());
    while rig.running() < rig.slots() * 9 / 10 {
        let submission = rig.submission();
        rig.submit(submission);
    }
    let busy = rig.waiting();
    // The box's own node is never excluded for what fails there.
    let offers = rig.models().iter().map(|model| ModelOffer::warm(model.clone(), 4)).collect();
    rig.join_box(offers);
    for _ in 0..size.jobs {
        let submission = rig.submission();
        let submitted = rig.submit(submission);
        if submitted.placed > 0 && rig.newest_is_on(&NodeId::local()) {
            rig.accept_newest();
            fails.add(rig.fail_newest());
            rig.revoke().into_iter().for_each(|timed| fails.add(timed));
        }
    }
    again.add(rig.pass(Span::from_secs(1)));
    for _ in 0..size.jobs / 128 {
        again.add(rig.pass(TICK));
    }
    assert!(rig.waiting() >= busy, "jobs that failed wait again");
    turns(&mut rig, run);
    cases.into()
}

/// Every job may only run on one node, which is busy, while all others idle; and ordinary jobs come and go.
fn needs_one(size: Size) -> Vec<Case> {
    let mut cases = [
        Case::new("every job needs one busy node: they come"),
        Case::new("every job needs one busy node: ticks"),
        Case::new("every job needs one busy node: others come and go"),
    ];
    let [come, ticks, others] = &mut cases;
    let mut rig = watched(size, Shape::default());
    let node = rig.node(0);
    for _ in 0..size.jobs {
        let mut submission = rig.submission_of(0);
        submission.spec.constraints.allow = vec![node.clone()];
        come.add(rig.submit(submission));
    }
    for _ in 0..TURNS / 10 {
        ticks.add(rig.pass(TICK));
    }
    for _ in 0..TURNS {
        let submission = rig.submission();
        others.add(rig.submit(submission));
        others.add(rig.complete_any());
        rig.leave();
        others.add(rig.pass(Span::from_ms(1)));
    }
    cases.into()
}

/// The first job of a kind that all nodes could run.
fn lane_begins(size: Size) -> Vec<Case> {
    let mut case = Case::new("a lane begins that all nodes serve");
    let mut rig = watched(Size { lanes: 1, ..size }, Shape::default());
    for memory_bytes_min in 0..20 {
        let mut submission = rig.submission();
        submission.spec.constraints.memory_bytes_min = memory_bytes_min;
        case.add(rig.submit(submission));
    }
    vec![case]
}

fn turns(rig: &mut Rig, case: &mut Case) {
    for _ in 0..TURNS {
        case.add(rig.complete_any());
        rig.accept_newest().into_iter().for_each(|timed| case.add(timed));
        rig.leave();
        case.add(rig.pass(Span::from_ms(1)));
    }
}
