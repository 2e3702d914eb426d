//! Clients that leave or stop reading at awkward moments: what they took stays counted until it is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use switchbox::api::Limits;
use switchbox::coordinator::event::Durability;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::rig::{CHAT, PATIENCE, Setup, chat_body, read_answer, request_text, run, send, start};

/// Long enough for what must not happen to happen if it is going to.
const WATCH: Duration = Duration::from_millis(150);

#[test]
fn a_body_is_counted_until_its_parsing_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let (free, blocked) = mpsc::channel::<()>();
    runtime.spawn_blocking(move || blocked.recv());
    let test = async {
        let rig = start(Setup::default()).await;
        let body = chat_body("echo", &"x".repeat(100_000), "");
        let client = send(rig.inference, request_text("POST", CHAT, "", &body).as_bytes()).await;
        rig.wait_for("switchbox_bodies_in_flight_bytes", body.len() as u64).await;
        tokio::time::sleep(WATCH).await;
        drop(client);
        tokio::time::sleep(WATCH).await;
        assert_eq!(rig.metric("switchbox_bodies_in_flight_bytes").await, body.len() as u64);
        free.send(()).expect("the thread waits");
        rig.wait_for("switchbox_bodies_in_flight_bytes", 0).await;
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test ends in time") });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Nothing,
    All,
}

/// A client whose socket holds next to nothing.
async fn narrow(address: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a buffer");
    socket.connect(address).await.expect("connects")
}

#[test]
fn a_whole_answer_is_counted_until_it_is_read() {
    run(async {
        let limits = Limits { body_bytes_max: 16 << 20, ..Limits::default() };
        let mut setup = Setup { limits, ..Setup::default() };
        setup.core.output_bytes_max = 32 << 20;
        let rig = start(setup).await;
        let text = "0123456789abcdef0123456789abcde ".repeat(8 << 15);
        let request = request_text("POST", CHAT, "", &chat_body("echo", &text, r#","max_tokens":262144"#));
        for (count, reads) in [(1, Reads::Nothing), (2, Reads::All)] {
            let mut client = narrow(rig.inference).await;
            tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes()).await.expect("sends");
            let mut status = [0; 12];
            client.read_exact(&mut status).await.expect("the answer has begun");
            assert_eq!(&status, b"HTTP/1.1 200");
            rig.wait_for("switchbox_jobs_finished_total{end=\"succeeded\"}", count).await;
            tokio::time::sleep(WATCH).await;
            assert!(rig.metric("switchbox_output_bytes_held").await >= text.len() as u64);
            if reads == Reads::All {
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.expect("the rest");
                assert!(rest.len() > text.len() && rest.ends_with(b"}}}"));
            }
            drop(client);
            rig.wait_for("switchbox_output_bytes_held", 0).await;
            assert_eq!(rig.metric("switchbox_disconnects_total{phase=\"unread\"}").await, 1);
        }
        let verdict = rig.ask("GET", "/admin/invariants").await.json();
        assert_eq!(verdict["ok"], true, "{verdict}");
    });
}

#[test]
fn nothing_shows_an_acceptance_before_it_is_durable() {
    run(async {
        let stalled = Arc::new(AtomicBool::new(false));
        let limits = Limits { keepalive_ms: 5, ..Limits::default() };
        let rig = start(Setup { limits, commits_stalled: Arc::clone(&stalled), ..Setup::default() }).await;
        stalled.store(true, Ordering::Release);
        let body = chat_body("slow", "one two", r#","stream":true"#);
        let client = send(rig.inference, request_text("POST", CHAT, "", &body).as_bytes()).await;
        rig.wait_for("switchbox_jobs{state=\"running\"}", 1).await;
        let early = tokio::time::timeout(WATCH, client.readable()).await;
        assert!(early.is_err(), "something was sent before the acceptance was durable");
        stalled.store(false, Ordering::Release);
        let answer = read_answer(client).await;
        assert!(answer.header("x-switchbox-job-id").is_some(), "{}", answer.head);
        assert!(answer.body.ends_with("data: [DONE]\n\n"), "{:?}", answer.body);
    });
}

#[test]
fn a_relaxed_stream_begins_before_anything_is_durable() {
    run(async {
        let commits_stalled = Arc::new(AtomicBool::new(false));
        let stalled = Arc::clone(&commits_stalled);
        let limits = Limits { keepalive_ms: 5, ..Limits::default() };
        let durability = Durability::Relaxed;
        let rig = start(Setup { limits, commits_stalled, durability, ..Setup::default() }).await;
        stalled.store(true, Ordering::Release);
        let body = chat_body("slow", "one two", r#","stream":true"#);
        let client = send(rig.inference, request_text("POST", CHAT, "", &body).as_bytes()).await;
        client.readable().await.expect("the stream has begun");
        stalled.store(false, Ordering::Release);
        let answer = read_answer(client).await;
        assert!(answer.header("x-switchbox-job-id").is_some(), "{}", answer.head);
        assert!(answer.body.ends_with("data: [DONE]\n\n"), "{:?}", answer.body);
    });
}
