//! An agent's directory: its key, the box that it joined, and what it must know again after a restart.
//!
//! One process at a time, private to its user; files are whole or absent. What a file of the agent's own format holds is
//! its own affair: here they are bytes of a bounded length.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::files::{Lock, Privacy, PrivateDir};
use super::{DataDirError, LOCK, STORE, default_path};
use crate::wire::Identity;

const KEY: &str = "node.key";
/// Hexadecimal digits of a key file's check.
const CHECK_DIGITS: usize = 8;
/// The socket that the owner's commands come in by.
const SOCKET: &str = "agent.sock";
/// The longest path of a Unix socket that Linux takes.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Where results are kept that the box hasn't acknowledged.
const RESULTS: &str = "results";

/// Where an agent keeps its files unless told otherwise; `None` if the environment names no directory.
pub fn agent_default_path() -> Option<PathBuf> {
    default_path().map(|path| path.with_file_name("switchbox-agent"))
}

/// A file that the agent keeps between its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The box that it joined. Holds a secret until the key is registered there.
    Box,
    /// Digests of model files, by size and time.
    Digests,
    /// The last good configuration of mainnet.
    Mainnet,
    /// The last good configuration of testnet.
    Testnet,
}

impl Kept {
    fn name(self) -> &'static str {
        match self {
            Kept::Box => "box.json",
            Kept::Digests => "digests.json",
            Kept::Mainnet => "snapshot-mainnet.json",
            Kept::Testnet => "snapshot-testnet.json",
        }
    }

    /// Bytes that it may have.
    fn bytes_max(self) -> u64 {
        match self {
            Kept::Box | Kept::Digests => 256 << 10,
            // A message of the box's, and what JSON adds to its text.
            Kept::Mainnet | Kept::Testnet => 20 << 20,
        }
    }
}

/// An agent's directory, locked as long as this is held.
#[derive(Debug)]
pub struct AgentDir {
    dir: PrivateDir,
    _lock: Lock,
}

impl AgentDir {
    /// Makes the directory if there is none, sees to its permissions and takes its lock.
    ///
    /// # Errors
    /// When another process has it, it is a box's, or the system refuses something.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let dir = PrivateDir::create(path, LOCK)?;
        let lock = dir.lock(LOCK)?;
        if dir.has(STORE)? {
            return Err(DataDirError::Unfit {
                path: dir.path().to_owned(),
                problem: "is a box's data directory".into(),
                remedy: "name another for the agent with `--data-dir DIR`".into(),
            });
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The node's key; made on the first start.
    ///
    /// # Errors
    /// When the file isn't what was written: a node without its key is another node.
    pub fn identity(&self) -> Result<Identity, DataDirError> {
        if let Some(bytes) = self.dir.read(KEY, Privacy::Tightened)? {
            return seed_of(&bytes).map(|seed| Identity::of_seed(&seed)).ok_or_else(|| DataDirError::Unfit {
                path: self.dir.path().join(KEY),
                problem: "isn't the key that was written there".into(),
                remedy: "put back a copy of it, or delete it and join again with a new invite: then this is a new node"
                    .into(),
            });
        }
        let mut seed = Zeroizing::new([0; Identity::BYTES]);
        getrandom::fill(&mut seed[..]).map_err(DataDirError::Random)?;
        self.dir.write(KEY, line_of(&seed).as_bytes())?;
        Ok(Identity::of_seed(&seed))
    }

    /// What was kept, if anything was.
    ///
    /// # Errors
    /// When it is too long to be it, or the system refuses something.
    pub fn load(&self, kept: Kept) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
        self.dir.read_up_to(kept.name(), Privacy::Tightened, kept.bytes_max())
    }

    /// Keeps it: on disk when this returns.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn keep(&self, kept: Kept, bytes: &[u8]) -> Result<(), DataDirError> {
        self.dir.write(kept.name(), bytes)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn forget(&self, kept: Kept) -> Result<(), DataDirError> {
        self.dir.remove(kept.name())
    }

    /// Where the socket for the owner's commands is to be. One of a process that died is removed.
    ///
    /// # Errors
    /// When the path is longer than a socket's may be.
    pub fn free_socket(&self) -> Result<PathBuf, DataDirError> {
        let path = socket_in(self.dir.path())?;
        self.dir.remove(SOCKET)?;
        Ok(path)
    }

    /// The directory of results that the box hasn't acknowledged; made if there is none.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn results(&self) -> Result<ResultFiles, DataDirError> {
        PrivateDir::create(&self.dir.path().join(RESULTS), "").map(ResultFiles)
    }
}

/// Where the agent that has this directory listens for its owner's commands.
///
/// # Errors
/// When the path is longer than a socket's may be.
pub fn socket_in(directory: &Path) -> Result<PathBuf, DataDirError> {
    let path = directory.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(path);
    }
    Err(DataDirError::Unfit {
        path,
        problem: format!("is longer than a Unix socket's path may be ({SOCKET_PATH_BYTES_MAX} bytes)"),
        remedy: "name a data directory with a shorter path (`--data-dir DIR`)".into(),
    })
}

/// A key's file: the seed in hexadecimal, and the first digits of the SHA-256 of that.
fn line_of(seed: &[u8; Identity::BYTES]) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(2 * Identity::BYTES + CHECK_DIGITS + 2));
    push_hex(&mut line, seed);
    let check = check_of(&line);
    line.push(' ');
    line.push_str(&check);
    line.push('\n');
    line
}

fn seed_of(file: &[u8]) -> Option<Zeroizing<[u8; Identity::BYTES]>> {
    let text = std::str::from_utf8(file).ok()?;
    let (digits, check) = text.trim_end().split_once(' ')?;
    let is_seed = digits.len() == 2 * Identity::BYTES && digits.is_ascii() && check_of(digits) == check;
    let mut seed = Zeroizing::new([0; Identity::BYTES]);
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    is_seed.then_some(seed)
}

fn check_of(digits: &str) -> String {
    let mut check = String::new();
    push_hex(&mut check, &Sha256::digest(digits.as_bytes()));
    check.truncate(CHECK_DIGITS);
    check
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
}

/// Files of results, each with a name of its own.
#[derive(Debug)]
pub struct ResultFiles(PrivateDir);

impl ResultFiles {
    /// Names of all files, in no order; leftovers of a write that was cut off aren't among them.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn names(&self) -> Result<Vec<String>, DataDirError> {
        let names = self.0.names()?;
        Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    /// A file's bytes, of at most `bytes_max`.
    ///
    /// # Errors
    /// When it is longer, or the system refuses something.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
        self.0.read_up_to(name, Privacy::Tightened, bytes_max)
    }

    /// Writes a file whole: on disk when this returns.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        self.0.write(name, bytes)
    }

    /// Removes a file if there is one.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn remove(&self, name: &str) -> Result<(), DataDirError> {
        self.0.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("switchbox-agent-dir-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn the_key_is_made_once_and_a_changed_one_is_refused() {
        let path = directory("key");
        let first = AgentDir::open(&path).expect("a directory");
        let key = first.identity().expect("a key").public();
        assert_eq!(first.identity().expect("the same").public(), key);
        let other = AgentDir::open(&path).expect_err("in use").to_string();
        assert!(other.contains(&format!("pid {}", std::process::id())), "{other}");
        drop(first);
        let file = path.join(KEY);
        let written = std::fs::read_to_string(&file).expect("there");
        let digit = if written.starts_with('0') { "1" } else { "0" };
        for wrong in
            [format!("{digit}{}", &written[1..]), String::new(), written[..60].to_owned(), "é".repeat(73)]
        {
            std::fs::write(&file, wrong).expect("room");
            let error =
                AgentDir::open(&path).and_then(|dir| dir.identity()).expect_err("changed").to_string();
            assert!(error.contains("put back a copy"), "{error}");
        }
        std::fs::write(&file, written).expect("room");
        let again = AgentDir::open(&path).and_then(|dir| dir.identity()).expect("put back");
        assert_eq!(again.public(), key);
        let _ = std::fs::remove_dir_all(&path);
    }

    #[test]
    fn a_boxs_directory_is_refused() {
        let path = directory("box");
        std::fs::create_dir_all(path.join(STORE)).expect("room");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("mine");
        let error = AgentDir::open(&path).expect_err("a box's").to_string();
        assert!(error.contains("a box's data directory") && error.contains("--data-dir"), "{error}");
        let _ = std::fs::remove_dir_all(&path);
    }
}
