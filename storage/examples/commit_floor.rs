//! What a durable commit costs above its floor, and how long a start takes.
//!
//! `cargo run --release -p switchbox-storage --example commit_floor -- commits DIR [SECONDS]`: commits at 1, 8, 64 and
//! 256 waiters, beside a bare loop that appends the same bytes to a preallocated file and `fdatasync`s them, in turns.
//! Two floors: *bare* has no second thread; *handed* hands the bytes to a committing thread as the store does.
//! `... -- restart DIR ROWS`: a start on so many rows. DIR must be on the disk to measure.
#![expect(clippy::print_stdout, reason = "it prints its results")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use switchbox_storage::{
    Change, Codec, Committer, CommitterOptions, Group, Load, Rows, Store, StoreOptions, Urgency,
};

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
    fn encode(&self, (number, _): &Change<u64, ()>, rows: &mut Rows) {
        let key = |table: u8| [&[table][..], &number.to_be_bytes()].concat();
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

fn commits(dir: &Path, time: Duration) {
    let mut floor = FloorFile::new(dir);
    let (store, opened) = Store::open(&dir.join("store"), StoreOptions::default()).expect("opens");
    let (acknowledge, durable) = mpsc::channel();
    let send = move |lsn| acknowledge.send(lsn).expect("it listens");
    let committer = Committer::start_durable(store.clone(), Steps, CommitterOptions::default(), send);
    let committer = committer.expect("a thread");
    let mut first = opened.lsn + 1;
    println!("waiters  what     p50 us   p99 us  commits/s    p50 x bare  x handed   rate x handed");
    for waiters in [1, 8, 64, 256] {
        let mut runs = [Run::default(), Run::default(), Run::default()];
        for _ in 0..3 {
            runs[0].add(bare(&mut floor, waiters, time / 3));
            runs[1].add(handed(&mut floor, waiters, time / 3));
            let run = drive(waiters, time / 3, &durable, first, |lsn| {
                committer.append(Group { lsn, at: 0, changes: vec![(lsn % KEYS, Some(()))] }, Urgency::Urgent);
            });
            first += run.micros.len() as u64;
            runs[2].add(run);
        }
        let (bare_p50, handed_p50) = (runs[0].at(0.5), runs[1].at(0.5));
        let handed_rate = runs[1].per_second();
        for (what, mut run) in ["bare", "handed", "store"].into_iter().zip(runs) {
            let (p50, p99, rate) = (run.at(0.5), run.at(0.99), run.per_second());
            println!(
                "{waiters:>7}  {what:<7} {p50:>7.0}  {p99:>7.0}  {rate:>9.0}    {:>10.2}  {:>8.2}  {:>14.2}",
                p50 / bare_p50,
                p50 / handed_p50,
                rate / handed_rate
            );
        }
    }
    println!("{:?}", store.gauges());
}

fn restart(dir: &Path, rows: u64) {
    let dir = dir.join("restart");
    let began = Instant::now();
    let (store, opened) = Store::open(&dir, StoreOptions::default()).expect("opens");
    println!("first open {:.2} s, {:?}", began.elapsed().as_secs_f64(), opened.origin);
    let committer = Committer::start_durable(store.clone(), Steps, CommitterOptions::default(), |_| ());
    let committer = committer.expect("a thread");
    let began = Instant::now();
    for lsn in opened.lsn + 1..=opened.lsn + rows {
        while committer.backlog_bytes() > 32 << 20 || store.room() != switchbox_storage::Room::Open {
            std::thread::sleep(Duration::from_millis(1));
        }
        committer.append(Group { lsn, at: 0, changes: vec![(lsn, Some(()))] }, Urgency::Urgent);
    }
    drop(committer);
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    println!("{rows} steps of 3 rows and 1 KiB of payload: {rate:.0}/s; {:?}", store.gauges());
    drop(store);
    for _ in 0..3 {
        let began = Instant::now();
        let mut loaded = 0u64;
        let (store, opened) = Store::open_and_load(&dir, StoreOptions::default(), |load| match load {
            Load::Again | Load::Rebuilt(_) => loaded = 0,
            Load::Row(..) => loaded += 1,
        })
        .expect("opens");
        println!(
            "open {:.2} s with {loaded} rows loaded, {:?}",
            began.elapsed().as_secs_f64(),
            opened.origin
        );
        drop(store);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"));
    println!("{}", memory.collect::<Vec<_>>().join("; "));
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, or: u64| args.get(at).map_or(or, |text| text.parse().expect("a number"));
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("commits"), Some(dir)) => commits(Path::new(dir), Duration::from_secs(number(3, 6))),
        (Some("restart"), Some(dir)) => restart(Path::new(dir), number(3, 1_000_000)),
        _ => println!("usage: commit_floor commits DIR [SECONDS] | restart DIR [ROWS]"),
    }
}
