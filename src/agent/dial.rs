//! Calling the box: TCP, TLS where the URL wants it, the upgrade to a WebSocket, and the handshake in which both prove
//! their keys. What comes out is a connection on which `ready` is to be said.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::uri::Authority;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_websockets::{ClientBuilder, Config, Limits};

use super::joined::Joined;
use super::link::{Ended, Link, Wire};
use crate::coordinator::event::Environment;
use crate::wire::handshake::{AgentSide, Proven};
use crate::wire::keys::Hex;
use crate::wire::to_agent::Admitted;
use crate::wire::{
    CloseCode, FRAGMENT_BYTES_MAX, FromAgent, FromBox, HANDSHAKE_BYTES_MAX, HANDSHAKE_TIMEOUT_MS, Identity,
    Refusal, SUBPROTOCOL,
};

/// How long a connection, its TLS and its upgrade may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The most that the agent waits to tell a box why it leaves.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a response's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a refusal.
const REFUSAL_BYTES_MAX: usize = 8 << 10;
/// What RFC 6455 puts behind the key of an upgrade.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Everything that calling takes.
pub(super) struct Caller {
    pub(super) identity: Arc<Identity>,
    pub(super) joined: Joined,
    pub(super) environments: Vec<Environment>,
    pub(super) tls: Arc<ClientConfig>,
}

impl Caller {
    /// The same again.
    pub(super) fn again(&self) -> Self {
        Self {
            identity: Arc::clone(&self.identity),
            joined: self.joined.clone(),
            environments: self.environments.clone(),
            tls: Arc::clone(&self.tls),
        }
    }
}

/// A connection on which the box let the node in.
pub(super) struct Dialled {
    pub(super) link: Link,
    pub(super) proven: Proven,
    pub(super) admitted: Admitted,
}

/// Calls the box, whose key is checked before anything is said of the node but its key.
pub(super) async fn dial(caller: Arc<Caller>) -> Result<Dialled, Ended> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect(&caller)).await;
    let mut link = connecting.unwrap_or_else(|_| Err(broken("it doesn't answer".to_owned())))?;
    let greeting =
        tokio::time::timeout(Duration::from_millis(HANDSHAKE_TIMEOUT_MS), greet(&mut link, &caller));
    match greeting.await {
        Ok(Ok((proven, admitted))) => Ok(Dialled { link, proven, admitted }),
        Ok(Err(Greeting::Refused(refusal))) => {
            let closing = link.close(refusal.code, &refusal.reason);
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, closing).await;
            Err(refusal.into())
        }
        Ok(Err(Greeting::Ended(ended))) => Err(ended),
        Err(_) => {
            Err(Refusal::new(CloseCode::HandshakeTimeout, "the box didn't answer the handshake").into())
        }
    }
}

fn broken(reason: String) -> Ended {
    Ended { code: None, reason }
}

async fn connect(caller: &Caller) -> Result<Link, Ended> {
    let url = caller.joined.connect_url();
    let uri: Uri = url.parse().map_err(|error| broken(format!("its URL {url} can't be used: {error}")))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let is_secure = uri.scheme_str() == Some("wss");
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let unreachable = |error: std::io::Error| broken(format!("it can't be reached: {error}"));
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
    // Messages are written whole: waiting for more to send would only delay them.
    stream.set_nodelay(true).map_err(unreachable)?;
    let wire: Box<dyn Wire> = if is_secure {
        let name = ServerName::try_from(host)
            .map_err(|_| broken("its host is no name that a certificate could have".to_owned()))?;
        let connector = TlsConnector::from(Arc::clone(&caller.tls));
        let secured = connector.connect(name, stream).await;
        Box::new(secured.map_err(|error| broken(format!("no secure connection: {error}; {TLS_REMEDY}")))?)
    } else {
        Box::new(stream)
    };
    upgrade(&uri, wire).await
}

const TLS_REMEDY: &str = "if the box was given another certificate, join again with a new invite";

/// Asks for the WebSocket in HTTP, where heads and refusals have bounds, and takes the stream over.
async fn upgrade(uri: &Uri, wire: Box<dyn Wire>) -> Result<Link, Ended> {
    let broke = |error: hyper::Error| broken(format!("it doesn't speak HTTP: {error}"));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(wire)).await.map_err(broke)?;
    let driving = tokio::spawn(connection.with_upgrades());
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| broken(format!("the system gives no random bytes: {error}")))?;
    let key = BASE64.encode(key);
    let request = Request::get(uri.path())
        .header(HOST, uri.authority().map_or("", Authority::as_str))
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(format!("its URL can't be asked for: {error}")))?;
    let response = sender.send_request(request).await.map_err(broke)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let refusal = refusal_of(response).await;
        driving.abort();
        return Err(refusal);
    }
    check_agreed(response.headers(), &key)?;
    let upgraded = hyper::upgrade::on(response).await.map_err(broke)?;
    let Ok(parts) = upgraded.downcast::<TokioIo<Box<dyn Wire>>>() else {
        return Err(broken("the WebSocket isn't the connection that was opened".to_owned()));
    };
    if !parts.read_buf.is_empty() {
        return Err(Refusal::new(CloseCode::OutOfOrder, "it speaks before it is spoken to").into());
    }
    let builder = ClientBuilder::new()
        .limits(Limits::default().max_payload_len(Some(HANDSHAKE_BYTES_MAX)))
        .config(Config::default().frame_size(FRAGMENT_BYTES_MAX));
    Ok(Link::new(builder.take_over(parts.io.into_inner())))
}

/// Whether it is this request that was agreed to, by something that speaks the protocol (RFC 6455, section 4.1).
fn check_agreed(headers: &HeaderMap, key: &str) -> Result<(), Ended> {
    let said = |name| headers.get(name).map(HeaderValue::as_bytes);
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{WEBSOCKET_GUID}").as_bytes());
    let is_accepted = said(SEC_WEBSOCKET_ACCEPT) == Some(BASE64.encode(accept).as_bytes());
    if is_accepted && said(SEC_WEBSOCKET_PROTOCOL) == Some(SUBPROTOCOL.as_bytes()) {
        return Ok(());
    }
    Err(broken(format!("what answers there doesn't speak `{SUBPROTOCOL}`: is it a box?")))
}

/// What a box says that doesn't open the WebSocket.
async fn refusal_of(response: Response<Incoming>) -> Ended {
    let status = response.status();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let said: Option<Value> = serde_json::from_slice(&body).ok();
    let message = said.as_ref().and_then(|said| said["error"]["message"].as_str());
    match message {
        Some(message) => broken(format!("it refused the WebSocket ({}): {message}", status.as_u16())),
        None => broken(format!("it refused the WebSocket ({status}): is it a box?")),
    }
}

/// Why a handshake came to nothing.
enum Greeting {
    /// This side won't go on.
    Refused(Refusal),
    /// The box closed, or the connection broke.
    Ended(Ended),
}

impl From<Ended> for Greeting {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<Refusal> for Greeting {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

async fn greet(link: &mut Link, caller: &Caller) -> Result<(Proven, Admitted), Greeting> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)
        .map_err(|error| broken(format!("the system gives no random bytes: {error}")))?;
    let (side, hello) = AgentSide::call(&caller.identity, caller.joined.box_key, Hex(nonce));
    link.say(&FromAgent::Hello(hello)).await?;
    let FromBox::Challenge(challenge) = link.hear().await? else {
        return Err(out_of_order("challenge").into());
    };
    let token = caller.joined.token.as_ref();
    let (proven, proof) = side.answer(&caller.identity, &challenge, &caller.environments, token)?;
    link.say(&FromAgent::Authenticate(proof)).await?;
    let FromBox::Admitted(admitted) = link.hear().await? else { return Err(out_of_order("admitted").into()) };
    link.admit();
    Ok((proven, admitted))
}

fn out_of_order(expected: &str) -> Refusal {
    Refusal::new(
        CloseCode::OutOfOrder,
        format!("the box sent something else where `{expected}` was expected"),
    )
}

/// Closes a connection without keeping anybody waiting.
pub(super) fn closing(link: Link, code: CloseCode, reason: String) -> impl Future<Output = ()> {
    async move {
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, link.close(code, &reason)).await;
    }
}
