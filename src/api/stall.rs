//! Ends connections whose client stopped reading. hyper has no write timeout: without this a client that opens
//! streams and reads nothing keeps its jobs and their memory for ever. Never looks at what is written.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A connection whose pending write fails once it is older than a deadline.
pub(super) struct StallGuard<S> {
    stream: S,
    stall: Duration,
    /// Runs only while a write is pending, so that an ordinary connection never makes a timer.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl<S> StallGuard<S> {
    /// Guards `stream`: a write that makes no progress for `stall` is an error.
    pub(super) fn new(stream: S, stall: Duration) -> Self {
        Self { stream, stall, overdue: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.overdue = None;
            return write;
        }
        let stall = self.stall;
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        match overdue.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.watch(cx, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.watch(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_flush(cx) {
            // A flush with nothing to flush must not call off the alarm of a write that is still pending.
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => this.watch(cx, Poll::Pending),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shutdown = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.watch(cx, shutdown)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(test);
    }

    #[test]
    fn a_reader_that_stops_ends_the_write() {
        run(async {
            let (near, _far) = tokio::io::duplex(16);
            let mut near = StallGuard::new(near, Duration::from_millis(20));
            let error = near.write_all(&[0; 64]).await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_slow_reader_that_goes_on_is_left_alone() {
        run(async {
            let (near, mut far) = tokio::io::duplex(4);
            let mut near = StallGuard::new(near, Duration::from_secs(5));
            let reader = async {
                let mut all = Vec::new();
                while all.len() < 64 {
                    tokio::task::yield_now().await;
                    all.push(far.read_u8().await.expect("open"));
                }
            };
            let (written, ()) = tokio::join!(near.write_all(&[7; 64]), reader);
            written.expect("it was read");
            assert!(near.overdue.is_none());
        });
    }
}
