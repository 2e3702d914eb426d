//! Rows come back as they were, versions that are out are what they were, and no bytes make anything panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::draw::{Draw, Source};
use super::job::{ConstraintsV1, FallbacksV1, KeyedV1, OriginV1, ProgressV1};
use super::keys::{self, Table};
use super::mirror::{Mirror, Unusual};
use super::records::{
    BalanceV2, FeedbackV1, KeyV1, NamespaceV1, NodeV2, PostingV1, PriceRuleV1, ScopeV1, SnapshotV2,
    SubcloudV1, TemplateV1,
};
use super::trace::TraceEntryV1;
use super::values::{
    DeterminismV1, EndpointV1, EnvironmentV1, InputCountV1, JobStateV1, ModeV1, StoringV2, TierV1,
};
use super::{Books, DecodeError, Value, audit, decode, encode};
use crate::coordinator::effect::{End, Row};
use crate::coordinator::event::{FinishReason, JobSpec};
use crate::coordinator::job::JobRow;
use crate::coordinator::ledger::{Account, Balance, Owner, Posting};
use crate::credits::Credits;
use crate::rows::{RowKey, RowValue, changes_of, key_of};

mod golden;
mod stored;

/// A store of bytes.
type Bytes = BTreeMap<Vec<u8>, Vec<u8>>;

fn keep(bytes: &mut Bytes, row: &Row) {
    let mut changes = Vec::new();
    changes_of(row.clone(), &mut changes);
    for change in &changes {
        encode(change, &mut |key, value| match value {
            None => drop(bytes.remove(key)),
            Some(Value::Row(value) | Value::Payload(value)) => {
                drop(bytes.insert(key.to_vec(), value.to_vec()))
            }
        });
    }
}

fn kept(bytes: &Bytes, row: &Row) -> Result<Row, DecodeError> {
    let key = keys::bytes_of(&key_of(row).expect("it is kept"));
    let value = bytes.get(&key).expect("it was put");
    decode(&key, value, &mut |table, job| Ok(bytes.get(&keys::of_job(table, job)).cloned()))
}

fn core<M: Mirror<C> + Draw, C>(source: &mut Source) -> C {
    M::draw(source).back().map_err(|unfit| unfit.to_string()).expect("drawn to fit")
}

fn spec(source: &mut Source) -> JobSpec {
    JobSpec {
        namespace: Draw::draw(source),
        environment: core::<EnvironmentV1, _>(source),
        endpoint: core::<EndpointV1, _>(source),
        model: Draw::draw(source),
        mode: core::<ModeV1, _>(source),
        tier: core::<TierV1, _>(source),
        ttl: Draw::draw(source),
        not_before: <Option<crate::time::Time>>::draw(source).into(),
        input_tokens: Draw::draw(source),
        input_count: core::<InputCountV1, _>(source),
        output_tokens_max: Draw::draw(source),
        messages: Draw::draw(source),
        bytes_per_token: Draw::draw(source),
        constraints: core::<Unusual<ConstraintsV1>, _>(source),
        fallbacks: core::<Unusual<FallbacksV1>, _>(source),
        key: core::<Option<KeyedV1>, Option<_>>(source).into(),
        metadata: <Vec<(String, String)>>::draw(source).into(),
        prefix: <Option<u64>>::draw(source).into(),
        determinism: core::<DeterminismV1, _>(source),
        storing: core::<StoringV2, _>(source),
    }
}

/// A job in any state, with whatever history.
fn job(source: &mut Source) -> JobRow {
    let spec = spec(source);
    let models = spec.fallbacks.models.len() + 1;
    let trace: Vec<_> = core::<Vec<TraceEntryV1>, Vec<_>>(source);
    let mut progress: crate::coordinator::rare::Rare<_> = core::<Unusual<ProgressV1>, _>(source);
    if let (Some(End::Succeeded(_)), 0) = (&progress.end, source.below(2)) {
        let later = [FinishReason::ToolCalls, FinishReason::FunctionCall, FinishReason::ContentFilter];
        progress.end = Some(End::Succeeded(later[source.below(3)]));
    }
    JobRow {
        id: Draw::draw(source),
        origin: core::<Unusual<OriginV1>, _>(source),
        body: Draw::draw(source),
        model_index: source.below(models) as u32,
        state: core::<JobStateV1, _>(source),
        submitted_at: Draw::draw(source),
        expires_at: Draw::draw(source),
        not_before: Draw::draw(source),
        prices: (0..models).map(|_| Draw::draw(source)).collect(),
        hold: Draw::draw(source),
        sequence: Draw::draw(source),
        trace: trace.into_iter().collect(),
        progress,
        spec: Arc::new(spec),
    }
}

/// One row of every kind that is kept but jobs.
fn records(source: &mut Source) -> Vec<Row> {
    vec![
        Row::Posting(core::<PostingV1, _>(source)),
        Row::Balance(core::<BalanceV2, _>(source)),
        Row::Node(Box::new(core::<NodeV2, _>(source))),
        Row::Namespace(Box::new(core::<NamespaceV1, _>(source))),
        Row::Key(core::<KeyV1, _>(source)),
        Row::DeadLetter(Draw::draw(source), Draw::draw(source)),
        Row::Paused(core::<ScopeV1, _>(source)),
        Row::Price(core::<PriceRuleV1, _>(source)),
        Row::Template(Box::new(core::<TemplateV1, _>(source))),
        Row::Subcloud(Box::new(core::<SubcloudV1, _>(source))),
        Row::Configuration(Box::new(core::<SnapshotV2, _>(source))),
        Row::Feedback(core::<FeedbackV1, _>(source)),
        Row::Proof(Draw::draw(source), Draw::draw(source)),
    ]
}

fn text(row: &Row) -> String {
    format!("{row:?}")
}

proptest! {
    #[test]
    fn every_record_comes_back(seed in any::<u64>()) {
        for row in records(&mut Source::new(seed)) {
            let mut bytes = Bytes::new();
            keep(&mut bytes, &row);
            let back = kept(&bytes, &row).expect("what was written");
            prop_assert_eq!(text(&back), text(&row));
        }
    }

    #[test]
    fn every_job_comes_back(seed in any::<u64>()) {
        let mut row = job(&mut Source::new(seed));
        // As the core writes it first, and then as it is now.
        let accepted = JobRow { trace: Default::default(), body: Some(Arc::from(*b"body")), ..row.clone() };
        let mut bytes = Bytes::new();
        keep(&mut bytes, &Row::Job(Box::new(accepted.clone())));
        row.body = match (super::job::body_is_kept_alive(&row), row.state) {
            (true, state) if state.is_live() => accepted.body,
            (true, _) if seed % 2 == 0 => accepted.body,
            (false, crate::coordinator::job::JobState::Failed) if !row.origin.is_system() => accepted.body,
            _ => None,
        };
        keep(&mut bytes, &Row::Job(Box::new(row.clone())));
        let row = Row::Job(Box::new(row));
        prop_assert_eq!(text(&kept(&bytes, &row).expect("what was written")), text(&row));
        let Some(RowKey::Job(id)) = key_of(&row) else { panic!("a job's key") };
        keep(&mut bytes, &Row::JobForgotten(id));
        prop_assert!(bytes.is_empty(), "what is left of it: {:?}", bytes.keys());
    }

    #[test]
    fn different_rows_have_different_keys(seed in any::<u64>()) {
        let mut source = Source::new(seed);
        let mut seen: BTreeMap<Vec<u8>, RowKey> = BTreeMap::new();
        for row in (0..8).flat_map(|_| records(&mut source)).collect::<Vec<_>>() {
            let key = key_of(&row).expect("it is kept");
            let bytes = keys::bytes_of(&key);
            prop_assert!(bytes.len() <= switchbox_storage::KEY_BYTES_MAX);
            prop_assert!(Table::of(&bytes).is_some());
            let before = seen.insert(bytes, key.clone());
            prop_assert!(before.is_none_or(|before| before == key));
        }
    }

    #[test]
    fn any_bytes_are_a_row_or_refused(
        table in 0_u8..22,
        key in proptest::collection::vec(any::<u8>(), 0..40),
        mut value in proptest::collection::vec(any::<u8>(), 0..200),
        version in any::<bool>(),
    ) {
        if let Some(first) = value.first_mut().filter(|_| version) {
            *first = 1;
        }
        let key = [vec![table], key].concat();
        let part = value.clone();
        let row = decode::<DecodeError>(&key, &value, &mut |_, _| Ok(Some(part.clone())));
        if let Ok(row) = row {
            let key_of_row = key_of(&row).map(|key| keys::bytes_of(&key));
            prop_assert_eq!(key_of_row, Some(key.clone()));
        }
        audit(&key, &value);
    }

    #[test]
    fn damaged_rows_are_a_row_or_refused(seed in any::<u64>(), at in any::<usize>(), flip in 1_u8..) {
        let mut source = Source::new(seed);
        let mut rows = records(&mut source);
        rows.push(Row::Job(Box::new(job(&mut source))));
        for row in rows {
            let mut bytes = Bytes::new();
            keep(&mut bytes, &row);
            let (key, mut value) = bytes.pop_first().expect("a row");
            let at = at % value.len();
            value[at] ^= flip;
            // It may be another row now, or none: both are said.
            let _ = decode::<DecodeError>(&key, &value, &mut |_, _| Ok(None));
            value.truncate(at);
            let refused = decode::<DecodeError>(&key, &value, &mut |_, _| Ok(None));
            prop_assert!(refused.is_err(), "half a row is none");
        }
    }
}

#[test]
fn an_unknown_version_or_table_is_refused_by_name() {
    let row = Row::Paused(crate::coordinator::command::Scope::Model("m".into()));
    let mut bytes = Bytes::new();
    keep(&mut bytes, &row);
    let (key, mut value) = bytes.pop_first().expect("a row");
    value[0] = 9;
    let refused = |key: &[u8], value: &[u8]| {
        let decoded = decode::<DecodeError>(key, value, &mut |_, _| Ok(None));
        decoded.expect_err("it can't be read").to_string()
    };
    assert_eq!(
        refused(&key, &value),
        "a row of table `paused` can't be read: it has version 9, and this program reads version 1: use a newer one \
         (its key: 0d016d00)"
    );
    assert!(refused(&[77, 1], &value).contains("table `Some(77)` can't be read: there is no such table"));
    value[0] = 1;
    assert!(refused(&[13, 1, b'x', 0], &value).contains("its key is another row's"));
    assert!(refused(&key, &[]).contains("it is empty"));
    value.push(0);
    assert!(refused(&key, &value).contains("table `paused`"), "nothing may follow a row");
}

#[test]
fn a_body_is_written_once_and_an_attended_one_only_when_it_failed() {
    let mut source = Source::new(3);
    let mut row = job(&mut source);
    let bodies = |row: &JobRow| {
        let mut bytes = Bytes::new();
        keep(&mut bytes, &Row::Job(Box::new(row.clone())));
        bytes.keys().filter(|key| Table::of(key) == Some(Table::Bodies)).count()
    };
    use crate::coordinator::event::{Mode, Origin};
    use crate::coordinator::job::JobState::{Failed, Queued, Running, Succeeded};
    row.origin = Origin::Client.into();
    row.body = Some(Arc::from(*b"body"));
    Arc::make_mut(&mut row.spec).key = Default::default();
    let later = core::<TraceEntryV1, crate::coordinator::trace::TraceEntry>(&mut source);
    let later = crate::coordinator::trace::TraceEntry { at: crate::time::Time(u64::MAX), ..later };
    for (mode, state, new, expected) in [
        (Mode::Polling, Queued, true, 1),
        (Mode::Polling, Running, false, 0),
        (Mode::Batch, Succeeded, false, 0),
        (Mode::Sync, Queued, true, 0),
        (Mode::Stream, Running, false, 0),
        (Mode::Sync, Failed, false, 1),
    ] {
        Arc::make_mut(&mut row.spec).mode = mode;
        row.state = state;
        row.trace = if new { Default::default() } else { std::iter::once(later.clone()).collect() };
        assert_eq!(bodies(&row), expected, "{mode:?} {state:?}");
        // What the system asks it has from a template, or doesn't ask again.
        let of = crate::ids::JobId { epoch: 1, counter: 1 };
        for origin in [Origin::Validation { of }, Origin::Blind { template: "t".into() }] {
            let system = JobRow { origin: origin.into(), ..row.clone() };
            assert_eq!(bodies(&system), 0, "{mode:?} {state:?} of the system's own");
        }
    }
}

#[test]
fn a_step_that_is_too_large_is_written_without_bodies_of_dead_letters() {
    use crate::coordinator::event::{Mode, Origin};
    use crate::coordinator::job::JobState;
    let mut source = Source::new(4);
    let mut dead = |mode| {
        let mut row = job(&mut source);
        Arc::make_mut(&mut row.spec).mode = mode;
        Arc::make_mut(&mut row.spec).key = Default::default();
        Arc::make_mut(&mut row.spec).storing = crate::coordinator::event::Storing::Allowed;
        row.origin = Origin::Client.into();
        row.state = JobState::Failed;
        row.body = Some(vec![0; 100_000].into());
        // Not its first writing: a polling one's body was written with that.
        let what = crate::coordinator::trace::TraceEvent::Ended { state: JobState::Failed };
        let at = crate::time::Time(u64::MAX);
        row.trace = std::iter::once(crate::coordinator::trace::TraceEntry { at, what }).collect();
        (RowKey::Job(row.id), Some(RowValue::Row(Row::Job(Box::new(row)))))
    };
    let mut step = vec![dead(Mode::Sync), dead(Mode::Polling), dead(Mode::Stream), dead(Mode::Sync)];
    assert_eq!(super::fit(&mut step, 1_000_000), 0);
    assert_eq!(super::fit(&mut step, 250_000), 1, "as few as needed; the polling one's is not in this step");
    assert_eq!(super::fit(&mut step, 1), 2);
    let bodies = step.iter().map(|(_, value)| match value {
        Some(RowValue::Row(Row::Job(row))) => row.body.is_some(),
        _ => panic!("a job"),
    });
    assert_eq!(bodies.collect::<Vec<_>>(), [false, true, false, false]);
}

#[test]
fn the_audit_sums_balances() {
    let mut source = Source::new(9);
    let mut bytes = Bytes::new();
    let drawn = core::<BalanceV2, _>(&mut source);
    keep(&mut bytes, &Row::Balance(Balance { balance: crate::credits::Credits(-7), ..drawn }));
    records(&mut source)
        .iter()
        .filter(|row| !matches!(row, Row::Balance(_)))
        .for_each(|row| keep(&mut bytes, row));
    assert_eq!(bytes.iter().map(|(key, value)| audit(key, value)).sum::<i128>(), -7);
}

#[test]
fn books_say_whose_balance_is_not_what_its_postings_say() {
    let mut source = Source::new(11);
    let drawn = core::<PostingV1, _>(&mut source);
    let account = Account { environment: drawn.environment, owner: Owner::Fee };
    let posting = Posting { legs: vec![(Owner::Fee, Credits(5))], ..drawn };
    for (balance, folded, expected) in
        [(12, Some(7), vec![]), (12, Some(0), vec![(&account, 7)]), (12, None, vec![]), (4, Some(-1), vec![])]
    {
        let balance =
            Balance { account: account.clone(), balance: Credits(balance), folded: folded.map(Credits) };
        let mut bytes = Bytes::new();
        [Row::Balance(balance), Row::Posting(posting.clone())].iter().for_each(|row| keep(&mut bytes, row));
        let mut books = Books::default();
        bytes.iter().for_each(|(key, value)| books.take(key, value).expect("rows"));
        assert_eq!(books.unexplained(), expected);
    }
}
