//! `switchbox-torture`: runs the rig's phases and says what they did and found.
#![allow(clippy::print_stdout, reason = "the rig's report is its output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use switchbox_torture::finding::{End, Finding};
use switchbox_torture::points::Which;
use switchbox_torture::report::{Report, Voice};
use switchbox_torture::scratch::On;
use switchbox_torture::tools::Tools;
use switchbox_torture::{controls, cuts, kills, points, poison, rot};

#[derive(Debug, Parser)]
#[command(about = "Kills, cuts and rots boxes, and checks that nothing that was acknowledged is lost")]
struct Arguments {
    /// What the choices follow from
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Takes the programs that lie beside this one, and builds none
    #[arg(long, global = true)]
    built: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What every change goes through: some of everything, and the controls
    Ci,
    /// What a release goes through: much of everything, for hours
    Full,
    /// The kill loop for so many minutes
    For {
        /// How long
        minutes: f64,
    },
    /// So many kills
    Kills {
        /// How many
        kills: u64,
    },
    /// So many operation points, or all
    Points {
        /// How many [default: all]
        points: Option<u64>,
    },
    /// So many power cuts, a tenth of them in pairs with failed syncs
    Cuts {
        /// How many
        cuts: u64,
    },
    /// So many corruptions
    Rot {
        /// How many
        corruptions: u64,
    },
    /// Bugs that must be found
    Controls {
        /// Only this one
        name: Option<String>,
    },
    /// A prompt that kills the box
    Poison,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    quiet_guards();
    let tools = match if arguments.built { Tools::built() } else { Tools::build() } {
        Ok(tools) => tools,
        Err(problem) => {
            eprintln!("switchbox-torture: {problem}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let reports = run(&arguments, &tools);
    println!("{:<10} {:.1} s", "all", begun.elapsed().as_secs_f64());
    let sum = |count: fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    let (violations, problems) = (sum(Report::violations), sum(Report::problems));
    match (violations, problems) {
        (0, 0) => {
            println!("nothing acknowledged was lost, nothing was charged twice");
            return ExitCode::SUCCESS;
        }
        (0, _) => println!("FAILED: the rig has {problems} problems, so it proves nothing"),
        _ => println!("FAILED: {violations} violations, {problems} problems of the rig"),
    }
    ExitCode::FAILURE
}

/// A state store that was harmed may panic while it is opened, which its guard catches and tells: hundreds of
/// backtraces would hide the report.
fn quiet_guards() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some("state-guard") {
            loud(panic);
        }
    }));
}

/// Shows a report as soon as there is one.
fn shown(report: Report) -> Report {
    println!("{report}");
    report
}

/// A report, or what kept a phase from being run, which is a failure too.
fn reported(phase: &str, outcome: Result<Report, Finding>) -> Report {
    shown(outcome.unwrap_or_else(|problem| {
        let (mut report, begun) = Report::begin(phase, Voice::Loud);
        report.find("it couldn't be run", &[problem]);
        report.end(begun)
    }))
}

fn run(arguments: &Arguments, tools: &Tools) -> Vec<Report> {
    let seed = arguments.seed;
    let kills = |plan: &kills::Plan| shown(kills::run(&tools.product, &[], plan));
    let points = |which| {
        let plan = points::Plan { which, end: End::Whole, seed };
        reported("points", points::run(tools, &[], &plan))
    };
    let cuts = |number| shown(cuts::run(tools, &[], &cut_plan(number, seed)));
    let rot = |number| shown(rot::run(tools, number, seed));
    let controls = |name| shown(controls::run(tools, name, seed));
    let poison = || shown(poison::run(tools, seed));
    match &arguments.what {
        What::Ci => vec![
            kills(&kill_plan(100, seed)),
            points(Which::Some(200)),
            cuts(200),
            rot(300),
            controls(None),
            poison(),
        ],
        What::Full => vec![
            kills(&full_kill_plan(seed)),
            points(Which::All),
            cuts(2_000),
            rot(10_000),
            controls(None),
            poison(),
        ],
        What::For { minutes } => {
            let until = Instant::now() + Duration::from_secs_f64(minutes.max(0.0) * 60.0);
            vec![kills(&kills::Plan { until: Some(until), ..kill_plan(u64::MAX, seed) })]
        }
        What::Kills { kills: number } => vec![kills(&kill_plan(*number, seed))],
        What::Points { points: number } => vec![points(number.map_or(Which::All, Which::Some))],
        What::Cuts { cuts: number } => vec![cuts(*number)],
        What::Rot { corruptions } => vec![rot(*corruptions)],
        What::Controls { name } => vec![controls(name.as_deref())],
        What::Poison => vec![poison()],
    }
}

fn kill_plan(kills: u64, seed: u64) -> kills::Plan {
    kills::Plan {
        kills,
        kills_per_directory: 25,
        acknowledgements: (1, 200),
        threads: 12,
        until: None,
        end: End::Whole,
        on: On::Disk,
        seed,
    }
}

/// 1,000 kills with more than a million acknowledgements.
fn full_kill_plan(seed: u64) -> kills::Plan {
    let acknowledgements = (900, 1_300);
    kills::Plan { acknowledgements, threads: 32, kills_per_directory: 50, ..kill_plan(1_000, seed) }
}

/// So many writes to segments that are used again, at least, in each recording of power cuts.
const REUSED_WRITES_MIN: usize = 200;

fn cut_plan(cuts: u64, seed: u64) -> cuts::Plan {
    cuts::Plan {
        cuts,
        cuts_per_recording: 100,
        pairs: (cuts / 50).max(1),
        one_in: 10,
        acknowledgements: 10_000,
        reused_writes_min: REUSED_WRITES_MIN,
        restarts: cuts::Restarts::Once,
        end: End::Whole,
        seed,
    }
}
