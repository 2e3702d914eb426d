//! Models of another OpenAI-compatible server (vLLM, llama.cpp, Ollama, ...), over HTTP.
//!
//! A job's body goes there as its client wrote it, save for the model's name, and always as a stream, so that progress
//! is seen; what comes back goes to the output as it came. One connection for each attempt: a stop drops it, which is how
//! such servers are told to stop, and there is none that may have been closed meanwhile. Nothing of a server's is
//! believed without a bound, and its key is never shown.

mod answer;
mod attempt;
mod body;
mod connect;
mod events;
mod fault;
mod list;
mod probe;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::Attempt;

pub use list::Listed;
pub use server::{Patience, Server};

/// One model of a server.
pub struct Upstream {
    server: Arc<Server>,
    there: NameThere,
    found: Found,
}

/// A model's name on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameThere {
    /// This one.
    Stated(String),
    /// The name that it has here, if the server lists it; else the only one that it lists.
    AsHere,
}

/// Why a model is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The configuration names it.
    Configured,
    /// Its server listed it.
    Discovered,
}

impl Upstream {
    /// A model that a configuration names.
    pub fn configured(server: Arc<Server>, there: NameThere) -> Self {
        Self { server, there, found: Found::Configured }
    }

    /// A model that its server listed.
    pub(super) fn discovered(server: Arc<Server>, there: NameThere) -> Self {
        Self { server, there, found: Found::Discovered }
    }

    pub(super) fn is_discovered(&self) -> bool {
        self.found == Found::Discovered
    }

    /// The server that has it.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Tokens of prompt and answer together, where the server says so of a model that is called `name` here.
    pub(super) fn context_tokens(&self, name: &str) -> Option<u32> {
        let there = self.name_there(name);
        self.server.listed()?.iter().find(|listed| listed.name == there)?.context_tokens
    }

    /// The name on the server of a model that is called `name` here.
    fn name_there(&self, name: &str) -> String {
        match &self.there {
            NameThere::Stated(there) => there.clone(),
            NameThere::AsHere => match self.server.listed().as_deref() {
                Some([only]) => only.name.clone(),
                _ => name.to_owned(),
            },
        }
    }

    pub(super) fn start(&self, attempt: Attempt) {
        let there = self.name_there(&attempt.assignment.model);
        tokio::spawn(attempt::run(Arc::clone(&self.server), there, attempt));
    }
}
