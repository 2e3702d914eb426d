//! Blind jobs, validation, plausibility, feedback (SPEC section 7).

use std::sync::Arc;

use super::super::command::{Amount, Command, NodeSettings};
use super::super::effect::{Answer, Notice, Rejection, Row};
use super::super::event::*;
use super::super::integrity::{Expect, Note, Opinion, OutputDigest, Template};
use super::super::job::{JobRow, JobState};
use super::super::ledger::Owner;
use super::super::limits::Limits;
use super::super::snapshot::Participation;
use super::super::standing::{Fault, PenaltyRules, Standing, Trust};
use super::super::subcloud::{Allowed, Isolation, Policy, Subcloud};
use super::fleet::{open, remote};
use super::world::World;
use super::world::tenant;
use crate::ids::{Namespace, NodeId, ReservationId};
use crate::time::Span;

const RIGHT: OutputDigest = OutputDigest([5; 32]);
const WRONG: OutputDigest = OutputDigest([6; 32]);

/// Every real job is followed by a blind one; two checks decide.
fn limits(blind: u32, validation: u32) -> Limits {
    let participation = Participation {
        blind_rate_ppm: blind,
        probation_check_rate_ppm: validation,
        check_rate_ppm: 0,
        ..Participation::default()
    };
    let penalties = PenaltyRules { quality_checks_min: 2, ..PenaltyRules::default() };
    Limits { participation, penalties, ..open() }
}

fn template() -> Template {
    Template {
        name: "capital".into(),
        model: "m".into(),
        endpoint: Endpoint::ChatCompletions,
        body: Arc::from(&br#"{"model":"m"}"#[..]),
        input_tokens: 12,
        output_tokens_max: 20,
        tier: Tier::Standard,
        mode: Mode::Stream,
        expect: Expect::Digests(vec![RIGHT]),
    }
}

fn world(blind: u32, validation: u32) -> World {
    let mut w = World::without_box(limits(blind, validation));
    w.join(remote("a", 1));
    w.operate(Command::PutTemplate(Box::new(template())));
    fund(&mut w);
    w
}

/// Credit for checks.
fn fund(w: &mut World) {
    for environment in Environment::ALL {
        let amount = Amount { environment, ..w.amount(900 + environment as u128, 1_000_000) };
        assert!(matches!(w.operate(Command::Adjust(amount, Owner::Integrity, "".into())), Answer::Done));
    }
}

fn blind_rows(w: &World) -> Vec<JobRow> {
    w.rows.values().filter(|row| matches!(*row.origin, Origin::Blind { .. })).cloned().collect()
}

fn answer(w: &mut World, reservation: ReservationId, digest: OutputDigest, tokens: u32) {
    w.begin(reservation);
    w.write(reservation, tokens);
    w.complete_with(reservation, |result| result.digest = Some(digest));
}

#[test]
fn a_blind_job_cannot_be_told_from_a_clients() {
    let mut w = world(1_000_000, 0);
    let like_it = |s: &mut Submission| {
        s.body = template().body;
        s.spec.input_tokens = 12;
        s.spec.output_tokens_max = 20;
        s.spec.ttl = Span::from_secs(600);
    };
    let real = w.submit(like_it);
    let first = w.next_of("a").expect("the client's");
    answer(&mut w, first, WRONG, 3);
    let blind = blind_rows(&w).pop().expect("mixed in");
    let second = w.next_of("a").expect("the blind one");
    let (mine, its) = (&w.assigned[&first].1, &w.assigned[&second].1);
    assert_eq!((its.job, mine.job), (blind.id, w.job(real)));
    assert_eq!(its.job.counter, mine.job.counter + 1, "ids come from the same counter");
    assert_eq!(
        (mine.environment, mine.endpoint, &mine.model, &mine.body, mine.input_tokens, mine.output_tokens_max),
        (its.environment, its.endpoint, &its.model, &its.body, its.input_tokens, its.output_tokens_max)
    );
    let spans = |row: &JobRow| {
        let reservation = row.reservation.clone().expect("reserved");
        (reservation.attempt_due.since(reservation.assigned_at), row.prices.clone(), row.hold, row.spec.tier)
    };
    let blind_spans = spans(&w.rows[&blind.id]);
    // It settles like any other, from the integrity account.
    let (earned, paid) = (w.earned("a"), w.balance(Owner::Integrity));
    answer(&mut w, second, RIGHT, 3);
    assert_eq!((w.earned("a") - earned, paid - w.balance(Owner::Integrity)), (15, 15));
    let again = w.submit(like_it);
    assert_eq!(spans(w.row(again)), blind_spans, "the same deadlines, price, hold and tier");
    assert_eq!(w.seen("a").1.quality.checks_ever, 1);
}

#[test]
fn wrong_answers_lower_the_quality_and_exclude() {
    let mut w = world(1_000_000, 0);
    for _ in 0..2 {
        w.submit(|_| {});
        for _ in 0..2 {
            // The client's and the blind one, in whatever order; once it is excluded, the rest waits.
            let Some(next) = w.next_of("a") else { break };
            let job = w.assigned[&next].1.job;
            let is_blind = blind_rows(&w).iter().any(|row| row.id == job);
            answer(&mut w, next, if is_blind { WRONG } else { RIGHT }, 3);
        }
    }
    let (standing, row) = w.seen("a");
    assert_eq!((standing, row.quality.checks_ever, row.quality.failed_ever), (Standing::Excluded, 2, 2));
    assert!(row.exclusion.expect("excluded").order.cause.contains("proven wrong"), "with its cause");
    assert_eq!(w.counts().dead_letters, 0, "checks are no dead letters");
}

#[test]
fn blind_jobs_never_reach_the_operators_own_machines() {
    let mut w = World::new(1, limits(1_000_000, 0));
    w.operate(Command::PutTemplate(Box::new(template())));
    fund(&mut w);
    w.operate(Command::AdmitNode(NodeSettings {
        node: NodeId::named("mine"),
        trust: Trust::Own,
        environments: Environment::ALL.to_vec(),
        owner: None,
    }));
    w.join(remote("mine", 1));
    w.submit(|_| {});
    assert_eq!(blind_rows(&w).len(), 0);
    w.join(remote("a", 1));
    w.submit(|_| {});
    let blind = blind_rows(&w).pop().expect("mixed in");
    assert_eq!(blind.spec.constraints.allow, [NodeId::named("a")]);
    w.submit(|s| s.spec.environment = Environment::Testnet);
    let both: Vec<_> = blind_rows(&w).iter().map(|row| row.spec.environment).collect();
    assert_eq!(both, [Environment::Mainnet, Environment::Testnet], "each in its environment");
}

#[test]
fn a_blind_job_shows_in_nobodys_list_but_the_operators() {
    let mut w = world(1_000_000, 0);
    w.submit(|_| {});
    let blind = blind_rows(&w).pop().expect("mixed in").id;
    let tenant = Some(tenant(Namespace::named("system.integrity")));
    let asked = w.ask(Question::Job(blind, tenant.clone()));
    assert!(matches!(asked, Some(Answer::Refused(..))), "{asked:?}");
    let client = w.asker();
    w.step(Event::Cancel(Cancel { client, tenant, job: blind }));
    assert!(w.rows[&blind].state.is_live());
}

/// A world of nodes of one class, where every job is run again.
fn validating(nodes: &[&str]) -> World {
    let mut w = world(0, 1_000_000);
    nodes.iter().for_each(|node| w.join(remote(node, 1)));
    w
}

fn exact(w: &mut World) {
    w.submit(|s| s.spec.determinism = Determinism::Exact);
}

/// Answers what was assigned last, and says which node that was.
fn next_says(w: &mut World, digest: OutputDigest) -> String {
    let next = w.unseen[0];
    let node = w.node_of(next).to_string();
    answer(w, next, digest, 3);
    node
}

fn checks(w: &mut World, node: &str) -> (u64, u64, u32) {
    let quality = w.seen(node).1.quality;
    (quality.checks_ever, quality.failed_ever, quality.lies)
}

#[test]
fn two_that_differ_are_judged_by_a_third() {
    let mut w = validating(&["b", "c"]);
    exact(&mut w);
    let first = next_says(&mut w, RIGHT);
    let copy = w.rows.values().find(|row| matches!(*row.origin, Origin::Validation { .. })).cloned();
    let copy = copy.expect("repeated");
    assert_eq!((copy.payer(), copy.spec.tier), (Owner::Integrity, Tier::Background));
    let second = next_says(&mut w, WRONG);
    assert_eq!(
        (checks(&mut w, &first), checks(&mut w, &second)),
        ((0, 0, 0), (0, 0, 0)),
        "nobody knows who is wrong"
    );
    let third = next_says(&mut w, RIGHT);
    let all: std::collections::BTreeSet<_> = [&first, &second, &third].into_iter().collect();
    assert_eq!(all.len(), 3, "each on another node");
    assert_eq!((checks(&mut w, &first), checks(&mut w, &third)), ((1, 0, 0), (1, 0, 0)));
    assert_eq!((checks(&mut w, &second), w.counts().lies_proven), ((1, 1, 1), 1));
    assert_eq!((w.counts().validations, w.counts().validations_undecided), (1, 0));
}

#[test]
fn without_a_third_nothing_is_held_against_anybody() {
    let mut w = validating(&["b"]);
    exact(&mut w);
    let nodes = [next_says(&mut w, RIGHT), next_says(&mut w, WRONG)];
    assert!(w.unseen.is_empty(), "there is nobody to ask");
    assert_eq!(nodes.map(|node| checks(&mut w, &node)), [(0, 0, 0); 2]);
    assert_eq!(w.counts().validations_undecided, 1);
}

/// Else it would keep its credit until its time is over.
#[test]
fn without_a_second_nothing_is_repeated() {
    let mut w = validating(&[]);
    exact(&mut w);
    next_says(&mut w, RIGHT);
    assert_eq!((w.counts().validations, w.counts().held_credits), (0, 0));
    assert!(w.rows.values().all(|row| !row.state.is_live()));
}

#[test]
fn the_operators_own_machine_decides_at_once() {
    let mut w = validating(&["b", "c"]);
    w.operate(Command::AdmitNode(NodeSettings {
        node: NodeId::named("mine"),
        trust: Trust::Own,
        environments: Environment::ALL.to_vec(),
        owner: None,
    }));
    w.submit(|s| s.spec.determinism = Determinism::Exact);
    w.join(remote("mine", 1));
    let first = next_says(&mut w, WRONG);
    assert_eq!(next_says(&mut w, RIGHT), "mine");
    assert_eq!((checks(&mut w, &first), checks(&mut w, "mine")), ((1, 1, 1), (0, 0, 0)));
}

#[test]
fn other_runtimes_and_drawn_answers_are_compared_by_length() {
    let mut w = world(0, 1_000_000);
    let mut other = remote("b", 1);
    other.models[0].runtime = Some("r2".parse().expect("a name"));
    w.join(other);
    exact(&mut w);
    let nodes = [next_says(&mut w, RIGHT), next_says(&mut w, WRONG)];
    assert_eq!(nodes.map(|node| checks(&mut w, &node)), [(1, 0, 0); 2]);
    let mut w = validating(&["b"]);
    w.submit(|_| {});
    let nodes = [next_says(&mut w, RIGHT), next_says(&mut w, WRONG)];
    assert_eq!(nodes.map(|node| checks(&mut w, &node)), [(1, 0, 0); 2]);
}

#[test]
fn what_cannot_be_is_rejected_and_what_is_odd_is_flagged() {
    let mut w = world(0, 0);
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 3);
    w.complete_with(reservation, |result| result.output_tokens = 101);
    assert_eq!((w.state(job), w.counts().results_rejected), (JobState::Queued, 1));
    assert_eq!((w.row(job).charged.0, w.faults("a").is_empty()), (0, false));
    w.pass(Span::from_secs(1));
    let reservation = w.begin_on("a");
    w.complete_with(reservation, |result| result.output_tokens = 5);
    assert_eq!(w.counts().results_rejected, 2, "several tokens, but no output");
    w.pass(Span::from_secs(1));
    let reservation = w.begin_on("a");
    w.write(reservation, 50);
    w.complete_with(reservation, |result| result.seen.bytes = 10);
    assert_eq!((w.state(job), w.counts().results_flagged), (JobState::Succeeded, 1));
}

#[test]
fn what_cannot_be_counts_as_a_failed_check_and_a_confessed_failure_as_a_failed_attempt() {
    let mut w = world(0, 0);
    w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 3);
    w.complete_with(reservation, |result| result.output_tokens = 101);
    assert_eq!(w.faults("a"), [Fault::FailedCheck]);
    w.pass(Span::from_secs(1));
    let reservation = w.begin_on("a");
    w.fail(reservation, ErrorClass::Node);
    assert_eq!(w.faults("a"), [Fault::AttemptFailed, Fault::FailedCheck]);
}

#[test]
fn feedback_is_kept_and_moves_nothing() {
    let mut w = world(0, 0);
    let job = w.submit(|_| {});
    let reservation = w.begin_on("a");
    w.write(reservation, 1);
    let feedback = |w: &mut World, namespace: Namespace| {
        let client = w.asker();
        let note = Note::new("it was rude").expect("short");
        let job = w.job(job);
        w.step(Event::Feedback(Feedback { client, namespace, job, opinion: Opinion::Bad, note }));
        w.clients[&client].answers.last().cloned().expect("answered")
    };
    let foreign = feedback(&mut w, Namespace::named("stranger"));
    assert!(matches!(foreign, Answer::Rejected(Rejection::JobUnknown)), "{foreign:?}");
    w.succeed(reservation);
    let before = w.seen("a");
    assert!(matches!(feedback(&mut w, Namespace::default_namespace()), Answer::Done));
    assert_eq!(w.seen("a"), before);
    let kept: Vec<_> = w.kept.iter().filter(|row| matches!(row, Row::Feedback(_))).collect();
    assert_eq!(kept.len(), 1);
}

#[test]
fn a_test_job_from_the_pool_must_give_its_answer() {
    for (digest, expected) in [(WRONG, Standing::Excluded), (RIGHT, Standing::Ready)] {
        let mut w = world(0, 0);
        w.connect(remote("b", 1));
        w.pass(Span::from_ms(10));
        let test = w.next_of("b").expect("a test job");
        assert_eq!(w.assigned[&test].1.body, template().body);
        answer(&mut w, test, digest, 3);
        assert_eq!(w.stands("b"), expected);
    }
}

#[test]
fn after_a_restart_a_blind_job_has_its_templates_body_and_a_validation_ends() {
    let mut w = world(1_000_000, 1_000_000);
    w.operate(Command::PutTemplate(Box::new(Template { mode: Mode::Polling, ..template() })));
    w.operate(Command::PutTemplate(Box::new(Template { name: "gone".into(), ..template() })));
    w.submit(|s| s.spec.mode = Mode::Polling);
    let first = w.next_of("a").expect("the client's");
    w.join(remote("b", 1));
    answer(&mut w, first, RIGHT, 3);
    let origin = |row: &JobRow| (*row.origin).clone();
    let of = |w: &World, kind: fn(&Origin) -> bool| -> Vec<JobRow> {
        w.rows.values().filter(|row| kind(&origin(row))).cloned().collect()
    };
    let blind = |w: &World| of(w, |origin| matches!(origin, Origin::Blind { .. }));
    let validation = |w: &World| of(w, |origin| matches!(origin, Origin::Validation { .. }));
    assert!(blind(&w).iter().chain(&validation(&w)).all(|row| row.state.is_live()));
    assert_eq!((blind(&w).len(), validation(&w).len()), (1, 1));
    // As the store has them.
    w.rows.values_mut().filter(|row| row.origin.is_system()).for_each(|row| row.body = None);
    let mut w = w.restarted();
    w.pass(Span::from_ms(10));
    assert_eq!(validation(&w)[0].state, JobState::Cancelled);
    let kept = &blind(&w)[0];
    match &*kept.origin {
        Origin::Blind { template } if **template == *"gone" => assert_eq!(kept.state, JobState::Cancelled),
        _ => assert_eq!((kept.state.is_live(), kept.body.clone()), (true, Some(template().body))),
    }
}

#[test]
fn without_credit_nodes_are_tested_but_not_checked_and_stay_on_probation() {
    let mut w = World::without_box(limits(1_000_000, 1_000_000));
    w.join(remote("a", 1));
    w.join(remote("b", 1));
    w.operate(Command::PutTemplate(Box::new(template())));
    let serve = |w: &mut World| {
        w.submit(|s| s.spec.determinism = Determinism::Exact);
        while let Some(next) = w.unseen.first().copied() {
            answer(w, next, RIGHT, 3);
        }
    };
    let checks =
        |w: &mut World| -> u64 { ["a", "b"].map(|name| w.seen(name).1.quality.checks_ever).iter().sum() };
    assert_eq!(w.stands("a"), Standing::Ready, "test jobs are made on credit");
    for _ in 0..10 {
        serve(&mut w);
    }
    assert_eq!((checks(&mut w), w.counts().checks_unpaid, w.counts().blind), (0, 20, 0));
    assert_eq!(w.notices, [Notice::ChecksUnpaid(Environment::Mainnet)], "it is said once");
    let rules = w.limits.participation;
    let settled = w.seen("a").1.conduct.settled_jobs + w.seen("b").1.conduct.settled_jobs;
    assert!(settled >= 10 && rules.is_on_probation(1_000, checks(&mut w)));
    fund(&mut w);
    serve(&mut w);
    assert_eq!((w.counts().blind, w.counts().checks_unpaid), (1, 20));
    assert!(checks(&mut w) >= 2, "both checks were made");
    // Spent again: it is said again.
    let left = w.balance(Owner::Integrity);
    let amount = w.amount(999, -left);
    assert!(matches!(w.operate(Command::Adjust(amount, Owner::Integrity, "".into())), Answer::Done));
    serve(&mut w);
    assert_eq!(w.notices.len(), 2);
}

#[test]
fn nodes_of_an_isolated_subcloud_are_checked_where_they_work() {
    let mut w = world(1_000_000, 1_000_000);
    w.join(remote("b", 1));
    let lab = || "lab".parse().expect("a name");
    let subcloud = Subcloud {
        name: lab(),
        environment: Environment::Mainnet,
        policy: Policy::default(),
        isolate: Isolation::Isolated,
        owners: [Namespace::default_namespace()].into(),
        allowed: Allowed::Only(Default::default()),
        nodes: Default::default(),
    };
    assert!(matches!(w.operate(Command::PutSubcloud(Box::new(subcloud))), Answer::Done));
    for name in ["a", "b"] {
        w.operate(Command::JoinSubcloud(Environment::Mainnet, lab(), NodeId::named(name)));
    }
    w.submit(|s| s.spec.constraints.subcloud = Some(lab()));
    while let Some(next) = w.unseen.first().copied() {
        answer(&mut w, next, RIGHT, 3);
    }
    assert_eq!((w.counts().blind, w.counts().validations, w.counts().checks_passed), (1, 1, 3));
    let system = w.rows.values().filter(|row| row.origin.is_system() && !row.origin.is_test());
    assert!(
        system.clone().count() == 2 && system.clone().all(|row| row.spec.constraints.subcloud == Some(lab()))
    );
}
