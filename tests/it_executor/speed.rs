//! Prints speeds, by the clock and by the time that the threads really computed (which other programs on the
//! machine change less). Fails only where something is out of all proportion. For numbers worth quoting:
//! `cargo test --release --test it_executor speed -- --nocapture --test-threads=1`.

use std::time::Instant;

use switchbox::executor::{Forward, Numerics, Rows, Wanted};

use crate::model;

/// Seconds that all threads of this process have computed.
fn computed() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    tasks.filter_map(nanos).sum::<u64>() as f64 / 1e9
}

/// Runs `task`, which handles `tokens` tokens, and prints its speed.
fn measure(name: &str, threads: usize, tokens: usize, mut task: impl FnMut()) {
    let (clock, cpu) = (Instant::now(), computed());
    task();
    let (clock, cpu) = (clock.elapsed().as_secs_f64(), computed() - cpu);
    let per_thread = cpu / threads as f64;
    println!(
        "{name}, {threads} threads: {:.0} tok/s by the clock, {:.0} while computing",
        tokens as f64 / clock,
        tokens as f64 / per_thread
    );
    assert!(tokens as f64 / clock > 1.0);
}

#[test]
fn speed() {
    let start = Instant::now();
    let model = model();
    println!("open, from memory: {:?}", start.elapsed());
    // Without optimisation the numbers mean little: only that it runs.
    let (len, decoded) = if cfg!(debug_assertions) { (64, 16) } else { (512, 128) };
    let prompt: Vec<u32> = (0..len).map(|n| 1000 + n * 37 % 20_000).collect();
    for threads in [1, 2] {
        let mut forward = Forward::new(Numerics::Auto.arithmetic(), threads).unwrap();
        let mut kv = model.kv_cache();
        measure(&format!("prefill of {len}"), threads, prompt.len(), || {
            for chunk in prompt.chunks(64) {
                forward.run(&model, &mut [Rows { tokens: chunk, kv: &mut kv, wanted: Wanted::None }]);
            }
        });
        for streams in [1, 8, 16] {
            let mut caches: Vec<_> = (0..streams).map(|_| model.kv_cache()).collect();
            for kv in &mut caches {
                forward.run(&model, &mut [Rows { tokens: &prompt[..32], kv, wanted: Wanted::None }]);
            }
            let steps = decoded / streams;
            measure(&format!("decode of {streams} streams"), threads, steps * streams, || {
                for n in 0..steps {
                    let rows = |kv| Rows { tokens: &prompt[n..n + 1], kv, wanted: Wanted::Last };
                    forward.run(&model, &mut caches.iter_mut().map(rows).collect::<Vec<_>>());
                }
            });
        }
    }
}
