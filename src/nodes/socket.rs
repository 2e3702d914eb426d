//! One WebSocket: whole text messages in and out, within bounds, and a proper end. It knows frames, and nothing of what
//! they say.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_websockets::proto::ProtocolError;
use tokio_websockets::{Config, Error, Limits, Message, Payload, ServerBuilder, WebSocketStream};

use crate::wire::{
    CloseCode, FRAGMENT_BYTES_MAX, FromBox, HANDSHAKE_BYTES_MAX, MESSAGE_BYTES_MAX, Refusal, to_agent,
};

/// How long a peer may take to say goodbye too.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Bytes of a close frame's reason.
const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Messages given to the system at once.
const TOGETHER_MESSAGES_MAX: u32 = 32;
/// Bytes that may come on top of twice a message before it is whole: heads of frames, and pings between them.
const OVERHEAD_BYTES_MAX: u64 = 64 << 10;
/// Bytes read at once of what nobody wants any more.
const LEFTOVER_BYTES: usize = 16 << 10;

/// Counts what is read.
struct Metered<S> {
    stream: S,
    read: u64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.read += (buf.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// What came.
#[derive(Debug)]
pub(super) enum Received {
    /// A text message. Whether it is UTF-8 is still to be looked at.
    Text(Payload),
    /// A ping, which was answered, or a pong: a sign of life.
    Alive,
    /// The peer closes, for this reason.
    Closed(u16, String),
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection is gone.
    Gone,
    /// What comes isn't what it should be.
    Wrong(Refusal),
}

/// A WebSocket of an agent.
pub(super) struct Socket<S> {
    ws: WebSocketStream<Metered<S>>,
    /// Bytes read when the last message was whole.
    read_before: u64,
    message_bytes_max: usize,
    sending: Sending,
}

/// How far what is to be sent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// All of it is with the system.
    Done,
    /// So many messages were put, and none of it was given to the system yet.
    Put(u32),
    /// The system takes no more for now.
    Stalled,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a connection that was just upgraded. Messages have at most what a handshake may have.
    pub(super) fn new(stream: S) -> Self {
        let config = Config::default().frame_size(FRAGMENT_BYTES_MAX).flush_threshold(FRAGMENT_BYTES_MAX);
        let limits = Limits::default().max_payload_len(Some(HANDSHAKE_BYTES_MAX));
        let builder = ServerBuilder::new().config(config).limits(limits);
        Self {
            ws: builder.serve(Metered { stream, read: 0 }),
            read_before: 0,
            message_bytes_max: HANDSHAKE_BYTES_MAX,
            sending: Sending::Done,
        }
    }

    /// From now on messages may be as large as ever.
    pub(super) fn widen(&mut self) {
        self.message_bytes_max = MESSAGE_BYTES_MAX;
        self.ws.limits_mut().set_max_payload_len(Some(MESSAGE_BYTES_MAX));
    }

    /// Bytes that a message may have now.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// The next thing that comes. Safe to drop in between.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Lost>> {
        let Poll::Ready(next) = Pin::new(&mut self.ws).poll_next(cx) else {
            // A message of which pieces come and come, or of many pieces with nothing in them.
            let pieces = self.ws.get_ref().read - self.read_before;
            if pieces > 2 * self.message_bytes_max as u64 + OVERHEAD_BYTES_MAX {
                return Poll::Ready(Err(Lost::Wrong(self.too_large())));
            }
            return Poll::Pending;
        };
        self.read_before = self.ws.get_ref().read;
        Poll::Ready(match next {
            Some(Ok(message)) => self.received(message),
            Some(Err(error)) => Err(self.lost(&error)),
            None => Err(Lost::Gone),
        })
    }

    fn received(&self, message: Message) -> Result<Received, Lost> {
        if let Some((code, reason)) = message.as_close() {
            return Ok(Received::Closed(code.into(), reason.to_owned()));
        }
        if message.is_text() {
            return Ok(Received::Text(message.into_payload()));
        }
        if message.is_binary() {
            let reason = "a binary message came: messages are JSON texts";
            return Err(Lost::Wrong(Refusal::new(CloseCode::MessageInvalid, reason)));
        }
        Ok(Received::Alive)
    }

    fn too_large(&self) -> Refusal {
        let reason =
            format!("a message has more than {} bytes, which is the most here", self.message_bytes_max);
        Refusal::new(CloseCode::TooLarge, reason)
    }

    fn lost(&self, error: &Error) -> Lost {
        match error {
            Error::PayloadTooLong { .. } => Lost::Wrong(self.too_large()),
            Error::Protocol(ProtocolError::InvalidUtf8) => {
                Lost::Wrong(Refusal::new(CloseCode::TextInvalid, "a text message isn't UTF-8"))
            }
            Error::Protocol(error) => {
                let reason = format!("a frame isn't RFC 6455's: {error}");
                Lost::Wrong(Refusal::new(CloseCode::FrameInvalid, reason))
            }
            _ => Lost::Gone,
        }
    }

    /// The next thing that comes.
    pub(super) async fn receive(&mut self) -> Result<Received, Lost> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Begins to send a text. Large texts go in pieces, between which pings of the peer are answered.
    pub(super) fn begin(&mut self, text: impl Into<Payload>) {
        self.begin_message(Message::text(text));
    }

    /// Begins to send a ping.
    pub(super) fn begin_ping(&mut self) {
        self.begin_message(Message::ping(Payload::from(&b""[..])));
    }

    fn begin_message(&mut self, message: Message) {
        // Of a connection that is closing nothing more is wanted: what comes next on it is its end.
        let _ = Pin::new(&mut self.ws).start_send(message);
        self.sending = match self.sending {
            Sending::Done => Sending::Put(1),
            Sending::Put(count) => Sending::Put(count + 1),
            Sending::Stalled => Sending::Stalled,
        };
    }

    /// Whether something is being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.sending != Sending::Done
    }

    /// Whether more may go out with what was just put.
    pub(super) fn takes_more(&self) -> bool {
        matches!(self.sending, Sending::Put(count) if count < TOGETHER_MESSAGES_MAX)
    }

    /// Goes on sending; ready once all of it is with the system.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if self.sending != Sending::Done {
            // Until that is known to be wrong.
            self.sending = Sending::Stalled;
            ready!(Pin::new(&mut self.ws).poll_flush(cx)).map_err(|_| Lost::Gone)?;
            self.sending = Sending::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a text, all of it.
    pub(super) async fn send(&mut self, text: String) -> Result<(), Lost> {
        self.begin(text);
        std::future::poll_fn(|cx| self.poll_sent(cx)).await
    }

    /// Says why, closes, and waits a moment for the peer to have read it.
    pub(super) async fn close(mut self, refusal: &Refusal) {
        // Who doesn't listen any more isn't waited for.
        let _ = tokio::time::timeout(GOODBYE_MAX, self.say_goodbye(refusal)).await;
    }

    async fn say_goodbye(&mut self, refusal: &Refusal) {
        let goodbye = FromBox::Goodbye(to_agent::Goodbye::from(refusal));
        if let Ok(text) = goodbye.render() {
            self.begin(text);
        }
        if let Ok(code) = tokio_websockets::CloseCode::try_from(refusal.code.code()) {
            self.begin_message(Message::close(Some(code), cut(&refusal.reason)));
        }
        // Until the peer closes too, or nothing more can be told from what it sends.
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut self.ws).poll_next(cx)).await {}
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self.ws).poll_flush(cx)).await;
        // Bytes left unread would make the system take back what was just sent.
        let stream = &mut self.ws.get_mut().stream;
        let _ = stream.shutdown().await;
        let mut leftover = [0; LEFTOVER_BYTES];
        while let Ok(1..) = stream.read(&mut leftover).await {}
    }

    /// The peer closed: waits until the answer is sent.
    pub(super) async fn closed(mut self) {
        let rest = async {
            while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut self.ws).poll_next(cx)).await {}
        };
        let _ = tokio::time::timeout(GOODBYE_MAX, rest).await;
    }
}

fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)]
}
