//! `switchbox snapshot`: what the nodes of an environment go by.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::show::{Answer, text};
use super::{BoxArgs, CliError, object, run};

/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 768 << 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// Of which environment: mainnet or testnet [default: mainnet]
    #[arg(long, value_parser = ["mainnet", "testnet"])]
    environment: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "What the file doesn't say has its default, not what was in force. The subclouds of the environment \
                        are taken in as they are now.\n\nExample:\n  switchbox snapshot show > nodes.toml     then change it\n  \
                        switchbox snapshot apply nodes.toml"
)]
pub(in crate::cli) struct ApplyArgs {
    /// TOML: [[model]] sections, [participation], [penalties], [timeouts]
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Of which environment: mainnet or testnet [default: mainnet]
    #[arg(long, value_parser = ["mainnet", "testnet"])]
    environment: Option<String>,
    #[command(flatten)]
    which: BoxArgs,
}

/// What an operator does with configuration snapshots.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SnapshotCommand {
    /// Print the one in force as a file that can be changed and applied
    Show(ShowArgs),
    /// Put a file in force: the nodes of the environment are told, fetch it and check the box's signature
    Apply(ApplyArgs),
}

pub(in crate::cli) fn snapshot(command: &SnapshotCommand) -> Result<(), CliError> {
    match command {
        SnapshotCommand::Show(args) => {
            let query = args.environment.as_ref().map(|word| format!("?environment={word}"));
            let path = format!("/admin/snapshot{}", query.unwrap_or_default());
            run(&args.which, Method::GET, &path, None, file)
        }
        SnapshotCommand::Apply(args) => {
            let body = object([
                ("environment", args.environment.as_ref().map(|word| json!(word))),
                ("name", Some(json!(args.file.display().to_string()))),
                ("file", Some(json!(args.read()?))),
            ]);
            run(&args.which, Method::POST, "/admin/snapshot", Some(body), applied)
        }
    }
}

impl ApplyArgs {
    fn read(&self) -> Result<String, CliError> {
        let path = self.file.display();
        let failed =
            |problem: String| CliError::Usage(format!("can't read `{path}`: {problem}; name a file of TOML"));
        let file = std::fs::File::open(&self.file).map_err(|error| failed(error.to_string()))?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        Ok(text)
    }
}

fn file(answer: &Answer) -> String {
    answer.get("file").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn applied(answer: &Answer) -> String {
    let value = |key: &str| answer.get(key).map(text).unwrap_or_default();
    let what = match answer.get("changed").and_then(Value::as_bool) {
        Some(false) => "is in force already: nothing changed",
        _ => "is in force",
    };
    format!(
        "configuration {} of {} {what}\n  SHA-256 {}\n",
        value("version"),
        value("environment"),
        value("digest")
    )
}
