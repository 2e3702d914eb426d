//! One session: joins with what its node brings, then carries messages both ways until it ends.

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_websockets::Payload;

use super::handshake::{self, LetIn};
use super::joining::Joining;
use super::pace::Pace;
use super::roster::Standby;
use super::socket::{Received, Socket};
use super::{Ending, Nodes, gone};
use crate::coordinator::event::Environment;
use crate::ids::{ModelName, NodeId, Region, ReservationId};
use crate::node::attempt::RemoteAttempt;
use crate::node::remote::{RemoteMail, RemoteSession};
use crate::queue::Permit;
use crate::wire::to_box::SnapshotRequest;
use crate::wire::{CloseCode, FromBox, Hash, Parties, Refusal};

/// Attempts known here before those that are over are swept out.
const SWEEP_ATTEMPTS_MIN: usize = 64;

/// Shakes hands, serves and says how it ended, and whose it was. Whatever it ends by, the core has been told then.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    nodes: &Arc<Nodes>,
    socket: &mut Socket<S>,
    mut stopped: watch::Receiver<()>,
) -> (Option<NodeId>, Ending) {
    let mut node = None;
    let conversation = async {
        let deadline = tokio::time::Instant::now() + nodes.parts.timeouts.handshake;
        let let_in = handshake::shake_hands(nodes, socket, deadline, &mut node).await?;
        let (mut session, mut standby) = join(nodes, socket, deadline, let_in).await?;
        tokio::select! {
            biased;
            () = standby.superseded() => Err(superseded().into()),
            end = session.serve(socket) => end,
        }
    };
    let ended: Result<(), Ending> = tokio::select! {
        biased;
        () = gone(&mut stopped) => Err(restarting().into()),
        ended = conversation => ended,
    };
    (node, ended.err().unwrap_or(Ending::Broken))
}

fn superseded() -> Refusal {
    let reason =
        "a newer connection with this node's key took over: if that wasn't this agent, two have one key";
    Refusal::new(CloseCode::Superseded, reason)
}

fn restarting() -> Refusal {
    Refusal::new(CloseCode::Restarting, "the box stops or restarts: dial again; what you hold is kept")
}

/// Takes the node's seat, and joins with what it lists.
async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    nodes: &Arc<Nodes>,
    socket: &mut Socket<S>,
    deadline: tokio::time::Instant,
    let_in: LetIn,
) -> Result<(SessionTask, Standby), Ending> {
    let LetIn { node, proven, enrolled, mut standby } = let_in;
    let ready = tokio::select! {
        biased;
        () = standby.superseded() => return Err(superseded().into()),
        ready = handshake::ready(nodes, socket, deadline) => ready?,
    };
    let seat = standby.seat().await.ok_or_else(superseded)?;
    let remote = nodes.parts.gate.open(node, standby.session()).ok_or_else(handshake::full)?;
    let mut task = SessionTask {
        nodes: Arc::clone(nodes),
        remote,
        _seat: seat,
        parties: proven.parties,
        region: enrolled.region.clone(),
        held: HashMap::new(),
        sweep_at: SWEEP_ATTEMPTS_MIN,
        digests: HashMap::new(),
        strikes: 0,
        pace: Pace::new(Instant::now()),
        life: Life::new(nodes),
        asked: BTreeMap::new(),
        permit: None,
    };
    task.learn_offer(&ready.offer);
    let welcome =
        Joining::of(&ready, &task).await.join(&mut task, enrolled, &proven.environments, ready).await?;
    handshake::send(socket, FromBox::Welcome(welcome.message)).await?;
    for refused in welcome.refused {
        let permit = task.remote.room().await;
        task.refuse(socket, refused, permit).await?;
    }
    nodes.parts.tally.sessions.add();
    tracing::info!(node = %task.remote.node(), session = task.remote.number().0, "an agent is here");
    Ok((task, standby))
}

/// An attempt of this session's node.
pub(super) struct Held {
    pub(super) attempt: Arc<RemoteAttempt>,
    /// Whether the core knows that the node began.
    pub(super) begun: Begun,
}

/// How far an attempt is, as the core was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Not yet.
    No,
    /// The node runs it.
    Yes,
    /// Its result was handed in.
    Through,
}

/// A session that serves.
pub(super) struct SessionTask {
    pub(super) nodes: Arc<Nodes>,
    /// Dropped before the seat: the core hears that this one left before the next one joins.
    pub(super) remote: RemoteSession,
    _seat: super::roster::Seat,
    pub(super) parties: Parties,
    /// Where the operator says that the node stands.
    pub(super) region: Option<Region>,
    pub(super) held: HashMap<ReservationId, Held>,
    sweep_at: usize,
    /// What the node offers under each name; listed as long as the session is.
    pub(super) digests: HashMap<ModelName, Option<Hash>>,
    pub(super) strikes: u32,
    pub(super) pace: Pace,
    life: Life,
    /// Configurations that the node asked for: one for each environment, sent once nothing else is being sent.
    pub(super) asked: BTreeMap<Environment, SnapshotRequest>,
    /// Room for what the next message says.
    permit: Option<Permit>,
}

impl Drop for SessionTask {
    fn drop(&mut self) {
        self.list_offers(HashMap::new());
    }
}

/// What happens next.
enum Turn {
    Said(Payload, Permit),
    Mail(RemoteMail),
    Asked(SnapshotRequest),
    Dead,
    Ended(Ending),
}

impl SessionTask {
    /// Serves until it ends; never ends well.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
    ) -> Result<(), Ending> {
        loop {
            match poll_fn(|cx| self.poll_turn(socket, cx)).await {
                Turn::Said(text, permit) => self.permit = self.on_said(socket, text, permit).await?,
                Turn::Mail(mail) => self.on_mail(socket, mail).await?,
                Turn::Asked(request) => self.send_snapshot(socket, request).await,
                Turn::Dead => return Err(self.life.silent().into()),
                Turn::Ended(ending) => return Err(ending),
            }
        }
    }

    fn poll_turn<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Turn> {
        // One system call for all that waits just now.
        if socket.takes_more()
            && let Poll::Ready(mail) = self.remote.poll_mail(cx)
        {
            return Poll::Ready(Turn::Mail(mail));
        }
        if let Poll::Ready(Err(lost)) = socket.poll_sent(cx) {
            return Poll::Ready(Turn::Ended(lost.into()));
        }
        if let Poll::Ready(turn) = self.poll_incoming(socket, cx) {
            return Poll::Ready(turn);
        }
        if self.remote.has_overflowed() {
            return Poll::Ready(Turn::Ended(too_slow().into()));
        }
        // What isn't sent yet stays where it can be taken back.
        if !socket.is_sending()
            && let Poll::Ready(mail) = self.remote.poll_mail(cx)
        {
            return Poll::Ready(Turn::Mail(mail));
        }
        if !socket.is_sending()
            && let Some((_, request)) = self.asked.pop_first()
        {
            return Poll::Ready(Turn::Asked(request));
        }
        match self.life.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Pulse::Dead) => Poll::Ready(Turn::Dead),
            Poll::Ready(Pulse::Silent) => {
                if !socket.is_sending() {
                    socket.begin_ping();
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// The next message: not before there is room for what it says.
    fn poll_incoming<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Turn> {
        let Some(permit) = self.permit.take().or_else(|| self.remote.try_room()) else {
            // Whoever drains is a task beside this one.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let Poll::Ready(received) = socket.poll_receive(cx) else {
            self.permit = Some(permit);
            return Poll::Pending;
        };
        self.life.heard();
        Poll::Ready(match received {
            Ok(Received::Text(text)) => Turn::Said(text, permit),
            Ok(Received::Alive) => {
                self.permit = Some(permit);
                match self.stray() {
                    // Nothing to do: look again.
                    Ok(()) => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Err(refusal) => Turn::Ended(refusal.into()),
                }
            }
            Ok(Received::Closed(code, reason)) => {
                tracing::debug!(node = %self.remote.node(), code, reason, "an agent says why it leaves");
                Turn::Ended(Ending::Closed(code))
            }
            Err(lost) => Turn::Ended(lost.into()),
        })
    }

    /// A message that names no live reservation of the node: so many may come, and no more.
    pub(super) fn stray(&mut self) -> Result<(), Refusal> {
        self.nodes.parts.tally.stray_messages.add();
        if self.pace.take(Instant::now()) {
            return Ok(());
        }
        let reason = format!(
            "more than {} messages a second came that name no live reservation",
            crate::wire::STRAY_MESSAGES_PER_SECOND_MAX
        );
        Err(Refusal::new(CloseCode::TooFast, reason))
    }

    /// What the node offers is among what can be asked for, and what it offered before isn't any more.
    pub(super) fn list_offers(&mut self, now: HashMap<ModelName, Option<Hash>>) {
        let names = |digests: &HashMap<ModelName, Option<Hash>>| digests.keys().cloned().collect::<Vec<_>>();
        let unix_now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let offered = self.nodes.parts.catalog.offered();
        offered.replace(&names(&self.digests), &names(&now), unix_now.map_or(0, |now| now.as_secs()));
        self.digests = now;
    }

    /// Remembers an attempt, and from time to time forgets those that are over.
    pub(super) fn hold(&mut self, attempt: Arc<RemoteAttempt>, begun: Begun) {
        if self.held.len() >= self.sweep_at {
            let remote = &self.remote;
            self.held.retain(|reservation, _| remote.attempt(*reservation).is_some());
            self.sweep_at = (self.held.len() * 2).max(SWEEP_ATTEMPTS_MIN);
        }
        self.held.insert(attempt.assignment().reservation, Held { attempt, begun });
    }

    /// Sends a message, all of it.
    pub(super) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        message: FromBox,
    ) -> Result<(), Ending> {
        handshake::send(socket, message).await
    }
}

fn too_slow() -> Refusal {
    Refusal::new(CloseCode::TooSlow, "more waits to be sent than may: read what you are sent")
}

/// Signs of life, and their absence.
struct Life {
    heard_at: tokio::time::Instant,
    pinged: bool,
    timer: Pin<Box<Sleep>>,
    ping: std::time::Duration,
    silence: std::time::Duration,
}

/// What silence calls for.
enum Pulse {
    /// The peer is to be asked whether it lives.
    Silent,
    /// It doesn't.
    Dead,
}

impl Life {
    fn new(nodes: &Nodes) -> Self {
        let super::Timeouts { ping, silence, .. } = nodes.parts.timeouts;
        let now = tokio::time::Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now + ping.min(silence)));
        Self { heard_at: now, pinged: false, timer, ping, silence }
    }

    fn heard(&mut self) {
        self.heard_at = tokio::time::Instant::now();
        self.pinged = false;
    }

    /// The timer isn't moved with each message: it looks how long ago the last one was.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pulse> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let silent_for = self.heard_at.elapsed();
            if silent_for >= self.silence {
                return Poll::Ready(Pulse::Dead);
            }
            let is_silent = silent_for >= self.ping && !self.pinged;
            self.pinged |= is_silent;
            let next = if self.pinged { self.silence } else { self.ping.min(self.silence) };
            self.timer.as_mut().reset(self.heard_at + next);
            if is_silent {
                return Poll::Ready(Pulse::Silent);
            }
        }
        Poll::Pending
    }

    fn silent(&self) -> Refusal {
        let reason = format!("nothing came for {} ms, not even a pong", self.silence.as_millis());
        Refusal::new(CloseCode::Silent, reason)
    }
}
