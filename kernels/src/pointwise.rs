//! Operations on rows of activations, each on whichever path `Arithmetic` names. Formulas: `reference`.

use crate::format::Matrix;
use crate::{Arithmetic, reference};

/// Calls the AVX2 function of the name, or the reference.
macro_rules! dispatch {
    ($arithmetic:expr, $name:ident($($arg:expr),*)) => {
        match $arithmetic {
            Arithmetic::Reference => reference::$name($($arg),*),
            Arithmetic::Avx2 | Arithmetic::Vnni => {
                $arithmetic.check();
                // SAFETY: `check` found the features.
                #[cfg(target_arch = "x86_64")]
                unsafe { crate::simd::$name($($arg),*) }
            }
        }
    };
}

/// `out[t, i] = gain[i] x[t, i] / sqrt(mean_i(x[t, i]^2) + epsilon)` for `x`, `out`: `[tokens, n]`,
/// `gain: [n]`. Panics if the shapes disagree.
pub fn rms_norm(arithmetic: Arithmetic, x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(gain.len()), "shapes of rms_norm");
    for (x, out) in x.chunks_exact(gain.len()).zip(out.chunks_exact_mut(gain.len())) {
        dispatch!(arithmetic, rms_norm(x, gain, epsilon, out));
    }
}

/// `gate = silu(gate) * up`, elementwise. Panics if the lengths differ.
pub fn silu_mul(arithmetic: Arithmetic, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "shapes of silu_mul");
    dispatch!(arithmetic, silu_mul(gate, up));
}

/// `x += y`, elementwise. Panics if the lengths differ.
pub fn add(arithmetic: Arithmetic, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "shapes of add");
    dispatch!(arithmetic, add(x, y));
}

/// Rounds to f16 bits: `bits[i] = f16(x[i])`, to nearest even. Panics if the lengths differ.
pub fn narrow(arithmetic: Arithmetic, x: &[f32], bits: &mut [u16]) {
    assert_eq!(x.len(), bits.len(), "shapes of narrow");
    dispatch!(arithmetic, narrow(x, bits));
}

/// Rotates each head of one token: `x: [heads, head_dim]`, `cos`, `sin`: `[pairs]` of the token's position,
/// `2 pairs <= head_dim`; see [`reference::rope`].
pub fn rope(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    assert!(x.len().is_multiple_of(head_dim) && 2 * cos.len() <= head_dim && cos.len() == sin.len());
    x.chunks_exact_mut(head_dim).for_each(|head| reference::rope(head, cos, sin));
}

/// Copies row `row` of `table`, dequantised, to `out: [cols]`. Panics if out of range.
pub fn embed(table: Matrix<'_>, row: usize, out: &mut [f32]) {
    reference::dequantise(table.kind(), table.row(row), out);
}

pub use reference::argmax;
