//! The keys that a box knows: who has one is let in, and they are made and revoked while it runs.
//!
//! A key is on disk before it is shown, and gone from there before it is said to be revoked; from then on it opens, or
//! no longer opens, every new request. One change is made at a time, and goes on to its end even if who asked leaves.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use hmac::Hmac;
use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::record::{digest, keyed, read, written};
use super::throttle::Throttle;
use super::{Grant, KeyRecord, Principal, bearer};
use crate::api::error::ApiError;
use crate::api::server::Peer;
use crate::datadir::{DataDirError, KeysFile};
use crate::ids::Namespace;
use crate::secrets::{ApiKey, Pepper};
use crate::time::Time;

/// Keys in all.
const API_KEYS_MAX: usize = 10_000;

/// All keys.
pub(in crate::api) struct Keys {
    known: RwLock<Known>,
    /// Keyed once: a request pays for its own secret only.
    hmac: Hmac<Sha256>,
    throttle: Throttle,
    /// Where they are kept. Held while they are changed.
    file: tokio::sync::Mutex<Option<Arc<KeysFile>>>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<String, KnownKey>,
    /// The key that every box has from its first start on.
    first: Option<String>,
}

struct KnownKey {
    record: KeyRecord,
    principal: Arc<Principal>,
}

/// A key as it is listed.
pub(in crate::api) struct Listed {
    pub(in crate::api) record: KeyRecord,
    pub(in crate::api) is_first: bool,
}

/// Why keys weren't changed.
pub(in crate::api) enum Unchanged {
    /// As many as may be.
    Full,
    /// There is none of that id.
    Unknown,
    /// The system refused something.
    Failed(String),
}

impl From<DataDirError> for Unchanged {
    fn from(error: DataDirError) -> Self {
        Unchanged::Failed(error.to_string())
    }
}

/// The records in a file.
///
/// # Errors
/// When it isn't what was written.
pub(super) fn records(file: &KeysFile) -> Result<Vec<KeyRecord>, DataDirError> {
    read(&file.read()?).ok_or_else(|| file.unfit("has a line that is no key"))
}

impl Known {
    /// Lets a key in. Namespaces that have several share one count of requests.
    fn add(&mut self, record: KeyRecord) {
        let of_namespace = |key: &&KnownKey| key.record.grant.namespace == record.grant.namespace;
        let counted = self.by_id.values().find(of_namespace);
        let in_flight: Arc<AtomicU64> =
            counted.map(|key| Arc::clone(&key.principal.in_flight)).unwrap_or_default();
        let principal = Arc::new(Principal::of(record.grant.clone(), in_flight));
        self.by_id.insert(record.id.clone(), KnownKey { record, principal });
    }

    /// What is kept: all but the first, which has a file of its own.
    fn kept(&self) -> Vec<KeyRecord> {
        let is_kept = |key: &&KnownKey| Some(&key.record.id) != self.first.as_ref();
        let mut kept: Vec<KeyRecord> =
            self.by_id.values().filter(is_kept).map(|key| key.record.clone()).collect();
        kept.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        kept
    }
}

impl Keys {
    pub(super) fn new(
        pepper: &Pepper,
        first: Option<KeyRecord>,
        records: Vec<KeyRecord>,
        file: Option<KeysFile>,
    ) -> Self {
        let mut known = Known { by_id: HashMap::new(), first: first.as_ref().map(|first| first.id.clone()) };
        let mut in_flight: HashMap<Namespace, Arc<AtomicU64>> = HashMap::new();
        for record in records.into_iter().chain(first) {
            let in_flight = Arc::clone(in_flight.entry(record.grant.namespace.clone()).or_default());
            let principal = Arc::new(Principal::of(record.grant.clone(), in_flight));
            known.by_id.insert(record.id.clone(), KnownKey { record, principal });
        }
        Self {
            known: RwLock::new(known),
            hmac: keyed(pepper),
            throttle: Throttle::default(),
            file: tokio::sync::Mutex::new(file.map(Arc::new)),
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        // Whoever panicked with it had changed all of it or nothing.
        self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.known().by_id.len()
    }

    /// All, the first key first, then by age.
    pub(in crate::api) fn list(&self) -> Vec<Listed> {
        let known = self.known();
        let first = known.first.as_ref().and_then(|id| known.by_id.get(id));
        let first = first.map(|key| Listed { record: key.record.clone(), is_first: true });
        let others = known.kept().into_iter().map(|record| Listed { record, is_first: false });
        first.into_iter().chain(others).collect()
    }

    /// Makes a key, and keeps what is kept of it.
    pub(in crate::api) async fn create(
        self: &Arc<Self>,
        grant: Grant,
        now: Time,
    ) -> Result<(ApiKey, KeyRecord), Unchanged> {
        let this = Arc::clone(self);
        let change = async move {
            let file = this.file.lock().await;
            let failed = |error: getrandom::Error| Unchanged::Failed(format!("no random bytes: {error}"));
            let key = loop {
                let key = ApiKey::random().map_err(failed)?;
                // Ids have 48 random bits.
                if !this.known().by_id.contains_key(key.id()) {
                    break key;
                }
            };
            let record = KeyRecord::digested(&key, this.hmac.clone(), grant, Some(now));
            let mut kept = this.known().kept();
            if kept.len() >= API_KEYS_MAX {
                return Err(Unchanged::Full);
            }
            kept.push(record.clone());
            keep(file.as_ref(), kept).await?;
            this.known_mut().add(record.clone());
            Ok((key, record))
        };
        to_its_end(change).await
    }

    /// Lets a key in no longer.
    pub(in crate::api) async fn revoke(self: &Arc<Self>, id: &str) -> Result<(), Unchanged> {
        let (this, id) = (Arc::clone(self), id.to_owned());
        let change = async move {
            let file = this.file.lock().await;
            if !this.known().by_id.contains_key(&id) {
                return Err(Unchanged::Unknown);
            }
            if this.known().first.as_ref() == Some(&id) {
                let file = file.clone();
                in_background(move || file.map_or(Ok(()), |file| file.forget_first_key())).await?;
            } else {
                let mut kept = this.known().kept();
                kept.retain(|record| record.id != id);
                keep(file.as_ref(), kept).await?;
            }
            this.known_mut().by_id.remove(&id);
            Ok(())
        };
        to_its_end(change).await
    }

    pub(super) fn authenticate(&self, headers: &HeaderMap, peer: Peer) -> Result<Arc<Principal>, ApiError> {
        let now = Instant::now();
        if let Some(wait) = self.throttle.refuses_peer(peer, now) {
            return Err(ApiError::too_many_failures(wait.as_secs() + 1));
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(ApiError::invalid_key("No API key was given: send `Authorization: Bearer sk-...`."));
        };
        let text = value.to_str().unwrap_or_default();
        let key = bearer(text).and_then(ApiKey::split);
        let known = key.and_then(|(id, secret)| {
            let known = self.known().by_id.get(id).map(|key| (key.record.digest, Arc::clone(&key.principal)));
            // An unknown id costs the same work as a wrong secret, so that ids can't be found out by time.
            let expected = known.as_ref().map_or([0; 32], |(digest, _)| *digest);
            let is_equal = bool::from(digest(self.hmac.clone(), secret).ct_eq(&expected));
            known.filter(|_| is_equal)
        });
        match known {
            Some((_, principal)) => Ok(principal),
            None => Err(self.failure(key.map(|(id, _)| id), peer, now)),
        }
    }

    /// Counts a failure, and words it.
    fn failure(&self, id: Option<&str>, peer: Peer, now: Instant) -> ApiError {
        let id = id.filter(|id| self.known().by_id.contains_key(*id));
        match self.throttle.failed(peer, id, now) {
            Some(wait) => ApiError::too_many_failures(wait.as_secs() + 1),
            None => {
                ApiError::invalid_key("Incorrect API key: it must be one that this server made, `sk-...`.")
            }
        }
    }
}

/// Writes what is kept, if it is kept anywhere.
async fn keep(file: Option<&Arc<KeysFile>>, records: Vec<KeyRecord>) -> Result<(), Unchanged> {
    let Some(file) = file.cloned() else { return Ok(()) };
    let lines = written(&records).map_err(|error| Unchanged::Failed(error.to_string()))?;
    in_background(move || file.write(&lines)).await
}

/// Does what waits for the disk where that blocks nobody.
async fn in_background(
    work: impl FnOnce() -> Result<(), DataDirError> + Send + 'static,
) -> Result<(), Unchanged> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| Unchanged::Failed("it panicked, as the log says".to_owned()))??)
}

/// A change that isn't cut short by who waits for it.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Unchanged>> + Send + 'static,
) -> Result<T, Unchanged> {
    let done = tokio::spawn(change).await;
    done.unwrap_or_else(|_| Err(Unchanged::Failed("it panicked, as the log says".to_owned())))
}
