//! The address of an OpenAI-compatible server, as people write it.

use std::fmt;

use hyper::Uri;
use hyper::http::uri::{Authority, Scheme};

/// Where a server's API begins: scheme, host, port, and the path that its endpoints' paths are put behind. Its text form
/// has no slash at its end.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Web,
    authority: Authority,
    /// From its slash on; empty for the top.
    path: String,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Web {
    /// As it is.
    Http,
    /// Through TLS.
    Https,
}

/// Why a text is no server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It can't be read as a URL.
    #[error("isn't a URL")]
    Malformed,
    /// Another scheme, or none.
    #[error("doesn't begin with http:// or https://")]
    Scheme,
    /// It has a user or a password.
    #[error("has a user or a password in it")]
    Credentials,
    /// It has a query.
    #[error("has a query")]
    Query,
}

/// The path of OpenAI's API where a URL has none.
const PATH_DEFAULT: &str = "/v1";

impl BaseUrl {
    /// `http://HOST[:PORT][/PATH]`, or the same with `https`; without a path it is `/v1`.
    ///
    /// # Errors
    /// Says what is wrong, never what was written: that may be a secret.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => Web::Http,
            Some(scheme) if *scheme == Scheme::HTTPS => Web::Https,
            _ => return Err(UrlError::Scheme),
        };
        let authority = uri.authority().ok_or(UrlError::Malformed)?.clone();
        if authority.as_str().contains('@') {
            return Err(UrlError::Credentials);
        }
        if uri.query().is_some() {
            return Err(UrlError::Query);
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty() || has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(UrlError::Malformed);
        }
        let path = uri.path().trim_end_matches('/');
        let path = if path.is_empty() { PATH_DEFAULT } else { path };
        Ok(Self { scheme, authority, path: path.to_owned() })
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Web {
        self.scheme
    }

    /// Host and port as they were written: what the `host` header says.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let usual = match self.scheme {
            Web::Http => 80,
            Web::Https => 443,
        };
        self.authority.port_u16().unwrap_or(usual)
    }

    /// The path of an endpoint: `/chat/completions`, say, behind this one's.
    pub fn path_of(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", self.path)
    }

    /// The same beside the API: `/health` lies where `/v1` does.
    pub fn path_beside(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", self.path.strip_suffix(PATH_DEFAULT).unwrap_or(&self.path))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Web::Http => "http",
            Web::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_write_them() {
        for (text, shown, host, port, health) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "127.0.0.1", 8_000, "/health"),
            ("http://localhost:11434/v1/", "http://localhost:11434/v1", "localhost", 11_434, "/health"),
            ("https://llm.example", "https://llm.example/v1", "llm.example", 443, "/health"),
            ("http://[::1]:80/api/v1", "http://[::1]:80/api/v1", "::1", 80, "/api/health"),
            ("http://h/openai", "http://h/openai", "h", 80, "/openai/health"),
        ] {
            let url = BaseUrl::parse(text).expect(text);
            assert_eq!((url.to_string().as_str(), url.host(), url.port()), (shown, host, port), "{text}");
            assert_eq!(url.path_beside("/health"), health, "{text}");
            assert_eq!(BaseUrl::parse(shown), Ok(url), "{text}");
        }
        assert_eq!(BaseUrl::parse("http://h:1").expect("a URL").path_of("/models"), "/v1/models");
    }

    #[test]
    fn what_is_no_servers_address_is_refused() {
        for (text, error) in [
            ("", UrlError::Malformed),
            ("localhost:8000", UrlError::Scheme),
            ("/v1", UrlError::Scheme),
            ("ftp://h", UrlError::Scheme),
            ("http://me:secret@h", UrlError::Credentials),
            ("http://h/v1?key=secret", UrlError::Query),
            ("http://h:99999", UrlError::Malformed),
            ("http:// h", UrlError::Malformed),
            ("http://", UrlError::Malformed),
        ] {
            assert_eq!(BaseUrl::parse(text), Err(error), "{text}");
        }
    }
}
