//! One connection for each node: the newest. An older one is told, and a newer one joins only once the core has heard
//! that the older one left, so that nothing of one is ever taken for the other's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedMutexGuard, watch};

use crate::ids::{NodeId, Session};
use crate::sync::lock;
use crate::time::Time;

/// Who is connected, or connecting.
#[derive(Default)]
pub(super) struct Roster {
    nodes: Mutex<HashMap<NodeId, Entry>>,
    newest: Mutex<Session>,
}

struct Entry {
    newest: watch::Sender<Session>,
    /// Held by the connection that the core knows.
    seat: Arc<tokio::sync::Mutex<()>>,
    connections: usize,
}

/// A connection's place among those of its node.
pub(super) struct Standby {
    roster: Arc<Roster>,
    node: NodeId,
    session: Session,
    newest: watch::Receiver<Session>,
    seat: Arc<tokio::sync::Mutex<()>>,
}

/// The one connection that the core knows; dropped after it was told that it left.
pub(super) struct Seat(#[expect(dead_code, reason = "holding it is all")] OwnedMutexGuard<()>);

impl Roster {
    /// A new connection of a node: from now on the others are superseded. Its number grows, over restarts too.
    pub(super) fn enter(this: &Arc<Self>, node: &NodeId, now: Time) -> Standby {
        let session = {
            let mut newest = lock(&this.newest);
            *newest = Session((newest.0 + 1).max(now.0));
            *newest
        };
        let mut nodes = lock(&this.nodes);
        let entry = nodes.entry(node.clone()).or_insert_with(|| Entry {
            newest: watch::Sender::new(session),
            seat: Arc::default(),
            connections: 0,
        });
        entry.connections += 1;
        entry.newest.send_replace(session);
        let (newest, seat) = (entry.newest.subscribe(), Arc::clone(&entry.seat));
        Standby { roster: Arc::clone(this), node: node.clone(), session, newest, seat }
    }
}

impl Standby {
    /// Its number.
    pub(super) fn session(&self) -> Session {
        self.session
    }

    /// Ready once a newer connection of the node has come.
    pub(super) async fn superseded(&mut self) {
        let own = self.session;
        // The sender is in the roster as long as this is.
        let _ = self.newest.wait_for(|newest| *newest > own).await;
    }

    /// Waits until every older connection has left. `None` if a newer one came meanwhile.
    pub(super) async fn seat(&mut self) -> Option<Seat> {
        let seat = Arc::clone(&self.seat);
        tokio::select! {
            biased;
            () = self.superseded() => None,
            guard = seat.lock_owned() => Some(Seat(guard)),
        }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let mut nodes = lock(&self.roster.nodes);
        if let Some(entry) = nodes.get_mut(&self.node) {
            entry.connections -= 1;
            if entry.connections == 0 {
                nodes.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test);
    }

    #[test]
    fn a_newer_connection_waits_for_the_older_and_supersedes_it() {
        run(async {
            let roster = Arc::new(Roster::default());
            let node = NodeId::named("node_a");
            let mut first = Roster::enter(&roster, &node, Time(10));
            assert_eq!(first.session(), Session(10));
            let seat = first.seat().await.expect("it is free");
            let mut second = Roster::enter(&roster, &node, Time(10));
            assert_eq!(second.session(), Session(11));
            first.superseded().await;
            let mut third = Roster::enter(&roster, &node, Time(9));
            assert!(second.seat().await.is_none(), "a newer one came before it was its turn");
            drop((second, seat));
            assert!(third.seat().await.is_some());
            drop((first, third));
            assert!(lock(&roster.nodes).is_empty());
        });
    }

    #[test]
    fn nodes_dont_meet() {
        run(async {
            let roster = Arc::new(Roster::default());
            let mut a = Roster::enter(&roster, &NodeId::named("node_a"), Time(1));
            let mut b = Roster::enter(&roster, &NodeId::named("node_b"), Time(1));
            let (a, b) = (a.seat().await, b.seat().await);
            assert!(a.is_some() && b.is_some());
        });
    }
}
