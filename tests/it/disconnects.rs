//! The disconnect storm: clients that leave while queued, in prefill, in decode and with unread output, at random
//! moments. Whatever they held must be back at the end: what leaks here poisons placement in production.

use crate::harness::chat::{self, Events};
use crate::harness::model_path;
use crate::harness::server::{Server, Setup};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const REQUESTS_DEFAULT: usize = 240;
const PHASES: [&str; 4] = ["queued", "prefill", "decode", "unread"];
/// A tenth of all requests must be seen to leave in each phase; a quarter aims at each.
const SEEN_SHARE: usize = 10;

/// `SWITCHBOX_STORM=2000` (or `scripts/storm`) for the full one.
fn requests() -> usize {
    std::env::var("SWITCHBOX_STORM").ok().and_then(|n| n.parse().ok()).unwrap_or(REQUESTS_DEFAULT)
}

/// The last model's file is added when it is known.
const CONFIG: &str = r#"
[limits]
queue_jobs_max = 10000
namespace_queue_jobs_max = 10000

[[model]]
name = "full"
spec = "echo:50"
slots = 1

[[model]]
name = "steady"
spec = "echo:5"
slots = 8

[[model]]
name = "bulk"
spec = "echo:"
slots = 8

[[model]]
name = "small"
slots = 16
"#;

/// Small random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pause(&mut self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(Duration::from_millis(from_ms + self.below(to_ms - from_ms)));
    }
}

type Leave = fn(&Server, &mut Dice);

/// How each phase is aimed at, and by how many clients at a time.
const AIMS: [(Leave, u64); 4] = [(leave_queue, 8), (leave_prefill, 4), (leave_decode, 8), (leave_unread, 6)];

/// The one slot of `full` is taken for the whole storm.
fn leave_queue(server: &Server, dice: &mut Dice) {
    let connection = chat::open(server, "full", "one two three", json!({}));
    dice.pause(30, 150);
    drop(connection);
}

fn leave_prefill(server: &Server, dice: &mut Dice) {
    let words = 600 + dice.below(600) as usize;
    let connection = chat::open(server, "small", &chat::long_prompt(words), json!({"max_tokens": 50}));
    dice.pause(50, 400);
    drop(connection);
}

fn leave_decode(server: &Server, dice: &mut Dice) {
    let model = ["steady", "steady", "steady", "small"][dice.below(4) as usize];
    let mut events =
        Events::of(chat::open(server, model, &chat::long_prompt(100), json!({"max_tokens": 200})));
    events.first_text();
    for _ in 0..dice.below(8) {
        events.next();
    }
}

/// Asks for far more than the system's socket buffers take, and reads next to nothing.
fn leave_unread(server: &Server, dice: &mut Dice) {
    let words = 20_000 + dice.below(10_000) as usize;
    let more = json!({"max_tokens": 2 * words});
    let mut connection = chat::stream(server, "bulk", &chat::long_prompt(words), more).open_narrow();
    connection.read_raw(512);
    dice.pause(50, 300);
}

fn run_clients(server: &Server, count: usize) {
    let left: Vec<AtomicUsize> = AIMS.iter().map(|_| AtomicUsize::new(count.div_ceil(AIMS.len()))).collect();
    std::thread::scope(|scope| {
        for (i, (leave, clients)) in AIMS.into_iter().enumerate() {
            for client in 0..clients {
                let left = &left[i];
                scope.spawn(move || {
                    let mut dice = Dice(0x9e37_79b9 + 1000 * i as u64 + client);
                    while take_one(left) {
                        leave(server, &mut dice);
                    }
                });
            }
        }
    });
}

fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

#[test]
fn storm() {
    let count = requests();
    let mut server = Setup::open().config(CONFIG).config(&format!("spec = \"{}\"", model_path())).start();
    let mut plug =
        Events::of(chat::open(&server, "full", &chat::long_prompt(20_000), json!({"max_tokens": 40_000})));
    plug.first_text();
    run_clients(&server, count);
    drop(plug);
    server.assert_nothing_left();
    assert!(server.alive(), "{}", server.stderr());
    check_counts(&server, count);
    for model in ["full", "steady", "bulk", "small"] {
        let answer = chat::ask(&server, model, "Are you there?", json!({"max_tokens": 4}));
        assert_eq!(answer.status, 200, "{model} after the storm: {}", answer.text());
    }
    server.assert_nothing_left();
}

fn check_counts(server: &Server, count: usize) {
    let metrics = server.metrics();
    let seen = PHASES.map(|phase| metrics.disconnects(phase));
    println!("{count} requests; clients that left: {:?}", PHASES.iter().zip(seen).collect::<Vec<_>>());
    for (phase, seen) in PHASES.iter().zip(seen) {
        assert!(seen as usize >= count / SEEN_SHARE, "only {seen} left while {phase}");
    }
    let ends = ["succeeded", "failed", "cancelled", "expired"].map(|end| metrics.finished(end));
    println!("ends of jobs (succeeded, failed, cancelled, expired): {ends:?}");
    assert_eq!(
        ends.iter().sum::<u64>(),
        metrics.total("switchbox_jobs_accepted_total"),
        "each job ended once"
    );
    assert_eq!([ends[1], ends[3]], [0, 0], "nothing failed, nothing expired");
    let most = metrics.total("switchbox_executor_steps_after_cancel_max");
    println!("most executor steps after a cancel: {most}");
    assert!(most <= 2);
}
