//! Starts on a directory that was there.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use switchbox_storage::{Committer, CommitterOptions, Group, Room, Urgency};

use super::*;
use crate::coordinator::effect::Row;
use crate::coordinator::event::{
    ClientGone, Departure, Endpoint, Environment, Event, JobSpec, Mode, ModelOffer, NodeHello, Submission,
};
use crate::coordinator::ledger::{Account, Balance, Owner};
use crate::credits::Credits;
use crate::ids::{ClientId, Namespace};
use crate::persist::RowCodec;
use crate::rows::{RowKey, RowValue, changes_of};
use crate::time::Span;

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rebuilt(dir: &Path, accept: AheadClock) -> Result<Recovered, ServeError> {
    let options = StoreOptions { disk_reserve_bytes: 0, ..store_options(&Limits::default(), accept) };
    rebuild(dir, options, (many(), Durability::Strict, [7; 32]), |_| ())
}

fn years_ahead() -> u64 {
    4_000_000_000_000
}

#[test]
fn a_clock_that_was_accepted_once_stays_so_and_box_time_goes_on() {
    let dir = Dir(std::env::temp_dir().join(format!("switchbox-recovery-clock-{}", std::process::id())));
    let _ = fs::remove_dir_all(&dir.0);
    let far = Time(Span::from_ms(years_ahead()).0);
    let wrong = StoreOptions {
        disk_reserve_bytes: 0,
        wall_ms: years_ahead,
        ..store_options(&Limits::default(), AheadClock::Refuse)
    };
    let (store, _) = Store::open(&dir.0, wrong).expect("a new directory");
    let committer = Committer::start_durable(store, RowCodec, CommitterOptions::default(), |_| ());
    let account = Account { environment: Environment::Mainnet, owner: Owner::Fee };
    let (balance, folded) = (Credits(0), Some(Credits(0)));
    let balance = Row::Balance(Balance { account: account.clone(), balance, folded });
    let changes = vec![(RowKey::Balance(account), Some(RowValue::Row(balance)))];
    committer.expect("a thread").append(Group { lsn: 1, at: far.0, changes }, Urgency::Lazy);

    let refused = rebuilt(&dir.0, AheadClock::Refuse).err();
    assert!(matches!(refused, Some(ServeError::ClockBehind { minutes }) if minutes > 600), "{refused:?}");
    for accept in [AheadClock::Accept, AheadClock::Refuse, AheadClock::Refuse] {
        let recovered = rebuilt(&dir.0, accept).expect("accepted once");
        assert!(recovered.core.now() >= far && recovered.clock.now() >= recovered.core.now());
    }
}

/// `cargo test --release --lib serve::recovery::tests::a_million -- --ignored --nocapture`, with `JOBS` jobs where given.
#[test]
#[ignore = "minutes, and a figure rather than a verdict"]
fn a_million_queued_jobs_are_back() {
    let jobs: u64 = std::env::var("JOBS").map_or(1_000_000, |jobs| jobs.parse().expect("a number"));
    let dir = Dir(std::env::temp_dir().join(format!("switchbox-recovery-jobs-{}", std::process::id())));
    let _ = fs::remove_dir_all(&dir.0);
    queue_jobs(&dir.0, jobs);
    for _ in 0..3 {
        let began = Instant::now();
        let recovered = rebuilt(&dir.0, AheadClock::Refuse).expect("starts");
        let live = recovered.core.counts().jobs_queued;
        eprintln!("{live} jobs are back after {:.2} s", began.elapsed().as_secs_f64());
        assert_eq!(live, jobs);
    }
}

fn many() -> CoreLimits {
    let most = 10_000_000;
    CoreLimits {
        queue_jobs_max: most,
        namespace_queue_jobs_max: most,
        queue_bytes_max: 4 << 30,
        ..CoreLimits::default()
    }
}

/// Fills a store as a box without slots does that takes in polling jobs.
fn queue_jobs(dir: &Path, jobs: u64) {
    let options =
        StoreOptions { disk_reserve_bytes: 0, ..store_options(&Limits::default(), AheadClock::Refuse) };
    let (store, opened) = Store::open(dir, options).expect("a new directory");
    let committer = Committer::start_durable(store.clone(), RowCodec, CommitterOptions::default(), |_| ());
    let committer = committer.expect("a thread");
    let (epoch, clock) = (opened.epoch as u32, Clock::start());
    let boot = Boot { epoch, secret: [7; 32], lsn: Lsn(opened.lsn), at: clock.now() };
    let mut core = Coordinator::new(boot, many(), Durability::Strict);
    let mut effects = Vec::new();
    let offers = vec![ModelOffer::warm("echo".into(), 0)];
    core.step(clock.now(), Event::NodeConnected(Box::new(NodeHello::local(offers))), &mut effects);
    for number in 0..jobs {
        let spec = JobSpec {
            mode: Mode::Polling,
            ttl: Span::from_secs(86_400),
            input_tokens: 200,
            output_tokens_max: 100,
            ..JobSpec::plain(Namespace::default_namespace(), Endpoint::ChatCompletions, "echo".into())
        };
        let submission = Submission::new(spec, vec![b'x'; 700].into());
        core.step(clock.now(), Event::Submit(ClientId(number), Box::new(submission)), &mut effects);
        let mut changes = Vec::new();
        for effect in effects.drain(..) {
            if let Effect::Row(row) = effect {
                changes_of(row, &mut changes);
            }
        }
        let gone = ClientGone { client: ClientId(number), departure: Departure::Served };
        core.step(clock.now(), Event::ClientGone(gone), &mut effects);
        assert!(effects.iter().all(|effect| !matches!(effect, Effect::Row(_))));
        committer.append(Group { lsn: core.lsn().0, at: core.now().0, changes }, Urgency::Lazy);
        while committer.backlog_bytes() > 16 << 20 || store.room() != Room::Open {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
