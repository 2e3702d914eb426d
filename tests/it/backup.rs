//! `switchbox backup`: what was acknowledged before is in it, whatever the box does meanwhile; a start is the restore.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::cli::{self, Ran};
use crate::harness::http::Response;
use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::{chat, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

fn backup(data: &Path, target: &Path) -> Ran {
    cli::run([Path::new("backup"), data, target])
}

fn submit(server: &Server, content: &str) -> Response {
    let body: Value = serde_json::from_str(&chat::body("echo", content, json!({}))).expect("made as JSON");
    server.call("POST", "/v1/jobs", &json!({"endpoint": "/v1/chat/completions", "body": body}).to_string())
}

fn id_of(answer: &Response) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.value()["id"].as_str().expect("a job has an id").to_owned()
}

fn done(server: &Server, id: &str) -> Value {
    let answer = server.call("GET", &format!("/v1/jobs/{id}?wait=60s"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.value()
}

fn text_of(job: &Value) -> &str {
    job["result"]["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("no answer in {job}"))
}

fn keyed() -> Setup {
    Setup::keyed().model("echo", "echo:")
}

fn end(server: &mut Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
}

#[test]
fn a_backup_under_load_holds_everything_that_was_acknowledged_before() {
    let dir = TempDir::new();
    let mut server = keyed().start_in(&dir.join("data"));
    let target = dir.join("copy");
    let stop = AtomicBool::new(false);
    let before: Vec<String> = std::thread::scope(|scope| {
        let load = || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                id_of(&submit(&server, &format!("more {sent}")));
                sent += 1;
            }
        };
        scope.spawn(load);
        scope.spawn(load);
        let ids = (0..40).map(|n| id_of(&submit(&server, &format!("number {n}")))).collect();
        backup(&server.data, &target).check(0, &["backed up to", target.to_str().expect("UTF-8")]);
        stop.store(true, Ordering::Relaxed);
        ids
    });
    server.signal(Signal::KILL);
    server.wait_exit();
    assert!(!dir.join("copy.unfinished").exists());
    for name in ["api.key", "key.pepper", "boot.secret", "box.key"] {
        let mode = fs::metadata(target.join(name)).expect("it is copied").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    cli::run([Path::new("doctor"), &target]).check(0, &["a start rebuilds it", "\nhealthy\n"]);
    let restored = keyed().start_in(&target);
    assert_eq!(restored.key, server.key, "its clients' key is valid");
    for (n, id) in before.iter().enumerate() {
        assert_eq!(text_of(&done(&restored, id)), format!("number {n}"));
    }
    restored.assert_nothing_left();
}

#[test]
fn a_box_that_does_not_run_is_copied_as_it_lies() {
    let dir = TempDir::new();
    let mut server = keyed().start_in(&dir.join("data"));
    let id = id_of(&submit(&server, "kept"));
    assert_eq!(text_of(&done(&server, &id)), "kept");
    // Killed, so that a start has something to mend.
    server.signal(Signal::KILL);
    server.wait_exit();
    let target = dir.join("copy");
    // An empty directory will do.
    fs::create_dir(&target).expect("made");
    backup(&server.data, &target).check(0, &["backed up to"]);
    cli::run([Path::new("doctor"), &target]).check(0, &["\nhealthy\n"]);
    let restored = keyed().start_in(&target);
    assert_eq!((text_of(&done(&restored, &id)), &restored.key), ("kept", &server.key));
}

#[test]
fn targets_that_can_not_become_one_are_refused_and_left_alone() {
    let dir = TempDir::new();
    let mut server = keyed().start_in(&dir.join("data"));
    let full = dir.join("full");
    fs::create_dir(&full).expect("made");
    fs::write(full.join("precious"), "x").expect("written");
    let foreign = dir.join("taken.unfinished");
    fs::create_dir(&foreign).expect("made");
    fs::write(foreign.join("precious"), "x").expect("written");
    for running in [true, false] {
        if !running {
            end(&mut server);
        }
        backup(&server.data, &full).check(1, &["isn't empty"]);
        backup(&server.data, &server.data.join("inside")).check(1, &["own data directory"]);
        backup(&server.data, &dir.join("nowhere/copy")).check(1, &["nowhere"]);
        backup(&server.data, &dir.join("taken")).check(1, &["isn't a backup that was interrupted"]);
        assert!(full.join("precious").exists() && foreign.join("precious").exists());
        assert!(!dir.join("taken").exists());
    }
    // One that fails on the way leaves nothing.
    fs::set_permissions(server.data.join("api.key"), fs::Permissions::from_mode(0o644)).expect("chmod");
    backup(&server.data, &dir.join("open")).check(1, &["api.key", "may be read by other users"]);
    assert!(!dir.join("open").exists() && !dir.join("open.unfinished").exists());
    cli::run([Path::new("backup"), &full, &dir.join("other")]).check(2, &["is no box's data directory"]);
}

#[test]
fn what_was_interrupted_is_no_backup_and_the_next_one_replaces_it() {
    let dir = TempDir::new();
    let mut server = keyed().start_in(&dir.join("data"));
    end(&mut server);
    // As far as one came that was killed: all but its end.
    let half = dir.join("copy.unfinished");
    backup(&server.data, &half).check(0, &[]);
    fs::write(half.join("backup.unfinished"), "1\n").expect("written");
    let refused = keyed().arg("--data-dir").arg(half.to_str().expect("UTF-8")).fail();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("is a backup that was interrupted"), "{}", refused.stderr);
    cli::run([Path::new("doctor"), &half]).check(1, &["is a backup that was interrupted"]);
    backup(&server.data, &dir.join("copy")).check(0, &[]);
    assert!(!half.exists());
    assert!(keyed().start_in(&dir.join("copy")).key == server.key);
}

#[test]
fn one_that_was_whole_and_got_no_name_is_in_nobodys_way() {
    let dir = TempDir::new();
    let mut server = keyed().start_in(&dir.join("data"));
    end(&mut server);
    // As far as one came that was killed between its last file and its name.
    let half = dir.join("copy.unfinished");
    backup(&server.data, &half).check(0, &[]);
    fs::write(half.join("backup.whole"), "1\n").expect("written");
    backup(&server.data, &dir.join("copy")).check(0, &[]);
    assert!(!half.exists() && !dir.join("copy/backup.whole").exists());
    // One that had got it already is whole; a start makes it a box of its own, which no backup takes for a leftover.
    fs::rename(dir.join("copy"), &half).expect("moved");
    fs::write(half.join("backup.whole"), "1\n").expect("written");
    let mut started = keyed().start_in(&half);
    assert_eq!(started.key, server.key);
    end(&mut started);
    assert!(!half.join("backup.whole").exists());
    backup(&server.data, &dir.join("copy"))
        .check(1, &["copy.unfinished", "remove it, or name another target"]);
    assert!(half.join("store").exists());
}

#[test]
fn a_clone_with_a_new_identity_runs_beside_the_original() {
    let dir = TempDir::new();
    let original = keyed().start_in(&dir.join("data"));
    let id = id_of(&submit(&original, "of the original"));
    assert_eq!(done(&original, &id)["state"], "succeeded");
    let target = dir.join("clone");
    backup(&original.data, &target).check(0, &[]);
    let clone = keyed().arg("--as-new-identity").start_in(&target);
    assert_ne!(clone.key, original.key);
    let key = clone.key.clone().expect("a keyed box");
    wait_for("the new key to be shown", || clone.stderr().contains(&key).then_some(()));
    for name in ["key.pepper", "boot.secret", "box.key"] {
        let read = |data: &Path| fs::read(data.join(name)).expect("there");
        assert_ne!(read(&original.data), read(&clone.data), "{name}");
    }
    // What was is known to both, each for its own key; what comes is each one's own.
    for server in [&original, &clone] {
        assert_eq!(text_of(&done(server, &id)), "of the original");
        let own = id_of(&submit(server, "own"));
        assert_eq!(text_of(&done(server, &own)), "own");
        let other = if std::ptr::eq(server, &original) { &clone } else { &original };
        let foreign = other.request("GET", "/v1/models");
        assert_eq!(foreign.send().status, 200);
        let wrong = crate::harness::http::Request::new(other.addr, "GET", "/v1/models")
            .header("authorization", &format!("Bearer {}", server.key.as_deref().expect("a keyed box")))
            .send();
        assert_eq!(wrong.status, 401, "{}", wrong.text());
    }
    // The flag is for one start.
    let kept = clone.key.clone();
    drop(clone);
    assert_eq!(keyed().start_in(&target).key, kept);
}

#[test]
fn a_box_that_is_killed_while_it_backs_up_leaves_nothing_that_passes_for_a_backup() {
    let dir = TempDir::new();
    let mut server = keyed().start_in(&dir.join("data"));
    let id = id_of(&submit(&server, "kept"));
    assert_eq!(text_of(&done(&server, &id)), "kept");
    let (target, half, data) = (dir.join("copy"), dir.join("copy.unfinished"), server.data.clone());
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| backup(&data, &target));
        wait_for("it to begin", || half.join("store").exists().then_some(()));
        server.signal(Signal::KILL);
        server.wait_exit();
        asked.join().expect("no panic").check(1, &["switchbox: "]);
    });
    assert!(!target.exists());
    let refused = keyed().arg("--data-dir").arg(half.to_str().expect("UTF-8")).fail();
    assert!(refused.stderr.contains("is a backup that was interrupted"), "{}", refused.stderr);
    let server = keyed().start_in(&dir.join("data"));
    backup(&server.data, &target).check(0, &["backed up to"]);
    assert!(!half.exists());
    cli::run([Path::new("doctor"), &target]).check(0, &["\nhealthy\n"]);
}
