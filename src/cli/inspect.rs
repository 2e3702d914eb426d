//! `switchbox model inspect`: what a GGUF file holds.

use std::path::PathBuf;

use clap::Args;

use super::CliError;

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The model's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    Err(CliError::Failed(format!("can't inspect `{}`: not built yet", args.file.display())))
}
