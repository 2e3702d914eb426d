//! The programs that the rig runs, built by it where they aren't given.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The product as it is shipped.
    pub product: PathBuf,
    /// The same with bugs that can be planted, and a small store.
    pub rack: PathBuf,
    /// The library that is preloaded.
    pub recorder: PathBuf,
}

impl Tools {
    /// Builds them in the profile that this program was built in, beside it.
    ///
    /// # Errors
    /// When cargo can't.
    pub fn build() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let beside = own.parent().ok_or("this program lies nowhere")?;
        let profile: &[&str] =
            if beside.file_name().is_some_and(|name| name == "release") { &["--release"] } else { &[] };
        let target = beside.parent().ok_or("this program lies nowhere")?;
        cargo(target, profile, &["-p", "switchbox", "--bin", "switchbox"])?;
        cargo(target, profile, &["-p", "switchbox-recorder"])?;
        cargo(target, profile, &["-p", "switchbox-torture", "--bin", "switchbox-on-the-rack"])?;
        Ok(Self::in_dir(beside))
    }

    /// Takes those beside this program as they are: a run of hours isn't to change when somebody builds meanwhile.
    ///
    /// # Errors
    /// When one isn't there.
    pub fn built() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let tools = Self::in_dir(own.parent().ok_or("this program lies nowhere")?);
        let programs = [&tools.product, &tools.rack, &tools.recorder];
        if let Some(missing) = programs.into_iter().find(|path| !path.is_file()) {
            return Err(format!("`{}` isn't there: run without --built", missing.display()));
        }
        Ok(tools)
    }

    fn in_dir(dir: &Path) -> Self {
        Self {
            product: dir.join("switchbox"),
            rack: dir.join("switchbox-on-the-rack"),
            recorder: dir.join("libswitchbox_recorder.so"),
        }
    }
}

fn cargo(target: &Path, profile: &[&str], what: &[&str]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--target-dir"]).arg(target);
    command.args(profile).args(what);
    let status = command.status().map_err(|error| format!("cargo can't be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo build {} failed", what.join(" "))) }
}
