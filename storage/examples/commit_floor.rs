//! What a durable commit costs above its floor, and how long a start takes.
//!
//! `cargo run --release -p switchbox-storage --example commit_floor -- commits DIR [SECONDS]`: commits at 1, 8, 64 and
//! 256 waiters, beside a bare loop that appends the same bytes to a preallocated file and `fdatasync`s them, in turns.
//! Two floors: *bare* has no second thread; *handed* hands the bytes to a committing thread as the store does, so its
//! groups are what the store's are. *store* has its ordinary options: a turn is a burst, and it may settle after each.
//! *busy* is a store that lets no burst pass: it checkpoints all the time.
//! `... -- sustained DIR [SECONDS]`: 64 waiters for long, with everything running and admission closing when it must.
//! `... -- turnover DIR [ROWS] [TIMES]`: a queue whose rows are all replaced, again and again.
//! `... -- restart DIR [ROWS]`: a start on so many rows.
//! DIR must be on the disk to measure, on a machine that does nothing else. On a busy one, `RT=1` makes the measuring
//! and the committing threads (of floors and store alike) real-time ones, by `chrt`.
#![expect(clippy::print_stdout, reason = "it prints its results")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use switchbox_storage::{
    Change, Codec, Committer, CommitterOptions, Group, Load, Opened, Room, Rows, Store, StoreOptions, Urgency,
};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a step: a row of 300 bytes, a payload of 1 KiB, an index row.
const ROW_BYTES: usize = 300;
const PAYLOAD_BYTES: usize = 1024;
const STEP_BYTES: usize = ROW_BYTES + PAYLOAD_BYTES + 80;
const BLOCK: usize = 4096;
/// Rows are overwritten after so many: the dirty rows and sled stay small.
const KEYS: u64 = 50_000;
const FLOOR_FILE_BYTES: u64 = 64 << 20;

struct Steps;

impl Codec<u64, ()> for Steps {
    fn encode(&self, (number, value): &Change<u64, ()>, rows: &mut Rows) {
        let key = |table: u8| {
            let mut key = [table; 9];
            key[1..].copy_from_slice(&number.to_be_bytes());
            key
        };
        if value.is_none() {
            (1..=3).for_each(|table| rows.delete(&key(table)));
            return;
        }
        rows.put(&key(1), &[*number as u8; ROW_BYTES]);
        rows.put_payload(&key(2), &[*number as u8; PAYLOAD_BYTES]);
        rows.put(&key(3), &[]);
    }

    fn bytes(&self, _: &Change<u64, ()>) -> usize {
        STEP_BYTES
    }
}

/// Latencies of a run.
#[derive(Default)]
struct Run {
    micros: Vec<f64>,
    seconds: f64,
}

impl Run {
    const fn new() -> Self {
        Self { micros: Vec::new(), seconds: 0.0 }
    }

    fn at(&mut self, share: f64) -> f64 {
        self.micros.sort_by(f64::total_cmp);
        let at = ((self.micros.len() - 1) as f64 * share) as usize;
        self.micros[at]
    }

    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.seconds += other.seconds;
    }

    fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.seconds
    }
}

/// Keeps `waiters` steps in flight for a time: each that is durable is followed by the next.
fn drive(waiters: usize, time: Duration, durable: &Receiver<u64>, first: u64, append: impl Fn(u64)) -> Run {
    let (mut next, mut done) = (first, first - 1);
    let mut starts = std::collections::VecDeque::new();
    let (began, mut run) = (Instant::now(), Run::default());
    let mut start = |starts: &mut std::collections::VecDeque<Instant>| {
        starts.push_back(Instant::now());
        append(next);
        next += 1;
    };
    (0..waiters).for_each(|_| start(&mut starts));
    while !starts.is_empty() {
        let upto = durable.recv().expect("a commit");
        let now = Instant::now();
        while done < upto {
            let began_at = starts.pop_front().expect("one in flight for each");
            run.micros.push((now - began_at).as_secs_f64() * 1e6);
            done += 1;
        }
        while began.elapsed() < time && starts.len() < waiters {
            start(&mut starts);
        }
    }
    run.seconds = began.elapsed().as_secs_f64();
    run
}

struct FloorFile {
    file: File,
    at: u64,
    block: Vec<u8>,
}

impl FloorFile {
    fn new(dir: &Path) -> Self {
        let path = dir.join("floor");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.expect("a file for the floor");
        let zeros = vec![0; 1 << 20];
        (0..FLOOR_FILE_BYTES)
            .step_by(zeros.len())
            .for_each(|at| file.write_all_at(&zeros, at).expect("writes"));
        file.sync_all().expect("syncs");
        Self { file, at: 0, block: Vec::new() }
    }

    fn commit(&mut self, steps: usize) {
        self.block.clear();
        self.block.resize((steps * STEP_BYTES).div_ceil(BLOCK) * BLOCK, 7);
        if self.at + self.block.len() as u64 > FLOOR_FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.block, self.at).expect("writes");
        self.file.sync_data().expect("syncs");
        self.at += self.block.len() as u64;
    }
}

/// Makes this thread, and those that it starts from now on, real-time ones, if that is wished.
fn real_time() {
    if std::env::var("RT").is_err() {
        return;
    }
    let thread = fs::read_link("/proc/thread-self").expect("a thread has a number");
    let number = thread.file_name().expect("it ends with it");
    let done = Command::new("chrt").args(["-r", "-p", "1"]).arg(number).status();
    assert!(done.expect("chrt is there").success(), "chrt needs the right to do so");
}

fn bare(floor: &mut FloorFile, waiters: usize, time: Duration) -> Run {
    let (began, mut run) = (Instant::now(), Run::default());
    while began.elapsed() < time {
        let start = Instant::now();
        floor.commit(waiters);
        let micros = start.elapsed().as_secs_f64() * 1e6;
        run.micros.extend(std::iter::repeat_n(micros, waiters));
    }
    run.seconds = began.elapsed().as_secs_f64();
    run
}

fn handed(floor: &mut FloorFile, waiters: usize, time: Duration) -> Run {
    let (send, steps): (Sender<u64>, Receiver<u64>) = mpsc::channel();
    let (acknowledge, durable) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(first) = steps.recv() {
                let all: Vec<u64> = std::iter::once(first).chain(steps.try_iter()).collect();
                floor.commit(all.len());
                acknowledge.send(*all.last().expect("one at least")).expect("it listens");
            }
        });
        let run = drive(waiters, time, &durable, 1, |step| send.send(step).expect("the thread lives"));
        drop(send);
        run
    })
}

/// A store with its committer, and who hears of commits.
struct Running {
    store: Store,
    committer: Committer<u64, ()>,
    durable: Receiver<u64>,
    next: u64,
}

impl Running {
    fn open(dir: &Path) -> Self {
        Self::on(Store::open(dir, StoreOptions::default()).expect("opens"))
    }

    /// The store's own threads aren't real-time ones, the committer's may be.
    fn on((store, opened): (Store, Opened)) -> Self {
        let (acknowledge, durable) = mpsc::channel();
        let send = move |lsn| {
            // Nobody listens any more at the end.
            let _ = acknowledge.send(lsn);
        };
        real_time();
        let committer = Committer::start_durable(store.clone(), Steps, CommitterOptions::default(), send);
        Self { store, committer: committer.expect("a thread"), durable, next: opened.lsn + 1 }
    }

    fn append(&self, lsn: u64, changes: Vec<Change<u64, ()>>) {
        self.committer.append(Group { lsn, at: lsn, changes }, Urgency::Urgent);
    }

    fn drive(&mut self, waiters: usize, time: Duration) -> Run {
        let put = |lsn| self.append(lsn, vec![(lsn % KEYS, Some(()))]);
        let run = drive(waiters, time, &self.durable, self.next, put);
        self.next += run.micros.len() as u64;
        run
    }

    /// What a burst left is put away before the next measurement.
    fn settle(&self) {
        while self.store.gauges().dirty_bytes > 8 << 20 {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.store.settle().expect("settles");
    }

    /// Appends a step once there is room, with a bounded number under way.
    fn append_with_room(&mut self, changes: Vec<Change<u64, ()>>) {
        while self.committer.backlog_bytes() > 4 << 20 || self.store.room() != Room::Open {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.append(self.next, changes);
        self.next += 1;
    }
}

fn commits(dir: &Path, time: Duration) {
    let mut floor = FloorFile::new(dir);
    // Before any thread is a real-time one.
    let busy = StoreOptions { burst_bytes: 0, ..StoreOptions::default() };
    let (busy_dir, dir) = (dir.join("busy"), dir.join("store"));
    let store = Store::open(&dir, StoreOptions::default()).expect("opens");
    let busy = Store::open(&busy_dir, busy).expect("opens");
    let (mut store, mut busy) = (Running::on(store), Running::on(busy));
    // So that rows are overwritten, and old segments are there to be used again.
    for running in [&mut store, &mut busy] {
        (0..3).for_each(|_| drop((running.drive(64, time), running.settle())));
    }
    println!(
        "waiters  what     p50 us   p99 us  commits/s    p50 x bare  x handed   rate x bare  x handed  checkpoints"
    );
    for waiters in [1, 8, 64, 256] {
        let (mut runs, mut checkpoints) = ([const { Run::new() }; 4], [0; 4]);
        for _ in 0..3 {
            runs[0].add(bare(&mut floor, waiters, time / 3));
            runs[1].add(handed(&mut floor, waiters, time / 3));
            for (at, running) in [(2, &mut store), (3, &mut busy)] {
                let before = running.store.gauges().checkpoints;
                runs[at].add(running.drive(waiters, time / 3));
                checkpoints[at] += running.store.gauges().checkpoints - before;
                running.settle();
            }
        }
        let [(bare_p50, bare_rate), (handed_p50, handed_rate)] =
            [0, 1].map(|i| (runs[i].at(0.5), runs[i].per_second()));
        let names = ["bare", "handed", "store", "busy"];
        for ((what, mut run), checkpoints) in names.into_iter().zip(runs).zip(checkpoints) {
            let (p50, p99, rate) = (run.at(0.5), run.at(0.99), run.per_second());
            println!(
                "{waiters:>7}  {what:<7} {p50:>7.0}  {p99:>7.0}  {rate:>9.0}    {:>10.2}  {:>8.2}   {:>11.2}  {:>8.2}  {checkpoints:>11}",
                p50 / bare_p50,
                p50 / handed_p50,
                rate / bare_rate,
                rate / handed_rate
            );
        }
    }
    println!("{:?}", store.store.gauges());
}

fn memory_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn disk_mib(dir: &Path) -> u64 {
    let bytes = |path: &Path| -> u64 {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|file| file.len())
            .sum()
    };
    ["journal", "state", "snapshots"].iter().map(|part| bytes(&dir.join(part))).sum::<u64>() >> 20
}

/// 64 waiters; those that find no room wait for it.
fn sustained(dir: &Path, time: Duration) {
    let dir = dir.join("sustained");
    let mut running = Running::open(&dir);
    let (began, mut at, mut steps, mut throttled) = (Instant::now(), Instant::now(), 0, Duration::ZERO);
    while began.elapsed() < time {
        if running.store.room() != Room::Open {
            let closed = Instant::now();
            while running.store.room() != Room::Open {
                std::thread::sleep(Duration::from_millis(1));
            }
            throttled += closed.elapsed();
        }
        steps += running.drive(64, Duration::from_millis(50)).micros.len();
        if at.elapsed() >= time / 10 {
            let rate = steps as f64 / at.elapsed().as_secs_f64();
            let (memory, disk) = (memory_mib(), disk_mib(&dir));
            println!(
                "{rate:>8.0} commits/s, admission closed {throttled:.1?}, memory {memory} MiB, disk {disk} MiB"
            );
            (at, steps, throttled) = (Instant::now(), 0, Duration::ZERO);
        }
    }
    println!("{:?}", running.store.gauges());
}

/// `rows` jobs are in the queue; each step takes the oldest out and puts a new one in.
fn turnover(dir: &Path, rows: u64, times: u64) {
    let dir = dir.join("turnover");
    let mut running = Running::open(&dir);
    let live_mib = (rows * STEP_BYTES as u64) >> 20;
    let (mut second, mut worst) = (0, 0.0f64);
    for turn in 0..=times {
        let mut most = 0;
        for row in 0..rows {
            let number = turn * rows + row;
            let mut changes = vec![(number, Some(()))];
            changes.extend((turn > 0).then(|| (number - rows, None)));
            running.append_with_room(changes);
            if row % (rows / 20).max(1) == 0 {
                most = disk_mib(&dir).max(most);
            }
        }
        // As full as it gets on the way; the memory afterwards, when what was dirty is in the state store.
        let busy = memory_mib();
        while running.store.gauges().dirty_bytes > 8 << 20 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (memory, snapshots) = (memory_mib(), disk_mib_of_snapshots(&dir));
        let allowed = 4 * live_mib + snapshots + 1024;
        println!(
            "turn {turn}: disk at most {most} MiB (allowed {allowed}), memory {memory} MiB ({busy} before it was checkpointed), {:?}",
            running.store.trouble()
        );
        assert!(most <= allowed, "the disk grows");
        second = if turn == 2 { memory } else { second };
        worst = if turn >= 2 { worst.max(memory as f64 / second as f64) } else { worst };
    }
    println!("live data {live_mib} MiB; memory at most {worst:.2} x that of the 2nd turnover");
    println!("{:?}", running.store.gauges());
    assert!(worst <= 1.3, "memory grows");
}

fn disk_mib_of_snapshots(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("snapshots")).into_iter().flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum::<u64>() >> 20
}

fn restart(dir: &Path, rows: u64) {
    let dir = dir.join("restart");
    let began = Instant::now();
    let mut running = Running::open(&dir);
    println!("first open {:.2} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    for row in 0..rows {
        running.append_with_room(vec![(row, Some(()))]);
    }
    drop(running.committer);
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    println!("{rows} steps of 3 rows and 1 KiB of payload: {rate:.0}/s; {:?}", running.store.gauges());
    drop(running.store);
    for _ in 0..3 {
        let began = Instant::now();
        let mut loaded = 0u64;
        let (store, opened) = Store::open_and_load(&dir, StoreOptions::default(), |load| match load {
            Load::Again | Load::Rebuilt(_) => loaded = 0,
            Load::Row(..) => loaded += 1,
        })
        .expect("opens");
        println!(
            "open {:.2} s with {loaded} rows loaded, {:?}, memory {} MiB",
            began.elapsed().as_secs_f64(),
            opened.origin,
            memory_mib()
        );
        drop(store);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, or: u64| args.get(at).map_or(or, |text| text.parse().expect("a number"));
    let seconds = |or| Duration::from_secs(number(3, or));
    match (args.get(1).map(String::as_str), args.get(2).map(Path::new)) {
        (Some("commits"), Some(dir)) => commits(dir, seconds(6)),
        (Some("sustained"), Some(dir)) => sustained(dir, seconds(60)),
        (Some("turnover"), Some(dir)) => turnover(dir, number(3, 100_000), number(4, 10)),
        (Some("restart"), Some(dir)) => restart(dir, number(3, 1_000_000)),
        _ => println!(
            "usage: commit_floor commits|sustained DIR [SECONDS] | turnover DIR [ROWS] [TIMES] | restart DIR [ROWS]"
        ),
    }
}
