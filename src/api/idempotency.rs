//! The `Idempotency-Key` header: which repeats of a request are the same request.
//!
//! What reaches the core are digests only: of the key with its namespace and endpoint, and of the raw body.

use hyper::header::HeaderMap;
use sha2::{Digest as _, Sha256};

use super::auth::Principal;
use super::error::ApiError;
use crate::coordinator::event::Keyed;
use crate::ids::{Digest, IdempotencyKey};

const HEADER: &str = "idempotency-key";
/// Bytes of a key, as in the usual implementations.
const KEY_BYTES_MAX: usize = 255;

/// The key of a request on that path with that raw body, if it carries one.
///
/// # Errors
/// When the key is empty, too long, given twice, or not plain ASCII.
pub(super) fn keyed(
    headers: &HeaderMap,
    principal: &Principal,
    path: &str,
    body: &[u8],
) -> Result<Option<Keyed>, ApiError> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(key) = given.next() else { return Ok(None) };
    let plain = key.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte));
    if given.next().is_some() || key.is_empty() || key.len() > KEY_BYTES_MAX || !plain {
        return Err(ApiError::key_malformed(KEY_BYTES_MAX));
    }
    let mut hash = Sha256::new();
    let namespace = principal.namespace.to_string();
    // With their lengths, so that no two keys run into one another.
    for part in [namespace.as_bytes(), principal.environment.word().as_bytes(), path.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(key.as_bytes());
    // A job of the whole namespace may run elsewhere than one of a key with a scope: neither is the other's repeat. No key
    // has a zero byte.
    if let Some(scope) = &principal.scope {
        hash.update([0]);
        hash.update(scope.as_str());
    }
    Ok(Some(Keyed { key: IdempotencyKey(hash.finalize().into()), body: Digest(Sha256::digest(body).into()) }))
}
