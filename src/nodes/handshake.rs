//! From the upgrade to `ready`: the box proves its key, the node proves its own, and the core says whether it is let in.

use tokio::time::Instant;

use super::roster::{Roster, Standby};
use super::socket::{Received, Socket};
use super::{Ending, Nodes};
use crate::coordinator::command::{Command, Enrolment};
use crate::coordinator::effect::Answer;
use crate::coordinator::event::Environment;
use crate::coordinator::invites::{Enrolled, NotEnrolled};
use crate::coordinator::standing::Environments;
use crate::door::{ClientMessage, ClientSession};
use crate::ids::{Digest, NodeId};
use crate::wire::handshake::{Authenticated, BoxSide};
use crate::wire::hash::plain_hash;
use crate::wire::keys::Hex;
use crate::wire::to_agent::Admitted;
use crate::wire::to_box::{Authenticate, Hello, Ready};
use crate::wire::{CloseCode, FromAgent, FromBox, Nonce, Parsed, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};

/// A node that was let in.
pub(super) struct LetIn {
    pub(super) node: NodeId,
    pub(super) proven: Authenticated,
    pub(super) enrolled: Enrolled,
    pub(super) standby: Standby,
}

/// Shakes hands up to `admitted`. Whose node it is is written into `node` as soon as it is proven.
pub(super) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    nodes: &Nodes,
    socket: &mut Socket<S>,
    deadline: Instant,
    node: &mut Option<NodeId>,
) -> Result<LetIn, Ending> {
    let hello: Hello = match next(nodes, socket, deadline).await? {
        FromAgent::Hello(hello) => hello,
        other => return Err(out_of_order(&other, "hello").into()),
    };
    let (side, challenge) = BoxSide::answer(&nodes.parts.identity, &hello, nonce()?)?;
    send(socket, FromBox::Challenge(challenge)).await?;
    let said: Authenticate = match next(nodes, socket, deadline).await? {
        FromAgent::Authenticate(said) => said,
        other => return Err(out_of_order(&other, "authenticate").into()),
    };
    let proven = side.check(said)?;
    let name = proven.parties.node_key.node();
    *node = Some(name.clone());
    let enrolled = enrol(nodes, &name, &proven).await?;
    let standby = Roster::enter(&nodes.roster, &name, nodes.parts.gate.now());
    let admitted = Admitted { node: name.to_string(), session: standby.session().0 };
    // Nothing may come before the peer has read this, so nothing that is too large slips through.
    socket.widen();
    send(socket, FromBox::Admitted(admitted)).await?;
    Ok(LetIn { node: name, proven, enrolled, standby })
}

/// What the node offers and holds.
pub(super) async fn ready<S: AsyncRead + AsyncWrite + Unpin>(
    nodes: &Nodes,
    socket: &mut Socket<S>,
    deadline: Instant,
) -> Result<Ready, Ending> {
    match next(nodes, socket, deadline).await? {
        FromAgent::Ready(ready) => Ok(*ready),
        other => Err(out_of_order(&other, "ready").into()),
    }
}

/// The next message of a handshake. Those that may be skipped count for nothing but time.
async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    nodes: &Nodes,
    socket: &mut Socket<S>,
    deadline: Instant,
) -> Result<FromAgent, Ending> {
    let received = async {
        loop {
            let text = match socket.receive().await? {
                Received::Text(text) => text,
                Received::Alive => continue,
                Received::Closed(code, _) => return Err(Ending::Closed(code)),
            };
            match super::incoming::parse(text, socket.message_bytes_max()).await? {
                Parsed::Known(message) => return Ok(message),
                Parsed::Ignored(_) => nodes.parts.tally.messages_ignored.add(),
            }
        }
    };
    let timed_out = || {
        let reason = format!(
            "the handshake took longer than {} ms from the upgrade to `ready`",
            nodes.parts.timeouts.handshake.as_millis()
        );
        Ending::Close(Refusal::new(CloseCode::HandshakeTimeout, reason))
    };
    tokio::time::timeout_at(deadline, received).await.unwrap_or_else(|_| Err(timed_out()))
}

pub(super) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    message: FromBox,
) -> Result<(), Ending> {
    // What the box says in a handshake is always short, and its own.
    if let Ok(text) = message.render() {
        socket.send(text).await?;
    }
    Ok(())
}

pub(super) fn out_of_order(message: &FromAgent, expected: &str) -> Refusal {
    let reason = format!("`{}` came where `{expected}` is expected", message.kind());
    Refusal::new(CloseCode::OutOfOrder, reason)
}

fn nonce() -> Result<Nonce, Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes: no agent can connect");
        Refusal::new(CloseCode::Restarting, "the box has no random bytes just now: dial again")
    })?;
    Ok(Hex(bytes))
}

/// Asks the core whether the node is let in, and as what. The answer is on disk when it comes.
async fn enrol(nodes: &Nodes, node: &NodeId, proven: &Authenticated) -> Result<Enrolled, Refusal> {
    let wants = proven.environments.iter().fold(Environments::NONE, |set, world| set.with(*world));
    let invite = proven.invite.as_ref().map(|token| Digest::from(plain_hash(token.text().as_bytes())));
    let enrolment = Enrolment { node: node.clone(), wants, invite };
    let busy = || Refusal::new(CloseCode::Restarting, "the box has no room to look at that now: dial again");
    let mut session = nodes.parts.door.open().map_err(|_| busy())?;
    session.operate(None, Command::Enrol(Box::new(enrolment))).map_err(|_| busy())?;
    let answer = answer(&mut session).await;
    session.served();
    match answer {
        Some(Answer::Enrolled(Ok(enrolled))) => Ok(enrolled),
        Some(Answer::Enrolled(Err(why))) => Err(not_enrolled(why, &proven.environments)),
        _ => Err(busy()),
    }
}

async fn answer(session: &mut ClientSession) -> Option<Answer> {
    loop {
        match session.next().await {
            ClientMessage::Answer(answer) => return Some(*answer),
            ClientMessage::Accepted { .. } | ClientMessage::Opened(_) => {}
            _ => return None,
        }
    }
}

fn not_enrolled(why: NotEnrolled, wanted: &[Environment]) -> Refusal {
    match why {
        NotEnrolled::KeyUnknown => Refusal::new(
            CloseCode::KeyUnknown,
            "the box doesn't know this node: join with a join string, which `switchbox nodes invite` prints there",
        ),
        NotEnrolled::InviteInvalid => Refusal::new(
            CloseCode::InviteInvalid,
            "the invite is unknown, was used, or its time is over: ask for a new one (`switchbox nodes invite`)",
        ),
        NotEnrolled::Banned => {
            Refusal::new(CloseCode::Banned, "the operator refuses this node: ask the operator")
        }
        NotEnrolled::NoEnvironment => {
            let words: Vec<&str> = wanted.iter().map(|environment| environment.word()).collect();
            let reason = format!("the node isn't registered for {}: ask the operator", words.join(" or "));
            Refusal::new(CloseCode::EnvironmentRefused, reason)
        }
        NotEnrolled::Full => full(),
    }
}

/// The box takes no more nodes.
pub(super) fn full() -> Refusal {
    Refusal::new(CloseCode::Full, "the box has as many nodes as it can have")
}
