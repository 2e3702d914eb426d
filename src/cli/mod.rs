//! The command line: parses it, starts what it names and turns every failure into one line on stderr and an exit
//! code (0 done, 1 failed, 2 wrongly used). Decides nothing about jobs, and is the only part of the program that
//! prints.
#![allow(clippy::print_stdout, reason = "printing is what a command line is for")]

mod agent;
mod backup;
mod chat;
mod client;
mod control;
mod date;
mod doctor;
mod door;
mod inspect;
mod logging;
mod operate;
mod serve;
mod served;
mod sse;
mod terminal;
mod trace;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;
use crate::datadir::{self, DataDirError};
use crate::executor::ModelError;
use crate::serve::ServeError;

const EXAMPLES: &str = "\
Examples:
  switchbox serve --model tiny=models/tiny.gguf     serve a model on http://127.0.0.1:8080
  switchbox serve --model test=echo: --no-auth      try the API without a model and without keys
  switchbox chat                                    talk to the box that runs on this machine
  switchbox model inspect models/tiny.gguf          what is in a model file
  switchbox backup DIR TARGET                       a copy of the box in DIR, running or not";

/// One binary that queues and runs LLM inference behind an OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(name = "switchbox", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the box: queue, executor and API
    Serve(Box<serve::ServeArgs>),
    /// Run this machine's models for a box elsewhere, or look at the agent that does
    Agent(Box<agent::AgentArgs>),
    /// Talk to a model in the terminal
    Chat(chat::ChatArgs),
    /// Ask about jobs, end them, or try failed ones again
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Look at nodes, and decide who gets work
    #[command(subcommand)]
    Nodes(operate::NodesCommand),
    /// Look at groups of nodes, make them, and change who and what runs there
    #[command(subcommand)]
    Subclouds(operate::SubcloudsCommand),
    /// Look at what the nodes of an environment go by, and change it
    #[command(subcommand)]
    Snapshot(operate::SnapshotCommand),
    /// Look at namespaces, and settle their weight, trust and credit
    #[command(subcommand)]
    Namespaces(operate::NamespacesCommand),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(operate::KeysCommand),
    /// Hold back waiting jobs of a model, a namespace or a tier
    Pause(operate::ScopeArgs),
    /// Let them go on
    Resume(operate::ScopeArgs),
    /// Look at accounts, give credits, set prices
    #[command(subcommand)]
    Credits(operate::CreditsCommand),
    /// Add, list and remove the requests that nodes are checked with
    #[command(subcommand)]
    Templates(operate::TemplatesCommand),
    /// Look at model files
    #[command(subcommand)]
    Model(ModelCommand),
    /// Say what is wrong with a data directory, and what a start would do about it; changes nothing
    Doctor(doctor::DoctorArgs),
    /// Copy a whole box, running or not; a start on the copy is the restore
    Backup(backup::BackupArgs),
    /// Check a job's receipt: what its node and its box signed; asks nobody
    Verify(verify::VerifyArgs),
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// Show every decision on one job, with times and reasons
    Trace(trace::TraceArgs),
    /// Show where a job stands, and what came of its attempts
    Show(operate::JobArgs),
    /// End a job
    Cancel(operate::JobArgs),
    /// List jobs that failed, the newest first
    DeadLetters(operate::BoxArgs),
    /// Try a job that failed again, as a new job
    Requeue(operate::JobArgs),
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Show what a GGUF file holds
    Inspect(inspect::InspectArgs),
}

/// Where a box keeps its files.
#[derive(Debug, Args)]
struct DataDirArg {
    /// The box's data directory [default: $XDG_DATA_HOME/switchbox or ~/.local/share/switchbox]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDirArg {
    fn path(&self) -> Result<PathBuf, CliError> {
        self.data_dir.clone().or_else(datadir::default_path).ok_or(CliError::Config(ConfigError::NoDataDir))
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The box was told something that makes no sense.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The command was told something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The data directory can't be used.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// The box ended badly.
    #[error("{0}")]
    Serve(Box<ServeError>),
    /// The box can't be asked, or refused.
    #[error("{0}")]
    Client(#[from] client::ClientError),
    /// The model's file can't be used.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// There is no backup.
    #[error("{0}")]
    Backup(#[from] crate::backup::BackupError),
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
    /// stdin, stdout or a signal failed. Who closed our stdout is told nothing.
    #[error("input or output failed: {0}")]
    Io(#[from] std::io::Error),
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            CliError::Config(_) | CliError::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are "errors" of code 0.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Agent(args) => agent::run(*args),
        Command::Chat(args) => chat::run(args),
        Command::Jobs(command) => jobs(&command),
        Command::Nodes(command) => operate::nodes(&command),
        Command::Subclouds(command) => operate::subclouds(&command),
        Command::Snapshot(command) => operate::snapshot(&command),
        Command::Namespaces(command) => operate::namespaces(&command),
        Command::Keys(command) => operate::keys(&command),
        Command::Pause(args) => operate::pause(&args),
        Command::Resume(args) => operate::resume(&args),
        Command::Credits(command) => operate::credits(&command),
        Command::Templates(command) => operate::templates(&command),
        Command::Model(ModelCommand::Inspect(args)) => inspect::run(&args),
        Command::Doctor(args) => return doctor::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Verify(args) => return verify::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            error.exit_code()
        }
    }
}

/// Says on one line of stderr why a command failed.
fn complain(error: &dyn std::fmt::Display) {
    eprintln!("switchbox: {}", terminal::one_line(&error.to_string()));
}

fn jobs(command: &JobsCommand) -> Result<(), CliError> {
    match command {
        JobsCommand::Trace(args) => trace::run(args),
        JobsCommand::Show(args) => operate::job(args),
        JobsCommand::Cancel(args) => operate::cancel(args),
        JobsCommand::DeadLetters(args) => operate::dead_letters(args),
        JobsCommand::Requeue(args) => operate::requeue(args),
    }
}

/// The runtime of a command that talks to a box: one thread, this one.
fn client_runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("can't start: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn errors_map_to_exit_codes() {
        for (error, code) in [
            (CliError::Config(ConfigError::NoModel), 2),
            (CliError::Usage("x".into()), 2),
            (CliError::Failed("x".into()), 1),
        ] {
            assert_eq!(format!("{:?}", error.exit_code()), format!("{:?}", ExitCode::from(code)), "{error}");
        }
    }
}
