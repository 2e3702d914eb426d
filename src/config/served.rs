//! What is served, and by what: models by name, and servers whose models are all served. The same words for a box and
//! for an agent.

use super::NodesOnly;
use super::document::{ConfigError, Stated};
use super::model::{self, Model, ModelSpec};
use super::settings::{ModelSettings, number};
use crate::url::BaseUrl;

/// Servers that are named at most.
const UPSTREAMS_MAX: usize = 16;
/// Bytes of a variable's name.
const KEY_ENV_BYTES_MAX: usize = 128;

/// The command line's part of it, as it was written.
#[derive(Debug, Clone, Default)]
pub struct ServedFlags {
    /// `--model`, each `NAME=SPEC`
    pub models: Vec<String>,
    /// `--upstream`, each a URL
    pub upstreams: Vec<String>,
    /// `--slots`
    pub slots: Option<String>,
    /// `--upstream-key-env`
    pub upstream_key_env: Option<String>,
}

/// What is served: at least one of these, unless a box leaves all work to nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Served {
    /// Models, each name once.
    pub models: Vec<Model>,
    /// Servers whose models are all served, each once.
    pub upstreams: Vec<Upstream>,
}

/// A server whose models are all served under their own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Which.
    pub server: UpstreamServer,
    /// Jobs of each of its models that run at once.
    pub slots: u32,
    /// Most tokens that a request gets which names no maximum.
    pub output_tokens_default: u32,
}

/// An OpenAI-compatible server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Where it is.
    pub url: BaseUrl,
    /// The environment variable that has its key, if it wants one.
    pub key_env: Option<String>,
}

/// One server as it was stated.
#[derive(Debug)]
pub(super) struct UpstreamSettings {
    pub(super) url: Stated<String>,
    pub(super) key_env: Option<Stated<String>>,
    pub(super) slots: Option<Stated<u64>>,
    pub(super) output_tokens_default: Option<Stated<u64>>,
}

/// What was stated of all that is served.
#[derive(Debug, Default)]
pub(super) struct ServedSettings {
    pub(super) models: Vec<ModelSettings>,
    pub(super) upstreams: Vec<UpstreamSettings>,
    /// Of the flag: for every one.
    slots: Option<Stated<u64>>,
}

/// What an agent serves, of its flags alone.
///
/// # Errors
/// At the first flag that can't be meant.
pub fn served(flags: ServedFlags) -> Result<Served, ConfigError> {
    let mut settings = ServedSettings::default();
    settings.overlay(flags)?;
    settings.check()
}

impl ServedSettings {
    /// Lets the flags win. A model or a server that the file has too replaces the file's.
    pub(super) fn overlay(&mut self, flags: ServedFlags) -> Result<(), ConfigError> {
        self.slots = number("--slots", flags.slots)?;
        let models = flags.models.iter().map(|text| model::of_flag(text)).collect::<Result<Vec<_>, _>>()?;
        self.models.retain(|of_file| models.iter().all(|of_flag| of_flag.name.value != of_file.name.value));
        let upstream = |url: String| UpstreamSettings {
            url: Stated::flag("--upstream", &url.clone(), url),
            key_env: None,
            slots: None,
            output_tokens_default: None,
        };
        let upstreams: Vec<_> = flags.upstreams.into_iter().map(upstream).collect();
        self.upstreams
            .retain(|of_file| upstreams.iter().all(|of_flag| of_flag.url.value != of_file.url.value));
        let (of_file, upstreams_of_file) = (self.models.len(), self.upstreams.len());
        self.models.extend(models);
        self.upstreams.extend(upstreams);
        match flags.upstream_key_env {
            Some(name) => {
                let stated = Stated::flag("--upstream-key-env", &name.clone(), name);
                self.give_key(stated, of_file, upstreams_of_file)
            }
            None => Ok(()),
        }
    }

    /// Gives a key to the server that the flags name. Two of them might not both be meant to see it.
    fn give_key(
        &mut self,
        key_env: Stated<String>,
        models_from: usize,
        upstreams_from: usize,
    ) -> Result<(), ConfigError> {
        let of_models =
            self.models.iter().skip(models_from).filter_map(|model| model::server_of(&model.spec));
        let of_upstreams = self.upstreams.iter().skip(upstreams_from);
        let mut urls: Vec<BaseUrl> = of_models.collect();
        urls.extend(of_upstreams.filter_map(|upstream| BaseUrl::parse(&upstream.url.value).ok()));
        let others = urls.iter().skip(1).any(|url| urls.first() != Some(url));
        if urls.is_empty() || others {
            let problem = match others {
                false => "is the key of no server: no flag names one",
                true => "could be the key of any of several servers",
            };
            let remedy = "name one server by `--upstream URL`, or write each into the configuration file, with a \
                          `key_env` of its own";
            return Err(key_env.refused(problem, remedy.into()));
        }
        for model in &mut self.models[models_from..] {
            model.key_env = model::server_of(&model.spec).map(|_| key_env.clone());
        }
        for upstream in &mut self.upstreams[upstreams_from..] {
            upstream.key_env = Some(key_env.clone());
        }
        Ok(())
    }

    /// Checks it all, of a box that may leave all work to nodes.
    pub(super) fn check_of_box(self, nodes_only: NodesOnly) -> Result<Served, ConfigError> {
        match nodes_only {
            NodesOnly::No => self.check(),
            NodesOnly::Yes if self.models.is_empty() && self.upstreams.is_empty() => Ok(Served::default()),
            NodesOnly::Yes => Err(Stated::flag("--nodes-only", "", ()).refused(
                "makes no sense where the box serves something itself",
                "leave it out: nodes may join either way".into(),
            )),
        }
    }

    /// Checks it all.
    pub(super) fn check(self) -> Result<Served, ConfigError> {
        let Self { models, upstreams, slots } = self;
        let models = model::models(models, slots.as_ref())?;
        let mut served = Served { models, upstreams: Vec::with_capacity(upstreams.len()) };
        for settings in upstreams {
            let (stated, upstream) = upstream(settings, slots.as_ref())?;
            if served.upstreams.iter().any(|known| known.server.url == upstream.server.url) {
                return Err(stated.refused("this server is named twice", "name each server once".into()));
            }
            if served.upstreams.len() == UPSTREAMS_MAX {
                return Err(stated.refused("is one server too many", format!("name at most {UPSTREAMS_MAX}")));
            }
            served.upstreams.push(upstream);
        }
        if served == Served::default() { Err(ConfigError::NoModel) } else { Ok(served) }
    }
}

fn upstream(
    settings: UpstreamSettings,
    slots: Option<&Stated<u64>>,
) -> Result<(Stated<()>, Upstream), ConfigError> {
    let url = url(&settings.url, &settings.url.value)?;
    let server = UpstreamServer { url, key_env: key_env(settings.key_env)? };
    let spec = ModelSpec::Upstream { server: server.clone(), name_there: None };
    let bounds =
        model::bounds(&spec, slots.or(settings.slots.as_ref()), settings.output_tokens_default.as_ref())?;
    let (slots, output_tokens_default) = bounds;
    Ok((settings.url.with(()), Upstream { server, slots, output_tokens_default }))
}

/// A server's URL.
pub(super) fn url(stated: &Stated<String>, text: &str) -> Result<BaseUrl, ConfigError> {
    BaseUrl::parse(text).map_err(|error| {
        let remedy = "write http://HOST:PORT or https://HOST, with the path of its API if that isn't `/v1`; a key goes \
                      into an environment variable that `--upstream-key-env` (in the file `key_env`) names";
        stated.hidden().refused(&error.to_string(), remedy.into())
    })
}

/// The name of a variable that has a key.
pub(super) fn key_env(stated: Option<Stated<String>>) -> Result<Option<String>, ConfigError> {
    let Some(stated) = stated else { return Ok(None) };
    let is_name_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let name = &stated.value;
    if (1..=KEY_ENV_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_name_char) {
        return Ok(Some(stated.value));
    }
    let remedy = "write the name of an environment variable (letters, digits and `_`), never the key itself";
    Err(stated.hidden().refused("isn't a variable's name", remedy.into()))
}
