//! What a sync echo job costs over a bare hyper answer, with one client on one kept connection.
//!
//! `cargo test --release --test it_api speed -- --ignored --nocapture`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use crate::rig::{CHAT, Setup, chat_body, request_text, start};

const ROUNDS: usize = 20_000;

/// Asks again and again; the median and the 99th percentile.
fn measure(address: SocketAddr, request: &str) -> (Duration, Duration) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("a socket");
    let mut times = Vec::with_capacity(ROUNDS);
    let mut buffer = [0; 8_192];
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).expect("sends");
        let mut len = 0;
        while len == 0 || buffer[len - 1] != b'}' {
            len += stream.read(&mut buffer[len..]).expect("an answer");
        }
        times.push(begun.elapsed());
        assert!(buffer.starts_with(b"HTTP/1.1 200"));
    }
    times.sort_unstable();
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}

async fn bare_hyper() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.set_nodelay(true);
            let echo = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(hyper::Response::new(Full::new(body)))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), echo),
            );
        }
    });
    address
}

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn speed_of_a_sync_echo() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bare = bare_hyper().await;
        let durability = switchbox::api::Durability::Relaxed;
        let relaxed = start(Setup { durability, ..Setup::default() }).await;
        let strict = start(Setup::default()).await;
        let chat =
            request_text("POST", CHAT, "content-type: application/json\r\n", &chat_body("echo", "hello", ""));
        let chat = chat.replace("connection: close\r\n", "");
        let models = request_text("GET", "/v1/models/echo", "", "").replace("connection: close\r\n", "");
        for round in 0..3 {
            for (name, address, request) in [
                ("bare hyper", bare, &chat),
                ("models", relaxed.inference, &models),
                ("relaxed echo job", relaxed.inference, &chat),
                ("strict echo job", strict.inference, &chat),
            ] {
                let request = request.clone();
                let timing = tokio::task::spawn_blocking(move || measure(address, &request)).await;
                let (p50, p99) = timing.expect("measured");
                eprintln!("round {round}: {name:18} p50 {p50:?} p99 {p99:?}");
            }
        }
    });
}
