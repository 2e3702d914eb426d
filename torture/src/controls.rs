//! Controls: boxes with a bug planted. The phase that is named must find each, by the kind of thing that the bug does; a
//! rig that passes one is broken, and so is one that only trips over it.

use crate::cuts;
use crate::finding::{End, Kind, Sought};
use crate::kills;
use crate::points::{self, Which};
use crate::report::{Report, Voice};
use crate::scratch::On;
use crate::tools::Tools;

/// The phase that must find a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Kills,
    Cuts,
    /// Cuts of recordings that are long enough for segments to go.
    LongCuts,
    Pairs,
    Points,
}

/// A bug, as `SWITCHBOX_STORAGE_MUTANT` names it, and how it must be found.
struct Control {
    bug: &'static str,
    by: By,
    sought: Sought,
}

const fn control(
    bug: &'static str,
    by: By,
    trial: &'static str,
    kinds: &'static [Kind],
    words: &'static str,
) -> Control {
    Control { bug, by, sought: Sought { kinds, trial, words } }
}

use Kind::{Lost, Unopened, WentOn};
const CUT: &str = "cut at record";
const TOLD: &str = "job|deposit";
/// Of a segment without its name what is in it is lost, or missed by what comes after it.
const NAMELESS: &str = "job|deposit|it is missing|should be here|isn't in the journal";

const CONTROLS: [Control; 9] = [
    control("acknowledge-before-commit", By::Kills, "", &[Lost], TOLD),
    control("acknowledge-before-commit", By::Cuts, CUT, &[Lost], TOLD),
    control("no-journal-sync", By::Cuts, CUT, &[Lost], TOLD),
    control("no-directory-sync", By::Cuts, CUT, &[Lost, Unopened], NAMELESS),
    // A torn snapshot, of which the journal has gone.
    control("trim-unverified", By::LongCuts, CUT, &[Unopened], ".snapshot"),
    control("state-before-sync", By::Cuts, CUT, &[Unopened], "the state store has group"),
    // A group that others rest on is gone, or its frame was on the disk and a payload behind it wasn't.
    control(
        "tail-not-rewritten",
        By::Pairs,
        CUT,
        &[Unopened, Lost],
        "should be here|a payload isn't what was written",
    ),
    control("go-on-after-failed-sync", By::Pairs, "pair", &[WentOn], ".segment"),
    control("go-on-after-failed-sync", By::Points, "Point", &[WentOn], ".segment"),
];

/// Cuts after which a bug counts as not found.
const CUTS_MAX: u64 = 150;
/// Acknowledgements of a long recording, at first: it must be long enough for a segment to go.
const LONG: u64 = 10_000;
const KILLS_MAX: u64 = 60;
const PAIRS_MAX: u64 = 15;
const POINTS_MAX: u64 = 12;

/// Runs them all, or the one of a name.
pub fn run(tools: &Tools, only: Option<&str>, seed: u64) -> Report {
    let (mut report, begun) = Report::begin("controls", Voice::Loud);
    for control in CONTROLS.iter().filter(|control| only.is_none_or(|only| only == control.bug)) {
        let Control { bug, by, sought } = control;
        let end = End::Found(*sought);
        let tried = attempt(tools, control, end, seed);
        report.count("controls", 1);
        match tried.met(end) {
            Some(found) => {
                let found: String = found.to_string().chars().take(300).collect();
                println!("  {bug}: found by {by:?} in {:.1} s: {found}", tried.took.as_secs_f64());
            }
            None => {
                let text = format!("{by:?} didn't find it as {sought:?}: {tried}");
                report.find(bug, &[Kind::Rig.says(text)]);
            }
        }
    }
    if report.counted("controls") == 0 {
        let known: Vec<&str> = CONTROLS.iter().map(|control| control.bug).collect();
        report.find("the rig", &[Kind::Rig.says(format!("no control of that name; there are {known:?}"))]);
    }
    report.end(begun)
}

fn attempt(tools: &Tools, control: &Control, end: End, seed: u64) -> Report {
    let variables = [("SWITCHBOX_STORAGE_MUTANT".to_owned(), control.bug.to_owned())];
    let cuts = |cuts, pairs, acknowledgements, reused_writes_min| {
        let plan = cuts::Plan {
            cuts,
            cuts_per_recording: 75,
            pairs,
            one_in: usize::MAX,
            acknowledgements,
            reused_writes_min,
            restarts: cuts::Restarts::None,
            end,
            seed,
        };
        cuts::run(tools, &variables, &plan)
    };
    match control.by {
        By::Kills => kills::run(&tools.rack, &variables, &kill_plan(end, seed)),
        By::Cuts => cuts(CUTS_MAX, 0, 2_500, 0),
        By::LongCuts => cuts(CUTS_MAX, 0, LONG, 1),
        By::Pairs => cuts(0, PAIRS_MAX, 0, 0),
        By::Points => {
            let plan = points::Plan { which: Which::FailedSyncs(POINTS_MAX), end, seed };
            points::run(tools, &variables, &plan).unwrap_or_else(|wrong| {
                let (mut report, begun) = Report::begin("points", Voice::Quiet);
                report.find("the history", &[wrong]);
                report.end(begun)
            })
        }
    }
}

fn kill_plan(end: End, seed: u64) -> kills::Plan {
    kills::Plan {
        kills: KILLS_MAX,
        kills_per_directory: 15,
        acknowledgements: (20, 200),
        threads: 12,
        until: None,
        end,
        on: On::Disk,
        seed,
    }
}
