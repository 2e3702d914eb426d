//! One running box with a directory and ports of its own; killed and removed on drop.

use super::metrics::Metrics;
use super::{PATIENCE, http, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};

/// A directory that goes away with its owner.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("switchbox-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the temporary directory can be written");
        TempDir(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a box is to be started.
pub struct Setup {
    args: Vec<String>,
    config: String,
    keyed: bool,
    env: Vec<(String, String)>,
}

impl Setup {
    /// Without keys, on ephemeral loopback ports.
    pub fn open() -> Setup {
        Setup { args: Vec::new(), config: String::new(), keyed: false, env: Vec::new() }
    }

    /// With the key that the box makes at its first start.
    pub fn keyed() -> Setup {
        Setup { keyed: true, ..Setup::open() }
    }

    pub fn arg(mut self, arg: &str) -> Setup {
        self.args.push(arg.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// All models of another server.
    pub fn upstream(self, url: &str) -> Setup {
        self.arg("--upstream").arg(url)
    }

    pub fn model(self, name: &str, spec: &str) -> Setup {
        self.arg("--model").arg(&format!("{name}={spec}"))
    }

    /// Appends to the configuration file.
    pub fn config(mut self, toml: &str) -> Setup {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    pub fn start(self) -> Server {
        let dir = TempDir::new();
        let data = dir.join("data");
        Server::start(self, dir, data)
    }

    /// Starts on a data directory that exists (and belongs to somebody else, who removes it).
    pub fn start_in(self, data: &Path) -> Server {
        Server::start(self, TempDir::new(), data.to_owned())
    }

    /// Starts a box and doesn't wait until it is ready.
    pub fn launch_in(self, data: &Path) -> Launched {
        let dir = TempDir::new();
        let mut child = self.command(&dir, data).spawn().expect("the binary starts");
        let stderr = collect_stderr(&mut child);
        Launched { child, stderr, _dir: dir }
    }

    /// Runs a box that is expected not to come up.
    pub fn fail(self) -> Failure {
        let dir = TempDir::new();
        let mut child = self.command(&dir, &dir.join("data")).spawn().expect("the binary starts");
        let status = wait_exit(&mut child, "a refused start");
        let mut text = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut text).expect("UTF-8 on stderr");
        Failure { status, stderr: text }
    }

    fn command(&self, dir: &TempDir, data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchbox"));
        command.arg("serve");
        if !self.args.iter().any(|a| a == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !self.args.iter().any(|a| a == "--data-dir") {
            command.arg("--data-dir").arg(data);
        }
        if !self.keyed {
            command.arg("--no-auth");
        }
        if !self.config.is_empty() {
            let file = dir.join("switchbox.toml");
            fs::write(&file, &self.config).expect("the configuration can be written");
            command.arg("--config").arg(file);
        }
        command.args(&self.args).envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// How a start that was expected to fail ended.
pub struct Failure {
    pub status: ExitStatus,
    pub stderr: String,
}

/// A box that may not be ready; killed on drop.
pub struct Launched {
    child: Child,
    stderr: Arc<Mutex<String>>,
    _dir: TempDir,
}

impl Launched {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process takes a signal");
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        wait_exit(&mut self.child, "the box to exit")
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("the collector does not panic").clone()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running box.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    pub data: PathBuf,
    pub key: Option<String>,
    stderr: Arc<Mutex<String>>,
    _dir: TempDir,
}

impl Server {
    fn start(setup: Setup, dir: TempDir, data: PathBuf) -> Server {
        let mut child = setup.command(&dir, &data).spawn().expect("the binary starts");
        let stderr = collect_stderr(&mut child);
        let (scheme, addr) = wait_ready(&mut child, &stderr);
        let key = setup.keyed.then(|| read_trimmed(&data.join("api.key")));
        let server = Server { child, addr, data, key, stderr, _dir: dir };
        if scheme == "https" {
            // What is asked here is asked without TLS.
            return server;
        }
        // A box whose disk is nearly full is as ready as it will be.
        let is_up = |answer: http::Response| answer.status == 200 || answer.error()["code"] == "disk";
        wait_for("readiness", || is_up(server.call("GET", "/readyz", "")).then_some(()));
        server
    }

    /// A request to the inference listener, with the key where there is one.
    pub fn request(&self, method: &str, path: &str) -> http::Request {
        let request = http::Request::new(self.addr, method, path);
        match &self.key {
            Some(key) => request.header("authorization", &format!("Bearer {key}")),
            None => request,
        }
    }

    /// Sends JSON (or nothing) and reads the whole answer.
    pub fn call(&self, method: &str, path: &str, body: &str) -> http::Response {
        self.request(method, path).json(body).send()
    }

    pub fn admin_addr(&self) -> SocketAddr {
        let text = read_trimmed(&self.data.join("admin.addr"));
        text.strip_prefix("http://").unwrap_or(&text).parse().expect("admin.addr holds http://IP:PORT")
    }

    pub fn admin(&self, method: &str, path: &str) -> http::Response {
        self.admin_request(method, path).send()
    }

    /// An operator's command with its JSON.
    pub fn command(&self, path: &str, body: &Value) -> http::Response {
        self.admin_request("POST", path).json(&body.to_string()).send()
    }

    fn admin_request(&self, method: &str, path: &str) -> http::Request {
        let token = read_trimmed(&self.data.join("admin.token"));
        let request = http::Request::new(self.admin_addr(), method, path);
        request.header("authorization", &format!("Bearer {token}"))
    }

    pub fn metrics(&self) -> Metrics {
        let answer = self.admin("GET", "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// Waits until everything that a job or a client can hold is back, then asks the box to recount itself.
    pub fn assert_nothing_left(&self) {
        let mut left = Vec::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            left = self.metrics().left_behind();
            if left.is_empty() {
                return self.assert_invariants();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("left behind: {left:?}\nstderr:\n{}", self.stderr());
    }

    /// The box's recount finds nothing wrong, and is what the metrics show. They are asked one after the other, and a timer
    /// may fire in between: then both are asked again.
    fn assert_invariants(&self) {
        let mut mismatch = None;
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            mismatch = self.recount();
            if mismatch.is_none() {
                return;
            }
        }
        panic!("metrics against recount: {mismatch:?}");
    }

    fn recount(&self) -> Option<String> {
        let answer = self.admin("GET", "/admin/invariants");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let report = answer.value();
        assert_eq!(report["ok"], true, "{report}");
        let metrics = self.metrics();
        let recount = report["recount"].as_object().expect("recount is an object");
        assert!(!recount.is_empty(), "the recount counts nothing: {report}");
        recount.iter().find_map(|(name, counted)| metrics.mismatch(name, counted))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process takes a signal");
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        wait_exit(&mut self.child, "the box to exit")
    }

    pub fn alive(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_none()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("the collector does not panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn read_trimmed(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

pub fn wait_exit(child: &mut Child, what: &str) -> ExitStatus {
    wait_for(what, || child.try_wait().expect("the child can be asked"))
}

fn collect_stderr(child: &mut Child) -> Arc<Mutex<String>> {
    collect_lines(child.stderr.take().expect("piped"))
}

/// Reads a pipe to its end, on a thread of its own.
pub fn collect_lines(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let lines = BufReader::new(pipe).lines();
    let shared = text.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut text = shared.lock().expect("readers do not panic");
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

/// Scheme and address from the one line on standard output; a box that exits first shows what it said.
fn wait_ready(child: &mut Child, stderr: &Mutex<String>) -> (String, SocketAddr) {
    let (send, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = child.kill();
        panic!("no ready line; stderr:\n{}", stderr.lock().expect("the collector does not panic"))
    });
    let base = line.strip_prefix("switchbox ready: ").and_then(|base| base.split_once("://"));
    let (scheme, address) = base.unwrap_or_else(|| panic!("ready line: {line}"));
    (scheme.to_owned(), address.parse().expect("the ready line names IP:PORT"))
}
