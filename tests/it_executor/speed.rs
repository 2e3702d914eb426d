//! Prints speeds, by the clock and by the time that the threads really computed (which other programs on the
//! machine change less). Fails only where something is out of all proportion. For numbers worth quoting:
//! `cargo test --release --test it_executor speed -- --nocapture --test-threads=1`.

use std::time::Instant;

use switchbox::executor::{Forward, Numerics, Rows, Wanted};

use crate::model;

/// Tokens of a prompt in one step.
const CHUNK: usize = 64;

/// Seconds that all threads of this process have computed.
fn computed() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    tasks.filter_map(nanos).sum::<u64>() as f64 / 1e9
}

/// Runs `steps` steps of `tokens` tokens each, and prints their speed: by the clock, in the best step (what an
/// idle machine would do), and per time that a thread computed.
fn measure(name: &str, threads: usize, steps: usize, tokens: usize, mut step: impl FnMut(usize)) {
    let (clock, cpu, mut best) = (Instant::now(), computed(), f64::MAX);
    for n in 0..steps {
        let start = Instant::now();
        step(n);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let all = (steps * tokens) as f64;
    let (clock, per_thread) = (clock.elapsed().as_secs_f64(), (computed() - cpu) / threads as f64);
    println!(
        "{name}, {threads} threads: {:.0} tok/s by the clock, {:.0} in the best step, {:.0} while computing",
        all / clock,
        tokens as f64 / best,
        all / per_thread
    );
    assert!(all / clock > 1.0);
}

#[test]
fn speed() {
    let start = Instant::now();
    let model = model();
    println!("open, from memory: {:?}", start.elapsed());
    // Without optimisation the numbers mean little: only that it runs.
    let (len, decoded) = if cfg!(debug_assertions) { (CHUNK, 16) } else { (8 * CHUNK, 128) };
    let prompt: Vec<u32> = (0..len as u32).map(|n| 1000 + n * 37 % 20_000).collect();
    for threads in [1, 2] {
        let mut forward = Forward::new(Numerics::Auto.arithmetic(), threads).unwrap();
        let mut kv = model.kv_cache();
        measure(&format!("prefill of {len}"), threads, len / CHUNK, CHUNK, |n| {
            let tokens = &prompt[n * CHUNK..(n + 1) * CHUNK];
            forward.run(&model, &mut [Rows { tokens, kv: &mut kv, wanted: Wanted::None }]);
        });
        for streams in [1, 8, 16] {
            let mut caches: Vec<_> = (0..streams).map(|_| model.kv_cache()).collect();
            for kv in &mut caches {
                forward.run(&model, &mut [Rows { tokens: &prompt[..32], kv, wanted: Wanted::None }]);
            }
            measure(&format!("decode of {streams} streams"), threads, decoded / streams, streams, |n| {
                let rows = |kv| Rows { tokens: &prompt[n..n + 1], kv, wanted: Wanted::Last };
                forward.run(&model, &mut caches.iter_mut().map(rows).collect::<Vec<_>>());
            });
        }
    }
}
