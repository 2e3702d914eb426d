//! Measurements of Switchbox, as ratios against a floor in the same run. Loopback only, bounded in time.
//!
//! What is measured runs in a process of its own; this process is the load and the clock.

mod admin;
mod child;
mod client;
mod fleet;
mod floor;
mod http;
mod load;
mod model;
mod nodes;
mod process;
mod report;
mod socket;
mod stats;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use switchbox_bench::sim;

/// Errors end the run with one line.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "Measures Switchbox against floors in the same run")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// HTTP-to-HTTP time of small jobs against a bare hyper echo.
    Http(http::HttpArgs),
    /// The same times over two hops, by an agent, against two hops without logic.
    Nodes(nodes::NodesArgs),
    /// Many connected agents: memory, heartbeats, dead ones, and all coming back at once.
    Fleet(fleet::FleetArgs),
    /// Prefill and decode of a model through the server, and its peak memory.
    Model(model::ModelArgs),
    /// Simulated worlds around the coordinator, judged by an oracle.
    Sim(SimArgs),
    /// A process of a floor; ends when its standard input does.
    #[command(hide = true)]
    Floor(floor::FloorArgs),
}

/// What both measurements take.
#[derive(Args)]
pub(crate) struct CommonArgs {
    /// The binary to measure [default: `switchbox` beside this one].
    #[arg(long)]
    switchbox: Option<PathBuf>,
    /// Where the server's data directory is made, and removed again.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_parent: PathBuf,
    /// Rounds at most; numbers are medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Also writes the results here, as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Which worlds to run.
#[derive(Args)]
struct SimArgs {
    /// Seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Plants a bug, by name, and looks whether it is found; `all` plants each in turn.
    #[arg(long)]
    mutant: Option<String>,
    /// Runs this seed alone and tells all about it.
    #[arg(long)]
    replay: Option<u64>,
    /// Feeds so many arbitrary events instead.
    #[arg(long)]
    fuzz: Option<u64>,
    /// Measures instead what comparing a few nodes only costs, in worlds of so many nodes.
    #[arg(long)]
    regret: Option<usize>,
    /// Runs instead boxes with nodes that lie, and measures how soon they are excluded.
    #[arg(long)]
    liars: bool,
    /// Threads to run seeds on.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl SimArgs {
    fn run(&self) -> std::result::Result<(), String> {
        let seeds = sim::Seeds { from: self.from, count: self.seeds, threads: self.threads };
        if let Some(events) = self.fuzz {
            return sim::fuzz(events, self.from);
        }
        if let Some(nodes) = self.regret {
            return sim::regret(nodes, self.from);
        }
        if self.liars {
            return sim::liars(self.seeds, self.from);
        }
        let mutant = match self.mutant.as_deref() {
            Some("all") => return sim::run_all(seeds),
            named => named.map(sim::named).transpose()?,
        };
        match self.replay {
            Some(seed) => sim::replay(seed, mutant),
            None => sim::run(seeds, mutant),
        }
    }
}

impl CommonArgs {
    fn switchbox(&self) -> Result<PathBuf> {
        let path = match &self.switchbox {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("switchbox"),
        };
        if !path.is_file() {
            return Err(format!("{} isn't there: build it, or name it by --switchbox", path.display()).into());
        }
        Ok(path)
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Http(args) => child::end_on_signal().and_then(|()| http::run(&args)),
        Command::Nodes(args) => child::end_on_signal().and_then(|()| nodes::run(&args)),
        Command::Fleet(args) => child::end_on_signal().and_then(|()| fleet::run(&args)),
        Command::Model(args) => child::end_on_signal().and_then(|()| model::run(&args)),
        Command::Sim(args) => args.run().map_err(Into::into),
        Command::Floor(args) => floor::serve(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchbox-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
