//! `kill -9` at any time: what was acknowledged is there, and what is there is a prefix of the steps.
//!
//! The child is this very test binary. A step follows from its number, so the rows that must be there follow from the
//! number of the last one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use switchbox_storage::{
    Change, Codec, Committer, CommitterOptions, Error, Group, JournalOptions, Rows, Store, StoreOptions,
    Stored, Urgency, doctor,
};

const DIR: &str = "SWITCHBOX_STORAGE_KILL_DIR";
const KEYS: u64 = 300;

/// Everything happens often.
fn options() -> StoreOptions {
    StoreOptions {
        journal: JournalOptions { segment_bytes: 256 << 10, ..JournalOptions::default() },
        checkpoint_bytes: 16 << 10,
        checkpoint_every: Duration::from_millis(3),
        snapshot_journal_bytes: 512 << 10,
        disk_reserve_bytes: 0,
        audit: |_, value| value.iter().map(|byte| i128::from(*byte)).sum(),
        ..StoreOptions::default()
    }
}

/// What step `lsn` does.
fn change(lsn: u64) -> (u64, Option<Vec<u8>>) {
    // Some keys are rarely written, so that payloads grow old.
    let key = if lsn.is_multiple_of(50) { KEYS + lsn / 50 % 40 } else { lsn % KEYS };
    let bytes = if lsn.is_multiple_of(3) { 3000 + (lsn % 7000) as usize } else { (lsn % 100) as usize };
    (key, (lsn % 11 != 5).then(|| lsn.to_be_bytes().into_iter().cycle().take(bytes).collect()))
}

struct Bytes;

impl Codec<u64, Vec<u8>> for Bytes {
    fn encode(&self, (key, value): &Change<u64, Vec<u8>>, rows: &mut Rows) {
        let key = [&[9][..], &key.to_be_bytes()].concat();
        match value {
            None => rows.delete(&key),
            Some(value) if value.len() > 2000 => rows.put_payload(&key, value),
            Some(value) => rows.put(&key, value),
        }
    }

    fn bytes(&self, (_, value): &Change<u64, Vec<u8>>) -> usize {
        64 + value.as_ref().map_or(0, Vec::len)
    }
}

/// The child: commits steps for ever and writes the number of each durable one.
#[test]
#[ignore = "runs as the child of the other tests"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (store, opened) = Store::open(Path::new(&dir), options()).expect("opens");
    let acknowledge = |lsn: u64| std::io::stderr().write_all(&lsn.to_le_bytes()).expect("the parent reads");
    let committer = Committer::start_durable(store.clone(), Bytes, CommitterOptions::default(), acknowledge);
    let committer = committer.expect("a thread");
    for lsn in opened.lsn + 1.. {
        while committer.backlog() > 20 {
            std::thread::yield_now();
        }
        let urgency = if lsn.is_multiple_of(4) { Urgency::Urgent } else { Urgency::Lazy };
        committer.append(Group { lsn, at: 0, changes: vec![change(lsn)] }, urgency);
    }
}

/// Starts the child, kills it after `life`, and returns the last number that it wrote.
fn killed(dir: &Path, life: Duration) -> u64 {
    let exe = std::env::current_exe().expect("this binary");
    let mut command = Command::new(exe);
    command.args(["--ignored", "--exact", "child", "--nocapture"]).env(DIR, dir);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let killer = move |mut child: Child| {
        std::thread::sleep(life);
        child.kill().expect("it lives");
        child.wait().expect("it ends");
    };
    let mut acknowledged = child.stderr.take().expect("piped");
    let killing = std::thread::spawn(move || killer(child));
    let mut bytes = Vec::new();
    acknowledged.read_to_end(&mut bytes).expect("reads");
    killing.join().expect("killed");
    let numbers = bytes.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().expect("eight")));
    let numbers: Vec<u64> = numbers.collect();
    assert!(numbers.is_sorted(), "{}", String::from_utf8_lossy(&bytes));
    numbers.last().copied().unwrap_or(0)
}

/// Checks that all steps up to `lsn`, and no other, are there.
fn check(store: &Store, lsn: u64, model: &mut (u64, BTreeMap<u64, Vec<u8>>)) {
    for done in model.0 + 1..=lsn {
        match change(done) {
            (key, Some(value)) => drop(model.1.insert(key, value)),
            (key, None) => drop(model.1.remove(&key)),
        }
    }
    model.0 = lsn;
    let mut rows = BTreeMap::new();
    let visited = store.for_each(&[], None, |key, stored| {
        let value = match stored {
            Stored::Value(value) => value.into(),
            Stored::Payload(at) => store.payload(at)?,
        };
        rows.insert(u64::from_be_bytes(key[1..].try_into().expect("eight")), value);
        Ok::<_, Error>(())
    });
    visited.expect("reads");
    assert!(rows == model.1, "after step {lsn}");
}

fn kill_loop(name: &str, kills: u64) {
    let dir: PathBuf = std::env::temp_dir().join(format!("switchbox-kill-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    let (mut model, mut acknowledged, mut removed) = ((0, BTreeMap::new()), 0, 0);
    for kill in 0..kills {
        let life = Duration::from_millis(20 + kill * 37 % 200);
        acknowledged = killed(&dir, life).max(acknowledged);
        if kill % 10 == 3 {
            let diagnosis = doctor(&dir, &dir.with_extension("doctor"), &options()).expect("looks");
            assert_eq!(diagnosis.severity(), switchbox_storage::Severity::Note, "{diagnosis:?}");
        }
        let (store, opened) = Store::open(&dir, options()).expect("opens");
        assert!(opened.lsn >= acknowledged, "kill {kill}: {} of {acknowledged}", opened.lsn);
        check(&store, opened.lsn, &mut model);
        removed += store.gauges().segments_removed;
        assert_eq!(store.trouble(), None);
    }
    let (store, opened) = Store::open(&dir, options()).expect("opens");
    eprintln!(
        "{kills} kills, {acknowledged} steps acknowledged, {} kept, {removed} segments removed",
        opened.lsn
    );
    assert!(acknowledged > kills, "hardly anything was acknowledged");
    drop(store);
    fs::remove_dir_all(&dir).expect("removes");
}

#[test]
fn killed_at_any_time_it_keeps_what_it_acknowledged() {
    kill_loop("short", 15);
}

/// `cargo test -p switchbox-storage --release --test kill at_length -- --ignored --nocapture`
#[test]
#[ignore = "minutes: 400 kills"]
fn killed_at_length() {
    kill_loop("long", 400);
}
