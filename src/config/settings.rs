//! What was stated, by the file or by flags, before anything is checked but its type. Flags win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::{ConfigError, Document, Section, Stated};
use super::limits;
use super::served::{ServedFlags, ServedSettings, UpstreamSettings};
use super::{AheadClock, Auth, Identity, InsecureLan, NodesOnly};

/// The command line's part of the configuration, as it was written.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--admin-listen`
    pub admin_listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<String>,
    /// What is served.
    pub served: ServedFlags,
    /// `--no-auth`
    pub auth: Option<Auth>,
    /// `--durability`
    pub durability: Option<String>,
    /// `--tls-cert`
    pub tls_cert: Option<String>,
    /// `--tls-key`
    pub tls_key: Option<String>,
    /// `--insecure-lan`
    pub insecure_lan: InsecureLan,
    /// `--nodes-only`
    pub nodes_only: NodesOnly,
    /// `--accept-clock`
    pub accept_clock: AheadClock,
    /// `--as-new-identity`
    pub identity: Identity,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--threads`
    pub threads: Option<String>,
    /// `--cors-origin`
    pub cors_origins: Vec<String>,
    /// `--drain-deadline`, a span as in `30s`
    pub drain_deadline: Option<String>,
}

/// One model as it was stated.
#[derive(Debug)]
pub(super) struct ModelSettings {
    pub(super) name: Stated<String>,
    pub(super) spec: Stated<String>,
    /// Where a relative path starts from.
    pub(super) directory: PathBuf,
    pub(super) key_env: Option<Stated<String>>,
    pub(super) slots: Option<Stated<u64>>,
    pub(super) output_tokens_default: Option<Stated<u64>>,
}

/// Everything that can be stated.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) listen: Option<Stated<String>>,
    pub(super) cors_origins: Option<Vec<Stated<String>>>,
    pub(super) auth: Option<Stated<String>>,
    pub(super) admin_listen: Option<Stated<String>>,
    pub(super) durability: Option<Stated<String>>,
    pub(super) data_dir: Option<Stated<String>>,
    /// A flag only: it is for one start.
    pub(super) accept_clock: AheadClock,
    pub(super) nodes_only: NodesOnly,
    pub(super) tls_cert: Option<Stated<String>>,
    pub(super) tls_key: Option<Stated<String>>,
    pub(super) insecure_lan: InsecureLan,
    /// So is this.
    pub(super) identity: Identity,
    pub(super) log_format: Option<Stated<String>>,
    pub(super) threads: Option<Stated<u64>>,
    pub(super) prefill_chunk: Option<Stated<u64>>,
    pub(super) limits: BTreeMap<&'static str, Stated<u64>>,
    pub(super) served: ServedSettings,
}

/// The sections of a file and their keys.
const SECTIONS: [(&str, &[&str]); 9] = [
    ("http", &["listen", "cors_origins", "auth", "tls_cert", "tls_key", "insecure_lan"]),
    ("admin", &["listen"]),
    ("durability", &["mode"]),
    ("data", &["dir"]),
    ("log", &["format"]),
    ("executor", &["threads", "prefill_chunk"]),
    ("limits", limits::KEYS),
    ("model", &["name", "spec", "key_env", "slots", "output_tokens_default"]),
    ("upstream", &["url", "key_env", "slots", "output_tokens_default"]),
];

/// Those of them that a file may have any number of.
const LISTED: [&str; 2] = ["model", "upstream"];

/// Where a key belongs that is known in exactly one section.
fn home_of(key: &str) -> Option<String> {
    let mut homes = SECTIONS.iter().filter(|(_, keys)| keys.contains(&key));
    match (homes.next(), homes.next()) {
        (Some((section, _)), None) => Some(format!("{section}.{key}")),
        _ => None,
    }
}

fn keys_of(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| *keys)
}

impl Settings {
    /// What the file states.
    pub(super) fn of_document(document: &Document) -> Result<Self, ConfigError> {
        let table = document.parse()?;
        let names = SECTIONS.map(|(name, _)| name);
        let root = Section::open(document, "", &table, &names, home_of)?;
        let mut settings = Self::default();
        for (name, keys) in SECTIONS {
            if LISTED.contains(&name) {
                continue;
            }
            if let Some(table) = root.table(name)? {
                settings.read_section(
                    &Section::open(document, name, table, keys, home_of)?,
                    name,
                    document,
                )?;
            }
        }
        for (table, stated) in root.tables("model")? {
            let section = Section::open(document, "model", table, keys_of("model"), home_of)?;
            settings.served.models.push(model_of(&section, &stated, document.directory())?);
        }
        for (table, stated) in root.tables("upstream")? {
            let section = Section::open(document, "upstream", table, keys_of("upstream"), home_of)?;
            settings.served.upstreams.push(upstream_of(&section, &stated)?);
        }
        Ok(settings)
    }

    fn read_section(
        &mut self,
        section: &Section<'_>,
        name: &str,
        document: &Document,
    ) -> Result<(), ConfigError> {
        match name {
            "http" => {
                self.listen = section.text("listen")?;
                self.cors_origins = section.texts("cors_origins")?;
                self.auth = section.text("auth")?;
                self.tls_cert = section.text("tls_cert")?.map(|file| under(document.directory(), file));
                self.tls_key = section.text("tls_key")?.map(|file| under(document.directory(), file));
                self.insecure_lan = match section.truth("insecure_lan")? {
                    Some(true) => InsecureLan::Allowed,
                    Some(false) | None => InsecureLan::Refused,
                };
            }
            "admin" => self.admin_listen = section.text("listen")?,
            "durability" => self.durability = section.text("mode")?,
            "data" => self.data_dir = section.text("dir")?.map(|dir| under(document.directory(), dir)),
            "log" => self.log_format = section.text("format")?,
            "executor" => {
                self.threads = section.number("threads")?;
                self.prefill_chunk = section.number("prefill_chunk")?;
            }
            _ => {
                for key in limits::KEYS {
                    if let Some(stated) = section.number(key)? {
                        self.limits.insert(key, stated);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets the flags win. A model of a name that the file has too replaces the file's.
    pub(super) fn overlay(&mut self, flags: Flags) -> Result<(), ConfigError> {
        let text = |flag, value: Option<String>| value.map(|value| Stated::flag(flag, &value.clone(), value));
        let auth = flags.auth.map(|auth| match auth {
            Auth::Key => Stated::flag("--auth", "key", "key".to_owned()),
            Auth::None => Stated::flag("--no-auth", "", "none".to_owned()),
        });
        for (place, stated) in [
            (&mut self.listen, text("--listen", flags.listen)),
            (&mut self.admin_listen, text("--admin-listen", flags.admin_listen)),
            (&mut self.data_dir, text("--data-dir", flags.data_dir)),
            (&mut self.durability, text("--durability", flags.durability)),
            (&mut self.log_format, text("--log-format", flags.log_format)),
            (&mut self.auth, auth),
            (&mut self.tls_cert, text("--tls-cert", flags.tls_cert)),
            (&mut self.tls_key, text("--tls-key", flags.tls_key)),
        ] {
            *place = stated.or_else(|| place.take());
        }
        self.accept_clock = flags.accept_clock;
        self.nodes_only = flags.nodes_only;
        if flags.insecure_lan == InsecureLan::Allowed {
            self.insecure_lan = InsecureLan::Allowed;
        }
        self.identity = flags.identity;
        self.threads = number("--threads", flags.threads)?.or_else(|| self.threads.take());
        if !flags.cors_origins.is_empty() {
            let origin = |value: String| Stated::flag("--cors-origin", &value.clone(), value);
            self.cors_origins = Some(flags.cors_origins.into_iter().map(origin).collect());
        }
        if let Some(deadline) = flags.drain_deadline {
            self.limits.insert("drain_deadline_ms", span_ms("--drain-deadline", &deadline)?);
        }
        self.served.overlay(flags.served)
    }
}

/// A path of the file: relative ones start from the file's directory, wherever the box is started.
fn under(directory: &Path, stated: Stated<String>) -> Stated<String> {
    match directory.join(&stated.value).to_str() {
        Some(path) => stated.with(path.to_owned()),
        None => stated,
    }
}

fn model_of(
    section: &Section<'_>,
    stated: &Stated<()>,
    directory: &Path,
) -> Result<ModelSettings, ConfigError> {
    let required = |key: &str| {
        section.text(key)?.ok_or_else(|| {
            let remedy = format!("add `{key} = \"...\"` to this [[model]] section");
            stated.refused(&format!("this model has no `{key}`"), remedy)
        })
    };
    Ok(ModelSettings {
        name: required("name")?,
        spec: required("spec")?,
        directory: directory.to_owned(),
        key_env: section.text("key_env")?,
        slots: section.number("slots")?,
        output_tokens_default: section.number("output_tokens_default")?,
    })
}

fn upstream_of(section: &Section<'_>, stated: &Stated<()>) -> Result<UpstreamSettings, ConfigError> {
    let url = section.text("url")?.ok_or_else(|| {
        let remedy = "add `url = \"http://HOST:PORT\"` to this [[upstream]] section";
        stated.refused("this server has no `url`", remedy.into())
    })?;
    Ok(UpstreamSettings {
        url,
        key_env: section.text("key_env")?,
        slots: section.number("slots")?,
        output_tokens_default: section.number("output_tokens_default")?,
    })
}

pub(super) fn number(flag: &'static str, text: Option<String>) -> Result<Option<Stated<u64>>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let stated = Stated::flag(flag, &text, ());
    match text.parse() {
        Ok(number) => Ok(Some(stated.with(number))),
        Err(_) => Err(stated.refused("isn't a whole number", format!("write it as in `{flag} 4`"))),
    }
}

/// A span as people write it: `500ms`, `30s`, `2m`, `1h`.
pub(super) fn span_ms(flag: &'static str, text: &str) -> Result<Stated<u64>, ConfigError> {
    let stated = Stated::flag(flag, text, ());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let ms = number.parse::<u64>().ok().zip(unit_ms).and_then(|(number, unit)| number.checked_mul(unit));
    match ms {
        Some(ms) => Ok(stated.with(ms)),
        None => {
            Err(stated
                .refused("isn't a span of time", format!("write it as in `{flag} 30s` (ms, s, m or h)")))
        }
    }
}
