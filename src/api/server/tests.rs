//! The listener on real sockets, with small bounds.

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
        serve(Listener::Tcp(listener), &limits, &Arc::default(), told, handler).await;
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
fn who_comes_with_many_others_lets_the_rest_of_the_box_work_in_between() {
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    const COME: usize = 64;
    run(async {
        let answered = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&answered);
        let served = start(Limits::default(), move |_, _| {
            counting.fetch_add(1, Relaxed);
            async { json("{}") }
        })
        .await;
        // All of them are there before the first is looked at: this is the server's thread too.
        let come = |_| {
            let mut stream = std::net::TcpStream::connect(served.address).expect("connects");
            stream.write_all(GET.as_bytes()).expect("sends");
            stream
        };
        let _streams: Vec<_> = (0..COME).map(come).collect();
        let mut most_in_a_turn = 0;
        while answered.load(Relaxed) < COME {
            let before = answered.load(Relaxed);
            tokio::task::yield_now().await;
            most_in_a_turn = most_in_a_turn.max(answered.load(Relaxed) - before);
        }
        assert!(most_in_a_turn <= COME / 8, "{most_in_a_turn} of {COME} in a row");
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
            let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(body["error"]["code"], "headers_too_large");
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

/// Says when it was dropped.
struct Left(Arc<Notify>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[test]
fn a_client_that_leaves_ends_its_handler() {
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
fn a_peer_that_leaves_is_seen_behind_unread_bytes() {
    run(async {
        for more in ["\r\n", GET] {
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
            let stream = ask(served.address, &[GET, more].concat()).await;
            begun.notified().await;
            drop(stream);
            tokio::time::timeout(PATIENCE, left.notified()).await.expect("the handler was dropped");
        }
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

#[test]
fn a_unix_socket_serves_too() {
    run(async {
        let path = std::env::temp_dir().join(format!("switchbox-api-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let handler = |peer, _: Request<Incoming>| {
            assert_eq!(peer, Peer::Unix);
            std::future::ready(json("{}"))
        };
        let limits = Limits::default();
        tokio::spawn(async move {
            serve(Listener::Unix(listener), &limits, &Arc::default(), std::future::pending(), handler).await
        });
        let mut stream = tokio::net::UnixStream::connect(&path).await.expect("connects");
        let request = GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let _ = std::fs::remove_file(&path);
    });
}

#[test]
fn what_is_not_http_is_told_so_in_json() {
    run(async {
        let served = start(Limits::default(), hello).await;
        for request in ["NOT HTTP\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n"] {
            let answer = to_end(ask(served.address, request).await).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            assert!(answer.ends_with("\"code\":\"invalid_http\"}}"), "{answer}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
        let mut stream = TcpStream::connect(served.address).await.expect("connects");
        let _ = stream.write_all(long.as_bytes()).await;
        let answer = to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("\"error\""), "{answer}");
    });
}
