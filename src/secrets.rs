//! Secrets as values: made of the system's random bytes, wiped when dropped, and never shown by `Debug`. None of
//! them has `Display`; [`ApiKey::text`] and [`AdminToken::text`] are the only ways out.

use std::fmt;

use zeroize::Zeroizing;

const KEY_PREFIX: &str = "sk-";
const KEY_ID_BYTES: usize = 6;
const KEY_ID_CHARS: usize = 8;
const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;

/// An API key with its secret: `sk-<8 characters>.<43 characters>`.
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; KEY_ID_BYTES + SECRET_BYTES]);
        getrandom::fill(&mut bytes[..])?;
        let (id, secret) = bytes.split_at(KEY_ID_BYTES);
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(KEY_PREFIX);
        push_base64(&mut text, id);
        text.push('.');
        push_base64(&mut text, secret);
        Ok(Self(text))
    }

    /// The key in a file or variable; white space around it doesn't count.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        Self::split(text).map(|_| Self(Zeroizing::new(text.to_owned())))
    }

    /// The id and the secret of a key's text, without a copy of either.
    pub fn split(text: &str) -> Option<(&str, &str)> {
        let (id, secret) = text.strip_prefix(KEY_PREFIX)?.split_once('.')?;
        let is_key =
            id.len() == KEY_ID_CHARS && secret.len() == SECRET_CHARS && is_base64(id) && is_base64(secret);
        is_key.then_some((id, secret))
    }

    /// All of it, the secret included.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What names it in logs; not secret.
    pub fn id(&self) -> &str {
        &self.0[KEY_PREFIX.len()..KEY_PREFIX.len() + KEY_ID_CHARS]
    }

    /// The part that proves it.
    pub fn secret(&self) -> &str {
        &self.0[KEY_PREFIX.len() + KEY_ID_CHARS + 1..]
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, secret redacted)", self.id())
    }
}

/// The key that another server wants: nothing of ours, so any text that a header can carry.
pub struct ServerKey(Zeroizing<String>);

impl ServerKey {
    /// The key in a variable; white space around it doesn't count. `None` if it is empty, or no header's value.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey(redacted)")
    }
}

/// What opens the admin listener.
pub struct AdminToken(Zeroizing<String>);

impl AdminToken {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut bytes[..])?;
        let mut text = Zeroizing::new(String::with_capacity(SECRET_CHARS));
        push_base64(&mut text, &bytes[..]);
        Ok(Self(text))
    }

    /// The token in a file; white space around it doesn't count.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        let is_token = text.len() == SECRET_CHARS && is_base64(text);
        is_token.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// The box's own secret that digests of keys are made with.
pub struct Pepper(Zeroizing<[u8; Pepper::BYTES]>);

impl Pepper {
    /// How long it is.
    pub const BYTES: usize = 32;

    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        getrandom::fill(&mut bytes[..])?;
        Ok(Self(bytes))
    }

    /// One that was kept; `None` if it hasn't the right length.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(redacted)")
    }
}

/// base64url without padding (RFC 4648 section 5).
fn push_base64(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..=group.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]));
        }
    }
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_gives_known_answers() {
        for (bytes, expected) in
            [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foobar", "Zm9vYmFy"), (&[0xfb, 0xff], "-_8")]
        {
            let mut text = String::new();
            push_base64(&mut text, bytes);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn only_whole_keys_are_keys() {
        let key = ApiKey::random().expect("random bytes");
        assert_eq!(ApiKey::split(key.text()), Some((key.id(), key.secret())));
        for wrong in ["", "sk-", "sk-12345678.short", &key.text()[1..], &format!("{}x", key.text())] {
            assert_eq!(ApiKey::split(wrong), None, "{wrong}");
        }
    }
}
