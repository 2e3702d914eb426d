//! Which models are served, and by what. Parses their names and specifications; never opens a model's file.

use std::path::{Path, PathBuf};

use super::document::{ConfigError, Stated};
use super::settings::ModelSettings;
use crate::time::Span;

/// Characters of a model's name.
const MODEL_NAME_CHARS_MAX: usize = 200;
/// Sequences that the executor runs of one model at once.
const GGUF_SLOTS_MAX: u64 = 1_024;
const GGUF_SLOTS_DEFAULT: u64 = 4;
const ECHO_SLOTS_MAX: u64 = 65_536;
const ECHO_SLOTS_DEFAULT: u64 = 64;
const ECHO_DELAY_MS_MAX: u64 = 3_600_000;
const OUTPUT_TOKENS_DEFAULT: u64 = 1_024;
const OUTPUT_TOKENS_MAX: u64 = 1_000_000;
const SUPPORTED: &str = "write PATH.gguf (the built-in executor) or echo:[MS] (answers with the prompt)";

/// A model that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The name that clients use.
    pub name: String,
    /// What computes it.
    pub spec: ModelSpec,
    /// How many jobs of it run at once.
    pub slots: u32,
    /// Most tokens that a request gets which names no maximum.
    pub output_tokens_default: u32,
}

/// What computes a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSpec {
    /// The built-in executor, with this GGUF file.
    Gguf(PathBuf),
    /// An answer that repeats the prompt, a word each `delay`.
    Echo {
        /// Between two words.
        delay: Span,
    },
}

impl ModelSpec {
    /// `PATH.gguf` or `echo:[MS]`; a relative path starts from `directory`.
    fn parse(stated: &Stated<String>, directory: &Path) -> Result<Self, ConfigError> {
        let text = stated.value.as_str();
        if let Some(delay) = text.strip_prefix("echo:") {
            return echo(stated, delay);
        }
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        if let Some(scheme @ ("openai" | "http" | "https" | "upstream")) = scheme {
            let problem = format!("models behind another server (`{scheme}:`) are not built yet");
            return Err(stated.refused(&problem, SUPPORTED.into()));
        }
        let path = Path::new(text);
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        match std::path::absolute(directory.join(path)) {
            Ok(path) if is_gguf => Ok(ModelSpec::Gguf(path)),
            _ => Err(stated.refused("isn't something that can run a model", SUPPORTED.into())),
        }
    }

    fn slots(&self) -> (u64, u64) {
        match self {
            ModelSpec::Gguf(_) => (GGUF_SLOTS_DEFAULT, GGUF_SLOTS_MAX),
            ModelSpec::Echo { .. } => (ECHO_SLOTS_DEFAULT, ECHO_SLOTS_MAX),
        }
    }
}

fn echo(stated: &Stated<String>, delay: &str) -> Result<ModelSpec, ConfigError> {
    let delay_ms = if delay.is_empty() { Ok(0) } else { delay.parse::<u64>() };
    match delay_ms {
        Ok(ms) if ms <= ECHO_DELAY_MS_MAX => Ok(ModelSpec::Echo { delay: Span::from_ms(ms) }),
        _ => Err(stated.refused(
            "isn't an echo with its delay",
            format!("write `echo:` or `echo:MS` with MS from 0 to {ECHO_DELAY_MS_MAX} milliseconds"),
        )),
    }
}

/// Checks the name and gives it back.
fn name(stated: Stated<String>) -> Result<Stated<String>, ConfigError> {
    let text = &stated.value;
    if (1..=MODEL_NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(stated);
    }
    Err(stated.refused(
        "isn't a name for a model",
        format!("choose 1 to {MODEL_NAME_CHARS_MAX} printable ASCII characters without spaces"),
    ))
}

/// `NAME=SPEC` as the flag has it.
pub(super) fn of_flag(text: &str) -> Result<ModelSettings, ConfigError> {
    let stated = Stated::flag("--model", text, ());
    let Some((name, spec)) = text.split_once('=') else {
        let remedy = "write NAME=PATH.gguf or NAME=echo:[MS], for example `--model tiny=models/tiny.gguf`";
        return Err(stated.refused("has no name", remedy.into()));
    };
    Ok(ModelSettings {
        name: stated.with(name.to_owned()),
        spec: stated.with(spec.to_owned()),
        directory: PathBuf::new(),
        slots: None,
        output_tokens_default: None,
    })
}

/// Checks them all; `slots`, of the flag, goes for every one.
pub(super) fn models(
    settings: Vec<ModelSettings>,
    slots: Option<&Stated<u64>>,
) -> Result<Vec<Model>, ConfigError> {
    let mut models: Vec<Model> = Vec::with_capacity(settings.len());
    for model in settings {
        let stated = name(model.name)?;
        if models.iter().any(|known| known.name == stated.value) {
            return Err(
                stated.refused("another model has this name", "give each model a name of its own".into())
            );
        }
        let spec = ModelSpec::parse(&model.spec, &model.directory)?;
        let (slots_default, slots_max) = spec.slots();
        let slots = match slots.or(model.slots.as_ref()) {
            Some(slots) => slots.in_range(1, slots_max, slots_default)?,
            None => slots_default,
        };
        let output_tokens_default = match &model.output_tokens_default {
            Some(tokens) => tokens.in_range(1, OUTPUT_TOKENS_MAX, OUTPUT_TOKENS_DEFAULT)?,
            None => OUTPUT_TOKENS_DEFAULT,
        };
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (slots, output_tokens_default) = (small(slots), small(output_tokens_default));
        models.push(Model { name: stated.value, spec, slots, output_tokens_default });
    }
    if models.is_empty() { Err(ConfigError::NoModel) } else { Ok(models) }
}
