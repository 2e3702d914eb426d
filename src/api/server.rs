//! Listening: who may connect, how many, and how long each step of a connection may take.
//!
//! Knows connections, never what is asked on them: that is the handler's. Bounds are taken before work: a
//! connection's place before `accept`, so that a flood waits in the kernel and costs nothing here.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::hangup::{HangUpGuard, Socket};
use super::head_errors::HeadErrors;
use super::limits::Limits;
use super::response::Body;
use super::secured;
use super::stall::StallGuard;
use super::tally::Tally;
use crate::arrivals::Place;

/// After an error of `accept` that new attempts won't cure at once (no file descriptors left).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a connection over the bound of its address reads.
const TOO_MANY_CONNECTIONS: &str = concat!(
    r#"{"error":{"message":"Too many connections from this address: reuse connections, or open fewer.","#,
    r#""type":"rate_limit_error","param":null,"code":"too_many_connections"}}"#
);

/// Where connections come in.
pub enum Listener {
    /// An IP address and port.
    Tcp(TcpListener),
    /// The same, with TLS.
    Tls(TcpListener, TlsAcceptor),
    /// A path in the file system, whose permissions say who may connect.
    Unix(UnixListener),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A machine.
    Ip(IpAddr),
    /// A process of this machine, through a Unix socket.
    Unix,
}

/// Serves until `shutdown`, then lets the connections finish their current answer. The deadline for that is
/// the caller's: it drops this future. Before `shutdown` everything is let in and answered, draining or not.
pub(super) async fn serve<H, F>(
    listener: Listener,
    limits: &Limits,
    tally: &Arc<Tally>,
    shutdown: impl Future<Output = ()>,
    handler: H,
) where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_max as usize));
    let addresses = Arc::new(Addresses::new(limits));
    let (closing, _) = watch::channel(Phase::Open);
    let care = Care::new(limits, tally);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        match accepted {
            Ok(Accepted::Tcp(stream, ip, tls)) => {
                let Some(address) = Addresses::enter(&addresses, ip) else {
                    tally.connections_refused.add();
                    if tls.is_none() {
                        turn_away(&stream);
                    }
                    continue;
                };
                // Without it the last small piece of an answer waits for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                let connection = Connection { peer: Peer::Ip(ip), _place: place, _address: Some(address) };
                let conversation =
                    Conversation { care: care.clone(), closing: closing.subscribe(), connection };
                match tls {
                    None => drop(tokio::spawn(conversation.hold(stream, handler.clone()))),
                    Some(tls) => {
                        drop(tokio::spawn(conversation.hold_secured(stream, tls, handler.clone())));
                    }
                }
            }
            Ok(Accepted::Unix(stream)) => {
                let connection = Connection { peer: Peer::Unix, _place: place, _address: None };
                let conversation =
                    Conversation { care: care.clone(), closing: closing.subscribe(), connection };
                tokio::spawn(conversation.hold(stream, handler.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting connections failed: waiting before the next try");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
        // What is being served gets its turn between two that come: a thousand agents that dial at once have thousands
        // of steps to be let in, and a job would wait behind each batch of them.
        tokio::task::yield_now().await;
    }
    drop(listener);
    let _ = closing.send(Phase::Closing);
    // All places are free again when every connection has ended.
    let _ = places.acquire_many(limits.connections_max).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
}

pub(super) enum Accepted {
    Tcp(TcpStream, IpAddr, Option<TlsAcceptor>),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address.ip().to_canonical(), None))
            }
            Listener::Tls(listener, tls) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address.ip().to_canonical(), Some(tls.clone())))
            }
            Listener::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// Whether an error of `accept` says only that this one connection is gone again.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn turn_away(stream: &TcpStream) {
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{TOO_MANY_CONNECTIONS}",
        TOO_MANY_CONNECTIONS.len()
    );
    // Best effort: the fresh socket's buffer is empty, and a peer that floods isn't waited for.
    let _ = stream.try_write(answer.as_bytes());
}

/// What a connection holds as long as it lives.
struct Connection {
    peer: Peer,
    _place: OwnedSemaphorePermit,
    _address: Option<AddressPlace>,
}

/// What every connection is watched by and counted in.
#[derive(Clone)]
struct Care {
    http: http1::Builder,
    stall: Duration,
    secure_within: Duration,
    tally: Arc<Tally>,
}

impl Care {
    fn new(limits: &Limits, tally: &Arc<Tally>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_timeout())
            .max_headers(limits.headers_max)
            .max_buf_size(limits.head_bytes_max);
        let (stall, secure_within) = (limits.client_stall(), limits.header_read_timeout());
        Self { http, stall, secure_within, tally: Arc::clone(tally) }
    }
}

/// A connection with all that it takes to serve it.
struct Conversation {
    care: Care,
    closing: watch::Receiver<Phase>,
    connection: Connection,
}

impl Conversation {
    /// Serves a connection of TLS, once it is one.
    async fn hold_secured<H, F>(self, stream: TcpStream, tls: TlsAcceptor, handler: H)
    where
        H: Fn(Peer, Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        match tokio::time::timeout(self.care.secure_within, secured::secure(stream, &tls)).await {
            Ok(Some(stream)) => self.hold(stream, handler).await,
            // What couldn't be agreed on, or took too long.
            Ok(None) | Err(_) => self.care.tally.tls_refused.add(),
        }
    }

    /// Serves a connection to its end.
    async fn hold<S, H, F>(self, stream: S, handler: H)
    where
        S: Socket,
        H: Fn(Peer, Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let Self { care: Care { http, stall, tally, .. }, mut closing, connection } = self;
        let peer = connection.peer;
        let place = Place::new(Arc::new(connection));
        let kept = place.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            // What becomes another protocol keeps its place.
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(kept.clone());
            }
            let response = handler(peer, request);
            async move { Ok::<_, std::convert::Infallible>(response.await) }
        });
        let guarded = StallGuard::new(HangUpGuard::new(stream), stall);
        let io = TokioIo::new(HeadErrors::new(guarded, tally));
        let mut http = std::pin::pin!(http.serve_connection(io, service).with_upgrades());
        let closing = async move { closing.wait_for(|phase| *phase == Phase::Closing).await.map(|_| ()) };
        let ended = tokio::select! {
            ended = &mut http => Some(ended),
            // The sender is gone only when the whole listener was dropped: then so is the grace.
            _ = closing => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                http.as_mut().graceful_shutdown();
                http.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, ?peer, "a connection ended early");
        }
        drop(place);
    }
}

/// How many connections each address has.
struct Addresses {
    open: Mutex<HashMap<IpAddr, u32>>,
    per_ip_max: u32,
    per_loopback_max: u32,
}

impl Addresses {
    fn new(limits: &Limits) -> Self {
        Self {
            open: Mutex::new(HashMap::new()),
            per_ip_max: limits.connections_per_ip_max,
            per_loopback_max: limits.connections_per_loopback_max,
        }
    }

    /// Takes a place for a connection from `ip`, or says that it has too many.
    fn enter(this: &Arc<Self>, ip: IpAddr) -> Option<AddressPlace> {
        let max = if ip.is_loopback() { this.per_loopback_max } else { this.per_ip_max };
        let ip = one_customer(ip);
        let mut open = crate::sync::lock(&this.open);
        let count = open.entry(ip).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPlace { addresses: Arc::clone(this), ip })
    }
}

/// The part of an address that one customer of a provider can't vary: an IPv6 /64.
pub(super) fn one_customer(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) if v6.is_loopback() => ip,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
    }
}

/// One connection in its address's count, until dropped.
struct AddressPlace {
    addresses: Arc<Addresses>,
    ip: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = crate::sync::lock(&self.addresses.open);
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests;
