//! Opens the models that the configuration names.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Executor, Model, ModelSpec};
use crate::executor::{EngineOptions, ModelError, Numerics};
use crate::runtime::{Catalog, Echo, Entry, Local, Runtime, TemplateStuck};

/// How long a model's template may take for a smallest chat; SmolLM2's takes far less than a millisecond.
const TEMPLATE_PATIENCE: Duration = Duration::from_secs(10);

/// A model that can't be served.
#[derive(Debug, thiserror::Error)]
#[error("the model `{name}` can't be served from {}: {fault}", path.display())]
pub struct LoadError {
    name: String,
    path: PathBuf,
    fault: Fault,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Model(#[from] Box<ModelError>),
    #[error(transparent)]
    Template(#[from] TemplateStuck),
}

/// Opens every model.
///
/// # Errors
/// At the first that can't be served.
pub(super) fn load(models: &[Model], executor: Executor) -> Result<Catalog, LoadError> {
    let options = EngineOptions {
        threads: executor.threads,
        prefill_chunk: executor.prefill_chunk,
        numerics: Numerics::Auto,
    };
    let mut catalog = Catalog::default();
    for model in models {
        catalog.add(entry(model, options)?);
    }
    Ok(catalog)
}

fn entry(model: &Model, options: EngineOptions) -> Result<Entry, LoadError> {
    let runtime = match &model.spec {
        ModelSpec::Echo { delay } => Runtime::Echo(Echo::new(Duration::from_micros(delay.0))),
        ModelSpec::Gguf(path) => {
            let refused = |fault| LoadError { name: model.name.clone(), path: path.clone(), fault };
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
