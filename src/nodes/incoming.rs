//! What an agent says, as events and as output. A statement is checked here before the core may hear of it.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_websockets::Payload;

use super::Ending;
use super::handshake::out_of_order;
use super::session::{Begun, SessionTask};
use super::socket::Socket;
use crate::coordinator::event::{
    Declined, Discredited, Equipment, Event, Heartbeat, ModelOffer, NodeWish, Offers, Seen, Warmth,
};
use crate::ids::ReservationId;
use crate::node::attempt::{Appended, OutputRefusal, RemoteAttempt};
use crate::queue::Permit;
use crate::runtime::{Counting, INLINE_BODY_BYTES_MAX};
use crate::time::Span;
use crate::wire::to_agent::ResultRefused;
use crate::wire::to_box::{self, Completed, DeclineCause, Offer, Output};
use crate::wire::{CloseCode, FromAgent, FromBox, Parsed, Refusal, STRIKES_MAX, StatementError, verify};

/// Messages up to this are parsed where they come in; larger ones by a thread that may take its time.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// A result that isn't believed.
pub(super) struct Refused {
    pub(super) reservation: ReservationId,
    /// Whether it is of an attempt that the node has.
    pub(super) is_live: bool,
    pub(super) error: StatementError,
}

/// Reads a message.
pub(super) async fn parse(text: Payload, bytes_max: usize) -> Result<Parsed<FromAgent>, Refusal> {
    let is_short = text.len() <= INLINE_BYTES_MAX;
    let parse = move || {
        // The socket's library doesn't see a character that is cut off before a last, empty fragment.
        let text = std::str::from_utf8(&text)
            .map_err(|_| Refusal::new(CloseCode::TextInvalid, "a text message isn't UTF-8"))?;
        FromAgent::parse(text, bytes_max).map_err(|error| Refusal::new(error.code(), error.to_string()))
    };
    if is_short {
        return parse();
    }
    let unread = |_| Err(Refusal::new(CloseCode::MessageInvalid, "the message could not be read"));
    tokio::task::spawn_blocking(parse).await.unwrap_or_else(unread)
}

/// What a node offers, as the core knows it.
pub(super) fn models_of(offer: &Offer) -> Vec<ModelOffer> {
    let model = |model: &to_box::OfferedModel| ModelOffer {
        model: Arc::clone(&model.name),
        version: model.version.clone(),
        digest: model.digest.map(Into::into),
        runtime: model.runtime.clone(),
        slots: model.slots,
        warmth: if model.warm { Warmth::Warm } else { Warmth::Cold },
        load: Span::from_ms(model.load_ms),
    };
    offer.models.iter().map(model).collect()
}

/// What a message leaves of the room that was taken for it.
type Left = Result<Option<Permit>, Ending>;

impl SessionTask {
    /// Does what a message says, within the room for one event.
    pub(super) async fn on_said<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        text: Payload,
        permit: Permit,
    ) -> Left {
        let message = match parse(text, socket.message_bytes_max()).await? {
            Parsed::Known(message) => message,
            Parsed::Ignored(kind) => {
                tracing::debug!(node = %self.remote.node(), kind, "a message of an unknown kind was skipped");
                self.nodes.parts.tally.messages_ignored.add();
                self.stray()?;
                return Ok(Some(permit));
            }
        };
        match message {
            FromAgent::Hello(_) | FromAgent::Authenticate(_) | FromAgent::Ready(_) => {
                Err(out_of_order(&message, "a message of a session").into())
            }
            FromAgent::Accepted(accepted) => self.on_accepted(accepted.reservation, permit),
            FromAgent::Declined(declined) => self.on_declined(declined, permit),
            FromAgent::Output(output) => self.on_output(socket, output, permit).await,
            FromAgent::Completed(completed) => self.on_completed(socket, *completed, permit).await,
            FromAgent::Stopped(stopped) => self.on_stopped(stopped, permit),
            message => {
                self.stray()?;
                Ok(self.on_remark(message, permit))
            }
        }
    }

    /// What isn't about an attempt.
    fn on_remark(&mut self, message: FromAgent, permit: Permit) -> Option<Permit> {
        let (node, session) = (self.remote.node().clone(), self.remote.number());
        match message {
            FromAgent::Heartbeat(beat) => {
                let warm = beat.warm.into_iter().map(|named| named.0).collect();
                self.remote.say(Event::Heartbeat(Heartbeat { node, session, warm }), permit);
                None
            }
            FromAgent::Wish(wished) => {
                self.remote.say(Event::NodeWish(NodeWish { node, session, wish: wished.wish }), permit);
                None
            }
            FromAgent::Offer(offer) => {
                self.learn_offer(&offer);
                let models = models_of(&offer);
                let equipment = Some(self.equipment(offer));
                self.remote.say(Event::Offers(Box::new(Offers { node, session, models, equipment })), permit);
                None
            }
            FromAgent::Goodbye(goodbye) => {
                tracing::debug!(%node, code = goodbye.code, reason = goodbye.reason, "an agent says goodbye");
                Some(permit)
            }
            FromAgent::SnapshotRequest(request) => {
                self.asked.insert(request.environment, request);
                Some(permit)
            }
            // The rest is about attempts, or of a handshake.
            _ => Some(permit),
        }
    }

    /// What the node has, as the operator registered it and as it says.
    fn equipment(&self, offer: Offer) -> Equipment {
        let Offer { slots, kv_tokens, memory_bytes, gpu, region, models: _ } = offer;
        let (gpu, region) = (gpu.map(|gpus| gpus.class), self.region.clone().or(region));
        Equipment { slots, kv_tokens, memory_bytes, gpu, region }
    }

    /// Notes what is offered under which name.
    pub(super) fn learn_offer(&mut self, offer: &Offer) {
        self.list_offers(offer.models.iter().map(|model| (Arc::clone(&model.name), model.digest)).collect());
    }

    fn on_accepted(&mut self, reservation: ReservationId, permit: Permit) -> Left {
        match self.held.get_mut(&reservation) {
            Some(held) if held.begun == Begun::No => held.begun = Begun::Yes,
            Some(_) => {
                self.stray()?;
                return Ok(Some(permit));
            }
            None => self.stray()?,
        }
        self.remote.say(Event::Accepted(self.remote.node().clone(), reservation), permit);
        Ok(None)
    }

    fn on_declined(&mut self, declined: to_box::Declined, permit: Permit) -> Left {
        let to_box::Declined { reservation, cause, reason } = declined;
        match self.held.get(&reservation) {
            Some(held) if held.begun == Begun::No => drop(self.held.remove(&reservation)),
            _ => self.stray()?,
        }
        let node = self.remote.node().clone();
        let reason = format!("{}: {reason}", cause_word(cause));
        self.remote.say(Event::Declined(Declined { node, reservation, reason }), permit);
        Ok(None)
    }

    async fn on_output<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        output: Output,
        permit: Permit,
    ) -> Left {
        let Output { reservation, index, chunks } = output;
        let now = self.remote.now();
        let Some(held) = self.held.get_mut(&reservation) else {
            // It implies `accepted`, and so is counted by the core like one.
            return self.on_accepted(reservation, permit);
        };
        match held.attempt.append(index, chunks, now) {
            Ok(Appended::New) if held.begun == Begun::No => self.on_accepted(reservation, permit),
            Ok(Appended::New) => Ok(Some(permit)),
            Ok(Appended::Known | Appended::Revoked) => {
                self.stray()?;
                Ok(Some(permit))
            }
            Err(gap @ OutputRefusal::Gap { .. }) => {
                Err(Refusal::new(CloseCode::OutOfOrder, gap.to_string()).into())
            }
            Err(error) => {
                if error == OutputRefusal::TooLarge {
                    self.nodes.parts.tally.outputs_too_large.add();
                }
                self.discredit(reservation, error.to_string(), permit);
                // It still runs, for all that the node knows.
                self.send(socket, super::outgoing::stop(reservation)).await?;
                Ok(None)
            }
        }
    }

    async fn on_completed<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        completed: Completed,
        permit: Permit,
    ) -> Left {
        let (reservation, chunks) = (completed.statement.reservation, completed.chunks);
        let held = self.held.get(&reservation).filter(|held| held.begun != Begun::Through);
        let attempt = held.map(|held| Arc::clone(&held.attempt));
        match &attempt {
            None => self.stray()?,
            Some(attempt) if !attempt.is_revoked() && attempt.chunks() != chunks => {
                let came = attempt.chunks();
                let reason = format!(
                    "the result of {reservation} speaks of {chunks} chunks of output, and {came} have come: send all of \
                     them before it"
                );
                return Err(Refusal::new(CloseCode::OutOfOrder, reason).into());
            }
            Some(_) => {}
        }
        let issued = attempt.as_ref().map(|attempt| attempt.issued());
        let seen = match &attempt {
            Some(attempt) => self.seen(attempt).await,
            None => Seen::default(),
        };
        match verify::result(&completed.signed(), &self.parties, issued.as_ref(), seen) {
            Ok(result) => {
                if let Some(held) = self.held.get_mut(&reservation) {
                    held.begun = Begun::Through;
                }
                self.remote.say(Event::Completed(result), permit);
            }
            Err(error) => {
                let refused = Refused { reservation, is_live: attempt.is_some(), error };
                self.refuse(socket, refused, permit).await?;
            }
        }
        Ok(None)
    }

    fn on_stopped(&mut self, signed: to_box::Stopped, permit: Permit) -> Left {
        let reservation = signed.statement.reservation;
        let issued = self.held.get(&reservation).map(|held| held.attempt.issued());
        if issued.is_none() {
            self.stray()?;
        }
        match verify::stopped(&signed, &self.parties, issued.as_ref()) {
            Ok(stopped) => {
                self.held.remove(&reservation);
                self.remote.say(Event::Stopped(stopped), permit);
                Ok(None)
            }
            Err(error) => {
                self.strike(reservation, error, permit)?;
                Ok(None)
            }
        }
    }

    /// A result isn't believed: its node is told, and the attempt has failed.
    pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        refused: Refused,
        permit: Permit,
    ) -> Result<(), Ending> {
        let Refused { reservation, is_live, error } = refused;
        let tally = &self.nodes.parts.tally;
        match error {
            StatementError::Signature => tally.refused_signature.add(),
            StatementError::Elsewhere(_) => tally.refused_elsewhere.add(),
            StatementError::Output => tally.refused_output.add(),
        }
        let mut permit = Some(permit);
        if is_live && let Some(permit) = permit.take() {
            self.discredit(reservation, format!("the node's result was refused: {error}"), permit);
        }
        self.send(socket, FromBox::ResultRefused(ResultRefused { reservation, reason: error.to_string() }))
            .await?;
        if error.is_strike() {
            let permit = match permit {
                Some(permit) => permit,
                None => self.remote.room().await,
            };
            self.strike(reservation, error, permit)?;
        }
        Ok(())
    }

    /// The attempt has failed by its node's fault.
    fn discredit(&mut self, reservation: ReservationId, reason: String, permit: Permit) {
        self.held.remove(&reservation);
        let node = self.remote.node().clone();
        tracing::warn!(%node, %reservation, reason, "an attempt of a node's is discredited");
        self.remote.say(Event::Discredited(Discredited { node, reservation, reason }), permit);
    }

    /// A statement is signed wrongly, or contradicts what was assigned: so many of a connection, and it ends.
    fn strike(
        &mut self,
        reservation: ReservationId,
        error: StatementError,
        permit: Permit,
    ) -> Result<(), Refusal> {
        let node = self.remote.node().clone();
        tracing::warn!(%node, %reservation, %error, "a node's statement isn't believed");
        self.nodes.parts.tally.strikes.add();
        self.strikes += 1;
        self.remote.say(Event::BadSignature(node), permit);
        if self.strikes < STRIKES_MAX {
            return Ok(());
        }
        let reason = format!("{STRIKES_MAX} statements weren't signed as they must be; the last: {error}");
        Err(Refusal::new(CloseCode::Struck, reason))
    }

    /// What the box saw of an attempt's output, with its own count of the tokens where it has the model's tokenizer.
    pub(super) async fn seen(&self, attempt: &RemoteAttempt) -> Seen {
        let entry = self.nodes.parts.catalog.find(&attempt.assignment().model);
        let countable = entry.filter(|entry| matches!(entry.counting(), Counting::Exact(_)));
        let Some((entry, text)) = countable.zip(attempt.text()) else { return attempt.seen(None) };
        let is_short = text.len() <= INLINE_BODY_BYTES_MAX;
        let count = move || match entry.counting() {
            Counting::Exact(count) => count.output_tokens(&text),
            Counting::Elsewhere => None,
        };
        let tokens =
            if is_short { count() } else { tokio::task::spawn_blocking(count).await.unwrap_or_default() };
        attempt.seen(tokens)
    }
}

fn cause_word(cause: DeclineCause) -> &'static str {
    match cause {
        DeclineCause::Busy => "busy",
        DeclineCause::Model => "model",
        DeclineCause::Configuration => "configuration",
        DeclineCause::Stopping => "stopping",
        DeclineCause::Other => "other",
    }
}
