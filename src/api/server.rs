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
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::limits::Limits;
use super::response::Body;
use super::stall::StallGuard;

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
    shutdown: impl Future<Output = ()>,
    handler: H,
) where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_max as usize));
    let addresses = Arc::new(Addresses::new(limits));
    let (closing, _) = watch::channel(Phase::Open);
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
            Ok(Accepted::Tcp(stream, ip)) => {
                let Some(address) = Addresses::enter(&addresses, ip) else {
                    turn_away(&stream);
                    continue;
                };
                // Without it the last small piece of an answer waits for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                let connection = Connection { peer: Peer::Ip(ip), _place: place, _address: Some(address) };
                spawn(stream, connection, limits, closing.subscribe(), handler.clone());
            }
            Ok(Accepted::Unix(stream)) => {
                let connection = Connection { peer: Peer::Unix, _place: place, _address: None };
                spawn(stream, connection, limits, closing.subscribe(), handler.clone());
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting connections failed: waiting before the next try");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
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

enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address.ip().to_canonical()))
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

fn spawn<S, H, F>(
    stream: S,
    connection: Connection,
    limits: &Limits,
    mut closing: watch::Receiver<Phase>,
    handler: H,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Peer, Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let peer = connection.peer;
    let service = hyper::service::service_fn(move |request| {
        let response = handler(peer, request);
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });
    let io = TokioIo::new(StallGuard::new(stream, limits.client_stall()));
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout())
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(io, service);
    tokio::spawn(async move {
        let _held = connection;
        let mut http = std::pin::pin!(http);
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
    });
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
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use crate::api::response::json;

    const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    /// Far longer than anything here takes: a test that waits so long has failed.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Served {
        address: SocketAddr,
        shutdown: oneshot::Sender<()>,
        ended: tokio::task::JoinHandle<()>,
    }

    async fn start<H, F>(limits: Limits, handler: H) -> Served
    where
        H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (shutdown, told) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let told = async { drop(told.await) };
            serve(Listener::Tcp(listener), &limits, told, handler).await;
        });
        Served { address, shutdown, ended }
    }

    async fn hello(_: Peer, _: Request<Incoming>) -> Response<Body> {
        json("{}")
    }

    async fn to_end(mut stream: TcpStream) -> String {
        let mut all = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        // A reset ends it as well as a close.
        let _ = read.expect("the server ends the connection");
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn ask(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sends");
        stream
    }

    async fn answer_of(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        while !text.ends_with("{}") {
            let mut piece = [0; 512];
            let len = tokio::time::timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer");
            let len = len.expect("open");
            assert_ne!(len, 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&piece[..len]).expect("text"));
        }
        text
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test);
    }

    #[test]
    fn a_slow_head_is_cut_off() {
        run(async {
            let served = start(Limits { header_read_timeout_ms: 40, ..Limits::default() }, hello).await;
            let stream = ask(served.address, "GET / HTTP/1.1\r\nhost: loc").await;
            assert_eq!(to_end(stream).await, "");
            // So is a connection that says nothing at all.
            assert_eq!(to_end(ask(served.address, "").await).await, "");
        });
    }

    #[test]
    fn connections_are_kept_and_reused() {
        run(async {
            let served = start(Limits::default(), hello).await;
            let mut stream = ask(served.address, GET).await;
            assert!(answer_of(&mut stream).await.starts_with("HTTP/1.1 200"));
            stream.write_all(GET.as_bytes()).await.expect("still open");
            assert!(answer_of(&mut stream).await.starts_with("HTTP/1.1 200"));
        });
    }

    #[test]
    fn heads_are_bounded() {
        run(async {
            let served = start(Limits::default(), hello).await;
            let many = "x-a: b\r\n".repeat(80);
            let long = format!("x-a: {}\r\n", "b".repeat(200 << 10));
            for more in [many, long] {
                let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
                let mut stream = TcpStream::connect(served.address).await.expect("connects");
                // The server may close before it has read all.
                let _ = stream.write_all(request.as_bytes()).await;
                let answer = to_end(stream).await;
                assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
            }
        });
    }

    #[test]
    fn an_address_has_only_its_share() {
        run(async {
            let served = start(Limits { connections_per_loopback_max: 1, ..Limits::default() }, hello).await;
            let mut first = ask(served.address, GET).await;
            answer_of(&mut first).await;
            let refused = to_end(ask(served.address, "").await).await;
            assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
            assert!(refused.contains("\r\nretry-after: 1\r\n") && refused.ends_with(TOO_MANY_CONNECTIONS));
            drop(first);
            let again = async {
                loop {
                    let answer = to_end(
                        ask(served.address, &GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await,
                    );
                    if answer.await.starts_with("HTTP/1.1 200") {
                        return;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, again).await.expect("the share is free again");
        });
    }

    #[test]
    fn connections_beyond_the_bound_wait_for_a_place() {
        run(async {
            let served = start(Limits { connections_max: 1, ..Limits::default() }, hello).await;
            let mut first = ask(served.address, GET).await;
            answer_of(&mut first).await;
            let mut second = ask(served.address, GET).await;
            let early = tokio::time::timeout(Duration::from_millis(50), second.readable()).await;
            assert!(early.is_err(), "answered without a place");
            drop(first);
            answer_of(&mut second).await;
        });
    }

    #[test]
    fn a_client_that_stops_reading_is_dropped() {
        run(async {
            let limits = Limits { client_stall_ms: 50, ..Limits::default() };
            let large = bytes::Bytes::from(vec![b'x'; 64 << 20]);
            let served = start(limits, move |_, _| std::future::ready(json(large.clone()))).await;
            let stream = ask(served.address, GET).await;
            // Reads nothing; the connection must end all the same.
            served.shutdown.send(()).expect("running");
            tokio::time::timeout(PATIENCE, served.ended).await.expect("ends").expect("no panic");
            assert!(to_end(stream).await.len() < 64 << 20);
        });
    }

    #[test]
    fn shutdown_lets_answers_end_and_lets_nobody_in() {
        run(async {
            let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (begin, wait) = (Arc::clone(&begun), Arc::clone(&go));
            let served = start(Limits::default(), move |_, _| {
                let (begin, wait) = (Arc::clone(&begin), Arc::clone(&wait));
                async move {
                    begin.notify_one();
                    wait.notified().await;
                    json("{}")
                }
            })
            .await;
            let stream = ask(served.address, GET).await;
            let _idle = ask(served.address, "").await;
            begun.notified().await;
            served.shutdown.send(()).expect("running");
            tokio::task::yield_now().await;
            assert!(!served.ended.is_finished());
            go.notify_one();
            let answer = to_end(stream).await;
            assert!(answer.contains("connection: close") && answer.ends_with("{}"), "{answer}");
            tokio::time::timeout(PATIENCE, served.ended).await.expect("ends").expect("no panic");
            assert!(TcpStream::connect(served.address).await.is_err());
        });
    }

    #[test]
    fn a_client_that_leaves_ends_its_handler() {
        struct Left(Arc<Notify>);
        impl Drop for Left {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        run(async {
            let (begun, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (begin, leave) = (Arc::clone(&begun), Arc::clone(&left));
            let served = start(Limits::default(), move |_, _| {
                let left = Left(Arc::clone(&leave));
                begin.notify_one();
                async move {
                    let _left = left;
                    std::future::pending().await
                }
            })
            .await;
            let stream = ask(served.address, GET).await;
            begun.notified().await;
            drop(stream);
            tokio::time::timeout(PATIENCE, left.notified()).await.expect("the handler was dropped");
        });
    }

    #[test]
    fn an_ipv6_network_is_one_customer() {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (ip, customer) in
            [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("::1", "::1")]
        {
            assert_eq!(one_customer(parse(ip)), parse(customer));
        }
    }

    #[test]
    fn errors_of_one_connection_are_not_waited_for() {
        use rustix::io::Errno;
        for (error, is_one) in [(Errno::CONNABORTED, true), (Errno::MFILE, false), (Errno::NFILE, false)] {
            assert_eq!(is_of_one_connection(&io::Error::from_raw_os_error(error.raw_os_error())), is_one);
        }
    }
}
