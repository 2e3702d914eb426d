//! Whether the process lives and whether it takes work. Public, and so shows hardly anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Response;
use tokio::sync::Notify;

use super::error::ApiError;
use super::response::{self, Body};
use crate::door::Door;

/// Says to everyone who holds a copy that the server drains, and at last that it leaves. Set once, never unset.
#[derive(Debug, Clone, Default)]
pub struct DrainFlag(Arc<Raised>);

#[derive(Debug, Default)]
struct Raised {
    draining: AtomicBool,
    leaving: AtomicBool,
    leaves: Notify,
}

impl DrainFlag {
    /// From now on the server drains: it takes nothing new, and finishes what it has.
    pub fn raise(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether it does.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// From now on nothing is finished any more: whoever still waits is told so, and where to ask later.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Release);
        self.0.leaves.notify_waiters();
    }

    /// Ready once nothing is finished any more.
    pub(super) async fn left(&self) {
        // Made before the look: what is said behind the look is heard.
        let leaves = self.0.leaves.notified();
        if !self.0.leaving.load(Ordering::Acquire) {
            leaves.await;
        }
    }
}

/// `/healthz`: whoever can answer lives.
pub(super) fn health() -> Response<Body> {
    response::json("{\"status\":\"ok\"}")
}

/// `/readyz`: 503 while new work is refused, for the same reason, so that load balancers send it elsewhere. Trouble that
/// refuses nothing yet is said beside it; what exactly it is, only on the admin listener.
pub(super) fn ready(drain: &DrainFlag, door: &Door) -> Response<Body> {
    if drain.is_draining() {
        return response::error(&ApiError::draining());
    }
    if let Some(refusal) = door.closed() {
        return response::error(&ApiError::refused(&refusal, ""));
    }
    match door.store_trouble() {
        Some(_) => response::json("{\"status\":\"ready\",\"storage\":\"snapshots_failing\"}"),
        None => response::json("{\"status\":\"ready\",\"storage\":\"ok\"}"),
    }
}
