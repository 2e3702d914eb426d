//! What the box was told: defaults, overlaid by one TOML file, overlaid by command-line flags; checked whole,
//! once, at start.
//!
//! Nothing here opens a socket or a data directory or reads the environment, and nothing is guessed: a key that
//! isn't known, or a value out of its range, is refused by name, with its place and what to do instead.

mod agent;
mod document;
mod limits;
mod model;
mod served;
mod settings;
pub mod snapshot;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::coordinator;
use crate::coordinator::event::Durability;
use crate::time::Span;
pub use agent::{AgentConfig, AgentFlags};
pub use document::ConfigError;
use document::{Document, Stated};
pub use limits::Limits;
pub use model::{Model, ModelSpec};
pub use served::{Served, ServedFlags, Upstream, UpstreamServer, served};
pub use settings::Flags;
use settings::Settings;

/// Where the inference listener listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:8080";
/// Where the admin listener listens unless told otherwise.
pub const ADMIN_LISTEN_DEFAULT: &str = "127.0.0.1:0";
/// Most threads that the executor may be given.
const THREADS_MAX: u64 = 1_024;
/// Tokens of a prompt read in one step unless told otherwise.
const PREFILL_CHUNK_DEFAULT: u64 = 64;
/// Most tokens of a prompt that one step may read.
const PREFILL_CHUNK_MAX: u64 = 4_096;
/// Longest path of a Unix socket that Linux takes.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Everything that the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The inference listener.
    pub http: Http,
    /// Where the admin listener listens.
    pub admin_listen: AdminListen,
    /// What must be on disk before the last bytes of an answer leave.
    pub durability: Durability,
    /// Where the box keeps its files; absolute.
    pub data_dir: PathBuf,
    /// What becomes of a start whose clock is far behind what was written before.
    pub accept_clock: AheadClock,
    /// Whether this start makes the box another one than it was.
    pub identity: Identity,
    /// How logs are written to stderr.
    pub log_format: LogFormat,
    /// The built-in executor.
    pub executor: Executor,
    /// Every bound and deadline.
    pub limits: Limits,
    /// What is served.
    pub served: Served,
}

/// The inference listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Origins of web pages that may use it, as browsers write them.
    pub cors_origins: Vec<String>,
    /// Who may use it.
    pub auth: Auth,
    /// Whether others can listen in.
    pub transport: Transport,
}

/// Whether others can listen in on the inference listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// They can: loopback, or the operator says that its network is safe.
    Plain,
    /// TLS with a certificate that the box makes itself.
    SelfMade,
    /// TLS with a certificate of the operator's.
    Files {
        /// The certificate, and those that it rests on, in PEM; absolute.
        certificate: PathBuf,
        /// Its key, in PEM; absolute.
        key: PathBuf,
    },
}

/// Whether a listener beyond loopback may do without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InsecureLan {
    /// It may not.
    #[default]
    Refused,
    /// The operator says that nobody listens in.
    Allowed,
}

/// Who may use the inference listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Who has an API key.
    Key,
    /// Every program of this machine; loopback only.
    None,
}

/// Where the admin listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminListen {
    /// On an address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// On a Unix socket at this absolute path.
    Unix(PathBuf),
}

/// What becomes of a start whose clock is far behind the newest stored time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AheadClock {
    /// It is refused: one of the two is wrong, and times of jobs would be too.
    #[default]
    Refuse,
    /// Time goes on from the newest stored one.
    Accept,
}

/// Whether a box leaves all work to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodesOnly {
    /// It serves something itself.
    #[default]
    No,
    /// It serves nothing itself.
    Yes,
}

/// Whose the data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// The box's that it was.
    #[default]
    Kept,
    /// Another one's: a copy is to run beside the box that it was made of.
    New,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The built-in executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executor {
    /// Threads that compute.
    pub threads: usize,
    /// Tokens of a prompt that one step reads.
    pub prefill_chunk: usize,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file, if there is one.
    pub file: Option<PathBuf>,
    /// What the command line says; wins over the file.
    pub flags: Flags,
    /// The data directory when neither names one.
    pub data_dir_default: Option<PathBuf>,
}

impl Config {
    /// Reads, overlays and checks.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let Sources { file, flags, data_dir_default } = sources;
        let document = file.as_deref().map(Document::read).transpose()?;
        Self::resolve(document, flags, data_dir_default)
    }

    fn resolve(
        document: Option<Document>,
        flags: Flags,
        data_dir_default: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let mut settings = document.as_ref().map(Settings::of_document).transpose()?.unwrap_or_default();
        settings.overlay(flags)?;
        let limits = Limits::checked(&settings.limits)?;
        let http = http(&settings)?;
        let admin_listen = admin_listen(settings.admin_listen.as_ref(), &http)?;
        Ok(Self {
            http,
            admin_listen,
            durability: choice(settings.durability.as_ref(), &DURABILITIES)?.unwrap_or(Durability::Strict),
            data_dir: data_dir(settings.data_dir, data_dir_default)?,
            accept_clock: settings.accept_clock,
            identity: settings.identity,
            log_format: choice(settings.log_format.as_ref(), &LOG_FORMATS)?.unwrap_or(LogFormat::Human),
            executor: executor(settings.threads.as_ref(), settings.prefill_chunk.as_ref())?,
            limits,
            served: settings.served.check_of_box(settings.nodes_only)?,
        })
    }

    /// The bounds and deadlines that the core decides by.
    pub fn core_limits(&self) -> coordinator::limits::Limits {
        let limits = &self.limits;
        coordinator::limits::Limits {
            queue_jobs_max: limits.queue_jobs_max,
            namespace_queue_jobs_max: limits.namespace_queue_jobs_max,
            queue_bytes_max: limits.queue_bytes_max,
            output_budget_bytes: limits.output_budget_bytes,
            output_bytes_max: limits.output_bytes_max,
            // All ranges are far below what the types hold.
            finished_jobs_max: usize::try_from(limits.finished_jobs_max).unwrap_or(usize::MAX),
            finished_unnamed_jobs_max: usize::try_from(limits.finished_unnamed_jobs_max)
                .unwrap_or(usize::MAX),
            finished_bytes_max: limits.finished_bytes_max,
            finished_age_max: Span::from_ms(limits.finished_age_max_ms),
            dead_letters_max: usize::try_from(limits.dead_letters_max).unwrap_or(usize::MAX),
            operation_postings_max: usize::try_from(limits.operation_postings_max).unwrap_or(usize::MAX),
            operation_postings_age_max: Span::from_ms(limits.operation_postings_age_max_ms),
            attempts_max: u32::try_from(limits.attempts_max).unwrap_or(u32::MAX),
            accept_timeout: Span::from_ms(limits.accept_timeout_ms),
            first_output_timeout: Span::from_ms(limits.first_output_timeout_ms),
            progress_timeout: Span::from_ms(limits.progress_timeout_ms),
            attempt_timeout: Span::from_ms(limits.attempt_timeout_ms),
            stop_timeout: Span::from_ms(limits.stop_timeout_ms),
            heartbeat_timeout: Span::from_ms(limits.heartbeat_ttl_ms),
            away_timeout: Span::from_ms(limits.reconnect_ttl_ms),
            ..coordinator::limits::Limits::default()
        }
    }
}

const DURABILITIES: [(&str, Durability); 2] =
    [("strict", Durability::Strict), ("relaxed", Durability::Relaxed)];
const LOG_FORMATS: [(&str, LogFormat); 2] = [("human", LogFormat::Human), ("json", LogFormat::Json)];
const AUTHS: [(&str, Auth); 2] = [("key", Auth::Key), ("none", Auth::None)];

/// One of a few words.
fn choice<T: Copy>(stated: Option<&Stated<String>>, words: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
    let Some(stated) = stated else { return Ok(None) };
    let found = words.iter().find(|(word, _)| *word == stated.value).map(|(_, choice)| *choice);
    found.map(Some).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        stated.refused("isn't one of the choices", format!("write {}", words.join(" or ")))
    })
}

fn http(settings: &Settings) -> Result<Http, ConfigError> {
    let stated = settings
        .listen
        .clone()
        .unwrap_or_else(|| Stated::default_of("http.listen", LISTEN_DEFAULT.to_owned()));
    let listen = address(&stated)?;
    let auth = choice(settings.auth.as_ref(), &AUTHS)?.unwrap_or(Auth::Key);
    if auth == Auth::None && !listen.ip().to_canonical().is_loopback() {
        return Err(stated.refused(
            "without keys, everyone who reaches this address could use the box",
            "listen on 127.0.0.1, or have keys (leave out `--no-auth` and `auth = \"none\"`)".into(),
        ));
    }
    let origins = settings.cors_origins.iter().flatten();
    let cors_origins = origins.map(origin).collect::<Result<_, _>>()?;
    Ok(Http { listen, cors_origins, auth, transport: transport(settings, listen)? })
}

fn transport(settings: &Settings, listen: SocketAddr) -> Result<Transport, ConfigError> {
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => Ok(Transport::Files {
            certificate: absolute(certificate, Path::new(&certificate.value))?,
            key: absolute(key, Path::new(&key.value))?,
        }),
        (Some(alone), None) => Err(alone.refused("has no key", "name its key too (`--tls-key FILE`)".into())),
        (None, Some(alone)) => {
            Err(alone.refused("has no certificate", "name its certificate too (`--tls-cert FILE`)".into()))
        }
        (None, None) if listen.ip().to_canonical().is_loopback() => Ok(Transport::Plain),
        (None, None) if settings.insecure_lan == InsecureLan::Allowed => Ok(Transport::Plain),
        (None, None) => Ok(Transport::SelfMade),
    }
}

fn address(stated: &Stated<String>) -> Result<SocketAddr, ConfigError> {
    let text = stated.value.replacen("localhost:", "127.0.0.1:", 1);
    text.parse().map_err(|_| {
        stated.refused("isn't an address and port", format!("write IP:PORT, for example `{LISTEN_DEFAULT}`"))
    })
}

/// An origin exactly as a browser writes it, for it is compared as text.
fn origin(stated: &Stated<String>) -> Result<String, ConfigError> {
    let text = &stated.value;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host_char = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
    };
    match host {
        Some(host) if !host.is_empty() && host.bytes().all(is_host_char) => Ok(text.clone()),
        _ => Err(stated.refused(
            "isn't the origin of a web page",
            "write scheme, host and port as browsers do, for example `https://chat.example` (no path, no `*`)"
                .into(),
        )),
    }
}

fn admin_listen(stated: Option<&Stated<String>>, http: &Http) -> Result<AdminListen, ConfigError> {
    let default = Stated::default_of("admin.listen", ADMIN_LISTEN_DEFAULT.to_owned());
    let stated = stated.unwrap_or(&default);
    if let Some(path) = stated.value.strip_prefix("unix:") {
        let path = absolute(stated, Path::new(path))?;
        if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
            let remedy = format!("choose a path of at most {UNIX_PATH_BYTES_MAX} bytes");
            return Err(stated.refused("is too long for a Unix socket", remedy));
        }
        return Ok(AdminListen::Unix(path));
    }
    let listen: SocketAddr = address(stated).map_err(|_| {
        stated.refused(
            "isn't an address and port, nor a Unix socket",
            "write IP:PORT, for example `127.0.0.1:9090`, or `unix:PATH`".into(),
        )
    })?;
    if !listen.ip().to_canonical().is_loopback() {
        return Err(stated.refused(
            "can be reached from other machines, and the admin listener is for this one",
            "use a loopback address or `unix:PATH`; from elsewhere, go through a tunnel".into(),
        ));
    }
    if listen.port() != 0 && listen == http.listen {
        return Err(stated.refused(
            "is the inference listener's address too",
            "give the admin listener a port of its own (port 0 takes a free one)".into(),
        ));
    }
    Ok(AdminListen::Tcp(listen))
}

fn absolute(stated: &Stated<String>, path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path)
        .map_err(|error| stated.refused(&format!("isn't a path ({error})"), "name a path".into()))
}

fn data_dir(stated: Option<Stated<String>>, default: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    match (stated, default) {
        (Some(stated), _) => absolute(&stated, Path::new(&stated.value)),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(ConfigError::NoDataDir),
    }
}

fn executor(
    threads: Option<&Stated<u64>>,
    prefill_chunk: Option<&Stated<u64>>,
) -> Result<Executor, ConfigError> {
    let threads = match threads {
        Some(stated) => stated.in_range(1, THREADS_MAX, threads_default())?,
        None => threads_default(),
    };
    let prefill_chunk = match prefill_chunk {
        Some(stated) => stated.in_range(1, PREFILL_CHUNK_MAX, PREFILL_CHUNK_DEFAULT)?,
        None => PREFILL_CHUNK_DEFAULT,
    };
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Executor { threads: size(threads), prefill_chunk: size(prefill_chunk) })
}

/// All cores, less one for io where there are more than two.
fn threads_default() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    if cores > 2 { (cores - 1).min(THREADS_MAX) } else { cores }
}
