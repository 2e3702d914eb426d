//! Rot: bits flipped, pages zeroed, files cut short, in any file of a closed directory. What was there comes back, or the
//! start (or the read of one payload) is refused by file and offset. Never something else. Only the journal's last
//! group may go, for it can't be told from one that was being written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use switchbox_storage::{Error, StateKind};

use crate::choices::Choices;
use crate::client::Client;
use crate::kills::{rows_of_both, told};
use crate::load::{self, Until};
use crate::process::Setup;
use crate::recording::Counters;
use crate::report::Report;
use crate::rows::Rows;
use crate::scratch::{On, Scratch, copy_all, files};
use crate::tools::Tools;

const BLOCK: usize = 4096;
/// One corruption in so many is also shown to a real box.
const ONE_IN: usize = 20;

/// One corruption in so many is of a file beside the store, which only a real box looks at.
const BESIDE_ONE_IN: usize = 20;

/// A closed directory and what it holds.
struct Closed {
    dir: Scratch,
    /// Those of the store, and those beside it: secrets and addresses.
    files: (Vec<PathBuf>, Vec<PathBuf>),
    /// With its last group, and without.
    whole: Rows,
    before: Rows,
    /// The file of the last group, and where it lies in it.
    last: (PathBuf, std::ops::Range<usize>),
}

/// What may become of the journal's last group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastGroup {
    MayGo,
    Stays,
}

/// Runs it.
///
/// # Errors
/// When no directory can be made.
pub fn run(tools: &Tools, corruptions: u64, seed: u64) -> Result<Report, String> {
    let (mut report, begun) = Report::begin("rot");
    let mut choices = Choices::new(seed);
    let closed = closed(tools, &mut choices)?;
    for _ in 0..corruptions {
        let scratch = Scratch::new(On::Memory);
        let copy = scratch.join("data");
        copy_all(&closed.dir.join("data"), &copy).map_err(|error| error.to_string())?;
        let (in_store, beside) = &closed.files;
        let from = if choices.below(BESIDE_ONE_IN) == 0 { beside } else { in_store };
        let file = choices.one_of(from).clone();
        let (at, harm) = harm(&copy.join(&file), &mut choices);
        let mut wrong = Vec::new();
        if from == beside || choices.below(ONE_IN) == 0 {
            wrong.extend(shown_to_a_box(tools, &scratch, &mut report));
        }
        let is_in_the_last = file == closed.last.0 && closed.last.1.contains(&at);
        let last = if is_in_the_last { LastGroup::MayGo } else { LastGroup::Stays };
        wrong.extend(look(&closed, &copy.join("store"), last, &mut report));
        report.count("corruptions", 1);
        report.find(&format!("`{}` {harm}", file.display()), &wrong);
    }
    Ok(report.end(begun))
}

fn closed(tools: &Tools, choices: &mut Choices) -> Result<Closed, String> {
    let (dir, client) = (Scratch::new(On::Memory), Client::default());
    let setup = Setup::new(&tools.rack, &dir.join("data")).with("SWITCHBOX_SMALL_STORE", "1");
    let running = setup.start().map_err(|not_up| told(&not_up))?;
    load::set_prices(&running).map_err(|error| error.to_string())?;
    load::run(&running, &client, &Counters::none(), 12, Until::Killed(2500), choices);
    running.kill();
    let store = dir.join("data/store");
    let scratch = Scratch::new(On::Memory);
    let copy = scratch.join("store");
    let of_copy = |copy: &Path| rows_of_both(copy, &scratch.join("again")).map_err(|wrong| wrong.join("; "));
    copy_all(&store, &copy).map_err(|error| error.to_string())?;
    let whole = of_copy(&copy)?;
    let _ = fs::remove_dir_all(&copy);
    let last = last_group(&store).ok_or("the journal has no group")?;
    copy_all(&store, &copy).map_err(|error| error.to_string())?;
    let torn = copy.join(last.0.strip_prefix("store").unwrap_or(&last.0));
    let mut bytes = fs::read(&torn).map_err(|error| error.to_string())?;
    bytes[last.1.clone()].fill(0);
    fs::write(&torn, bytes).map_err(|error| error.to_string())?;
    // A state store that has the last group refuses a journal without it.
    let before = Rows::open(&copy, StateKind::Memory).unwrap_or_default();
    let mut files = files(&dir.join("data")).map_err(|error| error.to_string())?;
    files.retain(|file| fs::metadata(dir.join("data").join(file)).is_ok_and(|meta| meta.len() > 0));
    let files = files.into_iter().partition(|file| file.starts_with("store"));
    Ok(Closed { dir, files, whole, before, last })
}

/// Where the newest frame lies: its file below the data directory, and its blocks.
fn last_group(store: &Path) -> Option<(PathBuf, std::ops::Range<usize>)> {
    let mut found = BTreeMap::new();
    for name in files(&store.join("journal")).ok()? {
        let bytes = fs::read(store.join("journal").join(&name)).ok()?;
        for at in (BLOCK..bytes.len()).step_by(BLOCK) {
            let head = &bytes[at..at + 80];
            let word =
                |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
            if head.starts_with(b"SWBF") && word(12) == at {
                let group = u64::from_le_bytes(head[24..32].try_into().expect("eight bytes"));
                let end = at + word(16).div_ceil(BLOCK) * BLOCK;
                found.insert(group, (Path::new("store/journal").join(&name), at..end));
            }
        }
    }
    found.pop_last().map(|(_, place)| place)
}

/// Harms a file, and says from where on and how.
fn harm(path: &Path, choices: &mut Choices) -> (usize, String) {
    let mut bytes = fs::read(path).expect("it was copied just now");
    let at = choices.below(bytes.len());
    let (from, how) = match choices.below(3) {
        0 => {
            bytes[at] ^= 1 << choices.below(8);
            (at, format!("with a bit flipped at {at}"))
        }
        1 => {
            let page = at / BLOCK * BLOCK;
            let end = bytes.len().min(page + BLOCK);
            bytes[page..end].fill(0);
            (page, format!("with zeros at {page}"))
        }
        _ => {
            bytes.truncate(at);
            (at, format!("cut to {at} bytes"))
        }
    };
    fs::write(path, bytes).expect("the rig's directory can be written");
    (from, how)
}

/// What a start makes of it.
fn look(closed: &Closed, store: &Path, last: LastGroup, report: &mut Report) -> Vec<String> {
    let rows = match Rows::open(store, StateKind::Sled) {
        Ok(rows) => rows,
        Err(Error::Damaged { path, .. } | Error::Newer { path, .. }) if path.starts_with(store) => {
            report.count("refused by name", 1);
            return Vec::new();
        }
        Err(error) => return vec![format!("refused without a name: {error}")],
    };
    report.count("recovered", 1);
    report.count("payloads refused by name", rows.refused.len() as u64);
    // What was refused by name isn't silently wrong: it counts as it was.
    let mended = |whole: &Rows| {
        let mut mended = rows.clone();
        let refused = rows.refused.keys().filter_map(|key| whole.values.get_key_value(key));
        mended.values.extend(refused.map(|(key, value)| (key.clone(), value.clone())));
        mended.values == whole.values
    };
    if mended(&closed.whole) || last == LastGroup::MayGo && mended(&closed.before) {
        return Vec::new();
    }
    vec![format!("silently wrong: {}", rows.differences(&closed.whole).join(", "))]
}

/// A real box comes up, or says which file it is.
fn shown_to_a_box(tools: &Tools, scratch: &Scratch, report: &mut Report) -> Vec<String> {
    let copy = scratch.join("shown");
    copy_all(&scratch.join("data"), &copy).expect("the rig's directory can be written");
    report.count("shown to a real box", 1);
    match Setup::new(&tools.rack, &copy).with("SWITCHBOX_SMALL_STORE", "1").start() {
        Ok(running) => {
            running.kill();
            Vec::new()
        }
        Err(not_up) if not_up.status.is_some() && not_up.said.contains(&copy.display().to_string()) => {
            Vec::new()
        }
        Err(not_up) => vec![told(&not_up)],
    }
}
