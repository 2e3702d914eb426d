//! A server in a process of its own, ended and cleaned up after when dropped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Result;

/// A server that takes longer to be ready has failed; a large model is loaded meanwhile.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
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
        let mut server = Self { process, address: ([127, 0, 0, 1], 0).into(), directory };
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
            let ended = server.process.try_wait().ok().flatten();
            format!("{command:?} isn't ready; printed {line:?}; ended {ended:?}; last said: {last}")
        })?;
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its peak resident memory so far, in bytes.
    pub(crate) fn memory_peak_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; there is nobody to tell.
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.directory);
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
