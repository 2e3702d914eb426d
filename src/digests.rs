//! SHA-256 of model files, which names exactly what a node serves. Reading all of a file takes its time, so a digest is
//! kept as long as the file's size and time of change stay what they were.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::ModelName;
use crate::wire::Hash;
use crate::wire::hash::plain_hash;
use crate::wire::keys::Hex;

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// A model's file can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read `{}`: {source}; see to the file and to who may read it", path.display())]
pub struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

/// Digests of models' files.
#[derive(Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of each model.
    pub of: BTreeMap<ModelName, Hash>,
    /// What is to be kept for the next start, if it isn't what was kept.
    pub to_keep: Option<Vec<u8>>,
}

/// What is kept: a digest with a flipped bit would make the node another's liar.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of the rest, as JSON.
    sum: Hash,
    known: Vec<Known>,
}

/// A digest that was made, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    path: PathBuf,
    bytes: u64,
    changed_s: i64,
    changed_ns: i64,
    digest: Hash,
}

/// The digests of models' files. Those that an earlier start kept are believed; what isn't readable there is made again.
///
/// # Errors
/// When a file can't be read.
pub fn digests(kept: Option<&[u8]>, files: &[(ModelName, PathBuf)]) -> Result<Digests, Unreadable> {
    let before = kept.and_then(before).unwrap_or_default();
    let mut now: Vec<Known> = Vec::new();
    let mut of = BTreeMap::new();
    for (model, path) in files {
        let known = known(path, &before).map_err(|source| Unreadable { path: path.clone(), source })?;
        of.insert(model.clone(), known.digest);
        if !now.contains(&known) {
            now.push(known);
        }
    }
    let to_keep = (now != before).then(|| to_keep(now));
    Ok(Digests { of, to_keep })
}

/// What an earlier start kept, if it is as it was written.
fn before(bytes: &[u8]) -> Option<Vec<Known>> {
    let Kept { sum, known } = serde_json::from_slice(bytes).ok()?;
    (sum_of(&known) == sum).then_some(known)
}

fn to_keep(known: Vec<Known>) -> Vec<u8> {
    serde_json::to_vec(&Kept { sum: sum_of(&known), known }).unwrap_or_default()
}

fn sum_of(known: &[Known]) -> Hash {
    plain_hash(&serde_json::to_vec(known).unwrap_or_default())
}

fn known(path: &Path, before: &[Known]) -> io::Result<Known> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let is_same = |known: &&Known| {
        let (bytes, changed_s, changed_ns) = (known.bytes, known.changed_s, known.changed_ns);
        known.path == path && (bytes, changed_s, changed_ns) == (meta.size(), meta.mtime(), meta.mtime_nsec())
    };
    if let Some(known) = before.iter().find(is_same) {
        return Ok(known.clone());
    }
    tracing::info!(path = %path.display(), bytes = meta.size(), "reading the model to name it by its digest");
    let digest = digest_of(file)?;
    let (bytes, changed_s, changed_ns) = (meta.size(), meta.mtime(), meta.mtime_nsec());
    Ok(Known { path: path.to_owned(), bytes, changed_s, changed_ns, digest })
}

fn digest_of(mut file: File) -> io::Result<Hash> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Hex(sha.finalize().into())),
            bytes => sha.update(&buffer[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_made_again_only_when_the_file_changed() {
        let root = std::env::temp_dir().join(format!("switchbox-digest-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).expect("a directory");
        let path = root.join("model.gguf");
        std::fs::write(&path, b"abc").expect("room");
        let files = [("one".into(), path.clone()), ("two".into(), path.clone())];
        let made = digests(None, &files).expect("readable");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(made.of.len() == 2 && made.of.values().all(|digest| digest.to_string() == abc), "{made:?}");
        let kept = made.to_keep.expect("nothing was kept");
        // The same size and time: what is known is believed.
        let changed = std::fs::metadata(&path).and_then(|meta| meta.modified()).expect("a time");
        std::fs::write(&path, b"abd").expect("room");
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(changed))
            .expect("settable");
        let believed = digests(Some(&kept), &files).expect("readable");
        assert_eq!((&believed.of, believed.to_keep), (&made.of, None));
        std::fs::write(&path, b"abcd").expect("room");
        let again = digests(Some(&kept), &files).expect("readable");
        assert!(again.of != made.of && again.to_keep.is_some(), "{again:?}");
        assert_eq!(digests(Some(b"no JSON"), &files).expect("readable").of, again.of);
        // So is one that isn't as it was written, wherever.
        let kept = again.to_keep.expect("it was made again");
        for at in 0..kept.len() {
            let mut rotten = kept.clone();
            rotten[at] ^= 1;
            assert_eq!(digests(Some(&rotten), &files).expect("readable").of, again.of, "byte {at}");
        }
        std::fs::remove_file(&path).expect("there");
        let error = digests(Some(&kept), &files).expect_err("gone").to_string();
        assert!(error.contains("model.gguf"), "{error}");
        let _ = std::fs::remove_dir_all(&root);
    }
}
