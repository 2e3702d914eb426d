//! What a subcloud's nodes must be, and what they run.

use std::collections::BTreeSet;

use super::{POLICY_MODELS_MAX, POLICY_REGIONS_MAX, Refused, within};
use crate::coordinator::standing::Trust;
use crate::ids::{GpuClass, ModelName, Region};

/// A subcloud's policy. What it doesn't name it doesn't restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The models that it runs; `None` for all. An empty set runs none.
    pub models: Option<BTreeSet<ModelName>>,
    /// Where its nodes stand; `None` for anywhere. A node that doesn't say where it stands is nowhere in it.
    pub regions: Option<BTreeSet<Region>>,
    /// How far its nodes are trusted, at least.
    pub trust_min: Trust,
    /// Memory for models, in bytes, at least.
    pub memory_min_bytes: u64,
    /// The GPU that its nodes have; `None` for any or none.
    pub gpu: Option<GpuClass>,
}

/// What a policy looks at in a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// How far it is trusted.
    pub trust: Trust,
    /// Where it stands, if it is known.
    pub region: Option<Region>,
    /// Memory for models, in bytes.
    pub memory_bytes: u64,
    /// Its GPU, if it has one.
    pub gpu: Option<GpuClass>,
}

/// What of a policy a node doesn't meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unmet {
    /// It isn't trusted enough.
    Trust,
    /// It stands elsewhere.
    Region,
    /// It has too little memory.
    Memory,
    /// It has another GPU, or none.
    Gpu,
}

impl Unmet {
    /// The word that the API uses.
    pub fn word(self) -> &'static str {
        match self {
            Unmet::Trust => "trust",
            Unmet::Region => "region",
            Unmet::Memory => "memory",
            Unmet::Gpu => "gpu",
        }
    }
}

impl Policy {
    pub(super) fn check(&self) -> Result<(), Refused> {
        within("models", self.models.as_ref().map_or(0, BTreeSet::len), POLICY_MODELS_MAX)?;
        within("regions", self.regions.as_ref().map_or(0, BTreeSet::len), POLICY_REGIONS_MAX)
    }

    /// Whether it allows that model.
    pub fn runs(&self, model: &ModelName) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(model))
    }

    /// Whether a node meets it; what it lacks first otherwise.
    pub fn met_by(&self, node: &NodeFacts) -> Result<(), Unmet> {
        let in_region =
            |regions: &BTreeSet<Region>| node.region.as_ref().is_some_and(|r| regions.contains(r));
        if node.trust < self.trust_min {
            Err(Unmet::Trust)
        } else if !self.regions.as_ref().is_none_or(in_region) {
            Err(Unmet::Region)
        } else if node.memory_bytes < self.memory_min_bytes {
            Err(Unmet::Memory)
        } else if self.gpu.is_some() && self.gpu != node.gpu {
            Err(Unmet::Gpu)
        } else {
            Ok(())
        }
    }
}
