//! What the core has for a node, as messages.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Ending;
use super::session::{Begun, SessionTask};
use super::socket::Socket;
use crate::coordinator::effect::NodeMessage;
use crate::coordinator::event::{Declined, Event};
use crate::credits::Credits;
use crate::ids::ReservationId;
use crate::node::attempt::RemoteAttempt;
use crate::node::remote::RemoteMail;
use crate::wire::to_agent::{Assign, Configuration, Earnings, Empty, Settled, Standing, Stop};
use crate::wire::{CloseCode, FromBox, Refusal};

/// Bodies up to this are hashed once the hash is needed, in a few microseconds.
const LATE_BYTES_MAX: usize = 4 << 10;
/// Bodies up to this are hashed at once, while the node has the job; larger ones by a thread that may take its time.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Stop an attempt.
pub(super) fn stop(reservation: ReservationId) -> FromBox {
    FromBox::Stop(Stop { reservation })
}

impl SessionTask {
    /// Begins to send what the core has for the node.
    pub(super) async fn on_mail<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        mail: RemoteMail,
    ) -> Result<(), Ending> {
        let message = match mail {
            RemoteMail::Joined => return Ok(()),
            RemoteMail::Assign(attempt) => return self.assign(socket, attempt).await,
            RemoteMail::Stop(reservation) => stop(reservation),
            RemoteMail::Message(message) => return self.tell(socket, message).await,
        };
        begin(socket, &message);
        Ok(())
    }

    async fn assign<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        attempt: Arc<RemoteAttempt>,
    ) -> Result<(), Ending> {
        let assignment = attempt.assignment();
        attempt.offered_as(self.digests.get(&assignment.model).copied().flatten());
        let text = match FromBox::Assign(Box::new(Assign::from(assignment))).render() {
            Ok(text) => text,
            Err(error) => {
                let (node, reservation) = (self.remote.node().clone(), assignment.reservation);
                let permit = self.remote.room().await;
                let reason = format!("it can't be sent to a node: {error}");
                self.remote.say(Event::Declined(Declined { node, reservation, reason }), permit);
                return Ok(());
            }
        };
        let bytes = assignment.body.len();
        self.hold(Arc::clone(&attempt), Begun::No);
        socket.begin(text);
        if bytes <= LATE_BYTES_MAX {
            return Ok(());
        }
        // Sent before the box does what its answer will need.
        if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(socket.poll_sent(cx))).await {
            sent?;
        }
        if bytes <= INLINE_BYTES_MAX {
            attempt.request_hash();
        } else {
            tokio::task::spawn_blocking(move || attempt.request_hash());
        }
        Ok(())
    }

    async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        message: NodeMessage,
    ) -> Result<(), Ending> {
        let message = match message {
            NodeMessage::ResultAccepted(reservation) => {
                self.held.remove(&reservation);
                FromBox::ResultAccepted(Settled { reservation })
            }
            NodeMessage::ResultUnknown(reservation) => {
                self.held.remove(&reservation);
                FromBox::ResultUnknown(Settled { reservation })
            }
            NodeMessage::Configuration { environment, version, digest } => {
                FromBox::Configuration(Configuration { environment, version, digest: digest.into() })
            }
            NodeMessage::Standing(standing, cause) => {
                FromBox::Standing(Standing { standing, cause: cause.to_string() })
            }
            NodeMessage::Earnings(environment, Credits(balance_microcredits)) => {
                FromBox::Earnings(Earnings { environment, balance_microcredits })
            }
            NodeMessage::Drained => {
                self.send(socket, FromBox::Drained(Empty {})).await?;
                let reason = "it drained, and nothing is left";
                return Err(Refusal::new(CloseCode::Drained, reason).into());
            }
            NodeMessage::Banned => {
                self.send(socket, FromBox::Banned(Empty {})).await?;
                let reason = "the operator refuses this node: ask the operator";
                return Err(Refusal::new(CloseCode::Banned, reason).into());
            }
        };
        begin(socket, &message);
        Ok(())
    }
}

fn begin<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>, message: &FromBox) {
    // Nothing here is long, or a client's: all of it can be written.
    if let Ok(text) = message.render() {
        socket.begin(text);
    }
}
