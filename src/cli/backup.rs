//! `switchbox backup`: a copy of a whole box. A box that runs makes it itself; one that doesn't is copied as it lies.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Address, Client};
use super::terminal::printable;
use super::{CliError, client_runtime};
use crate::backup::{self, BackedUp};
use crate::datadir::{DataDirError, Published, Quiet};

#[derive(Debug, Args)]
#[command(
    after_help = "The copy holds the box's keys. To restore, start on it: `switchbox serve --data-dir TARGET ...`; for a \
                  clone that runs beside the original, add `--as-new-identity`.\n\n\
                  Example:\n  switchbox backup ~/.local/share/switchbox /backups/box-monday"
)]
pub(super) struct BackupArgs {
    /// The box's data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where to: a directory that isn't there, or is empty. Until it is whole it is called TARGET.unfinished
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BackupArgs) -> Result<(), CliError> {
    let target = std::path::absolute(&args.target)?;
    let made = match Quiet::hold(&args.dir) {
        Ok(held) if held.is_a_boxs() => backup::make_of_quiet(&held, &target)?,
        Ok(_) => {
            return Err(CliError::Usage(format!("`{}` is no box's data directory", args.dir.display())));
        }
        Err(DataDirError::InUse { .. }) => {
            let target = target.to_str().ok_or_else(|| {
                CliError::Usage("the target's path isn't UTF-8, so a running box can't be told it".into())
            })?;
            asked_of_the_box(args, target)?
        }
        Err(error) => return Err(error.into()),
    };
    let text = if args.json {
        format!(
            "{:#}\n",
            json!({"target": made.target.to_string_lossy(), "bytes": made.bytes, "lsn": made.lsn})
        )
    } else {
        format!("backed up to {} ({} bytes)\n", made.target.display(), made.bytes)
    };
    Ok(std::io::stdout().write_all(printable(&text).as_bytes())?)
}

/// Has the box that runs make it.
fn asked_of_the_box(args: &BackupArgs, target: &str) -> Result<BackedUp, CliError> {
    let published = Published::at(&args.dir)?;
    let address = published.admin_addr().map_err(|error| {
        CliError::Failed(format!(
            "the directory is in use, but its box can't be asked yet, or any more: {error}"
        ))
    })?;
    let address = Address::parse(&address)?;
    let client = Client::new(address, Some(published.admin_token()?.text()))?;
    let body = json!({"target": target}).to_string().into_bytes();
    let answer: Value = client_runtime()?.block_on(client.call(Method::POST, "/admin/backup", body))?;
    let made = (answer["target"].as_str(), answer["bytes"].as_u64());
    let (Some(target), Some(bytes)) = made else {
        return Err(client.unreadable("it doesn't say what was made").into());
    };
    Ok(BackedUp { target: target.into(), bytes, lsn: answer["lsn"].as_u64() })
}
