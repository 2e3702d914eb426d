//! Reading the journal from a group on, and telling a torn tail from damage.
//!
//! One frame is in flight at a time, so after a power cut at most the last one is torn and nothing lies behind it.
//! After a place that isn't an intact frame, every later 4 KiB boundary is therefore tried, in this segment and all
//! later ones. A frame's head there means that what came before had been synced: something acknowledged is
//! damaged, and the journal is refused with file and offset. Otherwise what isn't zero is *debris* of a torn tail; in a
//! segment whose file was used before, only a torn frame's head is.
//! Groups up to the base don't matter: what they changed is in the state or snapshot that the base comes from.

use std::path::{Path, PathBuf};

use crate::disk::BLOCK;
use crate::error::{Error, Result};
use crate::journal::frame::{Body, Head};
use crate::journal::segment::{Behind, Segment, path_of};

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The last intact frame; none if there is no frame at all.
    pub(crate) last: Option<Head>,
    /// Where the next frame goes.
    pub(crate) end: Place,
    /// Blocks behind the end that are left of a torn tail.
    pub(crate) debris: Vec<Place>,
}

impl Survey {
    /// The last intact group; 0 if there is none.
    pub(crate) fn reached(&self) -> u64 {
        self.last.map_or(0, |head| head.group)
    }

    /// Refuses a journal that ends before `group`, which was acknowledged.
    pub(crate) fn reaches(&self, dir: &Path, group: u64, who: &str) -> Result<()> {
        if self.reached() >= group {
            return Ok(());
        }
        let place = self.debris.first().copied().unwrap_or(self.end);
        let problem = format!(
            "group {} should be here; the journal ends with group {}, yet {who} has group {group}",
            self.reached() + 1,
            self.reached()
        );
        Err(Error::damaged(&path_of(dir, place.segment), place.offset, problem))
    }
}

/// An intact frame with a group above the base.
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    pub(crate) body: Body<'a>,
    path: &'a Path,
}

impl Frame<'_> {
    pub(crate) fn changes(&self) -> Result<Vec<crate::row::RowChange>> {
        let refused = || {
            let problem = format!("group {} is intact, yet its rows can't be read", self.head.group);
            Error::damaged(self.path, u64::from(self.head.offset), problem)
        };
        self.body.changes().ok_or_else(refused)
    }
}

/// Reads all groups above `base`, in order, each with the one before it.
///
/// # Errors
/// When something above the base is damaged or missing.
pub(crate) fn scan(
    dir: &Path,
    segments: &[Segment],
    base: u64,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<()>,
) -> Result<Survey> {
    let first = start_of(segments, base);
    let start = segments.get(first).map_or(0, |segment| segment.number);
    let end = Place { segment: start, offset: BLOCK as u64 };
    let mut scan = Scan { base, last: None, end, debris: Vec::new() };
    for segment in &segments[first..] {
        let bytes = segment.load(dir)?;
        scan.segment(segment, &bytes, &path_of(dir, segment.number), visit)?;
    }
    Ok(Survey { last: scan.last, end: scan.end, debris: scan.debris })
}

/// Where to begin, so that the base's own frame is seen too.
fn start_of(segments: &[Segment], base: u64) -> usize {
    let begins_by = |segment: &Segment| segment.first_group.is_some_and(|first| first <= base);
    segments.iter().rposition(begins_by).unwrap_or(0)
}

struct Scan {
    base: u64,
    last: Option<Head>,
    end: Place,
    debris: Vec<Place>,
}

impl Scan {
    fn segment(
        &mut self,
        segment: &Segment,
        bytes: &[u8],
        path: &Path,
        visit: &mut dyn FnMut(Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut at = BLOCK;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let head = Head::read(segment, at, rest);
            let intact = match head {
                Some(head) => {
                    self.in_order(segment, &head, path)?;
                    head.body(segment, rest).map(|body| (head, body))
                }
                None => None,
            };
            match intact {
                Some((head, body)) => {
                    if head.group > self.base {
                        visit(Frame { head, body, path })?;
                    }
                    at += crate::disk::blocks(head.len as usize);
                    self.last = Some(head);
                    self.end = Place { segment: segment.number, offset: at as u64 };
                    self.debris.clear();
                }
                None => {
                    let torn = match segment.behind {
                        Behind::Zeros => rest[..BLOCK].iter().any(|byte| *byte != 0),
                        Behind::Anything => head.is_some(),
                    };
                    if torn {
                        self.debris.push(Place { segment: segment.number, offset: at as u64 });
                    }
                    at += BLOCK;
                }
            }
        }
        Ok(())
    }

    /// Refuses a frame that says that another one before it is missing.
    fn in_order(&self, segment: &Segment, head: &Head, path: &Path) -> Result<()> {
        let last = self.last.map_or(0, |last| last.group);
        let seen = last.max(self.base);
        // Below the base gaps don't matter: what was trimmed leaves them.
        let fine = if head.group > self.base { head.group == seen + 1 } else { head.group > last };
        if fine {
            return Ok(());
        }
        let mut place = self.missing_at();
        if place.segment < segment.number && head.offset as usize > BLOCK {
            // It is the first of its segment that is missing.
            place = Place { segment: segment.number, offset: BLOCK as u64 };
        }
        let path = path.with_file_name(path_of(Path::new(""), place.segment));
        let problem = format!(
            "group {} should be here; group {} follows in segment {} at byte {}",
            seen + 1,
            head.group,
            segment.number,
            head.offset
        );
        Err(Error::damaged(&path, place.offset, problem))
    }

    /// Where the frame that isn't there should have been.
    fn missing_at(&self) -> Place {
        self.debris.first().copied().unwrap_or(self.end)
    }
}

/// Reads the groups above `from`, up to and with `to`, of a journal that is in use. All of them are durable.
///
/// # Errors
/// When one is damaged, or `visit` fails.
pub(crate) fn read_groups(
    dir: &Path,
    segments: &[Segment],
    (from, to): (u64, u64),
    visit: &mut dyn FnMut(Frame<'_>) -> Result<Next>,
) -> Result<()> {
    let mut seen = from;
    // Segments that end with `from` or before may be removed at any time.
    for segment in &segments[start_of(segments, from + 1)..] {
        if seen == to {
            break;
        }
        let path: PathBuf = path_of(dir, segment.number);
        let bytes = segment.load(dir)?;
        let mut at = BLOCK;
        while seen < to && at < bytes.len() {
            let Some(head) = Head::read(segment, at, &bytes[at..]) else {
                at += BLOCK;
                continue;
            };
            if head.group > from {
                let missing =
                    || Error::damaged(&path, at as u64, format!("group {} should be here", seen + 1));
                let body = head.body(segment, &bytes[at..]).filter(|_| head.group == seen + 1);
                let frame = Frame { head, body: body.ok_or_else(missing)?, path: &path };
                if visit(frame)? == Next::Stop {
                    return Ok(());
                }
                seen = head.group;
            }
            at += crate::disk::blocks(head.len as usize);
        }
    }
    match segments.last() {
        Some(last) if seen < to => {
            let problem = format!("group {} isn't in the journal, yet it was acknowledged", seen + 1);
            Err(Error::damaged(&path_of(dir, last.number), 0, problem))
        }
        _ => Ok(()),
    }
}

/// Reads all groups of one segment.
///
/// # Errors
/// When one is damaged, or `visit` fails.
pub(crate) fn read_segment(
    dir: &Path,
    segment: &Segment,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<()>,
) -> Result<()> {
    let path = path_of(dir, segment.number);
    let bytes = segment.load(dir)?;
    let mut at = BLOCK;
    while at < bytes.len() {
        let Some(head) = Head::read(segment, at, &bytes[at..]) else {
            at += BLOCK;
            continue;
        };
        let damaged =
            || Error::damaged(&path, at as u64, format!("group {} isn't what was written", head.group));
        let body = head.body(segment, &bytes[at..]).ok_or_else(damaged)?;
        visit(Frame { head, body, path: &path })?;
        at += crate::disk::blocks(head.len as usize);
    }
    Ok(())
}

/// What one segment holds, whatever was needed of it.
pub(crate) struct Walked {
    /// Frames that are whole.
    pub(crate) intact: u64,
    /// The last one.
    pub(crate) last: Option<Head>,
    /// The first place that isn't a whole frame, with a frame somewhere behind it.
    pub(crate) broken: Option<u64>,
}

/// Looks at every frame of a segment.
pub(crate) fn walk(segment: &Segment, bytes: &[u8]) -> Walked {
    let mut walked = Walked { intact: 0, last: None, broken: None };
    let (mut at, mut bad) = (BLOCK, None);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let head = Head::read(segment, at, rest);
        if head.is_some() {
            walked.broken = walked.broken.or(bad);
        }
        match head.filter(|head| head.body(segment, rest).is_some()) {
            Some(head) => {
                walked.intact += 1;
                walked.last = Some(head);
                at += crate::disk::blocks(head.len as usize);
            }
            None => {
                bad = bad.or(Some(at as u64));
                at += BLOCK;
            }
        }
    }
    walked
}

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Go,
    Stop,
}
