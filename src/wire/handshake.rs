//! The mutual handshake: the box proves its key before the node says anything about itself, then the node proves its
//! own.
//!
//! One value for each side and step, so that a step can't be skipped or repeated. Random bytes come from the caller,
//! new for each connection; what came too late or too long is the caller's to refuse.

use super::close::{CloseCode, Refusal};
use super::hash::plain_hash;
use super::keys::{Identity, InviteToken, Nonce, PublicKey};
use super::layout::Layout;
use super::to_agent::Challenge;
use super::to_box::{Authenticate, Capability, Hello};
use super::verify::Parties;
use super::version::{CAPABILITIES, VERSION, Version};
use crate::coordinator::event::Environment;

/// The tag of what a box signs to prove its key.
pub const BOX_TAG: &str = "switchbox.v1.box";
/// The tag of what a node signs to prove its key.
pub const NODE_TAG: &str = "switchbox.v1.node";

/// What a connection was begun with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Between whom.
    pub parties: Parties,
    /// The agent's random bytes.
    pub nonce: Nonce,
    /// The box's random bytes.
    pub challenge: Nonce,
}

/// What a box signs.
pub fn box_proof(exchange: &Exchange) -> Vec<u8> {
    Layout::new(BOX_TAG)
        .bytes(&exchange.nonce.0)
        .bytes(&exchange.challenge.0)
        .bytes(exchange.parties.node_key.bytes())
        .finish()
}

/// What a node signs: also what it asks for, so that nobody in between changes that.
pub fn agent_proof(
    exchange: &Exchange,
    version: Version,
    environments: &[Environment],
    invite: Option<&InviteToken>,
) -> Vec<u8> {
    let words: Vec<&str> = environments.iter().map(|environment| environment.word()).collect();
    let invite = invite.map(|token| plain_hash(token.text().as_bytes()));
    Layout::new(NODE_TAG)
        .text(&version.to_string())
        .bytes(exchange.parties.box_key.bytes())
        .bytes(&exchange.challenge.0)
        .bytes(&exchange.nonce.0)
        .bytes(exchange.parties.node_key.bytes())
        .text(&words.join(","))
        .maybe(invite.as_ref())
        .finish()
}

/// What this build states as its capabilities.
pub fn own_capabilities() -> Vec<Capability> {
    CAPABILITIES.iter().map(|name| Capability((*name).to_owned())).collect()
}

/// Capabilities that both have.
fn shared(theirs: &[Capability]) -> Vec<&'static str> {
    CAPABILITIES.into_iter().filter(|own| theirs.iter().any(|name| name.0 == *own)).collect()
}

/// The box's side, waiting for `authenticate`.
#[derive(Debug)]
pub struct BoxSide {
    exchange: Exchange,
    version: Version,
    capabilities: Vec<&'static str>,
}

/// A node whose key is proven. Whether the box wants it is another question.
#[derive(Debug, Clone, PartialEq)]
pub struct Authenticated {
    /// Between whom.
    pub parties: Parties,
    /// What both speak: the agent's version.
    pub version: Version,
    /// What both can do.
    pub capabilities: Vec<&'static str>,
    /// For which environments the node wants to work; at least one.
    pub environments: Vec<Environment>,
    /// What it brought to register with.
    pub invite: Option<InviteToken>,
}

impl BoxSide {
    /// Answers an agent's `hello` with the box's proof. `challenge` is random, and used for this connection only.
    ///
    /// # Errors
    /// When the agent's version isn't served.
    pub fn answer(
        identity: &Identity,
        hello: &Hello,
        challenge: Nonce,
    ) -> Result<(Self, Challenge), Refusal> {
        VERSION.serves(hello.version)?;
        let parties = Parties { box_key: identity.public(), node_key: hello.node_key };
        let exchange = Exchange { parties, nonce: hello.nonce, challenge };
        let proof = Challenge {
            version: VERSION,
            capabilities: own_capabilities(),
            box_key: parties.box_key,
            challenge,
            signature: identity.sign(&box_proof(&exchange)),
        };
        let capabilities = shared(&hello.capabilities);
        Ok((Self { exchange, version: hello.version, capabilities }, proof))
    }

    /// Checks the node's proof.
    ///
    /// # Errors
    /// When the signature is wrong, or the node names no environment.
    pub fn check(self, said: Authenticate) -> Result<Authenticated, Refusal> {
        let Authenticate { environments, invite, signature } = said;
        let proof = agent_proof(&self.exchange, self.version, &environments, invite.as_ref());
        let parties = self.exchange.parties;
        if !parties.node_key.signed(&proof, &signature) {
            let reason = "the signature in `authenticate` isn't the node's over this handshake: check how it is laid out";
            return Err(Refusal::new(CloseCode::SignatureInvalid, reason));
        }
        if environments.is_empty() {
            let reason = "`authenticate` names no environment: name `mainnet`, `testnet` or both";
            return Err(Refusal::new(CloseCode::MessageInvalid, reason));
        }
        let (version, capabilities) = (self.version, self.capabilities);
        Ok(Authenticated { parties, version, capabilities, environments, invite })
    }
}

/// The agent's side, waiting for `challenge`.
#[derive(Debug)]
pub struct AgentSide {
    box_key: PublicKey,
    nonce: Nonce,
    node_key: PublicKey,
}

/// A box that has proven its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Proven {
    /// Between whom.
    pub parties: Parties,
    /// What both can do.
    pub capabilities: Vec<&'static str>,
}

impl AgentSide {
    /// Calls the box with that key. `nonce` is random, and used for this connection only.
    pub fn call(identity: &Identity, box_key: PublicKey, nonce: Nonce) -> (Self, Hello) {
        let node_key = identity.public();
        let hello = Hello { version: VERSION, capabilities: own_capabilities(), node_key, nonce };
        (Self { box_key, nonce, node_key }, hello)
    }

    /// Checks the box's proof, and only then answers with the node's.
    ///
    /// # Errors
    /// When the box isn't the one that was called, or speaks a version that it wouldn't be served in.
    pub fn answer(
        self,
        identity: &Identity,
        said: &Challenge,
        environments: &[Environment],
        invite: Option<&InviteToken>,
    ) -> Result<(Proven, Authenticate), Refusal> {
        said.version.serves(VERSION)?;
        let parties = Parties { box_key: self.box_key, node_key: self.node_key };
        let exchange = Exchange { parties, nonce: self.nonce, challenge: said.challenge };
        if said.box_key != self.box_key {
            let reason = format!(
                "the box has the key {} and this agent knows it by {}: if the box was given a new key, join again \
                 with a new invite; otherwise somebody poses as it",
                said.box_key, self.box_key
            );
            return Err(Refusal::new(CloseCode::BoxUnknown, reason));
        }
        if !self.box_key.signed(&box_proof(&exchange), &said.signature) {
            let reason = "the box names the right key but hasn't it: somebody poses as it";
            return Err(Refusal::new(CloseCode::BoxUnknown, reason));
        }
        let signature = identity.sign(&agent_proof(&exchange, VERSION, environments, invite));
        let proof = Authenticate { environments: environments.to_vec(), invite: invite.cloned(), signature };
        Ok((Proven { parties, capabilities: shared(&said.capabilities) }, proof))
    }
}
