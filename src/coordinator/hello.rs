//! What a node brings when it joins: who it is, what it can do, and what it still holds.

use super::event::{Completion, Environment, ModelOffer, Verified};
use super::standing::Trust;
use crate::ids::{Digest, GpuClass, ModelName, NodeId, Region, ReservationId, Session};

/// What a node brings when it joins.
#[derive(Debug, Clone)]
pub struct NodeHello {
    /// Who it is.
    pub node: NodeId,
    /// Numbers its connections; a lower one than the newest is of no effect.
    pub session: Session,
    /// The trust of a node that the box doesn't know yet: `Own` for itself only.
    pub trust: Trust,
    /// For which environments it wants to work.
    pub environments: Vec<Environment>,
    /// What it serves.
    pub models: Vec<ModelOffer>,
    /// Jobs that it runs at once, over all models.
    pub slots: u32,
    /// Tokens of KV cache that all its jobs share.
    pub kv_tokens: u64,
    /// Memory for models, in bytes.
    pub memory_bytes: u64,
    /// Its GPU.
    pub gpu: Option<GpuClass>,
    /// Where it is.
    pub region: Option<Region>,
    /// Configurations that it has, by digest.
    pub configurations: Vec<(Environment, Digest)>,
    /// Reservations that it still runs.
    pub running: Vec<Held>,
    /// Results that it has not been told are accepted.
    pub results: Vec<Verified<Completion>>,
}

/// A reservation that a node still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub reservation: ReservationId,
    /// On which model.
    pub model: ModelName,
    /// Tokens of its cache that it may take.
    pub kv_tokens: u64,
}

impl NodeHello {
    /// What the box's own node brings: everything fits that its slots take, and nobody needs to vouch for it.
    pub fn local(models: Vec<ModelOffer>) -> Self {
        Self {
            node: NodeId::local(),
            session: Session(1),
            trust: Trust::Own,
            environments: Environment::ALL.to_vec(),
            slots: models.iter().map(|offer| offer.slots).fold(0, u32::saturating_add),
            models,
            kv_tokens: u64::MAX,
            memory_bytes: u64::MAX,
            gpu: None,
            region: None,
            configurations: Vec::new(),
            running: Vec::new(),
            results: Vec::new(),
        }
    }
}

/// What a node has for its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equipment {
    /// Jobs that it runs at once, over all models.
    pub slots: u32,
    /// Tokens of KV cache that all its jobs share.
    pub kv_tokens: u64,
    /// Memory for models, in bytes.
    pub memory_bytes: u64,
    /// Its GPU.
    pub gpu: Option<GpuClass>,
    /// Where it is.
    pub region: Option<Region>,
}
