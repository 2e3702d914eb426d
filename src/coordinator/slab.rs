//! A dense table whose places are reused: constant time, no allocation once grown.
//!
//! It grows by pages: moving a million jobs to a larger table would stop the core for a second.

/// Values of a page.
const PAGE_VALUES: usize = 256;
/// Ends the list of free places.
const NONE: u32 = u32::MAX;

/// A place in a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u32);

/// Values by dense keys.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pages: Vec<Vec<Place<T>>>,
    /// The place that was left last: a list of free places would have to be moved when a million leave.
    free: u32,
    len: usize,
}

/// What is at a place.
#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// Nothing; the place that was left before it.
    Free(u32),
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), free: NONE, len: 0 }
    }

    /// Puts a value into a free place: the one that was left last.
    pub(super) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.free != NONE {
            let key = Key(self.free);
            let before = std::mem::replace(self.place_mut(key), Place::Taken(value));
            let Place::Free(next) = before else { panic!("place {} was taken and free", key.0) };
            self.free = next;
            return key;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE_VALUES) {
            self.pages.push(Vec::with_capacity(PAGE_VALUES));
        }
        let before = (self.pages.len() - 1) * PAGE_VALUES;
        let page = self.pages.last_mut().expect("just pushed, or had room");
        page.push(Place::Taken(value));
        let place = u32::try_from(before + page.len() - 1).ok().filter(|place| *place != NONE);
        Key(place.expect("fewer than 2^32 - 1 places"))
    }

    /// Takes a value out; its key means nothing from now on.
    pub(super) fn remove(&mut self, key: Key) -> T {
        assert!(self.get(key).is_some(), "a key is dropped with its value");
        let next = std::mem::replace(&mut self.free, key.0);
        let Place::Taken(value) = std::mem::replace(self.place_mut(key), Place::Free(next)) else {
            panic!("looked at just before")
        };
        self.len -= 1;
        value
    }

    /// The value of a key that may have been dropped.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.pages.get(key.0 as usize / PAGE_VALUES)?.get(key.0 as usize % PAGE_VALUES)?.value()
    }

    fn place_mut(&mut self, key: Key) -> &mut Place<T> {
        &mut self.pages[key.0 as usize / PAGE_VALUES][key.0 as usize % PAGE_VALUES]
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All values with their keys, in order of place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.pages
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(place, value)| Some((Key(place as u32), value.value()?)))
    }
}

impl<T> Place<T> {
    fn value(&self) -> Option<&T> {
        match self {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }
}

impl<T> std::ops::Index<Key> for Slab<T> {
    type Output = T;
    fn index(&self, key: Key) -> &T {
        self.get(key).expect("a key is dropped with its value")
    }
}

impl<T> std::ops::IndexMut<Key> for Slab<T> {
    fn index_mut(&mut self, key: Key) -> &mut T {
        match self.place_mut(key) {
            Place::Taken(value) => value,
            Place::Free(_) => panic!("a key is dropped with its value"),
        }
    }
}

/// Bytes that a value takes here.
#[cfg(test)]
pub(super) fn place_bytes<T>() -> usize {
    size_of::<Place<T>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_the_last_left_first() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..600).map(|n| slab.insert(n)).collect();
        assert_eq!((keys[0], keys[599], slab.len()), (Key(0), Key(599), 600));
        for at in [7, 300, 599] {
            assert_eq!(slab.remove(keys[at]), at);
            assert_eq!(slab.get(keys[at]), None);
        }
        assert_eq!((slab.len(), slab.iter().count()), (597, 597));
        assert_eq!([1_000, 1_001].map(|n| slab.insert(n)), [keys[599], keys[300]]);
        slab.remove(keys[0]);
        assert_eq!([1_002, 1_003, 1_004].map(|n| slab.insert(n)), [keys[0], keys[7], Key(600)]);
        assert_eq!((slab[keys[7]], slab.len()), (1_003, 601));
        slab[keys[7]] = 5;
        assert_eq!(slab.iter().map(|(_, value)| *value).filter(|value| *value == 5).count(), 2);
    }

    #[test]
    #[should_panic(expected = "dropped with its value")]
    fn a_value_is_taken_out_once() {
        let mut slab = Slab::new();
        let key = slab.insert(());
        slab.remove(key);
        slab.remove(key);
    }
}
