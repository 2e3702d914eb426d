//! What computes, behind one enum: the built-in executor, another OpenAI-compatible server, or an echo for tests and
//! measurements.
//!
//! A runtime takes assignments and answers through their slots; it decides nothing about jobs and doesn't know the core.

mod catalog;
mod echo;
mod local;
mod offered;
mod session;
pub mod upstream;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

pub use catalog::{Catalog, Counting, Entry, ExactCount, MODELS_MAX, Source};
pub use echo::Echo;
pub use local::{Local, TemplateStuck};
pub use offered::Offered;
pub use session::{Attempts, LocalNode};
pub use upstream::Upstream;

use crate::clock::Clock;
use crate::coordinator::effect::Assignment;
use crate::executor::Engine;
use crate::node::Slot;
use crate::output::Output;
use crate::request::{self, Request, RequestError};

/// Bodies larger than this are parsed, and their tokens counted, off the io thread.
pub const INLINE_BODY_BYTES_MAX: usize = 16 << 10;

/// What computes a model.
pub enum Runtime {
    /// Answers with the words of the last message.
    Echo(Echo),
    /// The built-in executor.
    Local(Local),
    /// Another server.
    Upstream(Upstream),
}

impl Runtime {
    /// Begins an attempt. Never waits; the answer goes through its slot.
    fn start(&self, attempt: Attempt) {
        match self {
            Runtime::Echo(echo) => echo.start(attempt),
            Runtime::Local(local) => local.start(attempt),
            Runtime::Upstream(upstream) => upstream.start(attempt),
        }
    }
}

/// An assignment with everything that running it takes.
struct Attempt {
    assignment: Assignment,
    output: Arc<Output>,
    slot: Slot,
    stop: Arc<Stop>,
    clock: Clock,
}

impl Attempt {
    /// The client's request, as the api understood it.
    async fn request(&self) -> Result<Request, RequestError> {
        let (endpoint, body) = (self.assignment.endpoint, Arc::clone(&self.assignment.body));
        if body.len() <= INLINE_BODY_BYTES_MAX {
            return request::parse(endpoint, &body);
        }
        let parsed = tokio::task::spawn_blocking(move || request::parse(endpoint, &body)).await;
        parsed.unwrap_or_else(|_| {
            let message = "The request could not be read.".to_owned();
            Err(RequestError { message, param: None, code: "invalid_json" })
        })
    }
}

/// A stop that an attempt looks for.
#[derive(Default)]
struct Stop {
    told: AtomicBool,
    news: Notify,
    /// The engine's sequence, once there is one.
    sequence: OnceLock<(Engine, u64)>,
}

impl Stop {
    fn tell(&self) {
        self.told.store(true, Ordering::Release);
        self.news.notify_one();
        if let Some((engine, id)) = self.sequence.get() {
            engine.cancel(*id);
        }
    }

    /// Names the sequence that a later stop cancels. On the thread that tells, so that none is missed.
    fn cancels(&self, engine: Engine, id: u64) {
        // Set once an attempt: a second call would be a bug, and the first sequence is the one to stop.
        let _ = self.sequence.set((engine, id));
    }

    fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Ready once the stop was told. One waiter at a time.
    async fn told(&self) {
        while !self.is_told() {
            self.news.notified().await;
        }
    }
}
