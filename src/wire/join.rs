//! The join string: one line with everything that an agent needs to join a box.
//!
//! `switchbox-join:1,URL,box=KEY[,tls=FINGERPRINT],token=TOKEN,sum=CHECK`. It has no character that a shell or a chat
//! program changes (but `[` and `]`, around an IPv6 address), and its check finds what was lost or changed by copying.

use std::fmt;
use std::str::FromStr;

use super::hash::{Hash, plain_hash};
use super::keys::{InviteToken, PublicKey};

const PREFIX: &str = "switchbox-join:";
const FORMAT: &str = "1";
/// Hexadecimal digits of the check.
const CHECK_DIGITS: usize = 8;
/// Bytes of a whole string.
pub const JOIN_BYTES_MAX: usize = 1_024;
/// Bytes of its URL.
pub const URL_BYTES_MAX: usize = 512;

/// What an agent needs to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinString {
    /// Where the box is: `https://HOST[:PORT][/PATH]`, or `http://` where nothing else is in between.
    pub url: String,
    /// The box's key: the agent talks to nobody else.
    pub box_key: PublicKey,
    /// SHA-256 of the SubjectPublicKeyInfo (DER) of the certificate that the box made itself; `None` where the
    /// certificate is one that the agent's system trusts, as behind a reverse proxy.
    pub tls: Option<Hash>,
    /// Good for one registration.
    pub token: InviteToken,
}

/// What is wrong with a join string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Something else.
    #[error("isn't a join string: it begins with `{PREFIX}`, as `switchbox nodes invite` prints it")]
    Otherwise,
    /// Of a later program.
    #[error("the join string is of format {0}, and this agent knows {FORMAT}: update the agent")]
    Newer(String),
    /// Parts are missing, or there are others.
    #[error("the join string isn't whole: {0}; copy all of it, from `{PREFIX}` to the check at its end")]
    Partial(&'static str),
    /// Something in it was changed.
    #[error("the join string was changed on its way: its check doesn't match; copy it again")]
    Changed,
    /// A part isn't what it should be.
    #[error("the join string's {part} {problem}: ask for a new one (`switchbox nodes invite`)")]
    Part {
        /// Which.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

fn part_error(part: &'static str) -> impl Fn(String) -> JoinError {
    move |problem| JoinError::Part { part, problem }
}

/// Whether it is a URL of a box: its scheme, a host, and nothing that the string itself needs.
fn check_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Err("begins with neither `https://` nor `http://`".to_owned()) };
    if url.len() > URL_BYTES_MAX {
        return Err(format!("has more than {URL_BYTES_MAX} bytes"));
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err("names no host".to_owned());
    }
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&c);
    if !rest.bytes().all(allowed) {
        return Err("holds characters that it may not: letters, digits and `-._~:/[]%`".to_owned());
    }
    // Behind the last colon, but not within an IPv6 address.
    let port = host.rsplit(']').next().and_then(|behind| behind.rsplit_once(':'));
    match port {
        Some((_, port)) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Err(format!("has the port `{port}`, which is none of 1 to 65535"))
        }
        _ => Ok(()),
    }
}

/// A certificate's fingerprint is for a connection that shows one: without TLS nothing would be held to it.
fn check_tls(url: &str, tls: Option<&Hash>) -> Result<(), String> {
    if tls.is_some() && url.starts_with("http://") {
        return Err("begins with `http://`, and the box speaks TLS: `https://`".to_owned());
    }
    Ok(())
}

/// Where an agent's WebSocket goes for a box at that URL: `wss://...` or `ws://...`.
pub fn connect_url(url: &str) -> String {
    let base = url.trim_end_matches('/');
    // `http` becomes `ws`, `https` becomes `wss`.
    let rest = base.strip_prefix("http").unwrap_or(base);
    format!("ws{rest}{}", super::PATH)
}

impl JoinString {
    /// Checks what a box would print.
    ///
    /// # Errors
    /// When the URL is none that a join string can carry.
    pub fn check(&self) -> Result<(), JoinError> {
        check_url(&self.url).and_then(|()| check_tls(&self.url, self.tls.as_ref())).map_err(part_error("URL"))
    }

    /// Where the agent's WebSocket goes: `wss://...` or `ws://...`.
    pub fn connect_url(&self) -> String {
        connect_url(&self.url)
    }

    fn unchecked_text(&self) -> String {
        let tls = self.tls.map_or_else(String::new, |tls| format!(",tls={tls}"));
        let (url, key, token) = (&self.url, self.box_key, self.token.text());
        format!("{PREFIX}{FORMAT},{url},box={key}{tls},token={token}")
    }

    /// The line itself, of one that passed [`JoinString::check`]. It holds the token: show it to whom it is for, and log it nowhere.
    pub fn text(&self) -> String {
        let text = self.unchecked_text();
        format!("{text},sum={}", check_of(&text))
    }
}

fn check_of(text: &str) -> String {
    let mut check = plain_hash(text.as_bytes()).to_string();
    check.truncate(CHECK_DIGITS);
    check
}

impl FromStr for JoinString {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<Self, JoinError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(JoinError::Otherwise)?;
        if text.len() > JOIN_BYTES_MAX {
            return Err(JoinError::Partial("it is too long"));
        }
        let format = rest.split(',').next().unwrap_or_default();
        if format != FORMAT {
            let is_number =
                !format.is_empty() && format.len() <= 4 && format.bytes().all(|c| c.is_ascii_digit());
            return Err(if is_number { JoinError::Newer(format.to_owned()) } else { JoinError::Changed });
        }
        let (checked, check) = text.rsplit_once(",sum=").ok_or(JoinError::Partial("its check is missing"))?;
        if check.len() < CHECK_DIGITS {
            return Err(JoinError::Partial("its check is cut off"));
        }
        if check_of(checked) != check {
            return Err(JoinError::Changed);
        }
        let mut parts = checked.split(',').skip(1);
        let url = parts.next().ok_or(JoinError::Partial("its URL is missing"))?.to_owned();
        check_url(&url).map_err(part_error("URL"))?;
        let (mut key, mut tls, mut token) = (None, None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("box", text)) => key = Some(parsed(text, "key of the box")?),
                Some(("tls", text)) => tls = Some(parsed(text, "fingerprint of the certificate")?),
                Some(("token", text)) => token = Some(parsed(text, "token")?),
                // A later minor change may add what this agent can do without.
                _ => {}
            }
        }
        check_tls(&url, tls.as_ref()).map_err(part_error("URL"))?;
        let box_key = key.ok_or(JoinError::Partial("the key of the box is missing"))?;
        let token = token.ok_or(JoinError::Partial("its token is missing"))?;
        Ok(Self { url, box_key, tls, token })
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(text: &str, part: &'static str) -> Result<T, JoinError> {
    text.parse().map_err(|error: T::Err| part_error(part)(error.to_string()))
}
