//! The durable committer, as a program uses it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use switchbox_storage::{
    Change, Codec, Committer, CommitterOptions, Error, Group, JournalOptions, Origin, Rows, StateKind, Store,
    StoreOptions, Stored, Urgency,
};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchbox-durable-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // A segment in the making may get its name meanwhile.
            let _ = fs::copy(entry.path(), &target);
        }
    }
}

/// Numbers with texts; long texts are payloads.
struct Texts;

fn key(number: u32) -> Vec<u8> {
    [7].into_iter().chain(number.to_be_bytes()).collect()
}

impl Codec<u32, String> for Texts {
    fn encode(&self, (number, text): &Change<u32, String>, rows: &mut Rows) {
        match text {
            None => rows.delete(&key(*number)),
            Some(text) if text.len() > 100 => rows.put_payload(&key(*number), text.as_bytes()),
            Some(text) => rows.put(&key(*number), text.as_bytes()),
        }
    }

    fn bytes(&self, (_, text): &Change<u32, String>) -> usize {
        64 + text.as_ref().map_or(0, String::len)
    }
}

fn options() -> StoreOptions {
    StoreOptions {
        journal: JournalOptions { segment_bytes: 1 << 20, ..JournalOptions::default() },
        disk_reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

fn text(number: u32) -> String {
    format!("{number:05}-").repeat(1 + number as usize % 40)
}

fn all(store: &Store) -> BTreeMap<u32, String> {
    let mut rows = BTreeMap::new();
    let visited = store.for_each(&[], None, |key, stored| {
        let bytes = match stored {
            Stored::Value(value) => value.into(),
            Stored::Payload(at) => store.payload(at)?,
        };
        let number = u32::from_be_bytes(key[1..].try_into().expect("four bytes"));
        rows.insert(number, String::from_utf8(bytes).expect("text"));
        Ok::<_, Error>(())
    });
    visited.expect("reads");
    rows
}

#[test]
fn what_was_acknowledged_is_on_disk() {
    let (dir, copies) = (Dir::new("acknowledged"), Dir::new("copies"));
    let (store, opened) = Store::open(&dir.0, options()).expect("opens");
    let (acknowledge, acknowledged) = mpsc::channel();
    let send = move |lsn| acknowledge.send(lsn).expect("the test listens");
    let committer = Committer::start_durable(store.clone(), Texts, CommitterOptions::default(), send);
    let committer = committer.expect("a thread");
    let first = opened.lsn + 1;
    for n in 0..3000u64 {
        let number = n as u32;
        let changes = vec![(number, Some(text(number)))];
        committer.append(
            Group { lsn: first + n, at: n, changes },
            if n % 3 == 0 { Urgency::Urgent } else { Urgency::Lazy },
        );
    }
    // At each acknowledgement that comes, what lies on disk holds all up to it.
    let mut checked = 0;
    loop {
        let lsn = acknowledged.recv().expect("acknowledged");
        if checked < 3 || lsn == first + 2999 {
            let target = copies.0.join(lsn.to_string());
            copy(&dir.0, &target);
            let (copied, found) = Store::open(&target, options()).expect("opens");
            assert!(found.lsn >= lsn);
            let rows = all(&copied);
            (0..=(lsn - first) as u32).for_each(|n| assert_eq!(rows.get(&n), Some(&text(n)), "{n} of {lsn}"));
            checked += 1;
        }
        if lsn == first + 2999 {
            break;
        }
    }
    assert_eq!((committer.backlog(), committer.backlog_bytes()), (0, 0));
}

#[test]
fn a_store_goes_on_where_it_ended() {
    let dir = Dir::new("goes-on");
    let mut epochs = Vec::new();
    for round in 0..3u32 {
        let (store, opened) = Store::open(&dir.0, options()).expect("opens");
        epochs.push(opened.epoch);
        assert_eq!(opened.lsn, u64::from(round) * 10);
        assert_eq!(opened.origin, if round == 0 { Origin::New } else { Origin::State });
        assert_eq!(all(&store).len() as u32, round * 9, "each round deletes one");
        let committer = Committer::start_durable(store, Texts, CommitterOptions::default(), |_| ());
        let committer = committer.expect("a thread");
        for n in 1..=10 {
            let number = round * 10 + n;
            let mut changes = vec![(number, Some(text(number)))];
            changes.extend((n == 10).then_some((round * 10 + 1, None)));
            committer.append(Group { lsn: u64::from(number), at: u64::from(number), changes }, Urgency::Lazy);
        }
        // Dropping it commits the rest.
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

#[test]
#[should_panic(expected = "after step")]
fn steps_of_an_earlier_start_are_refused() {
    let dir = Dir::new("refused");
    for lsn in [5, 5] {
        let (store, _) = Store::open(&dir.0, options()).expect("opens");
        let committer = Committer::start_durable(store, Texts, CommitterOptions::default(), |_| ());
        let changes = vec![(1, Some("x".into()))];
        committer.expect("a thread").append(Group { lsn, at: 0, changes }, Urgency::Urgent);
    }
}

/// Small segments and eager snapshots: rows come, change and go, while payloads are moved and segments removed.
#[test]
fn turnover_keeps_the_disk_flat_and_the_rows_right() {
    let dir = Dir::new("turnover");
    let options = StoreOptions {
        state: StateKind::Sled,
        snapshot_journal_bytes: 2 << 20,
        checkpoint_bytes: 64 << 10,
        checkpoint_every: Duration::from_millis(5),
        burst_bytes: 0,
        ..options()
    };
    let (store, _) = Store::open(&dir.0, options.clone()).expect("opens");
    let durable = std::sync::Arc::new(AtomicU64::new(0));
    let seen = std::sync::Arc::clone(&durable);
    let on_durable = move |lsn| seen.store(lsn, Ordering::Release);
    let committer = Committer::start_durable(store.clone(), Texts, CommitterOptions::default(), on_durable);
    let committer = committer.expect("a thread");
    let mut model = BTreeMap::new();
    let mut lsn = 0;
    while store.gauges().moved_bytes == 0 || store.gauges().segments_removed < 8 {
        for _ in 0..200 {
            lsn += 1;
            let number = lsn as u32 % 1000;
            // One in ten stays for long, so that old segments keep some payloads.
            let kept = number.is_multiple_of(10) && lsn > 1000;
            let long = (!kept).then(|| text(lsn as u32).repeat(8));
            let changes = if kept { vec![(number + 5000, None)] } else { vec![(number, long.clone())] };
            if let Some(text) = long {
                model.insert(number, text);
            }
            committer.append(Group { lsn, at: 0, changes }, Urgency::Lazy);
        }
        committer.hurry();
        while durable.load(Ordering::Acquire) < lsn {
            std::thread::yield_now();
        }
    }
    assert_eq!(all(&store), model);
    assert_eq!(store.trouble(), None);
    drop(committer);
    drop(store);
    fs::remove_dir_all(dir.0.join("state")).expect("remove");
    let (store, opened) = Store::open(&dir.0, options).expect("opens");
    assert!(matches!(opened.origin, Origin::Rebuilt { .. }));
    assert_eq!(all(&store), model, "rebuilt from what was kept");
}
