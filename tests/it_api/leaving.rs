//! Clients that leave or stop reading at awkward moments: what they took stays counted until it is free.

use std::sync::mpsc;
use std::time::Duration;

use crate::rig::{CHAT, PATIENCE, Setup, chat_body, request_text, send, start};

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
