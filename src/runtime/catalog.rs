//! The models that are served here, by the names that clients use. Models of other servers come, go, and stop being
//! ready; whoever offers them to a coordinator waits for [`Catalog::changed`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::upstream::{Listed, NameThere, Server, Upstream};
use super::{Local, Offered, Runtime, echo};
use crate::coordinator::event::ModelOffer;
use crate::executor::EngineCounters;
use crate::ids::{Digest, ModelName};
use crate::request::Request;
use crate::sync::lock;

/// Models that are offered at most: as many as a node may have.
pub const MODELS_MAX: usize = 64;
/// Bytes of a model's name, as configurations have it.
const NAME_BYTES_MAX: usize = 200;

/// The models of this process.
#[derive(Default)]
pub struct Catalog {
    entries: Mutex<BTreeMap<ModelName, Arc<Entry>>>,
    /// Servers of which at least one model is served.
    servers: Mutex<Vec<Arc<Server>>>,
    /// Servers whose models are all served.
    sources: Mutex<Vec<Source>>,
    slots: AtomicU32,
    changed: Notify,
    /// What nodes of other machines serve.
    offered: Offered,
}

/// A server whose models are all served, under its names for them.
#[derive(Clone)]
pub struct Source {
    /// Which.
    pub server: Arc<Server>,
    /// Jobs of each model that run at once, and of all of them together.
    pub slots: u32,
    /// Tokens generated at most where the client doesn't say.
    pub output_tokens_default: u32,
}

impl Catalog {
    /// Adds a model; one of the same name is replaced.
    pub fn add(&self, entry: Entry) {
        self.slots.fetch_add(entry.slots, Ordering::Relaxed);
        if let Runtime::Upstream(upstream) = &entry.runtime {
            self.add_server(upstream.server());
        }
        lock(&self.entries).insert(entry.name.clone(), Arc::new(entry));
    }

    /// Adds all models of a server, as it comes to list them. Names that are taken keep what they name.
    pub fn add_source(&self, source: Source) {
        self.slots.fetch_add(source.slots, Ordering::Relaxed);
        self.add_server(&source.server);
        lock(&self.sources).push(source);
    }

    fn add_server(&self, server: &Arc<Server>) {
        let mut servers = lock(&self.servers);
        if !servers.iter().any(|known| Arc::ptr_eq(known, server)) {
            servers.push(Arc::clone(server));
        }
    }

    /// Names the file of a model that is computed here.
    pub fn name_file(&self, model: &str, digest: Digest) {
        if let Some(Runtime::Local(local)) = self.find(model).as_deref().map(|entry| &entry.runtime) {
            local.name_file(digest);
        }
    }

    /// The model of that name.
    pub fn find(&self, name: &str) -> Option<Arc<Entry>> {
        lock(&self.entries).get(name).cloned()
    }

    /// All models in order of name.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    /// What nodes of other machines serve.
    pub fn offered(&self) -> &Offered {
        &self.offered
    }

    /// Whether a model may be one that this process can't read requests for.
    pub fn has_others(&self) -> bool {
        self.has_servers() || self.offered.ever()
    }

    /// Other servers that models are served of.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        lock(&self.servers).clone()
    }

    /// Whether any model is, or may come to be, another server's.
    pub fn has_servers(&self) -> bool {
        !lock(&self.servers).is_empty()
    }

    /// Jobs that run at once over all models, whichever come.
    pub fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }

    /// What this process offers now. A model that can't run at the moment has no slots.
    pub fn offers(&self) -> Vec<ModelOffer> {
        let offer = |entry: Arc<Entry>| {
            let (digest, runtime) = match &entry.runtime {
                Runtime::Local(local) => (local.digest(), local.runtime()),
                // Which bytes another server gives is not for us to promise, and an echo has no weights.
                Runtime::Upstream(_) | Runtime::Echo(_) => (None, None),
            };
            let slots = if entry.is_ready() { entry.slots } else { 0 };
            ModelOffer { digest, runtime, ..ModelOffer::warm(entry.name.clone(), slots) }
        };
        self.entries().into_iter().map(offer).collect()
    }

    /// Ready once the offers may not be what they were at the last call. For one caller.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A server went down or came back, or lists other models than it did.
    pub(super) fn update(&self, server: &Arc<Server>) {
        let sources = lock(&self.sources).clone();
        if let Some(source) = sources.iter().find(|source| Arc::ptr_eq(&source.server, server))
            && let Some(listed) = server.listed()
        {
            self.take_list(source, &listed);
        }
        self.changed.notify_one();
    }

    /// Serves what a server lists now, and nothing else of it. One that is down keeps its models: their jobs wait.
    fn take_list(&self, source: &Source, listed: &[Listed]) {
        let mut entries = lock(&self.entries);
        let is_its = |entry: &Entry| match &entry.runtime {
            Runtime::Upstream(upstream) => {
                upstream.is_discovered() && Arc::ptr_eq(upstream.server(), &source.server)
            }
            Runtime::Echo(_) | Runtime::Local(_) => false,
        };
        entries.retain(|name, entry| {
            let stays = !is_its(entry) || listed.iter().any(|model| *model.name == **name);
            if !stays {
                tracing::info!(model = %name, server = %source.server.url(), "the server has this model no more");
            }
            stays
        });
        for model in listed {
            match entries.get(&*model.name) {
                Some(known) if is_its(known) => {}
                Some(_) => source.server.tell_once(&model.name, "another model has this name here"),
                None if !is_name(&model.name) => {
                    source
                        .server
                        .tell_once(&model.name, "its name has characters that names can't have here");
                }
                None if entries.len() >= MODELS_MAX => {
                    source.server.tell_once(&model.name, "there are as many models as there can be");
                }
                None => {
                    let entry = source.entry(&model.name);
                    tracing::info!(model = %entry.name, server = %source.server.url(), "a model of the server");
                    entries.insert(entry.name.clone(), Arc::new(entry));
                }
            }
        }
    }
}

impl Source {
    fn entry(&self, name: &str) -> Entry {
        let there = NameThere::Stated(name.to_owned());
        Entry {
            name: name.into(),
            created_unix: unix_now(),
            slots: self.slots,
            output_tokens_default: self.output_tokens_default,
            runtime: Runtime::Upstream(Upstream::discovered(Arc::clone(&self.server), there)),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A model that is served here.
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

/// How well a prompt's tokens can be counted here.
pub enum Counting<'e> {
    /// Exactly, with the model's template and tokenizer.
    Exact(ExactCount<'e>),
    /// Not at all: another server has the tokenizer.
    Elsewhere,
}

/// Counts prompts of one model.
pub enum ExactCount<'e> {
    /// An echo's tokens.
    Echo,
    /// A model's own.
    Local(&'e Local),
}

impl ExactCount<'_> {
    /// Tokens of a request's prompt under the model's template. Takes time in proportion to the prompt.
    ///
    /// # Errors
    /// In words for the client, when the template or the tokenizer refuses the messages.
    pub fn input_tokens(&self, request: &Request) -> Result<u32, String> {
        match self {
            ExactCount::Echo => Ok(echo::input_tokens(request)),
            ExactCount::Local(local) => local.input_tokens(request),
        }
    }

    /// Tokens of an answer's text; `None` if it can't be tokenized. Takes time in proportion to the text.
    pub fn output_tokens(&self, text: &str) -> Option<u32> {
        match self {
            ExactCount::Echo => Some(echo::output_tokens(text)),
            ExactCount::Local(local) => local.output_tokens(text),
        }
    }
}

impl Entry {
    /// Tokens of prompt and answer together; `None` where only the server that has the model knows.
    pub fn context_tokens(&self) -> Option<u32> {
        match &self.runtime {
            Runtime::Echo(_) => Some(echo::CONTEXT_TOKENS),
            Runtime::Local(local) => Some(local.context_tokens()),
            Runtime::Upstream(upstream) => upstream.context_tokens(&self.name),
        }
    }

    /// Tokens generated at most where the client doesn't say.
    pub fn output_tokens_default(&self) -> u32 {
        self.output_tokens_default
    }

    /// Who counts the tokens of its prompts.
    pub fn counting(&self) -> Counting<'_> {
        match &self.runtime {
            Runtime::Echo(_) => Counting::Exact(ExactCount::Echo),
            Runtime::Local(local) => Counting::Exact(ExactCount::Local(local)),
            Runtime::Upstream(_) => Counting::Elsewhere,
        }
    }

    /// Whether it could run a job now.
    fn is_ready(&self) -> bool {
        match &self.runtime {
            Runtime::Echo(_) | Runtime::Local(_) => true,
            Runtime::Upstream(upstream) => upstream.server().is_up(),
        }
    }

    /// What the executor has done; `None` where there is none.
    pub fn executor_counters(&self) -> Option<&EngineCounters> {
        match &self.runtime {
            Runtime::Local(local) => Some(local.counters()),
            Runtime::Echo(_) | Runtime::Upstream(_) => None,
        }
    }
}
