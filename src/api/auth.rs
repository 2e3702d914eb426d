//! API keys: making, keeping and checking them. A key's secret is shown once and kept nowhere: what is kept is
//! HMAC-SHA-256(pepper, secret), looked up by the key's id and compared in constant time.
//!
//! Nothing here prints a secret: the types that hold one have no `Display` and a redacted `Debug`.

mod throttle;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::server::Peer;
use crate::budget::Holder;
use crate::coordinator::event::{Environment, Tenant};
use crate::ids::Namespace;
use crate::secrets::{ApiKey, Pepper};
use throttle::Throttle;

fn keyed(pepper: &Pepper) -> Hmac<Sha256> {
    // HMAC takes keys of every length.
    Hmac::new_from_slice(pepper.bytes()).unwrap_or_else(|_| unreachable!("an HMAC key has no wrong length"))
}

fn digest(mut hmac: Hmac<Sha256>, secret: &str) -> [u8; 32] {
    hmac.update(secret.as_bytes());
    hmac.finalize().into_bytes().into()
}

/// What is kept of a key.
#[derive(Clone)]
pub struct KeyRecord {
    /// Names the key; not secret.
    pub id: String,
    /// HMAC-SHA-256(pepper, secret).
    pub digest: [u8; 32],
    /// Whose key it is.
    pub namespace: Namespace,
    /// In which world it works.
    pub environment: Environment,
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, digest: _, namespace, environment } = self;
        write!(f, "KeyRecord({id}, {namespace}, {environment:?}, digest redacted)")
    }
}

impl KeyRecord {
    /// The record of a key that is at hand.
    pub fn of_key(key: &ApiKey, pepper: &Pepper, namespace: Namespace, environment: Environment) -> Self {
        Self { id: key.id().into(), digest: digest(keyed(pepper), key.secret()), namespace, environment }
    }
}

/// Who asks, once that is proven.
#[derive(Clone)]
pub(super) struct Principal {
    pub(super) namespace: Namespace,
    pub(super) environment: Environment,
    /// Requests of the namespace that have a job now.
    in_flight: Arc<AtomicU64>,
}

impl Principal {
    fn new(namespace: Namespace, environment: Environment) -> Self {
        Self { namespace, environment, in_flight: Arc::default() }
    }

    /// As the core knows who asks.
    pub(super) fn tenant(&self) -> Tenant {
        Tenant { namespace: self.namespace.clone(), environment: self.environment }
    }

    /// Whose part of what namespaces share it takes.
    pub(super) fn holder(&self) -> Holder {
        Some(self.namespace.clone())
    }

    /// Counts one more request with a job, until the count is dropped.
    pub(super) fn enter(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(&self.in_flight))
    }
}

/// One request among those of its namespace that have a job.
pub(super) struct InFlight(Arc<AtomicU64>);

impl InFlight {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Who may use the inference API.
pub struct Access(Rule);

enum Rule {
    Keyed(Box<Keys>),
    Local(Principal),
}

impl Access {
    /// Whoever has one of these keys.
    pub fn keyed(pepper: &Pepper, records: Vec<KeyRecord>) -> Self {
        Self(Rule::Keyed(Box::new(Keys::new(pepper, records))))
    }

    /// Every program of this machine, and the web pages that are listed; all share the default namespace.
    pub fn local() -> Self {
        Self(Rule::Local(Principal::new(Namespace::default_namespace(), Environment::Mainnet)))
    }

    /// Whether callers need no key, and so the `Host` and `Origin` of a request must be looked at.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.0, Rule::Local(_))
    }

    /// Who asks, or why that isn't known.
    pub(super) fn authenticate(&self, headers: &HeaderMap, peer: Peer) -> Result<&Principal, ApiError> {
        match &self.0 {
            Rule::Local(principal) => Ok(principal),
            Rule::Keyed(keys) => keys.authenticate(headers, peer),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Keyed(keys) => write!(f, "Access(keyed, {} keys)", keys.known.len()),
            Rule::Local(_) => f.write_str("Access(local)"),
        }
    }
}

struct Keys {
    known: HashMap<String, KnownKey>,
    /// Keyed once: a request pays for its own secret only.
    hmac: Hmac<Sha256>,
    throttle: Throttle,
}

struct KnownKey {
    digest: [u8; 32],
    principal: Principal,
}

impl Keys {
    fn new(pepper: &Pepper, records: Vec<KeyRecord>) -> Self {
        let mut namespaces: HashMap<Namespace, Arc<AtomicU64>> = HashMap::new();
        let known = records.into_iter().map(|record| {
            let in_flight = Arc::clone(namespaces.entry(record.namespace.clone()).or_default());
            let principal =
                Principal { namespace: record.namespace, environment: record.environment, in_flight };
            (record.id, KnownKey { digest: record.digest, principal })
        });
        Self { known: known.collect(), hmac: keyed(pepper), throttle: Throttle::default() }
    }

    fn authenticate(&self, headers: &HeaderMap, peer: Peer) -> Result<&Principal, ApiError> {
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
            let known = self.known.get(id);
            // An unknown id costs the same work as a wrong secret, so that ids can't be found out by time.
            let expected = known.map_or([0; 32], |known| known.digest);
            let is_equal = bool::from(digest(self.hmac.clone(), secret).ct_eq(&expected));
            known.filter(|_| is_equal)
        });
        match known {
            Some(known) => Ok(&known.principal),
            None => Err(self.failure(key.map(|(id, _)| id), peer, now)),
        }
    }

    /// Counts a failure, and words it.
    fn failure(&self, id: Option<&str>, peer: Peer, now: Instant) -> ApiError {
        let id = id.filter(|id| self.known.contains_key(*id));
        match self.throttle.failed(peer, id, now) {
            Some(wait) => ApiError::too_many_failures(wait.as_secs() + 1),
            None => {
                ApiError::invalid_key("Incorrect API key: it must be one that this server made, `sk-...`.")
            }
        }
    }
}

/// The credential of a `Bearer` header.
pub(super) fn bearer(header: &str) -> Option<&str> {
    let (scheme, credential) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Peer = Peer::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().expect("a header"));
        headers
    }

    fn code(access: &Access, authorization: &str) -> &'static str {
        access.authenticate(&headers(authorization), HERE).map_or_else(|error| error.code, |_| "in")
    }

    #[test]
    fn new_keys_are_let_in_and_nothing_else() {
        let pepper = Pepper::random().expect("random bytes");
        let key = ApiKey::random().expect("random bytes");
        let named = Namespace::named("team");
        let record = KeyRecord::of_key(&key, &pepper, named.clone(), Environment::Testnet);
        let access = Access::keyed(&pepper, vec![record]);
        let principal = access.authenticate(&headers(&format!("bearer {}", key.text())), HERE);
        let principal = principal.map_err(|error| error.code).expect("let in");
        assert_eq!((&principal.namespace, principal.environment), (&named, Environment::Testnet));
        let other = ApiKey::random().expect("random bytes");
        let mixed = format!("{}{}", &key.text()[..12], &other.text()[12..]);
        for wrong in
            ["", "Bearer", "Bearer x", "Basic abc", "Bearer sk-12345678.short", &format!("Bearer {mixed}")]
        {
            assert_eq!(code(&access, wrong), "invalid_api_key", "{wrong}");
        }
        assert_eq!(
            access.authenticate(&HeaderMap::new(), HERE).err().map(|e| e.code),
            Some("invalid_api_key")
        );
    }

    #[test]
    fn guessing_is_slowed_down_but_locks_nobody_of_this_machine_out() {
        let pepper = Pepper::of_bytes(&[7; 32]).expect("32 bytes");
        let key = ApiKey::random().expect("random bytes");
        let record = KeyRecord::of_key(&key, &pepper, Namespace::default_namespace(), Environment::Mainnet);
        let access = Access::keyed(&pepper, vec![record]);
        let codes: Vec<_> = (0..12).map(|_| code(&access, "Bearer sk-wrong")).collect();
        assert_eq!(codes[0], "invalid_api_key");
        assert_eq!(codes[11], "too_many_failures");
        assert_eq!(code(&access, &format!("Bearer {}", key.text())), "in");
    }

    #[test]
    fn nothing_secret_is_printed() {
        let pepper = Pepper::of_bytes(&[0x41; 32]).expect("32 bytes");
        let key = ApiKey::random().expect("random bytes");
        let record = KeyRecord::of_key(&key, &pepper, Namespace::default_namespace(), Environment::Mainnet);
        let shown = format!("{pepper:?} {record:?} {:?}", Access::keyed(&pepper, vec![record.clone()]));
        assert!(!shown.contains("65") && !shown.contains(&key.text()[12..]), "{shown}");
    }
}
