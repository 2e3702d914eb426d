//! What the tests share: a running box, a small HTTP client that can misbehave, and a reader of metrics.

pub mod agent;
pub mod chat;
pub mod cli;
pub mod http;
pub mod metrics;
pub mod peer;
pub mod proxy;
pub mod scripted_box;
pub mod server;
pub mod upstream;
pub mod ws;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a condition may take before the test calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until `look` has something to show; panics with `what` when only patience ran out.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The top of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The small real model, fetched on first use.
pub fn model_path() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let script = root().join("scripts/fetch-model");
        let out = Command::new(&script).output().expect("scripts/fetch-model runs");
        assert!(out.status.success(), "fetch-model: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("a path in UTF-8").trim().to_owned()
    })
}
