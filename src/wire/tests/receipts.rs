//! Receipts: made of what was signed, and refused by the field once anything in them is another.

use serde_json::Value;

use super::identity;
use super::statements::{parties, signed, stated};
use crate::coordinator::event::{ErrorClass, FinishReason};
use crate::wire::receipt::{Billed, Proof, Receipt, ReceiptError, Stated};
use crate::wire::statement::{StatedStatus, Statement};
use crate::wire::{PublicKey, ResultStatement, Signed};

const BILLED: Billed = Billed { input_tokens: 10, cached_tokens: 4, output_tokens: 3, microcredits: 1_234 };
const ENDED_AT_MS: u64 = 1_795_000_000_000;

fn of_node() -> Receipt {
    let proof = Proof::read(&signed().proof(&parties())).expect("a proof");
    assert_eq!(proof.box_key(), parties().box_key);
    Receipt::of_node(&identity(1), proof, BILLED, ENDED_AT_MS)
}

fn of_box() -> Receipt {
    let stated =
        Stated { request_hash: None, output_hash: None, ..Stated::of(&stated()).expect("an answer") };
    Receipt::of_box(&identity(1), stated, BILLED, ENDED_AT_MS)
}

fn text_of(receipt: &Receipt) -> String {
    serde_json::to_string_pretty(receipt).expect("a receipt is JSON")
}

fn check(text: &str, trusted: Option<PublicKey>) -> Result<Receipt, ReceiptError> {
    let receipt = Receipt::parse(text)?;
    receipt.check(trusted)?;
    Ok(receipt)
}

#[test]
fn a_receipt_is_what_node_and_box_signed() {
    for receipt in [of_node(), of_box()] {
        let text = text_of(&receipt);
        assert_eq!(check(&text, Some(parties().box_key)), Ok(receipt.clone()));
        assert_eq!(check(&text, None), Ok(receipt.clone()));
        let other = identity(9).public();
        let error = check(&text, Some(other)).expect_err("another box's");
        assert!(matches!(error, ReceiptError::OtherBox { .. }), "{error}");
        assert!(error.to_string().contains("`box_key`"), "{error}");
    }
    assert_eq!(of_node().node_key, Some(parties().node_key));
    assert_eq!(of_box().node_key, None);
}

#[test]
fn receipts_are_the_documented_ones() {
    let vectors = super::vectors();
    let boxs = super::vector_identity(&vectors, "box");
    let node = super::vector_identity(&vectors, "node").public();
    let receipts = vectors["receipts"].as_array().expect("a list");
    assert_eq!(receipts.len(), 2);
    for (vector, node_key) in receipts.iter().zip([Some(node), None]) {
        let receipt = check(&vector.to_string(), Some(boxs.public())).expect("a receipt");
        assert_eq!(receipt.node_key, node_key);
        assert_eq!(&serde_json::to_value(&receipt).expect("JSON"), vector);
    }
}

/// Replaces one digit or letter of a value by another of its kind.
fn changed(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let mut bytes = text.clone().into_bytes();
            let last = bytes.len() - 1;
            bytes[last] = if bytes[last] == b'0' { b'1' } else { b'0' };
            String::from_utf8(bytes).expect("ASCII").into()
        }
        Value::Number(number) => (number.as_u64().expect("whole") ^ 1).into(),
        other => panic!("{other}"),
    }
}

/// Every field of a receipt, with the path that leads there.
fn fields(value: &Value, path: &str) -> Vec<(String, String)> {
    let Value::Object(fields_here) = value else { return Vec::new() };
    fields_here
        .iter()
        .flat_map(|(name, inner)| {
            let pointer = format!("{path}/{name}");
            if inner.is_object() { fields(inner, &pointer) } else { vec![(pointer, name.clone())] }
        })
        .collect()
}

#[test]
fn a_changed_field_is_named() {
    for receipt in [of_node(), of_box()] {
        let whole = serde_json::to_value(&receipt).expect("JSON");
        let all = fields(&whole, "");
        assert!(all.len() >= 19, "{all:?}");
        for (pointer, name) in all {
            let mut other = whole.clone();
            let field = other.pointer_mut(&pointer).expect("it is there");
            *field = changed(field);
            let error = check(&other.to_string(), None).expect_err(&pointer).to_string();
            // What is there twice is named by the field that the two copies differ in.
            let named = match name.as_str() {
                // Its last digit is of the length of a field.
                "signed" => "`signed`",
                "countersigned" => "ended_at_ms",
                name => name,
            };
            assert!(error.contains(named), "{pointer}: {error}");
            other.pointer_mut(&pointer).map(Value::take);
            assert!(check(&other.to_string(), None).is_err(), "{pointer} is null");
        }
        let mut more = whole.clone();
        more["stated"]["extra"] = 1.into();
        assert!(check(&more.to_string(), None).expect_err("more").to_string().contains("extra"));
    }
}

/// Any single byte of a receipt that is another makes it another receipt, or the same one written differently.
#[test]
fn no_byte_can_be_another() {
    for receipt in [of_node(), of_box()] {
        let text = text_of(&receipt);
        for at in 0..text.len() {
            for byte in [b'0', b'"', b'}', b' ', text.as_bytes()[at] ^ 1] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = byte;
                let Ok(other) = String::from_utf8(bytes) else { continue };
                if let Ok(same) = check(&other, None) {
                    assert_eq!(same, receipt, "{at} {byte}");
                }
            }
        }
    }
}

#[test]
fn a_box_cannot_make_up_what_a_node_signed() {
    let proof = signed().proof(&parties());
    let mut made_up = proof.to_vec();
    let last = made_up.len() - 1;
    made_up[last] ^= 0x20;
    let proof = Proof::read(&made_up).expect("it reads");
    let receipt = Receipt::of_node(&identity(1), proof, BILLED, ENDED_AT_MS);
    let error = receipt.check(Some(parties().box_key)).expect_err("nobody signed that").to_string();
    assert!(error.contains("`node_signature`"), "{error}");
}

#[test]
fn what_is_no_proof_of_an_answer_is_none() {
    let proof = signed().proof(&parties());
    for length in 0..proof.len() {
        assert_eq!(Proof::read(&proof[..length]), None, "{length}");
    }
    let status = StatedStatus::Failed { class: ErrorClass::Node, message: "no".to_owned() };
    let failed = ResultStatement { status, ..stated() };
    assert_eq!(Stated::of(&failed), None);
    let failed = Signed::sign(failed, &identity(2), parties().box_key);
    assert_eq!(Proof::read(&failed.proof(&parties())), None);
    // The layout of a receipt is that of the result, byte for byte.
    let longest = ResultStatement {
        model: "\u{1F600}".repeat(64).into(),
        status: StatedStatus::Succeeded { finish_reason: FinishReason::Length },
        ..stated()
    };
    let signed = Signed::sign(longest.clone(), &identity(2), parties().box_key);
    let proof = Proof::read(&signed.proof(&parties())).expect("a proof");
    let receipt = Receipt::of_node(&identity(1), proof, BILLED, ENDED_AT_MS);
    assert_eq!(receipt.stated, Stated::of(&longest).expect("an answer"));
    assert!(text_of(&receipt).contains(&super::bytes_as_hex(&longest.layout(&parties()))));
    receipt.check(None).expect("it is one");
}
