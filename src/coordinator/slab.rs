//! A dense table whose places are reused: constant time, no allocation once grown.
//!
//! It grows by pages: moving a million jobs to a larger table would stop the core for a second.

/// Values of a page.
const PAGE_VALUES: usize = 256;

/// A place in a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u32);

/// Values by dense keys.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pages: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), free: Vec::new() }
    }

    /// Puts a value into a free place.
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(place) = self.free.pop() {
            *self.place_mut(Key(place)) = Some(value);
            return Key(place);
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE_VALUES) {
            self.pages.push(Vec::with_capacity(PAGE_VALUES));
        }
        let before = (self.pages.len() - 1) * PAGE_VALUES;
        let page = self.pages.last_mut().expect("just pushed, or had room");
        page.push(Some(value));
        Key(u32::try_from(before + page.len() - 1).expect("fewer than 2^32 places"))
    }

    /// Takes a value out; its key means nothing from now on.
    pub(super) fn remove(&mut self, key: Key) -> T {
        let value = self.place_mut(key).take().expect("a key is dropped with its value");
        self.free.push(key.0);
        value
    }

    /// The value of a key that may have been dropped.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.pages.get(key.0 as usize / PAGE_VALUES)?.get(key.0 as usize % PAGE_VALUES)?.as_ref()
    }

    fn place_mut(&mut self, key: Key) -> &mut Option<T> {
        &mut self.pages[key.0 as usize / PAGE_VALUES][key.0 as usize % PAGE_VALUES]
    }

    pub(super) fn len(&self) -> usize {
        let full = self.pages.len().saturating_sub(1) * PAGE_VALUES;
        full + self.pages.last().map_or(0, Vec::len) - self.free.len()
    }

    /// All values with their keys, in order of place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.pages
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(place, value)| Some((Key(place as u32), value.as_ref()?)))
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
        self.place_mut(key).as_mut().expect("a key is dropped with its value")
    }
}
