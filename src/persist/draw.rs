//! Arbitrary values for tests: mirrors draw their fields one by one from a seed.

use std::sync::Arc;

use super::mirror::Unusual;
use super::records::{NoteV1, OutputDigestV1};
use super::values::{DEADLINES, DeadlineV1, EnvironmentV1, EnvironmentsV1, FinishReasonV1};
use crate::credits::{Credits, Price};
use crate::dice::Dice;
use crate::ids::{
    Digest, GpuClass, IdempotencyKey, JobId, ModelVersion, Namespace, NodeId, OperationId, Region,
    ReservationId, SubcloudName,
};
use crate::time::{Span, Time};

/// Numbers that follow from a seed.
pub(crate) struct Source(Dice);

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Dice(seed))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.bits()
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.roll(bound)
    }

    /// Small as often as large: encodings differ.
    fn any_size(&mut self) -> u64 {
        let bits = self.below(65) as u32;
        self.number().checked_shr(64 - bits).unwrap_or(0)
    }

    fn text(&mut self, bytes_max: usize) -> String {
        let alphabet = ['a', 'Z', '0', '_', '.', ' ', '/', 'é', '語', '\n', '\0', '\u{1}'];
        let length = self.below(bytes_max);
        (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> T {
        let alphabet = b"abz019._-";
        let length = 1 + self.below(64);
        let name: String = (0..length).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect();
        name.parse().expect("made of what names are made of")
    }
}

/// What can be drawn.
pub(crate) trait Draw {
    fn draw(source: &mut Source) -> Self;
}

macro_rules! drawn {
    ($($drawn:ty: |$source:ident| $value:expr;)*) => {$(
        impl Draw for $drawn {
            fn draw($source: &mut Source) -> Self {
                $value
            }
        }
    )*};
}

drawn! {
    u8: |source| source.number() as u8;
    u32: |source| source.any_size() as u32;
    u64: |source| source.any_size();
    i64: |source| source.any_size() as i64;
    String: |source| source.text(40);
    Arc<str>: |source| match source.below(10) { 0 => source.text(400), _ => source.text(20) }.into();
    Arc<[u8]>: |source| (0..source.below(3_000)).map(|_| source.number() as u8).collect();
    [u8; 32]: |source| std::array::from_fn(|_| source.number() as u8);
    Time: |source| Time(source.any_size());
    Span: |source| Span(source.any_size());
    Credits: |source| Credits(i64::draw(source));
    Price: |source| Price { input: u64::draw(source), cached_input: u64::draw(source), output: u64::draw(source) };
    JobId: |source| JobId { epoch: u32::draw(source), counter: u64::draw(source) };
    ReservationId: |source| ReservationId { epoch: u32::draw(source), counter: u64::draw(source) };
    NodeId: |source| NodeId::named(&<Arc<str>>::draw(source));
    Namespace: |source| Namespace::named(&<Arc<str>>::draw(source));
    SubcloudName: |source| source.name();
    Region: |source| source.name();
    GpuClass: |source| source.name();
    ModelVersion: |source| source.name();
    Digest: |source| Digest(Draw::draw(source));
    IdempotencyKey: |source| IdempotencyKey(Draw::draw(source));
    OperationId: |source| OperationId(u128::from(source.number()) << 64 | u128::from(source.any_size()));
    DeadlineV1: |source| DeadlineV1(DEADLINES[source.below(DEADLINES.len())].into());
    NoteV1: |source| NoteV1(source.text(250).into());
    OutputDigestV1: |source| OutputDigestV1(Draw::draw(source));
    EnvironmentsV1: |source| match source.below(4) {
        0 => EnvironmentsV1(vec![]),
        1 => EnvironmentsV1(vec![EnvironmentV1::Mainnet]),
        2 => EnvironmentsV1(vec![EnvironmentV1::Testnet]),
        _ => EnvironmentsV1(vec![EnvironmentV1::Mainnet, EnvironmentV1::Testnet]),
    };
}

impl<T: Draw> Draw for Option<T> {
    fn draw(source: &mut Source) -> Self {
        (source.below(2) == 0).then(|| T::draw(source))
    }
}

impl<T: Draw> Draw for Vec<T> {
    fn draw(source: &mut Source) -> Self {
        let length = match source.below(8) {
            0 => source.below(70),
            _ => source.below(4),
        };
        (0..length).map(|_| T::draw(source)).collect()
    }
}

impl<A: Draw, B: Draw> Draw for (A, B) {
    fn draw(source: &mut Source) -> Self {
        (A::draw(source), B::draw(source))
    }
}

impl<M: Draw> Draw for Unusual<M> {
    fn draw(source: &mut Source) -> Self {
        Self(Draw::draw(source))
    }
}

impl Draw for FinishReasonV1 {
    fn draw(source: &mut Source) -> Self {
        if source.below(2) == 0 { Self::Stop } else { Self::Length }
    }
}
