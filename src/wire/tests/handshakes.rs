//! Handshakes: of those that fit, of impostors, and of those who change what passes through them.

use super::identity;
use crate::coordinator::event::Environment;
use crate::wire::handshake::{AgentSide, Authenticated, BoxSide};
use crate::wire::keys::Hex;
use crate::wire::to_agent::Challenge;
use crate::wire::to_box::{Authenticate, Capability, Hello};
use crate::wire::{CloseCode, Identity, InviteToken, JSON_CHUNKS, Refusal, VERSION, Version};

/// What somebody in between changes.
struct Between {
    hello: fn(&mut Hello),
    challenge: fn(&mut Challenge),
    authenticate: fn(&mut Authenticate),
}

const HONEST: Between = Between { hello: |_| (), challenge: |_| (), authenticate: |_| () };

const ENVIRONMENTS: [Environment; 1] = [Environment::Testnet];

fn token() -> InviteToken {
    "a-token".parse().expect("a token")
}

/// A handshake of the node 2, which wants the box 1, with that box.
fn shake(boxs: &Identity, between: &Between) -> Result<Authenticated, Refusal> {
    let node = identity(2);
    let (agent, mut hello) = AgentSide::call(&node, identity(1).public(), Hex([3; 32]));
    (between.hello)(&mut hello);
    let (side, mut challenge) = BoxSide::answer(boxs, &hello, Hex([4; 32]))?;
    (between.challenge)(&mut challenge);
    let (proven, mut proof) = agent.answer(&node, &challenge, &ENVIRONMENTS, Some(&token()))?;
    assert_eq!(proven.parties.node_key, node.public());
    (between.authenticate)(&mut proof);
    side.check(proof)
}

fn code(boxs: &Identity, between: &Between) -> CloseCode {
    let refusal = shake(boxs, between).expect_err("something is wrong");
    assert!(!refusal.to_string().contains("a-token"), "{refusal}");
    refusal.code
}

#[test]
fn both_prove_themselves_and_learn_what_they_share() {
    let seen = shake(&identity(1), &HONEST).expect("both are who they say");
    assert_eq!(seen.parties.box_key, identity(1).public());
    assert_eq!(seen.parties.node_key, identity(2).public());
    assert_eq!((seen.version, &*seen.environments), (VERSION, &ENVIRONMENTS[..]));
    assert_eq!(seen.invite, Some(token()));
    assert_eq!(seen.capabilities, [JSON_CHUNKS]);
    let strange = Between { hello: |hello| hello.capabilities = vec![Capability("tea".into())], ..HONEST };
    assert_eq!(shake(&identity(1), &strange).expect("unknown ones are ignored").capabilities, [""; 0]);
}

#[test]
fn an_impostor_learns_nothing() {
    assert_eq!(code(&identity(9), &HONEST), CloseCode::BoxUnknown, "another box");
    // It knows the right key's name, or a proof of it that was made for another connection.
    let posing = Between { challenge: |said| said.box_key = identity(1).public(), ..HONEST };
    assert_eq!(code(&identity(9), &posing), CloseCode::BoxUnknown);
    let replayed = Between { challenge: |said| said.challenge = Hex([5; 32]), ..HONEST };
    assert_eq!(code(&identity(1), &replayed), CloseCode::BoxUnknown);
    let for_another_nonce = Between { hello: |said| said.nonce = Hex([6; 32]), ..HONEST };
    assert_eq!(code(&identity(1), &for_another_nonce), CloseCode::BoxUnknown);
    let for_another_node = Between { hello: |said| said.node_key = identity(7).public(), ..HONEST };
    assert_eq!(code(&identity(1), &for_another_node), CloseCode::BoxUnknown);
}

#[test]
fn nobody_changes_what_a_node_asks_for() {
    let changes: [fn(&mut Authenticate); 5] = [
        |said| said.environments = vec![Environment::Mainnet],
        |said| said.environments.push(Environment::Mainnet),
        |said| said.invite = None,
        |said| said.invite = Some("another".parse().expect("a token")),
        |said| said.signature.0[0] ^= 1,
    ];
    for authenticate in changes {
        let changed = Between { authenticate, ..HONEST };
        assert_eq!(code(&identity(1), &changed), CloseCode::SignatureInvalid);
    }
}

#[test]
fn versions_are_refused_by_name_on_either_side() {
    let newer = Between { hello: |said| said.version = Version { major: 1, minor: 1 }, ..HONEST };
    assert_eq!(code(&identity(1), &newer), CloseCode::AgentTooNew);
    let older = Between { hello: |said| said.version = Version { major: 0, minor: 9 }, ..HONEST };
    assert_eq!(code(&identity(1), &older), CloseCode::AgentTooOld);
    let newer_box = Between { challenge: |said| said.version = Version { major: 1, minor: 2 }, ..HONEST };
    assert_eq!(code(&identity(1), &newer_box), CloseCode::AgentTooOld);
    let next_box = Between { challenge: |said| said.version = Version { major: 1, minor: 1 }, ..HONEST };
    shake(&identity(1), &next_box).expect("the next minor version's box serves this agent");
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", identity(1), token());
    assert!(!shown.contains("a-token") && !shown.contains(&"01".repeat(8)), "{shown}");
}
