//! Power cuts: a box is recorded under load, over a kill and a restart; from its log hundreds of disks are made that a
//! cut may have left, and each must open with everything that had been acknowledged by then.
//!
//! Pairs: a sync is made to fail, which ends the box; a second one starts on what the page cache shows, goes on, and
//! then the power goes. Second cuts: a box starts on what a cut left, is recorded too, and the power goes again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::choices::Choices;
use crate::client::{Client, Entries, Job};
use crate::disk::Disk;
use crate::judge::{Upto, judge};
use crate::kills::{rows_of_both, told};
use crate::load::{self, Until};
use crate::process::Setup;
use crate::recording::{Plan as Failing, Record, Recorder};
use crate::report::Report;
use crate::rows::Facts;
use crate::scratch::{On, Scratch, copy_all, files};
use crate::tools::Tools;
use crate::{judge as verdict, online};

/// Recordings that may turn out not to fit what the box left: it was killed between an operation and its log.
const RECORDINGS_MAX: usize = 5;
/// Jobs that a real box is asked for after a cut.
const ASKED: usize = 30;
/// Acknowledgements after a cut, before the next one.
const SECOND_ACKNOWLEDGEMENTS: u64 = 150;
/// Cuts that are made of what went on after a cut.
const SECOND_CUTS: usize = 4;
/// How long a box may take to die of a failed sync.
const DEATH_PATIENCE: Duration = Duration::from_secs(20);

/// How much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Cuts in all, those of pairs included.
    pub cuts: u64,
    /// Cuts made of one recording.
    pub cuts_per_recording: u64,
    /// Pairs, each with a tenth of a recording's cuts.
    pub pairs: u64,
    /// One in so many is also opened by a real box, and one in so many has second cuts made of it.
    pub one_in: usize,
    /// Acknowledgements before each kill.
    pub acknowledgements: u64,
    /// Whether the first thing that is found ends it.
    pub end: End,
    /// What the choices follow from.
    pub seed: u64,
}

/// When a phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// When all is done.
    Whole,
    /// As soon as something is found.
    Found,
}

/// A box that was recorded, and what its clients know.
pub struct Recorded {
    /// Every operation, in order.
    pub records: Vec<Record>,
    /// What clients were told, and when.
    pub entries: Entries,
    /// The first record of the last boot.
    pub last_boot: usize,
}

/// Runs it.
///
/// # Errors
/// When no recording can be made.
pub fn run(tools: &Tools, variables: &[(String, String)], plan: &Plan) -> Result<Report, String> {
    let (mut report, begun) = Report::begin("cuts");
    let mut choices = Choices::new(plan.seed);
    let pair_cuts = (plan.cuts_per_recording / 10).max(10);
    for _ in 0..plan.pairs {
        let recorded = attempts(|| record_pair(tools, variables, plan, &mut choices))?;
        let range = recorded.last_boot..recorded.records.len();
        report.count("pairs", 1);
        cut(tools, &recorded, range, pair_cuts, plan, &mut choices, &mut report);
        if plan.end == End::Found && !report.found.is_empty() {
            return Ok(report.end(begun));
        }
    }
    while report.counted("cuts") < plan.cuts && (plan.end == End::Whole || report.found.is_empty()) {
        let recorded = attempts(|| record(tools, variables, plan, &mut choices))?;
        report.count("recordings", 1);
        let range = 0..recorded.records.len();
        let cuts = plan.cuts_per_recording.min(plan.cuts - report.counted("cuts"));
        cut(tools, &recorded, range, cuts, plan, &mut choices, &mut report);
    }
    Ok(report.end(begun))
}

fn attempts(mut record: impl FnMut() -> Result<Recorded, String>) -> Result<Recorded, String> {
    let mut problem = String::new();
    for _ in 0..RECORDINGS_MAX {
        match record() {
            Ok(recorded) => return Ok(recorded),
            Err(error) => problem = error,
        }
    }
    Err(format!("no recording could be made: {problem}"))
}

/// A box on the rack, with the recorder under it.
struct Stage {
    scratch: Scratch,
    recorder: Recorder,
    setup: Setup,
    client: Client,
}

impl Stage {
    fn new(tools: &Tools, variables: &[(String, String)]) -> Result<Self, String> {
        let scratch = Scratch::new(On::Memory);
        let recorder = Recorder::new(&tools.recorder, scratch.path()).map_err(|error| error.to_string())?;
        let mut setup = Setup::new(&tools.rack, &scratch.join("data")).with("SWITCHBOX_SMALL_STORE", "1");
        setup.variables.extend_from_slice(variables);
        Ok(Self { scratch, recorder, setup, client: Client::default() })
    }

    /// Starts, says again what has no answer, and loads until `until`.
    fn boot(&self, failing: Option<&Failing>, until: Until, choices: &mut Choices) -> Result<(), String> {
        let counters = self.recorder.counters().map_err(|error| error.to_string())?;
        let setup = self.recorder.recording(self.setup.clone(), failing);
        let mut running = setup.start().map_err(|not_up| told(&not_up))?;
        let prepared = load::set_prices(&running)
            .and_then(|()| online::settle(&running, &self.client, &counters).map(drop));
        prepared.map_err(|error| error.to_string())?;
        load::run(&running, &self.client, &counters, 12, until, choices);
        if failing.is_some() && running.wait_for(DEATH_PATIENCE).is_none() {
            return Err("a failed sync didn't end the box".to_owned());
        }
        running.kill();
        Ok(())
    }

    /// What was recorded, if it is what the box left.
    fn recorded(self, last_boot: usize) -> Result<Recorded, String> {
        let records = self.recorder.records().map_err(|error| error.to_string())?;
        self.compare(Disk::new(), &records)?;
        let entries = std::mem::take(&mut *self.client.entries());
        Ok(Recorded { records, entries, last_boot })
    }

    fn compare(&self, mut disk: Disk, records: &[Record]) -> Result<(), String> {
        records.iter().try_for_each(|record| disk.apply(record))?;
        let whole = self.scratch.join("whole");
        disk.whole(&whole).map_err(|error| error.to_string())?;
        let differ = difference(&whole, &self.setup.data).map_err(|error| error.to_string())?;
        let _ = std::fs::remove_dir_all(&whole);
        differ.map_or(Ok(()), |name| Err(format!("`{}` isn't as it was recorded", name.display())))
    }
}

/// The first file that isn't the same in both.
fn difference(a: &Path, b: &Path) -> std::io::Result<Option<PathBuf>> {
    let (in_a, in_b) = (files(a)?, files(b)?);
    let names: std::collections::BTreeSet<&PathBuf> = in_a.iter().chain(&in_b).collect();
    let differs = |name: &&&PathBuf| std::fs::read(a.join(name)).ok() != std::fs::read(b.join(name)).ok();
    Ok(names.iter().find(differs).map(|name| (*name).clone()))
}

fn record(
    tools: &Tools,
    variables: &[(String, String)],
    plan: &Plan,
    choices: &mut Choices,
) -> Result<Recorded, String> {
    let stage = Stage::new(tools, variables)?;
    stage.boot(None, Until::Killed(plan.acknowledgements), choices)?;
    let last_boot = stage.recorder.go_on().map_err(|error| error.to_string())?;
    stage.boot(None, Until::Killed(plan.acknowledgements / 2), choices)?;
    stage.recorded(last_boot)
}

fn record_pair(
    tools: &Tools,
    variables: &[(String, String)],
    plan: &Plan,
    choices: &mut Choices,
) -> Result<Recorded, String> {
    let stage = Stage::new(tools, variables)?;
    let on = *choices.one_of(&["segment$", "segment$", "segment$", "state/db"]);
    let at = 300 + choices.below(1000) as u64;
    let failing = Failing { at, action: "EIO", on: Some(on), kind: Some("sync") };
    stage.boot(Some(&failing), Until::Dead(DEATH_PATIENCE), choices)?;
    let records = stage.recorder.records().map_err(|error| error.to_string())?;
    stage.compare(Disk::new(), &records)?;
    stage.recorder.go_on().map_err(|error| error.to_string())?;
    stage.boot(None, Until::Killed(plan.acknowledgements / 10), choices)?;
    stage.recorded(records.len())
}

/// Makes cuts in a range of the records, and looks at each.
fn cut(
    tools: &Tools,
    recorded: &Recorded,
    range: std::ops::Range<usize>,
    cuts: u64,
    plan: &Plan,
    choices: &mut Choices,
    report: &mut Report,
) {
    let mut places = places(recorded, &range, cuts, choices);
    places.sort_unstable();
    let (mut disk, mut reached) = (Disk::new(), 0);
    for place in places {
        for record in &recorded.records[reached..place] {
            disk.apply(record).expect("it was compared with what the box left");
        }
        reached = place;
        let scratch = Scratch::new(On::Memory);
        let upto = Upto::Records(place as u64);
        let image = scratch.join("image");
        disk.cut(choices, &image).expect("the rig's directory can be written");
        let mut wrong = Vec::new();
        if choices.below(plan.one_in) == 0 {
            report.count("opened by a real box", 1);
            wrong.extend(open_box(tools, &scratch, recorded, upto, choices));
        }
        if choices.below(plan.one_in) == 0 {
            let again = cut_again(tools, &scratch, recorded, upto, choices, report);
            wrong.extend(again.unwrap_or_else(|problem| vec![format!("going on after it: {problem}")]));
        }
        wrong.extend(open_rows(&image, &scratch, &recorded.entries, upto));
        report.count("cuts", 1);
        report.find(&format!("cut at record {place} of {}", recorded.records.len()), &wrong);
        if plan.end == End::Found && !wrong.is_empty() {
            return;
        }
    }
}

/// Half of them at acknowledgements, half anywhere.
fn places(
    recorded: &Recorded,
    range: &std::ops::Range<usize>,
    cuts: u64,
    choices: &mut Choices,
) -> Vec<usize> {
    let jobs = recorded.entries.jobs.values().flat_map(|job| job.told.iter().map(|(_, records)| *records));
    let deposits = recorded.entries.deposits.values().filter_map(|deposit| deposit.told);
    let told: Vec<usize> =
        jobs.chain(deposits).map(|records| records as usize).filter(|at| range.contains(at)).collect();
    let place = |number: u64| {
        if number.is_multiple_of(2) && !told.is_empty() {
            *choices.one_of(&told)
        } else {
            range.start + choices.below(range.len() + 1)
        }
    };
    (0..cuts).map(place).collect()
}

/// Opened by the library, from the state store and by a replay.
fn open_rows(image: &Path, scratch: &Scratch, entries: &Entries, upto: Upto) -> Vec<String> {
    let facts = rows_of_both(&image.join("store"), &scratch.join("copy"))
        .and_then(|rows| Facts::of(&rows).map_err(|error| vec![error.to_string()]));
    match facts {
        Ok(facts) => judge(&facts, entries, upto),
        Err(wrong) => wrong,
    }
}

/// A real box starts on what the cut left, goes on for a moment, and the power goes again.
fn cut_again(
    tools: &Tools,
    scratch: &Scratch,
    recorded: &Recorded,
    upto: Upto,
    choices: &mut Choices,
    report: &mut Report,
) -> Result<Vec<String>, String> {
    let stage = Stage::new(tools, &[])?;
    let text = |error: std::io::Error| error.to_string();
    copy_all(&scratch.join("image"), &stage.setup.data).map_err(text)?;
    stage.client.goes_on(&verdict::as_of(&recorded.entries, upto));
    let mut disk = Disk::of(&stage.setup.data).map_err(text)?;
    stage.boot(None, Until::Killed(SECOND_ACKNOWLEDGEMENTS), choices)?;
    let records = stage.recorder.records().map_err(text)?;
    if stage.compare(disk.clone(), &records).is_err() {
        // Killed between an operation and its log: another one will do.
        return Ok(Vec::new());
    }
    let (mut places, mut wrong, mut reached) = (Vec::new(), Vec::new(), 0);
    places.resize_with(SECOND_CUTS, || choices.below(records.len() + 1));
    places.sort_unstable();
    for place in places {
        records[reached..place].iter().try_for_each(|record| disk.apply(record))?;
        reached = place;
        let second = stage.scratch.join("second");
        disk.cut(choices, &second).map_err(text)?;
        let found = open_rows(&second, scratch, &stage.client.entries(), Upto::Records(place as u64));
        wrong.extend(found.iter().map(|found| format!("a second cut at record {place}: {found}")));
        std::fs::remove_dir_all(&second).map_err(text)?;
        report.count("second cuts", 1);
    }
    Ok(wrong)
}

/// Opened by a real box, on a copy, and asked over HTTP.
fn open_box(
    tools: &Tools,
    scratch: &Scratch,
    recorded: &Recorded,
    upto: Upto,
    choices: &mut Choices,
) -> Vec<String> {
    let copy = scratch.join("opened");
    copy_all(&scratch.join("image"), &copy).expect("the rig's directory can be written");
    let setup = Setup::new(&tools.rack, &copy).with("SWITCHBOX_SMALL_STORE", "1");
    let running = match setup.start() {
        Ok(running) => running,
        Err(not_up) => return vec![told(&not_up)],
    };
    let mut jobs: Vec<(String, Job)> = verdict::told_by(&recorded.entries, upto);
    while jobs.len() > ASKED {
        jobs.swap_remove(choices.below(jobs.len()));
    }
    let asked = online::judge_jobs(&running, &jobs).and_then(|mut wrong| {
        wrong.extend(online::judge_box(&running)?);
        Ok(wrong)
    });
    asked.unwrap_or_else(|error| vec![format!("{error}: {}", running.said())])
}
