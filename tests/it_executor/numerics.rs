//! Arithmetic against arithmetic, on whole models.

use switchbox::executor::{Forward, Model, Numerics, Rows, Wanted};
use switchbox_kernels::WeightType;

use crate::{model, synthetic};

/// The logits of all rows of a prompt, read in chunks.
fn logits(model: &Model, numerics: Numerics, threads: usize, prompt: &[u32], chunk: usize) -> Vec<f32> {
    let mut forward = Forward::new(numerics.arithmetic(), threads).unwrap();
    let mut kv = model.kv_cache();
    let mut all = Vec::new();
    for tokens in prompt.chunks(chunk) {
        all.extend_from_slice(forward.run(model, &mut [Rows { tokens, kv: &mut kv, wanted: Wanted::All }]));
    }
    all
}

/// Root mean square of the difference, relative to the spread of `b` around its mean.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let mean = b.iter().map(|v| f64::from(*v)).sum::<f64>() / b.len() as f64;
    let spread = b.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
    let error = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    (error / spread).sqrt()
}

#[test]
fn fast_and_reference_logits_agree() {
    let real = model();
    let prompt = real.encode_text("The job queue assigns each job to the best node, and").unwrap();
    let found = distance(
        &logits(&real, Numerics::Auto, 2, &prompt, 64),
        &logits(&real, Numerics::Reference, 2, &prompt, 64),
    );
    println!("SmolLM2: {found:.4}");
    // Activations rounded to 8 bit: about 1 % per product, 210 products on top of each other.
    assert!(found < 0.05, "{found}");
    for kind in WeightType::ALL {
        let tiny = synthetic::model(kind);
        let prompt: Vec<u32> = (0..50).map(|n| 3 + n * 5).collect();
        let fast = logits(&tiny, Numerics::Auto, 2, &prompt, 16);
        let found = distance(&fast, &logits(&tiny, Numerics::Reference, 1, &prompt, 50));
        println!("{kind:?}: {found:.6}");
        let tolerance = if kind.block_weights() == 1 { 1e-3 } else { 0.05 };
        assert!(found < tolerance, "{kind:?}: {found}");
    }
}

#[test]
fn chunks_and_threads_change_no_bit() {
    for kind in WeightType::ALL {
        let tiny = synthetic::model(kind);
        let prompt: Vec<u32> = (0..70).map(|n| 3 + n * 3).collect();
        for numerics in [Numerics::Auto, Numerics::Reference] {
            let whole = logits(&tiny, numerics, 1, &prompt, 70);
            for (threads, chunk) in [(2, 70), (1, 1), (3, 16), (2, 33)] {
                assert_eq!(logits(&tiny, numerics, threads, &prompt, chunk), whole, "{kind:?} {chunk}");
            }
        }
    }
    let real = model();
    let prompt = real.encode_text("One bit is one bit, whatever runs beside it.").unwrap();
    let whole = logits(&real, Numerics::Auto, 2, &prompt, 64);
    assert_eq!(logits(&real, Numerics::Auto, 1, &prompt, 5), whole);
}
