//! Which job an idempotency key stands for, for 24 hours (SPEC section 9).
//!
//! It knows digests only, never a client's key or body, and never decides what becomes of a job: whoever asks
//! looks at the job that a key is attached to. A key whose job still lives doesn't expire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ids::{Digest, IdempotencyKey, JobId, Namespace};
use crate::time::{Span, Time};

/// How long a key is kept from its claim on.
pub const KEY_RETENTION: Span = Span::from_secs(24 * 3_600);
/// How long after its time a key is looked at again whose job still lived then.
pub const KEY_RENEWAL: Span = Span::from_secs(60);
/// Keys of all namespaces together.
pub const KEYS_MAX: usize = 1_000_000;

/// A key's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// The key.
    pub key: IdempotencyKey,
    /// What it stands for.
    pub entry: KeyEntry,
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The body that it came with.
    pub body: Digest,
    /// The job that was made for it.
    pub job: JobId,
    /// Whose it is.
    pub namespace: Namespace,
    /// When it is forgotten, unless its job still lives then.
    pub expires_at: Time,
}

/// What a request finds under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Unknown,
    /// The same request, and the job that it made.
    Attach(JobId),
    /// Another request, and the job that it made.
    Conflict(JobId),
}

/// Why a key wasn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysFull {
    /// The namespace has as many as it may.
    Namespace,
    /// The box has.
    Box,
}

impl fmt::Display for KeysFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeysFull::Namespace => "the namespace has as many idempotency keys as it may keep",
            KeysFull::Box => "the box has as many idempotency keys as it can keep",
        })
    }
}

/// Entries by key.
#[derive(Debug)]
pub(super) struct Keys {
    per_namespace_max: u64,
    entries: BTreeMap<IdempotencyKey, KeyEntry>,
    /// Every key with the time at which it is looked at: its expiry, or a renewal.
    by_time: BTreeSet<(Time, IdempotencyKey)>,
    by_namespace: BTreeMap<Namespace, u64>,
}

impl Keys {
    pub(super) fn new(per_namespace_max: u64) -> Self {
        Self {
            per_namespace_max,
            entries: BTreeMap::new(),
            by_time: BTreeSet::new(),
            by_namespace: BTreeMap::new(),
        }
    }

    /// What a request with this key and body is to do. A key counts until `expire` took it.
    pub(super) fn look(&self, key: &IdempotencyKey, body: &Digest) -> Look {
        match self.entries.get(key) {
            None => Look::Unknown,
            Some(entry) if entry.body == *body => Look::Attach(entry.job),
            Some(entry) => Look::Conflict(entry.job),
        }
    }

    /// Whether `claim` would find room for a key of that namespace that it doesn't know.
    pub(super) fn room(&self, namespace: &Namespace) -> Result<(), KeysFull> {
        if self.count(namespace) >= self.per_namespace_max {
            return Err(KeysFull::Namespace);
        }
        if self.entries.len() >= KEYS_MAX {
            return Err(KeysFull::Box);
        }
        Ok(())
    }

    /// Takes a key that is unknown.
    pub(super) fn claim(&mut self, key: IdempotencyKey, entry: KeyEntry) -> Result<(), KeysFull> {
        self.room(&entry.namespace)?;
        self.restore(key, entry);
        Ok(())
    }

    /// Drops a key.
    pub(super) fn forget(&mut self, key: &IdempotencyKey) -> Option<KeyEntry> {
        let entry = self.entries.remove(key)?;
        self.by_time.remove(&(entry.expires_at, *key));
        let count = self.by_namespace.get_mut(&entry.namespace).expect("a kept key is counted");
        *count -= 1;
        if *count == 0 {
            self.by_namespace.remove(&entry.namespace);
        }
        Some(entry)
    }

    /// Looks at the keys whose time has come, `most` of them, the earliest first; answers with those that it
    /// dropped, and the jobs that they stood for. One whose job lives is looked at again later (its row needn't be written again for that: a
    /// recovered key is past its time too, and goes the same way).
    pub(super) fn expire(
        &mut self,
        now: Time,
        most: usize,
        lives: impl Fn(JobId) -> bool,
    ) -> Vec<(IdempotencyKey, JobId)> {
        let mut dropped = Vec::new();
        for _ in 0..most {
            let Some((_, key)) = self.by_time.first().copied().filter(|(at, _)| *at <= now) else { break };
            let entry = self.forget(&key).expect("a key with a time has an entry");
            if lives(entry.job) {
                self.restore(key, KeyEntry { expires_at: now + KEY_RENEWAL, ..entry });
            } else {
                dropped.push((key, entry.job));
            }
        }
        dropped
    }

    /// Puts back a key that was kept, whatever the bounds are now.
    pub(super) fn restore(&mut self, key: IdempotencyKey, entry: KeyEntry) {
        *self.by_namespace.entry(entry.namespace.clone()).or_default() += 1;
        self.by_time.insert((entry.expires_at, key));
        let before = self.entries.insert(key, entry);
        assert!(before.is_none(), "a key is claimed once, but {key:?} stands for {before:?}");
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keys of a namespace.
    pub(super) fn count(&self, namespace: &Namespace) -> u64 {
        self.by_namespace.get(namespace).copied().unwrap_or(0)
    }

    /// Everything kept, in order of the keys.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&IdempotencyKey, &KeyEntry)> {
        self.entries.iter()
    }

    /// Every broken invariant in a sentence.
    pub(super) fn check(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut counted: BTreeMap<Namespace, u64> = BTreeMap::new();
        let mut times = BTreeSet::new();
        for (key, entry) in &self.entries {
            *counted.entry(entry.namespace.clone()).or_default() += 1;
            times.insert((entry.expires_at, *key));
        }
        if counted != self.by_namespace {
            violations.push(format!("keys by namespace: kept {:?}, counted {counted:?}", self.by_namespace));
        }
        if times != self.by_time {
            violations.push(format!("{} keys, but {} times of expiry", times.len(), self.by_time.len()));
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    const MOST: u64 = 3;

    fn key(n: u8) -> IdempotencyKey {
        IdempotencyKey([n; 32])
    }

    fn body(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn job(n: u64) -> JobId {
        JobId { epoch: 1, counter: n }
    }

    fn named(dropped: Vec<(IdempotencyKey, JobId)>) -> Vec<IdempotencyKey> {
        dropped.into_iter().map(|(key, _)| key).collect()
    }

    fn entry(of: u8, body_of: u8, job_of: u64, expires_at: u64) -> KeyEntry {
        let namespace = Namespace::named(["a", "b", "c"][usize::from(of % 3)]);
        KeyEntry { body: body(body_of), job: job(job_of), namespace, expires_at: Time(expires_at) }
    }

    #[test]
    fn a_key_attaches_conflicts_and_is_replaced() {
        let mut keys = Keys::new(MOST);
        assert_eq!(keys.look(&key(0), &body(1)), Look::Unknown);
        keys.claim(key(0), entry(0, 1, 7, 10)).expect("there is room");
        assert_eq!(keys.look(&key(0), &body(1)), Look::Attach(job(7)));
        assert_eq!(keys.look(&key(0), &body(2)), Look::Conflict(job(7)));
        keys.forget(&key(0));
        keys.claim(key(0), entry(0, 2, 8, 20)).expect("the place of the one before");
        assert_eq!(keys.look(&key(0), &body(2)), Look::Attach(job(8)));
        assert_eq!(named(keys.expire(Time(19), 9, |_| false)), []);
        assert_eq!(named(keys.expire(Time(20), 9, |_| false)), [key(0)]);
        assert_eq!(keys.look(&key(0), &body(2)), Look::Unknown);
        assert_eq!(keys.len(), 0);
    }

    #[test]
    fn a_namespace_has_its_share_and_no_more() {
        let mut keys = Keys::new(MOST);
        (0..3).for_each(|n| keys.claim(key(n * 3), entry(0, 0, 0, 1)).expect("there is room"));
        assert_eq!(keys.claim(key(9), entry(0, 0, 0, 1)), Err(KeysFull::Namespace));
        assert_eq!(keys.claim(key(1), entry(1, 0, 0, 1)), Ok(()), "another's share");
        assert_eq!(keys.count(&Namespace::named("a")), MOST);
        keys.forget(&key(3));
        assert_eq!(keys.claim(key(9), entry(0, 0, 0, 1)), Ok(()));
        assert_eq!(keys.check(), Vec::<String>::new());
    }

    #[test]
    fn a_key_outlives_its_time_with_its_job() {
        let mut keys = Keys::new(MOST);
        keys.claim(key(0), entry(0, 1, 7, 10)).expect("there is room");
        assert_eq!(named(keys.expire(Time(10), 9, |_| true)), []);
        assert_eq!(keys.look(&key(0), &body(1)), Look::Attach(job(7)));
        assert_eq!(named(keys.expire(Time(10) + KEY_RENEWAL, 9, |_| false)), [key(0)]);
    }

    #[test]
    #[should_panic(expected = "claimed once")]
    fn a_key_is_not_claimed_twice() {
        let mut keys = Keys::new(MOST);
        keys.claim(key(0), entry(0, 1, 7, 10)).expect("there is room");
        keys.claim(key(0), entry(0, 1, 8, 10)).expect("there is room");
    }

    #[derive(Debug, Clone)]
    enum Act {
        Claim(u8, u8, u64),
        Forget(u8),
        Expire(u64, usize, u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0..12_u8, 0..3_u8, 0..50_u64).prop_map(|(k, b, ttl)| Act::Claim(k, b, ttl)),
            1 => (0..12_u8).prop_map(Act::Forget),
            2 => (0..30_u64, 0..4_usize, 1..4_u64).prop_map(|(span, most, of)| Act::Expire(span, most, of)),
        ]
    }

    type Model = BTreeMap<IdempotencyKey, (u8, KeyEntry)>;

    /// The plain way: look through all of them for the one whose time came first.
    fn expire_plainly(model: &mut Model, now: Time, most: usize, of: u64) -> Vec<IdempotencyKey> {
        let mut dropped = Vec::new();
        for _ in 0..most {
            let first = model.iter().map(|(key, (_, entry))| (entry.expires_at, *key)).min();
            let Some((_, key)) = first.filter(|(at, _)| *at <= now) else { break };
            let entry = &mut model.get_mut(&key).expect("it is there").1;
            if entry.job.counter.is_multiple_of(of) {
                entry.expires_at = now + KEY_RENEWAL;
            } else {
                model.remove(&key);
                dropped.push(key);
            }
        }
        dropped
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn it_does_what_a_plain_table_would(acts in prop::collection::vec(act(), 1..150)) {
            let (mut keys, mut model, mut now) = (Keys::new(MOST), Model::new(), 0);
            for (number, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Claim(k, b, ttl) => {
                        let new = entry(k, b, number as u64, now + ttl);
                        let full = model.values().filter(|(of, _)| of % 3 == k % 3).count() as u64 >= MOST;
                        let expected = model.get(&key(k)).map(|(_, old)| (old.body == new.body, old.job));
                        match (keys.look(&key(k), &new.body), expected) {
                            (Look::Unknown, None) => {
                                let claimed = keys.claim(key(k), new.clone());
                                prop_assert_eq!(claimed, if full { Err(KeysFull::Namespace) } else { Ok(()) });
                                if !full {
                                    model.insert(key(k), (k, new));
                                }
                            }
                            (Look::Attach(job), Some((true, of))) => {
                                prop_assert_eq!(job, of);
                                keys.forget(&key(k));
                                keys.claim(key(k), new.clone()).expect("the place of the one before");
                                model.insert(key(k), (k, new));
                            }
                            (Look::Conflict(job), Some((false, of))) => prop_assert_eq!(job, of),
                            (look, expected) => prop_assert!(false, "{look:?}, not {expected:?}"),
                        }
                    }
                    Act::Forget(k) => {
                        prop_assert_eq!(keys.forget(&key(k)), model.remove(&key(k)).map(|(_, entry)| entry));
                    }
                    Act::Expire(span, most, of) => {
                        now += span;
                        let dropped = named(keys.expire(Time(now), most, |job| job.counter.is_multiple_of(of)));
                        prop_assert_eq!(dropped, expire_plainly(&mut model, Time(now), most, of));
                    }
                }
                prop_assert_eq!(keys.len(), model.len());
                prop_assert_eq!(keys.check(), Vec::<String>::new());
            }
            let kept: Vec<_> = keys.iter().map(|(key, entry)| (*key, entry.clone())).collect();
            prop_assert_eq!(kept, model.into_iter().map(|(key, (_, entry))| (key, entry)).collect::<Vec<_>>());
        }
    }

    #[test]
    #[ignore = "a measurement: run it with --release -- --ignored --nocapture"]
    #[allow(clippy::print_stdout)]
    fn speed_at_a_million() {
        let mut keys = Keys::new(u64::MAX);
        let spread = |n: u64| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            IdempotencyKey(bytes)
        };
        let begin = Instant::now();
        (0..KEYS_MAX as u64).for_each(|n| {
            keys.claim(spread(n), entry((n % 3) as u8, 0, n, n)).expect("there is room");
        });
        println!("claim: {:?}", begin.elapsed() / KEYS_MAX as u32);
        let begin = Instant::now();
        let known = |n: &u64| keys.look(&spread(n * 7_919 % KEYS_MAX as u64), &body(0)) != Look::Unknown;
        let found = (0..KEYS_MAX as u64).filter(known).count();
        println!("look: {:?} ({found} found)", begin.elapsed() / KEYS_MAX as u32);
        let begin = Instant::now();
        let dropped = keys.expire(Time(u64::MAX), 1_000, |_| false).len();
        println!("expire {dropped}: {:?}", begin.elapsed());
    }
}
