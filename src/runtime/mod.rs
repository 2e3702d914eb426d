//! What computes, behind one enum: the built-in executor, or an echo for tests and measurements.
//!
//! A runtime takes assignments and answers through their slots; it decides nothing about jobs and knows neither
//! HTTP nor the core.

mod echo;
mod local;
mod session;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

pub use echo::Echo;
pub use local::{Local, TemplateStuck};
pub use session::{Attempts, LocalNode};

use crate::clock::Clock;
use crate::coordinator::effect::Assignment;
use crate::coordinator::event::ModelOffer;
use crate::executor::{Engine, EngineCounters};
use crate::ids::ModelName;
use crate::node::Slot;
use crate::output::Output;
use crate::request::{self, Request, RequestError};

/// Bodies larger than this are parsed, and their tokens counted, off the io thread.
pub const INLINE_BODY_BYTES_MAX: usize = 16 << 10;

/// The models of this box, by the names that clients use.
#[derive(Default)]
pub struct Catalog {
    entries: BTreeMap<ModelName, Entry>,
}

impl Catalog {
    /// Adds a model; one of the same name is replaced.
    pub fn add(&mut self, entry: Entry) {
        self.entries.insert(entry.name.clone(), entry);
    }

    /// The model of that name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All models in order of name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// What the local node offers.
    pub fn offers(&self) -> Vec<ModelOffer> {
        self.entries().map(|entry| ModelOffer::warm(entry.name.clone(), entry.slots)).collect()
    }
}

/// A model that this box serves.
pub struct Entry {
    /// The name that clients use.
    pub name: ModelName,
    /// When it was loaded, in unix seconds.
    pub created_unix: u64,
    /// How many jobs of it run at once.
    pub slots: u32,
    /// Tokens generated at most where the client doesn't say.
    pub output_tokens_default: u32,
    /// What computes it.
    pub runtime: Runtime,
}

impl Entry {
    /// Tokens of prompt and answer together.
    pub fn context_tokens(&self) -> u32 {
        match &self.runtime {
            Runtime::Echo(_) => echo::CONTEXT_TOKENS,
            Runtime::Local(local) => local.context_tokens(),
        }
    }

    /// Tokens generated at most where the client doesn't say.
    pub fn output_tokens_default(&self) -> u32 {
        self.output_tokens_default
    }

    /// Tokens of a request's prompt under this model's template. Takes time in proportion to the prompt.
    ///
    /// # Errors
    /// In words for the client, when the template or the tokenizer refuses the messages.
    pub fn input_tokens(&self, request: &Request) -> Result<u32, String> {
        match &self.runtime {
            Runtime::Echo(_) => Ok(echo::input_tokens(request)),
            Runtime::Local(local) => local.input_tokens(request),
        }
    }

    /// What the executor has done; `None` where there is none.
    pub fn executor_counters(&self) -> Option<&EngineCounters> {
        match &self.runtime {
            Runtime::Echo(_) => None,
            Runtime::Local(local) => Some(local.counters()),
        }
    }
}

/// What computes a model.
pub enum Runtime {
    /// Answers with the words of the last message.
    Echo(Echo),
    /// The built-in executor.
    Local(Local),
}

impl Runtime {
    /// Begins an attempt. Never waits; the answer goes through its slot.
    fn start(&self, attempt: Attempt) {
        match self {
            Runtime::Echo(echo) => echo.start(attempt),
            Runtime::Local(local) => local.start(attempt),
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
