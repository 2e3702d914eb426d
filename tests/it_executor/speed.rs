//! Prints speeds; fails only where something is out of all proportion. For numbers worth quoting:
//! `cargo test --release --test it_executor speed -- --nocapture --test-threads=1` on an idle machine.

use std::time::Instant;

use switchbox::executor::{Forward, Numerics, Rows, Wanted};

use crate::model;

const THREADS: usize = 2;

#[test]
fn speed() {
    let model = model();
    let mut forward = Forward::new(Numerics::Auto.arithmetic(), THREADS).unwrap();
    let prompt: Vec<u32> = (0..512).map(|n| 1000 + n * 37 % 20_000).collect();
    let mut kv = model.kv_cache();
    let start = Instant::now();
    for chunk in prompt.chunks(64) {
        forward.run(&model, &mut [Rows { tokens: chunk, kv: &mut kv, wanted: Wanted::None }]);
    }
    println!("prefill {:.0} tok/s", prompt.len() as f64 / start.elapsed().as_secs_f64());
    for streams in [1, 8, 16] {
        let mut caches: Vec<_> = (0..streams).map(|_| model.kv_cache()).collect();
        for kv in &mut caches {
            forward.run(&model, &mut [Rows { tokens: &prompt[..32], kv, wanted: Wanted::None }]);
        }
        let steps = 128 / streams;
        let start = Instant::now();
        for n in 0..steps {
            let rows = |kv| Rows { tokens: &prompt[n..n + 1], kv, wanted: Wanted::Last };
            forward.run(&model, &mut caches.iter_mut().map(rows).collect::<Vec<_>>());
        }
        let rate = (steps * streams) as f64 / start.elapsed().as_secs_f64();
        println!("decode, {streams} streams: {rate:.0} tok/s");
        assert!(rate > 1.0);
    }
}
