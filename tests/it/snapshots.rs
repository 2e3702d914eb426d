//! Configuration snapshots: made of a file, numbered, signed with the box's key, kept.

use crate::harness::cli::{on, said};
use crate::harness::server::{Server, Setup, TempDir};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use switchbox::coordinator::event::Environment;
use switchbox::snapshot_text::{Draft, digest_of};
use switchbox::wire::to_agent::SnapshotText;
use switchbox::wire::verify::is_boxs_snapshot;

const MODEL: &str = "[[model]]\nname = \"tiny\"\nversion = \"v1\"\n\
                     digest = \"abababababababababababababababababababababababababababababababab\"\n";

fn shown(server: &Server, environment: &str) -> Value {
    server.admin("GET", &format!("/admin/snapshot?environment={environment}")).value()
}

fn apply(server: &Server, dir: &TempDir, text: &str, more: &[&str]) -> String {
    let path = dir.join("nodes.toml");
    fs::write(&path, text).expect("written");
    let args: Vec<&str> =
        ["snapshot", "apply", path.to_str().expect("UTF-8")].iter().chain(more).copied().collect();
    said(server, &args)
}

#[test]
fn a_file_is_put_in_force_signed_and_kept() {
    let dir = TempDir::new();
    let mut server = Setup::open().model("echo", "echo:").start();
    let defaults = said(&server, &["snapshot", "show"]);
    assert!(
        defaults.starts_with("# No configuration is in force in mainnet: these are the defaults.\n"),
        "{defaults}"
    );
    said(&server, &["subclouds", "create", "lab", "--gpu", "h100"]);
    said(&server, &["subclouds", "create", "test", "--environment", "testnet"]);
    let text = format!("{MODEL}[timeouts]\naccept_ms = 4000\n");
    let first = apply(&server, &dir, &text, &[]);
    assert!(first.starts_with("configuration 1 of mainnet is in force\n  SHA-256 "), "{first}");
    let view = shown(&server, "mainnet");
    assert_eq!((&view["version"], &view["subclouds"]), (&json!(1), &json!(["lab"])), "{view}");
    // What nodes fetch is what the box's key signed.
    let field = |name: &str| view[name].as_str().expect("text").to_owned();
    let fetched = SnapshotText {
        environment: Environment::Mainnet,
        version: 1,
        text: field("text"),
        signature: field("signature").parse().expect("a signature"),
    };
    let key = field("box_key").parse().expect("a key");
    assert!(is_boxs_snapshot(key, &fetched));
    assert!(!is_boxs_snapshot(key, &SnapshotText { version: 2, ..fetched.clone() }));
    assert_eq!(digest_of(&fetched.text).to_string(), field("digest"));
    assert!(first.contains(&field("digest")));
    let meant = Draft::read(&fetched.text).expect("format 1");
    assert_eq!((meant.timeouts.accept.as_ms(), meant.models["tiny"].version.as_str()), (4_000, "v1"));
    // What is shown can be applied again, and changes nothing; what changes gets the next number.
    let file = said(&server, &["snapshot", "show"]);
    assert!(file.contains("accept_ms = 4000\n") && file.contains("name = \"tiny\"\n"), "{file}");
    assert!(apply(&server, &dir, &file, &[]).starts_with("configuration 1 of mainnet is in force already"));
    said(&server, &["subclouds", "set", "lab", "--any-gpu"]);
    assert!(apply(&server, &dir, &file, &[]).starts_with("configuration 2 of mainnet is in force\n"));
    assert!(apply(&server, &dir, &defaults, &[]).starts_with("configuration 3 of mainnet"));
    assert!(
        apply(&server, &dir, MODEL, &["--environment", "testnet"]).starts_with("configuration 1 of testnet")
    );
    let both = ["mainnet", "testnet"].map(|environment| shown(&server, environment));
    assert_eq!(both[1]["subclouds"], json!(["test"]));
    server.signal(Signal::KILL);
    server.wait_exit();
    let server = Setup::open().model("echo", "echo:").start_in(&server.data);
    assert_eq!(["mainnet", "testnet"].map(|environment| shown(&server, environment)), both, "to the byte");
}

#[test]
fn a_file_that_makes_no_sense_changes_nothing_and_says_where() {
    let dir = TempDir::new();
    let server = Setup::open().model("echo", "echo:").start();
    apply(&server, &dir, MODEL, &[]);
    let before = shown(&server, "mainnet");
    let path = dir.join("bad.toml");
    let path = path.to_str().expect("UTF-8");
    for (text, words) in [
        (
            "[timeouts]\nacept_ms = 1",
            &["bad.toml:2:", "timeouts.acept_ms", "did you mean `timeouts.accept_ms`?"][..],
        ),
        ("[[model]]\nname = 3", &["bad.toml:2:", "model.name", "a text in quotes"]),
        (
            "[participation]\n\ncheck_rate_ppm = 200_000",
            &["bad.toml:3:", "probation_check_rate_ppm", "raise it"],
        ),
        (
            "[timeouts]\naccept_ms = 0\nstop_ms = 0",
            &["bad.toml:2:", "timeouts.accept", "bad.toml:3:", "timeouts.stop"],
        ),
        ("not toml", &["bad.toml:1:", "isn't TOML"]),
    ] {
        fs::write(path, text).expect("written");
        on(&server, &["snapshot", "apply", path]).check(1, words);
    }
    on(&server, &["snapshot", "apply", "/nowhere"]).check(2, &["can't read `/nowhere`"]);
    let error = server.command("/admin/snapshot", &json!({"file": "x"})).assert_refused(400, "invalid_value");
    assert_eq!(error["param"], "file");
    let error = server.command("/admin/snapshot", &json!({"toml": ""})).assert_refused(400, "invalid_value");
    assert_eq!(error["param"], "body");
    server.admin("GET", "/admin/snapshot?environment=prod").assert_refused(400, "invalid_value");
    assert_eq!(shown(&server, "mainnet"), before);
}
