//! A whole box in the test's process, and a client that shows every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use switchbox::api::admin::{self, AdminContext, Whereabouts};
use switchbox::api::auth::Access;
use switchbox::api::{Context, DrainFlag, Limits, Listener, Origins, Parts, serve_inference};
use switchbox::archive::Archive;
use switchbox::arrivals::Arrivals;
use switchbox::clock::Clock;
use switchbox::coordinator::event::Durability;
use switchbox::coordinator::event::{Event, NodeHello};
use switchbox::coordinator::{self, Boot, Coordinator};
use switchbox::door::{Door, DoorParts, DoorRoom};
use switchbox::driver::{Attach, Driver, Envelope, NodeLink};
use switchbox::ids::{Lsn, NodeId};
use switchbox::node::SlotRoom;
use switchbox::outbox::{Commits, Outbox};
use switchbox::rows::{RowKey, RowValue};
use switchbox::runtime::{Catalog, Echo, Entry, LocalNode, Runtime};
use switchbox::secrets::AdminToken;
use switchbox::sender::Sender;
use switchbox::wire::Identity;
use switchbox_storage::{Committer, MemoryStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

/// Far longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const ADMIN_TOKEN: &str = "the-admin-token-of-the-tests_43_characters_";

/// How a box is set up.
pub(crate) struct Setup {
    pub(crate) access: Access,
    pub(crate) origins: Origins,
    pub(crate) limits: Limits,
    pub(crate) core: coordinator::limits::Limits,
    pub(crate) slots: u32,
    pub(crate) durability: Durability,
    /// While true, nothing becomes durable.
    pub(crate) commits_stalled: Arc<AtomicBool>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            access: Access::local(),
            origins: Origins::default(),
            limits: Limits::default(),
            core: coordinator::limits::Limits::default(),
            slots: 4,
            durability: Durability::Strict,
            commits_stalled: Arc::default(),
        }
    }
}

/// A running box.
pub(crate) struct Rig {
    pub(crate) inference: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Runs a test on one thread, as the product does.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test ends in time") });
}

fn echo(name: &str, delay: Duration, slots: u32) -> Entry {
    let runtime = Runtime::Echo(Echo::new(delay));
    Entry { name: name.into(), created_unix: 1_700, slots, output_tokens_default: 1_000, runtime }
}

/// Starts a box with the models `echo` (at once) and `slow` (a token every 20 ms).
pub(crate) async fn start(setup: Setup) -> Rig {
    let catalog = Catalog::default();
    catalog.add(echo("echo", Duration::ZERO, setup.slots));
    catalog.add(echo("slow", Duration::from_millis(20), setup.slots));
    let catalog = Arc::new(catalog);
    let clock = Clock::start();
    let (commits, store) = (Arc::new(Commits::default()), MemoryStore::default());
    let committer = committer(&store, &commits, setup.commits_stalled);
    let boot = Boot { epoch: 1, secret: [0; 32], lsn: Lsn(0), at: clock.now() };
    let core = Coordinator::new(boot, setup.core, setup.durability);
    let driver = Driver::new(core, clock, committer);
    let gauges = driver.gauges();
    let sender = Sender::new(65_536, driver);
    let parts = DoorParts {
        sender: sender.clone(),
        commits: Arc::clone(&commits),
        archive: Archive::memory(store),
        driver: gauges,
        room: DoorRoom::default(),
    };
    let door = Door::new(parts);
    tokio::spawn(sender.clone().drain_parked());
    let release = Arc::clone(&commits);
    tokio::spawn(async move { release.release().await });
    connect_node(&sender, &catalog, &commits, clock);
    tokio::spawn(tick(sender));
    let context = Context::new(Parts {
        door,
        catalog,
        access: setup.access,
        identity: Arc::new(Identity::of_seed(&[7; 32].into())),
        origins: setup.origins,
        limits: setup.limits.clone(),
        durability: setup.durability,
        drain: DrainFlag::default(),
        arrivals: Arrivals::new().0,
        nodes: Arc::default(),
    });
    listen(context, setup.limits).await
}

/// What acknowledges steps, except while it is stalled.
fn committer(
    store: &MemoryStore<RowKey, RowValue>,
    commits: &Arc<Commits>,
    stalled: Arc<AtomicBool>,
) -> Committer<RowKey, RowValue> {
    let advancing = Arc::clone(commits);
    let on_durable = move |lsn| {
        while stalled.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        advancing.advance(lsn);
    };
    let committer = Committer::start(store.clone(), Default::default(), on_durable).expect("a committer");
    commits.hurry_by(committer.hurrier());
    committer
}

fn connect_node(sender: &Sender, catalog: &Arc<Catalog>, commits: &Arc<Commits>, clock: Clock) {
    let outbox = Outbox::new();
    let link = NodeLink::Local { outbox: Arc::clone(&outbox), room: SlotRoom::new(64, sender.clone()) };
    let hello = NodeHello::local(catalog.offers());
    let event = Event::NodeConnected(Box::new(hello));
    sender.push(Envelope { event, attach: Attach::Node(NodeId::local(), link), permit: None });
    tokio::spawn(LocalNode::new(outbox, Arc::clone(commits), Arc::clone(catalog), clock).run());
}

async fn tick(sender: Sender) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        sender.push(Envelope { event: Event::Tick, attach: Attach::Nothing, permit: None });
    }
}

async fn listen(context: Arc<Context>, limits: Limits) -> Rig {
    let inference = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let admin_listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addresses = (inference.local_addr(), admin_listener.local_addr());
    let admin_context = AdminContext::new(
        Arc::clone(&context),
        AdminToken::parse(ADMIN_TOKEN.as_bytes()).expect("43 characters"),
        limits,
        None,
        Whereabouts { url: None, box_key: Identity::of_seed(&Zeroizing::new([1; 32])).public(), tls: None },
    );
    tokio::spawn(serve_inference(Listener::Tcp(inference), context, std::future::pending()));
    tokio::spawn(admin::serve(Listener::Tcp(admin_listener), admin_context, std::future::pending()));
    Rig { inference: addresses.0.expect("an address"), admin: addresses.1.expect("an address") }
}

/// An answer, byte for byte.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let head = head.to_owned();
        let chunked = head.contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// Checks status and code of an error with all four keys.
    pub(crate) fn assert_error(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error in {body}"));
        let keys: Vec<_> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "message", "param", "type"], "{body}");
        assert_eq!((self.status, &error["code"]), (status, &code.into()), "{body}");
        assert!(self.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{}", self.head);
        body["error"].clone()
    }

    /// The events of a stream, without its comments; the last one as text if it isn't JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        let event = |event: &str| {
            let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("a strange event {event:?}"));
            serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))
        };
        assert!(self.body.ends_with("\n\n"), "{:?}", self.body);
        self.body.split_terminator("\n\n").filter(|event| !event.starts_with(':')).map(event).collect()
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((len, more)) = rest.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).expect("a chunk's length");
        if len == 0 {
            return body;
        }
        // A connection that was cut mid-chunk ends here.
        let Some(chunk) = more.get(..len) else { return body + more };
        body.push_str(chunk);
        rest = more.get(len + 2..).unwrap_or_default();
    }
    body
}

/// Opens a connection and sends bytes.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // A server that refuses early may close before it has read all.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Reads until the server closes.
pub(crate) async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an answer in time");
    Answer::parse(&String::from_utf8(all).expect("UTF-8"))
}

/// A request's text, with the headers that it needs; `more` are further lines.
pub(crate) fn request_text(method: &str, path: &str, more: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {len}\r\n{more}\r\n{body}"
    )
}

impl Rig {
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let text = request_text("POST", path, "content-type: application/json\r\n", body);
        read_answer(send(self.inference, text.as_bytes()).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        read_answer(send(self.inference, request_text("GET", path, "", "").as_bytes()).await).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str) -> Answer {
        let token = format!("authorization: Bearer {ADMIN_TOKEN}\r\n");
        read_answer(send(self.admin, request_text(method, path, &token, "").as_bytes()).await).await
    }

    /// The value of a metric.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.ask("GET", "/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// Waits until a metric has a value.
    pub(crate) async fn wait_for(&self, name: &str, value: u64) {
        while self.metric(name).await != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A chat body with one user message and further fields.
pub(crate) fn chat_body(model: &str, content: &str, more: &str) -> String {
    let content = Value::from(content);
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":{content}}}]{more}}}"#)
}

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const COMPLETIONS: &str = "/v1/completions";
