//! What the node offers: its models with their digests, its slots, its memory.

use std::collections::BTreeMap;

use crate::ids::{ModelName, Region};
use crate::runtime::Catalog;
use crate::wire::to_box::{Named, Offer, OfferedModel};
use crate::wire::{Hash, MODELS_MAX, NUMBER_MAX};

/// What the node offers.
pub(super) struct Offered {
    models: BTreeMap<ModelName, OfferedModel>,
    kv_tokens: u64,
    memory_bytes: u64,
    region: Option<Region>,
}

impl Offered {
    /// The models of the catalog; `digests` has those that are known by one.
    pub(super) fn of(catalog: &Catalog, digests: &BTreeMap<ModelName, Hash>, region: Option<Region>) -> Self {
        let entries = || catalog.entries().take(MODELS_MAX);
        let models = entries().map(|entry| {
            let offered = OfferedModel {
                name: entry.name.clone(),
                version: None,
                digest: digests.get(&entry.name).copied(),
                slots: entry.slots,
                warm: true,
                load_ms: 0,
            };
            (entry.name.clone(), offered)
        });
        let kv_tokens = entries().map(|entry| u64::from(entry.context_tokens()) * u64::from(entry.slots));
        Self {
            models: models.collect(),
            kv_tokens: kv_tokens.fold(0, u64::saturating_add).min(NUMBER_MAX),
            memory_bytes: memory_bytes().min(NUMBER_MAX),
            region,
        }
    }

    /// All models in order of name.
    pub(super) fn models(&self) -> impl Iterator<Item = &OfferedModel> {
        self.models.values()
    }

    /// A model by its name.
    pub(super) fn model(&self, name: &str) -> Option<&OfferedModel> {
        self.models.get(name)
    }

    /// Jobs that run at once, over all models.
    pub(super) fn slots(&self) -> u32 {
        self.models.values().map(|model| model.slots).fold(0, u32::saturating_add)
    }

    /// Models that are in memory.
    pub(super) fn warm(&self) -> Vec<Named> {
        self.models.values().filter(|model| model.warm).map(|model| Named(model.name.clone())).collect()
    }

    /// As the box hears it.
    pub(super) fn offer(&self) -> Offer {
        Offer {
            models: self.models.values().cloned().collect(),
            slots: self.slots(),
            kv_tokens: self.kv_tokens,
            memory_bytes: self.memory_bytes,
            gpu: None,
            region: self.region.clone(),
        }
    }
}

/// This machine's memory in bytes; 0 where it isn't known.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    total.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1_024)
}
