//! A box on the rack with the recorder under it: started, loaded, killed or failed, and what was recorded of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::choices::Choices;
use crate::client::{Client, Entries};
use crate::disk::Disk;
use crate::finding::{Finding, Kind};
use crate::kills::silent;
use crate::load::{self, Until};
use crate::online;
use crate::process::Setup;
use crate::recording::{Happened, Plan as Failing, Record, Recorder};
use crate::scratch::{On, Scratch, files};
use crate::tools::Tools;

/// How long a box may take to die of a failed sync.
pub const DEATH_PATIENCE: Duration = Duration::from_secs(8);
/// Recordings that may turn out not to be what the box left.
const RECORDINGS_MAX: usize = 5;
const CLIENTS: usize = 12;

/// Why there is no recording.
#[derive(Debug)]
pub enum Missed {
    /// It isn't what the box left (it was killed between an operation and its log), or the rig's own files failed.
    /// Another one will do.
    Rig(String),
    /// The box did what it must not. Trying again would only hide it.
    Product(Vec<Finding>),
}

impl From<io::Error> for Missed {
    fn from(error: io::Error) -> Self {
        Missed::Rig(error.to_string())
    }
}

impl From<Finding> for Missed {
    fn from(finding: Finding) -> Self {
        Missed::Product(vec![finding])
    }
}

impl Missed {
    /// What it is in a report.
    pub fn findings(self) -> Vec<Finding> {
        match self {
            Missed::Rig(problem) => vec![Kind::Rig.says(problem)],
            Missed::Product(findings) => findings,
        }
    }
}

/// Records, again where only the recording failed.
///
/// # Errors
/// When the product did wrong, or no recording is true.
pub fn attempts(mut record: impl FnMut() -> Result<Recorded, Missed>) -> Result<Recorded, Missed> {
    let mut problem = String::new();
    for _ in 0..RECORDINGS_MAX {
        match record() {
            Err(Missed::Rig(again)) => problem = again,
            outcome => return outcome,
        }
    }
    Err(Missed::Rig(format!("no recording could be made: {problem}")))
}

/// A box that was recorded, and what its clients know.
pub struct Recorded {
    /// Every operation, in order.
    pub records: Vec<Record>,
    /// What clients were told, and when.
    pub entries: Entries,
    /// Where cuts begin.
    pub from: usize,
}

/// The directory, the recorder and the clients.
pub struct Stage {
    /// Where it all lies.
    pub scratch: Scratch,
    /// What is under the box.
    pub recorder: Recorder,
    /// How it is started.
    pub setup: Setup,
    /// What is known of it.
    pub client: Client,
}

impl Stage {
    /// With a new directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(tools: &Tools, variables: &[(String, String)]) -> io::Result<Self> {
        let scratch = Scratch::new(On::Memory);
        let recorder = Recorder::new(&tools.recorder, scratch.path())?;
        let mut setup = Setup::new(&tools.rack, &scratch.join("data")).with("SWITCHBOX_SMALL_STORE", "1");
        setup.variables.extend_from_slice(variables);
        Ok(Self { scratch, recorder, setup, client: Client::default() })
    }

    /// Starts, says again what has no answer, and loads until the box is killed at so many acknowledgements.
    ///
    /// # Errors
    /// When the box does anything but that.
    pub fn boot(&self, acknowledgements: u64, choices: &mut Choices) -> Result<(), Missed> {
        let counters = self.recorder.counters()?;
        let setup = self.recorder.recording(self.setup.clone(), None);
        let running = setup.start().map_err(|not_up| not_up.finding())?;
        let prepared =
            load::set_prices(&running).and_then(|()| online::settle(&running, &self.client, &counters));
        let wrong = match prepared {
            Ok(wrong) => wrong,
            Err(error) => return Err(silent(running, &error).into()),
        };
        let until = Until::Killed(acknowledgements);
        let ended = load::run(&running, &self.client, &counters, CLIENTS, until, choices);
        running.kill()?;
        match ended.finding() {
            Some(died) => Err(died.into()),
            None if !wrong.is_empty() => Err(Missed::Product(wrong)),
            None => Ok(()),
        }
    }

    /// Starts and loads a box of which a sync fails: it must end by itself.
    ///
    /// # Errors
    /// When it goes on, or ends before that.
    pub fn boot_failing(&self, failing: &Failing, choices: &mut Choices) -> Result<Happened, Missed> {
        let counters = self.recorder.counters()?;
        let setup = self.recorder.recording(self.setup.clone(), Some(failing));
        let happened = || self.recorder.happened();
        let mut running = match setup.start() {
            Ok(running) => running,
            Err(not_up) => return happened().ok_or_else(|| not_up.finding().into()),
        };
        // A box that has died of it answers nothing.
        if load::set_prices(&running).is_ok() {
            load::run(&running, &self.client, &counters, CLIENTS, Until::Dead(DEATH_PATIENCE), choices);
        }
        match (running.wait_for(DEATH_PATIENCE), happened()) {
            (Some(_), Some(happened)) => Ok(happened),
            (Some(status), None) => Err(running.died(Some(status)).into()),
            (None, Some(happened)) => Err(went_on(&happened, failing.action).into()),
            (None, None) => Err(Missed::Rig("the sync that was to fail never came".to_owned())),
        }
    }

    /// What was recorded, if it is what the box left.
    ///
    /// # Errors
    /// When it isn't.
    pub fn recorded(self, from: usize) -> Result<Recorded, Missed> {
        let records = self.recorder.records()?;
        self.compare(Disk::new(), &records).map_err(Missed::Rig)?;
        let entries = std::mem::take(&mut *self.client.entries());
        Ok(Recorded { records, entries, from })
    }

    /// Compares what a log makes of a disk with what is there.
    ///
    /// # Errors
    /// With what differs.
    pub fn compare(&self, mut disk: Disk, records: &[Record]) -> Result<(), String> {
        records.iter().try_for_each(|record| disk.apply(record))?;
        let whole = self.scratch.join("whole");
        disk.whole(&whole).map_err(|error| error.to_string())?;
        let differ = difference(&whole, &self.setup.data).map_err(|error| error.to_string())?;
        let _ = std::fs::remove_dir_all(&whole);
        differ.map_or(Ok(()), |name| Err(format!("`{}` isn't as it was recorded", name.display())))
    }
}

/// What it is that a box goes on after this operation failed.
pub fn went_on(happened: &Happened, action: &str) -> Finding {
    let Happened { kind, path } = happened;
    Kind::WentOn.says(format!("the box went on after a {kind} of `{path}` failed ({action})"))
}

/// The first file that isn't the same in both.
fn difference(a: &Path, b: &Path) -> io::Result<Option<PathBuf>> {
    let (in_a, in_b) = (files(a)?, files(b)?);
    let names: BTreeSet<&PathBuf> = in_a.iter().chain(&in_b).collect();
    let differs = |name: &&&PathBuf| std::fs::read(a.join(name)).ok() != std::fs::read(b.join(name)).ok();
    Ok(names.iter().find(differs).map(|name| (*name).clone()))
}

/// Where cuts find something in a segment of the journal that had been another one and isn't synced yet: right behind
/// each write to one.
pub fn reused_writes(records: &[Record]) -> Vec<usize> {
    let is_segment = |name: &str| name.ends_with(".segment");
    let (mut inodes, mut retired, mut reused) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut places = Vec::new();
    for (number, record) in records.iter().enumerate() {
        match record {
            Record::FileMade { inode, name } => {
                inodes.insert(name.clone(), *inode);
                retired.remove(inode);
                reused.remove(inode);
            }
            Record::Renamed { from, to } => {
                let Some(inode) = inodes.remove(from) else { continue };
                inodes.insert(to.clone(), inode);
                if is_segment(from) {
                    retired.insert(inode);
                } else if is_segment(to) && retired.contains(&inode) {
                    reused.insert(inode);
                }
            }
            Record::Written { inode, .. } if reused.contains(inode) => places.push(number + 1),
            _ => {}
        }
    }
    places
}
