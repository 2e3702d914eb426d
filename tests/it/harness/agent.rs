//! One running agent; killed on drop.

use super::server::{TempDir, collect_lines, wait_exit};
use super::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// How an agent is to be started.
pub struct Setup {
    args: Vec<String>,
}

impl Setup {
    /// With that model, and nothing else said.
    pub fn model(name: &str, spec: &str) -> Setup {
        Setup { args: vec!["--model".to_owned(), format!("{name}={spec}")] }
    }

    pub fn arg(mut self, arg: &str) -> Setup {
        self.args.push(arg.to_owned());
        self
    }

    pub fn join(self, join: &str) -> Setup {
        self.arg("--join").arg(join)
    }

    /// Starts on a directory of its own.
    pub fn start(self) -> Agent {
        let dir = TempDir::new();
        let data = dir.join("agent");
        let mut agent = self.start_in(&data);
        agent.dir = Some(dir);
        agent
    }

    /// Starts on a directory that belongs to somebody else.
    pub fn start_in(self, data: &Path) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchbox"));
        command.arg("agent").arg("--data-dir").arg(data).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = collect_lines(child.stdout.take().expect("piped"));
        let stderr = collect_lines(child.stderr.take().expect("piped"));
        Agent { child, data: data.to_owned(), stdout, stderr, dir: None }
    }
}

/// An agent's process.
pub struct Agent {
    child: Child,
    pub data: PathBuf,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    dir: Option<TempDir>,
}

impl Agent {
    /// Waits for the line that says that it is ready.
    pub fn wait_ready(&mut self) -> String {
        wait_for("an agent's ready line", || {
            let line = self.stdout();
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("the agent ended ({status}):\n{}", self.stderr());
            }
            line.starts_with("switchbox agent ready: ").then_some(line)
        })
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("the collector does not panic").clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("the collector does not panic").clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process takes a signal");
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_exit();
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        wait_exit(&mut self.child, "the agent to exit")
    }

    /// Waits for its end, which must have that code and say these words.
    #[track_caller]
    pub fn ends(&mut self, code: i32, words: &[&str]) {
        let status = self.wait_exit();
        // The last lines may still be on their way.
        wait_for(&format!("{words:?} in what the agent says"), || {
            let said = self.stderr();
            words.iter().all(|word| said.contains(word)).then_some(())
        });
        assert_eq!(status.code(), Some(code), "{}", self.stderr());
        assert!(!self.stderr().contains("panicked"), "{}", self.stderr());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
