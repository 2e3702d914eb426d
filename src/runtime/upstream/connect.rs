//! One HTTP/1.1 connection to a server, for one request. Dropping it closes it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::server::Server;
use crate::url::Web;

/// Bytes that are read of a connection before somebody takes them; also of a head.
const BUFFER_BYTES_MAX: usize = 64 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("switchbox/", env!("CARGO_PKG_VERSION")));

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// It took too long.
    #[error("it doesn't answer")]
    TimedOut,
    /// The network, or the machine there, refused.
    #[error("it can't be reached: {0}")]
    Unreachable(#[from] std::io::Error),
    /// TLS.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// HTTP.
    #[error("it doesn't speak HTTP/1.1: {0}")]
    Http(#[from] hyper::Error),
}

/// An open connection.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    _driving: Driving,
}

/// What moves a connection's bytes; dropped, it closes the connection.
struct Driving(JoinHandle<()>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects, within the server's patience.
    pub(super) async fn open(server: &Server) -> Result<Self, ConnectError> {
        let connecting = Self::connect(server);
        tokio::time::timeout(server.patience().connect, connecting)
            .await
            .unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn connect(server: &Server) -> Result<Self, ConnectError> {
        let url = server.url();
        let stream = TcpStream::connect((url.host(), url.port())).await?;
        // Requests are written whole: waiting for more to send would only delay them.
        stream.set_nodelay(true)?;
        match url.scheme() {
            Web::Http => Self::over(TokioIo::new(stream)).await,
            Web::Https => {
                let name = ServerName::try_from(url.host().to_owned()).map_err(|_| {
                    ConnectError::Tls("its host is no name that a certificate could have".to_owned())
                })?;
                let connector = TlsConnector::from(tls()?);
                let secured = connector.connect(name, stream).await;
                Self::over(TokioIo::new(secured.map_err(|error| ConnectError::Tls(error.to_string()))?)).await
            }
        }
    }

    async fn over<S>(stream: S) -> Result<Self, ConnectError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX);
        let (sender, driver) = builder.handshake(stream).await?;
        let driving = tokio::spawn(async move {
            // What goes wrong shows where the answer is read.
            let _ = driver.await;
        });
        Ok(Self { sender, _driving: Driving(driving) })
    }

    /// Sends the one request and waits for the answer's head.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }
}

/// What a request shows of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presents {
    /// The server's key, if it has one.
    Key,
    /// Nothing.
    Nothing,
}

/// A request to a server.
pub(super) fn request(
    server: &Server,
    method: Method,
    path: &str,
    presents: Presents,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::builder()
        .method(&method)
        .uri(path)
        .header(HOST, server.url().authority())
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close");
    if method == Method::POST {
        request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "text/event-stream");
    }
    if let Some(key) = server.key().filter(|_| presents == Presents::Key) {
        let mut value = HeaderValue::try_from(format!("Bearer {}", key.text()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Full::new(Bytes::from(body)))
}

/// Whom connections trust: the certificates that this machine trusts, so that a company's own servers are as good as
/// public ones, and what is withdrawn goes with the system's updates.
fn tls() -> Result<Arc<ClientConfig>, ConnectError> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG.get_or_init(make_tls).clone().map_err(ConnectError::Tls)
}

fn make_tls() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(
            "this machine has no certificates to check others by: install its package `ca-certificates`, or \
                    name a file of them in SSL_CERT_FILE"
                .to_owned(),
        );
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
