//! Bugs that a torture rig plants to see that it finds them: the controls that must fail.
//!
//! Nothing without the feature `mutants`. With it, the environment variable `SWITCHBOX_STORAGE_MUTANT` names one.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// `no-journal-sync`: frames are written and not synced. Power cuts find it.
    NoJournalSync,
    /// `no-directory-sync`: names aren't synced. Power cuts find it.
    NoDirectorySync,
    /// `acknowledge-before-commit`: who waits is told first. Kills and power cuts find it.
    AcknowledgeBeforeCommit,
    /// `trim-unverified`: a snapshot counts before it was synced and read back. Power cuts and rot find it.
    TrimUnverified,
    /// `state-before-sync`: rows reach the state store before their group is on disk. Power cuts find it.
    StateBeforeSync,
    /// `tail-not-rewritten`: a start trusts the last group's pages. A failed sync before a power cut finds it.
    TailNotRewritten,
    /// `go-on-after-failed-sync`: a sync of the journal that fails is taken for one that didn't. Failed operations find
    /// it.
    GoOnAfterFailedSync,
}

/// All with their names.
#[cfg(any(test, feature = "mutants"))]
const NAMES: [(&str, Mutant); 7] = [
    ("no-journal-sync", Mutant::NoJournalSync),
    ("no-directory-sync", Mutant::NoDirectorySync),
    ("acknowledge-before-commit", Mutant::AcknowledgeBeforeCommit),
    ("trim-unverified", Mutant::TrimUnverified),
    ("state-before-sync", Mutant::StateBeforeSync),
    ("tail-not-rewritten", Mutant::TailNotRewritten),
    ("go-on-after-failed-sync", Mutant::GoOnAfterFailedSync),
];

#[cfg(any(test, feature = "mutants"))]
fn of_name(name: &str) -> Option<Mutant> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, mutant)| *mutant)
}

/// Whether this bug is planted.
#[cfg(feature = "mutants")]
pub(crate) fn planted(mutant: Mutant) -> bool {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<Mutant>> = OnceLock::new();
    let read = || {
        let name = std::env::var("SWITCHBOX_STORAGE_MUTANT").ok().filter(|name| !name.is_empty())?;
        // A name that is misspelt must not pass for a control that was run.
        Some(of_name(&name).unwrap_or_else(|| panic!("no mutant of the storage is called `{name}`")))
    };
    *PLANTED.get_or_init(read) == Some(mutant)
}

/// Whether this bug is planted: never, in the product.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn planted(_mutant: Mutant) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (name, mutant) in NAMES {
            assert_eq!(of_name(name), Some(mutant));
        }
        assert_eq!(of_name("no-journal"), None);
    }
}
