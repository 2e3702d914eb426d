//! Operation points: the box is killed before its N-th operation on the data directory, or that operation fails; then
//! it is started again and looked at. Half of the boxes start in a new directory, half in one with a history.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::choices::Choices;
use crate::client::{Client, Entries};
use crate::judge::{Upto, judge};
use crate::kills::{rows_of_both, told};
use crate::load::{self, Until};
use crate::online;
use crate::process::Setup;
use crate::recording::{Counters, Plan as Failing, Recorder};
use crate::report::Report;
use crate::rows::Facts;
use crate::scratch::{On, Scratch, copy_all};
use crate::tools::Tools;

/// Acknowledgements after which a box that hasn't reached its point is left alone.
const ACKNOWLEDGEMENTS: u64 = 600;
/// Boxes at once.
const WORKERS: usize = 2;
/// Parts of the box's work, so that the rare ones aren't; none of them is any.
const PARTS: [Option<&str>; 6] =
    [None, None, Some("segment$"), Some("segment.unfinished"), Some("snapshots/"), Some("state")];
const ACTIONS: [&str; 4] = ["kill", "kill", "EIO", "ENOSPC"];

/// Which points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// So many, chosen at random.
    Some(u64),
    /// All of a start and a load, in both kinds of directory, killed; and every fourth failed both ways.
    All,
}

/// A directory with a history, and what clients know of it.
struct History {
    dir: Scratch,
    entries: Entries,
}

/// One point.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: u64,
    action: &'static str,
    /// It is the first operation from there on whose path has this part.
    on: Option<&'static str>,
    begins: Begins,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    New,
    WithHistory,
}

/// Runs it.
///
/// # Errors
/// When no history can be made.
pub fn run(tools: &Tools, which: Which, seed: u64) -> Result<Report, String> {
    let (report, begun) = Report::begin("points");
    let mut choices = Choices::new(seed);
    let history = history(tools, &mut choices)?;
    let fresh = operations(tools, None, &mut choices)?;
    let old = operations(tools, Some(&history), &mut choices)?;
    let points = points(which, (fresh, old), &mut choices);
    let (next, report) = (AtomicU64::new(0), Mutex::new(report));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (points, next, report, history) = (&points, &next, &report, &history);
            let mut choices = Choices::new(choices.number());
            let wanted = if let Which::Some(number) = which { number } else { u64::MAX };
            scope.spawn(move || {
                let is_enough = || report.lock().expect("a report doesn't panic").counted("points") >= wanted;
                while !is_enough()
                    && let Some(point) = points.get(next.fetch_add(1, Ordering::SeqCst) as usize)
                {
                    let trial = try_point(tools, *point, history, &mut choices);
                    let mut report = report.lock().expect("a report doesn't panic");
                    match trial {
                        Ok(trial) => report.add(trial),
                        Err(problem) => report.find(&format!("{point:?}"), &[problem]),
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().expect("a report doesn't panic");
    report.count("operations of a new directory's run", fresh);
    report.count("operations of an old one's", old);
    Ok(report.end(begun))
}

fn points(which: Which, (fresh, old): (u64, u64), choices: &mut Choices) -> Vec<Point> {
    let range = |begins| if begins == Begins::New { fresh } else { old };
    match which {
        // Some aren't reached.
        Which::Some(number) => (0..2 * number)
            .map(|n| {
                let begins = if n % 2 == 0 { Begins::New } else { Begins::WithHistory };
                let on = *choices.one_of(&PARTS);
                // The first operations are a start's, and there are few of them.
                let among = if n % 4 < 2 { range(begins).min(150) } else { range(begins) };
                let at = 1 + choices.below(among as usize) as u64;
                Point { at, action: ACTIONS[choices.below(ACTIONS.len())], on, begins }
            })
            .collect(),
        Which::All => [Begins::New, Begins::WithHistory]
            .into_iter()
            .flat_map(|begins| (1..=range(begins)).map(move |at| (at, begins)))
            .flat_map(|(at, begins)| {
                let actions: &[&str] = if at % 4 == 0 { &["kill", "EIO", "ENOSPC"] } else { &["kill"] };
                actions.iter().map(move |action| Point { at, action, on: None, begins })
            })
            .collect(),
    }
}

fn rack(tools: &Tools, data: PathBuf) -> Setup {
    Setup::new(&tools.rack, &data).with("SWITCHBOX_SMALL_STORE", "1")
}

/// A directory with snapshots, rolled segments and ended jobs.
fn history(tools: &Tools, choices: &mut Choices) -> Result<History, String> {
    let (dir, client) = (Scratch::new(On::Memory), Client::default());
    let running = rack(tools, dir.join("data")).start().map_err(|not_up| told(&not_up))?;
    load::set_prices(&running).map_err(|error| error.to_string())?;
    load::run(&running, &client, &Counters::none(), 12, Until::Killed(2500), choices);
    running.kill();
    let entries = std::mem::take(&mut *client.entries());
    Ok(History { dir, entries })
}

/// Starts a box in a directory of the wanted kind.
struct Trial {
    scratch: Scratch,
    recorder: Recorder,
    setup: Setup,
    client: Client,
}

impl Trial {
    fn new(tools: &Tools, history: Option<&History>) -> Result<Self, String> {
        let scratch = Scratch::new(On::Memory);
        let client = Client::default();
        if let Some(history) = history {
            copy_all(&history.dir.join("data"), &scratch.join("data")).map_err(|error| error.to_string())?;
            client.goes_on(&history.entries);
        }
        let recorder = Recorder::new(&tools.recorder, scratch.path()).map_err(|error| error.to_string())?;
        let setup = rack(tools, scratch.join("data"));
        Ok(Self { scratch, recorder, setup, client })
    }

    /// Starts, loads, and ends; a box that dies on the way is what is wanted.
    fn run(&self, failing: Option<&Failing>, choices: &mut Choices) {
        let Ok(running) = self.recorder.under(self.setup.clone(), failing).start() else { return };
        if load::set_prices(&running).is_err() {
            return;
        }
        if online::settle(&running, &self.client, &Counters::none()).is_err() {
            return;
        }
        let until = Until::Acknowledged(ACKNOWLEDGEMENTS);
        load::run(&running, &self.client, &Counters::none(), 8, until, choices);
        running.kill();
    }

    fn operations(&self) -> Result<u64, String> {
        Ok(self.recorder.counters().map_err(|error| error.to_string())?.operations())
    }
}

/// How many operations a run has.
fn operations(tools: &Tools, history: Option<&History>, choices: &mut Choices) -> Result<u64, String> {
    let trial = Trial::new(tools, history)?;
    trial.run(None, choices);
    trial.operations()
}

fn try_point(
    tools: &Tools,
    point: Point,
    history: &History,
    choices: &mut Choices,
) -> Result<Report, String> {
    let (mut report, _) = Report::begin("points");
    let trial = Trial::new(tools, (point.begins == Begins::WithHistory).then_some(history))?;
    let failing = Failing { at: point.at, action: point.action, on: point.on, kind: None };
    trial.run(Some(&failing), choices);
    // What it was is told in any case: even what has no name has a directory.
    if trial.operations()? < point.at || point.on.is_some() && trial.recorder.told().is_empty() {
        report.count("not reached", 1);
        return Ok(report);
    }
    report.count("points", 1);
    report.count(part_of(&trial.recorder.told()), 1);
    let wrong = trial.judged()?;
    if !wrong.is_empty() {
        let kept = trial.scratch.keep();
        report.find(&format!("{point:?} (kept in {})", kept.display()), &wrong);
    }
    Ok(report)
}

/// Which part of the box's work an operation on this path is.
fn part_of(path: &str) -> &'static str {
    let has = |part: &str| path.contains(part);
    match () {
        () if path.ends_with(".segment") => "of commits",
        () if has("/journal") => "of segments in the making",
        () if has("/snapshots") => "of snapshots",
        () if has("/state") => "of checkpoints",
        () => "of keys and the directory",
    }
}

impl Trial {
    /// Starts it again, as it is, and looks at everything.
    fn judged(&self) -> Result<Vec<String>, String> {
        let running = match self.setup.start() {
            Ok(running) => running,
            Err(not_up) => return Ok(vec![told(&not_up)]),
        };
        let online = || -> std::io::Result<Vec<String>> {
            let mut wrong = online::settle(&running, &self.client, &Counters::none())?;
            let jobs: Vec<_> = self.client.entries().jobs.clone().into_iter().rev().take(60).collect();
            wrong.extend(online::judge_jobs(&running, &jobs)?);
            wrong.extend(online::judge_box(&running)?);
            Ok(wrong)
        };
        let mut wrong = online().map_err(|error| format!("{error}: {}", running.said()))?;
        running.kill();
        // What a killed box's threads still hold is closed with it.
        std::thread::sleep(Duration::from_millis(1));
        let rows = rows_of_both(&self.setup.data.join("store"), &self.scratch.join("copy"));
        let facts = rows.and_then(|rows| Facts::of(&rows).map_err(|error| vec![error.to_string()]));
        wrong.extend(match facts {
            Ok(facts) => judge(&facts, &self.client.entries(), Upto::Now),
            Err(wrong) => wrong,
        });
        Ok(wrong)
    }
}
