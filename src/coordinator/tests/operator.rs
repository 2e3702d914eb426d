//! Configurations, and what the operator is shown (SPEC sections 2 and 8).

use std::collections::BTreeMap;

use super::super::command::{Command, NamespaceSettings};
use super::super::effect::{Answer, NodeMessage, NodeView, RefusalKind, Rejection, Runnable, Why};
use super::super::event::*;
use super::super::job::JobState;
use super::super::snapshot::{ModelSpec, Refused, RuntimeKind, Snapshot, Timeouts};
use super::super::standing::{PenaltyRules, Standing, Trust};
use super::super::subcloud::{Allowed, Isolation, Policy, Subcloud, Unmet};
use super::fleet::{offer, remote};
use super::world::World;
use super::world::tenant;
use crate::credits::Credits;
use crate::ids::{Digest, Namespace, NodeId};
use crate::time::Span;

fn snapshot(version: u64, digest: u8) -> Snapshot {
    Snapshot {
        environment: Environment::Mainnet,
        version,
        digest: Digest([digest; 32]),
        signature: [7; 64].into(),
        models: BTreeMap::new(),
        participation: Default::default(),
        penalties: PenaltyRules::default(),
        timeouts: Timeouts { accept: Span::from_secs(3), ..Timeouts::default() },
        subclouds: BTreeMap::new(),
    }
}

fn configure(w: &mut World, version: u64, digest: u8) -> Answer {
    w.operate(Command::Configure(Box::new(snapshot(version, digest))))
}

fn news(version: u64, digest: u8) -> NodeMessage {
    NodeMessage::Configuration { environment: Environment::Mainnet, version, digest: Digest([digest; 32]) }
}

#[test]
fn an_older_or_forked_configuration_is_refused_and_nodes_are_told_of_the_newest() {
    let mut w = World::of(&["a"]);
    assert!(matches!(configure(&mut w, 5, 1), Answer::Done));
    assert!(w.heard_by("a").contains(&news(5, 1)));
    w.told.clear();
    let older = configure(&mut w, 4, 9);
    assert!(matches!(
        older,
        Answer::Rejected(Rejection::Snapshot(Refused::Older { in_force: 5, refused: 4 }))
    ));
    let forked = configure(&mut w, 5, 2);
    assert!(matches!(forked, Answer::Rejected(Rejection::Snapshot(Refused::Forked { version: 5 }))));
    assert!(matches!(configure(&mut w, 5, 1), Answer::Done), "the same again");
    assert_eq!(w.heard_by("a"), []);
    // Whoever connects with an old one is told, whoever has it isn't.
    w.gone("a", 1);
    w.connect(remote("a", 2));
    assert!(w.heard_by("a").contains(&news(5, 1)));
    w.gone("a", 2);
    w.told.clear();
    let has = vec![(Environment::Mainnet, Digest([1; 32]))];
    w.connect(NodeHello { configurations: has, ..remote("a", 3) });
    assert!(!w.heard_by("a").contains(&news(5, 1)));
    // A node that doesn't work there isn't.
    w.connect(NodeHello { environments: vec![Environment::Testnet], ..remote("t", 1) });
    assert!(!w.heard_by("t").contains(&news(5, 1)));
}

#[test]
fn what_a_configuration_says_of_time_holds_after_a_restart_too() {
    let mut w = World::of(&["a"]);
    configure(&mut w, 1, 1);
    let mut w = w.restarted();
    w.connect(remote("a", 1));
    let job = w.submit(|s| s.spec.ttl = Span::from_secs(600));
    w.next_of("a").expect("assigned");
    w.pass(Span::from_secs(3));
    assert_eq!(w.row(job).failed_attempts, 1, "three seconds to accept, not ten");
}

#[test]
fn a_configured_model_may_be_asked_for_before_anybody_serves_it() {
    let mut w = World::of(&[]);
    let ask = |w: &mut World| {
        let job = w.submit(|s| s.spec.model = "m".into());
        w.clients[&job].refused.as_ref().map(|refusal| refusal.kind)
    };
    assert_eq!(ask(&mut w), Some(RefusalKind::ModelUnknown));
}

/// A configuration with these models, each with a digest of one byte repeated.
fn models(w: &mut World, version: u64, models: &[(&str, u8)]) {
    let spec = |digest| ModelSpec {
        version: "v1".parse().expect("a version"),
        digest: Digest([digest; 32]),
        runtime: RuntimeKind::Executor,
        memory_bytes: 0,
        default_output_tokens: 16,
        output_tokens_max: 64,
        fallbacks: Vec::new(),
    };
    let models = models.iter().map(|(name, digest)| ((*name).into(), spec(*digest))).collect();
    let snapshot = Snapshot { models, ..snapshot(version, 100 + version as u8) };
    assert!(matches!(w.operate(Command::Configure(Box::new(snapshot))), Answer::Done));
}

#[test]
fn jobs_go_by_the_models_of_the_configuration_and_to_nodes_with_their_files() {
    let mut w = World::of(&[]);
    let with = |name: &str, digest: Option<u8>| {
        let digest = digest.map(|byte| Digest([byte; 32]));
        let models = vec![ModelOffer { digest, ..offer("m", 1) }];
        NodeHello { models, environments: vec![Environment::Mainnet], ..remote(name, 1) }
    };
    w.join(with("other", Some(2)));
    let ask = |w: &mut World| {
        w.submit(|s| {
            s.spec.mode = Mode::Polling;
            s.spec.model = "m".into();
        })
    };
    let refused = |w: &World, job| w.clients[&job].refused.as_ref().map(|refusal| refusal.kind);
    // Of one that names no models, all nodes may run all.
    models(&mut w, 1, &[]);
    let job = ask(&mut w);
    assert_eq!(w.state(job), JobState::Reserved);
    let reservation = w.begin_on("other");
    w.succeed(reservation);
    models(&mut w, 2, &[("m", 1)]);
    let job = ask(&mut w);
    let why = Some(Runnable::No(Why::NoNodeServesModel));
    assert_eq!((w.state(job), w.clients[&job].runnable), (JobState::Queued, why), "that is another file");
    // Nor is a node tested with what it may not run.
    w.connect(with("another", Some(3)));
    w.pass(Span::from_secs(1));
    assert!(w.next_of("another").is_none());
    // Who doesn't say which file it has is believed.
    w.join(with("silent", None));
    w.next_of("silent").expect("it takes the job");
    w.gone("silent", 1);
    // What it doesn't name, there isn't; with another number it is there again.
    models(&mut w, 3, &[("n", 1)]);
    let job = ask(&mut w);
    assert_eq!(refused(&w, job), Some(RefusalKind::ModelUnknown));
    models(&mut w, 4, &[("m", 2)]);
    let job = ask(&mut w);
    assert_eq!(refused(&w, job), None);
    w.next_of("other").expect("its file is the right one now");
}

#[test]
fn only_one_can_be_told_the_state_of_its_job() {
    let mut w = World::of(&["a"]);
    let running = w.submit(|_| {});
    w.begin_on("a");
    let waiting = w.submit(|_| {});
    let second = w.submit(|_| {});
    let view = |w: &mut World, client| match w.ask(Question::Job(w.job(client), None)) {
        Some(Answer::Job(view)) => (view.position, view.starts_at.is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!(view(&mut w, running), (None, false));
    assert_eq!(view(&mut w, second), (Some(2), true));
    assert!(view(&mut w, waiting).0 <= Some(2), "an upper bound");
    let foreign =
        w.ask(Question::Job(w.job(waiting), Some(tenant(crate::ids::Namespace::named("stranger")))));
    assert!(matches!(foreign, Some(Answer::Refused(RefusalKind::JobUnknown, _))));
}

#[test]
fn a_node_is_shown_with_its_load_and_earnings() {
    let mut w = World::of(&["a"]);
    w.admit("a", |settings| settings.owner = Some(Namespace::named("team")));
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    let view = |w: &mut World| match w.ask(Question::Node(NodeId::named("a"))) {
        Some(Answer::Node(view)) => *view,
        other => panic!("{other:?}"),
    };
    let before = view(&mut w);
    assert_eq!((before.standing, before.away_since), (Standing::Ready, None));
    assert_eq!((before.capacity.slots, before.capacity.taken), (1, 1));
    let model = &before.models[0];
    assert_eq!((&*model.model, model.taken, model.standing), ("m", 1, Standing::Ready));
    assert_eq!(before.row.owner, Some(Namespace::named("team")));
    w.write(reservation, 3);
    w.succeed(reservation);
    let charged = w.clients[&job].finished.as_ref().expect("it ended").charged;
    let after = view(&mut w);
    let earned = |node: &NodeView| node.earnings[Environment::Mainnet as usize].0;
    assert!(charged > Credits::ZERO);
    assert_eq!((earned(&after) - earned(&before), after.capacity.taken), (charged.0, 0));
    w.gone("a", 1);
    assert!(view(&mut w).away_since.is_some());
    let unknown = w.ask(Question::Node(NodeId::named("b")));
    assert!(matches!(unknown, Some(Answer::Rejected(Rejection::NodeUnknown))), "{unknown:?}");
}

#[test]
fn a_namespace_is_shown_as_the_box_would_treat_it_before_it_ever_came() {
    let mut w = World::of(&["a"]);
    let shown =
        |w: &mut World, which: Option<&str>| match w.ask(Question::Namespaces(which.map(Namespace::named))) {
            Some(Answer::Namespaces(views)) => views,
            other => panic!("{other:?}"),
        };
    let new = shown(&mut w, Some("new")).remove(0).settings;
    assert_eq!((new.weight, new.trust, new.credit), (1, w.limits.trust, [w.limits.credit; 2]));
    let settled = NamespaceSettings { weight: 7, credit: [Some(Credits(5)), None], queue_jobs_max: 3, ..new };
    assert!(matches!(w.operate(Command::PutNamespace(settled.clone())), Answer::Done));
    assert_eq!(shown(&mut w, Some("new"))[0].settings, settled);
    assert!(shown(&mut w, None).iter().any(|view| view.settings == settled));
}

#[test]
fn an_owner_sees_its_own_subclouds() {
    let mut w = World::of(&["a"]);
    for (name, owner) in [("ours", "team"), ("theirs", "others")] {
        let subcloud = Subcloud {
            name: name.parse().expect("a name"),
            environment: Environment::Mainnet,
            policy: Policy { trust_min: Trust::Own, ..Policy::default() },
            isolate: Isolation::Shared,
            owners: [Namespace::named(owner)].into(),
            allowed: Allowed::Everyone,
            nodes: Default::default(),
        };
        assert!(matches!(w.operate(Command::PutSubcloud(Box::new(subcloud))), Answer::Done));
    }
    let name = || "ours".parse().expect("a name");
    w.operate(Command::JoinSubcloud(Environment::Mainnet, name(), NodeId::named("a")));
    let names = |w: &mut World, whose: Option<Tenant>| match w.ask(Question::Subclouds(whose)) {
        Some(Answer::Subclouds(all)) => all.iter().map(|s| s.name.to_string()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let team = || Namespace::named("team");
    assert_eq!(names(&mut w, None), ["ours", "theirs"]);
    assert_eq!(names(&mut w, Some(tenant(team()))), ["ours"]);
    let elsewhere = Tenant { namespace: team(), environment: Environment::Testnet };
    assert!(names(&mut w, Some(elsewhere)).is_empty());
    let mut one =
        |whose: &str| w.ask(Question::Subcloud(Environment::Mainnet, name(), Some(Namespace::named(whose))));
    let Some(Answer::Subcloud(view)) = one("team") else { panic!("it is the team's") };
    assert_eq!(view.members, [(NodeId::named("a"), Some(Unmet::Trust))]);
    assert!(matches!(one("others"), Some(Answer::Rejected(_))));
}
