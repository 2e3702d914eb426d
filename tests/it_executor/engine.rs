//! The engine's promises, on a tiny model of each weight type.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use switchbox::executor::{
    Engine, EngineOptions, Finish, Flow, IgnoreEos, Model, Numerics, Outcome, Sampling, SequenceRequest, Sink,
};
use switchbox_kernels::WeightType;

use crate::collect::{Heard, request, wait};
use crate::synthetic;

fn start(model: &Arc<Model>, threads: usize) -> Engine {
    let options = EngineOptions { threads, prefill_chunk: 16, numerics: Numerics::Auto };
    Engine::start(Arc::clone(model), options)
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}

/// Waits until `is_true`, by the engine's own progress.
fn until(is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(60), "not within a minute");
        std::thread::yield_now();
    }
}

fn prompt(seed: u64, len: usize) -> Vec<u32> {
    let mut next = synthetic::noise(seed);
    (0..len).map(|_| 3 + ((next() + 1.0) * 100.0) as u32).collect()
}

/// A request that runs to its length, with random choices.
fn sampled(id: u64, len: usize, max: u32) -> (SequenceRequest, std::sync::mpsc::Receiver<Heard>) {
    let (mut request, heard) = request(id, prompt(id, len), max);
    request.ignore_eos = IgnoreEos::Yes;
    request.sampling = Sampling { temperature: 1.0, top_p: 0.9, seed: 40 + id, ..Sampling::default() };
    (request, heard)
}

#[test]
fn the_same_alone_or_beside_others() {
    for kind in WeightType::ALL {
        let model = synthetic::model(kind);
        let lengths = [(1, 5), (2, 40), (3, 16), (4, 33)];
        let alone: Vec<(String, Outcome)> = lengths
            .iter()
            .map(|(id, len)| {
                let (request, heard) = sampled(*id, *len, 30);
                let engine = start(&model, 1);
                engine.submit(request);
                wait(&heard)
            })
            .collect();
        let engine = start(&model, 2);
        let heards: Vec<_> = lengths
            .iter()
            .map(|(id, len)| {
                let (request, heard) = sampled(*id, *len, 30);
                engine.submit(request);
                heard
            })
            .collect();
        for (heard, (text, outcome)) in heards.iter().zip(&alone) {
            let (beside, beside_outcome) = wait(heard);
            assert_eq!(&beside, text, "{kind:?}");
            assert_eq!(beside_outcome.reason, Finish::Length);
            assert_eq!(beside_outcome.completion_tokens, 30);
            assert_eq!(beside_outcome.prompt_tokens, outcome.prompt_tokens);
        }
        assert_ne!(alone[0].0, alone[1].0);
    }
}

#[test]
fn a_step_serves_everyone() {
    let engine = start(&synthetic::model(WeightType::Q8_0), 1);
    let heards: Vec<_> = (1..=4)
        .map(|id| {
            let (request, heard) = sampled(id, 16, 50);
            engine.submit(request);
            heard
        })
        .collect();
    heards.iter().for_each(|heard| drop(wait(heard)));
    let counters = engine.counters();
    assert_eq!(load(&counters.prefill_tokens), 4 * 16);
    assert_eq!(load(&counters.decode_tokens), 4 * 49);
    // One by one it would take 4 * 49 steps to decode.
    assert!(load(&counters.decode_steps) < 70, "{} steps", load(&counters.decode_steps));
    assert_eq!((load(&counters.sequences_started), load(&counters.sequences_finished)), (4, 4));
    until(|| load(&counters.running) == 0 && load(&counters.kv_bytes) == 0);
}

#[test]
fn events_come_in_order_and_count_all_tokens() {
    let engine = start(&synthetic::model(WeightType::F16), 1);
    let (request, heard) = sampled(1, 3, 40);
    engine.submit(request);
    assert!(matches!(heard.recv().unwrap(), Heard::Started));
    let mut said = 0;
    loop {
        match heard.recv().unwrap() {
            Heard::Started => panic!("started twice"),
            Heard::Text(piece, tokens) => {
                assert!(!piece.is_empty());
                said += tokens;
            }
            Heard::Finished(outcome) => {
                assert_eq!(outcome.completion_tokens, 40);
                assert!(said <= 40);
                break;
            }
        }
    }
}

/// Blocks the engine in its first step until told to go on.
struct Gate(std::sync::mpsc::Receiver<()>);

impl Sink for Gate {
    fn started(&mut self) {
        let _ = self.0.recv_timeout(Duration::from_secs(60));
    }

    fn text(&mut self, _: &str, _: u32) -> Flow {
        Flow::Continue
    }

    fn finished(self: Box<Self>, _: Outcome) {}
}

fn gate(id: u64) -> (SequenceRequest, Sender<()>) {
    let (open, gate) = channel();
    let (mut request, _) = request(id, vec![5], 1);
    request.sink = Box::new(Gate(gate));
    (request, open)
}

#[test]
fn a_cancel_costs_at_most_one_more_step() {
    let model = synthetic::model(WeightType::Q4_1);
    let engine = start(&model, 1);
    let counters = engine.counters();
    // Waiting: the engine is busy with another sequence.
    let (first, open) = gate(1);
    engine.submit(first);
    until(|| load(&counters.steps) == 1);
    let (waiting, heard) = sampled(2, 400, 100);
    engine.submit(waiting);
    engine.cancel(2);
    engine.cancel(2);
    engine.cancel(99);
    open.send(()).unwrap();
    let (text, outcome) = wait(&heard);
    assert_eq!((text.as_str(), outcome.reason, outcome.completion_tokens), ("", Finish::Cancelled, 0));
    assert_eq!(load(&counters.cancelled_waiting), 1);
    // Prefill: many, so that some are cancelled in it whatever the timing.
    for id in 10..30 {
        let (request, heard) = sampled(id, 500, 10);
        engine.submit(request);
        assert!(matches!(heard.recv().unwrap(), Heard::Started));
        engine.cancel(id);
        assert!(matches!(wait(&heard).1.reason, Finish::Cancelled | Finish::Length));
    }
    assert!(load(&counters.cancelled_in_prefill) > 0);
    for id in 30..40 {
        let (request, heard) = sampled(id, 10, 400);
        engine.submit(request);
        while !matches!(heard.recv().unwrap(), Heard::Text(..)) {}
        engine.cancel(id);
        assert_eq!(wait(&heard).1.reason, Finish::Cancelled);
    }
    assert_eq!(load(&counters.cancelled_in_decode), 10);
    assert!(load(&counters.steps_after_cancel_max) <= 1, "{}", load(&counters.steps_after_cancel_max));
}

/// Cancels between chosen steps, exactly.
#[test]
fn a_cancel_during_a_step_is_seen_before_the_next() {
    let engine = start(&synthetic::model(WeightType::Q4_0), 1);
    let counters = engine.counters();
    let (request, heard) = sampled(7, 500, 10);
    let (blocked, open) = gate(8);
    // The gate's step comes after the first chunk of 7, and holds the engine there.
    engine.submit(request);
    engine.submit(blocked);
    until(|| load(&counters.sequences_started) == 2);
    engine.cancel(7);
    let before = load(&counters.steps);
    open.send(()).unwrap();
    assert_eq!(wait(&heard).1.reason, Finish::Cancelled);
    assert_eq!(load(&counters.cancelled_in_prefill), 1);
    assert_eq!(load(&counters.steps_after_cancel), 0);
    assert!(load(&counters.steps) <= before + 1);
}

/// Behaves badly at its n-th piece.
struct Rude {
    pieces_left: u32,
    conduct: Conduct,
    to: Sender<Outcome>,
}

#[derive(Clone, Copy)]
enum Conduct {
    Panic,
    Stop,
}

impl Sink for Rude {
    fn started(&mut self) {}

    fn text(&mut self, _: &str, _: u32) -> Flow {
        self.pieces_left = self.pieces_left.saturating_sub(1);
        match self.conduct {
            _ if self.pieces_left > 0 => Flow::Continue,
            Conduct::Panic => panic!("a sink's own fault"),
            Conduct::Stop => Flow::Stop,
        }
    }

    fn finished(self: Box<Self>, outcome: Outcome) {
        let _ = self.to.send(outcome);
    }
}

#[test]
fn a_bad_sink_ends_its_own_sequence_only() {
    let model = synthetic::model(WeightType::Bf16);
    let engine = start(&model, 2);
    let (good, heard) = sampled(1, 20, 60);
    engine.submit(good);
    for (id, conduct) in [(2, Conduct::Panic), (3, Conduct::Stop)] {
        for pieces_left in [1, 5] {
            let (to, end) = channel();
            let (mut bad, _) = sampled(id, 20, 60);
            bad.sink = Box::new(Rude { pieces_left, conduct, to });
            engine.submit(bad);
            let outcome = end.recv_timeout(Duration::from_secs(60)).unwrap();
            match conduct {
                Conduct::Panic => {
                    assert!(matches!(outcome.reason, Finish::Failed(r) if r.contains("own fault")))
                }
                Conduct::Stop => assert_eq!(outcome.reason, Finish::Cancelled),
            }
        }
    }
    let (text, outcome) = wait(&heard);
    assert_eq!(outcome.reason, Finish::Length);
    let (again, heard) = sampled(1, 20, 60);
    engine.submit(again);
    assert_eq!(wait(&heard).0, text);
}

#[test]
fn impossible_requests_fail_with_a_reason() {
    let model = synthetic::model(WeightType::F32);
    let engine = start(&model, 1);
    for (prompt, max, expected) in [
        (vec![], 5, "no tokens"),
        (vec![9_999], 5, "token 9999"),
        (vec![5; 512], 5, "context holds 512"),
        (vec![5; 600], 5, "context holds 512"),
    ] {
        let (request, heard) = request(1, prompt, max);
        engine.submit(request);
        let (_, outcome) = wait(&heard);
        assert!(matches!(&outcome.reason, Finish::Failed(r) if r.contains(expected)), "{outcome:?}");
    }
    let (none, heard) = request(1, vec![5], 0);
    engine.submit(none);
    assert_eq!(wait(&heard).1.reason, Finish::Length);
    let (mut long, heard) = request(1, vec![5; 500], 100);
    long.ignore_eos = IgnoreEos::Yes;
    engine.submit(long);
    let (_, outcome) = wait(&heard);
    assert_eq!((outcome.reason, outcome.completion_tokens), (Finish::Length, 12));
    // A broken model computes nothing finite, and says so on every path.
    for kind in WeightType::ALL {
        let mut file = synthetic::file(kind);
        file.tensor("blk.1.ffn_norm.weight").data = [f32::NAN.to_le_bytes(); 64].concat();
        let (request, heard) = request(1, vec![5], 5);
        let engine = start(&file.open().unwrap(), 1);
        engine.submit(request);
        assert!(matches!(wait(&heard).1.reason, Finish::Failed(r) if r.contains("no finite number")));
    }
}

#[test]
fn the_last_handle_ends_it() {
    let engine = start(&synthetic::model(WeightType::Q8_0), 2);
    let (request, heard) = sampled(1, 500, 10_000);
    let (blocked, open) = gate(2);
    engine.submit(blocked);
    engine.submit(request);
    let other = engine.clone();
    drop(engine);
    drop(other);
    open.send(()).unwrap();
    assert_eq!(wait(&heard).1.reason, Finish::Cancelled);
}

#[test]
fn caches_grow_with_their_sequence() {
    let model = synthetic::model(WeightType::F32);
    let mut kv = model.kv_cache();
    let mut forward = switchbox::executor::Forward::new(Numerics::Auto.arithmetic(), 1).unwrap();
    assert_eq!(kv.bytes(), 0);
    // 32 positions of 2 layers, keys and values of 2 heads of 16, 2 bytes each.
    let block = 32 * 2 * 2 * 2 * 16 * 2;
    for (tokens, blocks) in [(1, 1), (31, 1), (1, 2), (40, 3)] {
        let rows = switchbox::executor::Rows {
            tokens: &vec![5; tokens],
            kv: &mut kv,
            wanted: switchbox::executor::Wanted::None,
        };
        forward.run(&model, &mut [rows]);
        assert_eq!(kv.bytes(), blocks * block);
    }
    assert_eq!(kv.len(), 73);
}
