//! A small HTTP client for a box: one connection a request, so that letting go of an answer closes its connection,
//! which cancels it. Plain HTTP over TCP or a Unix socket only; follows nothing, retries nothing, never logs a key.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

/// For a connection to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that is read whole.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a box can't be asked, or what it refused with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The address makes no sense.
    #[error("`{text}` isn't a box's address: {problem}; write it as in `http://127.0.0.1:8080`")]
    Address { text: String, problem: &'static str },
    /// What should open the door can't be sent.
    #[error(
        "the key isn't one line of printable characters, so it can't be sent; check the file or variable"
    )]
    Key,
    /// Nobody answers there.
    #[error("can't reach a box at {address}: {source}; is it running there (`switchbox serve`)?")]
    Unreachable { address: String, source: std::io::Error },
    /// The connection broke, or speaks something else.
    #[error("the connection to {address} failed: {problem}; if it does so again, see the box's log")]
    Broken { address: String, problem: String },
    /// The box said no.
    #[error("the box refused ({}): {message}", label(*status, code))]
    Refused { status: StatusCode, code: String, message: String },
    /// The box ended an answer that it had begun.
    #[error("the box ended the answer ({code}): {message}")]
    Ended { code: String, message: String },
    /// The answer is something else than it must be.
    #[error("the answer of {address} can't be read: {problem}; is it a switchbox of this version?")]
    Answer { address: String, problem: String },
}

fn label(status: StatusCode, code: &str) -> String {
    if code.is_empty() { status.to_string() } else { format!("{} {code}", status.as_u16()) }
}

/// Where a box listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// On a host and port, perhaps below a path.
    Tcp { host: String, port: u16, base: String },
    /// On a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// `http://HOST[:PORT][/BASE]` or `unix:PATH`. A trailing `/v1` is what OpenAI's SDKs call the base URL.
    pub(super) fn parse(text: &str) -> Result<Self, ClientError> {
        let refused = |problem| ClientError::Address { text: text.to_owned(), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        let uri: Uri = text.parse().map_err(|_| refused("it isn't a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(refused("https isn't supported yet")),
            _ => return Err(refused("it doesn't begin with `http://`")),
        }
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("it holds a user name, which nothing here uses"));
        }
        if uri.query().is_some() {
            return Err(refused("it has a query"));
        }
        let path = uri.path().trim_end_matches('/');
        let base = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        let port = uri.port_u16().unwrap_or(80);
        Ok(Address::Tcp { host: authority.host().to_owned(), port, base })
    }

    /// Whether it is this very machine.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                host == "localhost"
                    || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    fn base(&self) -> &str {
        match self {
            Address::Tcp { base, .. } => base,
            Address::Unix(_) => "",
        }
    }

    fn host_header(&self) -> String {
        match self {
            Address::Tcp { host, port, .. } => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp { host, port, base } => write!(f, "http://{host}:{port}{base}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A box, and what opens its door.
pub(super) struct Client {
    address: Address,
    bearer: Option<HeaderValue>,
}

/// An answer that has begun. Dropping it closes its connection.
pub(super) struct Exchange {
    pub(super) response: Response<Incoming>,
    connection: JoinHandle<()>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    pub(super) fn new(address: Address, bearer: Option<&str>) -> Result<Self, ClientError> {
        let bearer = bearer.map(|token| {
            let text = Zeroizing::new(format!("Bearer {token}"));
            let mut value = HeaderValue::from_str(&text).map_err(|_| ClientError::Key)?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { address, bearer: bearer.transpose()? })
    }

    /// A JSON answer, read whole.
    pub(super) async fn fetch<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Vec::new()).await
    }

    /// The JSON answer to whatever is sent, read whole.
    pub(super) async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        json: Vec<u8>,
    ) -> Result<T, ClientError> {
        let mut exchange = self.send(method, path, json.into()).await?;
        let body = self.whole(exchange.response.body_mut()).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(&error.to_string()))
    }

    /// An answer that comes piece by piece.
    pub(super) async fn post(&self, path: &str, json: Vec<u8>) -> Result<Exchange, ClientError> {
        self.send(Method::POST, path, json.into()).await
    }

    /// The next piece of an answer; `None` at its end.
    pub(super) async fn piece(&self, exchange: &mut Exchange) -> Result<Option<Bytes>, ClientError> {
        loop {
            match exchange.response.body_mut().frame().await {
                None => return Ok(None),
                // Trailers are no part of the answer.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(self.broken(&error)),
            }
        }
    }

    /// That what came can't be read.
    pub(super) fn unreadable(&self, problem: &str) -> ClientError {
        ClientError::Answer { address: self.address.to_string(), problem: problem.to_owned() }
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        ClientError::Broken { address: self.address.to_string(), problem: error.to_string() }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Exchange, ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let target = format!("{}{path}", self.address.base());
        *request.uri_mut() = target.parse().map_err(|_| self.unreadable("the path can't be asked for"))?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.address.host_header());
        headers.insert(HOST, host.map_err(|_| self.unreadable("the host can't be asked for"))?);
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("switchbox/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(bearer) = &self.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        let mut exchange = match &self.address {
            Address::Tcp { host, port, .. } => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                self.exchange(self.connected(TcpStream::connect((host, *port))).await?, request).await?
            }
            Address::Unix(path) => {
                self.exchange(self.connected(UnixStream::connect(path)).await?, request).await?
            }
        };
        if exchange.response.status().is_success() {
            return Ok(exchange);
        }
        let status = exchange.response.status();
        let body = self.whole(exchange.response.body_mut()).await?;
        let (code, message) = error_of(&body);
        Err(ClientError::Refused { status, code, message })
    }

    async fn connected<S>(
        &self,
        connecting: impl Future<Output = std::io::Result<S>>,
    ) -> Result<S, ClientError> {
        let timed_out = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(timed_out)
            .map_err(|source| ClientError::Unreachable { address: self.address.to_string(), source })
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Exchange, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        // What breaks the connection is told to whoever waits for the answer.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error));
        match response {
            Ok(response) => Ok(Exchange { response, connection }),
            Err(error) => {
                connection.abort();
                Err(error)
            }
        }
    }

    async fn whole(&self, body: &mut Incoming) -> Result<Bytes, ClientError> {
        let limited = Limited::new(body, ANSWER_BYTES_MAX);
        let collected = limited.collect().await.map_err(|error| self.unreadable(&error.to_string()))?;
        Ok(collected.to_bytes())
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

/// OpenAI's error object, as far as people read it.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorText {
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) code: Option<String>,
}

/// Code and message of an error's body, whatever it is.
fn error_of(body: &[u8]) -> (String, String) {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => (error.code.unwrap_or_default(), error.message),
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(500).collect();
            (String::new(), if text.is_empty() { "without a reason".to_owned() } else { text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080"),
            ("http://box.example/llm/v1", "http://box.example:80/llm"),
            ("http://[::1]:9/", "http://[::1]:9"),
            ("unix:/run/box.sock", "unix:/run/box.sock"),
        ] {
            assert_eq!(Address::parse(text).expect(text).to_string(), shown);
        }
        for (text, problem) in [
            ("https://box.example", "https isn't supported yet"),
            ("127.0.0.1:8080", "begin with `http://`"),
            ("ftp://x", "begin with `http://`"),
            ("http://me:secret@host", "user name"),
            ("http://host/?a=b", "query"),
            ("not a url", "isn't a URL"),
        ] {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(problem) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn local_addresses() {
        for (text, is_local) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost", true),
            ("http://[::1]:1", true),
            ("http://192.168.0.1:1", false),
            ("http://localhost.evil.example", false),
        ] {
            assert_eq!(Address::parse(text).expect(text).is_local(), is_local, "{text}");
        }
    }

    #[test]
    fn refusals_are_readable() {
        for (body, code, message) in [
            (
                r#"{"error":{"message":"slow down","type":"x","param":null,"code":"rate_limit_exceeded"}}"#,
                "rate_limit_exceeded",
                "slow down",
            ),
            (r#"{"error":{"message":"m","code":null}}"#, "", "m"),
            ("<html>", "", "<html>"),
            ("", "", "without a reason"),
        ] {
            assert_eq!(error_of(body.as_bytes()), (code.to_owned(), message.to_owned()));
        }
    }
}
