//! Connections on their way from the HTTP listener, which upgraded them, to the sessions of nodes. Bounded: what finds
//! no room isn't upgraded.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use tokio::sync::mpsc;

/// Upgraded connections that nobody has taken yet. They are taken at once, but not before the connections that are
/// upgraded in the same moment: a whole fleet comes back at once when its network does.
const WAITING_MAX: usize = 2_048;

/// What a connection keeps as long as it lives: its place among all connections.
#[derive(Clone)]
pub struct Place(#[expect(dead_code, reason = "keeping it is all")] Arc<dyn Any + Send + Sync>);

impl Place {
    /// Keeps that.
    pub fn new(kept: Arc<dyn Any + Send + Sync>) -> Self {
        Self(kept)
    }
}

/// A connection that becomes a WebSocket.
pub struct Arrival {
    /// Ready once the answer to the upgrade is sent.
    pub upgrade: OnUpgrade,
    /// From where; `None` through a Unix socket.
    pub from: Option<IpAddr>,
    /// Its place among the connections.
    pub place: Option<Place>,
}

/// Where the listener puts them.
#[derive(Clone)]
pub struct Arrivals(mpsc::Sender<Arrival>);

/// Where they are taken from.
pub type Arriving = mpsc::Receiver<Arrival>;

impl Arrivals {
    /// A way for connections, with its end.
    pub fn new() -> (Self, Arriving) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Room for one, if there is any.
    pub fn room(&self) -> Option<mpsc::OwnedPermit<Arrival>> {
        self.0.clone().try_reserve_owned().ok()
    }
}
