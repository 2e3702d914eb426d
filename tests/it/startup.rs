//! Starts that can't succeed: exit code, and a message that names the field or file and the remedy.

use crate::harness::server::{Failure, Server, Setup, TempDir};
use crate::harness::{chat, model_path};
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Exit 1 is a failed start, 2 is wrong usage or configuration. What is said must contain each of `words`.
fn check(failure: &Failure, code: i32, words: &[&str]) {
    let said = &failure.stderr;
    assert_eq!(failure.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` isn't in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn echo() -> Setup {
    Setup::open().model("echo", "echo:")
}

#[test]
fn the_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = taken.local_addr().expect("bound above").to_string();
    check(&echo().arg("--listen").arg(&addr).fail(), 1, &[&addr, "listen", "choose another port"]);
}

#[test]
fn the_model_file_is_missing() {
    let dir = TempDir::new();
    let path = dir.join("nowhere.gguf");
    let path = path.to_str().expect("UTF-8");
    check(&Setup::open().model("m", path).fail(), 1, &[path]);
}

#[test]
fn the_model_file_is_cut_short_or_something_else() {
    let dir = TempDir::new();
    let whole = fs::read(model_path()).expect("the model was fetched");
    for (name, bytes) in [
        ("half.gguf", &whole[..whole.len() / 2]),
        ("head.gguf", &whole[..100]),
        ("text.gguf", b"this is no model at all".as_slice()),
        ("empty.gguf", b"".as_slice()),
    ] {
        let path = dir.join(name);
        fs::write(&path, bytes).expect("the temporary directory can be written");
        check(&Setup::open().model("m", path.to_str().expect("UTF-8")).fail(), 1, &[name]);
    }
}

#[test]
fn the_data_directory_can_not_be_one() {
    let dir = TempDir::new();
    let file = dir.join("a-file");
    fs::write(&file, "x").expect("the temporary directory can be written");
    let below = file.join("box");
    for path in [&file, &below] {
        let path = path.to_str().expect("UTF-8");
        check(&echo().arg("--data-dir").arg(path).fail(), 1, &["a-file", "--data-dir"]);
    }
}

#[test]
fn the_data_directory_belongs_to_another_process() {
    let first = echo().start();
    let data = first.data.to_str().expect("UTF-8");
    check(&echo().arg("--data-dir").arg(data).fail(), 1, &[data]);
    assert_eq!(chat::ask(&first, "echo", "undisturbed", json!({})).status, 200);
}

#[test]
fn no_auth_beyond_loopback() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        check(&echo().arg("--listen").arg(listen).fail(), 2, &["--no-auth"]);
    }
}

#[test]
fn a_configuration_that_says_nonsense() {
    for (toml, named) in [
        ("[limits]\nqueue_jobs_maximum = 3", "queue_jobs_maximum"),
        ("[limits]\nqueue_jobs_max = \"many\"", "queue_jobs_max"),
        ("[limits]\nqueue_jobs_max = -1", "queue_jobs_max"),
        ("[lmits]\nqueue_jobs_max = 3", "lmits"),
        ("[durability]\nmode = \"sometimes\"", "mode"),
        ("[limits\n", "switchbox.toml"),
        ("[limits]\nbody_bytes_max = 67108865", "choose from 1024 to 67108864"),
    ] {
        check(&echo().config(toml).fail(), 2, &[named, "switchbox.toml"]);
    }
}

#[test]
fn command_lines_that_say_nonsense() {
    for args in
        [["--durability", "sometimes"], ["--listen", "nowhere"], ["--model", "nameless"], ["--colour", "red"]]
    {
        let failure = args.iter().fold(Setup::open(), |setup, arg| setup.arg(arg)).fail();
        check(&failure, 2, &[args[0]]);
    }
}

#[test]
fn secrets_are_for_their_owner_only() {
    let server = Setup::keyed().model("echo", "echo:").start();
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&server.data), 0o700);
    assert_eq!(mode(&server.data.join("api.key")), 0o600);
    assert_eq!(mode(&server.data.join("admin.token")), 0o600);
    let key = server.key.as_deref().expect("a keyed box");
    assert!(is_key(key), "{key}");
    assert_eq!(server.stderr().matches(key).count(), 1, "the key is shown once, when it is made");
}

fn is_key(key: &str) -> bool {
    let parts = key.strip_prefix("sk-").and_then(|k| k.split_once('.'));
    parts.is_some_and(|(id, secret)| id.len() == 8 && secret.len() == 43)
}

#[test]
fn a_second_start_keeps_the_key() {
    let mut first = Setup::keyed().model("echo", "echo:").start();
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.wait_exit().code(), Some(0), "{}", first.stderr());
    let second = Setup::keyed().model("echo", "echo:").start_in(&first.data);
    assert_eq!(second.key, first.key);
    assert!(!second.stderr().contains(first.key.as_deref().expect("keyed")), "a key is never shown again");
    assert_answers(&second);
}

fn assert_answers(server: &Server) {
    assert_eq!(chat::ask(server, "echo", "hello", json!({})).status, 200);
}
