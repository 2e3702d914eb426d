//! What an agent is told by its flags, checked like a box's.

use std::time::Duration;

use super::document::{ConfigError, Stated};
use super::settings::{number, span_ms};
use super::{Executor, LOG_FORMATS, LogFormat, Served, ServedFlags, choice, executor, served};

/// How long attempts may go on once an agent is told to stop, and at most.
const DRAIN_DEADLINE_MS: (u64, u64) = (30_000, 24 * 3_600_000);

/// An agent's flags, as they were written.
#[derive(Debug, Clone, Default)]
pub struct AgentFlags {
    /// What it runs.
    pub served: ServedFlags,
    /// `--threads`
    pub threads: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--drain-deadline`, a span as in `30s`
    pub drain_deadline: Option<String>,
}

/// What an agent's owner decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// What it runs.
    pub served: Served,
    /// The built-in executor.
    pub executor: Executor,
    /// How logs are written to stderr.
    pub log_format: LogFormat,
    /// How long attempts may go on once it is told to stop.
    pub drain_deadline: Duration,
}

impl AgentConfig {
    /// Checks what the flags say.
    ///
    /// # Errors
    /// At the first that can't be meant.
    pub fn of_flags(flags: AgentFlags) -> Result<Self, ConfigError> {
        let threads = number("--threads", flags.threads)?;
        let format = flags.log_format.map(|format| Stated::flag("--log-format", &format.clone(), format));
        let (default, most) = DRAIN_DEADLINE_MS;
        let drain_deadline_ms = match flags.drain_deadline {
            Some(span) => span_ms("--drain-deadline", &span)?.in_range(1, most, default)?,
            None => default,
        };
        Ok(Self {
            served: served(flags.served)?,
            executor: executor(threads.as_ref(), None)?,
            log_format: choice(format.as_ref(), &LOG_FORMATS)?.unwrap_or(LogFormat::Human),
            drain_deadline: Duration::from_millis(drain_deadline_ms),
        })
    }
}
