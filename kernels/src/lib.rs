//! The arithmetic of inference on slices: quantised matrix products, normalisation, rotary positions,
//! attention, and the threads they run on. Knows nothing of jobs, files or models, and never allocates
//! by a number that it did not get from the length of a slice.
//!
//! `reference` is the oracle: one plain function per operation, f32, no tricks. Every other path is tested
//! against it. A result for one row of activations never depends on which other rows are in the batch, nor
//! on the number of threads: each output element is summed in one fixed order.

pub mod attention;
pub mod format;
pub mod matmul;
pub mod pointwise;
pub mod pool;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod simd;

pub use format::{Matrix, ShapeError, WeightType};
pub use matmul::{Activations, Product, multiply};
pub use pool::Pool;

/// Which implementation computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Plain scalar f32: the oracle.
    Reference,
    /// AVX2, FMA and F16C; activations of quantised products are rounded to 8 bit per block of 32.
    Avx2,
    /// The same, bit for bit, with the integer products of AVX-512 VNNI.
    Vnni,
}

impl Arithmetic {
    /// All of them, the fastest last.
    pub const ALL: [Arithmetic; 3] = [Arithmetic::Reference, Arithmetic::Avx2, Arithmetic::Vnni];

    /// The fastest implementation that this processor has.
    pub fn detect() -> Arithmetic {
        Self::ALL.into_iter().rfind(|a| a.is_available()).unwrap_or(Arithmetic::Reference)
    }

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Arithmetic::Reference => true,
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Vnni => {
                Arithmetic::Avx2.is_available()
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Arithmetic::Avx2 | Arithmetic::Vnni => false,
        }
    }

    /// The name for logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::Reference => "reference",
            Arithmetic::Avx2 => "avx2",
            Arithmetic::Vnni => "avx512-vnni",
        }
    }

    /// Panics unless this processor can run it: a caller who asks for one by hand on another machine must not
    /// reach an illegal instruction.
    pub(crate) fn check(self) {
        assert!(self.is_available(), "arithmetic {} is not available on this processor", self.name());
    }
}
