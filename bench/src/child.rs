//! A server in a process of its own, ended and cleaned up after when dropped, or when this process is told to
//! end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::Result;
use crate::process::Process;

/// A server that takes longer to be ready has failed; a large model is loaded meanwhile.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server.
pub(crate) struct Server {
    id: u32,
    address: SocketAddr,
    /// What it printed once it was ready.
    line: String,
    data: PathBuf,
}

/// The data directory, or the file, within a process's own directory.
const DATA: &str = "data";

/// The processes that run, with their directories.
static RUNNING: Mutex<Vec<(Child, PathBuf)>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<(Child, PathBuf)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all servers and this process when it is told to end.
pub(crate) fn end_on_signal() -> Result<()> {
    let runtime = crate::load::runtime()?;
    let _entered = runtime.enter();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                Some(()) = terminate.recv() => {}
                Some(()) = interrupt.recv() => {}
                else => {}
            }
        });
        running().drain(..).for_each(|(process, directory)| end(process, &directory));
        std::process::exit(130);
    });
    Ok(())
}

fn end(mut process: Child, directory: &Path) {
    // It may be gone already; there is nobody to tell.
    _ = process.kill();
    _ = process.wait();
    _ = std::fs::remove_dir_all(directory);
}

impl Server {
    /// Starts a floor: this very binary, with those arguments, and a file that it may write to.
    pub(crate) fn floor(data_parent: &Path, arguments: &[&str]) -> Result<Self> {
        let directory = directory(data_parent, "floor")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).arg("--file").arg(directory.join(DATA));
        Self::start("the floor", command, directory)
    }

    /// Starts `switchbox serve` on an empty data directory, without keys, with `arguments` more.
    pub(crate) fn switchbox(binary: &Path, data_parent: &Path, arguments: &[&str]) -> Result<Self> {
        Self::configured(binary, data_parent, "", arguments)
    }

    /// The same, with a configuration file.
    pub(crate) fn configured(
        binary: &Path,
        data_parent: &Path,
        toml: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let directory = directory(data_parent, "switchbox")?;
        let config = directory.join("switchbox.toml");
        std::fs::write(&config, toml)?;
        let mut command = Command::new(binary);
        command.args(["serve", "--no-auth", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        command.arg("--data-dir").arg(directory.join(DATA)).args(arguments);
        Self::start("switchbox serve", command, directory)
    }

    /// Starts `switchbox agent` on an empty data directory, with a join string and `arguments` more.
    pub(crate) fn agent(binary: &Path, data_parent: &Path, join: &str, arguments: &[&str]) -> Result<Self> {
        let directory = directory(data_parent, "agent")?;
        let mut command = Command::new(binary);
        command.args(["agent", "--join", join, "--data-dir"]).arg(directory.join(DATA)).args(arguments);
        Self::start("switchbox agent", command, directory)
    }

    /// `name` is for errors: the command itself may have a secret in it.
    fn start(name: &str, mut command: Command, directory: PathBuf) -> Result<Self> {
        let log = directory.join("stderr.log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let stdout = process.stdout.take().ok_or("its standard output is piped")?;
        // From here on a failure ends the process, by dropping it.
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Self { id: process.id(), address, line: String::new(), data: directory.join(DATA) };
        running().push((process, directory));
        let (ready, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // An empty line says that the output ended.
            _ = BufReader::new(stdout).read_line(&mut line);
            _ = ready.send(line);
        });
        server.line = line.recv_timeout(READY_TIMEOUT).unwrap_or_default();
        server.address = server.address_after("http://").ok_or_else(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let last = log.lines().last().unwrap_or("nothing on its standard error");
            format!("{name} isn't ready; it printed {:?}; it last said: {last}", server.line)
        })?;
        Ok(server)
    }

    /// Where it listens; of an agent, where its box does.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that its first line has behind that scheme.
    pub(crate) fn address_after(&self, scheme: &str) -> Option<SocketAddr> {
        self.line.split_whitespace().find_map(|word| word.strip_prefix(scheme)?.parse().ok())
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process(self.id)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut running = running();
        if let Some(index) = running.iter().position(|(process, _)| process.id() == self.id) {
            let (process, directory) = running.swap_remove(index);
            end(process, &directory);
        }
    }
}

/// A new directory, named after this process and a count.
fn directory(parent: &Path, name: &str) -> Result<PathBuf> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = parent.join(format!("switchbox-bench-{}-{count}-{name}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
