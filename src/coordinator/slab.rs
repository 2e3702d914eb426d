//! A dense table whose places are reused: constant time, no allocation once grown.

/// A place in a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u32);

/// Values by dense keys.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// Puts a value into a free place.
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(value);
            return Key(place);
        }
        self.places.push(Some(value));
        Key(self.places.len() as u32 - 1)
    }

    /// Takes a value out; its key means nothing from now on.
    pub(super) fn remove(&mut self, key: Key) -> T {
        let value = self.places[key.0 as usize].take().expect("a key is dropped with its value");
        self.free.push(key.0);
        value
    }

    /// The value of a key that may have been dropped.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.places.get(key.0 as usize)?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// All values with their keys, in order of place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places.iter().enumerate().filter_map(|(place, value)| Some((Key(place as u32), value.as_ref()?)))
    }
}

impl<T> std::ops::Index<Key> for Slab<T> {
    type Output = T;
    fn index(&self, key: Key) -> &T {
        self.places[key.0 as usize].as_ref().expect("a key is dropped with its value")
    }
}

impl<T> std::ops::IndexMut<Key> for Slab<T> {
    fn index_mut(&mut self, key: Key) -> &mut T {
        self.places[key.0 as usize].as_mut().expect("a key is dropped with its value")
    }
}
