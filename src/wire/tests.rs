//! The protocol as a whole: test vectors, every message there and back, and what anybody might send.

use serde_json::Value;
use zeroize::Zeroizing;

use super::handshake::{Exchange, agent_proof, box_proof};
use super::statement::Statement;
use super::verify::{sign_snapshot, snapshot_layout};
use super::*;
use crate::coordinator::event::{Endpoint, Environment};

mod bad_messages;
mod fuzz;
mod handshakes;
mod receipts;
mod statements;
mod there_and_back;

pub(super) fn identity(seed: u8) -> Identity {
    Identity::of_seed(&Zeroizing::new([seed; 32]))
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../docs/node-protocol-vectors.json")).expect("JSON")
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn hex<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value, name: &str) -> T {
    text(value, name).parse().expect("hexadecimal digits")
}

fn vector_identity(vectors: &Value, who: &str) -> Identity {
    let key = &vectors["keys"][who];
    let identity = Identity::of_seed(&Zeroizing::new(hex::<Hash>(key, "seed").0));
    assert_eq!(identity.public().to_string(), text(key, "public"));
    identity
}

fn bytes_as_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is signed, and by which of our own ways of signing it.
fn laid_out(vector: &Value, parties: &Parties, keys: (&Identity, &Identity)) -> (Vec<u8>, Signature) {
    let (boxs, node) = keys;
    let stated = vector["of"].clone();
    let exchange =
        || Exchange { parties: *parties, nonce: hex(&stated, "nonce"), challenge: hex(&stated, "challenge") };
    fn signed<T: Statement + serde::de::DeserializeOwned>(
        stated: Value,
        parties: &Parties,
        node: &Identity,
    ) -> (Vec<u8>, Signature) {
        let statement: T = serde_json::from_value(stated).expect("a statement");
        let layout = statement.layout(parties);
        (layout, Signed::sign(statement, node, parties.box_key).signature)
    }
    match text(vector, "layout") {
        "box" => {
            let layout = box_proof(&exchange());
            let signature = boxs.sign(&layout);
            (layout, signature)
        }
        "node" => {
            let said: to_box::Authenticate = {
                let mut said = stated.clone();
                said["signature"] = vector["signature"].clone();
                serde_json::from_value(said).expect("what an agent says")
            };
            let version = text(&stated, "version").parse().expect("a version");
            let layout = agent_proof(&exchange(), version, &said.environments, said.invite.as_ref());
            let signature = node.sign(&layout);
            (layout, signature)
        }
        "result" => signed::<ResultStatement>(stated, parties, node),
        "stopped" => signed::<StoppedStatement>(stated, parties, node),
        "snapshot" => {
            let version = stated["version"].as_u64().expect("a number");
            let of = text(&stated, "text");
            let layout = snapshot_layout(Environment::Mainnet, version, of);
            (layout, sign_snapshot(boxs, Environment::Mainnet, version, of))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn signed_layouts_are_the_documented_bytes() {
    let vectors = vectors();
    let (boxs, node) = (vector_identity(&vectors, "box"), vector_identity(&vectors, "node"));
    assert_eq!(node.public().node().to_string(), text(&vectors["keys"]["node"], "name"));
    let parties = Parties { box_key: boxs.public(), node_key: node.public() };
    let signed = vectors["signed"].as_array().expect("a list");
    assert_eq!(signed.len(), 8);
    for vector in signed {
        let (layout, signature) = laid_out(vector, &parties, (&boxs, &node));
        assert_eq!(bytes_as_hex(&layout), text(vector, "bytes"), "{vector}");
        assert_eq!(signature.to_string(), text(vector, "signature"), "{vector}");
    }
}

#[test]
fn hashes_are_the_documented_ones() {
    let vectors = vectors();
    for vector in vectors["request_hashes"].as_array().expect("a list") {
        let known = [Endpoint::ChatCompletions, Endpoint::Completions];
        let endpoint = known.into_iter().find(|endpoint| endpoint.path() == text(vector, "endpoint"));
        let hash = request_hash(endpoint.expect("an endpoint"), text(vector, "body").as_bytes());
        assert_eq!(hash, hex(vector, "hash"));
    }
    let outputs = vectors["output_hashes"].as_array().expect("a list");
    for vector in outputs {
        let chunks: Vec<to_box::Chunk> = serde_json::from_value(vector["chunks"].clone()).expect("chunks");
        let mut hasher = OutputHasher::new();
        chunks.iter().for_each(|chunk| chunk.add_to(&mut hasher));
        assert_eq!(hasher.hash(), hex(vector, "hash"));
    }
    assert_eq!(outputs[0]["hash"], outputs[1]["hash"], "how text was cut doesn't show");
}

/// The examples of one side's messages, as texts.
fn examples(side: &str) -> Vec<String> {
    vectors()["messages"][side].as_array().expect("a list").iter().map(Value::to_string).collect()
}

#[test]
fn every_kind_of_message_has_an_example_that_is_one() {
    macro_rules! check {
        ($side:literal, $message:ty) => {
            let mut kinds = std::collections::BTreeSet::new();
            for example in examples($side) {
                let Ok(Parsed::Known(message)) = <$message>::parse(&example, MESSAGE_BYTES_MAX) else {
                    panic!("{example}: {:?}", <$message>::parse(&example, MESSAGE_BYTES_MAX))
                };
                kinds.insert(message.kind());
                let written: Value = serde_json::from_str(&message.render().expect("text")).expect("JSON");
                assert_eq!(written, serde_json::from_str::<Value>(&example).expect("JSON"));
            }
            let all = <$message>::KINDS.iter().copied().collect();
            assert_eq!(kinds, all, "an example of every kind");
        };
    }
    check!("agent", FromAgent);
    check!("box", FromBox);
}

#[test]
fn join_strings_are_the_documented_ones() {
    for vector in vectors()["join_strings"].as_array().expect("a list") {
        let join: JoinString = text(vector, "text").parse().expect("a join string");
        assert_eq!(join.url, text(vector, "url"));
        assert_eq!(join.box_key, hex(vector, "box"));
        assert_eq!(join.tls.map(|tls| tls.to_string()).as_deref(), vector["tls"].as_str());
        assert_eq!(join.token.text(), text(vector, "token"));
        assert_eq!(join.text(), text(vector, "text"));
        join.check().expect("it is one");
    }
}
