//! The box: puts the pieces together, serves until told to stop, and drains.
//!
//! Wiring only. What may be decided is the core's, what is said to clients the api's.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::api::auth::{Access, Grant, KeyRecord};
use crate::api::{self, Context, DrainFlag, Origins, Progress};
use crate::archive::Archive;
use crate::arrivals::Arrivals;
use crate::backup::Backups;
use crate::config::{AdminListen, Auth, Config, Identity};
use crate::coordinator::effect::Answer;
use crate::coordinator::event::{Environment, Event, NodeHello, Offers, Question};
use crate::datadir::{DataDir, DataDirError, FirstKey};
use crate::door::{ClientMessage, Door, DoorParts, DoorRoom};
use crate::driver::{Attach, Driver, Envelope, NodeLink};
use crate::ids::{Namespace, NodeId, Session};
use crate::node::remote::{Gate, GateParts};
use crate::node::tally::NodesTally;
use crate::node::{EVENTS_PER_SLOT, SlotRoom};
use crate::nodes;
use crate::outbox::{Commits, Outbox};
use crate::runtime::{Catalog, LocalNode};
use crate::sender::Sender;
use listen::Front;
use recovery::Recovered;

pub mod agent;
mod listen;
pub mod models;
mod recovery;

/// How often the core hears that time has passed.
const TICK: Duration = Duration::from_millis(10);
/// How often a drain looks whether it is through.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long connections may take to end once no job lives any more.
const GOODBYE: Duration = Duration::from_secs(5);

/// Open files that aren't connections: models, the data directory, listeners, and some.
const FILES_BESIDE_CONNECTIONS: u64 = 256;
/// How far threads for long prompts stand back.
const BLOCKING_NICE: i32 = 10;

/// Why the box didn't start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store.
    #[error(transparent)]
    Store(switchbox_storage::Error),
    /// A row of the store.
    #[error(transparent)]
    Row(#[from] crate::persist::LoadError),
    /// The clock is far behind what was written.
    #[error(
        "this machine's clock is {minutes} minutes behind the newest stored time: set it, or, if the stored time was \
         wrong, start once with `--accept-clock`"
    )]
    ClockBehind {
        /// By how many minutes.
        minutes: u64,
    },
    /// Starts are numbered, and there are no more numbers.
    #[error("the store was started at a time that no box can have: its directory can't be used any more")]
    EpochSpent,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// A model.
    #[error(transparent)]
    Model(#[from] models::LoadError),
    /// A model's file.
    #[error(transparent)]
    Digest(#[from] crate::digests::Unreadable),
    /// A listener.
    #[error("can't listen on {address} ({key}): {error}; {remedy}")]
    Listen {
        /// Where.
        address: String,
        /// Which setting.
        key: &'static str,
        /// What the system said.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The system refused something that a start needs.
    #[error("the system refused {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl From<switchbox_storage::Error> for ServeError {
    fn from(error: switchbox_storage::Error) -> Self {
        match error {
            switchbox_storage::Error::ClockBehind { by } => {
                ServeError::ClockBehind { minutes: by.as_secs() / 60 }
            }
            error => ServeError::Store(error),
        }
    }
}

/// Starts the box and serves until a signal has drained it.
///
/// # Errors
/// When it can't start. A second signal doesn't return: it ends the process.
pub fn run(config: Config) -> Result<(), ServeError> {
    raise_files_limit(config.limits.connections_max);
    let data_dir = DataDir::open(&config.data_dir)?;
    if config.identity == Identity::New {
        data_dir.renew_identity()?;
        tracing::info!("a new identity: this start makes an API key and secrets of its own");
    }
    let catalog = Arc::new(models::load(&config.served, &config.executor, &config.limits)?);
    let kept = data_dir.model_digests()?;
    if let Some(digests) = models::name_files(&catalog, &config.served, kept.as_deref().map(Vec::as_slice))? {
        data_dir.keep_model_digests(&digests)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Of this runtime, only the blocking pool starts threads: long prompts, which may wait a little.
        .on_thread_start(give_way)
        .build()
        .map_err(|error| ServeError::System { what: "an io runtime", error })?;
    let outcome = runtime.block_on(serve(config, data_dir, catalog));
    // The executor's threads may still push: a runtime that is gone would lose the right to drain. The process
    // ends right after this, so the runtime is left as it is.
    std::mem::forget(runtime);
    outcome
}

/// Asks for as many open files as connections may need, and says so if that isn't granted.
fn raise_files_limit(connections_max: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = connections_max + FILES_BESIDE_CONNECTIONS;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // The limit as it was is still there if this is refused.
    let _ = setrlimit(Resource::Nofile, raised);
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < needed => {
            tracing::warn!(
                files,
                needed,
                "too few open files for limits.connections_max: raise `ulimit -n` or lower it"
            );
        }
        _ => {}
    }
}

/// Lets the io thread go first where there are too few cores: this thread's work is long, its clients are few.
fn give_way() {
    // On Linux this is about the calling thread alone. Without it all threads are equal, which works too.
    let _ = rustix::process::nice(BLOCKING_NICE);
}

async fn serve(config: Config, data_dir: DataDir, catalog: Arc<Catalog>) -> Result<(), ServeError> {
    let stop_asked =
        crate::signals::listen().map_err(|error| ServeError::System { what: "signal handlers", error })?;
    let front = Front::open(&config, &data_dir).await?;
    let (admin, admin_address) = listen::bind_admin(&config.admin_listen).await?;
    let access = access(&config, &data_dir)?;
    let identity = Arc::new(crate::wire::Identity::of_seed(&data_dir.box_seed()?));
    data_dir.publish_box_key(&identity.public().to_string())?;
    let token = data_dir.new_admin_token()?;
    let limits = http_limits(&config.limits);
    let progress = Arc::new(Progress::default());
    let recovering = recovery::recover(&config, &data_dir, Arc::clone(&progress));
    let recovered = tokio::select! {
        biased;
        // Nothing was taken on, and what recovery does to the disk may be cut at any instant: it is left alone.
        () = closed(stop_asked.clone()) => {
            tracing::info!("told to stop while starting: nothing was taken on");
            return Ok(());
        }
        recovered = api::serve_while(&front.listener, &limits, progress, recovering) => recovered?,
    };
    models::watch(&catalog).await;
    let backups = Backups::new(data_dir.path(), recovered.store.clone());
    let Started { door, gate } = start_core(recovered, Arc::clone(&catalog), &config.limits)?;
    let drain = DrainFlag::default();
    let (base, url, pin) = (front.base(), front.url(), front.pin);
    let (arrivals, arriving) = Arrivals::new();
    let tally = Arc::<NodesTally>::default();
    let context = Context::new(api::Parts {
        door: door.clone(),
        catalog: Arc::clone(&catalog),
        access,
        identity: Arc::clone(&identity),
        origins: Origins::listed(config.http.cors_origins.iter().map(String::as_str)),
        limits: limits.clone(),
        durability: config.durability,
        drain: drain.clone(),
        arrivals,
        nodes: Arc::clone(&tally),
    });
    let whereabouts = api::admin::Whereabouts { url, box_key: identity.public(), tls: pin };
    let admin_context =
        api::admin::AdminContext::new(Arc::clone(&context), token, limits, Some(backups), whereabouts);
    let (stop, stopped) = tokio::sync::watch::channel(());
    let inference = tokio::spawn(api::serve_inference(front.listener, context, closed(stopped.clone())));
    let admin = tokio::spawn(api::admin::serve(admin, admin_context, closed(stopped.clone())));
    let timeouts = node_timeouts(&config.limits);
    let parts = nodes::NodesParts { gate, door: door.clone(), catalog, identity, timeouts, tally };
    let sessions = tokio::spawn(nodes::serve(arriving, parts, stopped));
    data_dir.publish_listen_addr(&base)?;
    data_dir.publish_admin_addr(&admin_address)?;
    announce(&base, &admin_address, &data_dir);
    closed(stop_asked).await;
    let deadline = Duration::from_millis(config.limits.drain_deadline_ms);
    let goodbyes = async move { drop(tokio::join!(inference, admin, sessions)) };
    drain_all(&door, &drain, stop, deadline, goodbyes).await;
    if let AdminListen::Unix(path) = &config.admin_listen {
        // The next start copes with one that is left.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Takes no new work, waits for what runs, and says goodbye to everyone who is connected.
async fn drain_all(
    door: &Door,
    drain: &DrainFlag,
    stop: tokio::sync::watch::Sender<()>,
    deadline: Duration,
    goodbyes: impl Future<Output = ()>,
) {
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(deadline_ms, "draining: no new work; a second signal ends at once");
    drain.raise();
    drain_core(door, deadline).await;
    drain.leave();
    drop(stop);
    if tokio::time::timeout(GOODBYE, goodbyes).await.is_err() {
        tracing::warn!("some clients had not read their answers; their connections are cut");
    }
    until_durable(door).await;
    tracing::info!("drained");
}

/// The one line on standard output says that the box is ready; everything else is log.
#[allow(clippy::print_stdout, reason = "scripts wait for this line")]
fn announce(base: &str, admin_address: &str, data_dir: &DataDir) {
    println!("switchbox ready: {base}");
    let token = data_dir.path().join("admin.token");
    tracing::info!(inference = base, admin = admin_address, admin_token = %token.display(), "ready");
}

/// Ready once the sending side is gone.
async fn closed(mut stopped: tokio::sync::watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

fn http_limits(limits: &crate::config::Limits) -> api::Limits {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    api::Limits {
        connections_max: count(limits.connections_max),
        connections_per_ip_max: count(limits.connections_per_ip_max),
        connections_per_loopback_max: count(limits.connections_per_loopback_max),
        header_read_timeout_ms: limits.header_read_timeout_ms,
        body_bytes_max: limits.body_bytes_max,
        bodies_in_flight_bytes_max: limits.bodies_bytes_max,
        body_idle_timeout_ms: limits.body_idle_timeout_ms,
        body_timeout_ms: limits.body_timeout_ms,
        client_stall_ms: limits.client_stall_ms,
        keepalive_ms: limits.keepalive_delay_ms,
        ttl_default_ms: limits.job_ttl_ms,
        namespace_queue_jobs_max: limits.namespace_queue_jobs_max,
        job_waiters_max: limits.job_waiters_max,
        ..api::Limits::default()
    }
}

fn node_timeouts(limits: &crate::config::Limits) -> nodes::Timeouts {
    nodes::Timeouts {
        handshake: Duration::from_millis(limits.node_handshake_timeout_ms),
        ping: Duration::from_millis(limits.node_ping_ms),
        silence: Duration::from_millis(limits.node_silence_ms),
    }
}

/// The ways into a core that runs.
struct Started {
    door: Door,
    gate: Gate,
}

/// The core with its driver, its committer, its local node and its tick.
fn start_core(
    recovered: Recovered,
    catalog: Arc<Catalog>,
    limits: &crate::config::Limits,
) -> Result<Started, ServeError> {
    let Recovered { store, core, effects, clock } = recovered;
    let commits = Arc::new(Commits::default());
    let committer = Driver::durable_committer(&store, &commits)
        .map_err(|error| ServeError::System { what: "the committer's thread", error })?;
    let archive = Archive::durable(store.clone(), limits.stored_bytes_max)
        .map_err(|error| ServeError::System { what: "the reading thread", error })?;
    let mut driver = Driver::new(core, clock, committer);
    driver.watch(store);
    driver.begin(effects);
    let gauges = driver.gauges();
    let room = DoorRoom::default();
    // Room for the answers of as many assignments again as there are slots: those that overstayed a stop.
    let slots = 2 * catalog.slots() as usize;
    let tick_hello_and_offers = 3;
    let sessions_max = usize::try_from(limits.node_sessions_max).unwrap_or(usize::MAX);
    let capacity = room.clients_max
        + room.request_events_max
        + slots * EVENTS_PER_SLOT
        + Gate::events_max(sessions_max)
        + tick_hello_and_offers;
    let attempts = driver.attempts();
    let sender = Sender::new(capacity, driver);
    tokio::spawn(sender.clone().drain_parked());
    let releasing = Arc::clone(&commits);
    tokio::spawn(async move { releasing.release().await });
    let outbox = Outbox::new();
    let node = LocalNode::new(Arc::clone(&outbox), Arc::clone(&commits), Arc::clone(&catalog), clock);
    tokio::spawn(node.run());
    let hello = NodeHello { slots: catalog.slots(), ..NodeHello::local(catalog.offers()) };
    let session = hello.session;
    let link = NodeLink::Local { outbox, room: SlotRoom::new(slots, sender.clone()) };
    sender.push(Envelope {
        event: Event::NodeConnected(Box::new(hello)),
        attach: Attach::Node(NodeId::local(), link),
        permit: None,
    });
    tokio::spawn(tick(sender.clone()));
    tokio::spawn(offer_anew(sender.clone(), catalog, session));
    let (sessions, waits) = (sender.clone(), Arc::clone(&commits));
    let gate = Gate::new(GateParts { sender: sessions, commits: waits, attempts, sessions_max, clock });
    let door = Door::new(DoorParts { sender, commits, archive, driver: gauges, room });
    Ok(Started { door, gate })
}

async fn tick(sender: Sender) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let room = crate::queue::Room::new(1);
    loop {
        interval.tick().await;
        // One that is still pending stands for this one too.
        if let Some(permit) = room.take() {
            sender.push(Envelope { event: Event::Tick, attach: Attach::Nothing, permit: Some(permit) });
        }
    }
}

/// Tells the core whenever the local node serves other models than it did, or some of them can't run for a while.
async fn offer_anew(sender: Sender, catalog: Arc<Catalog>, session: Session) {
    let room = crate::queue::Room::new(1);
    loop {
        catalog.changed().await;
        // What is pushed must be the newest: it waits until what was pushed before has been stepped.
        let permit = loop {
            match room.take() {
                Some(permit) => break permit,
                None => tokio::time::sleep(TICK).await,
            }
        };
        let offers = Offers { node: NodeId::local(), session, models: catalog.offers(), equipment: None };
        let event = Event::Offers(Box::new(offers));
        sender.push(Envelope { event, attach: Attach::Nothing, permit: Some(permit) });
    }
}

fn access(config: &Config, data_dir: &DataDir) -> Result<Access, ServeError> {
    if config.http.auth == Auth::None {
        return Ok(Access::local());
    }
    let pepper = data_dir.pepper()?;
    let key = match data_dir.first_key()? {
        FirstKey::Kept(key) => key,
        FirstKey::Created(key) => {
            // Shown once, on purpose, and not through the log.
            eprintln!(
                "switchbox: the API key is {} (kept in {}/api.key)",
                key.text(),
                data_dir.path().display()
            );
            key
        }
    };
    let grant = Grant::whole(Namespace::default_namespace(), Environment::Mainnet);
    let first = KeyRecord::of_key(&key, &pepper, grant);
    Ok(Access::kept(&pepper, first, data_dir.keys_file()?)?)
}

/// Lets in no new work, and waits until nobody waits on a connection and nothing runs. At the deadline what can't
/// outlive the process is ended; the rest waits for the next start.
async fn drain_core(door: &Door, deadline: Duration) {
    let emptied = until_empty(door, Question::WindDown);
    if tokio::time::timeout(deadline, emptied).await.is_err() {
        tracing::warn!(
            "the drain's deadline passed: open requests are ended, other jobs wait for the next start"
        );
        let ended = until_empty(door, Question::EndService);
        if tokio::time::timeout(GOODBYE, ended).await.is_err() {
            tracing::warn!("some attempts did not stop in time");
        }
    }
}

/// Waits until everything that was decided is on disk: nothing rests on it, but the next start knows more.
async fn until_durable(door: &Door) {
    let Ok(mut session) = door.open() else { return };
    let last = door.gauges().last_lsn;
    if tokio::time::timeout(GOODBYE, session.committed(last)).await.is_err() {
        tracing::warn!("the disk did not take the last rows in time");
    }
}

async fn until_empty(door: &Door, question: Question) {
    loop {
        if left_after(door, question.clone()).await == Some(0) {
            return;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// Asks, and says how many jobs are to be waited for; `None` when there was no room to ask.
fn left_after(door: &Door, question: Question) -> impl Future<Output = Option<u64>> + use<> {
    let session = door.open();
    async move {
        let mut session = session.ok()?;
        session.ask(question).ok()?;
        let answer = session.next().await;
        session.served();
        match answer {
            ClientMessage::Answer(answer) => match *answer {
                Answer::Draining { left } => Some(left),
                _ => None,
            },
            _ => None,
        }
    }
}
