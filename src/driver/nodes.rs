//! What is published to nodes: assignments, stops and words, into the outbox of whoever serves there.

use std::sync::Arc;

use super::{Driver, NodeLink, Whose};
use crate::coordinator::effect::{Assignment, NodeMessage, When};
use crate::coordinator::event::{Declined, Event, NodeGone};
use crate::ids::{NodeId, ReservationId};
use crate::node::NodeMail;
use crate::node::attempt::RemoteAttempt;
use crate::node::remote::{RemoteLink, RemoteMail};
use crate::outbox::Outbox;

impl Driver {
    pub(super) fn assign(&mut self, node: &NodeId, assignment: Assignment, when: When) {
        let reservation = assignment.reservation;
        let (outbox, room) = match self.nodes.get(node) {
            Some(NodeLink::Local { outbox, room }) => (outbox, room),
            Some(NodeLink::Remote(link)) => {
                let link = Arc::clone(link);
                return self.assign_remote(node, &link, assignment, when);
            }
            None => return self.decline(node, reservation),
        };
        let output = self.outputs.get(&reservation).map(|opened| Arc::clone(&opened.output));
        let slot = output.and_then(|output| {
            let slot = room.take(reservation, &output)?;
            Some((output, slot))
        });
        let Some((output, slot)) = slot else { return self.decline(node, reservation) };
        outbox.push(NodeMail::Assign { assignment, output, slot }, when);
        self.wake_nodes.push(Arc::clone(outbox));
    }

    fn decline(&mut self, node: &NodeId, reservation: ReservationId) {
        let reason = "the node has no room for what it would answer".to_owned();
        let node = node.clone();
        self.local.push_back(Event::Declined(Declined { node, reservation, reason }));
    }

    fn assign_remote(&mut self, node: &NodeId, link: &Arc<RemoteLink>, assignment: Assignment, when: When) {
        let reservation = assignment.reservation;
        let Some(attempt) = self.remote_attempt(node.clone(), assignment) else { return };
        if link.offer(RemoteMail::Assign(attempt), when).is_err() {
            // Its session ends, and will say so: but not before the core would have given it more.
            let (node, session) = (node.clone(), link.session());
            let undelivered = vec![reservation];
            self.local.push_back(Event::NodeGone(NodeGone { node, session, undelivered }));
        }
        self.wake_sessions.push(Arc::clone(link));
    }

    /// Enters an attempt that a remote node has, or may have; `None` where its output isn't open.
    pub(super) fn remote_attempt(
        &mut self,
        node: NodeId,
        assignment: Assignment,
    ) -> Option<Arc<RemoteAttempt>> {
        let opened = self.outputs.get_mut(&assignment.reservation)?;
        opened.whose = Whose::Remote;
        let attempt = RemoteAttempt::new(node, assignment, Arc::clone(&opened.output));
        self.attempts.insert(Arc::clone(&attempt));
        Some(attempt)
    }

    pub(super) fn tell_node(&mut self, node: &NodeId, message: NodeMessage, when: When) {
        // The box itself needs no words, and who is away hears them when it is back.
        if let Some(NodeLink::Remote(link)) = self.nodes.get(node) {
            let _ = link.offer(RemoteMail::Message(message), when);
            self.wake_sessions.push(Arc::clone(link));
        }
    }

    /// A connection ended: what is for its node can't be sent.
    pub(super) fn unlink(&mut self, gone: &NodeGone) {
        let is_its =
            |link: &NodeLink| matches!(link, NodeLink::Remote(link) if link.session() == gone.session);
        if self.nodes.get(&gone.node).is_some_and(is_its) {
            self.nodes.remove(&gone.node);
        }
    }

    pub(super) fn stop(&mut self, node: &NodeId, reservation: ReservationId) {
        let taken_back = match self.nodes.get(node) {
            None => return,
            Some(NodeLink::Local { outbox, .. }) => {
                self.wake_nodes.push(Arc::clone(outbox));
                stop_local(outbox, reservation)
            }
            Some(NodeLink::Remote(link)) => {
                self.wake_sessions.push(Arc::clone(link));
                link.take_back(reservation).is_some()
            }
        };
        if taken_back {
            self.local.push_back(Event::Undeliverable(reservation));
        }
    }
}

/// Takes an assignment back from the outbox of a node of this process, or else says that it is to be stopped.
fn stop_local(outbox: &Outbox<NodeMail>, reservation: ReservationId) -> bool {
    let is_it = |mail: &NodeMail| match mail {
        NodeMail::Assign { assignment, .. } => assignment.reservation == reservation,
        NodeMail::Stop(_) => false,
    };
    match outbox.take_back(is_it, NodeMail::Stop(reservation)) {
        Some(NodeMail::Assign { slot, .. }) => {
            slot.take_back();
            true
        }
        _ => false,
    }
}
