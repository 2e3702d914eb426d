//! Whether the process lives and whether it takes work. Public, and so shows hardly anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Response;
use tokio::sync::Notify;

use super::error::ApiError;
use super::response::{self, Body};
use crate::door::Door;

/// Says to everyone who holds a copy that the server drains. Set once, never unset.
#[derive(Debug, Clone, Default)]
pub struct DrainFlag(Arc<Raised>);

#[derive(Debug, Default)]
struct Raised {
    is: AtomicBool,
    news: Notify,
}

impl DrainFlag {
    /// From now on the server drains.
    pub fn raise(&self) {
        self.0.is.store(true, Ordering::Release);
        self.0.news.notify_waiters();
    }

    /// Whether it does.
    pub fn is_draining(&self) -> bool {
        self.0.is.load(Ordering::Acquire)
    }

    /// Ready once it does.
    pub(super) async fn raised(&self) {
        // Made before the look: what is raised behind the look is heard.
        let news = self.0.news.notified();
        if !self.is_draining() {
            news.await;
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
    match door.store_state() {
        Some(state) if state.trouble.is_some() => {
            response::json("{\"status\":\"ready\",\"storage\":\"snapshots_failing\"}")
        }
        _ => response::json("{\"status\":\"ready\",\"storage\":\"ok\"}"),
    }
}
