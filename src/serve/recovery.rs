//! A start on a data directory: the store is opened, and the core rebuilt from its rows.
//!
//! All of it runs on a thread of its own while the listener says how far it is.

use std::sync::Arc;

use switchbox_storage::{Opened, Origin, Store, StoreOptions};

use super::ServeError;
use crate::api::Progress;
use crate::clock::Clock;
use crate::config::Config;
use crate::coordinator::effect::Effect;
use crate::coordinator::{Boot, Coordinator};
use crate::datadir::DataDir;
use crate::ids::Lsn;
use crate::persist::{self, Loaded};
use crate::time::{Span, Time};

/// The store's directory within the data directory.
const STORE: &str = "store";
/// How far the newest group may lie ahead of the wall clock: more than that, and either clock is wrong.
const CLOCK_AHEAD_MAX: Span = Span::from_secs(600);

/// A core as it was, and what it rests on.
pub(super) struct Recovered {
    pub(super) store: Store,
    pub(super) core: Coordinator,
    /// What recovery itself decided: to be done before anything else.
    pub(super) effects: Vec<Effect>,
    pub(super) clock: Clock,
}

/// Opens the store and rebuilds the core from it.
pub(super) async fn recover(
    config: &Config,
    data_dir: &DataDir,
    progress: Arc<Progress>,
) -> Result<Recovered, ServeError> {
    let secret = data_dir.boot_secret()?;
    let (limits, durability) = (config.core_limits(), config.durability);
    let accept_clock = config.accept_clock;
    let dir = data_dir.path().join(STORE);
    let work = move || {
        let options = StoreOptions { audit: persist::audit, ..StoreOptions::default() };
        let (store, opened) = Store::open(&dir, options)?;
        tell_opened(&opened);
        let clock = clock_from(&opened, accept_clock)?;
        let rows = persist::load(&store, |loaded| tell_loaded(&progress, loaded))?;
        let epoch = u32::try_from(opened.epoch).map_err(|_| ServeError::EpochSpent)?;
        let boot = Boot { epoch, secret, lsn: Lsn(opened.lsn), at: clock.now() };
        let mut effects = Vec::new();
        let core = Coordinator::recover(boot, limits, durability, rows, &mut effects);
        Ok(Recovered { store, core, effects, clock })
    };
    let (done, outcome) = tokio::sync::oneshot::channel();
    // Not one of the blocking pool's: those stand back behind the io thread, which has nothing to do yet.
    let thread = std::thread::Builder::new().name("recovery".into()).spawn(move || {
        // Nobody listens any more only if the process is ending.
        let _ = done.send(work());
    });
    thread.map_err(|error| ServeError::System { what: "the recovery's thread", error })?;
    let lost = || std::io::Error::other("it panicked, as the log says");
    outcome.await.unwrap_or_else(|_| Err(ServeError::System { what: "the recovery", error: lost() }))
}

/// A clock that isn't behind what was written before.
fn clock_from(opened: &Opened, accept: crate::config::AheadClock) -> Result<Clock, ServeError> {
    let wall = Clock::start();
    let written = Time(Span::from_ms(opened.written_at).0);
    let ahead = written.since(wall.started_at());
    if ahead > CLOCK_AHEAD_MAX && accept == crate::config::AheadClock::Refuse {
        return Err(ServeError::ClockBehind { minutes: ahead.as_ms() / 60_000 });
    }
    Ok(Clock::start_at_least(written))
}

fn tell_opened(opened: &Opened) {
    match &opened.origin {
        Origin::New => tracing::info!("the store is new"),
        Origin::State => tracing::info!(replayed_groups = opened.replayed_groups, "the store was opened"),
        Origin::Rebuilt { reason, from_group, moved_to } => tracing::warn!(
            %reason,
            from_group,
            moved_to = moved_to.as_ref().map(|path| path.display().to_string()),
            replayed_groups = opened.replayed_groups,
            "the state was rebuilt from snapshot and journal"
        ),
    }
    if let Some(torn) = &opened.torn_tail {
        tracing::warn!(?torn, "the last group was torn, as by a crash: it had not been acknowledged");
    }
}

fn tell_loaded(progress: &Progress, loaded: Loaded) {
    progress.advance(loaded.rows);
    let Loaded { rows, live_jobs, bodies_lost } = loaded;
    tracing::info!(rows, live_jobs, bodies_lost, "recovering");
}
