//! Keys, signatures and nonces as values with one text form: lower-case hexadecimal.
//!
//! Never shows a private key or an invite's token.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::text;
use crate::ids::{Digest, NodeId};

/// That many bytes, written as lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// An ed25519 signature (RFC 8032).
pub type Signature = Hex<64>;
/// Random bytes that are used once.
pub type Nonce = Hex<32>;

/// What should have been hexadecimal digits isn't.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {so_many}{digits} lower-case hexadecimal digits")]
pub struct HexError {
    so_many: &'static str,
    digits: usize,
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_digits(&self.0, f)
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        let error = HexError { so_many: "", digits: 2 * N };
        let mut bytes = [0; N];
        if text.len() != 2 * N {
            return Err(error);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let Some(read) = byte_of(pair) else { return Err(error) };
            *byte = read;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::shown::serialize(self, serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::shown::deserialize(deserializer)
    }
}

/// Bytes of any length up to `MAX`, written likewise.
#[derive(Clone, PartialEq, Eq)]
pub struct HexBytes<const MAX: usize>(pub Vec<u8>);

impl<const MAX: usize> fmt::Display for HexBytes<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_digits(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Debug for HexBytes<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const MAX: usize> FromStr for HexBytes<MAX> {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        let error = HexError { so_many: "an even number of at most ", digits: 2 * MAX };
        if text.len() > 2 * MAX || !text.len().is_multiple_of(2) {
            return Err(error);
        }
        text.as_bytes().chunks(2).map(byte_of).collect::<Option<_>>().map(Self).ok_or(error)
    }
}

impl<const MAX: usize> Serialize for HexBytes<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::shown::serialize(self, serializer)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for HexBytes<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::shown::deserialize(deserializer)
    }
}

/// Writes bytes as digits, many at a time: every result and every receipt has hundreds of them.
fn write_digits(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    let mut digits = [0; 64];
    bytes.chunks(digits.len() / 2).try_for_each(|part| {
        for (pair, byte) in digits.chunks_exact_mut(2).zip(part) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        f.write_str(std::str::from_utf8(&digits[..2 * part.len()]).unwrap_or_default())
    })
}

/// The byte of two digits.
fn byte_of(pair: &[u8]) -> Option<u8> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let [high, low] = pair else { return None };
    Some(digit(*high)? << 4 | digit(*low)?)
}

impl From<Digest> for Hex<32> {
    fn from(digest: Digest) -> Self {
        Self(digest.0)
    }
}

impl From<Hex<32>> for Digest {
    fn from(hash: Hex<32>) -> Self {
        Self(hash.0)
    }
}

/// A key that others check signatures with: 32 bytes, never a weak one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// What isn't a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not even its text is right.
    #[error("isn't a public key: {0}")]
    Text(#[from] HexError),
    /// The bytes are no key that anybody could sign with safely.
    #[error("isn't a usable ed25519 public key: make a new one")]
    Unusable,
}

/// Hexadecimal digits of a key that name its node.
const NODE_DIGITS: usize = 32;

impl PublicKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// When they are no point of the curve, or one of small order.
    pub fn of_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Unusable)?;
        if key.is_weak() { Err(KeyError::Unusable) } else { Ok(Self(key)) }
    }

    /// Its 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The name of the node that has it: `node_` and its first 32 digits.
    pub fn node(&self) -> NodeId {
        NodeId::named(&format!("node_{}", &self.to_string()[..NODE_DIGITS]))
    }

    /// Whether this key's owner signed these bytes.
    pub fn signed(&self, bytes: &[u8], signature: &Signature) -> bool {
        self.0.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(*self.bytes()), f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::of_bytes(&text.parse::<Hex<32>>()?.0)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::shown::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::shown::deserialize(deserializer)
    }
}

/// A private key: who has it is that box, or that node. Wiped when dropped.
pub struct Identity(SigningKey);

impl Identity {
    /// Bytes of the seed that is kept.
    pub const BYTES: usize = 32;

    /// The identity of a seed: 32 bytes of the system's randomness, made once and kept.
    pub fn of_seed(seed: &Zeroizing<[u8; Self::BYTES]>) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// What others know it by.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs bytes that a layout of this protocol made; nothing else ever.
    pub(super) fn sign(&self, layout: &[u8]) -> Signature {
        Hex(self.0.sign(layout).to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, private key redacted)", self.public())
    }
}

/// What lets a key that the box doesn't know register once: 1 to 64 characters of base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteToken(Zeroizing<String>);

/// Characters of an invite's token.
pub const INVITE_TOKEN_CHARS_MAX: usize = 64;

/// What isn't an invite's token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("isn't an invite's token: expected 1 to {INVITE_TOKEN_CHARS_MAX} of A-Z, a-z, 0-9, `-` and `_`")]
pub struct InviteTokenError;

impl InviteToken {
    /// All of it: a secret until it was used.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl FromStr for InviteToken {
    type Err = InviteTokenError;
    fn from_str(text: &str) -> Result<Self, InviteTokenError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        let is_token = (1..=INVITE_TOKEN_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed);
        is_token.then(|| Self(Zeroizing::new(text.to_owned()))).ok_or(InviteTokenError)
    }
}

impl fmt::Debug for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteToken(redacted)")
    }
}

impl Serialize for InviteToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'de> Deserialize<'de> for InviteToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::shown::deserialize(deserializer)
    }
}
