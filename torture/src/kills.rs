//! The kill loop: load, `kill -9` right after an acknowledgement with work in flight, restart, check.

use std::path::Path;
use std::time::Instant;

use crate::choices::Choices;
use crate::client::{Client, Job};
use crate::judge::{Upto, judge};
use crate::load::{self, Until};
use crate::online;
use crate::process::{NotUp, Running, Setup};
use crate::recording::Counters;
use crate::report::Report;
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
    /// Where the directories lie.
    pub on: On,
    /// What the choices follow from.
    pub seed: u64,
}

/// Runs it with a box's program, and variables for it.
pub fn run(binary: &Path, variables: &[(String, String)], plan: &Plan) -> Report {
    let (mut report, begun) = Report::begin("kills");
    let mut choices = Choices::new(plan.seed);
    let over = |report: &Report| {
        report.counted("kills") >= plan.kills
            || !report.found.is_empty()
            || plan.until.is_some_and(|until| Instant::now() >= until)
    };
    while !over(&report) {
        let scratch = Scratch::new(plan.on);
        let mut setup = Setup::new(binary, &scratch.join("data"));
        setup.variables.extend_from_slice(variables);
        let mut series = Series { setup: &setup, client: Client::default(), checked: Vec::new() };
        if let Err(problem) = series.prepare() {
            report.find("a first start", &[problem]);
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
        report.find("the rig", &["too few kills came right after an acknowledgement".to_owned()]);
    }
    if report.mix.total() >= FEW * 100 && report.mix.least_percent() < LEAST_PERCENT {
        report.find("the rig", &["one kind of acknowledgement is too rare".to_owned()]);
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

/// What a start that failed is worth telling.
pub fn told(not_up: &NotUp) -> String {
    format!("the box didn't come up ({:?}): {}", not_up.status, not_up.said)
}

impl Series<'_> {
    fn prepare(&self) -> Result<(), String> {
        let running = self.setup.start().map_err(|not_up| told(&not_up))?;
        load::set_prices(&running).map_err(|error| error.to_string())
    }

    fn round(&mut self, round: u64, plan: &Plan, choices: &mut Choices, report: &mut Report) {
        let running = match self.setup.start() {
            Ok(running) => running,
            Err(not_up) => return report.find(&format!("round {round}"), &[told(&not_up)]),
        };
        report.count("ms of starts", running.start_took.as_millis() as u64);
        let (least, most) = plan.acknowledgements;
        let target = least + choices.below((most - least + 1) as usize) as u64;
        match self.check(&running, choices) {
            Ok(wrong) => report.find(&format!("round {round}"), &wrong),
            Err(error) => report.find(&format!("round {round}"), &[format!("{error}: {}", running.said())]),
        }
        let counters = Counters::none();
        let kill = load::run(&running, &self.client, &counters, plan.threads, Until::Killed(target), choices);
        running.kill();
        report.count("kills", 1);
        report.count("within 5 ms", u64::from((1..=RIGHT_AFTER_US).contains(&kill.after_us)));
        report.count("with work in flight", u64::from(kill.in_flight > 0));
    }

    /// Looks at everything since the last look, and at some of what was before.
    fn check(&mut self, running: &Running, choices: &mut Choices) -> std::io::Result<Vec<String>> {
        let mut wrong = online::settle(running, &self.client, &Counters::none())?;
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
        let wrong = rows_of_both(&dir, &scratch.join("copy")).and_then(|rows| {
            let facts = Facts::of(&rows).map_err(|error| vec![error.to_string()])?;
            Ok(judge(&facts, &self.client.entries(), Upto::Now))
        });
        report.find("at the end", &wrong.unwrap_or_else(|wrong| wrong));
        report.count("directories", 1);
    }
}

/// Asks for jobs over a few connections.
fn judge_jobs(running: &Running, jobs: &[(String, Job)]) -> std::io::Result<Vec<String>> {
    const CONNECTIONS: usize = 4;
    let share = jobs.len().div_ceil(CONNECTIONS).max(1);
    let found: Vec<std::io::Result<Vec<String>>> = std::thread::scope(|scope| {
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
pub fn rows_of_both(dir: &Path, scratch: &Path) -> Result<Rows, Vec<String>> {
    // A cut may come before there is a store.
    std::fs::create_dir_all(dir).map_err(|error| vec![error.to_string()])?;
    copy_all(dir, scratch).map_err(|error| vec![error.to_string()])?;
    let replayed = Rows::open(scratch, StateKind::Memory);
    let _ = std::fs::remove_dir_all(scratch);
    let replayed = replayed.map_err(|error| vec![format!("a replay into memory is refused: {error}")])?;
    let rows =
        Rows::open(dir, StateKind::Sled).map_err(|error| vec![format!("a start is refused: {error}")])?;
    let mut wrong: Vec<String> = rows.refused.values().chain(replayed.refused.values()).cloned().collect();
    if rows.values != replayed.values {
        wrong
            .push(format!("the state isn't what a replay gives: {}", rows.differences(&replayed).join(", ")));
    }
    if wrong.is_empty() { Ok(rows) } else { Err(wrong) }
}
