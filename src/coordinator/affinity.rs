//! Where the beginning of a prompt was read last: the node may still have it in its cache.

use std::collections::{BTreeMap, VecDeque};

use super::names::{ModelKey, NodeKey};

/// Beginnings that are remembered; the oldest is forgotten first.
const PREFIXES_MAX: usize = 16_384;
/// Nodes remembered for one.
pub(super) const NODES_PER_PREFIX_MAX: usize = 2;

type Prefix = (ModelKey, u64);

/// Which nodes read a prompt's beginning.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    nodes: BTreeMap<Prefix, [Option<NodeKey>; NODES_PER_PREFIX_MAX]>,
    /// In order of first sight.
    order: VecDeque<Prefix>,
}

impl Affinity {
    /// A node reads a prompt with this beginning.
    pub(super) fn note(&mut self, model: ModelKey, prefix: u64, node: NodeKey) {
        let key = (model, prefix);
        if let Some(nodes) = self.nodes.get_mut(&key) {
            if nodes[0] != Some(node) {
                nodes[1] = nodes[0].replace(node);
            }
            return;
        }
        if self.order.len() >= PREFIXES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.nodes.remove(&oldest);
        }
        self.order.push_back(key);
        self.nodes.insert(key, [Some(node), None]);
    }

    /// The nodes that may have it, the last one first.
    pub(super) fn nodes(
        &self,
        model: ModelKey,
        prefix: Option<u64>,
    ) -> [Option<NodeKey>; NODES_PER_PREFIX_MAX] {
        prefix.and_then(|prefix| self.nodes.get(&(model, prefix))).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_nodes_are_known_and_the_oldest_beginning_is_forgotten() {
        let (model, node) = (ModelKey::at(0), NodeKey::at);
        let mut affinity = Affinity::default();
        for at in [1, 2, 2, 3] {
            affinity.note(model, 7, node(at));
        }
        assert_eq!(affinity.nodes(model, Some(7)), [Some(node(3)), Some(node(2))]);
        assert_eq!(affinity.nodes(ModelKey::at(1), Some(7)), [None, None]);
        (0..PREFIXES_MAX as u64).for_each(|prefix| affinity.note(model, 100 + prefix, node(1)));
        assert_eq!(affinity.nodes(model, Some(7)), [None, None]);
        assert_eq!(affinity.nodes.len(), PREFIXES_MAX);
    }
}
