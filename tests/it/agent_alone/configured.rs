//! Configurations: fetched, checked against the box's key, kept, and gone by.

use super::*;
use crate::harness::server::TempDir;
use std::collections::BTreeMap;
use switchbox::coordinator::snapshot::{ModelSpec, RuntimeKind};
use switchbox::ids::{Digest, ModelName};
use switchbox::snapshot_text::{Draft, digest_of, fetched};
use switchbox::wire::to_agent::{Configuration, SnapshotText};

/// A configuration with these models, as that box makes it and names it.
fn configuration(peer: &Peer, version: u64, models: &[&str]) -> (Configuration, SnapshotText) {
    let spec = ModelSpec {
        version: "v1".parse().expect("a version"),
        digest: Digest([7; 32]),
        runtime: RuntimeKind::Echo,
        memory_bytes: 0,
        default_output_tokens: 16,
        output_tokens_max: 64,
        fallbacks: Vec::new(),
    };
    let models: BTreeMap<ModelName, ModelSpec> =
        models.iter().map(|name| ((*name).into(), spec.clone())).collect();
    let environment = Environment::Mainnet;
    let draft = Draft {
        environment,
        version,
        models,
        participation: Default::default(),
        penalties: Default::default(),
        timeouts: Default::default(),
        subclouds: BTreeMap::new(),
    };
    let snapshot = fetched(&draft.signed(&peer.identity)).expect("it was just signed");
    let digest = digest_of(&snapshot.text).into();
    (Configuration { environment, version, digest }, snapshot)
}

/// The box names one, and the agent asks for it.
fn named(call: &Call, named: &Configuration) {
    call.say(&FromBox::Configuration(named.clone()));
    let FromAgent::SnapshotRequest(request) = call.hear() else { panic!("it is fetched") };
    assert_eq!((request.environment, request.digest), (named.environment, named.digest));
}

fn fetched_by(call: &Call, (name, snapshot): &(Configuration, SnapshotText)) {
    named(call, name);
    call.say(&FromBox::Snapshot(snapshot.clone()));
}

/// The agent declines a job, by that configuration.
fn declined_by(call: &Call, version: u64) {
    give(call, &assign(version, "x"));
    let heard = call.hear();
    let FromAgent::Declined(declined) = heard else {
        panic!("the configuration doesn't have the model: {heard:?}")
    };
    let words = format!("configuration {version} ");
    assert!(declined.reason.contains(&words), "{}", declined.reason);
}

#[test]
fn the_last_good_one_stays_whatever_comes_and_after_a_restart() {
    let dir = TempDir::new();
    let data = dir.join("agent");
    let peer = Peer::start(1);
    let mut agent = Setup::model("echo", "echo:").join(&peer.join_string()).start_in(&data);
    let (call, _) = peer.work();
    let second = configuration(&peer, 2, &["other"]);
    fetched_by(&call, &second);
    declined_by(&call, 2);
    // Of another box's key; with a text that was changed on its way; newer by its envelope only.
    fetched_by(&call, &configuration(&Peer::start(2), 3, &["echo"]));
    let (name, changed) = configuration(&peer, 3, &["echo"]);
    fetched_by(&call, &(name, SnapshotText { text: changed.text.replace("v1", "v2"), ..changed }));
    let (older, snapshot) = configuration(&peer, 1, &["echo"]);
    let again = SnapshotText { version: 3, ..snapshot.clone() };
    fetched_by(&call, &(Configuration { version: 3, ..older.clone() }, again));
    declined_by(&call, 2);
    // An older number isn't even asked for, and comes to nothing where nobody asked.
    call.say(&FromBox::Configuration(older));
    call.say(&FromBox::Snapshot(snapshot));
    declined_by(&call, 2);
    agent.kill();
    drop(call);
    let _agent = Setup::model("echo", "echo:").start_in(&data);
    let (call, _, ready) = peer.admit();
    assert_eq!(ready.configurations.len(), 1);
    assert_eq!(ready.configurations[0].digest, second.0.digest);
    call.welcome(Vec::new());
    declined_by(&call, 2);
    fetched_by(&call, &configuration(&peer, 3, &["echo"]));
    give(&call, &assign(9, "one two"));
    assert_eq!(follow(&call, 0).0, "one two");
}

#[test]
fn one_that_does_not_come_is_asked_for_again() {
    let (peer, _agent, call, _) = working("echo:");
    let (name, snapshot) = configuration(&peer, 2, &["other"]);
    named(&call, &name);
    // With the next heartbeat.
    assert!(matches!(call.hear(), FromAgent::SnapshotRequest(request) if request.digest == name.digest));
    call.say(&FromBox::Snapshot(snapshot));
    loop {
        give(&call, &assign(2, "x"));
        match call.hear() {
            // It crossed the answer.
            FromAgent::SnapshotRequest(_) => {}
            FromAgent::Declined(declined) => {
                assert!(declined.reason.contains("configuration 2 "), "{}", declined.reason);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}
