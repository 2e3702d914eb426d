//! Which node may run which job: the one place where environment, trust, subcloud and hardware are compared.
//!
//! A job's *need* is everything about it that decides this, but for its own lists of nodes. Needs that are equal
//! share a lane, and each lane knows its nodes; so this runs when a node or the set of lanes changes, and once more
//! for every placement, so that nothing stale ever lets a job cross a border.

use std::sync::LazyLock;

use super::effect::Why;
use super::fleet::{Node, Serving};
use super::mutant::mutant;
use super::names::ModelKey;
use super::rare::{Rare, Usual};
use super::spec::{Environment, JobSpec};
use super::standing::Trust;
use super::subcloud::{Subcloud, Subclouds};
use crate::ids::{GpuClass, ModelName, ModelVersion, Region, SubcloudName};
use crate::time::Time;

/// What a job needs of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) environment: Environment,
    pub(super) model: ModelKey,
    pub(super) shape: Shape,
}

/// The part of a need that isn't environment and model: jobs of equal shape share a lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shape {
    pub(super) trust: Trust,
    pub(super) particulars: Rare<Particulars>,
    /// Whether its jobs have another model to fall back to: their lanes are looked through when nobody can serve
    /// them.
    pub(super) falls_back: FallsBack,
    /// Whether the model stands in for another.
    pub(super) stands_in: StandsIn,
}

/// What a node must have for a job that wants something particular.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub(super) struct Particulars {
    pub(super) version: Option<ModelVersion>,
    pub(super) gpu: Option<GpuClass>,
    pub(super) memory_bytes_min: u64,
    pub(super) region: Option<Region>,
    pub(super) subcloud: Option<SubcloudName>,
}

impl Usual for Particulars {
    fn usual() -> &'static Self {
        static USUAL: LazyLock<Particulars> = LazyLock::new(Particulars::default);
        &USUAL
    }
}

/// Whether a job has a model left to fall back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum FallsBack {
    No,
    Yes,
}

/// Whether a job runs on the model that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum StandsIn {
    No,
    Yes,
}

impl Need {
    /// What a job needs while it runs on the model of that index: a version belongs to the first only.
    pub(super) fn of(spec: &JobSpec, model: ModelKey, model_index: u32) -> Self {
        let left = spec.fallbacks.models.len() > model_index as usize;
        let constraints = &spec.constraints;
        let particulars = Particulars {
            version: constraints.version.clone().filter(|_| model_index == 0),
            gpu: constraints.gpu.clone(),
            memory_bytes_min: constraints.memory_bytes_min,
            region: constraints.region.clone(),
            subcloud: constraints.subcloud.clone(),
        };
        let shape = Shape {
            trust: constraints.trust.unwrap_or(Trust::Own),
            particulars: particulars.into(),
            falls_back: if left { FallsBack::Yes } else { FallsBack::No },
            stands_in: if model_index > 0 { StandsIn::Yes } else { StandsIn::No },
        };
        Self { environment: spec.environment, model, shape }
    }
}

/// What a node lacks for a need, the first in the order of [`Why`]; `None` when it may run such jobs now.
pub(super) fn lack(
    node: &Node,
    need: &Need,
    name: &ModelName,
    subclouds: &Subclouds,
    now: Time,
) -> Option<Why> {
    let (shape, wants) = (&need.shape, &*need.shape.particulars);
    let serving = match offered(node, need) {
        Ok(serving) => serving,
        Err(why) => return Some(why),
    };
    if wants.version.is_some() && wants.version != serving.version {
        return Some(Why::NoNodeWithVersion);
    }
    if node.record.row().trust < shape.trust {
        return Some(Why::NoNodeTrustedEnough);
    }
    if wants.region.is_some() && wants.region != node.region {
        return Some(Why::NoNodeInRegion);
    }
    if wants.gpu.is_some() && wants.gpu != node.gpu {
        return Some(Why::NoNodeWithGpu);
    }
    if node.memory_bytes < wants.memory_bytes_min {
        return Some(Why::NoNodeWithMemory);
    }
    if !is_in_its_pool(node, need, name, subclouds) {
        return Some(Why::NoNodeInSubcloud);
    }
    let ready = node.standing_for(serving, name, now).takes_work();
    (!ready).then_some(Why::NoNodeReady)
}

/// The model as the node offers it, where it may run it.
fn offered<'n>(node: &'n Node, need: &Need) -> Result<&'n Serving, Why> {
    let serving = node.serving(need.model).filter(|serving| serving.slots > 0);
    let serving = serving.ok_or(Why::NoNodeServesModel)?;
    if node.may_serve(serving, need.environment) {
        return Ok(serving);
    }
    // With another file under its name it serves another model.
    Err(if node.works_in(need.environment) { Why::NoNodeServesModel } else { Why::NoNodeInEnvironment })
}

/// A job that names a subcloud runs on its members that meet its policy; one that doesn't, on nodes that no
/// subcloud isolates.
fn is_in_its_pool(node: &Node, need: &Need, name: &ModelName, subclouds: &Subclouds) -> bool {
    let stands_in = need.shape.stands_in == StandsIn::Yes;
    if need.shape.particulars.subcloud.is_none() && stands_in && mutant!(IsolateIgnoredForFallback) {
        return true;
    }
    let wanted = need.shape.particulars.subcloud.as_ref();
    let runs = |subcloud: &Subcloud| subcloud.policy.runs(name);
    let admits = wanted.is_none_or(|wanted| subclouds.named(need.environment, wanted).is_some_and(runs));
    admits && subclouds.reaches(need.environment, wanted, node.id(), &node.facts()).is_ok()
}

/// What a node lacks for any job of a model in an environment: its jobs' needs are looked at one by one.
pub(super) fn lack_any(node: &Node, need: &Need, name: &ModelName, now: Time) -> Option<Why> {
    let serving = match offered(node, need) {
        Ok(serving) => serving,
        Err(why) => return Some(why),
    };
    (!node.standing_for(serving, name, now).takes_work()).then_some(Why::NoNodeReady)
}
