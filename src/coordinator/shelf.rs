//! What is kept of namespaces, by age. Where there is too much, the oldest thing of whoever keeps the most goes: so
//! nobody pushes another's out by making more.
//!
//! Everything takes logarithmic time, and no table is ever moved to a larger one. What goes next follows from what is
//! there alone, so a shelf that was filled again from rows goes on as the one before.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::ids::{JobId, Namespace};
use crate::time::Time;

/// When a job ended, and which one: no two are of one age.
pub(super) type Age = (Time, JobId);

/// Whose oldest thing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Anybody's: the oldest of all.
    Anybodys,
    /// Of the namespace with the most things.
    MostThings,
    /// Of the namespace with the most bytes.
    MostBytes,
}

/// Things of namespaces.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    piles: BTreeMap<Namespace, Pile>,
    by_age: BTreeMap<Age, Namespace>,
    /// The last one has the most; of two with as much, the one with the older thing.
    by_things: BTreeMap<(usize, Reverse<Age>), Namespace>,
    by_bytes: BTreeMap<(u64, Reverse<Age>), Namespace>,
    things: usize,
    bytes: u64,
}

/// What one namespace has; never empty.
#[derive(Debug, Default)]
struct Pile {
    things: BTreeMap<Age, u64>,
    bytes: u64,
}

impl Shelf {
    /// Adds a thing that takes so many bytes.
    pub(super) fn put(&mut self, namespace: &Namespace, age: Age, bytes: u64) {
        let mut pile = self.take_down(namespace);
        let before = pile.things.insert(age, bytes);
        assert!(before.is_none(), "{} is kept twice", age.1);
        pile.bytes += bytes;
        self.things += 1;
        self.bytes += bytes;
        self.put_up(namespace, pile);
    }

    /// Takes out what would go next, if there is something.
    pub(super) fn take(&mut self, whose: Whose) -> Option<(Namespace, Age)> {
        let last = match whose {
            Whose::Anybodys => self.by_age.first_key_value().map(|(_, namespace)| namespace),
            Whose::MostThings => self.by_things.last_key_value().map(|(_, namespace)| namespace),
            Whose::MostBytes => self.by_bytes.last_key_value().map(|(_, namespace)| namespace),
        };
        let namespace = last?.clone();
        let age = self.piles[&namespace].oldest();
        self.remove(&namespace, age);
        Some((namespace, age))
    }

    /// Takes out a thing, if it is there.
    pub(super) fn remove(&mut self, namespace: &Namespace, age: Age) {
        if !self.piles.get(namespace).is_some_and(|pile| pile.things.contains_key(&age)) {
            return;
        }
        let mut pile = self.take_down(namespace);
        let bytes = pile.things.remove(&age).unwrap_or_default();
        pile.bytes -= bytes;
        self.things -= 1;
        self.bytes -= bytes;
        self.put_up(namespace, pile);
    }

    /// When the oldest thing is from.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.by_age.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many things there are.
    pub(super) fn len(&self) -> usize {
        self.things
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A namespace's pile, out of all orders: it is changed and put up again.
    fn take_down(&mut self, namespace: &Namespace) -> Pile {
        let Some(pile) = self.piles.remove(namespace) else { return Pile::default() };
        let oldest = pile.oldest();
        self.by_age.remove(&oldest);
        self.by_things.remove(&(pile.things.len(), Reverse(oldest)));
        self.by_bytes.remove(&(pile.bytes, Reverse(oldest)));
        pile
    }

    fn put_up(&mut self, namespace: &Namespace, pile: Pile) {
        if pile.things.is_empty() {
            return;
        }
        let oldest = pile.oldest();
        self.by_age.insert(oldest, namespace.clone());
        self.by_things.insert((pile.things.len(), Reverse(oldest)), namespace.clone());
        self.by_bytes.insert((pile.bytes, Reverse(oldest)), namespace.clone());
        self.piles.insert(namespace.clone(), pile);
    }

    /// Every broken invariant in a sentence.
    pub(super) fn check(&self) -> Vec<String> {
        let mut again = Self::default();
        for (namespace, pile) in &self.piles {
            pile.things.iter().for_each(|(age, bytes)| again.put(namespace, *age, *bytes));
        }
        let figures = [
            ("things", self.things as u64, again.things as u64),
            ("bytes", self.bytes, again.bytes),
            ("piles", self.piles.len() as u64, again.piles.len() as u64),
        ];
        let wrong = figures.into_iter().filter(|(_, kept, counted)| kept != counted);
        let wrong = wrong.map(|(what, kept, counted)| format!("{what}: kept {kept}, counted {counted}"));
        let in_order = self.by_age == again.by_age
            && self.by_things == again.by_things
            && self.by_bytes == again.by_bytes;
        let out_of_order = (!in_order).then(|| "the orders of the piles aren't what they hold".to_owned());
        wrong.chain(out_of_order).collect()
    }
}

impl Pile {
    fn oldest(&self) -> Age {
        *self.things.first_key_value().expect("a pile that is up isn't empty").0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(n: u8) -> Namespace {
        Namespace::named(["a", "b", "c"][usize::from(n % 3)])
    }

    fn age(at: u64, n: u64) -> Age {
        (Time(at), JobId { epoch: 1, counter: n })
    }

    #[test]
    fn the_one_with_the_most_loses_its_oldest() {
        let mut shelf = Shelf::default();
        shelf.put(&named(0), age(1, 1), 500);
        (2..6).for_each(|n| shelf.put(&named(1), age(n, n), 1));
        assert_eq!(shelf.take(Whose::MostThings), Some((named(1), age(2, 2))));
        assert_eq!(shelf.take(Whose::MostBytes), Some((named(0), age(1, 1))));
        assert_eq!(shelf.take(Whose::Anybodys), Some((named(1), age(3, 3))));
        assert_eq!((shelf.len(), shelf.bytes(), shelf.oldest()), (2, 2, Some(Time(4))));
        // Of two with as much, the older.
        (7..9).for_each(|n| shelf.put(&named(2), age(n, n), 1));
        assert_eq!(shelf.take(Whose::MostThings), Some((named(1), age(4, 4))));
        assert_eq!(shelf.take(Whose::MostBytes), Some((named(2), age(7, 7))));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Put(u8, u64, u64),
        Take(Whose),
        Remove(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let whose = prop_oneof![Just(Whose::Anybodys), Just(Whose::MostThings), Just(Whose::MostBytes)];
        prop_oneof![
            4 => (0..3_u8, 0..9_u64, 0..9_u64).prop_map(|(of, at, bytes)| Act::Put(of, at, bytes)),
            2 => whose.prop_map(Act::Take),
            1 => (0..20_usize).prop_map(Act::Remove),
        ]
    }

    /// The plain way: look through all of them.
    fn take_plainly(model: &mut Vec<(Namespace, Age, u64)>, whose: Whose) -> Option<(Namespace, Age)> {
        let score = |namespace: &Namespace| {
            let own = model.iter().filter(|(of, ..)| of == namespace);
            match whose {
                Whose::Anybodys => 0,
                Whose::MostThings => own.count() as u64,
                Whose::MostBytes => own.map(|(_, _, bytes)| bytes).sum(),
            }
        };
        let most = model.iter().map(|(namespace, ..)| score(namespace)).max()?;
        let of_those = model.iter().filter(|(namespace, ..)| score(namespace) == most);
        let (namespace, age, _) = of_those.min_by_key(|(_, age, _)| *age)?.clone();
        model.retain(|(_, other, _)| *other != age);
        Some((namespace, age))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn it_does_what_a_plain_list_would(acts in prop::collection::vec(act(), 1..100)) {
            let (mut shelf, mut model) = (Shelf::default(), Vec::new());
            for (number, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Put(of, at, bytes) => {
                        let age = age(at, number as u64);
                        shelf.put(&named(of), age, bytes);
                        model.push((named(of), age, bytes));
                    }
                    Act::Take(whose) => {
                        prop_assert_eq!(shelf.take(whose), take_plainly(&mut model, whose));
                    }
                    Act::Remove(at) if at < model.len() => {
                        let (namespace, age, _) = model.remove(at);
                        shelf.remove(&namespace, age);
                        shelf.remove(&namespace, age);
                    }
                    Act::Remove(_) => {}
                }
                prop_assert_eq!(shelf.len(), model.len());
                prop_assert_eq!(shelf.bytes(), model.iter().map(|(_, _, bytes)| bytes).sum::<u64>());
                prop_assert_eq!(shelf.oldest(), model.iter().map(|(_, age, _)| age.0).min());
                prop_assert_eq!(shelf.check(), Vec::<String>::new());
            }
        }
    }
}
