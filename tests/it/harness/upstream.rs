//! A scripted OpenAI-compatible server: says what it is told to say, byte for byte, and remembers what it was asked.

use super::wait_for;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub head: String,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<String> {
        let find = |line: &str| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.head.lines().find_map(find)
    }
}

/// One thing that the server does on a connection.
#[derive(Debug, Clone)]
pub enum Act {
    /// Writes bytes.
    Write(Vec<u8>),
    /// Waits until the test opens this gate.
    Until(Arc<AtomicBool>),
    /// Waits until the client hangs up, and counts that.
    UntilGone,
}

/// What it answers to a request.
pub type Script = Vec<Act>;

type Handler = Box<dyn Fn(&Asked) -> Script + Send + Sync>;

struct Shared {
    handler: Mutex<Handler>,
    asked: Mutex<Vec<Asked>>,
    gone: AtomicUsize,
    closing: AtomicBool,
    /// What it speaks TLS with, if it does.
    tls: Option<Arc<ServerConfig>>,
}

/// Something to read from and write to.
trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

/// A server that can be stopped and started again on the same port.
pub struct Upstream {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// A list of models as servers give it.
pub fn models(names: &[&str]) -> Script {
    let data: Vec<_> = names.iter().map(|name| serde_json::json!({"id": name, "object": "model"})).collect();
    json(200, &serde_json::json!({"object": "list", "data": data}).to_string())
}

/// An answer of JSON.
pub fn json(status: u16, body: &str) -> Script {
    json_with(status, "", body)
}

/// The same with more header lines.
pub fn json_with(status: u16, more: &str, body: &str) -> Script {
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {len}\r\n\r\n"
    );
    vec![Act::Write([head.as_bytes(), body.as_bytes()].concat())]
}

/// The head of a stream that ends with its connection.
pub fn stream_head() -> Act {
    Act::Write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_vec())
}

/// A stream of these events, each the JSON of one, properly ended.
pub fn stream(events: &[&str]) -> Script {
    let mut text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    text.push_str("data: [DONE]\n\n");
    vec![stream_head(), Act::Write(text.into_bytes())]
}

/// The event of one choice.
pub fn choice(members: &str) -> String {
    format!(
        r#"{{"id":"up","object":"chat.completion.chunk","created":1,"model":"there","choices":[{{"index":0,{members}}}]}}"#
    )
}

/// The event of some text.
pub fn delta(text: &str) -> String {
    choice(&format!(r#""delta":{{"content":{}}},"finish_reason":null"#, serde_json::Value::from(text)))
}

/// The event of an end.
pub fn finish(reason: &str) -> String {
    choice(&format!(r#""delta":{{}},"finish_reason":"{reason}""#))
}

/// The event of usage.
pub fn usage(input: u32, output: u32) -> String {
    format!(
        r#"{{"choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":0}}}}"#
    )
}

/// The stream of a short answer.
pub fn said(text: &str) -> Script {
    stream(&[&delta(text), &finish("stop"), &usage(7, 3)])
}

impl Upstream {
    /// One that lists these models, and answers everything else by `handler`.
    pub fn start(listed: &[&str], handler: impl Fn(&Asked) -> Script + Send + Sync + 'static) -> Upstream {
        let mut upstream = Upstream::stopped(listed, handler);
        upstream.start_again();
        upstream
    }

    /// As `start`, but not listening yet.
    pub fn stopped(listed: &[&str], handler: impl Fn(&Asked) -> Script + Send + Sync + 'static) -> Upstream {
        Upstream::made(listed, handler, None)
    }

    /// As `start`, with TLS, and a certificate that only who trusts `tls/ca.pem` takes.
    pub fn start_secure(
        listed: &[&str],
        handler: impl Fn(&Asked) -> Script + Send + Sync + 'static,
    ) -> Upstream {
        let mut upstream = Upstream::made(listed, handler, Some(secure()));
        upstream.start_again();
        upstream
    }

    fn made(
        listed: &[&str],
        handler: impl Fn(&Asked) -> Script + Send + Sync + 'static,
        tls: Option<Arc<ServerConfig>>,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            handler: Mutex::new(with_models(listed, handler)),
            asked: Mutex::default(),
            gone: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            tls,
        });
        Upstream { addr, shared, accepting: None }
    }

    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Listens, on the port that it always had.
    pub fn start_again(&mut self) {
        let listener = wait_for("the port to be free", || TcpListener::bind(self.addr).ok());
        listener.set_nonblocking(true).expect("a socket that doesn't block");
        self.shared.closing.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(std::thread::spawn(move || accept(&listener, &shared)));
    }

    /// Stops listening and closes every connection, as a killed server would.
    pub fn stop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the server doesn't panic");
        }
    }

    /// Answers otherwise from now on.
    pub fn answer(&self, listed: &[&str], handler: impl Fn(&Asked) -> Script + Send + Sync + 'static) {
        *self.shared.handler.lock().expect("no panic") = with_models(listed, handler);
    }

    /// What it was asked on an endpoint, in order.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().expect("no panic");
        asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// How many clients hung up where it waited for that.
    pub fn gone(&self) -> usize {
        self.shared.gone.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
    }
}

fn with_models(listed: &[&str], handler: impl Fn(&Asked) -> Script + Send + Sync + 'static) -> Handler {
    let list = models(listed);
    Box::new(move |asked| match asked.path.as_str() {
        "/v1/models" => list.clone(),
        // As Ollama, which doesn't have it.
        "/health" => json(404, "404 page not found"),
        _ => handler(asked),
    })
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.closing.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// The certificate and the key beside this file. They were made for these tests by `openssl`, and are trusted nowhere.
fn secure() -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(include_bytes!("tls/server.pem"));
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).expect("a certificate with its key"))
}

/// Serves one request; a connection that ends before it is none.
fn serve(stream: TcpStream, shared: &Shared) {
    stream.set_nonblocking(false).expect("a socket that blocks");
    match &shared.tls {
        None => serve_on(&mut &stream, &stream, shared),
        Some(tls) => {
            let connection = ServerConnection::new(Arc::clone(tls)).expect("a connection");
            let socket = stream.try_clone().expect("a second handle");
            serve_on(&mut StreamOwned::new(connection, stream), &socket, shared);
        }
    }
}

fn serve_on(line: &mut dyn Line, socket: &TcpStream, shared: &Shared) {
    let Some(asked) = read_request(line) else { return };
    let script = (shared.handler.lock().expect("no panic"))(&asked);
    shared.asked.lock().expect("no panic").push(asked);
    for act in script {
        let done = match act {
            Act::Write(bytes) => line.write_all(&bytes).and_then(|()| line.flush()).is_ok(),
            Act::Until(gate) => wait_open(&gate, shared),
            Act::UntilGone => {
                wait_gone(line, socket, shared);
                false
            }
        };
        if !done {
            return;
        }
    }
}

fn wait_open(gate: &AtomicBool, shared: &Shared) -> bool {
    while !gate.load(Ordering::SeqCst) {
        if shared.closing.load(Ordering::SeqCst) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

fn wait_gone(line: &mut dyn Line, socket: &TcpStream, shared: &Shared) {
    let pause = Some(Duration::from_millis(5));
    socket.set_read_timeout(pause).expect("a timeout");
    while !shared.closing.load(Ordering::SeqCst) {
        match line.read(&mut [0; 64]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => {
                shared.gone.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

fn read_request(line: &mut dyn Line) -> Option<Asked> {
    let mut reader = BufReader::new(line);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let path = head.split(' ').nth(1)?.to_owned();
    let asked = Asked { path, head, body: String::new() };
    let len = asked.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { body: String::from_utf8(body).ok()?, ..asked })
}
