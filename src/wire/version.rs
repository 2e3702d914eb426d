//! Who can talk to whom: versions and capabilities, stated by both sides in the handshake.

use std::fmt;
use std::str::FromStr;

use super::close::{CloseCode, Refusal};

/// What this build speaks.
pub const VERSION: Version = Version { major: 1, minor: 0 };
/// What this build can do beyond its version's minimum, as a box and as an agent.
pub const CAPABILITIES: [&str; 1] = [JSON_CHUNKS];
/// Takes (a box) or may send (an agent) chunks that are JSON objects, not only text.
pub const JSON_CHUNKS: &str = "json-chunks";

/// A version of the protocol, `MAJOR.MINOR`. A minor version only adds; a major one may change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Of another major version nobody understands anything.
    pub major: u16,
    /// A box serves agents of its own and of the one before.
    pub minor: u16,
}

/// A version's text isn't one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a version as two numbers, such as `1.0`")]
pub struct VersionError;

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = VersionError;
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let number = |text: &str| {
            // Only the shortest spelling: the text itself is signed.
            let plain = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            plain.then(|| text.parse().ok()).flatten().ok_or(VersionError)
        };
        let (major, minor) = text.split_once('.').ok_or(VersionError)?;
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl Version {
    /// Whether a box of this version serves an agent of that one.
    ///
    /// # Errors
    /// The refusal names both versions and who has to update.
    pub fn serves(self, agent: Version) -> Result<(), Refusal> {
        let code = match agent {
            _ if agent.major == self.major && agent.minor == self.minor => return Ok(()),
            _ if agent.major == self.major && agent.minor.checked_add(1) == Some(self.minor) => return Ok(()),
            _ if agent < self => CloseCode::AgentTooOld,
            _ => CloseCode::AgentTooNew,
        };
        let whose = if code == CloseCode::AgentTooOld { "the agent" } else { "the box" };
        let reason = format!(
            "the agent speaks version {agent} of the node protocol and the box {self}: update {whose}"
        );
        Err(Refusal::new(code, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_serves_its_own_version_and_the_one_before() {
        let at = |major, minor| Version { major, minor };
        let table = [
            (at(1, 3), at(1, 3), None),
            (at(1, 3), at(1, 2), None),
            (at(1, 3), at(1, 1), Some(CloseCode::AgentTooOld)),
            (at(1, 3), at(1, 4), Some(CloseCode::AgentTooNew)),
            (at(2, 0), at(1, 9), Some(CloseCode::AgentTooOld)),
            (at(1, 0), at(2, 0), Some(CloseCode::AgentTooNew)),
            (at(1, 0), at(0, u16::MAX), Some(CloseCode::AgentTooOld)),
        ];
        for (own, agent, expected) in table {
            let refusal = own.serves(agent).err();
            assert_eq!(refusal.as_ref().map(|refusal| refusal.code), expected, "{own} {agent}");
            if let Some(refusal) = refusal {
                assert!(refusal.reason.contains(&format!("version {agent}")), "{}", refusal.reason);
                assert!(refusal.reason.contains("update the"), "{}", refusal.reason);
            }
        }
    }

    #[test]
    fn a_version_has_one_spelling() {
        assert_eq!("1.0".parse(), Ok(VERSION));
        assert_eq!(
            Version { major: 10, minor: 65_535 }.to_string().parse(),
            Ok(Version { major: 10, minor: 65_535 })
        );
        for bad in ["", "1", "1.", ".0", "1.0.0", "01.0", "1.00", "+1.0", "1.65536", "1 .0", "v1.0"] {
            assert_eq!(bad.parse::<Version>(), Err(VersionError), "{bad}");
        }
    }
}
