//! Records on disk, as cheap as they can be: a file that has its room from the start, a thread that writes all that
//! waits at once and syncs it once. No format, nothing to read back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;

use tokio::sync::mpsc as tasks;

use crate::Result;

/// Bytes of the file, written once before anything is measured.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of a record: about what the row of a small job takes.
const RECORD_BYTES: usize = 1 << 10;
/// Records written at once.
const GROUP_RECORDS_MAX: usize = 1_024;

/// Makes a committer. What is sent to it comes back, in groups, once a record of each is on disk.
pub(super) fn committer<T: Send + 'static>(
    path: &Path,
) -> Result<(mpsc::Sender<T>, tasks::UnboundedReceiver<Vec<T>>)> {
    let file = File::create(path)?;
    file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
    file.sync_all()?;
    let (sender, waiting) = mpsc::channel();
    let (done, committed) = tasks::unbounded_channel();
    std::thread::spawn(move || {
        // It ends with those whom it works for.
        if let Err(error) = commit(&file, &waiting, &done) {
            eprintln!("the floor can't commit: {error}");
            std::process::exit(1);
        }
    });
    Ok((sender, committed))
}

fn commit<T>(file: &File, waiting: &mpsc::Receiver<T>, done: &tasks::UnboundedSender<Vec<T>>) -> Result<()> {
    let records = vec![1; GROUP_RECORDS_MAX * RECORD_BYTES];
    let mut at = 0;
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        group.extend(waiting.try_iter().take(GROUP_RECORDS_MAX - 1));
        let bytes = group.len() * RECORD_BYTES;
        if at + bytes as u64 > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&records[..bytes], at)?;
        file.sync_data()?;
        at += bytes as u64;
        if done.send(group).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_in_order() {
        let path = std::env::temp_dir().join(format!("switchbox-bench-commit-{}", std::process::id()));
        let (sender, mut committed) = committer(&path).expect("the temporary directory can be written");
        (0..3_000).for_each(|record| sender.send(record).expect("the committer lives"));
        let mut seen = Vec::new();
        while seen.len() < 3_000 {
            let group = committed.blocking_recv().expect("the committer lives");
            assert!(group.len() <= GROUP_RECORDS_MAX);
            seen.extend(group);
        }
        assert!(seen.into_iter().eq(0..3_000));
        std::fs::remove_file(path).expect("it is there");
    }
}
