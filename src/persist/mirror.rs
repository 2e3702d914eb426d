//! Serde's view of the core's types: mirrors that are declared field by field, so that the core needs no serde and a
//! field that the core gains doesn't compile here until somebody decided how it is kept.
//!
//! A mirror is a version: what was written once is read by the mirror that it was written with. So a mirror that is
//! out never changes; a change makes a new one beside it, and a new version byte.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::coordinator::rare::{Rare, Usual};
use crate::credits::{Credits, Price};
use crate::ids::{
    Digest, GpuClass, IdempotencyKey, JobId, ModelVersion, Namespace, NodeId, OperationId, Region,
    ReservationId, SubcloudName,
};
use crate::time::{Span, Time};

/// Why a mirror is no value of the core's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(pub(super) String);

/// A type as it is kept.
pub(super) trait Mirror<C>: Sized {
    /// How that value is kept.
    fn of(core: &C) -> Self;
    /// The value that was kept.
    fn back(self) -> Result<C, Unfit>;
}

/// Types that are kept as they are.
macro_rules! as_they_are {
    ($($kept:ty),* $(,)?) => {$(
        impl Mirror<$kept> for $kept {
            fn of(core: &$kept) -> Self {
                core.clone()
            }
            fn back(self) -> Result<$kept, Unfit> {
                Ok(self)
            }
        }
    )*};
}

as_they_are!(
    u8,
    u32,
    u64,
    i64,
    String,
    Arc<str>,
    Arc<[u8]>,
    [u8; 32],
    Time,
    Span,
    Credits,
    Price,
    JobId,
    ReservationId,
    NodeId,
    Namespace,
    SubcloudName,
    Region,
    GpuClass,
    ModelVersion,
    Digest,
    IdempotencyKey,
    OperationId,
);

impl<C, M: Mirror<C>> Mirror<Option<C>> for Option<M> {
    fn of(core: &Option<C>) -> Self {
        core.as_ref().map(M::of)
    }
    fn back(self) -> Result<Option<C>, Unfit> {
        self.map(M::back).transpose()
    }
}

impl<A, B, M: Mirror<A>, N: Mirror<B>> Mirror<(A, B)> for (M, N) {
    fn of((a, b): &(A, B)) -> Self {
        (M::of(a), N::of(b))
    }
    fn back(self) -> Result<(A, B), Unfit> {
        Ok((self.0.back()?, self.1.back()?))
    }
}

impl<C, M: Mirror<C>> Mirror<[C; 2]> for (M, M) {
    fn of([a, b]: &[C; 2]) -> Self {
        (M::of(a), M::of(b))
    }
    fn back(self) -> Result<[C; 2], Unfit> {
        Ok([self.0.back()?, self.1.back()?])
    }
}

/// Collections are kept as lists.
macro_rules! as_lists {
    ($($core:ty where $($bound:path)?),* $(,)?) => {$(
        impl<C $(: $bound)?, M: Mirror<C>> Mirror<$core> for Vec<M> {
            fn of(core: &$core) -> Self {
                core.iter().map(M::of).collect()
            }
            fn back(self) -> Result<$core, Unfit> {
                self.into_iter().map(M::back).collect()
            }
        }
    )*};
}

as_lists!(Vec<C> where, VecDeque<C> where, Arc<[C]> where, BTreeSet<C> where Ord);

impl<K: Ord, V, M: Mirror<K>, N: Mirror<V>> Mirror<BTreeMap<K, V>> for Vec<(M, N)> {
    fn of(core: &BTreeMap<K, V>) -> Self {
        core.iter().map(|(key, value)| (M::of(key), N::of(value))).collect()
    }
    fn back(self) -> Result<BTreeMap<K, V>, Unfit> {
        self.into_iter().map(|(key, value)| Ok((key.back()?, value.back()?))).collect()
    }
}

/// What is nearly always as usual: a byte, then.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unusual<M>(pub(super) Option<M>);

impl<C: Usual, M: Mirror<C>> Mirror<Rare<C>> for Unusual<M> {
    fn of(core: &Rare<C>) -> Self {
        Self((**core != *C::usual()).then(|| M::of(core)))
    }
    fn back(self) -> Result<Rare<C>, Unfit> {
        Ok(self.0.map(M::back).transpose()?.map(Rare::from).unwrap_or_default())
    }
}

/// Declares the mirror of a struct: `Mirror = Core { field: kept as, ... }`.
macro_rules! mirror_struct {
    ($($mirror:ident = $core:ident { $($field:ident: $kept:ty),* $(,)? })*) => {$(
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        pub(super) struct $mirror {
            $(pub(super) $field: $kept),*
        }

        impl crate::persist::mirror::Mirror<$core> for $mirror {
            fn of(core: &$core) -> Self {
                let $core { $($field),* } = core;
                Self { $($field: crate::persist::mirror::Mirror::of($field)),* }
            }
            fn back(self) -> Result<$core, crate::persist::mirror::Unfit> {
                Ok($core { $($field: crate::persist::mirror::Mirror::back(self.$field)?),* })
            }
        }

        #[cfg(test)]
        impl crate::persist::draw::Draw for $mirror {
            fn draw(source: &mut crate::persist::draw::Source) -> Self {
                Self { $($field: crate::persist::draw::Draw::draw(source)),* }
            }
        }
    )*};
}

/// Declares the mirror of an enum: `Mirror = Core { Unit, Tuple(name: kept as), Struct { field: kept as } }`.
macro_rules! mirror_enum {
    ($($mirror:ident = $core:ident {
        $($variant:ident $(($($item:ident: $kept:ty),*))? $({ $($field:ident: $held:ty),* })?),* $(,)?
    })*) => {$(
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        pub(super) enum $mirror {
            $($variant $(($($kept),*))? $({ $($field: $held),* })?),*
        }

        impl crate::persist::mirror::Mirror<$core> for $mirror {
            fn of(core: &$core) -> Self {
                match core {
                    $($core::$variant $(($($item),*))? $({ $($field),* })? => Self::$variant
                        $(($(crate::persist::mirror::Mirror::of($item)),*))?
                        $({ $($field: crate::persist::mirror::Mirror::of($field)),* })?),*
                }
            }
            fn back(self) -> Result<$core, crate::persist::mirror::Unfit> {
                Ok(match self {
                    $(Self::$variant $(($($item),*))? $({ $($field),* })? => $core::$variant
                        $(($(crate::persist::mirror::Mirror::back($item)?),*))?
                        $({ $($field: crate::persist::mirror::Mirror::back($field)?),* })?),*
                })
            }
        }

        #[cfg(test)]
        impl crate::persist::draw::Draw for $mirror {
            fn draw(source: &mut crate::persist::draw::Source) -> Self {
                let variants: &[fn(&mut crate::persist::draw::Source) -> Self] = &[
                    $(|_source| Self::$variant
                        $(($(<$kept as crate::persist::draw::Draw>::draw(_source)),*))?
                        $({ $($field: crate::persist::draw::Draw::draw(_source)),* })?),*
                ];
                variants[source.below(variants.len())](source)
            }
        }
    )*};
}

/// Lets the mirror of something stand for something that is shared.
macro_rules! mirror_shared {
    ($($mirror:ident = $core:ident),* $(,)?) => {$(
        impl crate::persist::mirror::Mirror<std::sync::Arc<$core>> for $mirror {
            fn of(core: &std::sync::Arc<$core>) -> Self {
                crate::persist::mirror::Mirror::of(&**core)
            }
            fn back(self) -> Result<std::sync::Arc<$core>, crate::persist::mirror::Unfit> {
                crate::persist::mirror::Mirror::back(self).map(std::sync::Arc::new)
            }
        }
    )*};
}

pub(super) use {mirror_enum, mirror_shared, mirror_struct};
