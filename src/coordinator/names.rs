//! Dense keys for what has a name: models, namespaces, nodes, constraint shapes; and lanes, which have none.
//!
//! A key is given once and means the same name for as long as the process lives, so that tables by key can be
//! plain vectors. Keys never leave the core and are never stored.

use std::hash::Hash;
use std::marker::PhantomData;

use super::by_hash::ByHash;

/// Defines a key: small, ordered by when it was given, good as an index.
macro_rules! dense_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(u32);

        impl $name {
            /// Where tables keep what belongs to it.
            pub(super) fn index(self) -> usize {
                self.0 as usize
            }

            /// The key of a place in a table.
            #[allow(dead_code, reason = "not every kind of key is made from a place")]
            pub(super) fn at(place: usize) -> Self {
                Self(u32::try_from(place).expect("tables have fewer than 2^32 places"))
            }
        }

        impl From<$name> for usize {
            fn from(key: $name) -> usize {
                key.index()
            }
        }

        impl From<u32> for $name {
            fn from(place: u32) -> Self {
                Self(place)
            }
        }
    };
}

dense_key!(
    /// A model.
    ModelKey
);
dense_key!(
    /// A namespace.
    NamespaceKey
);
dense_key!(
    /// A node.
    NodeKey
);
dense_key!(
    /// What a set of jobs asks of a node, apart from the model; the fleet knows what it means.
    ShapeKey
);
dense_key!(
    /// A lane of the backlog. Unlike the others it may be given again, after its lane was evicted.
    LaneKey
);

/// Names and their keys, both ways. It never forgets one: what could be forgotten couldn't be bounded by a count.
#[derive(Debug)]
pub(super) struct Names<T, K> {
    names: Vec<T>,
    by_hash: ByHash,
    names_max: usize,
    keys: PhantomData<K>,
}

impl<T: Hash + Eq + Clone, K: From<u32> + Into<usize>> Names<T, K> {
    /// Room for that many names, and none yet.
    pub(super) fn new(names_max: usize) -> Self {
        Self { names: Vec::new(), by_hash: ByHash::default(), names_max, keys: PhantomData }
    }

    /// The key of a name, a new one if need be; `None` when there are too many names to take another.
    pub(super) fn intern(&mut self, name: &T) -> Option<K> {
        let number = match self.by_hash.find(name, |place| self.names[place] == *name) {
            Ok(place) => return Some(Self::key_at(place)),
            Err(number) => number,
        };
        if self.names.len() >= self.names_max {
            return None;
        }
        let place = self.names.len();
        self.names.push(name.clone());
        self.by_hash.file(number, place);
        Some(Self::key_at(place))
    }

    /// The key of a name that was interned before.
    pub(super) fn key(&self, name: &T) -> Option<K> {
        self.by_hash.find(name, |place| self.names[place] == *name).ok().map(Self::key_at)
    }

    fn key_at(place: usize) -> K {
        K::from(u32::try_from(place).expect("tables have fewer than 2^32 places"))
    }
}

impl<T, K: Into<usize>> std::ops::Index<K> for Names<T, K> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        &self.names[key.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_key_and_there_is_a_bound() {
        let mut names: Names<&str, ModelKey> = Names::new(2);
        let (a, b) = (names.intern(&"a").expect("room"), names.intern(&"b").expect("room"));
        assert!(a < b);
        assert_eq!(names.intern(&"a"), Some(a), "known names need no room");
        assert_eq!(names.intern(&"c"), None);
        assert_eq!((names.key(&"b"), names.key(&"c")), (Some(b), None));
        assert_eq!((names[a], names[b]), ("a", "b"));
    }
}
