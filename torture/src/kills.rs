//! The kill loop: load, `kill -9` right after an acknowledgement with work in flight, restart, check.

use std::path::Path;
use std::time::Instant;

use crate::again::say_again;
use crate::choices::Choices;
use crate::client::{Cancel, Client, Job, Keyed};
use crate::finding::{End, Finding, Kind};
use crate::judge::{Upto, judge};
use crate::load::{self, Until};
use crate::online;
use crate::process::{Running, Setup};
use crate::recording::Counters;
use crate::report::{Report, Voice};
use crate::rows::{Facts, Rows};
use crate::scratch::{On, Scratch, copy_all};
use switchbox_storage::StateKind;

/// A kill counts as right after an acknowledgement within this.
const RIGHT_AFTER_US: u64 = 5_000;
/// So many of them must be, or the rig proves less than it says.
const RIGHT_AFTER_PERCENT: u64 = 90;
/// The share that each kind of acknowledgement must have.
const LEAST_PERCENT: u64 = 10;
/// Fewer than so many kills have no shares.
const FEW: u64 = 20;
/// Jobs of earlier rounds that are asked for again after each kill.
const SAMPLE: usize = 20;
/// Requests with a key that are sent again after each kill.
const SAID_AGAIN: usize = 10;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Kills in all.
    pub kills: u64,
    /// Kills of one directory, before a new one is begun.
    pub kills_per_directory: u64,
    /// Acknowledgements before a kill, at least and at most.
    pub acknowledgements: (u64, u64),
    /// Clients at once.
    pub threads: usize,
    /// When to begin no further kill.
    pub until: Option<Instant>,
    /// When to end before that: a box of the product ends it with the first thing that is found.
    pub end: End,
    /// Where the directories lie.
    pub on: On,
    /// What the choices follow from.
    pub seed: u64,
}

/// Runs it with a box's program, and variables for it.
pub fn run(binary: &Path, variables: &[(String, String)], plan: &Plan) -> Report {
    let voice = if plan.end == End::Whole { Voice::Loud } else { Voice::Quiet };
    let (mut report, begun) = Report::begin("kills", voice);
    let mut choices = Choices::new(plan.seed);
    let over = |report: &Report| {
        report.counted("kills") >= plan.kills
            || plan.end == End::Whole && !report.found.is_empty()
            || report.met(plan.end).is_some()
            || plan.until.is_some_and(|until| Instant::now() >= until)
    };
    while !over(&report) {
        let scratch = Scratch::new(plan.on);
        let mut setup = Setup::new(binary, &scratch.join("data"));
        setup.variables.extend_from_slice(variables);
        let mut series = Series { setup: &setup, client: Client::default(), checked: Vec::new() };
        if let Err(wrong) = series.prepare() {
            report.find("a first start", &[wrong]);
            break;
        }
        for round in 0..plan.kills_per_directory {
            if over(&report) {
                break;
            }
            series.round(round, plan, &mut choices, &mut report);
        }
        series.end(&scratch, &mut report);
        report.mix = report.mix.plus(series.client.entries().mix);
        // Of a box with a bug planted nobody wants to see it.
        if !report.found.is_empty() && variables.is_empty() {
            println!("the directory is kept: {}", scratch.keep().display());
        }
    }
    let (kills, right_after) = (report.counted("kills"), report.counted("within 5 ms"));
    if kills >= FEW && right_after * 100 < kills * RIGHT_AFTER_PERCENT {
        report.find("the rig", &[Kind::Rig.says("too few kills came right after an acknowledgement")]);
    }
    if report.mix.total() >= FEW * 100 && report.mix.least_percent() < LEAST_PERCENT {
        report.find("the rig", &[Kind::Rig.says("one kind of acknowledgement is too rare")]);
    }
    report.end(begun)
}

/// One directory and what clients know of it.
struct Series<'a> {
    setup: &'a Setup,
    client: Client,
    /// Jobs that had ended as they should.
    checked: Vec<String>,
}

/// What it is that a box doesn't answer: it ended, or it is there and doesn't.
pub fn silent(running: Running, error: &std::io::Error) -> Finding {
    let said = running.said();
    let alive = || Kind::Wrong.says(format!("the box is there and doesn't answer: {error}: {said}"));
    running.kill().err().unwrap_or_else(alive)
}

/// Some of the requests with a key that were acknowledged, the newest first; no others than those whose jobs weren't
/// cancelled, for that frees the key.
pub fn some_keyed(entries: &crate::client::Entries, most: usize, choices: &mut Choices) -> Vec<Keyed> {
    let lives =
        |keyed: &&Keyed| entries.jobs.get(&keyed.id).is_some_and(|job| job.cancel == Cancel::NotAsked);
    let newest = entries.keyed.iter().rev().filter(lives).take(most / 2);
    let mut some: Vec<Keyed> = newest.cloned().collect();
    for _ in 0..most - some.len() {
        if !entries.keyed.is_empty() {
            some.extend(Some(choices.one_of(&entries.keyed)).filter(lives).cloned());
        }
    }
    some
}

impl Series<'_> {
    fn prepare(&self) -> Result<(), Finding> {
        let running = self.setup.start().map_err(|not_up| not_up.finding())?;
        match load::set_prices(&running) {
            Ok(()) => running.kill(),
            Err(error) => Err(silent(running, &error)),
        }
    }

    fn round(&mut self, round: u64, plan: &Plan, choices: &mut Choices, report: &mut Report) {
        report.count("kills", 1);
        let trial = format!("round {round}");
        let running = match self.setup.start() {
            Ok(running) => running,
            Err(not_up) => return report.find(&trial, &[not_up.finding()]),
        };
        report.count("ms of starts", running.start_took.as_millis() as u64);
        let (least, most) = plan.acknowledgements;
        let target = least + choices.below((most - least + 1) as usize) as u64;
        match self.check(&running, choices, report) {
            Ok(wrong) => report.find(&trial, &wrong),
            Err(error) => return report.find(&trial, &[silent(running, &error)]),
        }
        let counters = Counters::none();
        let ended =
            load::run(&running, &self.client, &counters, plan.threads, Until::Killed(target), choices);
        if let Some(died) = running.kill().err().or_else(|| ended.finding()) {
            return report.find(&trial, &[died]);
        }
        report.count("within 5 ms", u64::from((1..=RIGHT_AFTER_US).contains(&ended.after_us)));
        report.count("with work in flight", u64::from(ended.in_flight > 0));
    }

    /// Looks at everything since the last look, and at some of what was before.
    fn check(
        &mut self,
        running: &Running,
        choices: &mut Choices,
        report: &mut Report,
    ) -> std::io::Result<Vec<Finding>> {
        let keyed = some_keyed(&self.client.entries(), SAID_AGAIN, choices);
        report.count("keys said again", keyed.len() as u64);
        let mut wrong = say_again(running, &self.client, &Counters::none(), &keyed)?;
        wrong.extend(online::settle(running, &self.client, &Counters::none())?);
        let jobs = self.client.entries().jobs.clone();
        let checked: std::collections::BTreeSet<&String> = self.checked.iter().collect();
        let mut looked: Vec<(String, Job)> = jobs
            .iter()
            .filter(|(id, _)| !checked.contains(id))
            .map(|(id, job)| (id.clone(), job.clone()))
            .collect();
        let fresh: Vec<String> = looked.iter().map(|(id, _)| id.clone()).collect();
        for _ in 0..SAMPLE.min(self.checked.len()) {
            let id = choices.one_of(&self.checked);
            looked.extend(jobs.get(id).map(|job| (id.clone(), job.clone())));
        }
        wrong.extend(judge_jobs(running, &looked)?);
        wrong.extend(online::judge_box(running)?);
        self.checked.extend(fresh);
        Ok(wrong)
    }

    /// The last look: by the library, at everything, from the state store and from a replay into memory.
    fn end(&mut self, scratch: &Scratch, report: &mut Report) {
        let dir = self.setup.data.join("store");
        let wrong = rows_of_both(&dir, &scratch.join("copy"))
            .and_then(|rows| Ok(judge(&facts_of(&rows)?, &self.client.entries(), Upto::Now)));
        report.find("at the end", &wrong.unwrap_or_else(|wrong| wrong));
        report.count("directories", 1);
    }
}

/// Asks for jobs over a few connections.
fn judge_jobs(running: &Running, jobs: &[(String, Job)]) -> std::io::Result<Vec<Finding>> {
    const CONNECTIONS: usize = 4;
    let share = jobs.len().div_ceil(CONNECTIONS).max(1);
    let found: Vec<std::io::Result<Vec<Finding>>> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            jobs.chunks(share).map(|part| scope.spawn(|| online::judge_jobs(running, part))).collect();
        asking.into_iter().map(|asked| asked.join().expect("judging doesn't panic")).collect()
    });
    let mut wrong = Vec::new();
    for part in found {
        wrong.extend(part?);
    }
    Ok(wrong)
}

/// The rows of a closed store: of its state store, and of a replay into memory, which must be the same.
///
/// # Errors
/// With what is wrong.
pub fn rows_of_both(dir: &Path, scratch: &Path) -> Result<Rows, Vec<Finding>> {
    let rig = |error: std::io::Error| vec![Kind::Rig.says(error.to_string())];
    // A cut may come before there is a store.
    std::fs::create_dir_all(dir).map_err(rig)?;
    copy_all(dir, scratch).map_err(rig)?;
    let replayed = Rows::open(scratch, StateKind::Memory);
    let _ = std::fs::remove_dir_all(scratch);
    let refused = |what, error| vec![Kind::Unopened.says(format!("{what} is refused: {error}"))];
    let replayed = replayed.map_err(|error| refused("a replay into memory", error))?;
    let rows = Rows::open(dir, StateKind::Sled).map_err(|error| refused("a start", error))?;
    let payloads = rows.refused.values().chain(replayed.refused.values());
    let mut wrong: Vec<Finding> = payloads.map(|refused| Kind::Lost.says(refused)).collect();
    if rows.values != replayed.values {
        let differ = rows.differences(&replayed).join(", ");
        wrong.push(Kind::Wrong.says(format!("the state isn't what a replay gives: {differ}")));
    }
    if wrong.is_empty() { Ok(rows) } else { Err(wrong) }
}

/// What the rows say.
///
/// # Errors
/// When one can't be decoded.
pub fn facts_of(rows: &Rows) -> Result<Facts, Vec<Finding>> {
    Facts::of(rows).map_err(|error| vec![Kind::Wrong.says(format!("a row can't be decoded: {error}"))])
}
