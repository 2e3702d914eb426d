//! The next snapshot: the one before, merged with the rows of the journal's groups since.

use std::path::Path;

use crate::dirty::Layer;
use crate::error::Result;
use crate::journal::segment::{DirectoryId, Segment};
use crate::journal::writer::Durable;
use crate::journal::{self, scan};
use crate::row::{Key, Stored, row_bytes};
use crate::snapshot::file::{SnapshotReader, SnapshotWriter};
use crate::state::mark::{Audit, Mark};

/// Bytes of rows that are merged at once; with more the snapshot ends at an earlier group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergeBytes(pub(crate) usize);

/// The last changes of the journal's groups above `from`, up to `to` at most, and the group they end with.
pub(crate) fn changes_since(
    journal: &Path,
    segments: &[Segment],
    (from, to): (u64, u64),
    limit: MergeBytes,
) -> Result<(Layer, Durable)> {
    let mut layer = Layer::new();
    let mut upto = Durable { group: from, ..Durable::default() };
    let mut bytes = 0;
    journal::scan::read_groups(journal, segments, (from, to), &mut |frame| {
        for (key, stored) in frame.changes()? {
            bytes += row_bytes(&key, stored.as_ref());
            layer.insert(key, stored);
        }
        upto = Durable::of(&frame.head);
        Ok(if bytes < limit.0 { scan::Next::Go } else { scan::Next::Stop })
    })?;
    Ok((layer, upto))
}

/// Writes the snapshot as of `upto`: `base`'s rows with `changes`.
pub(crate) fn write_next(
    dir: &Path,
    id: DirectoryId,
    audit: Audit,
    base: u64,
    (changes, upto): (Layer, Durable),
) -> Result<Mark> {
    let mark = Mark { group: upto.group, lsn: upto.lsn, epoch: upto.epoch, ..Mark::empty(id) };
    let mut writer = SnapshotWriter::create(dir, mark, audit)?;
    let mut changes = changes.into_iter().peekable();
    let mut push = |key: &Key, stored: Option<&Stored>| match stored {
        Some(stored) => writer.push(key, stored),
        None => Ok(()),
    };
    if base > 0 {
        let mut reader = SnapshotReader::open(dir, id, base, audit)?;
        while let Some(rows) = reader.next_block()? {
            for (key, stored) in rows {
                while let Some((key, stored)) = changes.next_if(|(changed, _)| *changed < key) {
                    push(&key, stored.as_ref())?;
                }
                match changes.next_if(|(changed, _)| *changed == key) {
                    Some((key, stored)) => push(&key, stored.as_ref())?,
                    None => push(&key, Some(&stored))?,
                }
            }
        }
    }
    for (key, stored) in changes {
        push(&key, stored.as_ref())?;
    }
    writer.finish()
}
