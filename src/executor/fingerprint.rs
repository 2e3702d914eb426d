//! What the arithmetic here gives, to the byte: kernels are the same for all who run this version with the same
//! instructions, but `exp` and the like come from the system's library, and those differ in the last bit.

use std::hint::black_box;

use switchbox_kernels::Arithmetic;

/// Numbers that each function is tried at.
const POINTS: u32 = 4_096;
/// FNV-1a's, of 32 bits.
const BASIS: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

/// Names what computes here. Two machines with the same name give the same tokens to the same request of the same file,
/// however many threads they have and whatever else they compute. At most 64 of `a-z 0-9 . -`.
pub fn runtime_name(arithmetic: Arithmetic) -> String {
    format!("switchbox-{}-{}-{:08x}", env!("CARGO_PKG_VERSION"), arithmetic.name(), fingerprint())
}

/// A hash of what the library's functions give that generation uses.
fn fingerprint() -> u32 {
    let mut hash = BASIS;
    let mut take = |bits: u64| {
        for byte in bits.to_le_bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(PRIME);
        }
    };
    for point in 0..POINTS {
        // Not known when this is compiled, so computed by what computes later.
        let x = black_box(f64::from(point) / 97.0);
        take(u64::from((-(x as f32)).exp().to_bits()));
        take((-x).exp().to_bits());
        take((x * 1.7).sin().to_bits());
        take((x * 1.7).cos().to_bits());
        take(black_box(10_000.0_f32).powf(-(x as f32) / 43.0).to_bits().into());
        take(black_box(10_000.0_f64).powf(-x / 43.0).to_bits());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RuntimeName;

    #[test]
    fn it_is_a_name_and_the_same_each_time_and_another_for_other_instructions() {
        let names = Arithmetic::ALL.map(runtime_name);
        assert_eq!(names, Arithmetic::ALL.map(runtime_name));
        assert!(names.iter().all(|name| name.parse::<RuntimeName>().is_ok()), "{names:?}");
        assert!(names[0] != names[1] && names[1] != names[2], "{names:?}");
    }
}
