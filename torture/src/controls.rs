//! Controls: boxes with a bug planted. The phase that is named must find each; a rig that passes one is broken.

use crate::cuts;
use crate::kills;
use crate::report::Report;
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
}

/// The bugs, as `SWITCHBOX_STORAGE_MUTANT` names them.
const CONTROLS: [(&str, By); 7] = [
    ("acknowledge-before-commit", By::Kills),
    ("acknowledge-before-commit", By::Cuts),
    ("no-journal-sync", By::Cuts),
    ("no-directory-sync", By::Cuts),
    ("trim-unverified", By::LongCuts),
    ("state-before-sync", By::Cuts),
    ("tail-not-rewritten", By::Pairs),
];

/// Cuts after which a bug counts as not found.
const CUTS_MAX: u64 = 150;
/// Acknowledgements of a long recording.
const LONG: u64 = 10_000;
const KILLS_MAX: u64 = 60;
const PAIRS_MAX: u64 = 15;

/// Runs them all, or the one of a name.
pub fn run(tools: &Tools, only: Option<&str>, seed: u64) -> Report {
    let (mut report, begun) = Report::begin("controls");
    for (mutant, by) in CONTROLS.into_iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let variables = [("SWITCHBOX_STORAGE_MUTANT".to_owned(), mutant.to_owned())];
        let tried = match by {
            By::Kills => Ok(kills::run(&tools.rack, &variables, &kill_plan(seed))),
            By::Cuts => cuts::run(tools, &variables, &cut_plan(CUTS_MAX, 0, seed)),
            By::LongCuts => {
                let plan = cuts::Plan { acknowledgements: LONG, ..cut_plan(CUTS_MAX, 0, seed) };
                cuts::run(tools, &variables, &plan)
            }
            By::Pairs => cuts::run(tools, &variables, &cut_plan(0, PAIRS_MAX, seed)),
        };
        report.count("controls", 1);
        match tried {
            Ok(tried) => match tried.found.first() {
                Some(found) => {
                    let found: String = found.chars().take(400).collect();
                    println!("  {mutant}: found by {by:?} in {:.1} s: {found}", tried.took.as_secs_f64());
                }
                None => report.find(mutant, &[format!("{by:?} didn't find it: {tried}")]),
            },
            Err(problem) => report.find(mutant, &[format!("it couldn't be tried: {problem}")]),
        }
    }
    report.end(begun)
}

fn kill_plan(seed: u64) -> kills::Plan {
    kills::Plan {
        kills: KILLS_MAX,
        kills_per_directory: 15,
        acknowledgements: (20, 200),
        threads: 12,
        until: None,
        on: On::Disk,
        seed,
    }
}

fn cut_plan(cuts: u64, pairs: u64, seed: u64) -> cuts::Plan {
    cuts::Plan {
        cuts,
        cuts_per_recording: 75,
        pairs,
        one_in: usize::MAX,
        acknowledgements: 2500,
        end: cuts::End::Found,
        seed,
    }
}
