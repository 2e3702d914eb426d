//! What the store can't write ends the process at once, also in the threads that nobody waits for.
//!
//! The child is this very test binary.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use switchbox_storage::{
    Change, Codec, Committer, CommitterOptions, Group, Rows, Store, StoreOptions, Urgency,
};

const DIR: &str = "SWITCHBOX_STORAGE_FATAL_DIR";
const SIGABRT: i32 = 6;

struct Numbers;

impl Codec<u64, ()> for Numbers {
    fn encode(&self, (number, _): &Change<u64, ()>, rows: &mut Rows) {
        rows.put(&[1], &number.to_be_bytes());
    }

    fn bytes(&self, _: &Change<u64, ()>) -> usize {
        20
    }
}

/// The child: its snapshots have nowhere to go, and nobody waits for them.
#[test]
#[ignore = "runs as the child of the other test"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let options =
        StoreOptions { snapshot_journal_bytes: 1, disk_reserve_bytes: 0, ..StoreOptions::default() };
    let (store, opened) = Store::open(Path::new(&dir), options).expect("opens");
    fs::remove_dir_all(Path::new(&dir).join("snapshots")).expect("removes");
    let committer = Committer::start_durable(store, Numbers, CommitterOptions::default(), |_| ());
    let committer = committer.expect("a thread");
    for lsn in opened.lsn + 1.. {
        committer.append(Group { lsn, at: lsn, changes: vec![(lsn, Some(()))] }, Urgency::Urgent);
        while committer.backlog() > 10 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_snapshot_that_cannot_be_written_ends_the_process() {
    let dir = std::env::temp_dir().join(format!("switchbox-fatal-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--ignored", "--exact", "child", "--nocapture"]).env(DIR, &dir);
    let ended = command.output().expect("runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.signal(), Some(SIGABRT), "{said}");
    assert!(said.contains("snapshots") && said.contains("aborting, a restart recovers"), "{said}");
    let (_, opened) = Store::open(&dir, StoreOptions::default()).expect("a restart recovers");
    assert!(opened.lsn > 0);
    fs::remove_dir_all(&dir).expect("removes");
}
