//! A server, as far as it is known: whether it is up, and what it lists. Looked at again and again, more often while it
//! is down; while it is, its models have no slots, so that their jobs wait.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::list::Listed;
use super::probe::{self, Look};
use crate::runtime::Catalog;
use crate::secrets::ServerKey;
use crate::sync::lock;
use crate::url::BaseUrl;

/// Between two looks at a server that is well.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// From one look at a server that is down to the next; doubled each time.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The longest of these.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);
/// From a look that may have been bad luck to the one that decides.
const LOOK_TWICE: Duration = Duration::from_secs(1);
/// How long a busy server is left alone that doesn't say itself.
const REST: Duration = Duration::from_secs(1);
/// Models that something was said about, once each.
const TOLD_MAX: usize = 1_024;

/// How long is waited for a server.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub idle: Duration,
}

/// Whether a server is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// Nobody has looked yet.
    Unknown,
    /// It answers.
    Up,
    /// It doesn't.
    Down,
}

/// An OpenAI-compatible server.
pub struct Server {
    url: BaseUrl,
    key: Option<ServerKey>,
    patience: Patience,
    health: watch::Sender<Health>,
    /// What it listed last; `None` while it never did.
    listed: Mutex<Option<Arc<[Listed]>>>,
    /// Not looked at before this, because it asked to be left alone.
    rests_until: Mutex<Option<Instant>>,
    look_now: Notify,
    told: Mutex<BTreeSet<String>>,
    failures: AtomicU64,
    estimates: AtomicU64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.url)
    }
}

impl Server {
    /// A server that nobody has looked at yet.
    pub fn new(url: BaseUrl, key: Option<ServerKey>, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            url,
            key,
            patience,
            health: watch::Sender::new(Health::Unknown),
            listed: Mutex::default(),
            rests_until: Mutex::default(),
            look_now: Notify::new(),
            told: Mutex::default(),
            failures: AtomicU64::new(0),
            estimates: AtomicU64::new(0),
        })
    }

    /// Where it is.
    pub fn url(&self) -> &BaseUrl {
        &self.url
    }

    pub(super) fn key(&self) -> Option<&ServerKey> {
        self.key.as_ref()
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// Whether it answers.
    pub fn is_up(&self) -> bool {
        *self.health.borrow() == Health::Up
    }

    /// Requests that it failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Answers whose tokens it didn't state.
    pub fn estimates(&self) -> u64 {
        self.estimates.load(Ordering::Relaxed)
    }

    /// What it listed last; `None` while it never did.
    pub(in crate::runtime) fn listed(&self) -> Option<Arc<[Listed]>> {
        lock(&self.listed).clone()
    }

    /// Says something about one of its models, if it wasn't said before.
    pub(in crate::runtime) fn tell_once(&self, model: &str, what: &str) {
        let mut told = lock(&self.told);
        if told.len() < TOLD_MAX && told.insert(model.to_owned()) {
            tracing::warn!(model, server = %self.url, "this model of the server isn't served: {what}");
        }
    }

    /// Ready once somebody has looked at it.
    pub async fn looked_at(&self) {
        // The sender lives as long as this.
        let _ = self.health.subscribe().wait_for(|health| *health != Health::Unknown).await;
    }

    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_estimate(&self) {
        self.estimates.fetch_add(1, Ordering::Relaxed);
    }

    /// A request found it down: nothing more starts there until a look finds it well.
    pub(super) fn found_down(&self, why: &dyn fmt::Display) {
        self.set(Health::Down, Some(why));
        self.look_now.notify_one();
    }

    /// A request found it busy: it is left alone for a while.
    pub(super) fn found_busy(&self, retry_after: Option<Duration>) {
        let rest = retry_after.unwrap_or(REST);
        *lock(&self.rests_until) = Some(Instant::now() + rest);
        self.found_down(&format_args!("it is busy, and left alone for {} ms", rest.as_millis()));
    }

    /// A request makes one doubt that it is well: it is looked at now.
    pub(super) fn doubt(&self) {
        self.look_now.notify_one();
    }

    /// Sets its health, and says so if that is news. Says whether it is.
    fn set(&self, health: Health, why: Option<&dyn fmt::Display>) -> bool {
        let before = self.health.send_replace(health);
        let is_news = before != health;
        match (is_news, health, why) {
            (true, Health::Up, _) => tracing::info!(server = %self.url, "the server is up"),
            (true, _, Some(why)) => {
                tracing::warn!(server = %self.url, "jobs of the server's models wait: {why}");
            }
            _ => {}
        }
        is_news
    }

    /// Looks at it for ever, and tells the catalog what changes.
    pub async fn watch(self: Arc<Self>, catalog: Arc<Catalog>) {
        let (mut again, mut misses, mut at) = (LOOK_AGAIN, 0, Look::Health);
        loop {
            // What a request found is news that nobody was told of yet.
            let was_up = self.is_up();
            if !was_up {
                catalog.update(&self);
            }
            let rest = *lock(&self.rests_until);
            if let Some(until) = rest.filter(|until| *until > Instant::now()) {
                tokio::time::sleep_until(until).await;
            }
            let wait = match probe::look(&self, at).await {
                Ok(listed) => {
                    (again, misses, at) = (LOOK_AGAIN, 0, Look::List);
                    let lists_anew = self.take_list(listed);
                    if self.set(Health::Up, None) || lists_anew {
                        catalog.update(&self);
                    }
                    LOOK_EVERY
                }
                Err(trouble) if was_up && misses == 0 && !trouble.is_certain() => {
                    (misses, at) = (1, Look::Health);
                    LOOK_TWICE
                }
                Err(trouble) => {
                    at = Look::Health;
                    self.set(Health::Down, Some(&trouble));
                    catalog.update(&self);
                    let wait = again;
                    again = (again * 2).min(LOOK_AGAIN_MAX);
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.look_now.notified(), if self.is_up() || wait == LOOK_EVERY => at = Look::Health,
            }
        }
    }

    /// Takes over a list. Says whether it is another than before.
    fn take_list(&self, listed: Option<Vec<Listed>>) -> bool {
        let listed: Option<Arc<[Listed]>> = listed.map(Into::into);
        let mut kept = lock(&self.listed);
        if *kept == listed {
            return false;
        }
        *kept = listed;
        true
    }
}
