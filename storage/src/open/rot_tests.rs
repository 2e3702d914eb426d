//! Rot: bits flipped, pages zeroed, files cut, anywhere. What was committed comes back, or the start (or the read of
//! one payload) is refused by file and offset. Never something else. Only the last group may be lost.

use std::fs;
use std::path::{Path, PathBuf};

use super::tests::{Model, opened, options, step, with_history};
use super::*;
use crate::row::Stored;
use crate::scratch::{Choices, Scratch};
use crate::state::StateKind;

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).expect("there").len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Harms a file, and says how and where.
fn harm(path: &Path, choices: &mut Choices) -> (usize, String) {
    let mut bytes = fs::read(path).expect("read");
    let at = choices.below(bytes.len());
    let kind = choices.below(3);
    match kind {
        0 => bytes[at] ^= 1 << choices.below(8),
        1 => {
            let page = at / 4096 * 4096;
            let end = bytes.len().min(page + 4096);
            bytes[page..end].fill(0);
        }
        _ => bytes.truncate(at),
    }
    fs::write(path, bytes).expect("write");
    (at, format!("{} at {at}: {}", path.display(), ["bit", "page", "cut"][kind]))
}

/// The rows; a payload that is refused by name counts as the model's.
fn rows_of(store: &Store, model: &Model, harm: &str) -> Model {
    let mut found = Model::new();
    let visited = store.for_each(&[], None, |key, stored| {
        let bytes = match stored {
            Stored::Value(value) => value.into(),
            Stored::Payload(at) => match store.payload(at) {
                Ok(bytes) => bytes,
                Err(Error::Damaged { .. }) => model.get(&*key).cloned().unwrap_or_default(),
                Err(error) => return Err(error),
            },
        };
        found.insert(key.into(), bytes);
        Ok::<_, Error>(())
    });
    visited.expect(harm);
    found
}

/// A directory, with what it holds before and after its last group.
struct History {
    dir: Scratch,
    before: Model,
    after: Model,
    last_group: (PathBuf, std::ops::Range<usize>),
}

fn history() -> History {
    let (dir, before) = with_history(StateKind::Sled);
    let mut after = before.clone();
    let (store, _) = opened(dir.path(), StateKind::Sled);
    let end = |store: &Store| store.shared.tail.writer().end();
    let start = end(&store);
    step(&store, &mut after, &mut Choices(5));
    assert_eq!(start.segment, end(&store).segment);
    let path = segment::path_of(Path::new("journal"), start.segment);
    let last_group = (path, start.offset as usize..end(&store).offset as usize);
    let copy = dir.copy();
    drop(store);
    History { dir: copy, before, after, last_group }
}

fn check_rot(seed: u64, rounds: usize) {
    let History { dir, before, after, last_group } = history();
    let files = files(dir.path());
    let mut choices = Choices(seed);
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..rounds {
        let copy = dir.copy();
        let file = &files[choices.below(files.len())];
        let name = file.strip_prefix(dir.path()).expect("inside");
        let (at, harm) = harm(&copy.path().join(name), &mut choices);
        let exempt = name == last_group.0 && last_group.1.contains(&at);
        match Store::open(copy.path(), options(StateKind::Sled)) {
            Ok((store, found)) => {
                let rows = rows_of(&store, &after, &harm);
                assert!(rows == after || (exempt && rows == before), "{harm}: {:?}", found.torn_tail);
                whole += 1;
            }
            Err(Error::Damaged { path, .. } | Error::Newer { path, .. }) => {
                assert!(path.starts_with(copy.path()), "{harm}: {}", path.display());
                refused += 1;
            }
            Err(error) => panic!("{harm}: {error}"),
        }
    }
    assert!(whole > 0 && refused > 0, "{whole} recovered, {refused} refused");
}

#[test]
fn rot_is_recovered_or_refused() {
    check_rot(0x0707, 60);
}

/// `cargo test -p switchbox-storage --release rot_at_length -- --ignored`
#[test]
#[ignore = "minutes: 2,000 corruptions"]
fn rot_at_length() {
    (1..=20).for_each(|seed| check_rot(seed * 65_537, 100));
}
