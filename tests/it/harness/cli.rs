//! Runs the program's other commands.

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
