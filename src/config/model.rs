//! Which models are served, and by what. Parses their names and specifications; never opens a model's file.

use std::path::{Path, PathBuf};

use super::document::{ConfigError, Stated};
use super::served::{self, UpstreamServer};
use super::settings::ModelSettings;
use crate::time::Span;
use crate::url::BaseUrl;

/// Characters of a model's name.
const MODEL_NAME_CHARS_MAX: usize = 200;
/// Sequences that the executor runs of one model at once.
const GGUF_SLOTS_MAX: u64 = 1_024;
const GGUF_SLOTS_DEFAULT: u64 = 4;
const ECHO_SLOTS_MAX: u64 = 65_536;
const ECHO_SLOTS_DEFAULT: u64 = 64;
const ECHO_DELAY_MS_MAX: u64 = 3_600_000;
const UPSTREAM_SLOTS_MAX: u64 = 4_096;
const UPSTREAM_SLOTS_DEFAULT: u64 = 16;
const OUTPUT_TOKENS_DEFAULT: u64 = 1_024;
/// Behind another server answers are as long as that lets them be; this is what is held for one.
const UPSTREAM_OUTPUT_TOKENS_DEFAULT: u64 = 4_096;
const OUTPUT_TOKENS_MAX: u64 = 1_000_000;
const SUPPORTED: &str = "write PATH.gguf (the built-in executor), openai:URL[#NAME-THERE] (a model of another \
                         OpenAI-compatible server) or echo:[MS] (answers with the prompt)";

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
    /// A model of another server.
    Upstream {
        /// Which server.
        server: UpstreamServer,
        /// The model's name there; `None` is the name that it has here, if the server has one of that name, or else the
        /// only one that it has.
        name_there: Option<String>,
    },
}

impl ModelSpec {
    /// `PATH.gguf`, `echo:[MS]` or `openai:URL[#NAME-THERE]`; a relative path starts from `directory`.
    fn parse(
        stated: &Stated<String>,
        directory: &Path,
        key_env: Option<Stated<String>>,
    ) -> Result<Self, ConfigError> {
        let text = stated.value.as_str();
        if let Some(rest) = text.strip_prefix(UPSTREAM_SCHEME) {
            return upstream(stated, rest, key_env);
        }
        if let Some(key_env) = key_env {
            let remedy =
                format!("leave it out, or give it to a model of another server (`{UPSTREAM_SCHEME}URL`)");
            return Err(key_env.refused("is for models of other servers only", remedy));
        }
        if let Some(delay) = text.strip_prefix("echo:") {
            return echo(stated, delay);
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            let remedy = format!("write `{UPSTREAM_SCHEME}` before the URL of another server");
            return Err(stated.hidden().refused("isn't something that can run a model", remedy));
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
            ModelSpec::Upstream { .. } => (UPSTREAM_SLOTS_DEFAULT, UPSTREAM_SLOTS_MAX),
        }
    }
}

/// Before the URL of another server.
const UPSTREAM_SCHEME: &str = "openai:";

/// The server that a specification names, if it names one that can be.
pub(super) fn server_of(spec: &Stated<String>) -> Option<BaseUrl> {
    let rest = spec.value.strip_prefix(UPSTREAM_SCHEME)?;
    BaseUrl::parse(rest.split_once('#').map_or(rest, |(url, _)| url)).ok()
}

fn upstream(
    stated: &Stated<String>,
    rest: &str,
    key_env: Option<Stated<String>>,
) -> Result<ModelSpec, ConfigError> {
    let (url, name_there) = match rest.split_once('#') {
        Some((url, name)) => (url, Some(name)),
        None => (rest, None),
    };
    let is_name = |name: &str| {
        (1..=MODEL_NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
    };
    if name_there.is_some_and(|name| !is_name(name)) {
        let remedy =
            format!("write its name there, of at most {MODEL_NAME_CHARS_MAX} characters, behind the `#`");
        return Err(stated.hidden().refused("names no model of that server", remedy));
    }
    let server = UpstreamServer { url: served::url(stated, url)?, key_env: served::key_env(key_env)? };
    Ok(ModelSpec::Upstream { server, name_there: name_there.map(str::to_owned) })
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
        let remedy = "write NAME=PATH.gguf, NAME=openai:URL[#NAME-THERE] or NAME=echo:[MS], for example `--model \
                      tiny=models/tiny.gguf`";
        return Err(stated.refused("has no name", remedy.into()));
    };
    Ok(ModelSettings {
        name: stated.with(name.to_owned()),
        spec: stated.with(spec.to_owned()),
        directory: PathBuf::new(),
        key_env: None,
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
        let spec = ModelSpec::parse(&model.spec, &model.directory, model.key_env)?;
        let (slots, output_tokens_default) =
            bounds(&spec, slots.or(model.slots.as_ref()), model.output_tokens_default.as_ref())?;
        models.push(Model { name: stated.value, spec, slots, output_tokens_default });
    }
    Ok(models)
}

/// How many jobs run at once, and how long answers may be that nobody bounds.
pub(super) fn bounds(
    spec: &ModelSpec,
    slots: Option<&Stated<u64>>,
    output_tokens_default: Option<&Stated<u64>>,
) -> Result<(u32, u32), ConfigError> {
    let (slots_default, slots_max) = spec.slots();
    let slots = match slots {
        Some(slots) => slots.in_range(1, slots_max, slots_default)?,
        None => slots_default,
    };
    let tokens_default = match spec {
        ModelSpec::Upstream { .. } => UPSTREAM_OUTPUT_TOKENS_DEFAULT,
        ModelSpec::Gguf(_) | ModelSpec::Echo { .. } => OUTPUT_TOKENS_DEFAULT,
    };
    let tokens = match output_tokens_default {
        Some(tokens) => tokens.in_range(1, OUTPUT_TOKENS_MAX, tokens_default)?,
        None => tokens_default,
    };
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok((small(slots), small(tokens)))
}
