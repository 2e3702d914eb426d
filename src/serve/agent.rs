//! An agent: puts its pieces together and serves its box until told to stop. Wiring only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ServeError, give_way, models, raise_files_limit};
use crate::agent::{self, AgentError, JoinedError};
use crate::config::{Executor, Limits, Served};
use crate::coordinator::event::Environment;
use crate::datadir::{AgentDir, DataDirError, Kept};
use crate::ids::Region;
use crate::wire::JoinString;

/// Files that an agent may have open.
const FILES: u64 = 1_024;

/// What an agent is told.
pub struct Settings {
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    /// How to join a box; needed once.
    pub join: Option<JoinString>,
    /// What it runs.
    pub served: Served,
    /// The built-in executor.
    pub executor: Executor,
    /// Where it wants to work; at least one.
    pub environments: Vec<Environment>,
    /// Where it stands.
    pub region: Option<Region>,
    /// How long attempts may go on once it is told to stop.
    pub drain_deadline: Duration,
    /// Told, in a line, when the box has let the node in for the first time.
    pub announce: Box<dyn FnMut(&str) + Send>,
}

/// Why an agent didn't start, or gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A model, or the system.
    #[error(transparent)]
    Serve(#[from] Box<ServeError>),
    /// Its box.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl RunError {
    /// Whether it was told too little to start.
    pub fn is_usage(&self) -> bool {
        matches!(self, RunError::Agent(AgentError::Joined(JoinedError::Never)))
    }
}

/// Starts an agent and serves until a signal has drained it, or its box won't have it.
///
/// # Errors
/// When it can't start, or gave up. A second signal doesn't return: it ends the process.
pub fn run(settings: Settings) -> Result<(), RunError> {
    raise_files_limit(FILES);
    let dir = AgentDir::open(&settings.data_dir)?;
    let refused = |error: ServeError| RunError::Serve(Box::new(error));
    let catalog = models::load(&settings.served, &settings.executor, &Limits::default());
    let catalog = Arc::new(catalog.map_err(|error| refused(error.into()))?);
    let kept = dir.load(Kept::Digests)?;
    let named = models::name_files(&catalog, &settings.served, kept.as_deref().map(Vec::as_slice));
    if let Some(digests) = named.map_err(|error| refused(error.into()))? {
        dir.keep(Kept::Digests, &digests)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(give_way)
        .build()
        .map_err(|error| refused(ServeError::System { what: "an io runtime", error }))?;
    let stop = crate::signals::listen()
        .map_err(|error| refused(ServeError::System { what: "signal handlers", error }))?;
    let options = agent::Options {
        dir,
        catalog: Arc::clone(&catalog),
        environments: settings.environments,
        region: settings.region,
        join: settings.join,
        drain_deadline: settings.drain_deadline,
        announce: settings.announce,
    };
    let outcome = runtime.block_on(async {
        models::watch(&catalog).await;
        // A task: waking what `block_on` itself waits for takes a system call, each time.
        tokio::spawn(agent::run(options, stop)).await
    });
    let outcome = outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    // The executor's threads may still be at it; the process ends right after this.
    std::mem::forget(runtime);
    Ok(outcome?)
}
