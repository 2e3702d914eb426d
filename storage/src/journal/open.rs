//! Opening the journal: the tail is mended before anything rests on it.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{self, BLOCK};
use crate::error::{Error, Result};
use crate::journal::retired::Retired;
use crate::journal::scan::{Place, Survey};
use crate::journal::segment::{self, DirectoryId, Segment};
use crate::journal::spares::Spares;
use crate::journal::tail::Tail;
use crate::journal::writer::{Durable, Writer};
use crate::journal::{Journal, JournalOptions};
use crate::mutant::{self, Mutant};

/// The end of a group that was being written when the power went: it was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's number.
    pub segment: u32,
    /// The first block that wasn't zero, in bytes from the segment's start.
    pub offset: u64,
    /// How many blocks of 4 KiB were zeroed.
    pub blocks: usize,
}

impl TornTail {
    pub(crate) fn of(debris: &[Place]) -> Option<Self> {
        let first = debris.first()?;
        Some(Self { segment: first.segment, offset: first.offset, blocks: debris.len() })
    }
}

/// Zeroes and syncs what is left of a torn tail, and writes the last intact group once more, in place: after a
/// sync that failed, the page cache shows a frame that the disk may not have.
pub(crate) fn mend_tail(dir: &Path, segments: &[Segment], survey: &Survey) -> Result<()> {
    let zeros = [0; BLOCK];
    for places in survey.debris.chunk_by(|a, b| a.segment == b.segment) {
        let path = segment::path_of(dir, places[0].segment);
        let file = of_number(segments, places[0].segment).open(dir)?;
        for place in places {
            file.write_all_at(&zeros, place.offset).map_err(Error::io("zero the tail of", &path))?;
        }
        file.sync_data().map_err(Error::io("sync", &path))?;
    }
    if let Some(head) = survey.last.filter(|_| !mutant::planted(Mutant::TailNotRewritten)) {
        let path = segment::path_of(dir, head.segment);
        let file = of_number(segments, head.segment).open(dir)?;
        let mut bytes = vec![0; disk::blocks(head.len as usize)];
        let at = u64::from(head.offset);
        file.read_exact_at(&mut bytes, at).map_err(Error::io("read", &path))?;
        file.write_all_at(&bytes, at).map_err(Error::io("rewrite the last group of", &path))?;
        file.sync_data().map_err(Error::io("sync", &path))?;
    }
    disk::sync_dir(dir)
}

fn of_number(segments: &[Segment], number: u32) -> &Segment {
    segments.iter().find(|segment| segment.number == number).expect("the survey looked at these segments")
}

/// Goes on behind the last group: the journal as readers see it, and its end.
///
/// # Errors
/// When a file can't be opened or a thread can't be started.
pub(crate) fn resume(
    dir: &Path,
    id: DirectoryId,
    (segments, survey): (Vec<Segment>, &Survey),
    (options, wall_ms): (&JournalOptions, fn() -> u64),
) -> Result<(Arc<Journal>, Tail)> {
    let next = segments.last().map_or(1, |last| last.number + 1);
    let after = |segment: &Segment| segment.number > survey.end.segment;
    let (spare, mut used): (Vec<_>, Vec<_>) = segments.into_iter().partition(after);
    let mut spare = of_today(dir, spare, options)?;
    let mut current = used.last().cloned().expect("a journal has a segment");
    // What a torn tail left there has been zeroed.
    spare.iter_mut().for_each(|segment| segment.first_group = None);
    if survey.last.is_none() {
        current.first_group = None;
    }
    // It isn't listed before its first group.
    used.retain(|segment| segment.number != survey.end.segment || survey.last.is_some());
    let retired = Arc::new(Retired::new(dir, options));
    let spares = Spares::start(dir, id, (spare, next), (options.segment_bytes, Arc::clone(&retired)))?;
    let durable = survey.last.map_or(Durable::default(), |head| Durable::of(&head));
    let journal = Arc::new(Journal::new(dir, id, used, retired));
    let end = (current, survey.end.offset);
    let writer = Writer::new(Arc::clone(&journal), end, (durable, wall_ms))?;
    Ok((journal, Tail::new(writer, spares)))
}

/// Removes the spares that were made with another size or by an older program, and gives the others. They hold no
/// group, and what a torn tail left in them has been zeroed.
fn of_today(dir: &Path, spare: Vec<Segment>, options: &JournalOptions) -> Result<Vec<Segment>> {
    let fits =
        |segment: &Segment| segment.version == segment::VERSION && segment.bytes == options.segment_bytes;
    let (kept, others): (Vec<_>, Vec<_>) = spare.into_iter().partition(fits);
    for segment in &others {
        let path = segment::path_of(dir, segment.number);
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    if !others.is_empty() {
        disk::sync_dir(dir)?;
    }
    Ok(kept)
}
