//! A start on a data directory: the store is opened, and the core rebuilt from its rows.
//!
//! All of it runs on a thread of its own while the listener says how far it is.
//!
//! # Box time
//!
//! The box's own time goes on from the last durable step's, whatever the wall clock does, and never below the core's:
//! with a clock behind its rows the core's time would stand still. The wall clock is compared only with what it said
//! itself when the newest group was written. `--accept-clock` accepts it for good, so it is needed once; box time then
//! stays ahead of the wall clock by as much as it ever was.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use switchbox_storage::{JournalOptions, Opened, Origin, Store, StoreOptions};

use super::ServeError;
use crate::api::Progress;
use crate::clock::Clock;
use crate::config::{AheadClock, Config, Limits};
use crate::coordinator::effect::Effect;
use crate::coordinator::event::Durability;
use crate::coordinator::limits::Limits as CoreLimits;
use crate::coordinator::{Boot, Coordinator};
use crate::datadir::{self, DataDir};
use crate::ids::Lsn;
use crate::persist::{self, Loaded, Loader};
use crate::time::Time;

/// How far the wall clock may be behind what it said when the newest group was written: more than that, and it is wrong
/// now or was wrong then.
const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(600);

/// Of a segment, beside the largest body and answer.
const SEGMENT_SPARE_BYTES: u64 = 16 << 20;
const SEGMENT_BYTES_MULTIPLE: u64 = 4 << 10;
/// The largest segment.
const SEGMENT_BYTES_MAX: u64 = (4 << 30) - SEGMENT_BYTES_MULTIPLE;

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
    let dir = data_dir.path().join(datadir::STORE);
    let options = store_options(&config.limits, config.accept_clock);
    let work = move || {
        let report = |loaded| tell_loaded(&progress, loaded);
        rebuild(&dir, options, (limits, durability, secret), report)
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

/// All of a start that isn't about how it is run.
fn rebuild(
    dir: &Path,
    options: StoreOptions,
    (limits, durability, secret): (CoreLimits, Durability, [u8; 32]),
    report: impl FnMut(Loaded),
) -> Result<Recovered, ServeError> {
    let mut loader = Loader::new(report);
    let (store, opened) = Store::open_and_load(dir, options, |load| loader.take(load))?;
    tell_opened(&opened);
    let rows = loader.finish(&store)?;
    let epoch = u32::try_from(opened.epoch).map_err(|_| ServeError::EpochSpent)?;
    let at = Clock::start_at_least(Time(opened.at)).now();
    let boot = Boot { epoch, secret, lsn: Lsn(opened.lsn), at };
    let mut effects = Vec::new();
    let core = Coordinator::recover(boot, limits, durability, rows, &mut effects);
    let clock = Clock::start_at_least(core.now());
    Ok(Recovered { store, core, effects, clock })
}

/// The store's options, so that a job's largest body, or its largest answer, fits into an ordinary segment.
fn store_options(limits: &Limits, accept: AheadClock) -> StoreOptions {
    let defaults = StoreOptions::default();
    let largest = limits.body_bytes_max + limits.output_bytes_max;
    let needed = (2 * largest + SEGMENT_SPARE_BYTES).next_multiple_of(SEGMENT_BYTES_MULTIPLE);
    let segment_bytes = defaults.journal.segment_bytes.max(needed.min(SEGMENT_BYTES_MAX));
    let options = StoreOptions {
        audit: persist::audit,
        disk_reserve_bytes: limits.disk_reserve_bytes,
        journal: JournalOptions { segment_bytes, ..defaults.journal },
        clock_behind_max: (accept == AheadClock::Refuse).then_some(CLOCK_BEHIND_MAX),
        ..defaults
    };
    shrunk(options)
}

/// With `SWITCHBOX_SMALL_STORE` set, a store that rolls, checkpoints, snapshots and trims within seconds, for the
/// torture rig.
#[cfg(feature = "mutants")]
fn shrunk(options: StoreOptions) -> StoreOptions {
    if std::env::var_os("SWITCHBOX_SMALL_STORE").is_none() {
        return options;
    }
    StoreOptions {
        journal: JournalOptions { segment_bytes: 1 << 20, group_bytes: 128 << 10, ..options.journal },
        checkpoint_bytes: 64 << 10,
        checkpoint_every: std::time::Duration::from_millis(50),
        snapshot_journal_bytes: 1 << 20,
        ..options
    }
}

/// The store as it was asked for.
#[cfg(not(feature = "mutants"))]
fn shrunk(options: StoreOptions) -> StoreOptions {
    options
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
    let ahead = Time(opened.at).since(Clock::start().now());
    if ahead.as_ms() > CLOCK_BEHIND_MAX.as_millis() as u64 {
        let minutes = ahead.as_ms() / 60_000;
        tracing::warn!(minutes, "the box's own time is ahead of this machine's clock, and stays so");
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

#[cfg(test)]
mod tests;
