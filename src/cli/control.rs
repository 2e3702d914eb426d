//! Asks the agent that runs on a data directory, through its socket there.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::CliError;
use super::terminal::printable;
use crate::agent::{Ask, Reply};
use crate::config::ConfigError;
use crate::datadir;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of an answer.
const REPLY_BYTES_MAX: u64 = 4 << 20;

/// Which agent is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct ControlArgs {
    /// The agent's data directory [default: $XDG_DATA_HOME/switchbox-agent or ~/.local/share/switchbox-agent]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Asks, and prints how things are then.
pub(super) fn run(args: &ControlArgs, ask: Ask) -> Result<(), CliError> {
    let data_dir = args.data_dir.clone().or_else(datadir::agent_default_path);
    let data_dir = data_dir.ok_or(CliError::Config(ConfigError::NoDataDir))?;
    let socket = datadir::socket_in(&data_dir)?;
    let failed = |error: std::io::Error| {
        let directory = data_dir.display();
        CliError::Failed(format!(
            "no agent answers on `{directory}` ({error}): start it with `switchbox agent`, or name its directory with \
             `--data-dir DIR`"
        ))
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let patience = Some(PATIENCE);
    stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)).map_err(failed)?;
    let mut answer = String::new();
    stream
        .write_all(format!("{}\n", ask.word()).as_bytes())
        .and_then(|()| stream.take(REPLY_BYTES_MAX).read_to_string(&mut answer))
        .map_err(failed)?;
    let reply: Reply = serde_json::from_str(&answer).map_err(|error| {
        CliError::Failed(format!(
            "the agent answers what this program can't read ({error}): use the same version"
        ))
    })?;
    match reply {
        Reply::Refused(reason) => Err(CliError::Failed(reason)),
        Reply::Report(report) if args.json => {
            // It came as JSON, so it can be that again.
            println!("{}", serde_json::to_string(&report).unwrap_or_default());
            Ok(())
        }
        Reply::Report(report) => {
            report.to_string().lines().for_each(|line| println!("{}", printable(line)));
            Ok(())
        }
    }
}
