//! What is kept of an API key, and how it is written down. Never the secret: what opens is HMAC-SHA-256(pepper, secret).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::coordinator::event::Environment;
use crate::ids::{Namespace, SubcloudName};
use crate::secrets::{ApiKey, Pepper};
use crate::time::Time;
use crate::wire::Hash;
use crate::wire::keys::Hex;

/// Characters of a secret that are kept, so that its owner knows the key again.
const LAST_CHARS: usize = 4;

pub(super) fn keyed(pepper: &Pepper) -> Hmac<Sha256> {
    // HMAC takes keys of every length.
    Hmac::new_from_slice(pepper.bytes()).unwrap_or_else(|_| unreachable!("an HMAC key has no wrong length"))
}

pub(super) fn digest(mut hmac: Hmac<Sha256>, secret: &str) -> [u8; 32] {
    hmac.update(secret.as_bytes());
    hmac.finalize().into_bytes().into()
}

/// What a key lets do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose key it is.
    pub namespace: Namespace,
    /// In which world it works.
    pub environment: Environment,
    /// Where its jobs run: on this subcloud's nodes only, or anywhere. One with a subcloud is for jobs and for looking.
    pub scope: Option<SubcloudName>,
}

impl Grant {
    /// Everything that a namespace may do in an environment.
    pub fn whole(namespace: Namespace, environment: Environment) -> Self {
        Self { namespace, environment, scope: None }
    }
}

/// What is kept of a key.
#[derive(Clone)]
pub struct KeyRecord {
    /// Names the key; not secret.
    pub id: String,
    /// The end of its secret.
    pub last: String,
    /// HMAC-SHA-256(pepper, secret).
    pub digest: [u8; 32],
    /// What it lets do.
    pub grant: Grant,
    /// When it was made, by the wall clock; `None` where that isn't known.
    pub created_at: Option<Time>,
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, last: _, digest: _, grant, created_at } = self;
        write!(f, "KeyRecord({id}, {grant:?}, {created_at:?}, digest redacted)")
    }
}

impl KeyRecord {
    /// The record of a key that is at hand.
    pub fn of_key(key: &ApiKey, pepper: &Pepper, grant: Grant) -> Self {
        Self::digested(key, keyed(pepper), grant, None)
    }

    pub(super) fn digested(key: &ApiKey, hmac: Hmac<Sha256>, grant: Grant, created_at: Option<Time>) -> Self {
        let secret = key.secret();
        let last = secret.get(secret.len() - LAST_CHARS..).unwrap_or_default().to_owned();
        Self { id: key.id().into(), last, digest: digest(hmac, secret), grant, created_at }
    }
}

/// A record as it is written down: a line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    last: String,
    digest: String,
    namespace: String,
    environment: String,
    scope: Option<SubcloudName>,
    created_at_us: Option<u64>,
}

/// Records as lines, one a record.
pub(super) fn written(records: &[KeyRecord]) -> Result<String, serde_json::Error> {
    let mut lines = String::new();
    for KeyRecord { id, last, digest, grant, created_at } in records {
        let line = Line {
            id: id.clone(),
            last: last.clone(),
            digest: Hex(*digest).to_string(),
            namespace: grant.namespace.to_string(),
            environment: grant.environment.word().to_owned(),
            scope: grant.scope.clone(),
            created_at_us: created_at.map(|at| at.0),
        };
        lines.push_str(&serde_json::to_string(&line)?);
        lines.push('\n');
    }
    Ok(lines)
}

/// The records in lines; `None` if a line isn't one.
pub(super) fn read(lines: &str) -> Option<Vec<KeyRecord>> {
    lines.lines().map(record).collect()
}

fn record(line: &str) -> Option<KeyRecord> {
    let line: Line = serde_json::from_str(line).ok()?;
    let Hex(digest): Hash = line.digest.parse().ok()?;
    let environment =
        Environment::ALL.into_iter().find(|environment| environment.word() == line.environment)?;
    let grant = Grant { namespace: Namespace::named(&line.namespace), environment, scope: line.scope };
    Some(KeyRecord { id: line.id, last: line.last, digest, grant, created_at: line.created_at_us.map(Time) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let pepper = Pepper::of_bytes(&[7; 32]).expect("32 bytes");
        let keys = [(); 2].map(|()| ApiKey::random().expect("random bytes"));
        let grants = [
            Grant::whole(Namespace::named("a \"b\"\u{e9}"), Environment::Testnet),
            Grant { scope: "lab".parse().ok(), ..Grant::whole(Namespace::named("c"), Environment::Mainnet) },
        ];
        let records: Vec<KeyRecord> = keys
            .iter()
            .zip(grants.clone())
            .map(|(key, grant)| KeyRecord::digested(key, keyed(&pepper), grant, Some(Time(5))))
            .collect();
        let lines = written(&records).expect("JSON");
        assert!(keys.iter().all(|key| !lines.contains(key.secret())));
        let again = read(&lines).expect("the same");
        for ((record, again), key) in records.iter().zip(&again).zip(&keys) {
            assert_eq!(
                (&record.id, record.digest, record.created_at),
                (&again.id, again.digest, again.created_at)
            );
            assert_eq!((&record.grant, key.secret().ends_with(&again.last)), (&again.grant, true));
        }
        assert_eq!(again.len(), 2);
        for bad in
            ["{}", "x", &lines.replace("testnet", "prod"), &lines.replace("\"digest\":\"", "\"digest\":\"z")]
        {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
