//! `switchbox-torture`: runs the rig's phases and says what they did and found.
#![allow(clippy::print_stdout, reason = "the rig's report is its output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use switchbox_torture::kills;
use switchbox_torture::report::Report;
use switchbox_torture::scratch::On;
use switchbox_torture::tools::Tools;

#[derive(Debug, Parser)]
#[command(about = "Kills, cuts and rots boxes, and checks that nothing that was acknowledged is lost")]
struct Arguments {
    /// What the choices follow from
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let tools = match Tools::build() {
        Ok(tools) => tools,
        Err(problem) => {
            eprintln!("switchbox-torture: {problem}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let reports = run(&arguments, &tools);
    println!("{:<10} {:.1} s", "all", begun.elapsed().as_secs_f64());
    let is_clean = reports.iter().all(|report| report.found.is_empty());
    println!(
        "{}",
        if is_clean { "nothing acknowledged was lost, nothing was charged twice" } else { "FAILED" }
    );
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Shows a report as soon as there is one.
fn shown(report: Report) -> Report {
    println!("{report}");
    report
}

fn run(arguments: &Arguments, tools: &Tools) -> Vec<Report> {
    let seed = arguments.seed;
    match &arguments.what {
        What::For { minutes } => {
            let until = Instant::now() + Duration::from_secs_f64(minutes.max(0.0) * 60.0);
            let plan = kills::Plan { kills: u64::MAX, until: Some(until), ..kill_plan(seed) };
            vec![shown(kills::run(&tools.product, &[], &plan))]
        }
        What::Kills { kills } => {
            vec![shown(kills::run(&tools.product, &[], &kills::Plan { kills: *kills, ..kill_plan(seed) }))]
        }
    }
}

fn kill_plan(seed: u64) -> kills::Plan {
    kills::Plan {
        kills: 100,
        kills_per_directory: 25,
        acknowledgements: (1, 200),
        threads: 12,
        until: None,
        on: On::Disk,
        seed,
    }
}
