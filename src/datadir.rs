//! The box's directory: one process at a time, private to its user, whole files or none.
//!
//! [`DataDir`] is the box's own view; whoever holds it holds the lock. [`Quiet`] is that of a command which looks while
//! no box runs, and changes nothing. [`Published`] is what other commands of the same user read of a running box,
//! without the lock. Nothing here prints a secret, follows a link inside
//! the directory, or leaves a half-written file under its final name.

mod agent;
mod files;
mod growing;
mod keys;
mod sums;
#[cfg(test)]
mod tests;
mod tls;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use agent::{AgentDir, Kept, ResultFiles, agent_default_path, socket_in};
use files::{Lock, Privacy, PrivateDir};
pub use growing::Growing;
pub use keys::KeysFile;
use keys::{API_KEYS, API_KEYS_BYTES_MAX};
use sums::{SUMS, Sums};
pub use tls::TlsFiles;
use zeroize::Zeroizing;

use crate::secrets::{AdminToken, ApiKey, Pepper};

/// The store's directory within the data directory.
pub const STORE: &str = "store";
const LOCK: &str = "lock";
const API_KEY: &str = "api.key";
const KEY_PEPPER: &str = "key.pepper";
const BOOT_SECRET: &str = "boot.secret";
const BOOT_SECRET_BYTES: usize = 32;
/// The seed of the key that nodes know the box by.
const BOX_KEY: &str = "box.key";
const BOX_KEY_BYTES: usize = 32;
/// What that key's owner is known by.
const BOX_PUBLIC_KEY: &str = "box.pub";
/// The certificate that the box made itself.
pub const TLS_CERTIFICATE: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const ADMIN_TOKEN: &str = "admin.token";
/// Digests of model files, by size and time.
const DIGESTS: &str = "digests.json";
const DIGESTS_BYTES_MAX: u64 = 256 << 10;
const LISTEN_ADDR: &str = "listen.addr";
const ADMIN_ADDR: &str = "admin.addr";
/// In a backup that isn't whole yet.
const UNFINISHED_BACKUP: &str = "backup.unfinished";
/// In one that is whole, until it has its name.
const WHOLE_BACKUP: &str = "backup.whole";
/// What a backup takes along beside the store.
const SECRETS: [&str; 6] = [API_KEY, KEY_PEPPER, BOOT_SECRET, BOX_KEY, TLS_KEY, TLS_CERTIFICATE];

/// Why the data directory, or a file of it, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused something.
    #[error("can't {action} `{}`: {source}; {remedy}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// Another process has it.
    #[error(
        "the data directory `{}` is in use by another switchbox process (pid {pid}); stop that one, or name \
         another with `--data-dir DIR`",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as its lock file says.
        pid: String,
    },
    /// It isn't as it must be.
    #[error("`{}` {problem}; {remedy}", path.display())]
    Unfit {
        /// What.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes for a new secret: {0}; start the box again later")]
    Random(getrandom::Error),
}

/// `$XDG_DATA_HOME/switchbox` or `$HOME/.local/share/switchbox`; `None` if neither variable names a directory.
pub fn default_path() -> Option<PathBuf> {
    let absolute = |variable: &str| {
        let path: OsString = std::env::var_os(variable)?;
        Some(PathBuf::from(path)).filter(|path| path.is_absolute())
    };
    let data_home = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    data_home.map(|home| home.join("switchbox"))
}

/// The first API key, and whether this start made it.
#[derive(Debug)]
pub enum FirstKey {
    /// It was there.
    Kept(ApiKey),
    /// This start made it: to be shown once.
    Created(ApiKey),
}

/// The box's data directory, locked. Dropping it takes back the addresses and lets the lock go.
#[derive(Debug)]
pub struct DataDir {
    dir: PrivateDir,
    _lock: Lock,
}

impl DataDir {
    /// Makes the directory if there is none, sees to its permissions and takes its lock.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let dir = PrivateDir::create(path, LOCK)?;
        let lock = dir.lock(LOCK)?;
        check_whole(&dir)?;
        // It is a box now, and no backup's to replace.
        dir.remove(WHOLE_BACKUP)?;
        // Addresses of a process that was killed lead nowhere.
        dir.remove(LISTEN_ADDR)?;
        dir.remove(ADMIN_ADDR)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The first API key; made on the first start.
    pub fn first_key(&self) -> Result<FirstKey, DataDirError> {
        if let Some(key) = self.kept(API_KEY, key_of)? {
            return Ok(FirstKey::Kept(key));
        }
        let key = ApiKey::random().map_err(DataDirError::Random)?;
        let line = Zeroizing::new(format!("{}\n", key.text()));
        self.keep(API_KEY, line.as_bytes())?;
        Ok(FirstKey::Created(key))
    }

    /// The box's own secret that digests of keys are made with; made on the first start.
    pub fn pepper(&self) -> Result<Pepper, DataDirError> {
        if let Some(pepper) = self.kept(KEY_PEPPER, pepper_of)? {
            return Ok(pepper);
        }
        let pepper = Pepper::random().map_err(DataDirError::Random)?;
        self.keep(KEY_PEPPER, pepper.bytes())?;
        Ok(pepper)
    }

    /// The file of the API keys that are made while the box runs.
    pub fn keys_file(&self) -> Result<KeysFile, DataDirError> {
        Ok(KeysFile::new(self.dir.again()?, self.pepper()?))
    }

    /// The random bytes that the core's choices derive from; made on the first start.
    pub fn boot_secret(&self) -> Result<[u8; BOOT_SECRET_BYTES], DataDirError> {
        if let Some(secret) = self.kept(BOOT_SECRET, secret_of)? {
            return Ok(secret);
        }
        let mut secret = [0; BOOT_SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(DataDirError::Random)?;
        self.keep(BOOT_SECRET, &secret)?;
        Ok(secret)
    }

    /// The seed of the key that nodes know the box by, and that it signs with; made on the first start.
    pub fn box_seed(&self) -> Result<Zeroizing<[u8; BOX_KEY_BYTES]>, DataDirError> {
        if let Some(seed) = self.kept(BOX_KEY, box_key_of)? {
            return Ok(seed);
        }
        let mut seed = Zeroizing::new([0; BOX_KEY_BYTES]);
        getrandom::fill(&mut seed[..]).map_err(DataDirError::Random)?;
        self.keep(BOX_KEY, &seed[..])?;
        Ok(seed)
    }

    /// A secret that is there, and is what was written.
    fn kept<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&[u8], &PrivateDir) -> Result<T, DataDirError>,
    ) -> Result<Option<T>, DataDirError> {
        let Some(bytes) = self.dir.read(name, Privacy::Tightened)? else { return Ok(None) };
        let secret = parse(&bytes, &self.dir)?;
        let sums = Sums::load(&self.dir, Privacy::Tightened)?;
        if !sums.check(&self.dir, name, &bytes)? {
            sums.note(&self.dir, name, &bytes)?;
        }
        Ok(Some(secret))
    }

    /// Writes a secret that was made just now.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let sums = Sums::load(&self.dir, Privacy::Tightened)?.forget(&self.dir, name)?;
        self.dir.write(name, bytes)?;
        sums.note(&self.dir, name, bytes)
    }

    /// Lets the API keys, what keys are digested with, the boot secret and the key that nodes know go: this start makes
    /// new ones, for a copy that runs beside the box that it was made of.
    pub fn renew_identity(&self) -> Result<(), DataDirError> {
        [SUMS, API_KEYS].into_iter().chain(SECRETS).try_for_each(|name| self.dir.remove(name))
    }

    /// A new token for the admin listener; the one of the last start is worth nothing from now on.
    pub fn new_admin_token(&self) -> Result<AdminToken, DataDirError> {
        let token = AdminToken::random().map_err(DataDirError::Random)?;
        let line = Zeroizing::new(format!("{}\n", token.text()));
        self.dir.write(ADMIN_TOKEN, line.as_bytes())?;
        Ok(token)
    }

    /// Digests of model files, as an earlier start kept them.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn model_digests(&self) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
        self.dir.read_up_to(DIGESTS, Privacy::Tightened, DIGESTS_BYTES_MAX)
    }

    /// Keeps digests of model files for the next start.
    ///
    /// # Errors
    /// When the system refuses something.
    pub fn keep_model_digests(&self, bytes: &[u8]) -> Result<(), DataDirError> {
        self.dir.write(DIGESTS, bytes)
    }

    /// Publishes the key that nodes and readers of receipts know the box by, in hexadecimal digits.
    pub fn publish_box_key(&self, public: &str) -> Result<(), DataDirError> {
        self.dir.write(BOX_PUBLIC_KEY, format!("{public}\n").as_bytes())
    }

    /// Publishes where the inference listener listens: `http://IP:PORT`.
    pub fn publish_listen_addr(&self, address: &str) -> Result<(), DataDirError> {
        self.dir.write(LISTEN_ADDR, format!("{address}\n").as_bytes())
    }

    /// Publishes where the admin listener listens: `http://IP:PORT` or `unix:PATH`.
    pub fn publish_admin_addr(&self, address: &str) -> Result<(), DataDirError> {
        self.dir.write(ADMIN_ADDR, format!("{address}\n").as_bytes())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next start.
        let _ = self.dir.remove(LISTEN_ADDR);
        let _ = self.dir.remove(ADMIN_ADDR);
    }
}

/// A directory that no box has, as long as this is held. Nothing in it was or will be changed.
#[derive(Debug)]
pub struct Quiet {
    dir: PrivateDir,
    _lock: Option<Lock>,
}

impl Quiet {
    /// Holds a directory that is there.
    ///
    /// # Errors
    /// When a box has it ([`DataDirError::InUse`] names its process), it isn't there, or the system refuses something.
    pub fn hold(path: &Path) -> Result<Self, DataDirError> {
        let dir = PrivateDir::existing(path)?;
        let lock = dir.lock_as_it_is(LOCK)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether a box was ever started in it, or it is a backup of one.
    pub fn is_a_boxs(&self) -> bool {
        self._lock.is_some()
    }

    /// What a start would refuse: it isn't whole, or a secret isn't one.
    pub fn refusals(&self) -> Vec<DataDirError> {
        let read = |name| self.dir.read(name, Privacy::Unchecked);
        let api_key =
            read(API_KEY).and_then(|bytes| bytes.map_or(Ok(()), |b| key_of(&b, &self.dir).map(drop)));
        let pepper =
            read(KEY_PEPPER).and_then(|bytes| bytes.map_or(Ok(()), |b| pepper_of(&b, &self.dir).map(drop)));
        let secret =
            read(BOOT_SECRET).and_then(|bytes| bytes.map_or(Ok(()), |b| secret_of(&b, &self.dir).map(drop)));
        let box_key =
            read(BOX_KEY).and_then(|bytes| bytes.map_or(Ok(()), |b| box_key_of(&b, &self.dir).map(drop)));
        let refusals = [check_whole(&self.dir), api_key, pepper, secret, box_key].into_iter();
        let sums = Sums::load(&self.dir, Privacy::Unchecked).unwrap_or_default();
        let changed = SECRETS.into_iter().map(|name| {
            read(name).and_then(|bytes| bytes.map_or(Ok(true), |bytes| sums.check(&self.dir, name, &bytes)))
        });
        let refusals = refusals.chain(changed.map(|known| known.map(drop)));
        refusals.chain([self.keys_refusal()]).filter_map(Result::err).collect()
    }

    /// What a start would say of the keys that were made while the box ran; nothing where the pepper is refused already.
    fn keys_refusal(&self) -> Result<(), DataDirError> {
        let pepper = self.dir.read(KEY_PEPPER, Privacy::Unchecked)?;
        let keys = self.dir.read_up_to(API_KEYS, Privacy::Unchecked, API_KEYS_BYTES_MAX)?;
        match (keys, pepper.as_ref().map(|pepper| Pepper::of_bytes(pepper))) {
            (None, _) | (_, Some(None)) => Ok(()),
            (Some(keys), Some(Some(pepper))) => keys::opened(&self.dir, &keys, &pepper).map(drop),
            // A start makes another pepper, which isn't the one that the file was written with.
            (Some(keys), None) => {
                keys::opened(&self.dir, &keys, &Pepper::random().map_err(DataDirError::Random)?).map(drop)
            }
        }
    }

    /// Secrets that other users may read: a start closes them.
    pub fn open_secrets(&self) -> Vec<PathBuf> {
        let open = SECRETS.into_iter().chain([API_KEYS]).filter(|name| self.dir.is_open_to_others(name));
        open.map(|name| self.dir.path().join(name)).collect()
    }
}

/// What a running box publishes for other commands of its user.
#[derive(Debug)]
pub struct Published(PrivateDir);

impl Published {
    /// Of the box that has this data directory.
    pub fn at(path: &Path) -> Result<Self, DataDirError> {
        PrivateDir::existing(path).map(Self)
    }

    /// Where its inference listener listens.
    pub fn listen_addr(&self) -> Result<String, DataDirError> {
        self.line(LISTEN_ADDR)
    }

    /// Where its admin listener listens.
    pub fn admin_addr(&self) -> Result<String, DataDirError> {
        self.line(ADMIN_ADDR)
    }

    /// The token for its admin listener.
    pub fn admin_token(&self) -> Result<AdminToken, DataDirError> {
        let bytes = self.bytes(ADMIN_TOKEN)?;
        AdminToken::parse(&bytes).ok_or_else(|| DataDirError::Unfit {
            path: self.0.path().join(ADMIN_TOKEN),
            problem: "holds no admin token".into(),
            remedy: "restart the box, which makes a new one".into(),
        })
    }

    /// Its first API key, if it has one: a box without keys has none.
    pub fn api_key(&self) -> Result<Option<ApiKey>, DataDirError> {
        let bytes = self.0.read(API_KEY, Privacy::Required)?;
        bytes.map(|bytes| key_of(&bytes, &self.0)).transpose()
    }

    fn bytes(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, DataDirError> {
        self.0.read(name, Privacy::Required)?.ok_or_else(|| DataDirError::Unfit {
            path: self.0.path().join(name),
            problem: "isn't there, so no box is running on this data directory".into(),
            remedy: "start one with `switchbox serve`, or name its directory with `--data-dir DIR`".into(),
        })
    }

    fn line(&self, name: &str) -> Result<String, DataDirError> {
        let bytes = self.bytes(name)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.trim().to_owned())
    }
}

fn key_of(bytes: &[u8], dir: &PrivateDir) -> Result<ApiKey, DataDirError> {
    ApiKey::parse(bytes).ok_or_else(|| DataDirError::Unfit {
        path: dir.path().join(API_KEY),
        problem: "holds no API key (`sk-`, 8 characters, a dot, 43 characters)".into(),
        remedy: "delete it, then the next start of the box makes a new key".into(),
    })
}

fn pepper_of(bytes: &[u8], dir: &PrivateDir) -> Result<Pepper, DataDirError> {
    Pepper::of_bytes(bytes).ok_or_else(|| DataDirError::Unfit {
        path: dir.path().join(KEY_PEPPER),
        problem: format!("holds {} bytes instead of {}", bytes.len(), Pepper::BYTES),
        remedy: "put back the file of a backup, or delete it and `api.keys`: then the first key is digested anew, and \
                 the others are to be made anew"
            .into(),
    })
}

fn secret_of(bytes: &[u8], dir: &PrivateDir) -> Result<[u8; BOOT_SECRET_BYTES], DataDirError> {
    bytes.try_into().map_err(|_| DataDirError::Unfit {
        path: dir.path().join(BOOT_SECRET),
        problem: format!("holds {} bytes instead of {BOOT_SECRET_BYTES}", bytes.len()),
        remedy: "put back the file of a backup, or delete it: then the next start makes another".into(),
    })
}

fn box_key_of(bytes: &[u8], dir: &PrivateDir) -> Result<Zeroizing<[u8; BOX_KEY_BYTES]>, DataDirError> {
    bytes.try_into().map(Zeroizing::new).map_err(|_| DataDirError::Unfit {
        path: dir.path().join(BOX_KEY),
        problem: format!("holds {} bytes instead of {BOX_KEY_BYTES}", bytes.len()),
        remedy: "put back the file of a backup, or delete it: then the next start makes another, and every node has to \
                 join again"
            .into(),
    })
}

/// Whether it isn't a part of a backup.
fn check_whole(dir: &PrivateDir) -> Result<(), DataDirError> {
    if !dir.has(UNFINISHED_BACKUP)? {
        return Ok(());
    }
    Err(DataDirError::Unfit {
        path: dir.path().to_owned(),
        problem: "is a backup that was interrupted, and so not whole".into(),
        remedy: "use another backup, and remove this one".into(),
    })
}
