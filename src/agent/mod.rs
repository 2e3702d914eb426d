//! The node-side program: dials out to a box, proves its key, offers its models, runs what it is assigned, and keeps every
//! result until the box has settled it.
//!
//! One task owns everything (`session`); what it decides is decided without a socket (`desk`, `hold`). Runtimes compute
//! on threads of their own and ring a bell when there is something to send.

mod backoff;
mod bells;
mod configuration;
mod control;
mod desk;
mod dial;
mod hold;
mod joined;
mod link;
mod offer;
mod report;
mod results;
mod session;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::coordinator::event::Environment;
use crate::datadir::{AgentDir, DataDirError};
use crate::ids::Region;
use crate::runtime::{Attempts, Catalog};
use crate::wire::{self, JoinString, Refusal};
use configuration::Configurations;
pub use control::{Ask, Reply};
use desk::{Desk, Parties};
use dial::Caller;
use joined::Joined;
pub use joined::JoinedError;
use offer::Offered;
pub use report::{Connection, Done, Model, Report, Running, Standing, World};
use results::Results;
use session::{Command, Parts, Session};

/// Owner's commands that wait to be looked at.
const COMMANDS_MAX: usize = 16;

/// What an agent is started with.
pub struct Options {
    /// Its directory.
    pub dir: AgentDir,
    /// What it runs.
    pub catalog: Arc<Catalog>,
    /// Where it wants to work; at least one.
    pub environments: Vec<Environment>,
    /// Where it stands.
    pub region: Option<Region>,
    /// How to join a box; needed once.
    pub join: Option<JoinString>,
    /// How long attempts may go on once it is told to stop.
    pub drain_deadline: Duration,
    /// Told, in a line, when the box has let the node in for the first time.
    pub announce: Box<dyn FnMut(&str) + Send>,
}

/// Why an agent didn't start, or gave up.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its box.
    #[error(transparent)]
    Joined(#[from] JoinedError),
    /// TLS.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
    /// The system.
    #[error("the system gives no thread: {0}")]
    Thread(std::io::Error),
    /// The socket for the owner's commands.
    #[error("can't listen on `{}` for the owner's commands: {error}; see to who owns the directory", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The box won't have it.
    #[error("the box won't let this node work: {0}")]
    Refused(Refusal),
}

/// Serves a box until `stop` closes and what runs has come to its end, or until the box won't have the node any more.
///
/// # Errors
/// When it can't start, or dialling again would be of no use.
pub async fn run(options: Options, stop: watch::Receiver<()>) -> Result<(), AgentError> {
    let Options { dir, catalog, environments, region, join, drain_deadline, announce } = options;
    let identity = Arc::new(dir.identity()?);
    let joined = Joined::load(&dir, join)?;
    let tls = tls::client_config(joined.tls).map_err(AgentError::Tls)?;
    let (answering, answers) = mpsc::unbounded_channel();
    let attempts = Attempts::new(Arc::clone(&catalog), Clock::start());
    let parties = Parties {
        identity: Arc::clone(&identity),
        box_key: joined.box_key,
        environments: environments.clone(),
    };
    let files = dir.results()?;
    let records =
        results::load(&files, &wire::Parties { box_key: joined.box_key, node_key: identity.public() })?;
    let kept = records.iter().map(|record| record.hold.reservation).collect();
    let configurations = Configurations::load(&dir, joined.box_key)?;
    let results = Results::start(files, kept).map_err(AgentError::Thread)?;
    let mut desk = Desk::new(
        parties,
        Offered::of(&catalog, region.clone()),
        attempts,
        answering,
        results,
        configurations,
    );
    if !records.is_empty() {
        tracing::info!(results = records.len(), "results of an earlier run wait to be settled");
    }
    desk.take_up(records);
    let socket = dir.free_socket()?;
    let listener = control::listen(&socket).map_err(|error| AgentError::Socket { path: socket, error })?;
    let (command, commands) = mpsc::channel(COMMANDS_MAX);
    tokio::spawn(leave_when_told(stop, command.clone()));
    tokio::spawn(control::serve(listener, command.clone()));
    tokio::spawn(offer_what_changes(catalog, region, command));
    tracing::info!(node = %identity.public().node(), url = joined.url, "the agent of this node starts");
    let caller = Caller { identity, joined, environments, tls };
    Session::new(Parts { dir, caller, desk, answers, commands, drain_deadline, announce }).run().await
}

async fn leave_when_told(mut stop: watch::Receiver<()>, command: mpsc::Sender<Command>) {
    while stop.changed().await.is_ok() {}
    // A session that ended has left already.
    let _ = command.send(Command::Leave).await;
}

/// Models of other servers come, go, and stop being ready.
async fn offer_what_changes(catalog: Arc<Catalog>, region: Option<Region>, command: mpsc::Sender<Command>) {
    loop {
        catalog.changed().await;
        let offered = Offered::of(&catalog, region.clone());
        if command.send(Command::Offer(Box::new(offered))).await.is_err() {
            return;
        }
    }
}
