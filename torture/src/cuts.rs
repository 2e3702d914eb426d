//! Power cuts: a box is recorded under load, over a kill and a restart; from its log hundreds of disks are made that a
//! cut may have left, and each must open with everything that had been acknowledged by then.
//!
//! Pairs: a sync is made to fail, which ends the box; a second one starts on what the page cache shows, goes on, and
//! then the power goes. Second cuts: a box starts on what a cut left, is recorded too, and the power goes again.
//!
//! A recording is long enough for the journal to use segments again, whose old frames lie behind the new ones; so many
//! of the images must have such a segment torn, or the phase counts as not run.

use std::ops::Range;
use std::path::Path;

use crate::again::say_again;
use crate::choices::Choices;
use crate::client::{Entries, Job};
use crate::disk::Disk;
use crate::finding::{End, Finding, Kind};
use crate::judge::{Upto, judge};
use crate::kills::{facts_of, rows_of_both, silent, some_keyed};
use crate::process::Setup;
use crate::recording::{Counters, Plan as Failing, Record};
use crate::report::{Report, Voice};
use crate::scratch::{On, Scratch, copy_all};
use crate::stage::{Missed, Recorded, Stage, attempts, reused_writes};
use crate::tools::Tools;
use crate::{judge as verdict, online};

/// Jobs that a real box is asked for after a cut.
const ASKED: usize = 30;
/// Requests with a key that are sent to it again.
const SAID_AGAIN: usize = 6;
/// Acknowledgements after a cut, before the next one.
const SECOND_ACKNOWLEDGEMENTS: u64 = 150;
/// Cuts that are made of what went on after a cut.
const SECOND_CUTS: usize = 4;
/// Acknowledgements between a failed sync and its cuts.
const PAIR_ACKNOWLEDGEMENTS: u64 = 250;
/// The number of images of which that is true.
const TORN_REUSED: &str = "with a reused segment torn";
/// In so many of all images, in percent, a segment that was used before must have been torn.
const TORN_REUSED_PERCENT: u64 = 10;

/// How often a recording that is too short goes on, or begins again.
const BOOTS_MORE_MAX: usize = 4;

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
    /// Acknowledgements before the first kill of a recording.
    pub acknowledgements: u64,
    /// So many writes to segments that are used again make a recording long enough: how much is acknowledged by then
    /// depends on how commits are grouped.
    pub reused_writes_min: usize,
    /// Whether a recording goes on over a kill.
    pub restarts: Restarts,
    /// When to end before all is done.
    pub end: End,
    /// What the choices follow from.
    pub seed: u64,
}

/// Whether a recording goes on over a kill and a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarts {
    /// It ends with the first kill: what a bug loses by that mustn't be taken for what it loses by a cut.
    None,
    /// Once.
    Once,
}

/// A run of the phase.
struct Cutting<'a> {
    tools: &'a Tools,
    variables: &'a [(String, String)],
    plan: &'a Plan,
    choices: Choices,
    report: Report,
}

/// Runs it.
pub fn run(tools: &Tools, variables: &[(String, String)], plan: &Plan) -> Report {
    let voice = if plan.end == End::Whole { Voice::Loud } else { Voice::Quiet };
    let (report, begun) = Report::begin("cuts", voice);
    let mut cutting = Cutting { tools, variables, plan, choices: Choices::new(plan.seed), report };
    cutting.pairs();
    cutting.recordings();
    cutting.report.end(begun)
}

impl Cutting<'_> {
    fn is_over(&self) -> bool {
        self.report.met(self.plan.end).is_some()
    }

    fn pairs(&mut self) {
        let cuts = (self.plan.cuts_per_recording / 10).max(10);
        for _ in 0..self.plan.pairs {
            if self.is_over() {
                return;
            }
            self.report.count("pairs", 1);
            match attempts(|| self.record_pair()) {
                Ok(recorded) => self.cut(&recorded, cuts),
                Err(missed) => self.report.find("the recording of a pair", &missed.findings()),
            }
        }
    }

    fn recordings(&mut self) {
        let (mut images, mut torn) = (0, self.report.counted(TORN_REUSED));
        while self.report.counted("cuts") < self.plan.cuts && !self.is_over() {
            match attempts(|| self.record()) {
                Ok(recorded) => {
                    self.report.count("recordings", 1);
                    let again = reused_writes(&recorded.records).len() as u64;
                    self.report.count("writes to segments used again", again);
                    let left = self.plan.cuts - self.report.counted("cuts");
                    let cuts = self.plan.cuts_per_recording.min(left);
                    self.cut(&recorded, cuts);
                    images += cuts;
                }
                Err(missed) => {
                    self.report.find("a recording", &missed.findings());
                    // What it did wrong once it would do again.
                    break;
                }
            }
        }
        torn = self.report.counted(TORN_REUSED) - torn;
        if self.plan.end == End::Whole && torn * 100 < images * TORN_REUSED_PERCENT {
            let text = format!("only {torn} of {images} images have a segment torn that was used before");
            self.report.find("the rig", &[Kind::Rig.says(text)]);
        }
    }

    fn record(&mut self) -> Result<Recorded, Missed> {
        if self.plan.restarts == Restarts::None {
            return self.record_one_boot();
        }
        let stage = Stage::new(self.tools, self.variables)?;
        stage.boot(self.plan.acknowledgements, &mut self.choices)?;
        stage.recorder.go_on()?;
        stage.boot(self.plan.acknowledgements / 10, &mut self.choices)?;
        // When a segment is used again depends on when the one before it was needed no more.
        for _ in 0..BOOTS_MORE_MAX {
            if self.is_long_enough(&stage)? {
                break;
            }
            stage.recorder.go_on()?;
            stage.boot(self.plan.acknowledgements / 2, &mut self.choices)?;
        }
        stage.recorded(0)
    }

    /// One that is too short can't go on without a restart: a longer one is made.
    fn record_one_boot(&mut self) -> Result<Recorded, Missed> {
        for longer in 0..BOOTS_MORE_MAX {
            let stage = Stage::new(self.tools, self.variables)?;
            stage.boot(self.plan.acknowledgements << longer, &mut self.choices)?;
            if self.is_long_enough(&stage)? {
                return stage.recorded(0);
            }
        }
        Err(Missed::Rig("no segment of the journal was used again, however long the load was".to_owned()))
    }

    fn is_long_enough(&self, stage: &Stage) -> Result<bool, Missed> {
        Ok(reused_writes(&stage.recorder.records()?).len() >= self.plan.reused_writes_min)
    }

    /// Cuts begin where the sync failed: what had been acknowledged by then holds whatever the disk made of it.
    fn record_pair(&mut self) -> Result<Recorded, Missed> {
        let stage = Stage::new(self.tools, self.variables)?;
        let on = *self.choices.one_of(&["segment$", "segment$", "segment$", "state/db"]);
        let at = 300 + self.choices.below(1000) as u64;
        let failing = Failing { at, action: "EIO", on: Some(on), kind: Some("sync") };
        stage.boot_failing(&failing, &mut self.choices)?;
        let records = stage.recorder.records()?;
        stage.compare(Disk::new(), &records).map_err(Missed::Rig)?;
        let failed = records.iter().rposition(|record| matches!(record, Record::SyncFailed { .. }));
        stage.recorder.go_on()?;
        stage.boot(PAIR_ACKNOWLEDGEMENTS, &mut self.choices)?;
        stage.recorded(failed.unwrap_or(records.len()))
    }

    /// Makes cuts of a recording, and looks at each.
    fn cut(&mut self, recorded: &Recorded, cuts: u64) {
        let mut places = places(recorded, cuts, &mut self.choices);
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
            let cut = disk.cut(&mut self.choices, &image).expect("the rig's directory can be written");
            self.report.count(TORN_REUSED, u64::from(cut.torn_reused));
            self.report.count("lost something in one", u64::from(cut.lost_in_reused));
            let mut wrong = Vec::new();
            if self.choices.below(self.plan.one_in) == 0 {
                self.report.count("opened by a real box", 1);
                wrong.extend(self.open_box(&scratch, recorded, upto));
            }
            if self.choices.below(self.plan.one_in) == 0 {
                wrong.extend(self.cut_again(&scratch, recorded, upto).unwrap_or_else(Missed::findings));
            }
            wrong.extend(open_rows(&image, &scratch, &recorded.entries, upto));
            self.report.count("cuts", 1);
            self.report.find(&format!("cut at record {place} of {}", recorded.records.len()), &wrong);
            if self.is_over() {
                return;
            }
        }
    }

    /// A real box starts on what the cut left, goes on for a moment, and the power goes again.
    fn cut_again(
        &mut self,
        scratch: &Scratch,
        recorded: &Recorded,
        upto: Upto,
    ) -> Result<Vec<Finding>, Missed> {
        let stage = Stage::new(self.tools, &[])?;
        copy_all(&scratch.join("image"), &stage.setup.data)?;
        stage.client.goes_on(&verdict::as_of(&recorded.entries, upto));
        let mut disk = Disk::of(&stage.setup.data)?;
        stage.boot(SECOND_ACKNOWLEDGEMENTS, &mut self.choices)?;
        let records = stage.recorder.records()?;
        if stage.compare(disk.clone(), &records).is_err() {
            // Killed between an operation and its log: another one will do.
            self.report.count("second recordings that weren't true", 1);
            return Ok(Vec::new());
        }
        let (mut places, mut wrong, mut reached) = (Vec::new(), Vec::new(), 0);
        places.resize_with(SECOND_CUTS, || self.choices.below(records.len() + 1));
        places.sort_unstable();
        for place in places {
            records[reached..place].iter().try_for_each(|record| disk.apply(record)).map_err(Missed::Rig)?;
            reached = place;
            let second = stage.scratch.join("second");
            disk.cut(&mut self.choices, &second)?;
            let found = open_rows(&second, scratch, &stage.client.entries(), Upto::Records(place as u64));
            let again = |Finding { kind, text }| kind.says(format!("a second cut at record {place}: {text}"));
            wrong.extend(found.into_iter().map(again));
            std::fs::remove_dir_all(&second)?;
            self.report.count("second cuts", 1);
        }
        Ok(wrong)
    }

    /// Opened by a real box, on a copy, and asked over HTTP.
    fn open_box(&mut self, scratch: &Scratch, recorded: &Recorded, upto: Upto) -> Vec<Finding> {
        let copy = scratch.join("opened");
        copy_all(&scratch.join("image"), &copy).expect("the rig's directory can be written");
        let setup = Setup::new(&self.tools.rack, &copy).with("SWITCHBOX_SMALL_STORE", "1");
        let running = match setup.start() {
            Ok(running) => running,
            Err(not_up) => return vec![not_up.finding()],
        };
        let known = verdict::as_of(&recorded.entries, upto);
        let keyed = some_keyed(&known, SAID_AGAIN, &mut self.choices);
        self.report.count("keys said again", keyed.len() as u64);
        let mut jobs: Vec<(String, Job)> = known.jobs.into_iter().collect();
        while jobs.len() > ASKED {
            jobs.swap_remove(self.choices.below(jobs.len()));
        }
        let client = crate::client::Client::default();
        let asked = say_again(&running, &client, &Counters::none(), &keyed).and_then(|mut wrong| {
            wrong.extend(online::judge_jobs(&running, &jobs)?);
            wrong.extend(online::judge_box(&running)?);
            Ok(wrong)
        });
        match asked {
            Ok(mut wrong) => {
                wrong.extend(running.kill().err());
                wrong
            }
            Err(error) => vec![silent(running, &error)],
        }
    }
}

/// Half of them at acknowledgements, a third right behind writes to segments that were used before, the rest anywhere.
fn places(recorded: &Recorded, cuts: u64, choices: &mut Choices) -> Vec<usize> {
    let range: Range<usize> = recorded.from..recorded.records.len();
    let within = |places: Vec<usize>| -> Vec<usize> {
        places.into_iter().filter(|place| range.contains(place)).collect()
    };
    let jobs = recorded.entries.jobs.values().flat_map(|job| job.told.iter().map(|(_, records)| *records));
    let deposits = recorded.entries.deposits.values().filter_map(|deposit| deposit.told);
    let told = within(jobs.chain(deposits).map(|records| records as usize).collect());
    let reused = within(reused_writes(&recorded.records));
    let place = |number: u64| match number % 6 {
        0 | 2 | 4 if !told.is_empty() => *choices.one_of(&told),
        1 | 3 if !reused.is_empty() => *choices.one_of(&reused),
        _ => range.start + choices.below(range.len() + 1),
    };
    (0..cuts).map(place).collect()
}

/// Opened by the library, from the state store and by a replay.
fn open_rows(image: &Path, scratch: &Scratch, entries: &Entries, upto: Upto) -> Vec<Finding> {
    let facts = rows_of_both(&image.join("store"), &scratch.join("copy")).and_then(|rows| facts_of(&rows));
    facts.map_or_else(|wrong| wrong, |facts| judge(&facts, entries, upto))
}
