//! Opens the models that the configuration names, of a box and of an agent alike.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Executor, Limits, Model, ModelSpec, Served, UpstreamServer};
use crate::digests::{Digests, Unreadable, digests};
use crate::executor::{EngineOptions, ModelError, Numerics};
use crate::ids::ModelName;
use crate::runtime::upstream::{NameThere, Patience, Server};
use crate::runtime::{Catalog, Echo, Entry, Local, Runtime, Source, TemplateStuck, Upstream};
use crate::secrets::ServerKey;

/// How long a model's template may take for a smallest chat; SmolLM2's takes far less than a millisecond.
const TEMPLATE_PATIENCE: Duration = Duration::from_secs(10);

/// For a connection to another server.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a start waits for the first look at other servers: what isn't up by then is served when it comes.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// A model that can't be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be opened.
    #[error("the model `{name}` can't be served from {}: {fault}", path.display())]
    Model {
        /// Its name here.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        fault: Fault,
    },
    /// The variable of a server's key isn't there, or isn't a key.
    #[error("the environment variable `{variable}` should have the key of {url}, but {problem}")]
    Key {
        /// Which variable.
        variable: String,
        /// Of which server.
        url: String,
        /// What is wrong, without its value.
        problem: &'static str,
    },
}

/// What is wrong with a model's file.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// What is in it.
    #[error(transparent)]
    Model(#[from] Box<ModelError>),
    /// Its template.
    #[error(transparent)]
    Template(#[from] TemplateStuck),
}

/// Opens every model. Other servers are looked at once there is a runtime: [`watch`].
///
/// # Errors
/// At the first that can't be served.
pub fn load(served: &Served, executor: &Executor, limits: &Limits) -> Result<Catalog, LoadError> {
    let options = EngineOptions {
        threads: executor.threads,
        prefill_chunk: executor.prefill_chunk,
        numerics: Numerics::Auto,
    };
    // Beyond the longest that the core waits, an answer is of no use any more.
    let idle = Duration::from_millis(limits.first_output_timeout_ms.max(limits.progress_timeout_ms));
    let mut servers = Servers { known: Vec::new(), patience: Patience { connect: CONNECT_PATIENCE, idle } };
    let catalog = Catalog::default();
    for model in &served.models {
        catalog.add(entry(model, options, &mut servers)?);
    }
    for upstream in &served.upstreams {
        catalog.add_source(Source {
            server: servers.server(&upstream.server)?,
            slots: upstream.slots,
            output_tokens_default: upstream.output_tokens_default,
        });
    }
    Ok(catalog)
}

/// Names the models of files by their digests, and gives what is to be kept of them for the next start, if that isn't
/// what an earlier one `kept`. Reading large files for the first time takes its time.
///
/// # Errors
/// When a file can't be read.
pub fn name_files(
    catalog: &Catalog,
    served: &Served,
    kept: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, Unreadable> {
    let file = |model: &Model| match &model.spec {
        ModelSpec::Gguf(path) => Some((model.name.as_str().into(), path.clone())),
        ModelSpec::Echo { .. } | ModelSpec::Upstream { .. } => None,
    };
    let files: Vec<(ModelName, PathBuf)> = served.models.iter().filter_map(file).collect();
    let Digests { of, to_keep } = digests(kept, &files)?;
    of.into_iter().for_each(|(model, digest)| catalog.name_file(&model, digest.into()));
    Ok(to_keep)
}

/// Watches the servers that models are served of, and waits for the first look at each: a start is ready with what they
/// have, if they are up.
pub async fn watch(catalog: &Arc<Catalog>) {
    let servers = catalog.servers();
    for server in &servers {
        tokio::spawn(Arc::clone(server).watch(Arc::clone(catalog)));
    }
    let looked_at = async {
        for server in &servers {
            server.looked_at().await;
        }
    };
    // Whoever isn't answered yet is told of in the log by who looks.
    let _ = tokio::time::timeout(FIRST_LOOK, looked_at).await;
}

/// Servers that are named, each once with each key.
struct Servers {
    known: Vec<(UpstreamServer, Arc<Server>)>,
    patience: Patience,
}

impl Servers {
    fn server(&mut self, named: &UpstreamServer) -> Result<Arc<Server>, LoadError> {
        if let Some((_, server)) = self.known.iter().find(|(known, _)| known == named) {
            return Ok(Arc::clone(server));
        }
        let key = named.key_env.as_deref().map(|variable| key(variable, named)).transpose()?;
        let server = Server::new(named.url.clone(), key, self.patience);
        self.known.push((named.clone(), Arc::clone(&server)));
        Ok(server)
    }
}

/// The key in a variable. Its value is in no error.
fn key(variable: &str, named: &UpstreamServer) -> Result<ServerKey, LoadError> {
    let refused =
        |problem| LoadError::Key { variable: variable.to_owned(), url: named.url.to_string(), problem };
    let text = std::env::var(variable).map_err(|error| match error {
        std::env::VarError::NotPresent => refused("it isn't set: export it before the start"),
        std::env::VarError::NotUnicode(_) => refused("what it has is no text"),
    })?;
    ServerKey::parse(&text).ok_or_else(|| refused("what it has is empty, or can't be sent in a header"))
}

fn entry(model: &Model, options: EngineOptions, servers: &mut Servers) -> Result<Entry, LoadError> {
    let runtime = match &model.spec {
        ModelSpec::Echo { delay } => Runtime::Echo(Echo::new(Duration::from_micros(delay.0))),
        ModelSpec::Upstream { server, name_there } => {
            let there = name_there.clone().map_or(NameThere::AsHere, NameThere::Stated);
            Runtime::Upstream(Upstream::configured(servers.server(server)?, there))
        }
        ModelSpec::Gguf(path) => {
            let refused = |fault| LoadError::Model { name: model.name.clone(), path: path.clone(), fault };
            let local = Local::load(path, options).map_err(|error| refused(Box::new(error).into()))?;
            local.try_template(TEMPLATE_PATIENCE).map_err(|stuck| refused(stuck.into()))?;
            tracing::info!(model = model.name, path = %path.display(), slots = model.slots, "model loaded");
            Runtime::Local(local)
        }
    };
    Ok(Entry {
        name: model.name.as_str().into(),
        created_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        slots: model.slots,
        output_tokens_default: model.output_tokens_default,
        runtime,
    })
}
