//! From a connection to one that nobody listens in on. Who speaks plain HTTP to a listener with TLS is told so.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a client reads that speaks HTTP without TLS.
const PLAIN: &str = concat!(
    r#"{"error":{"message":"This port speaks TLS: use https:// in place of http://.","#,
    r#""type":"invalid_request_error","param":null,"code":"tls_required"}}"#
);

/// Agrees on keys with the peer; `None` if that fails. The caller says how long it may take.
pub(super) async fn secure(mut stream: TcpStream, tls: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    let read = stream.peek(&mut first).await.ok()?;
    // A record of a TLS handshake begins with 22, a request of HTTP with the letters of its method.
    if read == 1 && first[0].is_ascii_uppercase() {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{PLAIN}",
            PLAIN.len()
        );
        // Best effort: who is wrong here needn't hear it.
        let _ = stream.write_all(answer.as_bytes()).await;
        return None;
    }
    tls.accept(stream).await.inspect_err(|error| tracing::debug!(%error, "no TLS came about")).ok()
}
