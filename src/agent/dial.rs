//! Calling the box: TCP, TLS where the URL wants it, the upgrade to a WebSocket, and the handshake in which both prove
//! their keys. What comes out is a connection on which `ready` is to be said.

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
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
    upgrade(uri, wire).await
}

const TLS_REMEDY: &str = "if the box was given another certificate, join again with a new invite; if it speaks no TLS \
                          there, its URL begins with `http`";

async fn upgrade(uri: Uri, wire: Box<dyn Wire>) -> Result<Link, Ended> {
    let remedy = match uri.scheme_str() {
        Some("wss") => "is it the box's port for clients?",
        _ => "is it the box's port for clients, and does it speak TLS (then its URL begins with `https`)?",
    };
    let refused =
        |error: tokio_websockets::Error| broken(format!("it refused the WebSocket: {error}; {remedy}"));
    let upgrade = ClientBuilder::from_uri(uri)
        .add_header(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL))
        .map_err(refused)?
        .limits(Limits::default().max_payload_len(Some(HANDSHAKE_BYTES_MAX)))
        .config(Config::default().frame_size(FRAGMENT_BYTES_MAX));
    let (ws, response) = upgrade.connect_on(wire).await.map_err(refused)?;
    let agreed = response.headers().get(SEC_WEBSOCKET_PROTOCOL).map(HeaderValue::as_bytes);
    if agreed != Some(SUBPROTOCOL.as_bytes()) {
        let reason = format!("what answers there doesn't speak `{SUBPROTOCOL}`: is it a box?");
        return Err(broken(reason));
    }
    Ok(Link::new(ws))
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
pub(super) async fn closing(link: Link, code: CloseCode, reason: String) {
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, link.close(code, &reason)).await;
}
