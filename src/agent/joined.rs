//! The box that an agent belongs to: told once by a join string, kept in the agent's directory, and pinned.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::datadir::{AgentDir, DataDirError, Kept};
use crate::wire::join::connect_url;
use crate::wire::{Hash, InviteToken, JoinString, PublicKey};

/// What an agent knows of its box.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Joined {
    /// Where it is: `https://...` or `http://...`.
    pub(super) url: String,
    /// Its key: the agent talks to nobody else.
    pub(super) box_key: PublicKey,
    /// SHA-256 of the public key of the box's own certificate; none where the system judges certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Hash>,
    /// What the node's key is registered with; none once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<InviteToken>,
}

/// Why an agent has no box to talk to.
#[derive(Debug, thiserror::Error)]
pub enum JoinedError {
    /// It was never told.
    #[error(
        "this agent hasn't joined a box: give it a join string once (`--join STRING`; on the box `switchbox nodes \
         invite` prints one)"
    )]
    Never,
    /// What was kept of it isn't readable.
    #[error("what this agent kept of its box isn't readable ({0}): join again (`--join STRING`)")]
    Unreadable(String),
    /// The directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

impl Joined {
    /// What `join` says, kept from now on; without it, what was kept.
    pub(super) fn load(dir: &AgentDir, join: Option<JoinString>) -> Result<Self, JoinedError> {
        let kept = dir.load(Kept::Box)?;
        let kept: Option<Result<Joined, _>> = kept.map(|bytes| serde_json::from_slice(&bytes));
        let Some(JoinString { url, box_key, tls, token }) = join else {
            return kept
                .ok_or(JoinedError::Never)?
                .map_err(|error| JoinedError::Unreadable(error.to_string()));
        };
        if let Some(Ok(before)) = kept
            && before.box_key != box_key
        {
            tracing::warn!(before = %before.box_key, now = %box_key, "this agent belonged to another box until now");
            // What that one decided says nothing here.
            [Kept::Mainnet, Kept::Testnet].into_iter().try_for_each(|kept| dir.forget(kept))?;
        }
        let joined = Self { url, box_key, tls, token: Some(token) };
        joined.keep(dir)?;
        Ok(joined)
    }

    /// The node's key is registered: the token is worth nothing any more.
    pub(super) fn registered(&mut self, dir: &AgentDir) -> Result<(), DataDirError> {
        if self.token.take().is_some() { self.keep(dir) } else { Ok(()) }
    }

    fn keep(&self, dir: &AgentDir) -> Result<(), DataDirError> {
        // Every field has a text form, so there is nothing to fail.
        let bytes = zeroize::Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        dir.keep(Kept::Box, &bytes)
    }

    /// Where the WebSocket is.
    pub(super) fn connect_url(&self) -> String {
        connect_url(&self.url)
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Joined({}, box {})", self.url, self.box_key)
    }
}
