//! The seam between the driver and the sessions of remote nodes: what a session is sent, and the room for what it says.
//!
//! A session holds room for its events before it reads what causes them, so that only its own socket ever waits; and
//! room for its departure, which gives back what was never sent.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::attempt::{Attempts, RemoteAttempt};
use crate::clock::Clock;
use crate::coordinator::effect::{NodeMessage, When};
use crate::coordinator::event::{Event, NodeGone, NodeHello};
use crate::driver::{Attach, Envelope, NodeLink};
use crate::ids::{NodeId, ReservationId, Session};
use crate::outbox::{Commits, Outbox};
use crate::queue::{Permit, Room};
use crate::sender::Sender;
use crate::time::Time;
use crate::wire::OUTBOX_MESSAGES_MAX;

/// Events of one session that may wait to be stepped.
pub const SESSION_EVENTS_MAX: usize = 8;

/// What a session is sent.
pub enum RemoteMail {
    /// The core has heard of the session, and of everything that its node listed. Always the first.
    Joined,
    /// Run this.
    Assign(Arc<RemoteAttempt>),
    /// Stop that.
    Stop(ReservationId),
    /// Something else to tell.
    Message(NodeMessage),
}

/// How the driver reaches a session.
pub struct RemoteLink {
    session: Session,
    outbox: Arc<Outbox<RemoteMail>>,
}

impl RemoteLink {
    /// Which connection of its node it is.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Adds mail; gives it back where the session is gone, or doesn't keep up and so will be.
    pub fn offer(&self, mail: RemoteMail, when: When) -> Result<(), RemoteMail> {
        self.outbox.offer(mail, when, OUTBOX_MESSAGES_MAX)
    }

    /// Adds mail before all other.
    pub(crate) fn offer_first(&self, mail: RemoteMail) {
        self.outbox.push_first(mail);
    }

    /// Takes an assignment back that wasn't taken yet, or else says that it is to be stopped.
    pub(crate) fn take_back(&self, reservation: ReservationId) -> Option<RemoteMail> {
        let is_it = |mail: &RemoteMail| matches!(mail, RemoteMail::Assign(attempt) if attempt.assignment().reservation == reservation);
        self.outbox.take_back(is_it, RemoteMail::Stop(reservation))
    }

    /// Wakes the session.
    pub(crate) fn wake(&self) {
        self.outbox.wake();
    }
}

/// Opens sessions of remote nodes. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    sender: Sender,
    commits: Arc<Commits>,
    attempts: Arc<Attempts>,
    /// One permit a session: for its departure.
    sessions: Arc<Room>,
    clock: Clock,
}

/// What a gate is made of.
pub struct GateParts {
    /// Into the queue, whose capacity includes [`Gate::events_max`].
    pub sender: Sender,
    /// How far the store is.
    pub commits: Arc<Commits>,
    /// What remote nodes have; the driver's.
    pub attempts: Arc<Attempts>,
    /// Sessions at once.
    pub sessions_max: usize,
    /// The box's own time.
    pub clock: Clock,
}

impl Gate {
    /// Events that sessions may have in the queue at once.
    pub fn events_max(sessions_max: usize) -> usize {
        sessions_max * (SESSION_EVENTS_MAX + 1)
    }

    /// A gate into a queue.
    pub fn new(parts: GateParts) -> Self {
        let GateParts { sender, commits, attempts, sessions_max, clock } = parts;
        let sessions = Room::new(sessions_max);
        Self { shared: Arc::new(Shared { sender, commits, attempts, sessions, clock }) }
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.taken()
    }

    /// The box's own time.
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// Opens a session, if there is room for one more. The core hears of it when it joins.
    pub fn open(&self, node: NodeId, session: Session) -> Option<RemoteSession> {
        let departure = self.shared.sessions.take()?;
        Some(RemoteSession {
            gate: self.clone(),
            node,
            link: Arc::new(RemoteLink { session, outbox: Outbox::new() }),
            room: Room::new(SESSION_EVENTS_MAX),
            stage: Stage::Outside(departure),
        })
    }
}

/// Whether the core has heard of a session.
enum Stage {
    Outside(Permit),
    Joined(Permit),
    Left,
}

/// One connection of a remote node, as the core hears of it. Dropping it is leaving.
pub struct RemoteSession {
    gate: Gate,
    node: NodeId,
    link: Arc<RemoteLink>,
    room: Arc<Room>,
    stage: Stage,
}

impl RemoteSession {
    /// Whose it is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Which of its node's.
    pub fn number(&self) -> Session {
        self.link.session
    }

    /// The attempt of a reservation that this node has.
    pub fn attempt(&self, reservation: ReservationId) -> Option<Arc<RemoteAttempt>> {
        self.gate.shared.attempts.of(&self.node, reservation)
    }

    /// Room for one event, if there is any now.
    pub fn try_room(&self) -> Option<Permit> {
        self.room.take()
    }

    /// Room for one event: waits until one of this session's was stepped.
    pub async fn room(&self) -> Permit {
        poll_fn(|cx| match self.try_room() {
            Some(permit) => Poll::Ready(permit),
            None => {
                // Whoever drains is a task beside this one.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    }

    /// Joins with what the node brings: once.
    pub fn join(&mut self, hello: NodeHello, permit: Permit) {
        let Stage::Outside(departure) = std::mem::replace(&mut self.stage, Stage::Left) else { return };
        self.stage = Stage::Joined(departure);
        let attach = Attach::Node(self.node.clone(), NodeLink::Remote(Arc::clone(&self.link)));
        let event = Event::NodeConnected(Box::new(hello));
        self.gate.shared.sender.push(Envelope { event, attach, permit: Some(permit) });
    }

    /// Says something to the core.
    pub fn say(&self, event: Event, permit: Permit) {
        self.gate.shared.sender.push(Envelope { event, attach: Attach::Nothing, permit: Some(permit) });
    }

    /// The next mail that may leave.
    pub fn poll_mail(&self, cx: &mut Context<'_>) -> Poll<RemoteMail> {
        self.link.outbox.poll_next(cx, &self.gate.shared.commits)
    }

    /// Whether more was to be sent than waits for any peer.
    pub fn has_overflowed(&self) -> bool {
        self.link.outbox.has_overflowed()
    }

    /// The box's own time.
    pub fn now(&self) -> Time {
        self.gate.now()
    }
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        let Stage::Joined(departure) = std::mem::replace(&mut self.stage, Stage::Left) else { return };
        let undelivered = self.link.outbox.close().into_iter().filter_map(|mail| match mail {
            RemoteMail::Assign(attempt) => Some(attempt.assignment().reservation),
            RemoteMail::Joined | RemoteMail::Stop(_) | RemoteMail::Message(_) => None,
        });
        let gone = NodeGone {
            node: self.node.clone(),
            session: self.link.session,
            undelivered: undelivered.collect(),
        };
        self.say(Event::NodeGone(gone), departure);
    }
}
