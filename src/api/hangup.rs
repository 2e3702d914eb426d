//! Sees that a client hung up even while bytes of it lie unread: a stray line end, or its next request. hyper looks
//! for the end of its input only while its own buffer is empty, and would let the job of a client that is gone
//! run to its end. Never takes a byte of what it watches.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

/// How often it looks, where nobody waits for input.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A socket that knows whether its peer is done sending.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether it is, whatever is still unread.
    fn is_hung_up(&self) -> bool;
}

/// Whether the end of input is among what is known of a socket now, without waiting for more.
fn ends(ready: impl Future<Output = io::Result<tokio::io::Ready>>) -> bool {
    match pin!(ready).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

impl Socket for TcpStream {
    fn is_hung_up(&self) -> bool {
        ends(self.ready(Interest::READABLE))
    }
}

impl Socket for TlsStream<TcpStream> {
    fn is_hung_up(&self) -> bool {
        self.get_ref().0.is_hung_up()
    }
}

impl Socket for UnixStream {
    fn is_hung_up(&self) -> bool {
        ends(self.ready(Interest::READABLE))
    }
}

/// A connection that fails once its peer hung up.
pub(super) struct HangUpGuard<S> {
    stream: S,
    input: Input,
    /// Made when nobody waits for input, and not moved with each request: it only matters when it has fired.
    look: Option<Pin<Box<Sleep>>>,
}

/// Who would see the end of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// hyper waits for input.
    Awaited,
    /// hyper has enough for now.
    Left,
}

impl<S> HangUpGuard<S> {
    /// Guards `stream`.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: Input::Left, look: None }
    }
}

impl<S: Socket> HangUpGuard<S> {
    /// hyper flushes last in each of its turns: if it didn't wait for input before, this looks in its place.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if std::mem::replace(&mut self.input, Input::Left) == Input::Awaited {
            return Ok(());
        }
        let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
        while look.as_mut().poll(cx).is_ready() {
            if self.stream.is_hung_up() {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client hung up"));
            }
            look.as_mut().reset(tokio::time::Instant::now() + LOOK_EVERY);
        }
        Ok(())
    }
}

impl<S: Socket> AsyncRead for HangUpGuard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.input = if read.is_pending() { Input::Awaited } else { Input::Left };
        read
    }
}

impl<S: Socket> AsyncWrite for HangUpGuard<S> {
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
        let this = self.get_mut();
        this.look(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
