//! The bytes of versions 1 to 4 of all rows together. They may never change: directories that exist are made of them.

use std::fmt::Write as _;

use super::*;
use crate::coordinator::command::{NamespaceSettings, Scope, Unrunnable};
use crate::coordinator::effect::{CancelCause, End, Usage};
use crate::coordinator::event::{
    Constraints, Endpoint, Environment, ErrorClass, Fallbacks, FinishReason, JobError, Keyed, Mode, Origin,
    Storing, Tier,
};
use crate::coordinator::integrity::{Expect, Feedback, Note, Opinion, Template};
use crate::coordinator::invites::Invite;
use crate::coordinator::job::{AttemptOutcome, AttemptRow, JobState, Progress, ReservationRow};
use crate::coordinator::keys::{KeyEntry, KeyRow};
use crate::coordinator::ledger::{Account, Balance, Owner, Posting, PostingId, PriceRule, Step, Subject};
use crate::coordinator::score::Score;
use crate::coordinator::snapshot::{ModelSpec, RuntimeKind, Snapshot};
use crate::coordinator::standing::{
    Environments, Exclusion, Fault, NodeRow, Order, Party, PenaltyRules, Trial, Trust,
};
use crate::coordinator::subcloud::{Allowed, Isolation, Policy, Subcloud};
use crate::coordinator::trace::{Loss, PlacedBy, Placement, TraceEntry, TraceEvent};
use crate::credits::{Credits, Price};
use crate::ids::{Digest, IdempotencyKey, JobId, Namespace, NodeId, OperationId, ReservationId};
use crate::time::Time;

/// A line for each row of the samples: key and value in hexadecimal digits. Version 2 knows one job more, version 3 what
/// was folded into balances and which answers were proven wrong, and version 4 a job that calls tools.
const GOLDEN_1: &str = include_str!("golden-1.txt");
const GOLDEN_2: &str = include_str!("golden-2.txt");
const GOLDEN_3: &str = include_str!("golden-3.txt");
const GOLDEN_4: &str = include_str!("golden-4.txt");

const JOB: JobId = JobId { epoch: 0x6925_0c5a, counter: 42 };
const RESERVATION: ReservationId = ReservationId { epoch: 0x6925_0c5a, counter: 7 };
const PRICE: Price = Price { input: 100, cached_input: 50, output: 70_000 };

fn named(name: &str) -> Namespace {
    Namespace::named(name)
}

fn waiting_job() -> JobRow {
    let mut spec = JobSpec::plain(named("acme"), Endpoint::ChatCompletions, "small".into());
    spec.mode = Mode::Polling;
    spec.input_tokens = 12;
    spec.output_tokens_max = 256;
    let submitted = TraceEntry { at: Time(1_000_000), what: TraceEvent::Submitted { ahead: 3 } };
    JobRow {
        id: JOB,
        spec: Arc::new(spec),
        origin: Origin::Client.into(),
        body: Some(Arc::from(*br#"{"model":"small"}"#)),
        model_index: 0,
        state: JobState::Queued,
        submitted_at: Time(1_000_000),
        expires_at: Time(601_000_000),
        not_before: Time(0),
        prices: [PRICE].into(),
        hold: Credits(18),
        sequence: 5,
        trace: std::iter::once(submitted).collect(),
        progress: Default::default(),
    }
}

/// What version 1 couldn't say.
fn unstored_job() -> JobRow {
    let spec = JobSpec { storing: Storing::Forbidden, ..(*waiting_job().spec).clone() };
    JobRow { id: JobId { counter: 44, ..JOB }, spec: Arc::new(spec), ..waiting_job() }
}

/// What version 2 couldn't say.
fn tool_calling_job() -> JobRow {
    let spec = JobSpec { bytes_per_token: 256, ..(*waiting_job().spec).clone() };
    let end = Some(End::Succeeded(FinishReason::ToolCalls));
    let progress = Progress { end, ended_at: Some(Time(30)), ..Progress::default() };
    JobRow {
        id: JobId { counter: 45, ..JOB },
        spec: Arc::new(spec),
        state: JobState::Succeeded,
        body: None,
        progress: progress.into(),
        ..waiting_job()
    }
}

/// A spec that asks for everything.
fn demanding_spec() -> JobSpec {
    JobSpec {
        environment: Environment::Testnet,
        mode: Mode::Stream,
        tier: Tier::Batch,
        not_before: Some(Time(5)).into(),
        constraints: Constraints {
            version: Some("2.1".parse().expect("a version")),
            gpu: Some("h100".parse().expect("a class")),
            memory_bytes_min: 1 << 33,
            region: Some("eu".parse().expect("a region")),
            subcloud: Some("mine".parse().expect("a name")),
            allow: vec![NodeId::named("node_a")],
            deny: vec![NodeId::named("node_b")],
            trust: Some(Trust::Approved),
        }
        .into(),
        fallbacks: Fallbacks { models: vec!["tiny".into()], after_failures: 2 }.into(),
        key: Some(Keyed { key: IdempotencyKey([1; 32]), body: Digest([2; 32]) }).into(),
        metadata: vec![("user".to_owned(), "é".to_owned())].into(),
        prefix: Some(9).into(),
        ..JobSpec::plain(named("acme"), Endpoint::Completions, "small".into())
    }
}

fn long_trace() -> crate::coordinator::trace::Trace {
    let score =
        Score { wait_us: 1, load_us: 2, prefill_us: 3, decode_us: 4, prefix_us: -5, reliability_us: 6 };
    let placement = Placement {
        reservation: RESERVATION,
        node: NodeId::named("node_a"),
        candidates: 2,
        by: PlacedBy::Node,
        score,
        losers: vec![(NodeId::named("node_c"), Loss::Slower(score)), (NodeId::named("node_d"), Loss::NoRoom)],
    };
    let lines = [
        TraceEvent::Placed(Arc::new(placement)),
        TraceEvent::TimedOut { deadline: "progress" },
        TraceEvent::FellBack { model: "tiny".into() },
        TraceEvent::Revoked { delivered: 1, written: 2 },
        TraceEvent::CancelRequested { cause: CancelCause::Operator },
        TraceEvent::Ended { state: JobState::Failed },
    ];
    lines.into_iter().map(|what| TraceEntry { at: Time(4), what }).collect()
}

fn full_progress() -> Progress {
    let error = JobError { class: ErrorClass::Node, message: "it broke".to_owned() };
    let attempt = |outcome| AttemptRow {
        reservation: RESERVATION,
        node: NodeId::named("node_a"),
        model: "small".into(),
        assigned_at: Time(10),
        ended_at: Time(20),
        outcome,
    };
    Progress {
        cancel_requested: Some(CancelCause::Client),
        dispatched_at: Some(Time(10)),
        ended_at: Some(Time(30)),
        charged: Credits(3),
        attempts: 2,
        failed_attempts: 2,
        failed_on_model: 1,
        lost_attempts: 1,
        declines: 4,
        box_cuts: 1,
        reservation: Some(ReservationRow {
            id: RESERVATION,
            node: NodeId::local(),
            assigned_at: Time(1),
            attempt_due: Time(2),
        }),
        node: Some(NodeId::local()),
        error: Some(error.clone()),
        end: Some(End::Succeeded(FinishReason::Length)),
        usage: Usage { input_tokens: 1, cached_tokens: 0, output_tokens: 300 },
        history: vec![attempt(AttemptOutcome::Failed(error)), attempt(AttemptOutcome::TimedOut("accept"))],
        trace_dropped: 6,
    }
}

/// A dead letter of a streamed job that went through everything.
fn dead_job() -> JobRow {
    JobRow {
        id: JobId { counter: 43, ..JOB },
        spec: Arc::new(demanding_spec()),
        origin: Origin::Requeued { from: JOB }.into(),
        model_index: 1,
        state: JobState::Failed,
        submitted_at: Time(4),
        prices: [PRICE, PRICE].into(),
        trace: long_trace(),
        progress: full_progress().into(),
        ..waiting_job()
    }
}

fn node(lies: u32) -> NodeRow {
    let order = Order { since: Time(3), cause: "because".into() };
    let mut row = NodeRow::new(NodeId::named("node_a"), Trust::Approved, Environments::BOTH);
    row.owner = Some(named("acme"));
    row.region = Some("eu".parse().expect("a region"));
    row.paused.insert(Party::Operator, Time(8));
    row.draining.insert(Party::Owner, Time(9));
    row.frozen = Some(order.clone());
    row.banned = Some(order.clone());
    row.exclusion = Some(Exclusion { order: order.clone(), until: Time(70) });
    row.exclusions.push_back(Exclusion { order, until: Time(60) });
    row.trials.insert("small".into(), Trial::Passed { digest: Digest([3; 32]), at: Time(1) });
    row.trials
        .insert("tiny".into(), Trial::Failed { digest: Digest([4; 32]), times: 2, not_before: Time(6) });
    row.conduct.faults.insert(Fault::Died, 2);
    row.conduct.missing = 1_000;
    row.quality.checks = 5;
    row.quality.lies = lies;
    row
}

fn configuration(lies_max: u32) -> Snapshot {
    let model = ModelSpec {
        version: "2.1".parse().expect("a version"),
        digest: Digest([5; 32]),
        runtime: RuntimeKind::Upstream,
        memory_bytes: 1 << 30,
        default_output_tokens: 256,
        output_tokens_max: 4_096,
        fallbacks: vec!["tiny".into()],
    };
    Snapshot {
        environment: Environment::Mainnet,
        version: 3,
        digest: Digest([6; 32]),
        signature: Arc::from([7; 4]),
        models: [("small".into(), model)].into(),
        participation: Default::default(),
        penalties: PenaltyRules { lies_max, ..Default::default() },
        timeouts: Default::default(),
        subclouds: [("mine".parse().expect("a name"), Digest([8; 32]))].into(),
    }
}

/// The ledger's and the settings' rows.
fn small_rows(folded: Option<Credits>) -> Vec<Row> {
    let account = |owner| Account { environment: Environment::Mainnet, owner };
    let balance =
        |owner, micro| Row::Balance(Balance { account: account(owner), balance: Credits(micro), folded });
    let posting = |subject, step| Posting {
        id: PostingId { subject, step },
        environment: Environment::Mainnet,
        at: Time(77),
        legs: vec![(Owner::Namespace(named("acme")), Credits(-5)), (Owner::Fee, Credits(5))],
        note: "why".to_owned(),
    };
    vec![
        Row::Posting(posting(Subject::Job(JOB), Step::Capture)),
        Row::Posting(posting(Subject::Operation(OperationId(1 << 100)), Step::Deposit)),
        balance(Owner::Namespace(named("acme")), -5),
        balance(Owner::Issuance, 5),
        Row::Namespace(Box::new(NamespaceSettings {
            namespace: named("acme"),
            weight: 10,
            trust: Trust::Own,
            credit: [None, Some(Credits(1_000))],
            unrunnable: Unrunnable::Refuse,
            queue_jobs_max: 500,
        })),
        Row::Key(KeyRow {
            key: IdempotencyKey([1; 32]),
            entry: KeyEntry {
                body: Digest([2; 32]),
                job: JOB,
                namespace: named("acme"),
                expires_at: Time(99),
            },
        }),
        Row::DeadLetter(JOB, Some(JobId { epoch: 1, counter: 2 })),
        Row::Paused(Scope::Namespace(named("acme"))),
        Row::Paused(Scope::Tier(Tier::Batch)),
        Row::Price(PriceRule {
            environment: Some(Environment::Testnet),
            model: Some("small".into()),
            tier: Some(Tier::Realtime),
            from: Time(55),
            price: PRICE,
        }),
    ]
}

/// What rows say that older versions don't.
struct Newer {
    folded: Option<Credits>,
    lies: u32,
    lies_max: u32,
}

/// What a row without that means.
const OLDER: Newer = Newer { folded: None, lies: 0, lies_max: 2 };
const NEWEST: Newer = Newer { folded: Some(Credits(3)), lies: 1, lies_max: 4 };

fn samples(newer: &Newer) -> Vec<Row> {
    let template = Template {
        name: "sum".into(),
        model: "small".into(),
        endpoint: Endpoint::ChatCompletions,
        body: Arc::from(*b"1+1"),
        input_tokens: 3,
        output_tokens_max: 4,
        tier: Tier::Standard,
        mode: Mode::Sync,
        expect: Expect::Tokens { min: 1, max: 2 },
    };
    let subcloud = Subcloud {
        name: "mine".parse().expect("a name"),
        environment: Environment::Testnet,
        policy: Policy { models: Some(["small".into()].into()), ..Policy::default() },
        isolate: Isolation::Isolated,
        owners: [named("acme")].into(),
        allowed: Allowed::Only([named("other")].into()),
        nodes: [NodeId::named("node_a")].into(),
    };
    let feedback = Feedback {
        job: JOB,
        namespace: named("acme"),
        opinion: Opinion::Flag,
        note: Note::new("odd").expect("short"),
        at: Time(88),
    };
    let mut rows = vec![
        Row::Job(Box::new(waiting_job())),
        Row::Job(Box::new(dead_job())),
        Row::Node(Box::new(node(newer.lies))),
        Row::Template(Box::new(template)),
        Row::Subcloud(Box::new(subcloud)),
        Row::Configuration(Box::new(configuration(newer.lies_max))),
        Row::Feedback(feedback),
    ];
    rows.extend(small_rows(newer.folded));
    rows
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(digit).collect()
}

fn rows_of(golden: &str) -> Bytes {
    let rows = golden.lines().map(|line| {
        let mut words = line.split(' ').skip(1).map(unhex);
        (words.next().expect("a key"), words.next().expect("a value"))
    });
    rows.collect()
}

#[test]
fn old_versions_are_read_and_the_newest_is_what_it_was() {
    let mut bytes = Bytes::new();
    let with = |mut rows: Vec<Row>, job| {
        rows.push(Row::Job(Box::new(job)));
        rows
    };
    let third = with(samples(&NEWEST), unstored_job());
    let mut newest = with(third.clone(), tool_calling_job());
    newest.push(Row::Proof(JOB, Arc::from(*b"signed")));
    newest.push(Row::Invite(Box::new(Invite {
        token: Digest([8; 32]),
        trust: Trust::Approved,
        environments: Environments::only(Environment::Testnet),
        owner: Some(named("acme")),
        region: Some("eu".parse().expect("a name")),
        made_at: Time(77),
        expires_at: Time(78),
    })));
    newest.iter().for_each(|row| keep(&mut bytes, row));
    let mut written = String::new();
    for (key, value) in &bytes {
        let table = Table::of(key).expect("a table").word();
        writeln!(written, "{table} {} {}", hex(key), hex(value)).expect("text grows");
    }
    assert_eq!(written, GOLDEN_4, "rows are written as version 4 says");
    let golden = rows_of(GOLDEN_4);
    let second = with(samples(&OLDER), unstored_job());
    let versions = [(samples(&OLDER), GOLDEN_1), (second, GOLDEN_2), (third, GOLDEN_3), (newest, GOLDEN_4)];
    for (rows, of) in versions.map(|(rows, golden)| (rows, rows_of(golden))) {
        for row in rows {
            let back = kept(&of, &row).expect("all versions are read");
            assert_eq!(text(&back), text(&row));
        }
    }
    let tables: std::collections::BTreeSet<_> = golden.keys().filter_map(|key| Table::of(key)).collect();
    let parts = [Table::Extras, Table::Traces, Table::Answers];
    assert_eq!(tables.len() + parts.len(), Table::ALL.len(), "a sample of every table: {tables:?}");
}
