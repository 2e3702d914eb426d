//! What a start would find in a data directory that no box has. Changes nothing there.

use std::path::{Path, PathBuf};

pub use switchbox_storage::Severity;
use switchbox_storage::{Finding, StoreOptions};

use crate::datadir::{self, DataDirError, Quiet};
use crate::persist::{self, Books};

/// Accounts that are named whose balance is wrong.
const ACCOUNTS_NAMED_MAX: usize = 10;

/// Why a directory can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// It can't be held, or read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its store can't be looked at; of a newer version, by name.
    #[error(transparent)]
    Store(#[from] switchbox_storage::Error),
    /// There is no box in it.
    #[error("`{}` is no box's data directory: it has neither a lock nor a store; name the one that `switchbox serve --data-dir` has", path.display())]
    NoBox {
        /// The directory.
        path: PathBuf,
    },
    /// A box has it.
    #[error(
        "the data directory `{}` is in use by a switchbox process (pid {pid}): stop it, or look at a backup of it",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as its lock file says.
        pid: String,
    },
    /// Another process has the store, though nobody has the directory.
    #[error("the store of `{}` is in use by a process that isn't a box; end it first", path.display())]
    StoreInUse {
        /// The data directory.
        path: PathBuf,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In words, by file and offset, in the order of looking.
    pub findings: Vec<Finding>,
    /// Rows that a start would have; none if it refuses.
    pub rows: Option<u64>,
    /// What all balances sum to in micro-credits: zero, or the ledger is wrong.
    pub ledger_sum: Option<i128>,
    /// Whole payloads (bodies, answers and other long things), and their bytes.
    pub payloads: (u64, u64),
}

impl Report {
    /// The worst of it.
    pub fn severity(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
    }

    fn say(&mut self, severity: Severity, text: impl Into<String>) {
        self.findings.push(Finding { severity, text: text.into() });
    }
}

/// Examines the data directory at `dir`. `scratch` is a directory that isn't there yet: the state store is looked at
/// in a copy, which needs as much room as it has bytes, twice if it has to be made anew.
///
/// # Errors
/// When a box runs, there is none in it, a newer program wrote it, or the system refuses something.
pub fn examine(dir: &Path, scratch: &Path) -> Result<Report, DoctorError> {
    let held = Quiet::hold(dir).map_err(|error| match error {
        DataDirError::InUse { path, pid } => DoctorError::InUse { path, pid },
        error => error.into(),
    })?;
    let store = dir.join(datadir::STORE);
    let has_store = store.is_dir();
    if !has_store && !held.is_a_boxs() {
        return Err(DoctorError::NoBox { path: dir.to_owned() });
    }
    let mut report = Report { findings: Vec::new(), rows: None, ledger_sum: None, payloads: (0, 0) };
    for problem in held.refusals() {
        report.say(Severity::Loss, format!("{problem}; until then a start refuses the directory"));
    }
    for path in held.open_secrets() {
        let text = format!("`{}` may be read by other users; a start closes it to them", path.display());
        report.say(Severity::Damage, text);
    }
    if !has_store {
        report.say(Severity::Note, "there is no store yet; a start makes one");
        return Ok(report);
    }
    let options = StoreOptions { audit: persist::audit, ..StoreOptions::default() };
    let mut books = Books::default();
    let mut check = |key: &[u8], value: &[u8]| {
        let checked = persist::check(key, value).and_then(|()| books.take(key, value));
        checked.map_err(|error| format!("{error}; a start refuses it"))
    };
    let found =
        switchbox_storage::doctor_with(&store, scratch, &options, &mut check).map_err(
            |error| match error {
                switchbox_storage::Error::InUse { .. } => DoctorError::StoreInUse { path: dir.to_owned() },
                error => error.into(),
            },
        )?;
    report.payloads = (found.payloads, found.payload_bytes);
    report.findings.extend(found.findings);
    if let Some(totals) = found.totals {
        report.rows = Some(totals.all_rows());
        report.ledger_sum = Some(totals.audit);
        match totals.audit {
            0 => report.say(Severity::Note, "ledger: all balances sum to zero"),
            sum => report.say(
                Severity::Loss,
                format!(
                    "ledger: all balances sum to {sum} micro-credits instead of zero; a start doesn't mend it"
                ),
            ),
        }
        compare(&books, &mut report);
    }
    Ok(report)
}

/// Each balance with its postings.
fn compare(books: &Books, report: &mut Report) {
    let unexplained = books.unexplained();
    if unexplained.is_empty() {
        let text = format!(
            "ledger: each balance is what the {} kept postings and older ones add up to",
            books.postings()
        );
        report.say(Severity::Note, text);
    }
    for (account, rest) in unexplained.into_iter().take(ACCOUNTS_NAMED_MAX) {
        let text = format!(
            "ledger: the balance of {account:?} is {rest} micro-credits more than its postings add up to; a start \
             doesn't mend it"
        );
        report.say(Severity::Loss, text);
    }
}
