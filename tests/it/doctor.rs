//! `switchbox doctor`: says what a start would find, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::chat;
use crate::harness::cli::{self, Ran};
use crate::harness::server::{Server, Setup, TempDir};
use crate::harness::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};

fn doctor(data: &Path, more: &[&str]) -> Ran {
    cli::run(["doctor", data.to_str().expect("UTF-8")].iter().chain(more))
}

/// A data directory of a box that had some work and ended.
fn with_history(dir: &TempDir) -> PathBuf {
    let data = dir.join("data");
    let mut server = Setup::keyed().model("echo", "echo:").start_in(&data);
    for n in 0..3 {
        let body = chat::body("echo", &format!("number {n}"), json!({}));
        let key = format!("key-{n}");
        let answer =
            server.request("POST", "/v1/chat/completions").header("idempotency-key", &key).json(&body);
        assert_eq!(answer.send().status, 200);
    }
    let behind = || server.admin("GET", "/metrics").text().contains("\nswitchbox_store_groups_behind 0\n");
    wait_for("the state store to have all rows", || behind().then_some(()));
    end(&mut server);
    data
}

fn end(server: &mut Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.stderr());
}

/// Every file with its bytes, its mode and when it was written.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            let meta = fs::metadata(&path).expect("a file");
            let written = meta.modified().expect("a time");
            all.insert(
                path.clone(),
                (fs::read(&path).expect("readable"), meta.permissions().mode(), written),
            );
        }
    }
    all
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("writable");
}

fn first_segment(data: &Path) -> PathBuf {
    let segments = fs::read_dir(data.join("store/journal")).expect("a journal");
    segments.map(|entry| entry.expect("an entry").path()).min().expect("a segment")
}

#[test]
fn a_healthy_directory_is_said_to_be_and_left_as_it_is() {
    let dir = TempDir::new();
    let data = with_history(&dir);
    let before = contents(&data);
    doctor(&data, &[]).check(
        0,
        &["journal: ", "state store: belongs here", "ledger: all balances sum to zero", "\nhealthy\n"],
    );
    let told = doctor(&data, &["--json"]);
    told.check(0, &[]);
    let report: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!((&report["healthy"], &report["ledger_sum"]), (&json!(true), &json!("0")), "{report}");
    assert!(report["rows"].as_u64().is_some_and(|rows| rows > 0), "{report}");
    assert!(report["payloads"].as_u64().is_some_and(|payloads| payloads >= 3), "answers are: {report}");
    assert!(contents(&data) == before, "it changed something");
}

#[test]
fn balances_add_up_when_postings_are_gone() {
    let dir = TempDir::new();
    let data = dir.join("data");
    let few = "[limits]\nfinished_jobs_max = 1\nfinished_unnamed_jobs_max = 2";
    let mut server = Setup::keyed().model("echo", "echo:").config(few).start_in(&data);
    for n in 0..9 {
        let asked = chat::ask(&server, "echo", &format!("number {n}"), json!({}));
        assert_eq!(asked.status, 200, "{}", asked.text());
    }
    let kept = || server.admin("GET", "/metrics").text().contains("\nswitchbox_store_groups_behind 0\n");
    wait_for("the state store to have all rows", || kept().then_some(()));
    let balances = server.admin("GET", "/admin/balances").value();
    assert!(balances.to_string().contains("-"), "somebody paid: {balances}");
    end(&mut server);
    doctor(&data, &[])
        .check(0, &["each balance is what the 2 kept postings and older ones add up to", "\nhealthy\n"]);
}

#[test]
fn a_directory_that_a_box_has_is_refused_with_its_process() {
    let server = Setup::open().model("echo", "echo:").start();
    let pid = format!("pid {}", server.pid().as_raw_nonzero());
    doctor(&server.data, &[]).check(2, &["in use", &pid, "look at a backup of it"]);
    assert_eq!(chat::ask(&server, "echo", "undisturbed", json!({})).status, 200);
}

#[test]
fn what_is_no_box_can_not_be_looked_at() {
    let dir = TempDir::new();
    doctor(&dir.join("nowhere"), &[]).check(2, &["nowhere"]);
    doctor(&dir.0, &[]).check(2, &["is no box's data directory"]);
    assert_eq!(fs::read_dir(&dir.0).expect("readable").count(), 0, "nothing was made");
}

#[test]
fn damage_that_a_start_does_without_is_named() {
    let dir = TempDir::new();
    let data = with_history(&dir);
    let segment = first_segment(&data);
    // The first frame begins behind the segment's header; the state store has its rows already.
    flip(&segment, 4096 + 60);
    let named = format!("`{}` has a damaged group at byte 4096", segment.display());
    doctor(&data, &[]).check(1, &[&named, "a start goes on from it", "\ndamaged, and a start does without"]);
    let told: Value = serde_json::from_str(&doctor(&data, &["--json"]).stdout).expect("JSON");
    assert_eq!((&told["healthy"], &told["severity"]), (&json!(false), &json!("damage")), "{told}");
    let server = Setup::open().model("echo", "echo:").start_in(&data);
    wait_for("the log", || server.stderr().contains("the store was opened").then_some(()));
}

#[test]
fn a_refusal_is_foretold() {
    let dir = TempDir::new();
    let data = with_history(&dir);
    let segment = first_segment(&data);
    fs::remove_dir_all(data.join("store/state")).expect("removed");
    flip(&segment, 4096 + 60);
    let named = format!("`{}` is damaged at byte 4096", segment.display());
    doctor(&data, &[]).check(1, &[&named, "a start refuses the directory"]);
    let refused =
        Setup::open().model("echo", "echo:").arg("--data-dir").arg(data.to_str().expect("UTF-8")).fail();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains(&named), "{}", refused.stderr);
}

#[test]
fn a_state_store_that_is_broken_is_rebuilt_as_told() {
    let dir = TempDir::new();
    let data = with_history(&dir);
    fs::write(data.join("store/state/conf"), [0; 9]).expect("writable");
    doctor(&data, &[]).check(1, &["state store: ", "a start rebuilds it from group 0"]);
    let server = Setup::open().model("echo", "echo:").start_in(&data);
    // What a process says may come after it listens.
    wait_for("the log to say it", || server.stderr().contains("the state was rebuilt").then_some(()));
}

#[test]
fn secrets_are_looked_at_too() {
    let dir = TempDir::new();
    let data = with_history(&dir);
    let key = data.join("api.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    doctor(&data, &[]).check(1, &["api.key", "may be read by other users; a start closes it"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::write(data.join("boot.secret"), "short").expect("writable");
    doctor(&data, &[]).check(1, &["boot.secret", "holds 5 bytes instead of 32", "a start refuses"]);
    let refused = Setup::open().model("echo", "echo:").arg("--data-dir").arg(data.to_str().expect("UTF-8"));
    assert!(refused.fail().stderr.contains("holds 5 bytes instead of 32"));
}

/// CRC-32 as the `format` file has it.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(!0, step)
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let dir = TempDir::new();
    let data = with_history(&dir);
    let format = data.join("store/format");
    let text = fs::read_to_string(&format).expect("text").replace("version 1", "version 7");
    let lines = text.split_inclusive('\n').take(3).collect::<String>();
    fs::write(&format, format!("{lines}crc {:08x}\n", crc(lines.as_bytes()))).expect("writable");
    let words = ["format version 7", "reads up to 1"];
    doctor(&data, &[]).check(2, &words);
    let refused =
        Setup::open().model("echo", "echo:").arg("--data-dir").arg(data.to_str().expect("UTF-8")).fail();
    words.iter().for_each(|word| assert!(refused.stderr.contains(word), "{}", refused.stderr));
}
