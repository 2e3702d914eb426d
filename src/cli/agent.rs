//! `switchbox agent`: runs a node for a box elsewhere, and lets its owner look at it and hold it back.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::control::{self, ControlArgs};
use super::served::ServedArgs;
use super::{CliError, logging};
use crate::agent::Ask;
use crate::config::{self, ConfigError};
use crate::coordinator::event::Environment;
use crate::datadir;
use crate::ids::Region;
use crate::serve::agent::Settings;
use crate::wire::JoinString;

const AFTER_HELP: &str = "\
The join string is needed once; later starts know the box by what DIR holds. When the box has let the node in, the
agent prints one line on stdout, `switchbox agent ready: NODE at URL`; logs go to stderr (SWITCHBOX_LOG=debug for more).
SIGTERM or Ctrl-C drains: what the box has seen output of goes on until the deadline, the rest goes back; a second one
stops at once.

Examples:
  switchbox agent --join STRING --model tiny=models/tiny.gguf
  switchbox agent --upstream http://127.0.0.1:11434  # all models of an Ollama, a vLLM or a llama.cpp server
  switchbox agent --model tiny=models/tiny.gguf --environment testnet --region eu-west
  switchbox agent status                            how it is, and why no work comes
  switchbox agent pause                             no new work, until `switchbox agent resume`";

/// Where an agent may compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Device {
    /// This machine's processor
    Cpu,
    /// An NVIDIA GPU: not built yet, an agent before a server that uses one does it
    Cuda,
}

/// Worlds that an agent may work in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// The default
    Mainnet,
    /// For tests: its credits never mix with mainnet's
    Testnet,
}

/// `switchbox agent` with flags runs one; with a command it talks to the one that runs.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true, subcommand_value_name = "OWNER'S COMMAND")]
pub(super) struct AgentArgs {
    #[command(subcommand)]
    owners: Option<OwnersCommand>,
    #[command(flatten)]
    start: StartArgs,
}

/// What an owner may want of the agent that runs.
#[derive(Debug, Subcommand)]
enum OwnersCommand {
    /// Show how it is: its connection, where it stands, why no work comes, what it runs and has earned
    Status(ControlArgs),
    /// Take no new work; what runs goes on
    Pause(ControlArgs),
    /// Take new work again
    Resume(ControlArgs),
    /// Take no new work, and end when what runs is through
    Drain(ControlArgs),
}

/// Flags of `switchbox agent`.
#[derive(Debug, Args)]
struct StartArgs {
    /// How to join a box: one line, as `switchbox nodes invite` prints it on the box. Needed once
    #[arg(long, value_name = "STRING")]
    join: Option<JoinString>,
    /// Where the agent keeps its key and what it knows of its box [default: $XDG_DATA_HOME/switchbox-agent or
    /// ~/.local/share/switchbox-agent]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    served: ServedArgs,
    /// Where to work, as far as the operator has registered the node for it. Repeat for both [default: mainnet]
    #[arg(long = "environment", value_name = "ENVIRONMENT")]
    environments: Vec<Where>,
    /// Where this machine stands, in the operator's words
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// What computes
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// Threads that compute [default: all cores, less one where there are more than two]
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// `human` or `json` [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// How long running jobs may go on once the agent is told to stop [default: 30s]
    #[arg(long, value_name = "SPAN")]
    drain_deadline: Option<String>,
}

/// Runs an agent, or asks the one that runs.
pub(super) fn run(args: AgentArgs) -> Result<(), CliError> {
    match args.owners {
        None => start(args.start),
        Some(OwnersCommand::Status(args)) => control::run(&args, Ask::Status),
        Some(OwnersCommand::Pause(args)) => control::run(&args, Ask::Pause),
        Some(OwnersCommand::Resume(args)) => control::run(&args, Ask::Resume),
        Some(OwnersCommand::Drain(args)) => control::run(&args, Ask::Drain),
    }
}

/// Checks what was said, starts logging, serves.
fn start(args: StartArgs) -> Result<(), CliError> {
    if args.device == Device::Cuda {
        let remedy = "leave it out to compute on the CPU, or run a server that uses the GPU and name it with `--upstream URL`";
        return Err(CliError::Usage(format!(
            "`--device cuda`: the built-in executor computes on CPUs only; {remedy}"
        )));
    }
    let flags = config::AgentFlags {
        served: args.served.into_flags(),
        threads: args.threads,
        log_format: args.log_format,
        drain_deadline: args.drain_deadline,
    };
    let config = config::AgentConfig::of_flags(flags)?;
    let data_dir = args.data_dir.or_else(datadir::agent_default_path);
    let settings = Settings {
        data_dir: data_dir.ok_or(CliError::Config(ConfigError::NoDataDir))?,
        join: args.join,
        served: config.served,
        executor: config.executor,
        environments: environments(&args.environments),
        region: args.region,
        drain_deadline: config.drain_deadline,
        announce: Box::new(|line| println!("{line}")),
    };
    logging::start(config.log_format)?;
    crate::serve::agent::run(settings).map_err(|error| match error.is_usage() {
        true => CliError::Usage(error.to_string()),
        false => CliError::Failed(error.to_string()),
    })
}

fn environments(named: &[Where]) -> Vec<Environment> {
    let is_named = |environment: &Environment| {
        let word = match environment {
            Environment::Mainnet => Where::Mainnet,
            Environment::Testnet => Where::Testnet,
        };
        named.contains(&word) || (named.is_empty() && *environment == Environment::Mainnet)
    };
    Environment::ALL.into_iter().filter(is_named).collect()
}
