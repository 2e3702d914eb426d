//! `switchbox serve`: turns flags into a configuration and runs the box until it has drained.

use std::path::PathBuf;

use clap::Args;

use super::served::ServedArgs;
use super::{CliError, logging};
use crate::config::{AheadClock, Auth, Config, Flags, Identity, InsecureLan, NodesOnly, Sources};
use crate::datadir;

const AFTER_HELP: &str = "\
Flags win over the configuration file. When the box is ready it prints one line on stdout,
`switchbox ready: http://IP:PORT`; logs go to stderr (SWITCHBOX_LOG=debug for more). On the first start it makes an
API key and shows it once; it stays in DIR/api.key. SIGTERM or Ctrl-C drains: no new jobs, running ones get until
the deadline; a second one stops at once.

Examples:
  switchbox serve --model tiny=models/tiny.gguf
  switchbox serve --upstream http://127.0.0.1:11434        # all models of an Ollama, a vLLM or a llama.cpp server
  switchbox serve --model tiny=models/tiny.gguf --model test=echo:20 --listen 127.0.0.1:0
  switchbox serve --config /etc/switchbox.toml --log-format json";

/// Flags of `switchbox serve`. Values are checked together with the file's, in `config`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArgs {
    /// A TOML file with everything that flags can say, and every limit
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Where the box keeps its files [default: $XDG_DATA_HOME/switchbox or ~/.local/share/switchbox]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    #[command(flatten)]
    served: ServedArgs,
    /// Let every program of this machine use the API without a key (loopback addresses only)
    #[arg(long)]
    no_auth: bool,
    /// Where the admin API listens: IP:PORT or unix:PATH [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// `strict`, or `relaxed`: last bytes of an answer may leave before they are on disk [default: strict]
    #[arg(long, value_name = "MODE")]
    durability: Option<String>,
    /// A certificate in PEM, for clients and agents alike [default: beyond loopback, one that the box makes itself]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Listen beyond loopback without TLS: everyone on the way can read keys, prompts and answers, and change them
    #[arg(long)]
    insecure_lan: bool,
    /// Serve nothing itself: all work is for nodes that join (`switchbox nodes invite`)
    #[arg(long)]
    nodes_only: bool,
    /// Start although the newest stored time is far ahead of this machine's clock: times go on from there
    #[arg(long)]
    accept_clock: bool,
    /// Be another box than the one that this directory is a copy of: with an API key and secrets of its own, made by
    /// this start
    #[arg(long)]
    as_new_identity: bool,
    /// `human` or `json` [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Threads that compute [default: all cores, less one where there are more than two]
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// A web page's origin that may use the API from a browser, for example https://chat.example. Repeat for more
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// How long running jobs may go on once the box is told to stop [default: 30s]
    #[arg(long, value_name = "SPAN")]
    drain_deadline: Option<String>,
}

impl ServeArgs {
    fn into_sources(self) -> Sources {
        let flags = Flags {
            listen: self.listen,
            admin_listen: self.admin_listen,
            data_dir: self.data_dir,
            served: self.served.into_flags(),
            auth: self.no_auth.then_some(Auth::None),
            durability: self.durability,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            insecure_lan: if self.insecure_lan { InsecureLan::Allowed } else { InsecureLan::Refused },
            nodes_only: if self.nodes_only { NodesOnly::Yes } else { NodesOnly::No },
            accept_clock: if self.accept_clock { AheadClock::Accept } else { AheadClock::Refuse },
            identity: if self.as_new_identity { Identity::New } else { Identity::Kept },
            log_format: self.log_format,
            threads: self.threads,
            cors_origins: self.cors_origins,
            drain_deadline: self.drain_deadline,
        };
        Sources { file: self.config, flags, data_dir_default: datadir::default_path() }
    }
}

/// Loads, starts logging, serves.
pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let config = Config::load(args.into_sources())?;
    logging::start(config.log_format)?;
    crate::serve::run(config).map_err(|error| CliError::Serve(Box::new(error)))
}
