//! The fast paths against the reference, over odd shapes and every weight type; and each row's independence
//! of its batch, bit for bit.

use half::{bf16, f16};
use switchbox_kernels::attention::{self, BLOCK_POSITIONS, Cache, Query, QueryRow};
use switchbox_kernels::format::BLOCK;
use switchbox_kernels::{
    Activations, Arithmetic, Matrix, Pool, Product, WeightType, multiply, pointwise, reference,
};

/// Numbers from a fixed sequence.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// About normal, variance 1.
    fn float(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| (self.bits() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (sum - 6.0) as f32
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// `n` weights of a type, as bytes.
    fn weights(&mut self, kind: WeightType, n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..n / kind.block_weights() {
            let d = f16::from_f32(self.float() * 0.02).to_le_bytes();
            match kind {
                WeightType::F32 => bytes.extend(self.float().to_le_bytes()),
                WeightType::F16 => bytes.extend(f16::from_f32(self.float()).to_le_bytes()),
                WeightType::Bf16 => bytes.extend(bf16::from_f32(self.float()).to_le_bytes()),
                WeightType::Q8_0 | WeightType::Q4_0 => bytes.extend(d),
                WeightType::Q4_1 => {
                    bytes.extend(d);
                    bytes.extend(f16::from_f32(self.float() * 0.1).to_le_bytes());
                }
            }
            let quants = match kind {
                WeightType::Q8_0 => 32,
                WeightType::Q4_0 | WeightType::Q4_1 => 16,
                _ => 0,
            };
            // All values of a byte, -128 of the signed ones too.
            bytes.extend((0..quants).map(|_| self.bits() as u8));
        }
        bytes
    }
}

/// `||a - b|| / ||b||`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-30)
}

fn product(arithmetic: Arithmetic, threads: usize, weights: Matrix<'_>, x: &[f32]) -> Vec<f32> {
    let mut pool = Pool::new(threads).unwrap();
    let mut input = Activations::default();
    input.fill(arithmetic, weights.cols(), x);
    let mut out = vec![f32::NAN; x.len() / weights.cols() * weights.rows()];
    multiply(arithmetic, &mut pool, &input, &mut [Product { weights, out: &mut out }]);
    out
}

/// Activations as the fast path sees them: rounded to 8 bit per block.
fn rounded(x: &[f32]) -> Vec<f32> {
    let round = |block: &[f32]| {
        let scale = block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        block.iter().map(|v| (v / scale).round_ties_even() * scale).collect::<Vec<_>>()
    };
    x.chunks_exact(BLOCK).flat_map(round).collect()
}

#[test]
fn products_agree_with_the_reference() {
    let mut random = Random(1);
    for kind in WeightType::ALL {
        for (rows, blocks, odd, tokens) in [(1, 1, 0, 1), (7, 3, 5, 2), (50, 2, 1, 3), (130, 18, 7, 9)] {
            let is_quantised = kind.block_weights() == BLOCK;
            let cols = blocks * BLOCK + if is_quantised { 0 } else { odd };
            let bytes = random.weights(kind, rows * cols);
            let weights = Matrix::new(kind, rows, cols, &bytes).unwrap();
            let x = random.floats(tokens * cols);
            let mut exact = vec![0.0; tokens * rows];
            reference::multiply(weights, &x, &mut exact);
            assert_eq!(product(Arithmetic::Reference, 1, weights, &x), exact);
            let fast = product(Arithmetic::detect(), 2, weights, &x);
            // Rounding 32 normal numbers by their largest costs about half a percent of each, more of a small sum.
            let tolerance = if is_quantised { 0.05 } else { 1e-5 };
            let found = distance(&fast, &exact);
            assert!(found < tolerance, "{kind:?} {rows} x {cols}, {tokens} tokens: {found}");
            if is_quantised && Arithmetic::detect() != Arithmetic::Reference {
                reference::multiply(weights, &rounded(&x), &mut exact);
                let found = distance(&fast, &exact);
                assert!(found < 1e-3, "{kind:?} {rows} x {cols}, same rounding: {found}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch_or_the_threads() {
    let mut random = Random(2);
    for kind in WeightType::ALL {
        let (rows, cols, tokens) = (100, 96, 11);
        let bytes = random.weights(kind, rows * cols);
        let weights = Matrix::new(kind, rows, cols, &bytes).unwrap();
        let x = random.floats(tokens * cols);
        for arithmetic in [Arithmetic::Reference, Arithmetic::detect()] {
            let alone: Vec<Vec<f32>> =
                x.chunks_exact(cols).map(|x| product(arithmetic, 1, weights, x)).collect();
            for n in 1..=tokens {
                for threads in [1, 3] {
                    let batch = product(arithmetic, threads, weights, &x[..n * cols]);
                    assert_eq!(batch, alone[..n].concat(), "{kind:?}, {n} rows, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn instruction_sets_agree_bit_for_bit() {
    let mut random = Random(6);
    let sets = Arithmetic::ALL.into_iter().filter(|a| *a != Arithmetic::Reference && a.is_available());
    let sets: Vec<_> = sets.collect();
    for kind in WeightType::ALL {
        let bytes = random.weights(kind, 90 * 160);
        let weights = Matrix::new(kind, 90, 160, &bytes).unwrap();
        let x = random.floats(6 * 160);
        for pair in sets.windows(2) {
            assert_eq!(product(pair[0], 2, weights, &x), product(pair[1], 1, weights, &x), "{kind:?}");
        }
    }
}

#[test]
fn zeros_and_extremes() {
    for kind in WeightType::ALL {
        let bytes = vec![0u8; kind.row_bytes(64).unwrap()];
        let weights = Matrix::new(kind, 1, 64, &bytes).unwrap();
        for x in [vec![0.0; 64], vec![1.0e36; 64], vec![-1e-40; 64]] {
            assert_eq!(product(Arithmetic::detect(), 1, weights, &x), [0.0], "{kind:?}");
        }
    }
    // The largest quants of both sides: sums of pairs must not saturate.
    let mut bytes = f16::ONE.to_le_bytes().to_vec();
    bytes.extend([128u8; 32]);
    let weights = Matrix::new(WeightType::Q8_0, 1, 32, &bytes).unwrap();
    for sign in [1.0, -1.0] {
        let found = product(Arithmetic::detect(), 1, weights, &[127.0 * sign; 32]);
        assert_eq!(found, [-128.0 * 127.0 * 32.0 * sign]);
    }
}

#[test]
fn nan_and_infinity_reach_the_result() {
    let mut random = Random(5);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for kind in WeightType::ALL {
            let bytes = random.weights(kind, 64);
            let weights = Matrix::new(kind, 1, 64, &bytes).unwrap();
            let mut x = random.floats(64);
            x[40] = bad;
            let found = product(Arithmetic::detect(), 1, weights, &x);
            assert!(!found[0].is_finite(), "{kind:?} {bad}: {found:?}");
        }
    }
    for n in [8, 9] {
        let mut x = vec![f32::NAN; n];
        pointwise::silu_mul(Arithmetic::detect(), &mut x, &vec![1.0; n]);
        assert!(x.iter().all(|v| v.is_nan()));
    }
}

#[test]
fn dequantised_bits() {
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    let nibbles: Vec<u8> = (0..16).map(|n| n | (15 - n) << 4).collect();
    let q4_0 = [&half(0.5)[..], &nibbles].concat();
    let q4_1 = [&half(0.5)[..], &half(-1.25), &nibbles].concat();
    let q8_0: Vec<u8> = half(0.25).into_iter().chain((0..32).map(|n| (n * 8 - 128) as u8)).collect();
    let low = (0..16).map(|n| n as f32);
    let both: Vec<f32> = low.clone().chain(low.map(|n| 15.0 - n)).collect();
    let cases: [(WeightType, Vec<u8>, Vec<f32>); 6] = [
        (WeightType::Q4_0, q4_0, both.iter().map(|q| 0.5 * (q - 8.0)).collect()),
        (WeightType::Q4_1, q4_1, both.iter().map(|q| 0.5 * q - 1.25).collect()),
        (WeightType::Q8_0, q8_0, (0..32).map(|n| 0.25 * (n as f32 * 8.0 - 128.0)).collect()),
        (WeightType::F16, vec![0x00, 0x3c, 0x01, 0x80], vec![1.0, -5.960_464_5e-8]),
        (WeightType::Bf16, vec![0x80, 0x3f, 0x20, 0xc0], vec![1.0, -2.5]),
        (WeightType::F32, vec![0, 0, 0x80, 0xbf], vec![-1.0]),
    ];
    for (kind, bytes, expected) in cases {
        let mut out = vec![f32::NAN; expected.len()];
        reference::dequantise(kind, &bytes, &mut out);
        assert_eq!(out, expected, "{kind:?}");
    }
}

#[test]
fn attention_agrees_with_the_reference() {
    let mut random = Random(3);
    for (group, dim, len) in [(1, 64, 1), (3, 64, 100), (4, 20, 33), (2, 128, 257), (1, 7, 5)] {
        let positions = usize::div_ceil(len, BLOCK_POSITIONS);
        let blocks: Vec<Box<[u16]>> = (0..positions)
            .map(|_| {
                (0..2 * BLOCK_POSITIONS * dim).map(|_| f16::from_f32(random.float()).to_bits()).collect()
            })
            .collect();
        let cache = Cache { blocks: &blocks, keys_at: 0, values_at: BLOCK_POSITIONS * dim, head_dim: dim };
        let q = random.floats(group * dim);
        // Tokens of different reach together: the last one alone must come to the same bits.
        let run = |arithmetic, together: usize| {
            let lens: Vec<usize> = (1..=len).rev().step_by(7).take(together).collect();
            let mut outs = vec![vec![f32::NAN; group * dim]; lens.len()];
            let rows = outs.iter_mut().zip(&lens).map(|(out, len)| QueryRow { q: &q, len: *len, out });
            let queries = vec![Query { rows: rows.collect(), cache }];
            attention::attend(arithmetic, &mut Pool::new(1).unwrap(), queries);
            outs.swap_remove(0)
        };
        for arithmetic in [Arithmetic::Reference, Arithmetic::detect()] {
            assert_eq!(run(arithmetic, 1), run(arithmetic, 20));
        }
        let found = distance(&run(Arithmetic::detect(), 1), &run(Arithmetic::Reference, 1));
        assert!(found < 1e-5, "group {group}, head {dim}, {len} positions: {found}");
    }
}

#[test]
fn pointwise_operations_agree_with_the_reference() {
    let mut random = Random(4);
    let fast = Arithmetic::detect();
    for n in [1, 7, 8, 31, 576] {
        let (x, y) = (random.floats(2 * n), random.floats(2 * n));
        let run = |arithmetic| {
            let (mut normed, mut gated, mut sum, mut bits) =
                (vec![0.0; 2 * n], x.clone(), x.clone(), vec![0; 2 * n]);
            pointwise::rms_norm(arithmetic, &x, &y[..n], 1e-5, &mut normed);
            gated.iter_mut().for_each(|g| *g *= 20.0);
            pointwise::silu_mul(arithmetic, &mut gated, &y);
            pointwise::add(arithmetic, &mut sum, &y);
            pointwise::narrow(arithmetic, &x, &mut bits);
            (normed, gated, sum, bits)
        };
        let (a, b) = (run(fast), run(Arithmetic::Reference));
        assert!(distance(&a.0, &b.0) < 1e-6 && distance(&a.1, &b.1) < 1e-6, "{n}");
        assert_eq!((a.2, a.3), (b.2, b.3));
    }
    let mut extremes = [-1e4, -100.0, 100.0, 1e4, 0.0, -0.0, 1.0, -1.0];
    pointwise::silu_mul(fast, &mut extremes, &[1.0; 8]);
    assert!(extremes.iter().all(|v| v.is_finite()) && extremes[3] == 1e4 && extremes[0].abs() < 1e-30);
}

#[test]
fn rope_turns_neighbouring_pairs() {
    let mut x = [1.0, 0.0, 0.0, 1.0, 5.0, 1.0, 0.0, 0.0, 1.0, 5.0];
    pointwise::rope(&mut x, 5, &[0.0, 0.6], &[1.0, 0.8]);
    assert_eq!(x, [0.0, 1.0, -0.8, 0.6, 5.0, 0.0, 1.0, -0.8, 0.6, 5.0]);
}

#[test]
fn argmax_takes_the_first_and_never_nan() {
    for (x, expected) in [(&[][..], 0), (&[1.0, 3.0, 3.0], 1), (&[f32::NAN, -1.0], 1), (&[f32::NAN], 0)] {
        assert_eq!(pointwise::argmax(x), expected, "{x:?}");
    }
}

#[test]
fn matrices_refuse_wrong_lengths() {
    for (kind, rows, cols, bytes) in [
        (WeightType::Q4_1, 1, 31, 20),
        (WeightType::Q4_1, 2, 32, 20),
        (WeightType::F32, usize::MAX, 8, 32),
        (WeightType::F32, 1, usize::MAX, 32),
    ] {
        let error = Matrix::new(kind, rows, cols, &vec![0; bytes]).unwrap_err();
        assert!(error.to_string().contains(kind.name()));
    }
}
