//! Errors of requests that never became one: hyper answers a malformed or too large head itself, with no body.
//! Here that answer is replaced by one in the shape of all other errors. Every other byte passes as it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ApiError;
use super::response::RequestId;
use super::tally::Tally;

/// How every answer of class 4 begins, hyper's own and ours.
const CLIENT_ERROR: &[u8] = b"HTTP/1.1 4";
/// What only our answers have.
const OURS: &[u8] = b"\r\nx-request-id: ";
/// What hyper's own have, as the last line of their head.
const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// A connection whose answers to unreadable heads have bodies.
pub(super) struct HeadErrors<S> {
    stream: S,
    tally: Arc<Tally>,
    /// What is still to be written in place of hyper's answer.
    instead: Vec<u8>,
}

impl<S> HeadErrors<S> {
    /// Watches what is written to `stream`.
    pub(super) fn new(stream: S, tally: Arc<Tally>) -> Self {
        Self { stream, tally, instead: Vec::new() }
    }

    /// Whether this is hyper's own answer; then ours is put in its place.
    fn replaces(&mut self, buf: &[u8]) -> bool {
        if !buf.starts_with(CLIENT_ERROR) || contains(buf, OURS) || !contains(buf, EMPTY) {
            return false;
        }
        let status = &buf[CLIENT_ERROR.len() - 1..][..3];
        self.tally.heads_refused.add();
        self.instead = answer(&ApiError::head_refused(status));
        true
    }
}

impl<S: AsyncWrite + Unpin> HeadErrors<S> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

fn contains(buf: &[u8], part: &[u8]) -> bool {
    buf.windows(part.len()).any(|window| window == part)
}

fn answer(error: &ApiError) -> Vec<u8> {
    let body = error.render();
    let reason = error.status.canonical_reason().unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\n\
         cache-control: no-store\r\nx-request-id: {}\r\nopenai-processing-ms: 0\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        error.status.as_u16(),
        RequestId::random().text(),
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadErrors<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadErrors<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.replaces(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(this.poll_instead(cx))?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(first) = bufs.first()
            && this.replaces(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        ready!(this.poll_instead(cx))?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_instead(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_instead(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
