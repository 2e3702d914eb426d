//! The central cases under criterion: steps of a saturated world, by size.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use switchbox_scale::{Rig, Shape, Size, Timed};

const SIZES: [Size; 2] = [
    Size { nodes: 100, jobs: 10_000, lanes: 50, namespaces: 1_000 },
    Size { nodes: 10_000, jobs: 1_000_000, lanes: 50, namespaces: 1_000 },
];

/// Does a round of what goes on in a saturated world, and says what one step of it took.
type Round = fn(&mut Rig) -> Timed;

fn end_and_place(rig: &mut Rig) -> Timed {
    let timed = rig.complete_any();
    rig.accept_newest();
    rig.leave();
    let submission = rig.submission();
    rig.submit(submission);
    timed
}

fn submit(rig: &mut Rig) -> Timed {
    let submission = rig.submission();
    let timed = rig.submit(submission);
    rig.complete_any();
    rig.accept_newest();
    rig.leave();
    timed
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    group.sample_size(20);
    let rounds: [(&str, Round); 3] =
        [("end and place", end_and_place), ("submit queued", submit), ("heartbeat", Rig::heartbeat)];
    for size in SIZES {
        let (mut rig, _) = Rig::saturated(size, Shape::default());
        for (name, round) in rounds {
            let id = BenchmarkId::new(name, format!("{} nodes, {} jobs", size.nodes, size.jobs));
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|count| (0..count).map(|_| round(&mut rig).took).sum::<Duration>());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
