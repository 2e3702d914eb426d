//! Who may join: keys that the operator registered, and invites, each of which registers one key, once.
//!
//! An invite is known by the digest of its token. What a node's key may do is its record's; an invite only says what a
//! new record begins with.

use std::collections::BTreeMap;

use super::Coordinator;
use super::command::{Command, Enrolment, NewInvite};
use super::effect::{Answer, Rejection, Row};
use super::standing::{Environments, NodeRow, Trust};
use crate::ids::{Digest, Namespace, Region};
use crate::time::{Span, Time};

/// Invites that are open at once.
pub const INVITES_MAX: usize = 1_024;
/// How long an invite may be good for.
pub const INVITE_LIFE_MAX: Span = Span::from_secs(30 * 24 * 3_600);

/// An open invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// SHA-256 of its token, which is kept nowhere.
    pub token: Digest,
    /// How far the node will be trusted.
    pub trust: Trust,
    /// What it will be registered for.
    pub environments: Environments,
    /// Whose namespace its earnings can go to.
    pub owner: Option<Namespace>,
    /// Where it stands, whatever it says.
    pub region: Option<Region>,
    /// When it was made.
    pub made_at: Time,
    /// From when on it is good for nothing.
    pub expires_at: Time,
}

/// What a node that was let in is registered as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Where it works: of what it wants, what it is registered for. At least one.
    pub environments: Environments,
    /// Where it stands, if the operator says so.
    pub region: Option<Region>,
    /// Without a heartbeat for so long it is away.
    pub heartbeat_ttl: Span,
}

/// Why a node isn't let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEnrolled {
    /// Its key isn't registered, and it brought no invite.
    KeyUnknown,
    /// Nor is its invite one that is open.
    InviteInvalid,
    /// The operator refuses it.
    Banned,
    /// It is registered for none of the environments that it wants.
    NoEnvironment,
    /// There are as many nodes as the box can tell apart.
    Full,
}

/// All open invites.
#[derive(Debug, Default)]
pub(super) struct Invites(BTreeMap<Digest, Invite>);

impl Invites {
    /// In the order of their digests.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Invite> {
        self.0.values()
    }

    /// Puts back what a row says.
    pub(super) fn restore(&mut self, invite: Invite) {
        self.0.insert(invite.token, invite);
    }
}

impl Coordinator {
    pub(super) fn on_invites(&mut self, command: Command) -> Result<Answer, Rejection> {
        self.forget_expired_invites();
        match command {
            Command::Invite(new) => self.invite(*new).map(|()| Answer::Done),
            Command::RevokeInvite(token) => {
                self.invites.0.remove(&token).ok_or(Rejection::InviteUnknown)?;
                self.keep(Row::InviteForgotten(token));
                Ok(Answer::Done)
            }
            Command::Enrol(enrolment) => Ok(Answer::Enrolled(self.enrol(&enrolment))),
            _ => Err(Rejection::NotAllowed),
        }
    }

    fn invite(&mut self, new: NewInvite) -> Result<(), Rejection> {
        let NewInvite { token, trust, environments, owner, region, life } = new;
        if environments.is_empty() || life == Span::default() || life > INVITE_LIFE_MAX {
            return Err(Rejection::SettingsInvalid);
        }
        if self.invites.0.len() >= INVITES_MAX {
            return Err(Rejection::InvitesFull);
        }
        let (made_at, expires_at) = (self.now, self.now + life);
        let invite = Invite { token, trust, environments, owner, region, made_at, expires_at };
        self.invites.0.insert(token, invite.clone());
        self.keep(Row::Invite(Box::new(invite)));
        Ok(())
    }

    /// Lets a node in whose key is proven: one that is registered, or that an invite registers now.
    fn enrol(&mut self, enrolment: &Enrolment) -> Result<Enrolled, NotEnrolled> {
        let Enrolment { node, wants, invite } = enrolment;
        let of = |registered: Environments, region: &Option<Region>| {
            let environments = registered.intersect(*wants);
            let heartbeat_ttl = self.limits.heartbeat_timeout;
            let enrolled = Enrolled { environments, region: region.clone(), heartbeat_ttl };
            if environments.is_empty() { Err(NotEnrolled::NoEnvironment) } else { Ok(enrolled) }
        };
        if let Some(key) = self.fleet.find(node) {
            let row = self.fleet.node(key).record.row();
            return if row.banned.is_some() {
                Err(NotEnrolled::Banned)
            } else {
                of(row.environments, &row.region)
            };
        }
        let token = invite.ok_or(NotEnrolled::KeyUnknown)?;
        let invite = self.invites.0.get(&token).ok_or(NotEnrolled::InviteInvalid)?;
        let enrolled = of(invite.environments, &invite.region)?;
        let mut row = NodeRow::new(node.clone(), invite.trust, invite.environments);
        (row.owner, row.region) = (invite.owner.clone(), invite.region.clone());
        let key = self.fleet.admit(row, self.now).ok_or(NotEnrolled::Full)?;
        // Good for one registration: both are the same step.
        self.invites.0.remove(&token);
        self.keep(Row::InviteForgotten(token));
        self.keep_node(key);
        Ok(enrolled)
    }

    /// Invites whose time is over are found by nobody; they go when somebody looks.
    fn forget_expired_invites(&mut self) {
        let now = self.now;
        let expired: Vec<Digest> = self
            .invites
            .iter()
            .filter(|invite| invite.expires_at <= now)
            .map(|invite| invite.token)
            .collect();
        for token in expired {
            self.invites.0.remove(&token);
            self.keep(Row::InviteForgotten(token));
        }
    }

    /// The invites that are open now.
    pub(super) fn open_invites(&self) -> Vec<Invite> {
        self.invites.iter().filter(|invite| invite.expires_at > self.now).cloned().collect()
    }
}
