//! The owner's controls: a Unix socket in the agent's directory, which only its user can reach. One line in, one line of
//! JSON out.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::report::Report;
use super::session::Command;

/// Connections that are served at once; others wait.
const CONNECTIONS_MAX: usize = 8;
/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 256;
/// How long a request may take to come, and to be answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// A wait after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an owner may ask for. Each is answered with a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// How it is.
    Status,
    /// No new work.
    Pause,
    /// New work again.
    Resume,
    /// No new work, and the agent ends when it is through.
    Drain,
}

impl Ask {
    /// As it is written on the socket.
    pub fn word(self) -> &'static str {
        match self {
            Ask::Status => "status",
            Ask::Pause => "pause",
            Ask::Resume => "resume",
            Ask::Drain => "drain",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Ask::Status, Ask::Pause, Ask::Resume, Ask::Drain].into_iter().find(|ask| ask.word() == word)
    }
}

/// What comes back over the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done; so things stand.
    Report(Box<Report>),
    /// It wasn't, for this reason.
    Refused(String),
}

/// Opens the socket for this user alone.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves owners for ever.
pub(super) async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the owner's socket refused a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let commands = commands.clone();
        tokio::spawn(async move {
            // Whoever is too slow, or left, is let go.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, commands)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: UnixStream, commands: mpsc::Sender<Command>) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new((&mut stream).take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let reply = match Ask::of(line.trim()) {
        Some(ask) => {
            let (reply, answered) = oneshot::channel();
            // A session that ended answers nothing.
            let _ = commands.send(Command::Asked(ask, reply)).await;
            answered.await.unwrap_or_else(|_| Reply::Refused("the agent is ending".to_owned()))
        }
        None => Reply::Refused("the agent knows `status`, `pause`, `resume` and `drain`".to_owned()),
    };
    let mut line = serde_json::to_vec(&reply).unwrap_or_default();
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}
