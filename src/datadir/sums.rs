//! Checksums of the secrets. A secret is random, so nothing in it says whether it is still the one that was written, and
//! with another one a box would be somebody else: `secrets.sums` has a line `NAME SUM` for each, and last `sums SUM` for
//! the lines before it, where SUM is the start of a SHA-256.
//!
//! A secret without a line (an older program's, or one that its owner put there) gets one when it is read. A file that
//! isn't whole says nothing of the secrets and is made anew.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::DataDirError;
use super::files::{Privacy, PrivateDir};

/// The file.
pub(super) const SUMS: &str = "secrets.sums";
/// The name of its own line.
const OWN: &str = "sums";
/// Bytes of a digest that are kept.
const SUM_BYTES: usize = 8;

/// Sums by names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sums(BTreeMap<String, String>);

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..SUM_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Sums {
    /// Those of a directory; none if there is no file, or it isn't whole.
    pub(super) fn load(dir: &PrivateDir, privacy: Privacy) -> Result<Self, DataDirError> {
        let Some(bytes) = dir.read(SUMS, privacy)? else { return Ok(Self::default()) };
        let sums = Self::parse(&bytes);
        if sums.is_none() {
            tracing::warn!(path = %dir.path().join(SUMS).display(), "the checksums of the secrets aren't what was written; they are made anew");
        }
        Ok(sums.unwrap_or_default())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let mut sums = Self(lines.map(|(name, sum)| (name.to_owned(), sum.to_owned())).collect());
        sums.0.remove(OWN);
        (sums.render() == text).then_some(sums)
    }

    fn render(&self) -> String {
        let lines: String = self.0.iter().map(|(name, sum)| format!("{name} {sum}\n")).collect();
        let own = sum(lines.as_bytes());
        format!("{lines}{OWN} {own}\n")
    }

    /// Whether a secret has a line. Refuses one that isn't what its line says.
    pub(super) fn check(&self, dir: &PrivateDir, name: &str, bytes: &[u8]) -> Result<bool, DataDirError> {
        match self.0.get(name) {
            Some(written) if *written != sum(bytes) => Err(DataDirError::Unfit {
                path: dir.path().join(name),
                problem: "isn't what was written: its checksum is another one".into(),
                remedy: format!(
                    "put back the file of a backup; if you put another one there, delete `{SUMS}` beside it"
                ),
            }),
            found => Ok(found.is_some()),
        }
    }

    /// Writes a secret's line.
    pub(super) fn note(mut self, dir: &PrivateDir, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        self.0.insert(name.to_owned(), sum(bytes));
        dir.write(SUMS, self.render().as_bytes())
    }

    /// Takes a secret's line away, before another secret is made: a crash between the two must not leave the old line.
    pub(super) fn forget(mut self, dir: &PrivateDir, name: &str) -> Result<Self, DataDirError> {
        if self.0.remove(name).is_some() {
            dir.write(SUMS, self.render().as_bytes())?;
        }
        Ok(self)
    }
}
