//! Subclouds: named groups of nodes within one environment, with a policy and owners (SPEC section 8).
//!
//! Says who may use which nodes. Subclouds of the two environments are apart by construction: every look-up takes the
//! environment, and the same name in both means two subclouds. Nothing here knows whether a node is connected or free.

mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::event::Environment;
use super::standing::Environments;
use crate::ids::{ModelName, Namespace, NodeId, SubcloudName};

pub use self::policy::{NodeFacts, Policy, Unmet};

/// Subclouds in all.
pub const SUBCLOUDS_MAX: usize = 1_000;
/// Nodes of one subcloud.
pub const SUBCLOUD_NODES_MAX: usize = 10_000;
/// Subclouds that one node is in.
pub const NODE_SUBCLOUDS_MAX: usize = 32;
/// Namespaces that own one subcloud.
pub const SUBCLOUD_OWNERS_MAX: usize = 64;
/// Namespaces that one subcloud allows by name.
pub const SUBCLOUD_ALLOWED_MAX: usize = 10_000;
/// Models that a policy names.
pub const POLICY_MODELS_MAX: usize = 256;
/// Regions that a policy names.
pub const POLICY_REGIONS_MAX: usize = 64;

/// Whether a subcloud's nodes also serve the global pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// They do.
    Shared,
    /// They serve only jobs that name one of their subclouds.
    Isolated,
}

/// Which namespaces may use a subcloud. Its owners always may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// All.
    Everyone,
    /// These.
    Only(BTreeSet<Namespace>),
}

/// A subcloud, and its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subcloud {
    /// Its name, unique within its environment.
    pub name: SubcloudName,
    /// Which world it is in; it never changes.
    pub environment: Environment,
    /// What its nodes must be, and what they run.
    pub policy: Policy,
    /// Whether its nodes leave the global pool.
    pub isolate: Isolation,
    /// Who may change it, besides the operator.
    pub owners: BTreeSet<Namespace>,
    /// Who may use it.
    pub allowed: Allowed,
    /// Its nodes.
    pub nodes: BTreeSet<NodeId>,
}

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Who runs the box: may do everything.
    Operator,
    /// A namespace: may change what it owns.
    Namespace(Namespace),
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no subcloud of this name in this environment.
    Unknown,
    /// The namespace doesn't own it; or it is new, and only the operator makes new ones.
    NotOwner,
    /// So many, of what, where at most so many are allowed.
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most.
        max: usize,
    },
    /// The node isn't registered for the subcloud's environment.
    OtherEnvironment,
    /// The node belongs to somebody else than the namespace that adds it.
    OthersNode,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("there is no such subcloud in this environment: list them, or create it")
            }
            Self::NotOwner => {
                f.write_str("this namespace doesn't own the subcloud: ask its owner or the operator")
            }
            Self::TooMany { what, max } => write!(f, "too many {what}: at most {max} are allowed"),
            Self::OtherEnvironment => f.write_str(
                "the node isn't registered for the subcloud's environment: register it there first",
            ),
            Self::OthersNode => f.write_str(
                "the node isn't this namespace's, and an owner adds its own nodes only: ask the operator to add it",
            ),
        }
    }
}

/// Why a job may not use a subcloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotAdmitted {
    /// There is no subcloud of this name in the job's environment.
    Unknown,
    /// It doesn't allow the job's namespace.
    Namespace,
    /// Its policy doesn't name the job's model.
    Model,
}

/// What `put` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was none of this name.
    Created,
    /// It took the place of the one there was.
    Changed,
}

type Place = (Environment, SubcloudName);

/// All subclouds, and for each node the ones that it is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subclouds {
    all: BTreeMap<Place, Subcloud>,
    of_node: BTreeMap<NodeId, BTreeSet<Place>>,
}

fn within(what: &'static str, count: usize, max: usize) -> Result<(), Refused> {
    if count > max { Err(Refused::TooMany { what, max }) } else { Ok(()) }
}

impl Subcloud {
    fn check(&self) -> Result<(), Refused> {
        self.policy.check()?;
        within("owners", self.owners.len(), SUBCLOUD_OWNERS_MAX)?;
        within("nodes", self.nodes.len(), SUBCLOUD_NODES_MAX)?;
        match &self.allowed {
            Allowed::Everyone => Ok(()),
            Allowed::Only(namespaces) => within("allowed namespaces", namespaces.len(), SUBCLOUD_ALLOWED_MAX),
        }
    }

    fn may_change(&self, actor: &Actor) -> Result<(), Refused> {
        match actor {
            Actor::Namespace(namespace) if !self.owners.contains(namespace) => Err(Refused::NotOwner),
            _ => Ok(()),
        }
    }

    fn place(&self) -> Place {
        (self.environment, self.name.clone())
    }

    /// Whether a job of that namespace and model may use it. A fallback model is a model: it is asked for anew.
    pub fn admits(&self, namespace: &Namespace, model: &ModelName) -> Result<(), NotAdmitted> {
        let allowed = match &self.allowed {
            Allowed::Everyone => true,
            Allowed::Only(namespaces) => namespaces.contains(namespace) || self.owners.contains(namespace),
        };
        if !allowed {
            Err(NotAdmitted::Namespace)
        } else if !self.policy.runs(model) {
            Err(NotAdmitted::Model)
        } else {
            Ok(())
        }
    }
}

impl Subclouds {
    /// From what survived. A row that breaks a bound was never written, so it is a bug.
    pub fn recover(rows: impl IntoIterator<Item = Subcloud>) -> Self {
        let mut subclouds = Self::default();
        for row in rows {
            let place = row.place();
            subclouds.create(row).unwrap_or_else(|refused| panic!("subcloud row {place:?}: {refused}"));
        }
        subclouds
    }

    /// Creates a subcloud, or changes everything about it but its nodes: those come and go one by one, so that an older
    /// list doesn't undo what another owner did meanwhile.
    pub fn put(&mut self, actor: &Actor, mut subcloud: Subcloud) -> Result<Put, Refused> {
        let place = subcloud.place();
        let Some(present) = self.all.get(&place) else {
            subcloud.nodes.clear();
            return match actor {
                Actor::Operator => self.create(subcloud).map(|()| Put::Created),
                Actor::Namespace(_) => Err(Refused::NotOwner),
            };
        };
        present.may_change(actor)?;
        subcloud.nodes = present.nodes.clone();
        subcloud.check()?;
        self.all.insert(place, subcloud);
        Ok(Put::Changed)
    }

    fn create(&mut self, subcloud: Subcloud) -> Result<(), Refused> {
        subcloud.check()?;
        within("subclouds", self.all.len() + 1, SUBCLOUDS_MAX)?;
        let joins = |node| within("subclouds of a node", self.of(node).count() + 1, NODE_SUBCLOUDS_MAX);
        subcloud.nodes.iter().try_for_each(joins)?;
        for node in &subcloud.nodes {
            self.of_node.entry(node.clone()).or_default().insert(subcloud.place());
        }
        self.all.insert(subcloud.place(), subcloud);
        Ok(())
    }

    /// Ends a subcloud; its nodes go back to what else they are in.
    pub fn drop(
        &mut self,
        actor: &Actor,
        environment: Environment,
        name: &SubcloudName,
    ) -> Result<Subcloud, Refused> {
        self.changeable(actor, environment, name)?;
        let place = (environment, name.clone());
        let subcloud = self.all.remove(&place).ok_or(Refused::Unknown)?;
        subcloud.nodes.iter().for_each(|node| self.forget(node, &place));
        Ok(subcloud)
    }

    /// Whether that party may add a node of that owner. A namespace adds its own nodes: with others' it could take the
    /// whole global pool for itself.
    pub fn may_add(
        &self,
        actor: &Actor,
        environment: Environment,
        name: &SubcloudName,
        owner: Option<&Namespace>,
    ) -> Result<(), Refused> {
        self.changeable(actor, environment, name)?;
        match actor {
            Actor::Namespace(namespace) if owner != Some(namespace) => Err(Refused::OthersNode),
            _ => Ok(()),
        }
    }

    /// Adds a node that is registered for these environments. Adding it again changes nothing. Whether it meets the
    /// policy is asked at each placement, for a node's facts change.
    pub fn add_node(
        &mut self,
        actor: &Actor,
        environment: Environment,
        name: &SubcloudName,
        node: &NodeId,
        registered: Environments,
    ) -> Result<(), Refused> {
        let subcloud = self.changeable(actor, environment, name)?;
        if !registered.contains(environment) {
            return Err(Refused::OtherEnvironment);
        }
        if subcloud.nodes.contains(node) {
            return Ok(());
        }
        within("nodes", subcloud.nodes.len() + 1, SUBCLOUD_NODES_MAX)?;
        within("subclouds of a node", self.of(node).count() + 1, NODE_SUBCLOUDS_MAX)?;
        let place = (environment, name.clone());
        self.all.get_mut(&place).ok_or(Refused::Unknown)?.nodes.insert(node.clone());
        self.of_node.entry(node.clone()).or_default().insert(place);
        Ok(())
    }

    /// Takes a node out. One that isn't in it changes nothing.
    pub fn remove_node(
        &mut self,
        actor: &Actor,
        environment: Environment,
        name: &SubcloudName,
        node: &NodeId,
    ) -> Result<(), Refused> {
        self.changeable(actor, environment, name)?;
        let place = (environment, name.clone());
        self.all.get_mut(&place).ok_or(Refused::Unknown)?.nodes.remove(node);
        self.forget(node, &place);
        Ok(())
    }

    fn changeable(
        &self,
        actor: &Actor,
        environment: Environment,
        name: &SubcloudName,
    ) -> Result<&Subcloud, Refused> {
        let subcloud = self.named(environment, name).ok_or(Refused::Unknown)?;
        subcloud.may_change(actor)?;
        Ok(subcloud)
    }

    fn forget(&mut self, node: &NodeId, place: &Place) {
        if let Some(places) = self.of_node.get_mut(node) {
            places.remove(place);
            if places.is_empty() {
                self.of_node.remove(node);
            }
        }
    }

    /// The subcloud of that name there.
    pub fn named(&self, environment: Environment, name: &SubcloudName) -> Option<&Subcloud> {
        self.all.get(&(environment, name.clone()))
    }

    /// All, by environment and name.
    pub fn iter(&self) -> impl Iterator<Item = &Subcloud> {
        self.all.values()
    }

    /// Those that a node is in.
    pub fn of(&self, node: &NodeId) -> impl Iterator<Item = &Subcloud> {
        let places = self.of_node.get(node).into_iter().flatten();
        places.map(|place| {
            self.all.get(place).unwrap_or_else(|| panic!("{place:?} is indexed but isn't there"))
        })
    }

    /// Whether the node has left that environment's global pool.
    pub fn is_isolated(&self, environment: Environment, node: &NodeId) -> bool {
        self.of(node).any(|s| s.environment == environment && s.isolate == Isolation::Isolated)
    }

    /// Whether a job of that namespace and model may use that subcloud.
    pub fn admits(
        &self,
        environment: Environment,
        name: &SubcloudName,
        namespace: &Namespace,
        model: &ModelName,
    ) -> Result<(), NotAdmitted> {
        self.named(environment, name).ok_or(NotAdmitted::Unknown)?.admits(namespace, model)
    }

    /// Whether a job that names this subcloud (or none) may run on this node, as far as subclouds say: a job without
    /// one keeps off isolated nodes; a job with one keeps to its members that meet its policy. Retries and fallbacks
    /// ask again.
    pub fn reaches(
        &self,
        environment: Environment,
        wanted: Option<&SubcloudName>,
        node: &NodeId,
        facts: &NodeFacts,
    ) -> Result<(), Unreached> {
        let Some(name) = wanted else {
            return if self.is_isolated(environment, node) { Err(Unreached::Isolated) } else { Ok(()) };
        };
        let subcloud = self.named(environment, name).ok_or(Unreached::Unknown)?;
        if !subcloud.nodes.contains(node) {
            return Err(Unreached::NotMember);
        }
        subcloud.policy.met_by(facts).map_err(Unreached::Unmet)
    }
}

/// Why a job doesn't reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unreached {
    /// The node serves only jobs that name one of its subclouds.
    Isolated,
    /// There is no subcloud of this name in the job's environment.
    Unknown,
    /// The node isn't in it.
    NotMember,
    /// The node is in it but doesn't meet its policy.
    Unmet(Unmet),
}
