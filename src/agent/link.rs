//! An open WebSocket to the box: messages in, messages out, and how it ended. Reads and writes go on side by side in one
//! task; neither waits for the other.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_websockets::{Error, Message, WebSocketStream};

use crate::wire::{
    Advice, CloseCode, FromAgent, FromBox, HANDSHAKE_BYTES_MAX, MESSAGE_BYTES_MAX, Parsed, Refusal,
    RenderError,
};

/// What a WebSocket runs over: TCP, or TLS over it.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// The code that either side closed it with; none where it broke.
    pub(super) code: Option<CloseCode>,
    /// What is known, in a sentence.
    pub(super) reason: String,
}

impl Ended {
    fn broken(reason: String) -> Self {
        Self { code: None, reason }
    }

    /// What to do about it.
    pub(super) fn advice(&self) -> Advice {
        self.code.map_or(Advice::Retry, CloseCode::advice)
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self { code: Some(refusal.code), reason: refusal.reason }
    }
}

/// What came.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is in memory, and moved at once")]
pub(super) enum Inbound {
    /// A message.
    Message(FromBox),
    /// A sign of life.
    Alive,
}

/// An open WebSocket.
pub(super) struct Link {
    ws: WebSocketStream<Box<dyn Wire>>,
    bytes_max: usize,
    /// What the box said before it closed.
    goodbye: Option<String>,
}

impl Link {
    /// A WebSocket on which nothing was said yet.
    pub(super) fn new(ws: WebSocketStream<Box<dyn Wire>>) -> Self {
        Self { ws, bytes_max: HANDSHAKE_BYTES_MAX, goodbye: None }
    }

    /// The box has let the node in: its messages may be long.
    pub(super) fn admit(&mut self) {
        self.bytes_max = MESSAGE_BYTES_MAX;
        self.ws.limits_mut().set_max_payload_len(Some(MESSAGE_BYTES_MAX));
    }

    /// Ready when a message can be put without piling up; what was put before is written meanwhile.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        Pin::new(&mut self.ws).poll_ready(cx).map_err(|error| ended_by(&error))
    }

    /// Puts a message, to be flushed.
    pub(super) fn put(&mut self, message: &FromAgent) -> Result<(), Ended> {
        let text = match message.render() {
            Ok(text) => text,
            // Everything that an agent says is bounded well below what a message may have; a result's text is UTF-8.
            Err(error @ (RenderError::TooLarge { .. } | RenderError::NotText { .. })) => {
                return Err(Refusal::new(CloseCode::TooLarge, error.to_string()).into());
            }
        };
        Pin::new(&mut self.ws).start_send(Message::text(text)).map_err(|error| ended_by(&error))
    }

    /// Asks the box for a sign of life.
    pub(super) fn ping(&mut self) -> Result<(), Ended> {
        Pin::new(&mut self.ws).start_send(Message::ping("")).map_err(|error| ended_by(&error))
    }

    /// Writes what was put.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        Pin::new(&mut self.ws).poll_flush(cx).map_err(|error| ended_by(&error))
    }

    /// What comes next; an error is the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, Ended>> {
        let message = match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Err(ended_by(&error))),
            None => return Poll::Ready(Err(self.ended("the connection broke"))),
        };
        Poll::Ready(self.take(&message))
    }

    fn take(&mut self, message: &Message) -> Result<Inbound, Ended> {
        if let Some((code, reason)) = message.as_close() {
            let code = CloseCode::of(u16::from(code));
            let said = if reason.is_empty() { "the box closed the connection" } else { reason };
            return Err(Ended { code, ..self.ended(said) });
        }
        if message.is_binary() {
            return Err(Refusal::new(CloseCode::MessageInvalid, "the box sent a binary message").into());
        }
        if !message.is_text() {
            return Ok(Inbound::Alive);
        }
        // Looked at here: the library doesn't see a character that is cut off before a last, empty fragment.
        let Ok(text) = std::str::from_utf8(message.as_payload()) else {
            return Err(Refusal::new(CloseCode::TextInvalid, "the box sent a text that isn't UTF-8").into());
        };
        match FromBox::parse(text, self.bytes_max) {
            Ok(Parsed::Known(FromBox::Goodbye(goodbye))) => {
                self.goodbye = Some(goodbye.reason);
                Ok(Inbound::Alive)
            }
            Ok(Parsed::Known(message)) => Ok(Inbound::Message(message)),
            Ok(Parsed::Ignored(kind)) => {
                tracing::debug!(kind, "the box sent an optional message that this agent doesn't know");
                Ok(Inbound::Alive)
            }
            Err(error) => Err(Refusal::new(error.code(), error.to_string()).into()),
        }
    }

    fn ended(&mut self, otherwise: &str) -> Ended {
        Ended::broken(self.goodbye.take().unwrap_or_else(|| otherwise.to_owned()))
    }

    /// Sends one message of the handshake.
    pub(super) async fn say(&mut self, message: &FromAgent) -> Result<(), Ended> {
        std::future::poll_fn(|cx| self.poll_room(cx)).await?;
        self.put(message)?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Waits for the next message.
    pub(super) async fn hear(&mut self) -> Result<FromBox, Ended> {
        loop {
            if let Inbound::Message(message) = std::future::poll_fn(|cx| self.poll_next(cx)).await? {
                return Ok(message);
            }
        }
    }

    /// Says goodbye and closes; the caller bounds how long that may take.
    pub(super) async fn close(mut self, code: CloseCode, reason: &str) {
        let refusal = Refusal::new(code, reason);
        let goodbye = FromAgent::Goodbye((&refusal).into());
        // The connection may be gone: then there is nobody to tell.
        if self.say(&goodbye).await.is_err() {
            return;
        }
        let Ok(code) = tokio_websockets::CloseCode::try_from(code.code()) else { return };
        let mut end = refusal.reason.len().min(CLOSE_REASON_BYTES_MAX);
        while !refusal.reason.is_char_boundary(end) {
            end -= 1;
        }
        let close = Message::close(Some(code), &refusal.reason[..end]);
        if Pin::new(&mut self.ws).start_send(close).is_ok() {
            let _ = std::future::poll_fn(|cx| Pin::new(&mut self.ws).poll_close(cx)).await;
        }
    }
}

/// Bytes of the reason in a close frame (RFC 6455).
const CLOSE_REASON_BYTES_MAX: usize = 123;

fn ended_by(error: &Error) -> Ended {
    let code = match error {
        Error::PayloadTooLong { .. } => Some(CloseCode::TooLarge),
        Error::Protocol(_) => Some(CloseCode::FrameInvalid),
        _ => None,
    };
    Ended { code, reason: format!("the connection broke: {error}") }
}
