//! Whether the process lives and whether it takes work. Public, and so shows nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Response;

use super::error::ApiError;
use super::response::{self, Body};

/// Says to everyone who holds a copy that the server drains. Set once, never unset.
#[derive(Debug, Clone, Default)]
pub struct DrainFlag(Arc<AtomicBool>);

impl DrainFlag {
    /// From now on the server drains.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it does.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// `/healthz`: whoever can answer lives.
pub(super) fn health() -> Response<Body> {
    response::json("{\"status\":\"ok\"}")
}

/// `/readyz`: 503 while draining, so that load balancers send new work elsewhere.
pub(super) fn ready(drain: &DrainFlag) -> Response<Body> {
    if drain.is_draining() {
        return response::error(&ApiError::draining());
    }
    response::json("{\"status\":\"ready\"}")
}
