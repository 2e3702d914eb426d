//! Runs the program's other commands.

use super::server::Server;
use std::ffi::OsStr;
use std::process::{Command, Output};

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchbox"));
    let Output { status, stdout, stderr } = command.args(args).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: status.code().expect("it exits by itself"), stdout: text(stdout), stderr: text(stderr) }
}

/// Runs a command against a box that runs.
pub fn on(server: &Server, args: &[&str]) -> Ran {
    let data = server.data.to_str().expect("UTF-8");
    run(args.iter().chain(&["--data-dir", data]))
}

/// What a command against a box prints, which succeeds.
#[track_caller]
pub fn said(server: &Server, args: &[&str]) -> String {
    let ran = on(server, args);
    ran.check(0, &[]);
    ran.stdout
}

impl Ran {
    /// Checks the exit code, and that what was said has all of these words.
    #[track_caller]
    pub fn check(&self, code: i32, words: &[&str]) {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` isn't in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}
