//! Operation points: the box is killed before its N-th operation on the data directory, or that operation fails; then
//! it is started again and looked at. Half of the boxes start in a new directory, half in one with a history.
//!
//! A box of which a write or sync of the journal fails, or of the state once it is up, must end by itself: whatever it
//! would acknowledge after that nobody could promise. One that goes on is a violation, whatever becomes of its data.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::again::say_again;
use crate::choices::Choices;
use crate::client::{Client, Entries};
use crate::finding::{End, Finding, Kind};
use crate::judge::{Upto, judge};
use crate::kills::{facts_of, rows_of_both, silent, some_keyed};
use crate::load::{self, Until};
use crate::online;
use crate::process::{Running, Setup};
use crate::recording::{Counters, Happened, Plan as Failing, Recorder};
use crate::report::{Report, Voice};
use crate::scratch::{On, Scratch, copy_all};
use crate::stage::went_on;
use crate::tools::Tools;

/// Acknowledgements of one load.
const ACKNOWLEDGEMENTS: u64 = 600;
/// Loads after which a box that hasn't reached its point is left alone.
const LOADS_MAX: usize = 3;
/// Acknowledgements that a directory with a history begins with.
const HISTORY_ACKNOWLEDGEMENTS: u64 = 2500;
/// How long a box may go on after what must end it.
const DEATH_PATIENCE: Duration = Duration::from_secs(8);
/// Requests with a key that are sent again.
const SAID_AGAIN: usize = 6;
/// Boxes at once.
const WORKERS: usize = 2;
/// Parts of the box's work, so that the rare ones aren't; none of them is any.
const PARTS: [Option<&str>; 6] =
    [None, None, Some("segment$"), Some("segment.unfinished"), Some("snapshots/"), Some("state")];
/// Two in so many points are syncs of the journal that fail, one in either kind of directory.
const FAILED_SYNC_ONE_IN: u64 = 16;
const ACTIONS: [&str; 4] = ["kill", "kill", "EIO", "ENOSPC"];

/// Which points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// So many, chosen at random.
    Some(u64),
    /// All of a start and a load, in both kinds of directory, killed; and every fourth failed both ways.
    All,
    /// So many, all of them syncs of the journal that fail.
    FailedSyncs(u64),
}

/// How much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which points.
    pub which: Which,
    /// When to end before all is done.
    pub end: End,
    /// What the choices follow from.
    pub seed: u64,
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
    /// It is the first operation from there on whose path has this part,
    on: Option<&'static str>,
    /// and that is of this kind.
    kind: Option<&'static str>,
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
/// When no history can be made, with what is wrong with it.
pub fn run(tools: &Tools, variables: &[(String, String)], plan: &Plan) -> Result<Report, Finding> {
    let voice = if plan.end == End::Whole { Voice::Loud } else { Voice::Quiet };
    let (report, begun) = Report::begin("points", voice);
    let mut choices = Choices::new(plan.seed);
    let history = history(tools, &mut choices)?;
    let fresh = operations(tools, None, &mut choices)?;
    let old = operations(tools, Some(&history), &mut choices)?;
    let points = points(plan.which, (fresh, old), &mut choices);
    let wanted = match plan.which {
        Which::Some(number) | Which::FailedSyncs(number) => number,
        Which::All => u64::MAX,
    };
    let (next, report) = (AtomicU64::new(0), Mutex::new(report));
    let enough = |report: &Report| report.counted("points") >= wanted || report.met(plan.end).is_some();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (points, next, report, history) = (&points, &next, &report, &history);
            let mut choices = Choices::new(choices.number());
            scope.spawn(move || {
                while !enough(&report.lock().expect("a report doesn't panic"))
                    && let Some(point) = points.get(next.fetch_add(1, Ordering::SeqCst) as usize)
                {
                    let trial = try_point(tools, variables, *point, history, &mut choices);
                    let mut report = report.lock().expect("a report doesn't panic");
                    match trial {
                        Ok(trial) => report.add(trial),
                        Err(problem) => {
                            let problem = Kind::Rig.says(problem.to_string());
                            report.find(&format!("{point:?}"), &[problem]);
                        }
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
    let begins = |n: u64| if n.is_multiple_of(2) { Begins::New } else { Begins::WithHistory };
    let failed_sync = |n: u64, choices: &mut Choices| {
        let at = 1 + choices.below(range(begins(n)) as usize * 3 / 4) as u64;
        Point { at, action: "EIO", on: Some("segment$"), kind: Some("sync"), begins: begins(n) }
    };
    match which {
        Which::FailedSyncs(number) => (0..2 * number).map(|n| failed_sync(n, choices)).collect(),
        // Some aren't reached.
        Which::Some(number) => (0..2 * number)
            .map(|n| {
                if n % FAILED_SYNC_ONE_IN < 2 {
                    return failed_sync(n, choices);
                }
                let on = *choices.one_of(&PARTS);
                // The first operations are a start's, and there are few of them.
                let among = if n % 4 < 2 { range(begins(n)).min(150) } else { range(begins(n)) };
                let at = 1 + choices.below(among as usize) as u64;
                let action = ACTIONS[choices.below(ACTIONS.len())];
                Point { at, action, on, kind: None, begins: begins(n) }
            })
            .collect(),
        Which::All => [Begins::New, Begins::WithHistory]
            .into_iter()
            .flat_map(|begins| (1..=range(begins)).map(move |at| (at, begins)))
            .flat_map(|(at, begins)| {
                let actions: &[&str] = if at % 4 == 0 { &["kill", "EIO", "ENOSPC"] } else { &["kill"] };
                actions.iter().map(move |action| Point { at, action, on: None, kind: None, begins })
            })
            .collect(),
    }
}

fn rack(tools: &Tools, data: PathBuf) -> Setup {
    Setup::new(&tools.rack, &data).with("SWITCHBOX_SMALL_STORE", "1")
}

/// A directory with snapshots, rolled segments and ended jobs.
fn history(tools: &Tools, choices: &mut Choices) -> Result<History, Finding> {
    let (dir, client) = (Scratch::new(On::Memory), Client::default());
    let running = rack(tools, dir.join("data")).start().map_err(|not_up| not_up.finding())?;
    if let Err(error) = load::set_prices(&running) {
        return Err(silent(running, &error));
    }
    let until = Until::Killed(HISTORY_ACKNOWLEDGEMENTS);
    let ended = load::run(&running, &client, &Counters::none(), 12, until, choices);
    running.kill()?;
    if let Some(died) = ended.finding() {
        return Err(died);
    }
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

/// How a box ended in which something was to go wrong.
enum Outcome {
    /// It didn't come to that point.
    NotReached,
    /// It did, and the box then did what it may.
    Fine(Happened),
    /// The box did what it must not.
    Wrong(Finding),
}

impl Trial {
    fn new(tools: &Tools, history: Option<&History>) -> io::Result<Self> {
        let scratch = Scratch::new(On::Memory);
        let client = Client::default();
        if let Some(history) = history {
            copy_all(&history.dir.join("data"), &scratch.join("data"))?;
            client.goes_on(&history.entries);
        }
        let recorder = Recorder::new(&tools.recorder, scratch.path())?;
        let setup = rack(tools, scratch.join("data"));
        Ok(Self { scratch, recorder, setup, client })
    }

    /// Starts and loads a box that is counted.
    fn counted(&self, choices: &mut Choices) -> Result<(), Finding> {
        let setup = self.recorder.under(self.setup.clone(), None);
        let running = setup.start().map_err(|not_up| not_up.finding())?;
        let ended = self.load(&running, Until::Acknowledged(ACKNOWLEDGEMENTS), choices);
        running.kill()?;
        ended?.finding().map_or(Ok(()), Err)
    }

    fn load(&self, running: &Running, until: Until, choices: &mut Choices) -> Result<load::Ended, Finding> {
        let settled =
            load::set_prices(running).and_then(|()| online::settle(running, &self.client, &Counters::none()));
        let wrong = settled.map_err(|error| Kind::Wrong.says(format!("the box doesn't answer: {error}")))?;
        match wrong.into_iter().next() {
            Some(wrong) => Err(wrong),
            None => Ok(load::run(running, &self.client, &Counters::none(), 8, until, choices)),
        }
    }

    /// Starts and loads a box in which something goes wrong.
    fn failing(&self, failing: &Failing, choices: &mut Choices) -> Outcome {
        let setup = self.recorder.under(self.setup.clone(), Some(failing));
        let mut running = match setup.start() {
            Ok(running) => running,
            Err(not_up) => return self.outcome(|| not_up.finding()),
        };
        let at_start = self.recorder.happened();
        let mut loaded = self.load(&running, Until::Acknowledged(ACKNOWLEDGEMENTS), choices);
        // One run groups its commits more than another: then its points come later.
        for _ in 1..LOADS_MAX {
            if self.recorder.happened().is_none() && loaded.as_ref().is_ok_and(|ended| ended.broken.is_none())
            {
                loaded = self.load(&running, Until::Acknowledged(ACKNOWLEDGEMENTS), choices);
            }
        }
        let happened = self.recorder.happened();
        if let Some(happened) = &happened
            && must_end(happened, failing.action, at_start.is_some())
        {
            // What is idle may not have noticed yet.
            if loaded.is_ok() {
                loaded = self.load(&running, Until::Dead(DEATH_PATIENCE), choices);
            }
            if running.wait_for(DEATH_PATIENCE).is_none() {
                return Outcome::Wrong(went_on(happened, failing.action));
            }
        }
        let status: Option<ExitStatus> = running.wait_for(Duration::ZERO);
        let wrong = loaded.map_or_else(Some, |ended| ended.finding());
        match (happened, status, wrong) {
            (Some(happened), ..) => Outcome::Fine(happened),
            (None, Some(status), _) => self.outcome(|| running.died(Some(status))),
            (None, None, Some(wrong)) => self.outcome(|| wrong),
            (None, None, None) => Outcome::NotReached,
        }
    }

    /// What it is that a box ended or is silent, which it may after the point.
    fn outcome(&self, wrong: impl FnOnce() -> Finding) -> Outcome {
        self.recorder.happened().map_or_else(|| Outcome::Wrong(wrong()), Outcome::Fine)
    }

    fn operations(&self) -> io::Result<u64> {
        Ok(self.recorder.counters()?.operations())
    }
}

/// Whether a box must end by itself after this has failed. A segment that has its name belongs to the journal; before
/// that it is being made, for which a full disk is waited. A state that fails while it is opened is made anew.
fn must_end(happened: &Happened, action: &str, at_start: bool) -> bool {
    let Happened { kind, path } = happened;
    let changes = kind == "sync" || kind == "write";
    match action {
        "kill" => false,
        "EIO" if path.ends_with(".segment") => true,
        _ if path.ends_with(".segment") => changes,
        _ => changes && path.ends_with("store/state/db") && !at_start,
    }
}

/// How many operations a run has.
fn operations(tools: &Tools, history: Option<&History>, choices: &mut Choices) -> Result<u64, Finding> {
    let rig = |error: io::Error| Kind::Rig.says(error.to_string());
    let trial = Trial::new(tools, history).map_err(rig)?;
    trial.counted(choices)?;
    trial.operations().map_err(rig)
}

fn try_point(
    tools: &Tools,
    variables: &[(String, String)],
    point: Point,
    history: &History,
    choices: &mut Choices,
) -> io::Result<Report> {
    let (mut report, _) = Report::begin("points", Voice::Quiet);
    let mut trial = Trial::new(tools, (point.begins == Begins::WithHistory).then_some(history))?;
    let sound = trial.setup.clone();
    trial.setup.variables.extend_from_slice(variables);
    let failing = Failing { at: point.at, action: point.action, on: point.on, kind: point.kind };
    let wrong = match trial.failing(&failing, choices) {
        Outcome::NotReached => {
            report.count("not reached", 1);
            return Ok(report);
        }
        Outcome::Wrong(wrong) => {
            report.count("points", 1);
            vec![wrong]
        }
        Outcome::Fine(happened) => {
            report.count("points", 1);
            report.count(part_of(&happened.path), 1);
            if must_end(&happened, point.action, true) {
                report.count("ended by an error of the journal", 1);
            }
            trial.setup = sound;
            trial.judged(choices, &mut report)
        }
    };
    if !wrong.is_empty() {
        // Of a box with a bug planted nobody wants to see it.
        let kept = if variables.is_empty() { trial.scratch.keep() } else { PathBuf::new() };
        report.find(&format!("{point:?} (kept in `{}`)", kept.display()), &wrong);
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
    fn judged(&self, choices: &mut Choices, report: &mut Report) -> Vec<Finding> {
        let running = match self.setup.start() {
            Ok(running) => running,
            Err(not_up) => return vec![not_up.finding()],
        };
        let keyed = some_keyed(&self.client.entries(), SAID_AGAIN, choices);
        report.count("keys said again", keyed.len() as u64);
        let online = || -> io::Result<Vec<Finding>> {
            let mut wrong = say_again(&running, &self.client, &Counters::none(), &keyed)?;
            wrong.extend(online::settle(&running, &self.client, &Counters::none())?);
            let jobs: Vec<_> = self.client.entries().jobs.clone().into_iter().rev().take(60).collect();
            wrong.extend(online::judge_jobs(&running, &jobs)?);
            wrong.extend(online::judge_box(&running)?);
            Ok(wrong)
        };
        let mut wrong = match online() {
            Ok(wrong) => wrong,
            Err(error) => return vec![silent(running, &error)],
        };
        wrong.extend(running.kill().err());
        // What a killed box's threads still hold is closed with it.
        std::thread::sleep(Duration::from_millis(1));
        let rows = rows_of_both(&self.setup.data.join("store"), &self.scratch.join("copy"));
        let facts = rows.and_then(|rows| facts_of(&rows));
        wrong.extend(
            facts.map_or_else(|wrong| wrong, |facts| judge(&facts, &self.client.entries(), Upto::Now)),
        );
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_end_a_box() {
        let must = |kind: &str, path: &str, action, at_start| {
            must_end(&Happened { kind: kind.into(), path: path.into() }, action, at_start)
        };
        let (segment, made) =
            ("store/journal/0000000007.segment", "store/journal/0000000008.segment.unfinished");
        assert!(must("sync", segment, "EIO", true) && must("write", segment, "ENOSPC", false));
        assert!(must("name", segment, "EIO", false));
        assert!(!must("name", segment, "ENOSPC", false), "a full disk is waited for");
        assert!(!must("sync", made, "ENOSPC", false));
        assert!(must("sync", "store/state/db", "EIO", false));
        assert!(!must("sync", "store/state/db", "EIO", true), "it is made anew");
        assert!(!must("sync", "store/snapshots/7.snapshot.unfinished", "EIO", false), "it isn't needed yet");
        assert!(!must("sync", segment, "kill", false), "the signal has ended it");
    }
}
