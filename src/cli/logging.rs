//! Logs go to stderr: lines for people, or JSON. stdout belongs to what a command was asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::CliError;
use crate::config::LogFormat;

/// The variable with the filter, written as for `RUST_LOG`.
const FILTER_VARIABLE: &str = "SWITCHBOX_LOG";
const FILTER_DEFAULT: &str = "info";

/// Starts logging; once in a process.
pub(super) fn start(format: LogFormat) -> Result<(), CliError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CliError::Failed(format!("can't start logging: {error}")))
}

fn filter(text: Option<String>) -> Result<EnvFilter, CliError> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or_else(|| FILTER_DEFAULT.to_owned());
    EnvFilter::try_new(&text).map_err(|error| {
        CliError::Usage(format!(
            "`{FILTER_VARIABLE}={text}`: isn't a log filter ({error}); write a level (error, warn, info, debug, \
             trace) or targets with levels, for example `info,switchbox::api=debug`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for (text, expected) in [
            (None, "info"),
            (Some(" "), "info"),
            (Some("debug"), "debug"),
            (Some("switchbox=trace"), "switchbox=trace"),
        ] {
            let filter = filter(text.map(str::to_owned)).expect("a filter");
            assert_eq!(filter.to_string(), expected);
        }
        let error = filter(Some("switchbox=loud".into())).expect_err("no level").to_string();
        for part in ["SWITCHBOX_LOG", "switchbox=loud", "for example"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
