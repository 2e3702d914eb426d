//! A WebSocket over loopback TCP: messages in and out, in one task.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_sink::Sink;
use tokio::net::TcpStream;
use tokio_websockets::{Error, Message, WebSocketStream};

type Result<T> = std::result::Result<T, Error>;

/// An open WebSocket.
pub(crate) struct Socket(pub(crate) WebSocketStream<TcpStream>);

impl Socket {
    /// The next message; `None` is the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        Pin::new(&mut self.0).poll_next(cx)
    }

    /// Ready when a message can be put without piling up.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_ready(cx)
    }

    /// Puts a message, to be flushed.
    pub(crate) fn put(&mut self, message: Message) -> Result<()> {
        Pin::new(&mut self.0).start_send(message)
    }

    /// Writes what was put, and the answers to pings.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Waits for the next message.
    pub(crate) async fn next(&mut self) -> Option<Result<Message>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a message, all of it.
    pub(crate) async fn send(&mut self, message: Message) -> Result<()> {
        self.put(message)?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }
}
