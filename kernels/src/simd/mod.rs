//! AVX2 + FMA + F16C paths, chosen at run time, and AVX-512 VNNI for the quantised products. Every function here
//! needs its features and says nothing about threads; each has its formula in `reference` or `matmul`, and a
//! test against it.

mod attend;
mod float;
mod quantised;
mod vector;

pub(crate) use attend::attend;
pub(crate) use quantised::{avx2, quantise, vnni};
pub(crate) use vector::{add, narrow, rms_norm, silu_mul};

/// Tokens that share one pass over a weight row. Bounded by the 16 vector registers: an accumulator each,
/// beside the unpacked weights.
const TILE: usize = 4;
