//! Slows down who guesses keys: a bucket of failures per address and per key, then a block that doubles.
//!
//! A block of an address refuses it unlooked at. A block of a key, or of this very machine's address, only
//! answers further *wrong* keys with 429: otherwise whoever knows a key's id could lock its owner out, and one
//! misconfigured program every other one of the same machine.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::api::server::{Peer, one_customer};
use crate::sync::lock;

/// Failures that are let pass before a block.
const FAILURES_MAX: u32 = 10;
/// In this time the bucket is full again.
const REFILL: Duration = Duration::from_secs(60);
/// The first block; each further one takes twice as long.
const BLOCK: Duration = Duration::from_secs(60);
/// The longest block.
const BLOCK_MAX: Duration = Duration::from_secs(3_600);
/// Addresses that are remembered; beyond, the one that failed longest ago is forgotten.
const ADDRESSES_MAX: usize = 4_096;
/// Keys that are remembered. Only keys that exist are.
const KEYS_MAX: usize = 4_096;

/// Who failed lately.
#[derive(Default)]
pub(super) struct Throttle {
    addresses: Mutex<HashMap<IpAddr, Record>>,
    keys: Mutex<HashMap<String, Record>>,
}

#[derive(Debug, Clone)]
struct Record {
    /// Failures in the bucket when the last one came.
    failures: u32,
    last: Instant,
    blocked_until: Option<Instant>,
    next_block: Duration,
}

impl Throttle {
    /// How long this peer is refused whatever it brings; `None` if it is listened to.
    pub(super) fn refuses_peer(&self, peer: Peer, now: Instant) -> Option<Duration> {
        match peer {
            Peer::Ip(ip) if !ip.is_loopback() => {
                lock(&self.addresses).get(&one_customer(ip))?.blocked_for(now)
            }
            Peer::Ip(_) | Peer::Unix => None,
        }
    }

    /// Counts a failure of `peer` with the existing key `id`; says for how long there is a block now.
    pub(super) fn failed(&self, peer: Peer, id: Option<&str>, now: Instant) -> Option<Duration> {
        let by_address = match peer {
            Peer::Ip(ip) => count(&mut lock(&self.addresses), one_customer(ip), ADDRESSES_MAX, now),
            Peer::Unix => None,
        };
        let by_key = id.and_then(|id| count(&mut lock(&self.keys), id.to_owned(), KEYS_MAX, now));
        by_address.max(by_key)
    }
}

fn count<K: Hash + Eq + Clone>(
    records: &mut HashMap<K, Record>,
    key: K,
    records_max: usize,
    now: Instant,
) -> Option<Duration> {
    if records.len() >= records_max && !records.contains_key(&key) {
        let oldest = records.iter().min_by_key(|(_, record)| record.last).map(|(key, _)| key.clone());
        oldest.map(|oldest| records.remove(&oldest));
    }
    let record = records.entry(key).or_insert_with(|| Record::new(now));
    record.fail(now);
    record.blocked_for(now)
}

impl Record {
    fn new(now: Instant) -> Self {
        Self { failures: 0, last: now, blocked_until: None, next_block: BLOCK }
    }

    fn blocked_for(&self, now: Instant) -> Option<Duration> {
        self.blocked_until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn fail(&mut self, now: Instant) {
        let quiet = now.saturating_duration_since(self.last);
        self.last = now;
        if self.blocked_for(now).is_some() {
            return;
        }
        if quiet >= BLOCK_MAX {
            self.next_block = BLOCK;
        }
        let refilled = quiet.as_secs_f64() / REFILL.as_secs_f64() * f64::from(FAILURES_MAX);
        self.failures = self.failures.saturating_sub(refilled as u32) + 1;
        if self.failures > FAILURES_MAX {
            self.failures = 0;
            self.blocked_until = Some(now + self.next_block);
            self.next_block = (self.next_block * 2).min(BLOCK_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer = Peer::Ip(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Peer = Peer::Ip(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    fn fail_until_blocked(throttle: &Throttle, now: Instant) -> Duration {
        for _ in 0..FAILURES_MAX {
            assert_eq!(throttle.failed(PEER, None, now), None);
        }
        throttle.failed(PEER, None, now).expect("a block")
    }

    #[test]
    fn blocks_double_up_to_an_hour_and_are_forgotten() {
        let throttle = Throttle::default();
        let mut now = Instant::now();
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let block = fail_until_blocked(&throttle, now);
            assert_eq!(block, Duration::from_secs(minutes * 60));
            assert_eq!(throttle.refuses_peer(PEER, now), Some(block));
            assert_eq!(throttle.refuses_peer(OTHER, now), None);
            now += block;
            assert_eq!(throttle.refuses_peer(PEER, now), None);
        }
        now += BLOCK_MAX;
        assert_eq!(fail_until_blocked(&throttle, now), BLOCK);
    }

    #[test]
    fn the_bucket_refills() {
        let throttle = Throttle::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            assert_eq!(throttle.failed(PEER, None, now), None);
            now += REFILL / FAILURES_MAX;
        }
    }

    #[test]
    fn a_key_is_blocked_across_addresses_but_not_for_its_owner() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let address = |n: u8| Peer::Ip(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, n)));
        for n in 0..10 {
            assert_eq!(throttle.failed(address(n), Some("abcdefgh"), now), None);
        }
        assert_eq!(throttle.failed(address(10), Some("abcdefgh"), now), Some(BLOCK));
        assert_eq!(throttle.refuses_peer(address(11), now), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut records = HashMap::new();
        let now = Instant::now();
        for key in 0..50_u64 {
            count(&mut records, key, 8, now + Duration::from_secs(key));
        }
        assert_eq!(records.len(), 8);
        assert!(records.contains_key(&49) && !records.contains_key(&0));
    }
}
