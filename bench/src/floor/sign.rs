//! Signatures as the product has them (ed25519 over a digest, checked strictly), and what they cost.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use switchbox::wire::hash::plain_hash;

/// Bytes of a signature.
const SIGNATURE_BYTES: usize = Signature::BYTE_SIZE;
/// Hexadecimal digits of a signature.
pub(super) const SIGNATURE_DIGITS: usize = 2 * SIGNATURE_BYTES;
/// Signatures made and checked to see what one costs.
const SAMPLES: usize = 1_000;

/// The floor's own pair of keys. It guards nothing, and so both sides simply know it.
fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// Signs texts.
pub(super) struct Signs(SigningKey);

impl Signs {
    pub(super) fn new() -> Self {
        Self(key())
    }

    /// The signature of a text's digest, in hexadecimal digits.
    pub(super) fn sign(&self, text: &[u8]) -> [u8; SIGNATURE_DIGITS] {
        let signature = self.0.sign(&plain_hash(text).0).to_bytes();
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        std::array::from_fn(|at| match at % 2 {
            0 => digit(signature[at / 2] >> 4),
            _ => digit(signature[at / 2] & 15),
        })
    }
}

/// Checks signatures.
pub(super) struct Checks(VerifyingKey);

impl Checks {
    pub(super) fn new() -> Self {
        Self(key().verifying_key())
    }

    /// The text before the signature at its end, if that is right.
    pub(super) fn check<'t>(&self, signed: &'t [u8]) -> Option<&'t [u8]> {
        let (text, digits) = signed.split_at_checked(signed.len().checked_sub(SIGNATURE_DIGITS)?)?;
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
        let mut bytes = [0; SIGNATURE_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        self.0.verify_strict(&plain_hash(text).0, &Signature::from_bytes(&bytes)).ok()?;
        Some(text)
    }
}

/// What one signature costs to make, and one to check: medians, on this thread.
pub(crate) fn costs() -> (Duration, Duration) {
    let (key, digest) = (key(), plain_hash(b"an answer").0);
    let (public, signature) = (key.verifying_key(), key.sign(&digest));
    let sign = median_of(|| {
        black_box(key.sign(black_box(&digest)));
    });
    let verify = median_of(|| {
        black_box(public.verify_strict(black_box(&digest), &signature).is_ok());
    });
    (sign, verify)
}

fn median_of(work: impl Fn()) -> Duration {
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[SAMPLES / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_passes() {
        let text = b"across the wire";
        let signed = [&text[..], &Signs::new().sign(text)].concat();
        let checks = Checks::new();
        assert_eq!(checks.check(&signed), Some(&text[..]));
        for at in [0, text.len() - 1, text.len(), signed.len() - 1] {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert_eq!(checks.check(&changed), None, "byte {at} was changed");
        }
        assert_eq!(checks.check(b"short"), None);
    }
}
