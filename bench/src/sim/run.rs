//! Runs seeds on several threads, gathers what they showed, and says so. The verdict is the exit status.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use switchbox::coordinator::mutant::{Mutant, plant};

use super::coverage::Coverage;
use super::demands::demands;
use super::fair;
use super::generate::{Timed, actions};
use super::hash::EffectHash;
use super::operator::since_start;
use super::oracle::Violation;
use super::scene::Scene;
use super::shrink::shrink;
use super::world::{Outcome, World};

/// Every so many seeds, one is run a second time, to compare the hashes.
const REPEATED_SEEDS: u64 = 50;
/// Every so many seeds, the fairness scenario runs too.
const FAIR_SEEDS: u64 = 16;
/// Failing seeds that are told in full.
const FAILURES_TOLD_MAX: usize = 3;

/// Which seeds to run, and on how many threads.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    /// The first.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// On so many threads.
    pub threads: usize,
}

/// A seed that broke a promise.
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) violation: Violation,
}

/// What many seeds showed.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) coverage: Coverage,
    pub(crate) failures: Vec<Failure>,
    pub(crate) steps: u64,
    pub(crate) steps_least: Option<u64>,
    pub(crate) seeds: u64,
}

/// One run of a list of actions; a panic of the core is a violation like any other.
pub(crate) fn trial(scene: &Scene, list: &[Timed]) -> Outcome {
    let run = catch_unwind(AssertUnwindSafe(|| World::new(scene, list).run()));
    run.unwrap_or_else(|panic| panicked(panic.as_ref()))
}

pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Outcome {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    let detail = format!("{text} ({})", PANICKED_AT.take());
    Outcome {
        violations: vec![Violation { line: "the core doesn't panic".to_owned(), detail }],
        hash: EffectHash::new(),
        steps: 0,
        coverage: Coverage::default(),
        diary: Vec::new(),
    }
}

/// Runs one seed whole.
fn run_seed(seed: u64) -> Outcome {
    let scene = Scene::new(seed);
    let list = actions(&scene);
    let mut outcome = trial(&scene, &list);
    if seed.is_multiple_of(REPEATED_SEEDS) && outcome.violations.is_empty() {
        let again = trial(&scene, &list);
        outcome.coverage.count("world", "seeds run twice");
        if again.hash != outcome.hash {
            let detail = format!("{:x} and {:x}", outcome.hash.0, again.hash.0);
            outcome
                .violations
                .push(Violation { line: "the same seed gives the same effects".to_owned(), detail });
        }
    }
    if seed.is_multiple_of(FAIR_SEEDS) && outcome.violations.is_empty() {
        let fair = catch_unwind(AssertUnwindSafe(|| fair::run(seed)));
        let fair = fair.unwrap_or_else(|panic| panicked(panic.as_ref()));
        outcome.coverage.merge(&fair.coverage);
        outcome.violations.extend(fair.violations);
    }
    outcome
}

impl Tally {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.coverage.merge(&outcome.coverage);
        self.steps += outcome.steps;
        self.seeds += 1;
        self.steps_least = Some(self.steps_least.map_or(outcome.steps, |least| least.min(outcome.steps)));
        if let Some(violation) = outcome.violations.into_iter().next() {
            self.failures.push(Failure { seed, violation });
        }
    }
}

impl Tally {
    /// Which promises were broken, by how many seeds, and by which first.
    fn by_line(&self) -> Vec<String> {
        let mut lines: BTreeMap<&str, (u64, &Failure)> = BTreeMap::new();
        for failure in &self.failures {
            lines.entry(&failure.violation.line).or_insert((0, failure)).0 += 1;
        }
        let told = |(line, (count, first)): (&str, (u64, &Failure))| {
            format!("broken by {count} seeds: {line}; first by {}: {}", first.seed, first.violation.detail)
        };
        lines.into_iter().map(told).collect()
    }
}

/// Whether to go on after a seed failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtFailure {
    GoOn,
    Stop,
}

/// Runs seeds on several threads, each with the bug planted, if there is one.
pub(crate) fn sweep(seeds: Seeds, mutant: Option<Mutant>, at_failure: AtFailure) -> Tally {
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..seeds.threads {
            scope.spawn(|| {
                plant(mutant);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let failed = !tally.lock().expect("no thread panics with it").failures.is_empty();
                    if number >= seeds.count || (failed && at_failure == AtFailure::Stop) {
                        return;
                    }
                    let outcome = run_seed(seeds.from + number);
                    if at_failure == AtFailure::GoOn && mutant.is_none() {
                        warn(seeds.from + number, &outcome);
                    }
                    tally.lock().expect("no thread panics with it").add(seeds.from + number, outcome);
                }
            });
        }
    });
    let mut tally = tally.into_inner().expect("no thread panics with it");
    tally.failures.sort_by_key(|failure| failure.seed);
    tally
}

/// Says at once that a seed failed: a long run tells the rest at its end.
fn warn(seed: u64, outcome: &Outcome) {
    if let Some(violation) = outcome.violations.first() {
        eprintln!("seed {seed} broke: {}", violation.line);
    }
}

/// Runs seeds and says what they showed.
///
/// # Errors
/// When a seed broke a promise, or the run covered too little.
pub fn run(seeds: Seeds, mutant: Option<Mutant>) -> Result<(), String> {
    quiet_panics();
    let started = Instant::now();
    let tally = sweep(seeds, mutant, AtFailure::GoOn);
    let mut out = std::io::stdout().lock();
    let mut say = |line: &str| writeln!(out, "{line}").map_err(|error| error.to_string());
    tally.coverage.table().iter().try_for_each(|line| say(line))?;
    let (took, least) = (started.elapsed(), tally.steps_least.unwrap_or(0));
    say(&format!("{} seeds, {} events ({least} at least), in {took:.1?}", tally.seeds, tally.steps))?;
    tally.by_line().iter().try_for_each(|line| say(line))?;
    // A planted bug is meant to be found; who wants to see how, replays the seed with it.
    let told = if mutant.is_none() { FAILURES_TOLD_MAX } else { 0 };
    for failure in tally.failures.iter().take(told) {
        tell(failure).iter().try_for_each(|line| say(line))?;
    }
    let mut missing = tally.coverage.missing(&demands());
    missing.extend(tally.coverage.rare("invariants"));
    missing.iter().try_for_each(|line| say(&format!("not covered: {line}")))?;
    if !tally.failures.is_empty() {
        return Err(format!("{} of {} seeds broke a promise", tally.failures.len(), tally.seeds));
    }
    // A handful of seeds is a look, not a proof.
    if seeds.count >= COVERING_SEEDS && !missing.is_empty() {
        return Err(format!("{} things were covered too little", missing.len()));
    }
    Ok(())
}

/// Seeds from which on everything must have been covered.
const COVERING_SEEDS: u64 = 500;

fn tell(failure: &Failure) -> Vec<String> {
    let Failure { seed, violation } = failure;
    let scene = Scene::new(*seed);
    let list = actions(&scene);
    let shown = shrink(&scene, list, &violation.line);
    let detail =
        trial(&scene, &shown).violations.into_iter().next().unwrap_or_else(|| violation.clone()).detail;
    let mut lines = vec![
        format!("seed {seed} broke: {}", violation.line),
        format!("  {}", violation.detail),
        format!("  shrunk to {} actions: {detail}", shown.len()),
    ];
    lines.extend(
        shown.iter().take(40).map(|(at, action)| format!("    {:>6} ms  {action:?}", since_start(*at))),
    );
    lines.push(format!("  replay: cargo run -p switchbox-bench --release -- sim --replay {seed}"));
    lines
}

/// Runs one seed and tells what broke, with all its values.
///
/// # Errors
/// When it broke a promise.
pub fn replay(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    quiet_panics();
    plant(mutant);
    let outcome = run_seed(seed);
    let mut out = std::io::stdout().lock();
    let mut say = |line: &str| writeln!(out, "{line}").map_err(|error| error.to_string());
    say(&format!("seed {seed}: {} events, effects hash to {:016x}", outcome.steps, outcome.hash.0))?;
    outcome.violations.iter().try_for_each(|v| say(&format!("  {}: {}", v.line, v.detail)))?;
    match outcome.violations.into_iter().next() {
        None => Ok(()),
        Some(violation) => {
            let scene = Scene::new(seed);
            let list = actions(&scene);
            let again = catch_unwind(AssertUnwindSafe(|| World::new(&scene, &list).with_diary().run()));
            again.map(|told| told.diary).unwrap_or_default().iter().try_for_each(|line| say(line))?;
            tell(&Failure { seed, violation }).iter().try_for_each(|line| say(line))?;
            Err(format!("seed {seed} broke a promise"))
        }
    }
}

thread_local! {
    /// Where the thread's last panic was.
    static PANICKED_AT: std::cell::Cell<String> = const { std::cell::Cell::new(String::new()) };
}

/// A panic of the core is reported with its seed; the default report of every one would drown that.
pub(crate) fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANICKED_AT.set(info.location().map(ToString::to_string).unwrap_or_default());
    }));
}
