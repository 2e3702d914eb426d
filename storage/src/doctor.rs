//! Looks at a directory that nobody has, and says what is wrong and what a start would do. Changes nothing in it:
//! the state store, which changes files by being opened, is looked at in a copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Applied, Rowspace};
use crate::disk;
use crate::error::{Error, Result};
use crate::identity::{Layout, Lock};
use crate::journal::scan::{self, Survey};
use crate::journal::segment::{self, DirectoryId, Segment};
use crate::journal::{self, open::TornTail};
use crate::open::{self, Present, base};
use crate::row::Stored;
use crate::snapshot::{self, file};
use crate::state::StateStore;
use crate::state::mark::Totals;
use crate::state::sled::Unusable;
use crate::store::StoreOptions;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be, or mended by a start without loss.
    Note,
    /// Something is damaged; a start does without it.
    Damage,
    /// A start refuses the directory, or a payload that a row refers to can't be read.
    Loss,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, by file and offset, and what a start does about it.
    pub text: String,
}

/// What the doctor says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnosis {
    /// In the order of looking.
    pub findings: Vec<Finding>,
    /// Rows and audit sum as a start would find them; none if it refuses.
    pub totals: Option<Totals>,
    /// Payloads that rows refer to and that are whole.
    pub payloads: u64,
    /// Their bytes.
    pub payload_bytes: u64,
}

impl Diagnosis {
    /// The worst of it.
    pub fn severity(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
    }

    fn say(&mut self, severity: Severity, text: impl Into<String>) {
        self.findings.push(Finding { severity, text: text.into() });
    }
}

/// What the caller says of a row's key and value: what is wrong with it, and what a start does about it.
pub type RowCheck<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> std::result::Result<(), String>;

/// Examines a directory. `scratch` is a directory for the copy of the state store: it mustn't be there yet; it is made
/// and removed.
///
/// # Errors
/// When a process has the directory, it isn't there, `scratch` is, a newer program wrote it, or the system refuses
/// something. What is damaged is a finding, not an error.
pub fn doctor(dir: &Path, scratch: &Path, options: &StoreOptions) -> Result<Diagnosis> {
    doctor_with(dir, scratch, options, &mut |_, _| Ok(()))
}

/// As [`doctor`], and has `check` look at every row.
///
/// # Errors
/// As [`doctor`].
pub fn doctor_with(
    dir: &Path,
    scratch: &Path,
    options: &StoreOptions,
    check: RowCheck<'_>,
) -> Result<Diagnosis> {
    fs::metadata(dir).map_err(Error::io("look at", dir))?;
    let _lock = Lock::probe(dir)?;
    // Not one that is there: it is removed with everything in it.
    fs::create_dir(scratch).map_err(Error::io("make directory", scratch))?;
    let examined = Examination { layout: Layout::new(dir), scratch, options }.run(check);
    let removed = fs::remove_dir_all(scratch).map_err(Error::io("remove", scratch));
    let diagnosis = examined?;
    removed.map(|()| diagnosis)
}

struct Examination<'a> {
    layout: Layout,
    scratch: &'a Path,
    options: &'a StoreOptions,
}

/// A state that a start would go on from (a copy of it), and the journal behind it.
struct Start {
    state: Arc<dyn StateStore>,
    applied: Applied,
    survey: Survey,
}

impl Examination<'_> {
    fn run(&self, check: RowCheck<'_>) -> Result<Diagnosis> {
        let mut diagnosis = Diagnosis::default();
        match self.examine(&mut diagnosis, check) {
            // One of a newer version isn't looked at: who can't read it can't say what is wrong with it.
            Err(error @ Error::Damaged { .. }) => {
                diagnosis.say(Severity::Loss, format!("{error}; a start refuses the directory"));
                Ok(diagnosis)
            }
            examined => examined.map(|()| diagnosis),
        }
    }

    fn examine(&self, diagnosis: &mut Diagnosis, check: RowCheck<'_>) -> Result<()> {
        let present = Present::look(&self.layout)?;
        let Some(id) = present.checked(&self.layout)? else {
            diagnosis.say(Severity::Note, "nothing is here; a start makes a new directory");
            return Ok(());
        };
        let segments = segment::list(&self.layout.journal(), id)?;
        if present.is_nothing() || segments.is_empty() {
            diagnosis.say(Severity::Note, "a first start was interrupted; the next one makes the directory");
            return Ok(());
        }
        self.examine_journal(&segments, diagnosis)?;
        self.examine_snapshots(id, diagnosis)?;
        let start = self.start(id, &segments, diagnosis)?;
        if let Some(torn) = TornTail::of(&start.survey.debris) {
            let TornTail { segment, offset, blocks } = torn;
            let text = format!(
                "segment {segment} has {blocks} blocks of a torn group from byte {offset} on, which was never \
                 acknowledged; a start zeroes them"
            );
            diagnosis.say(Severity::Note, text);
        }
        self.examine_rows(&segments, start, diagnosis, check)
    }

    /// Reads every frame, also those that a start doesn't need.
    fn examine_journal(&self, segments: &[Segment], diagnosis: &mut Diagnosis) -> Result<()> {
        let (mut groups, mut bad) = (0u64, Vec::new());
        for segment in segments {
            let bytes = segment.load(&self.layout.journal())?;
            let found = scan::walk(segment, &bytes);
            groups += found.intact;
            bad.extend(found.broken.map(|offset| (segment.number, offset)));
        }
        diagnosis.say(Severity::Note, format!("journal: {} segments, {groups} whole groups", segments.len()));
        for (number, offset) in bad {
            let path = segment::path_of(&self.layout.journal(), number);
            let text = format!("`{}` has a damaged group at byte {offset}", path.display());
            diagnosis.say(Severity::Damage, text);
        }
        Ok(())
    }

    fn examine_snapshots(&self, id: DirectoryId, diagnosis: &mut Diagnosis) -> Result<()> {
        for group in snapshot::list(&self.layout.snapshots())? {
            let path = snapshot::path_of(&self.layout.snapshots(), group);
            match file::verify(&path, id, group, self.options.audit) {
                Ok(mark) => {
                    let rows = mark.totals.all_rows();
                    diagnosis.say(Severity::Note, format!("snapshot of group {group}: whole, {rows} rows"));
                }
                Err(error @ (Error::Damaged { .. } | Error::Newer { .. })) => {
                    diagnosis.say(Severity::Damage, format!("{error}; a start does without it"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn start(&self, id: DirectoryId, segments: &[Segment], diagnosis: &mut Diagnosis) -> Result<Start> {
        let copy = self.scratch.join("state");
        copy_dir(&self.layout.state(), &copy)?;
        let found = base::examine_sled(&copy, &self.layout.journal(), id, segments, self.options)?;
        let (reason, mut first_error) = match found {
            Ok((state, marks, survey)) => {
                let journal = self.layout.journal();
                let marked = base::finish_begun(&state, &journal, segments, marks, self.options);
                match marked.and_then(|mark| base::count(&state, &mark, self.options, &mut |_, _| ())) {
                    Ok(applied) => {
                        let text = format!(
                            "state store: belongs here, as of group {}, {} rows that sum to what they should; a \
                             start goes on from it",
                            applied.mark.group,
                            applied.mark.totals.all_rows()
                        );
                        diagnosis.say(Severity::Note, text);
                        return Ok(Start { state: Arc::new(state), applied, survey });
                    }
                    Err(Unusable(reason)) => (reason, None),
                }
            }
            Err((Unusable(reason), error)) => (reason, error),
        };
        let rebuilding = Layout::new(&self.scratch.join("rebuilt"));
        disk::make_dir(&rebuilding.dir)?;
        let candidates = base::candidates(&self.layout)?;
        for group in candidates {
            match base::try_candidate(
                &self.layout,
                &rebuilding.state(),
                id,
                (segments, group),
                self.options,
                &mut |_| (),
            ) {
                Ok((state, applied, survey)) => {
                    let text = format!("state store: {reason}; a start rebuilds it from group {group}");
                    // A backup has none.
                    let there = fs::exists(self.layout.state())
                        .map_err(Error::io("look at", &self.layout.state()))?;
                    diagnosis.say(if there { Severity::Damage } else { Severity::Note }, text);
                    return Ok(Start { state: Arc::new(state), applied, survey });
                }
                Err(error @ Error::Damaged { .. }) => drop(first_error.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        Err(first_error.expect("every candidate was tried"))
    }

    /// The rows as a start would have them, and every payload that they refer to.
    fn examine_rows(
        &self,
        segments: &[Segment],
        start: Start,
        diagnosis: &mut Diagnosis,
        check: RowCheck<'_>,
    ) -> Result<()> {
        let groups = (start.applied.mark.group, start.survey.reached());
        let rows = Rowspace::new(start.state, self.options.audit, start.applied);
        open::replay(&self.layout.journal(), segments, groups, &rows, self.options)?;
        let mut totals = Totals::default();
        rows.for_each(&[], None, |key, stored| {
            totals.add(self.options.audit, &key, &stored);
            self.examine_row(&key, &stored, diagnosis, check)
        })?;
        let text = format!(
            "{} rows as of group {}, {} payloads ({} bytes) whole, audit sum {}",
            totals.all_rows(),
            groups.1,
            diagnosis.payloads,
            diagnosis.payload_bytes,
            totals.audit
        );
        diagnosis.say(Severity::Note, text);
        diagnosis.totals = Some(totals);
        Ok(())
    }

    fn examine_row(
        &self,
        key: &[u8],
        stored: &Stored,
        diagnosis: &mut Diagnosis,
        check: RowCheck<'_>,
    ) -> Result<()> {
        let checked = match stored {
            Stored::Value(value) => check(key, value),
            Stored::Payload(at) => match journal::read_payload(&self.layout.journal(), *at) {
                Ok(bytes) => {
                    diagnosis.payloads += 1;
                    diagnosis.payload_bytes += u64::from(at.len);
                    check(key, &bytes)
                }
                Err(error) => {
                    diagnosis.say(Severity::Loss, format!("the payload of row {key:02x?}: {error}"));
                    Ok(())
                }
            },
        };
        if let Err(problem) = checked {
            diagnosis.say(Severity::Loss, problem);
        }
        Ok(())
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    disk::make_dir(to)?;
    for name in disk::names(from)? {
        let (source, target): (PathBuf, PathBuf) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            copy_dir(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(Error::io("copy", &source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::Origin;
    use crate::open::tests::{Model, opened, options, with_history};
    use crate::scratch::{Scratch, bytes_of_all};
    use crate::state::StateKind;

    fn diagnosed(dir: &Scratch) -> Diagnosis {
        let scratch = Scratch::new();
        let before = bytes_of_all(dir.path());
        let diagnosis =
            doctor(dir.path(), &scratch.path().join("copy"), &options(StateKind::Sled)).expect("looks");
        assert!(bytes_of_all(dir.path()) == before, "it changed something");
        assert!(!scratch.path().join("copy").exists());
        diagnosis
    }

    fn text_of(diagnosis: &Diagnosis) -> String {
        diagnosis
            .findings
            .iter()
            .map(|finding| format!("{:?}: {}\n", finding.severity, finding.text))
            .collect()
    }

    fn check_totals(diagnosis: &Diagnosis, model: &Model) {
        let rows = diagnosis.totals.as_ref().map(Totals::all_rows);
        assert_eq!(rows, Some(model.len() as u64), "{}", text_of(diagnosis));
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = fs::read(path).expect("read");
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("write");
    }

    #[test]
    fn a_directory_that_is_there_is_not_taken_for_scratch() {
        let (dir, scratch) = (Scratch::new(), Scratch::new());
        std::fs::write(scratch.path().join("precious"), "x").expect("written");
        let refused = doctor(dir.path(), scratch.path(), &options(StateKind::Sled)).expect_err("refused");
        assert!(refused.to_string().contains("make directory"), "{refused}");
        assert!(scratch.path().join("precious").exists());
    }

    #[test]
    fn a_sound_directory_is_said_to_be() {
        let (dir, model) = with_history(StateKind::Sled);
        let diagnosis = diagnosed(&dir);
        assert_eq!(diagnosis.severity(), Severity::Note, "{}", text_of(&diagnosis));
        check_totals(&diagnosis, &model);
        assert!(diagnosis.payloads > 0);
        let new = Scratch::new();
        assert_eq!(diagnosed(&new).severity(), Severity::Note);
    }

    #[test]
    fn it_refuses_a_directory_in_use() {
        let (dir, _) = with_history(StateKind::Sled);
        let _store = opened(dir.path(), StateKind::Sled);
        let scratch = Scratch::new();
        let refused = doctor(dir.path(), &scratch.path().join("copy"), &options(StateKind::Sled));
        assert!(matches!(refused, Err(Error::InUse { .. })));
    }

    #[test]
    fn what_it_predicts_is_what_a_start_does() {
        let (dir, model) = with_history(StateKind::Sled);
        fs::write(dir.path().join("state/conf"), [0; 9]).expect("write");
        let newest = *snapshot::list(&dir.path().join("snapshots")).expect("lists").last().expect("one");
        let snapshot = snapshot::path_of(&dir.path().join("snapshots"), newest);
        flip(&snapshot, 100);
        let diagnosis = diagnosed(&dir);
        assert_eq!(diagnosis.severity(), Severity::Damage, "{}", text_of(&diagnosis));
        assert!(text_of(&diagnosis).contains(&format!("`{}` is damaged", snapshot.display())));
        check_totals(&diagnosis, &model);
        let (_, found) = opened(dir.path(), StateKind::Sled);
        let Origin::Rebuilt { from_group, .. } = found.origin else { panic!("{found:?}") };
        assert!(text_of(&diagnosis).contains(&format!("rebuilds it from group {from_group}")));
    }

    #[test]
    fn a_damaged_payload_is_named_and_nothing_else_fails() {
        let (dir, model) = with_history(StateKind::Sled);
        let (store, _) = opened(dir.path(), StateKind::Sled);
        store.settle().expect("settles");
        let payload =
            store.range(&[], None, 1000).expect("reads").into_iter().find_map(|(_, stored)| stored.payload());
        let at = payload.expect("a payload");
        let copy = dir.copy();
        drop(store);
        let path = segment::path_of(&copy.path().join("journal"), at.segment);
        flip(&path, at.offset as usize + 5);
        let diagnosis = diagnosed(&copy);
        assert_eq!(diagnosis.severity(), Severity::Loss);
        assert!(text_of(&diagnosis).contains(&format!(
            "`{}` is damaged at byte {}",
            path.display(),
            at.offset
        )));
        check_totals(&diagnosis, &model);
    }

    #[test]
    fn every_row_is_shown_to_who_can_read_it() {
        let (dir, model) = with_history(StateKind::Sled);
        let (scratch, mut rows) = (Scratch::new(), 0);
        let mut check = |_: &[u8], value: &[u8]| {
            rows += 1;
            if rows == 1 { Err(format!("a value of {} bytes", value.len())) } else { Ok(()) }
        };
        let options = options(StateKind::Sled);
        let found =
            doctor_with(dir.path(), &scratch.path().join("copy"), &options, &mut check).expect("looks");
        assert_eq!((rows, found.severity()), (model.len(), Severity::Loss));
        assert!(text_of(&found).contains("Loss: a value of "), "{}", text_of(&found));
    }

    #[test]
    fn a_refusal_is_predicted() {
        let (dir, _) = with_history(StateKind::Sled);
        flip(&dir.path().join("format"), 30);
        let diagnosis = diagnosed(&dir);
        assert_eq!((diagnosis.severity(), &diagnosis.totals), (Severity::Loss, &None));
        assert!(text_of(&diagnosis).contains("a start refuses the directory"));
    }
}
