//! Sessions of agents, the box's side: WebSockets that the HTTP listener upgraded, from the handshake to the close.
//!
//! A session proves and is proven, turns messages into events and mail into messages, and writes output where readers
//! wait for it. Signatures are checked here, before the queue; nothing is decided here, and nothing stored.

#[cfg(test)]
mod fuzz;
mod handshake;
mod incoming;
mod joining;
mod outgoing;
mod pace;
mod roster;
mod session;
mod snapshots;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::arrivals::{Arrival, Arriving};
use crate::door::Door;
use crate::node::remote::Gate;
use crate::node::tally::NodesTally;
use crate::runtime::Catalog;
use crate::wire::{CloseCode, Identity, Refusal};
use roster::Roster;
use snapshots::Snapshots;
use socket::Socket;

/// How long things on a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the upgrade to `ready`.
    pub handshake: Duration,
    /// Silence after which the peer is pinged.
    pub ping: Duration,
    /// Silence after which it counts as dead.
    pub silence: Duration,
}

/// What all sessions share.
pub struct NodesParts {
    /// Into the queue, for events of nodes.
    pub gate: Gate,
    /// The way to the core, for who isn't a node of the box yet.
    pub door: Door,
    /// What the box serves itself, and knows to be served by nodes.
    pub catalog: Arc<Catalog>,
    /// The box's own key.
    pub identity: Arc<Identity>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What came of it.
    pub tally: Arc<NodesTally>,
}

/// What all sessions share, with who is connected.
struct Nodes {
    parts: NodesParts,
    roster: Arc<Roster>,
    snapshots: Snapshots,
}

/// Serves agents until `stopped` has no sender any more; then tells those that are here, and ends.
pub async fn serve(mut arriving: Arriving, parts: NodesParts, stopped: watch::Receiver<()>) {
    let nodes = Arc::new(Nodes { parts, roster: Arc::default(), snapshots: Snapshots::default() });
    let mut sessions = JoinSet::new();
    let mut stop = stopped.clone();
    loop {
        tokio::select! {
            arrival = arriving.recv() => match arrival {
                Some(arrival) => {
                    sessions.spawn(converse(Arc::clone(&nodes), arrival, stopped.clone()));
                }
                None => break,
            },
            Some(_) = sessions.join_next() => {}
            _ = gone(&mut stop) => break,
        }
    }
    while sessions.join_next().await.is_some() {}
}

/// Ready once the sending side is gone.
async fn gone(stopped: &mut watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// How a connection ended.
enum Ending {
    /// It is to be closed, for this reason.
    Close(Refusal),
    /// The peer closed it, with this code.
    Closed(u16),
    /// It is gone.
    Broken,
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Ending::Close(refusal)
    }
}

impl From<socket::Lost> for Ending {
    fn from(lost: socket::Lost) -> Self {
        match lost {
            socket::Lost::Gone => Ending::Broken,
            socket::Lost::Wrong(refusal) => Ending::Close(refusal),
        }
    }
}

/// One connection, from its upgrade to its end.
async fn converse(nodes: Arc<Nodes>, arrival: Arrival, stopped: watch::Receiver<()>) {
    let Arrival { upgrade, from, place } = arrival;
    // Who doesn't take the answer to his upgrade has as long as for the handshake.
    let upgraded = tokio::time::timeout(nodes.parts.timeouts.handshake, upgrade).await;
    let Ok(Ok(upgraded)) = upgraded else { return };
    let tally = &nodes.parts.tally;
    tally.connections.add();
    let mut socket = Socket::new(TokioIo::new(upgraded));
    let (node, ending) = session::run(&nodes, &mut socket, stopped).await;
    let node = node.as_ref().map(ToString::to_string);
    let ip = from.map(|ip| ip.to_string());
    match ending {
        Ending::Close(refusal) => {
            tally.closed(refusal.code);
            told(&refusal, node.as_deref(), ip.as_deref());
            socket.close(&refusal).await;
        }
        Ending::Closed(code) => {
            tally.closed(CloseCode::of(code).unwrap_or(CloseCode::Normal));
            tracing::info!(node, ip, code, "an agent closed its connection");
            socket.closed().await;
        }
        Ending::Broken => {
            tally.broken.add();
            tracing::info!(node, ip, "an agent's connection broke");
        }
    }
    drop(place);
}

/// Says in the log why the box closes a connection.
fn told(refusal: &Refusal, node: Option<&str>, ip: Option<&str>) {
    let (code, reason) = (refusal.code.code(), refusal.reason.as_str());
    match refusal.code {
        CloseCode::Normal | CloseCode::Restarting | CloseCode::Drained | CloseCode::Superseded => {
            tracing::info!(node, ip, code, reason, "an agent's connection was closed");
        }
        _ => tracing::warn!(node, ip, code, reason, "an agent's connection was closed"),
    }
}
