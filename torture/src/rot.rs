//! Rot: bits flipped, pages zeroed, files cut short, in any file of a closed directory. What was there comes back, or the
//! start (or the read of one payload) is refused by file and offset. Never something else. Only the journal's last
//! group may go, for it can't be told from one that was being written.
//!
//! A refusal is a violation too where the design has what was harmed elsewhere ([`layout`]), or where it names another
//! place than the one that was harmed.

pub mod layout;

use std::fs;
use std::path::{Path, PathBuf};

use switchbox_storage::{Error, StateKind};

use crate::choices::Choices;
use crate::client::Client;
use crate::finding::{Finding, Kind};
use crate::kills::{rows_of_both, silent};
use crate::load::{self, Until};
use crate::process::{Auth, Setup};
use crate::recording::Counters;
use crate::report::{Report, Voice};
use crate::rows::Rows;
use crate::scratch::{On, Scratch, copy_all, files};
use crate::tools::Tools;
use layout::{BLOCK, Frame, Harm, Layout, May};

/// One corruption in so many is also shown to a real box.
const ONE_IN: usize = 20;
/// One corruption in so many is of a file beside the store, which only a real box looks at.
const BESIDE_ONE_IN: usize = 20;
/// One corruption in so many is meant for the journal's last group.
const LAST_ONE_IN: usize = 20;
/// Corruptions of one directory, before a new one is made.
const OF_ONE_DIRECTORY: u64 = 1_000;
/// Directories whose last group may turn out to be one that the rest can't be opened without.
const DIRECTORIES_MAX: usize = 5;
const ACKNOWLEDGEMENTS: u64 = 2_500;

/// A closed directory and what it holds.
struct Closed {
    dir: Scratch,
    /// Those of the store, and those beside it: secrets and addresses.
    files: (Vec<PathBuf>, Vec<PathBuf>),
    layout: Layout,
    /// With its last group, and without.
    whole: Rows,
    before: Rows,
}

/// One corruption.
struct Trial<'a> {
    closed: &'a Closed,
    scratch: Scratch,
    file: PathBuf,
    may: May,
}

/// Runs it.
pub fn run(tools: &Tools, corruptions: u64, seed: u64) -> Report {
    let (mut report, begun) = Report::begin("rot", Voice::Loud);
    let mut choices = Choices::new(seed);
    while report.counted("corruptions") < corruptions {
        let closed = match closed(tools, &mut choices) {
            Ok(closed) => closed,
            Err(wrong) => {
                report.find("the directory to be harmed", &wrong);
                break;
            }
        };
        report.count("directories", 1);
        for _ in 0..OF_ONE_DIRECTORY.min(corruptions - report.counted("corruptions")) {
            corrupt(tools, &closed, &mut choices, &mut report);
        }
    }
    report.end(begun)
}

fn corrupt(tools: &Tools, closed: &Closed, choices: &mut Choices, report: &mut Report) {
    let scratch = Scratch::new(On::Memory);
    let copy = scratch.join("data");
    copy_all(&closed.dir.join("data"), &copy).expect("the rig's directory can be written");
    let (in_store, beside) = &closed.files;
    let is_beside = choices.below(BESIDE_ONE_IN) == 0;
    let mut file = choices.one_of(if is_beside { beside } else { in_store }).as_path();
    let mut frames = closed.layout.frames(file);
    // One group of thousands: chance alone would hardly ever hit it.
    if let Some((segment, last)) =
        closed.layout.last().filter(|_| !is_beside && choices.below(LAST_ONE_IN) == 0)
    {
        (file, frames) = (segment, std::slice::from_ref(last));
    }
    let file = file.to_owned();
    let (harm, how) = harm(&copy.join(&file), frames, choices);
    let may = closed.layout.may(&file, &harm);
    report.count(word_of(&may), 1);
    let trial = Trial { closed, scratch, file, may };
    let mut wrong = Vec::new();
    if is_beside || choices.below(ONE_IN) == 0 {
        wrong.extend(trial.show_to_a_box(tools, report));
    }
    wrong.extend(trial.look(report));
    report.count("corruptions", 1);
    report.find(&format!("`{}` {how} ({:?})", trial.file.display(), trial.may), &wrong);
}

fn word_of(may: &May) -> &'static str {
    match may {
        May::Recover | May::RecoverButPayloads => "that must be recovered",
        May::RefuseAt(_) => "that may be refused",
        May::LoseLast(_) => "of the last group",
        May::RefuseSecret => "of secrets",
    }
}

/// Makes one; again where the journal without its last group can't be opened, for then it says nothing of rot there.
fn closed(tools: &Tools, choices: &mut Choices) -> Result<Closed, Vec<Finding>> {
    let mut problem = String::new();
    for _ in 0..DIRECTORIES_MAX {
        let (dir, whole) = loaded(tools, choices)?;
        match picture(dir, whole) {
            Ok(closed) => return Ok(closed),
            Err(again) => problem = again,
        }
    }
    Err(vec![Kind::Rig.says(format!("no directory could be made: {problem}"))])
}

/// A directory of a box that was killed under load, and its rows. Its first start has keys, so that there are secrets.
fn loaded(tools: &Tools, choices: &mut Choices) -> Result<(Scratch, Rows), Vec<Finding>> {
    let (dir, client) = (Scratch::new(On::Memory), Client::default());
    let mut setup = Setup::new(&tools.rack, &dir.join("data")).with("SWITCHBOX_SMALL_STORE", "1");
    setup.auth = Auth::Keys;
    let running = setup.start().map_err(|not_up| vec![not_up.finding()])?;
    running.kill().map_err(|died| vec![died])?;
    setup.auth = Auth::Off;
    let running = setup.start().map_err(|not_up| vec![not_up.finding()])?;
    if let Err(error) = load::set_prices(&running) {
        return Err(vec![silent(running, &error)]);
    }
    let until = Until::Killed(ACKNOWLEDGEMENTS);
    let ended = load::run(&running, &client, &Counters::none(), 12, until, choices);
    running.kill().map_err(|died| vec![died])?;
    if let Some(died) = ended.finding() {
        return Err(vec![died]);
    }
    let scratch = Scratch::new(On::Memory);
    let copy = scratch.join("store");
    copy_all(&dir.join("data/store"), &copy).map_err(|error| vec![Kind::Rig.says(error.to_string())])?;
    let whole = rows_of_both(&copy, &scratch.join("again"))?;
    Ok((dir, whole))
}

/// What lies in it, and its rows without the last group.
fn picture(dir: Scratch, whole: Rows) -> Result<Closed, String> {
    let text = |error: std::io::Error| error.to_string();
    let data = dir.join("data");
    let layout = Layout::of(&data).map_err(text)?;
    let (segment, last) = layout.last().ok_or("the journal has no group")?;
    let scratch = Scratch::new(On::Memory);
    copy_all(&data, &scratch.join("data")).map_err(text)?;
    let torn = scratch.join("data").join(segment);
    let mut bytes = fs::read(&torn).map_err(text)?;
    bytes[last.bytes.clone()].fill(0);
    fs::write(&torn, bytes).map_err(text)?;
    // A state store that has the last group refuses a journal without it.
    let before = Rows::open(&scratch.join("data/store"), StateKind::Memory)
        .map_err(|error| format!("the picture without the last group: {error}"))?;
    let mut files = files(&data).map_err(text)?;
    files.retain(|file| fs::metadata(data.join(file)).is_ok_and(|meta| meta.len() > 0));
    let files = files.into_iter().partition(|file| file.starts_with("store"));
    Ok(Closed { dir, files, layout, whole, before })
}

/// Harms a file, and says where and how. What is small and matters (heads of files and frames) is hit as often as the rest.
fn harm(path: &Path, frames: &[Frame], choices: &mut Choices) -> (Harm, String) {
    let mut bytes = fs::read(path).expect("it was copied just now");
    let at = match choices.below(4) {
        0 => choices.below(bytes.len().min(128)),
        1 if !frames.is_empty() => {
            let frame = &choices.one_of(frames).bytes;
            frame.start + choices.below(frame.len().min(512))
        }
        _ => choices.below(bytes.len()),
    };
    let (harm, how) = match choices.below(3) {
        0 => {
            bytes[at] ^= 1 << choices.below(8);
            (Harm::Bytes(at..at + 1), format!("with a bit flipped at {at}"))
        }
        1 => {
            let page = at / BLOCK * BLOCK;
            let end = bytes.len().min(page + BLOCK);
            bytes[page..end].fill(0);
            (Harm::Bytes(page..end), format!("with zeros at {page}"))
        }
        _ => {
            bytes.truncate(at);
            (Harm::Cut(at), format!("cut to {at} bytes"))
        }
    };
    fs::write(path, bytes).expect("the rig's directory can be written");
    (harm, how)
}

impl Trial<'_> {
    /// What a start of the library makes of it.
    fn look(&self, report: &mut Report) -> Vec<Finding> {
        let data = self.scratch.join("data");
        let rows = match Rows::open(&data.join("store"), StateKind::Sled) {
            Ok(rows) => rows,
            Err(Error::Damaged { path, offset, problem }) => {
                report.count("refused by file and offset", 1);
                let named = path.strip_prefix(&data).unwrap_or(&path);
                return self.refused(named, offset, &problem).into_iter().collect();
            }
            Err(error) => {
                return vec![Kind::Misnamed.says(format!("refused without file and offset: {error}"))];
            }
        };
        report.count("recovered", 1);
        report.count("payloads refused by name", rows.refused.len() as u64);
        let mut wrong = self.payloads(&rows);
        // What was refused by name isn't silently wrong: it counts as it was.
        let mended = |whole: &Rows| {
            let mut mended = rows.clone();
            let refused = rows.refused.keys().filter_map(|key| whole.values.get_key_value(key));
            mended.values.extend(refused.map(|(key, value)| (key.clone(), value.clone())));
            mended.values == whole.values
        };
        let closed = self.closed;
        let may_lose = matches!(self.may, May::LoseLast(_));
        let is_right = mended(&closed.whole) || may_lose && mended(&closed.before);
        if !is_right {
            let differ = rows.differences(&closed.whole).join(", ");
            wrong.push(Kind::Wrong.says(format!("silently wrong: {differ}")));
        }
        wrong
    }

    /// Whether a refusal is one that may be, and names what was harmed.
    fn refused(&self, named: &Path, offset: u64, problem: &str) -> Option<Finding> {
        let text = format!("refused at byte {offset} of `{}` ({problem})", named.display());
        match &self.may {
            May::RefuseAt(at) | May::LoseLast(at) if named == self.file => {
                let fits = at.contains(&(offset as usize));
                (!fits).then(|| Kind::Misnamed.says(format!("{text}, which isn't where it was harmed")))
            }
            May::RefuseAt(_) | May::LoseLast(_) => {
                Some(Kind::Misnamed.says(format!("{text}, which isn't what was harmed")))
            }
            May::Recover | May::RecoverButPayloads | May::RefuseSecret => {
                Some(Kind::Misnamed.says(format!("{text}, yet everything is there elsewhere")))
            }
        }
    }

    /// Payloads may be refused only where they were harmed.
    fn payloads(&self, rows: &Rows) -> Vec<Finding> {
        let name = self.scratch.join("data").join(&self.file).display().to_string();
        let may = !matches!(self.may, May::Recover | May::RefuseSecret);
        let wrong = rows.refused.values().filter(|said| !may || !said.contains(&name));
        wrong.map(|said| Kind::Misnamed.says(format!("a payload is refused: {said}"))).collect()
    }

    /// A real box comes up, or says which file it is, and where in it.
    fn show_to_a_box(&self, tools: &Tools, report: &mut Report) -> Vec<Finding> {
        let copy = self.scratch.join("shown");
        copy_all(&self.scratch.join("data"), &copy).expect("the rig's directory can be written");
        report.count("shown to a real box", 1);
        let mut setup = Setup::new(&tools.rack, &copy).with("SWITCHBOX_SMALL_STORE", "1");
        setup.auth = Auth::Keys;
        let not_up = match setup.start() {
            Ok(running) => {
                let mut wrong: Vec<Finding> = running.kill().err().into_iter().collect();
                wrong.extend(self.secrets(&copy));
                return wrong;
            }
            Err(not_up) => not_up,
        };
        report.count("refused by a real box", 1);
        let names = not_up.said.contains(&copy.join(&self.file).display().to_string());
        let says_where = not_up.said.contains("at byte ");
        let may = match self.may {
            May::Recover | May::RecoverButPayloads => false,
            May::RefuseAt(_) | May::LoseLast(_) => names && says_where,
            May::RefuseSecret => names,
        };
        if may && not_up.status.is_some() {
            return Vec::new();
        }
        let Finding { text, .. } = not_up.finding();
        vec![Kind::Misnamed.says(format!("a real box: {text}"))]
    }

    /// Secrets are what they were: a box that goes on with others, or makes new ones, has forgotten who it is.
    fn secrets(&self, copy: &Path) -> Vec<Finding> {
        let read = |dir: &Path, name: &str| fs::read(dir.join(name)).unwrap_or_default();
        let same = |name: &&str| {
            let (before, after) = (read(&self.closed.dir.join("data"), name), read(copy, name));
            // White space around a key doesn't count.
            if *name == "api.key" { before.trim_ascii() == after.trim_ascii() } else { before == after }
        };
        let changed =
            ["api.key", "key.pepper", "boot.secret", "box.key"].into_iter().filter(|name| !same(name));
        changed.map(|name| Kind::Wrong.says(format!("the box came up with another `{name}`"))).collect()
    }
}
