//! What each kind of step costs in a world of some size.

use std::time::Duration;

use switchbox::coordinator::command::{Command, Scope};
use switchbox::time::Span;

use crate::rig::{BODY_BYTES, Rig, Shape, Size};
use crate::stats::{Times, resident_bytes};

/// Rounds that a saturated world is measured for.
const ROUNDS: usize = 20_000;
/// Rounds that a half idle world is measured for.
const IDLE_ROUNDS: usize = 10_000;
/// Jobs that end without another being placed, in all.
const LONE_ENDS: usize = 4_000;

/// What the steps of one world took.
#[derive(Debug, Default)]
pub struct Costs {
    /// A job ends, and the next one is placed on its node.
    pub complete_and_place: Times,
    /// A job ends while everything that waits is paused.
    pub complete: Times,
    /// A job comes while every slot is taken.
    pub submit_queued: Times,
    /// A job comes while half of the slots are free, and is placed at once.
    pub submit_placed: Times,
    /// A job ends where nothing waits.
    pub complete_idle: Times,
    /// A node begins.
    pub accepted: Times,
    /// A client leaves with its answer.
    pub leave: Times,
    /// A node is heard of.
    pub heartbeat: Times,
    /// A tick with nothing special to do.
    pub tick: Times,
    /// The steps that brought the jobs.
    pub fill: Times,
    /// Memory that a waiting job takes beyond its body.
    pub bytes_per_job: u64,
}

impl Costs {
    /// What placing the next job adds to the end of a job, in nanoseconds.
    pub fn placement(&mut self) -> u64 {
        self.complete_and_place.median().saturating_sub(self.complete.median())
    }

    /// What placing it adds to a submit, in nanoseconds.
    pub fn placement_at_once(&mut self) -> u64 {
        self.submit_placed.median().saturating_sub(self.submit_queued.median())
    }
}

/// Measures a world of that size.
pub fn measure(size: Size) -> Costs {
    let mut costs = Costs::default();
    measure_half_idle(size, &mut costs);
    let mut rig = Rig::idle(size, Shape::default());
    rig.fill(0, |_| {});
    while rig.running() < rig.slots() && rig.waiting() < u64::from(size.jobs) / 4 {
        let submission = rig.submission();
        rig.submit(submission);
    }
    let (before, waiting) = (resident_bytes(), rig.waiting());
    rig.fill(size.jobs, |timed| costs.fill.add(timed.took));
    let more = rig.waiting() - waiting;
    let grown = resident_bytes().saturating_sub(before).checked_div(more).unwrap_or(0);
    costs.bytes_per_job = grown.saturating_sub(BODY_BYTES as u64);
    for round in 0..ROUNDS {
        measure_round(&mut rig, round, &mut costs);
    }
    measure_lone_ends(&mut rig, size, &mut costs);
    costs
}

fn measure_round(rig: &mut Rig, round: usize, costs: &mut Costs) {
    let ended = rig.complete_any();
    if ended.placed == 1 {
        costs.complete_and_place.add(ended.took);
    }
    if let Some(accepted) = rig.accept_newest() {
        costs.accepted.add(accepted.took);
    }
    if let Some(left) = rig.leave() {
        costs.leave.add(left.took);
    }
    let submission = rig.submission();
    let submitted = rig.submit(submission);
    if submitted.placed == 0 {
        costs.submit_queued.add(submitted.took);
    }
    costs.heartbeat.add(rig.heartbeat().took);
    rig.wait(Span(100));
    if round.is_multiple_of(100) {
        costs.tick.add(rig.pass(Span(0)).took);
    }
}

/// Ends jobs while the others are paused, a few at a time: then those go on.
fn measure_lone_ends(rig: &mut Rig, size: Size, costs: &mut Costs) {
    let at_once = (rig.running() / 4).clamp(1, 1_000);
    while costs.complete.len() < LONE_ENDS {
        rig.operate(Command::Pause(Scope::Tier(switchbox::coordinator::event::Tier::Standard)));
        for _ in 0..at_once {
            costs.complete.add(rig.complete_any().took);
        }
        while rig.leave().is_some() {}
        rig.operate(Command::Resume(Scope::Tier(switchbox::coordinator::event::Tier::Standard)));
        for _ in 0..100 {
            rig.pass(Span::from_ms(10));
        }
        rig.fill(size.jobs, |_| {});
    }
}

fn measure_half_idle(size: Size, costs: &mut Costs) {
    let mut rig = Rig::idle(size, Shape::default());
    while rig.running() < rig.slots() / 2 {
        let submission = rig.submission();
        rig.submit(submission);
    }
    for _ in 0..IDLE_ROUNDS {
        let submission = rig.submission();
        let submitted = rig.submit(submission);
        if submitted.placed == 1 {
            costs.submit_placed.add(submitted.took);
            rig.accept_newest();
        }
        let ended = rig.complete_any();
        if ended.placed == 0 {
            costs.complete_idle.add(ended.took);
        }
        while rig.leave().is_some() {}
        rig.wait(Span(100));
    }
}

/// How long a world is measured, for the machine's own hiccups to be measured beside it.
pub fn length(costs: &Costs) -> Duration {
    Duration::from_micros(10 * (costs.complete_and_place.len() as u64).max(1_000))
}
