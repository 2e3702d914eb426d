//! Listening beyond loopback: with a certificate of the box's own or of the operator's, and never in the clear by mistake.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::http::Request;
use crate::harness::peer;
use crate::harness::server::{Server, Setup, TempDir, read_trimmed};

type Secured = StreamOwned<ClientConnection, TcpStream>;

fn beyond_loopback() -> Setup {
    Setup::keyed().model("echo", "echo:").arg("--listen").arg("0.0.0.0:0")
}

/// The address under which this machine reaches a box that listens everywhere.
fn reach(server: &Server) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, server.addr.port()))
}

/// Connects like a client that trusts that certificate, and nothing else.
fn secured(server: &Server, certificate: &Path) -> Result<Secured, String> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(certificate).expect("the certificate is there");
    roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a certificate");
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the defaults go together")
        .with_webpki_verifier(verifier.build().expect("one root"))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let socket = TcpStream::connect(reach(server)).expect("the box listens");
    socket.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout can be set");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut stream = StreamOwned::new(connection, socket);
    match stream.conn.complete_io(&mut stream.sock) {
        Ok(_) => Ok(stream),
        Err(error) => Err(error.to_string()),
    }
}

fn ask(mut stream: Secured, key: &str) -> String {
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the box reads");
    let mut answer = String::new();
    // The end may come without TLS's own goodbye.
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn beyond_loopback_the_box_makes_its_own_certificate_and_keeps_it() {
    let dir = TempDir::new();
    let data = dir.join("data");
    let mut server = beyond_loopback().start_in(&data);
    let (certificate, key) = (data.join("tls.crt"), data.join("tls.key"));
    assert_eq!((mode(&certificate), mode(&key)), (0o600, 0o600));
    let answer =
        ask(secured(&server, &certificate).expect("it is trusted"), server.key.as_ref().expect("a key"));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"echo\""), "{answer}");
    // Who speaks plain HTTP is told so, and shows his key to nobody on the way but once.
    let plain = Request::new(reach(&server), "GET", "/v1/models").send();
    assert_eq!(plain.status, 400, "{}", plain.text());
    assert_eq!(plain.value()["error"]["code"], "tls_required", "{}", plain.text());
    // The join string names the certificate's key, and where the box is.
    let join = peer::invite(&server, json!({}));
    let pem = std::fs::read_to_string(&certificate).expect("it is there");
    assert_eq!(join.tls, switchbox::tls::pin_of_pem(&pem));
    assert!(join.tls.is_some() && join.url.starts_with("https://"), "{}", join.url);
    assert!(!join.url.contains("0.0.0.0"), "{}", join.url);
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
    let first = pem;
    let server = beyond_loopback().start_in(&data);
    assert_eq!(std::fs::read_to_string(&certificate).expect("it is there"), first, "the next start keeps it");
    assert!(secured(&server, &certificate).is_ok());
}

#[test]
fn the_operators_certificate_is_used_and_not_pinned() {
    let dir = TempDir::new();
    // Any box's will do.
    drop(beyond_loopback().start_in(&dir.join("other")));
    let (certificate, key) = (dir.join("other").join("tls.crt"), dir.join("other").join("tls.key"));
    let named = |flag: &str, path: &Path| (flag.to_owned(), path.to_str().expect("UTF-8").to_owned());
    let (cert_flag, key_flag) = (named("--tls-cert", &certificate), named("--tls-key", &key));
    let server = Setup::keyed()
        .model("echo", "echo:")
        .arg(&cert_flag.0)
        .arg(&cert_flag.1)
        .arg(&key_flag.0)
        .arg(&key_flag.1)
        .start();
    let answer =
        ask(secured(&server, &certificate).expect("it is trusted"), server.key.as_ref().expect("a key"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let join = peer::invite(&server, json!({}));
    assert_eq!((join.tls, join.url.starts_with("https://127.0.0.1:")), (None, true), "{}", join.url);
    for (args, said) in [
        (vec!["--tls-cert", &cert_flag.1], "has no key"),
        (vec!["--tls-key", &key_flag.1], "has no certificate"),
        (vec!["--tls-cert", &key_flag.1, "--tls-key", &key_flag.1], "no certificate is in it"),
        (vec!["--tls-cert", &cert_flag.1, "--tls-key", "/nowhere.pem"], "/nowhere.pem"),
    ] {
        let failed =
            args.iter().fold(Setup::keyed().model("echo", "echo:"), |setup, arg| setup.arg(arg)).fail();
        assert!(!failed.status.success() && failed.stderr.contains(said), "{args:?}: {}", failed.stderr);
    }
}

#[test]
fn without_tls_only_if_the_operator_says_so() {
    let server = beyond_loopback().arg("--insecure-lan").start();
    assert!(!server.data.join("tls.key").exists());
    assert_eq!(Request::new(reach(&server), "GET", "/healthz").send().status, 200);
    let join = peer::invite(&server, json!({}));
    assert!(join.tls.is_none() && join.url.starts_with("http://"), "{}", join.url);
    assert!(server.stderr().contains("without TLS"), "{}", server.stderr());
}

#[test]
fn who_never_speaks_tls_is_let_go() {
    let limits = "[limits]\nheader_read_timeout_ms = 200";
    let server = beyond_loopback().config(limits).start();
    let mut silent = TcpStream::connect(reach(&server)).expect("the box listens");
    silent.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout can be set");
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0, "it is closed");
    let mut nonsense = TcpStream::connect(reach(&server)).expect("the box listens");
    nonsense.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout can be set");
    nonsense.write_all(&[0xff; 64]).expect("the box reads");
    let mut rest = Vec::new();
    let _ = nonsense.read_to_end(&mut rest);
    assert!(rest.len() < 64, "an alert at most: {rest:?}");
    let refused = server.metrics().sum("switchbox_http_refused_total", &["bound=\"tls\""]);
    assert_eq!(refused, 2);
    assert!(secured(&server, &server.data.join("tls.crt")).is_ok());
    let _ = read_trimmed(&server.data.join("listen.addr"));
}
