//! Models that nodes of other machines offer now, for who lists models. Whether a job of one is let in is the core's to
//! say, which remembers them longer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ids::ModelName;
use crate::sync::lock;

/// Models of nodes, by the names that clients use.
#[derive(Default)]
pub struct Offered {
    models: Mutex<BTreeMap<ModelName, Model>>,
    /// Whether a node ever offered one.
    any: AtomicBool,
}

struct Model {
    nodes: usize,
    since_unix: u64,
}

impl Offered {
    /// A node offers these now, in place of what it offered `before`; each name once.
    pub fn replace(&self, before: &[ModelName], now: &[ModelName], unix_now: u64) {
        let mut models = lock(&self.models);
        for name in now {
            let model = models.entry(name.clone()).or_insert(Model { nodes: 0, since_unix: unix_now });
            model.nodes += 1;
        }
        for name in before {
            if let Some(model) = models.get_mut(name) {
                model.nodes -= 1;
                if model.nodes == 0 {
                    models.remove(name);
                }
            }
        }
        if !now.is_empty() {
            self.any.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a node of another machine ever offered a model to this process.
    pub fn ever(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// All of them with the unix second since when they are offered, in order of name.
    pub fn all(&self) -> Vec<(ModelName, u64)> {
        lock(&self.models).iter().map(|(name, model)| (name.clone(), model.since_unix)).collect()
    }

    /// Since when that one is offered.
    pub fn since(&self, name: &str) -> Option<u64> {
        lock(&self.models).get(name).map(|model| model.since_unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_offered_as_long_as_one_node_does() {
        let offered = Offered::default();
        let names = |names: &[&str]| -> Vec<ModelName> { names.iter().map(|name| (*name).into()).collect() };
        assert!(!offered.ever());
        offered.replace(&[], &names(&["a", "b"]), 1);
        offered.replace(&[], &names(&["b"]), 2);
        assert_eq!(offered.all(), [("a".into(), 1), ("b".into(), 1)]);
        offered.replace(&names(&["a", "b"]), &names(&["a"]), 3);
        assert_eq!(offered.all(), [("a".into(), 1), ("b".into(), 1)]);
        offered.replace(&names(&["b"]), &[], 4);
        offered.replace(&names(&["a"]), &[], 5);
        assert_eq!((offered.all(), offered.since("b")), (vec![], None));
        assert!(offered.ever());
    }
}
