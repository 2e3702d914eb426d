//! API keys: making, keeping and checking them. A key's secret is shown once and kept nowhere: what is kept is
//! HMAC-SHA-256(pepper, secret), looked up by the key's id and compared in constant time.
//!
//! Nothing here prints a secret: the types that hold one have no `Display` and a redacted `Debug`.

mod keys;
mod record;
mod throttle;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::HeaderMap;

use super::error::ApiError;
use super::server::Peer;
use crate::budget::Holder;
use crate::coordinator::event::{Constraints, Environment, Tenant};
use crate::coordinator::rare::Rare;
use crate::datadir::{DataDirError, KeysFile};
use crate::ids::{Namespace, SubcloudName};
use crate::secrets::Pepper;

pub(super) use keys::{Keys, Listed, Unchanged};
pub use record::{Grant, KeyRecord};

/// Who asks, once that is proven.
pub(super) struct Principal {
    pub(super) namespace: Namespace,
    pub(super) environment: Environment,
    /// Where its jobs run: on this subcloud's nodes only, or anywhere.
    pub(super) scope: Option<SubcloudName>,
    /// Requests of the namespace that have a job now.
    in_flight: Arc<AtomicU64>,
}

impl Principal {
    fn of(grant: Grant, in_flight: Arc<AtomicU64>) -> Self {
        let Grant { namespace, environment, scope } = grant;
        Self { namespace, environment, scope, in_flight }
    }

    /// As the core knows who asks.
    pub(super) fn tenant(&self) -> Tenant {
        Tenant { namespace: self.namespace.clone(), environment: self.environment }
    }

    /// Where its jobs may run, beside what the namespace asks for.
    pub(super) fn constraints(&self) -> Rare<Constraints> {
        match &self.scope {
            None => Rare::default(),
            Some(subcloud) => {
                Constraints { subcloud: Some(subcloud.clone()), ..Constraints::default() }.into()
            }
        }
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
    Keyed(Arc<Keys>),
    Local(Arc<Principal>),
}

impl Access {
    /// Whoever has one of these keys, and of those that are made later; they are kept nowhere.
    pub fn keyed(pepper: &Pepper, records: Vec<KeyRecord>) -> Self {
        Self(Rule::Keyed(Arc::new(Keys::new(pepper, None, records, None))))
    }

    /// Whoever has the first key, or one that is in this file; those that are made later are kept there.
    ///
    /// # Errors
    /// When the file isn't what was written.
    pub fn kept(pepper: &Pepper, first: KeyRecord, file: KeysFile) -> Result<Self, DataDirError> {
        let records = keys::records(&file)?;
        Ok(Self(Rule::Keyed(Arc::new(Keys::new(pepper, Some(first), records, Some(file))))))
    }

    /// Every program of this machine, and the web pages that are listed; all share the default namespace.
    pub fn local() -> Self {
        let grant = Grant::whole(Namespace::default_namespace(), Environment::Mainnet);
        Self(Rule::Local(Arc::new(Principal::of(grant, Arc::default()))))
    }

    /// Whether callers need no key, and so the `Host` and `Origin` of a request must be looked at.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.0, Rule::Local(_))
    }

    /// Who asks, or why that isn't known.
    pub(super) fn authenticate(&self, headers: &HeaderMap, peer: Peer) -> Result<Arc<Principal>, ApiError> {
        match &self.0 {
            Rule::Local(principal) => Ok(Arc::clone(principal)),
            Rule::Keyed(keys) => keys.authenticate(headers, peer),
        }
    }

    /// The keys, where callers need one.
    pub(super) fn keys(&self) -> Option<&Arc<Keys>> {
        match &self.0 {
            Rule::Local(_) => None,
            Rule::Keyed(keys) => Some(keys),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Keyed(keys) => write!(f, "Access(keyed, {} keys)", keys.count()),
            Rule::Local(_) => f.write_str("Access(local)"),
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
    use hyper::header::AUTHORIZATION;

    use super::*;
    use crate::secrets::ApiKey;

    const HERE: Peer = Peer::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn whole() -> Grant {
        Grant::whole(Namespace::default_namespace(), Environment::Mainnet)
    }

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
        let record = KeyRecord::of_key(&key, &pepper, Grant::whole(named.clone(), Environment::Testnet));
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
        let record = KeyRecord::of_key(&key, &pepper, whole());
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
        let record = KeyRecord::of_key(&key, &pepper, whole());
        let shown = format!("{pepper:?} {record:?} {:?}", Access::keyed(&pepper, vec![record.clone()]));
        assert!(!shown.contains("65") && !shown.contains(&key.text()[12..]), "{shown}");
    }
}
