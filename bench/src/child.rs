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

/// A server that takes longer to be ready has failed; a large model is loaded meanwhile.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server.
pub(crate) struct Server {
    id: u32,
    address: SocketAddr,
}

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
    /// Starts the floor: this very binary.
    pub(crate) fn floor(data_parent: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("floor");
        Self::start(command, directory(data_parent, "floor")?)
    }

    /// Starts `switchbox serve` on an empty data directory, without keys, with `arguments` more.
    pub(crate) fn switchbox(binary: &Path, data_parent: &Path, arguments: &[&str]) -> Result<Self> {
        let directory = directory(data_parent, "switchbox")?;
        let mut command = Command::new(binary);
        command.args(["serve", "--no-auth", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(directory.join("data")).args(arguments);
        Self::start(command, directory)
    }

    fn start(mut command: Command, directory: PathBuf) -> Result<Self> {
        let log = directory.join("stderr.log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let stdout = process.stdout.take().ok_or("its standard output is piped")?;
        // From here on a failure ends the process, by dropping it.
        let mut server = Self { id: process.id(), address: ([127, 0, 0, 1], 0).into() };
        running().push((process, directory));
        let (ready, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // An empty line says that the output ended.
            _ = BufReader::new(stdout).read_line(&mut line);
            _ = ready.send(line);
        });
        let line = line.recv_timeout(READY_TIMEOUT).unwrap_or_default();
        let address = line.trim().split_once("http://").and_then(|(_, address)| address.parse().ok());
        server.address = address.ok_or_else(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let last = log.lines().last().unwrap_or("nothing on its standard error");
            format!("{command:?} isn't ready; it printed {line:?}; it last said: {last}")
        })?;
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its peak resident memory so far, in bytes.
    pub(crate) fn memory_peak_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
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
