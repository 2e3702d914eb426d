//! A box as a process: started on a data directory, killed at any time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::finding::{Finding, Kind};
use crate::http::{Answer, Connection, Request};

/// Longer than a healthy start takes.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What every box of the rig serves: an echo, and one so slow that jobs wait for it.
const CONFIGURATION: &str = "
[limits]
finished_jobs_max = 10000000
finished_unnamed_jobs_max = 10000000
disk_reserve_bytes = 1048576
body_bytes_max = 65536
output_bytes_max = 65536
job_ttl_ms = 3600000
namespace_queue_jobs_max = 10000
[[model]]
name = \"echo\"
spec = \"echo:\"
[[model]]
name = \"slow\"
spec = \"echo:20\"
slots = 2
";

/// How a box is started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program.
    pub binary: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Variables that it gets.
    pub variables: Vec<(String, String)>,
    /// Whether its clients need a key.
    pub auth: Auth,
}

/// Whether clients need a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// No: most of the rig is about what lies behind that.
    Off,
    /// Yes: then the box has secrets for it.
    Keys,
}

/// Why a box didn't come up.
#[derive(Debug)]
pub struct NotUp {
    /// How it ended; none if it was still trying and was killed.
    pub status: Option<ExitStatus>,
    /// The last of what it said.
    pub said: String,
}

impl NotUp {
    /// What it is for a phase that needs the box.
    pub fn finding(&self) -> Finding {
        Kind::Unopened.says(format!("the box didn't come up ({:?}): {}", self.status, self.said))
    }
}

/// A running box; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Where it serves clients.
    pub address: SocketAddr,
    admin: SocketAddr,
    token: String,
    said: Arc<Mutex<String>>,
    /// How long its start took, up to the line that says that it is ready.
    pub start_took: Duration,
}

impl Setup {
    /// A box on a data directory.
    pub fn new(binary: &Path, data: &Path) -> Self {
        Self { binary: binary.to_owned(), data: data.to_owned(), variables: Vec::new(), auth: Auth::Off }
    }

    /// With a variable in its environment.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead, or isn't ready in time.
    pub fn start(&self) -> Result<Running, NotUp> {
        let configuration = self.data.with_extension("toml");
        fs::write(&configuration, CONFIGURATION).expect("the rig's directory can be written");
        let begun = Instant::now();
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(configuration);
        command.args((self.auth == Auth::Off).then_some("--no-auth"));
        command.arg("--data-dir").arg(&self.data).envs(self.variables.iter().map(|(n, v)| (n, v)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the box's program is there");
        let said = collect(&mut child);
        let not_up = |status, said: &Mutex<String>| NotUp { status, said: last_of(said) };
        let Some(address) = ready(&mut child) else {
            let status = child.try_wait().ok().flatten();
            let _ = child.kill();
            let ended = child.wait().ok();
            // It may have ended on its own while we looked.
            let status = status.or(ended.filter(|ended| !is_killed(ended)));
            return Err(not_up(status, &said));
        };
        let start_took = begun.elapsed();
        let read =
            |name: &str| fs::read_to_string(self.data.join(name)).unwrap_or_default().trim().to_owned();
        let (token, admin) = (read("admin.token"), read("admin.addr"));
        match admin.strip_prefix("http://").and_then(|admin| admin.parse().ok()) {
            Some(admin) => Ok(Running { child, address, admin, token, said, start_took }),
            // It was killed right after it said that it is ready.
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(not_up(None, &said))
            }
        }
    }
}

fn is_killed(status: &ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(9)
}

/// The address in the line that says that it is ready.
fn ready(child: &mut Child) -> Option<SocketAddr> {
    let lines = BufReader::new(child.stdout.take()?).lines();
    let (send, received) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let line = received.recv_timeout(START_PATIENCE).ok()?;
    line.strip_prefix("switchbox ready: http://")?.parse().ok()
}

fn collect(child: &mut Child) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let Some(stderr) = child.stderr.take() else { return said };
    let shared = Arc::clone(&said);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut said = shared.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(&line);
            said.push('\n');
        }
    });
    said
}

fn last_of(said: &Mutex<String>) -> String {
    // The thread that collects may be a moment behind the end of the process.
    std::thread::sleep(Duration::from_millis(20));
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(4)..].join("\n")
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The last of what it said.
    pub fn said(&self) -> String {
        last_of(&self.said)
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// With what it is that it had ended by itself.
    pub fn kill(mut self) -> Result<(), Finding> {
        match self.end() {
            Some(status) if is_killed(&status) => Ok(()),
            status => Err(self.died(status)),
        }
    }

    /// What it is that it ended by itself.
    pub fn died(&self, status: Option<ExitStatus>) -> Finding {
        let status = status.map_or("it isn't known how".to_owned(), |status| status.to_string());
        Kind::Died.says(format!("the box ended by itself ({status}): {}", self.said()))
    }

    /// A process that ended before the signal came keeps its own status.
    fn end(&mut self) -> Option<ExitStatus> {
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// Waits until it has ended by itself, for so long.
    pub fn wait_for(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                _ if Instant::now() >= until => return None,
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// An operator's connection.
    ///
    /// # Errors
    /// What the system says.
    pub fn operator(&self) -> std::io::Result<Operator> {
        let authorization = format!("Bearer {}", self.token);
        Ok(Operator { connection: Connection::open(self.admin)?, authorization })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A connection to the admin listener.
#[derive(Debug)]
pub struct Operator {
    connection: Connection,
    authorization: String,
}

impl Operator {
    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let headers = [("authorization", self.authorization.as_str())];
        self.connection.call(&Request { method, path, headers: &headers, body })
    }
}
