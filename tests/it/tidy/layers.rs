//! Who may know whom. Imports point down; the core knows nothing but values.

use super::source::{self, Source};
use super::{places_of, report};
use std::fs;

fn within(dir: &'static str) -> impl Fn(&Source) -> bool {
    move |s| s.path.starts_with(&format!("{dir}/")) || s.path == format!("{dir}.rs")
}

/// What is no pure computation, whoever does it.
const IMPURE: [&str; 18] = [
    "tokio::",
    "hyper::",
    "tracing::",
    "getrandom::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::io",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "Mutex",
    "async",
    "await",
    "println!",
    "eprintln!",
];

#[test]
fn the_core_is_pure() {
    let own = [
        "crossbeam::",
        "serde::",
        "serde_json::",
        "bytes::",
        "rand::",
        "thiserror::",
        "RwLock",
        "f32",
        "f64",
    ];
    let banned = [&IMPURE[..], &own].concat();
    let core = within("src/coordinator");
    report("the core has no clock, I/O, thread, randomness, float or hash order", places_of(&core, &banned));
    let mut places = Vec::new();
    for source in source::rust().filter(|s| core(s)) {
        for (number, line) in source.code_lines() {
            let foreign = roots_of(line).into_iter().filter(|root| !may_know(root));
            places.extend(foreign.map(|root| format!("{}:{number}: {root}", source.path)));
        }
    }
    report("the core imports only ids, time, credits and std", places);
}

fn may_know(root: &str) -> bool {
    // Modules nest: `backlog` has a `clock` of its own.
    let modules = |s: &Source| s.path.strip_prefix("src/coordinator/").map(str::to_owned).unwrap_or_default();
    let own = || source::rust().any(|s| modules(s).split(['/', '.']).any(|module| module == root));
    ["std", "core", "alloc", "super", "self"].contains(&root)
        || root.starts_with(char::is_uppercase)
        || own()
        || ["ids", "time", "credits", "coordinator"].iter().any(|m| root == format!("crate::{m}"))
}

/// The crate that a `use` names, and every `crate::module` that a line mentions.
fn roots_of(line: &str) -> Vec<String> {
    let name = |text: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
    };
    let modules = line
        .match_indices("crate::")
        .map(|(at, found)| format!("crate::{}", name(&line[at + found.len()..])));
    let mut roots: Vec<String> = modules.collect();
    let used = line.trim_start().trim_start_matches("pub ").strip_prefix("use ").map(name);
    roots.extend(used.filter(|root| root != "crate" && !root.is_empty()));
    roots
}

#[test]
fn edges_do_not_know_one_another() {
    let edges = ["api", "nodes", "agent"];
    let mut places = Vec::new();
    for (edge, dir) in edges.iter().zip(["src/api", "src/nodes", "src/agent"]) {
        let others: Vec<String> =
            edges.iter().filter(|e| e != &edge).map(|e| format!("crate::{e}")).collect();
        let mut banned: Vec<&str> = others.iter().map(String::as_str).collect();
        banned.extend(["switchbox_storage", "Coordinator", "crate::driver"]);
        places.extend(places_of(within(dir), &banned));
    }
    report("api, nodes and agent know neither one another nor storage nor the core itself", places);
}

#[test]
fn fenced_crates_import_nothing_of_ours() {
    let ours = ["switchbox", "switchbox_storage", "switchbox_kernels", "switchbox_bench"];
    let mut places = places_of(within("storage/src"), &ours);
    places.extend(places_of(within("kernels/src"), &ours));
    report("storage and kernels import nothing of ours", places);
}

/// Only these manifests may name these crates: that is what the fences are for.
#[test]
fn fences_hold_in_the_manifests() {
    let fenced = [("sled", "storage"), ("cudarc", "kernels"), ("lapin", "bench"), ("redis", "bench")];
    let mut places = Vec::new();
    for manifest in [
        "Cargo.toml",
        "storage/Cargo.toml",
        "kernels/Cargo.toml",
        "bench/Cargo.toml",
        "bench/scale/Cargo.toml",
        "loom/Cargo.toml",
        "torture/Cargo.toml",
        "torture/recorder/Cargo.toml",
    ] {
        let text = fs::read_to_string(crate::harness::root().join(manifest)).expect("the manifest is there");
        for (name, home) in fenced {
            let named = text.lines().any(|line| line.split(['=', '.', ' ']).next() == Some(name));
            if named && !manifest.starts_with(home) {
                places.push(format!("{manifest}: {name} belongs to {home}"));
            }
        }
    }
    report("a dependency outside its fence", places);
}

#[test]
fn only_the_edge_verifies() {
    let product = |s: &Source| {
        s.is_product() && s.path.starts_with("src/") && s.path != "src/coordinator/event/verified.rs"
    };
    let mut places = places_of(|s| product(s), &["Verified(", "Verified {"]);
    places.extend(places_of(
        |s| product(s) && s.path != "src/wire/verify.rs",
        &["Verified::proven", "proven("],
    ));
    // What comes over a socket is never the box's own word.
    places.extend(places_of(|s| product(s) && s.path != "src/node.rs", &["Verified::local"]));
    report("only wire::verify and Verified::local make a Verified", places);
}

#[test]
fn the_protocol_is_pure() {
    report("wire has no I/O, clock or randomness", places_of(within("src/wire"), &IMPURE));
}
