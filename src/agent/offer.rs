//! What the node offers: its models with their digests, its slots, its memory.

use std::collections::BTreeMap;

use crate::coordinator::event::{ModelOffer, Warmth};
use crate::ids::{ModelName, Region};
use crate::runtime::{Catalog, Runtime};
use crate::wire::to_box::{Named, Offer, OfferedModel};
use crate::wire::{Hash, MODELS_MAX, NUMBER_MAX};

/// Tokens of cache that all jobs share: more than they can take. Each slot has a cache of its own for a whole context,
/// so slots are what bounds them; and where a box can't count a prompt's tokens, it reckons with its bytes.
const KV_TOKENS: u64 = 1 << 40;

/// What a model's answers may be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Text.
    Text,
    /// Text, and JSON as its server writes it.
    Json,
}

/// What the node offers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Offered {
    models: BTreeMap<ModelName, (OfferedModel, Says)>,
    slots: u32,
    memory_bytes: u64,
    region: Option<Region>,
}

impl Offered {
    /// The models of the catalog as they are now.
    pub(super) fn of(catalog: &Catalog, region: Option<Region>) -> Self {
        let mut models = BTreeMap::new();
        for offer in catalog.offers().into_iter().take(MODELS_MAX) {
            let Some(entry) = catalog.find(&offer.model) else { continue };
            let says = match &entry.runtime {
                Runtime::Upstream(_) => Says::Json,
                Runtime::Echo(_) | Runtime::Local(_) => Says::Text,
            };
            models.insert(offer.model.clone(), (offered(offer), says));
        }
        Self { models, slots: catalog.slots(), memory_bytes: memory_bytes().min(NUMBER_MAX), region }
    }

    /// All models in order of name.
    pub(super) fn models(&self) -> impl Iterator<Item = &OfferedModel> {
        self.models.values().map(|(model, _)| model)
    }

    /// A model by its name, and what it may say.
    pub(super) fn model(&self, name: &str) -> Option<(&OfferedModel, Says)> {
        self.models.get(name).map(|(model, says)| (model, *says))
    }

    /// Jobs that run at once, over all models.
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Models that are in memory.
    pub(super) fn warm(&self) -> Vec<Named> {
        self.models().filter(|model| model.warm).map(|model| Named(model.name.clone())).collect()
    }

    /// As the box hears it.
    pub(super) fn offer(&self) -> Offer {
        Offer {
            models: self.models().cloned().collect(),
            slots: self.slots,
            kv_tokens: KV_TOKENS,
            memory_bytes: self.memory_bytes,
            gpu: None,
            region: self.region.clone(),
        }
    }
}

fn offered(offer: ModelOffer) -> OfferedModel {
    let ModelOffer { model, version, digest, runtime, slots, warmth, load } = offer;
    let (warm, digest) = (warmth == Warmth::Warm, digest.map(Hash::from));
    OfferedModel { name: model, version, digest, runtime, slots, warm, load_ms: load.0 / 1_000 }
}

/// This machine's memory in bytes; 0 where it isn't known.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    total.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1_024)
}
