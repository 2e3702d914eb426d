//! Subclouds and environments: whose nodes are whose (SPEC section 8).

use std::collections::BTreeSet;

use super::super::command::Command;
use super::super::effect::{Answer, RefusalKind, Rejection, Runnable, Why};
use super::super::event::*;
use super::super::job::JobState;
use super::super::subcloud::{Allowed, Isolation, Policy, Refused, Subcloud};
use super::fleet::{offer, open, remote};
use super::world::World;
use crate::ids::{ClientId, Namespace, NodeId, SubcloudName};

use Environment::{Mainnet, Testnet};

fn name() -> SubcloudName {
    "lab".parse().expect("a name")
}

fn lab(change: impl FnOnce(&mut Subcloud)) -> Command {
    let mut subcloud = Subcloud {
        name: name(),
        environment: Mainnet,
        policy: Policy::default(),
        isolate: Isolation::Isolated,
        owners: BTreeSet::from([Namespace::named("owner")]),
        allowed: Allowed::Everyone,
        nodes: BTreeSet::new(),
    };
    change(&mut subcloud);
    Command::PutSubcloud(Box::new(subcloud))
}

fn join(node: &str) -> Command {
    Command::JoinSubcloud(Mainnet, name(), NodeId::named(node))
}

fn leave(node: &str) -> Command {
    Command::LeaveSubcloud(Mainnet, name(), NodeId::named(node))
}

fn done(answer: Answer) {
    assert!(matches!(answer, Answer::Done), "{answer:?}");
}

fn in_lab(w: &mut World) -> ClientId {
    w.submit(|s| {
        s.spec.constraints.subcloud = Some(name());
        s.spec.mode = Mode::Polling;
    })
}

fn refused(w: &World, client: ClientId) -> Option<RefusalKind> {
    w.clients[&client].refused.as_ref().map(|refusal| refusal.kind)
}

#[test]
fn isolated_nodes_leave_the_pool_and_membership_moves_waiting_jobs() {
    let mut w = World::of(&["a"]);
    done(w.operate(lab(|_| {})));
    done(w.operate(join("a")));
    let pool = w.submit(|s| s.spec.mode = Mode::Polling);
    assert_eq!(w.clients[&pool].runnable, Some(Runnable::No(Why::NoNodeInSubcloud)));
    let inside = in_lab(&mut w);
    assert_eq!((w.state(pool), w.runs_on(inside).as_deref()), (JobState::Queued, Some("a")));
    let reservation = w.begin_on("a");
    w.write(reservation, 1);
    w.succeed(reservation);
    assert_eq!(w.state(pool), JobState::Queued);
    // It leaves: back to the pool, and out of reach of the subcloud's jobs.
    let waiting = {
        done(w.operate(leave("a")));
        in_lab(&mut w)
    };
    assert_eq!((w.state(pool), w.state(waiting)), (JobState::Reserved, JobState::Queued));
    done(w.operate(join("a")));
    let reservation = w.begin_on("a");
    assert_eq!(w.state(pool), JobState::Running, "what runs goes on");
    w.succeed(reservation);
    assert_eq!(w.state(waiting), JobState::Reserved);
    // Shared instead of isolated: both.
    let reservation = w.begin_on("a");
    let pool = w.submit(|_| {});
    done(w.operate(lab(|subcloud| subcloud.isolate = Isolation::Shared)));
    w.succeed(reservation);
    assert_eq!(w.state(pool), JobState::Reserved);
}

#[test]
fn a_dropped_subcloud_gives_its_nodes_back() {
    let mut w = World::of(&["a"]);
    done(w.operate(lab(|_| {})));
    done(w.operate(join("a")));
    let pool = w.submit(|_| {});
    assert_eq!(w.state(pool), JobState::Queued);
    done(w.operate(Command::DropSubcloud(Mainnet, name())));
    assert_eq!(w.state(pool), JobState::Reserved);
    let late = in_lab(&mut w);
    assert_eq!(refused(&w, late), Some(RefusalKind::SubcloudUnknown));
}

#[test]
fn its_policy_decides_who_and_what_runs_there() {
    let mut w = World::of(&["a"]);
    done(w.operate(lab(|subcloud| {
        subcloud.policy.models = Some(BTreeSet::from(["m".into()]));
        subcloud.policy.regions = Some(BTreeSet::from(["here".parse().expect("a region")]));
        subcloud.allowed = Allowed::Only(BTreeSet::from([Namespace::default_namespace()]));
    })));
    done(w.operate(join("a")));
    let job = in_lab(&mut w);
    assert_eq!(w.clients[&job].runnable, Some(Runnable::No(Why::NoNodeInSubcloud)), "it stands elsewhere");
    w.gone("a", 1);
    w.connect(NodeHello { region: Some("here".parse().expect("a region")), ..remote("a", 2) });
    assert_eq!(w.state(job), JobState::Reserved);
    let stranger = w.submit(|s| {
        s.spec.namespace = Namespace::named("stranger");
        s.spec.constraints.subcloud = Some(name());
    });
    let owner = w.submit(|s| {
        s.spec.namespace = Namespace::named("owner");
        s.spec.constraints.subcloud = Some(name());
    });
    let other_model = w.submit(|s| {
        s.spec.constraints.subcloud = Some(name());
        s.spec.fallbacks = Fallbacks { models: vec!["spare".into()], after_failures: 1 }.into();
    });
    assert_eq!(refused(&w, stranger), Some(RefusalKind::SubcloudForbidden));
    assert_eq!(refused(&w, owner), None, "its owners always may");
    assert_eq!(refused(&w, other_model), Some(RefusalKind::SubcloudForbidden), "a fallback is a model");
}

#[test]
fn isolate_is_respected_by_fallbacks_and_retries() {
    let mut w = World::without_box(open());
    w.join(remote("a", 1));
    w.join(NodeHello { models: vec![offer("spare", 1)], ..remote("b", 1) });
    done(w.operate(lab(|_| {})));
    done(w.operate(join("b")));
    let job =
        w.submit(|s| s.spec.fallbacks = Fallbacks { models: vec!["spare".into()], after_failures: 1 }.into());
    let reservation = w.begin_on("a");
    w.fail(reservation, ErrorClass::Node);
    for _ in 0..50 {
        w.pass(crate::time::Span::from_ms(100));
    }
    assert_ne!(w.runs_on(job).as_deref(), Some("b"), "its node left the pool");
}

#[test]
fn its_owner_may_change_it_and_others_may_not() {
    let mut w = World::of(&["a"]);
    let answer = w.operate_as(Some("owner"), lab(|_| {}));
    let not_owner = |answer| matches!(answer, Answer::Rejected(Rejection::Subcloud(Refused::NotOwner)));
    assert!(not_owner(answer), "only the operator makes new ones");
    done(w.operate(lab(|_| {})));
    let others = w.operate_as(Some("owner"), join("a"));
    assert!(matches!(others, Answer::Rejected(Rejection::Subcloud(Refused::OthersNode))), "{others:?}");
    w.admit("a", |settings| settings.owner = Some(Namespace::named("owner")));
    done(w.operate_as(Some("owner"), join("a")));
    done(w.operate_as(Some("owner"), lab(|subcloud| subcloud.isolate = Isolation::Shared)));
    for command in [join("a"), leave("a"), lab(|_| {}), Command::DropSubcloud(Mainnet, name())] {
        let answer = w.operate_as(Some("stranger"), command);
        assert!(not_owner(answer));
    }
    // A namespace changes subclouds, and nothing else.
    let answer = w.operate_as(Some("owner"), Command::Deposit(w.amount(1, 5), Namespace::named("owner")));
    assert!(matches!(answer, Answer::Rejected(Rejection::NotAllowed)));
    let answer = w.operate_as(Some("owner"), Command::Pause(super::super::command::Scope::Model("m".into())));
    assert!(matches!(answer, Answer::Rejected(Rejection::NotAllowed)));
}

#[test]
fn a_testnet_job_never_reaches_a_mainnet_only_node() {
    let mut w = World::without_box(open());
    w.admit("wants-both", |settings| settings.environments = vec![Mainnet]);
    w.join(remote("wants-both", 1));
    w.join(NodeHello { environments: vec![Mainnet], ..remote("mainnet-only", 1) });
    let job = w.submit(|s| {
        s.spec.environment = Testnet;
        s.spec.mode = Mode::Polling;
    });
    assert_eq!(w.clients[&job].runnable, Some(Runnable::No(Why::NoNodeInEnvironment)));
    w.join(NodeHello { environments: vec![Testnet], ..remote("testnet-only", 1) });
    assert_eq!(w.runs_on(job).as_deref(), Some("testnet-only"));
    let reservation = w.begin_on("testnet-only");
    w.fail(reservation, ErrorClass::Node);
    w.gone("testnet-only", 1);
    w.pass_beating(w.limits.backoff_max, &[("wants-both", 1), ("mainnet-only", 1)]);
    assert_eq!(w.state(job), JobState::Queued, "a retry neither");
    let other = w.submit(|_| {});
    assert_eq!(w.state(other), JobState::Reserved);
    // The operator registers a node for it.
    w.admit("wants-both", |_| {});
    let runs_on = w.runs_on(job);
    assert!(runs_on.as_deref() != Some("mainnet-only"), "{runs_on:?}");
}

#[test]
fn a_subcloud_of_one_environment_is_none_of_the_other() {
    let mut w = World::of(&["a"]);
    done(w.operate(lab(|_| {})));
    done(w.operate(join("a")));
    let other = w.submit(|s| {
        s.spec.environment = Testnet;
        s.spec.constraints.subcloud = Some(name());
    });
    assert_eq!(refused(&w, other), Some(RefusalKind::SubcloudUnknown));
    let testnet = w.submit(|s| s.spec.environment = Testnet);
    assert_eq!(w.state(testnet), JobState::Reserved, "isolated in mainnet only");
    w.admit("m", |settings| settings.environments = vec![Testnet]);
    let answer = w.operate(join("m"));
    assert!(matches!(answer, Answer::Rejected(Rejection::Subcloud(Refused::OtherEnvironment))));
}
