//! Values that are nearly always the usual one: such a value takes one word, and no memory of its own.
//!
//! A million jobs wait, and most of what a job may ask for or go through is as usual in nearly all of them. Copies
//! share what isn't usual until one of them changes it, so that a job's row is cheap to copy.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What has a usual value, which all that are as usual share.
pub trait Usual: Clone + PartialEq + 'static {
    /// The usual value.
    fn usual() -> &'static Self;
}

/// A value that is read as if it stood here, and takes a word while it is as usual. Writing to it takes memory.
#[derive(Clone)]
pub struct Rare<T>(Option<Arc<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Usual> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((value != *T::usual()).then(|| Arc::new(value)))
    }
}

impl<T: Usual> Deref for Rare<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::usual(),
        }
    }
}

impl<T: Usual> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(T::usual().clone())))
    }
}

impl<T: Usual> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Usual + Eq> Eq for Rare<T> {}

impl<T: Usual + PartialOrd> PartialOrd for Rare<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<T: Usual + Ord> Ord for Rare<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: Usual + Hash> Hash for Rare<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: Usual + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Colour(u32);

    impl Usual for Colour {
        fn usual() -> &'static Self {
            static USUAL: Colour = Colour(7);
            &USUAL
        }
    }

    #[test]
    fn it_is_the_usual_value_until_written_and_copies_go_their_own_ways() {
        let mut one: Rare<Colour> = Rare::default();
        assert_eq!((one.0.is_none(), one.deref()), (true, &Colour(7)));
        assert!(Rare::from(Colour(7)).0.is_none(), "what is usual takes no memory");
        let before = one.clone();
        one.0.take();
        (*one).0 = 8;
        let shared = one.clone();
        (*one).0 = 9;
        assert_eq!((&*before, &*shared, &*one), (&Colour(7), &Colour(8), &Colour(9)));
        (*one).0 = 7;
        assert_eq!(one, before, "values count, not where they are");
    }
}
