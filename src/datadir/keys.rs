//! `api.keys`: what is kept of the API keys that are made while the box runs. Which they are is not this module's; it
//! sees to it that the file is what was written, as a whole, with the box's own secret: its last line is an HMAC over the
//! lines before it, under the pepper that the digests in them were made with. With another pepper they would open nothing,
//! so that is found out at the start.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::files::{Privacy, PrivateDir};
use super::sums::Sums;
use super::{API_KEY, DataDirError};
use crate::secrets::Pepper;

/// The file.
pub(super) const API_KEYS: &str = "api.keys";
/// Bytes of it.
pub(super) const API_KEYS_BYTES_MAX: u64 = 16 << 20;
/// Its first line.
const HEAD: &str = "switchbox api keys 1\n";
/// What begins the first line of every version.
const HEAD_OF_ALL: &str = "switchbox api keys ";
/// What begins its last line.
const TAG: &str = "tag ";
/// What the HMAC says that it is about: digests of keys are made with the same pepper.
const PURPOSE: &[u8] = b"switchbox api.keys\0";

/// The file of a box's API keys. It may be written while the box runs, by one who writes at a time.
#[derive(Debug)]
pub struct KeysFile {
    dir: PrivateDir,
    pepper: Pepper,
}

impl KeysFile {
    pub(super) fn new(dir: PrivateDir, pepper: Pepper) -> Self {
        Self { dir, pepper }
    }

    /// The lines that were written last; none if none ever were.
    pub fn read(&self) -> Result<String, DataDirError> {
        let bytes = self.dir.read_up_to(API_KEYS, Privacy::Tightened, API_KEYS_BYTES_MAX)?;
        bytes.map_or(Ok(String::new()), |bytes| opened(&self.dir, &bytes, &self.pepper))
    }

    /// That the file isn't as it must be.
    pub fn unfit(&self, problem: &str) -> DataDirError {
        unfit(&self.dir, problem)
    }

    /// Puts these lines in place of those that were there, durably.
    pub fn write(&self, lines: &str) -> Result<(), DataDirError> {
        let mut text = format!("{HEAD}{lines}");
        let tag = tag(&self.pepper, &text);
        text.push_str(&format!("{TAG}{tag}\n"));
        self.dir.write(API_KEYS, text.as_bytes())
    }

    /// Removes the first key's file: the next start makes another key.
    pub fn forget_first_key(&self) -> Result<(), DataDirError> {
        Sums::load(&self.dir, Privacy::Tightened)?.forget(&self.dir, API_KEY)?;
        self.dir.remove(API_KEY)?;
        self.dir.sync()
    }
}

fn tag(pepper: &Pepper, text: &str) -> String {
    // HMAC takes keys of every length.
    let hmac = Hmac::<Sha256>::new_from_slice(pepper.bytes());
    let mut hmac = hmac.unwrap_or_else(|_| unreachable!("an HMAC key has no wrong length"));
    hmac.update(PURPOSE);
    hmac.update(text.as_bytes());
    hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines in a file's bytes, if they are what a box with that pepper wrote.
pub(super) fn opened(dir: &PrivateDir, bytes: &[u8], pepper: &Pepper) -> Result<String, DataDirError> {
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    let lines = text.strip_prefix(HEAD).and_then(|rest| {
        let (lines, last) = rest.rsplit_once(TAG)?;
        let expected = format!("{}\n", tag(pepper, &format!("{HEAD}{lines}")));
        (last == expected).then(|| lines.to_owned())
    });
    lines.ok_or_else(|| {
        if text.starts_with(HEAD_OF_ALL) && !text.starts_with(HEAD) {
            return DataDirError::Unfit {
                path: dir.path().join(API_KEYS),
                problem: "was written by a newer version".into(),
                remedy: "start that version".into(),
            };
        }
        unfit(dir, "isn't what was written, or `key.pepper` beside it is another one")
    })
}

fn unfit(dir: &PrivateDir, problem: &str) -> DataDirError {
    let remedy =
        "put back both files of a backup, or delete `api.keys`: then the keys in it open nothing any more";
    DataDirError::Unfit { path: dir.path().join(API_KEYS), problem: problem.into(), remedy: remedy.into() }
}
