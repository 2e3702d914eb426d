//! Signed statements: what is believed, and what of one may not be another's.

use super::identity;
use crate::coordinator::event::{
    Completion, Environment, ErrorClass, FinishReason, PROOF_BYTES_MAX, Seen, Status, Verified,
};
use crate::coordinator::integrity::OutputDigest;
use crate::ids::{JobId, ReservationId};
use crate::wire::keys::Hex;
use crate::wire::statement::StatedStatus;
use crate::wire::to_agent::SnapshotText;
use crate::wire::verify::{self, is_boxs_snapshot, sign_snapshot};
use crate::wire::{
    ERROR_MESSAGE_BYTES_MAX, Issued, MODEL_NAME_BYTES_MAX, Parties, ResultStatement, Signed, StatementError,
    StoppedStatement,
};

const JOB: JobId = JobId { epoch: 9, counter: 1 };
const RESERVATION: ReservationId = ReservationId { epoch: 9, counter: 2 };

pub(super) fn parties() -> Parties {
    Parties { box_key: identity(1).public(), node_key: identity(2).public() }
}

fn issued() -> Issued {
    Issued {
        environment: Environment::Mainnet,
        job: JOB,
        reservation: RESERVATION,
        model: "m".into(),
        model_index: 0,
        model_digest: Some(Hex([7; 32])),
        request_hash: Hex([8; 32]),
        output_hash: Some(Hex([9; 32])),
    }
}

pub(super) fn stated() -> ResultStatement {
    ResultStatement {
        environment: Environment::Mainnet,
        job: JOB,
        reservation: RESERVATION,
        model: "m".into(),
        model_digest: Some(Hex([7; 32])),
        model_index: 0,
        request_hash: Hex([8; 32]),
        output_hash: Hex([9; 32]),
        input_tokens: 10,
        cached_tokens: 4,
        output_tokens: 3,
        status: StatedStatus::Succeeded { finish_reason: FinishReason::Stop },
    }
}

pub(super) fn signed() -> Signed<ResultStatement> {
    Signed::sign(stated(), &identity(2), parties().box_key)
}

fn seen() -> Seen {
    Seen { chunks: 3, bytes: 12, ..Seen::default() }
}

fn check(signed: &Signed<ResultStatement>, issued: Option<&Issued>) -> Result<Completion, StatementError> {
    verify::result(signed, &parties(), issued, seen()).map(Verified::into_inner)
}

#[test]
fn a_signed_result_is_the_nodes_word() {
    let completion = check(&signed(), Some(&issued())).expect("signed");
    assert_eq!(completion.node, parties().node_key.node());
    assert_eq!((completion.reservation, completion.seen), (RESERVATION, seen()));
    assert_eq!(completion.status, Status::Succeeded(FinishReason::Stop));
    let counts = (completion.input_tokens, completion.cached_tokens, completion.output_tokens);
    assert_eq!(counts, (10, 4, 3));
    assert_eq!(completion.digest, Some(OutputDigest([9; 32])));
    // The box may not know the attempt any more, or not have all of its output.
    let revoked = Issued { output_hash: None, ..issued() };
    assert_eq!(check(&signed(), None), Ok(completion.clone()));
    assert_eq!(check(&signed(), Some(&revoked)), Ok(completion));
}

/// Each single thing that is signed: changed after signing it is a wrong signature, signed so it is elsewhere.
#[test]
fn nothing_in_a_result_can_be_another() {
    type Change = fn(&mut ResultStatement);
    let bound: [(&str, Change); 7] = [
        ("environment", |stated| stated.environment = Environment::Testnet),
        ("job", |stated| stated.job.counter += 1),
        ("reservation", |stated| stated.reservation.counter += 1),
        ("model", |stated| stated.model = "n".into()),
        ("model_index", |stated| stated.model_index = 1),
        ("model_digest", |stated| stated.model_digest = None),
        ("request_hash", |stated| stated.request_hash = Hex([1; 32])),
    ];
    let stated_only: [(&str, Change); 6] = [
        ("output_hash", |stated| stated.output_hash = Hex([1; 32])),
        ("input_tokens", |stated| stated.input_tokens = 11),
        ("cached_tokens", |stated| stated.cached_tokens = 5),
        ("output_tokens", |stated| stated.output_tokens = 4),
        ("finish_reason", |stated| {
            stated.status = StatedStatus::Succeeded { finish_reason: FinishReason::Length };
        }),
        ("status", |stated| {
            stated.status = StatedStatus::Failed { class: ErrorClass::Node, message: String::new() };
        }),
    ];
    for (field, change) in bound.iter().chain(&stated_only) {
        let mut changed = signed();
        change(&mut changed.statement);
        assert_eq!(check(&changed, Some(&issued())), Err(StatementError::Signature), "{field}");
        assert_eq!(check(&changed, None), Err(StatementError::Signature), "{field}");
    }
    for (field, change) in bound {
        let mut other = stated();
        change(&mut other);
        let other = Signed::sign(other, &identity(2), parties().box_key);
        assert_eq!(check(&other, Some(&issued())), Err(StatementError::Elsewhere(field)));
        assert!(StatementError::Elsewhere(field).is_strike());
    }
    let other = ResultStatement { output_hash: Hex([1; 32]), ..stated() };
    let other = Signed::sign(other, &identity(2), parties().box_key);
    assert_eq!(check(&other, Some(&issued())), Err(StatementError::Output));
    assert!(!StatementError::Output.is_strike());
}

#[test]
fn a_result_is_for_one_box_and_of_one_node() {
    let for_another = Signed::sign(stated(), &identity(2), identity(5).public());
    assert_eq!(check(&for_another, None), Err(StatementError::Signature));
    let of_another = Signed::sign(stated(), &identity(6), parties().box_key);
    assert_eq!(check(&of_another, None), Err(StatementError::Signature));
    let mut bent = signed();
    bent.signature.0[63] ^= 0x20;
    assert_eq!(check(&bent, None), Err(StatementError::Signature));
}

#[test]
fn a_failed_result_needs_no_output_and_its_message_is_signed() {
    let status = StatedStatus::Failed { class: ErrorClass::Transient, message: "cold".to_owned() };
    let failed = ResultStatement { output_hash: Hex([0; 32]), status, ..stated() };
    let mut failed = Signed::sign(failed, &identity(2), parties().box_key);
    let completion = check(&failed, Some(&issued())).expect("signed");
    let Status::Failed(error) = completion.status else { panic!("it failed") };
    assert_eq!((error.class, error.message.as_str()), (ErrorClass::Transient, "cold"));
    let message = "hot".to_owned();
    failed.statement.status = StatedStatus::Failed { class: ErrorClass::Transient, message };
    assert_eq!(check(&failed, Some(&issued())), Err(StatementError::Signature));
}

#[test]
fn a_stop_is_signed_likewise_and_is_no_result() {
    let statement = StoppedStatement {
        environment: Environment::Mainnet,
        job: JOB,
        reservation: RESERVATION,
        input_tokens: 5,
        output_tokens: 2,
    };
    let signed = Signed::sign(statement, &identity(2), parties().box_key);
    let stopped = verify::stopped(&signed, &parties(), Some(&issued())).expect("signed").into_inner();
    assert_eq!((stopped.reservation, stopped.input_tokens, stopped.output_tokens), (RESERVATION, 5, 2));
    let mut more = signed.clone();
    more.statement.output_tokens = 200;
    assert_eq!(verify::stopped(&more, &parties(), None), Err(StatementError::Signature));
    let elsewhere = Issued { job: JobId { epoch: 9, counter: 7 }, ..issued() };
    let refused = verify::stopped(&signed, &parties(), Some(&elsewhere));
    assert_eq!(refused, Err(StatementError::Elsewhere("job")));
    // The signature of one kind of statement is none of another.
    let as_result = Signed { statement: stated(), signature: signed.signature };
    assert_eq!(check(&as_result, None), Err(StatementError::Signature));
}

#[test]
fn the_longest_proof_fits() {
    let statement = ResultStatement {
        environment: Environment::Testnet,
        model: "x".repeat(MODEL_NAME_BYTES_MAX).into(),
        status: StatedStatus::Failed {
            class: ErrorClass::Transient,
            message: "x".repeat(ERROR_MESSAGE_BYTES_MAX),
        },
        ..stated()
    };
    let proof = Signed::sign(statement, &identity(2), parties().box_key).proof(&parties());
    assert!(proof.len() <= PROOF_BYTES_MAX, "{}", proof.len());
}

#[test]
fn a_configuration_is_the_boxs_or_nobodys() {
    let signature = sign_snapshot(&identity(1), Environment::Mainnet, 3, "{}");
    let snapshot =
        SnapshotText { environment: Environment::Mainnet, version: 3, text: "{}".into(), signature };
    let is_signed = |snapshot: &SnapshotText| is_boxs_snapshot(identity(1).public(), snapshot);
    assert!(is_signed(&snapshot));
    assert!(!is_signed(&SnapshotText { version: 4, ..snapshot.clone() }));
    assert!(!is_signed(&SnapshotText { text: "{ }".into(), ..snapshot.clone() }));
    assert!(!is_signed(&SnapshotText { environment: Environment::Testnet, ..snapshot.clone() }));
    assert!(!is_boxs_snapshot(identity(2).public(), &snapshot));
}
