//! Finds a short list of actions that still breaks the same promise: delta debugging, bounded in time.

use std::time::{Duration, Instant};

use super::generate::Timed;
use super::run::trial;
use super::scene::Scene;

/// How long a failing seed may be shrunk.
const SHRINK_TIME_MAX: Duration = Duration::from_secs(20);

/// The shortest list found that violates the same line.
pub(crate) fn shrink(scene: &Scene, actions: Vec<Timed>, line: &str) -> Vec<Timed> {
    let started = Instant::now();
    let fails = |list: &[Timed]| trial(scene, list).violations.first().is_some_and(|v| v.line == line);
    let mut list = actions;
    let mut parts = 2;
    while list.len() > 1 && started.elapsed() < SHRINK_TIME_MAX {
        let size = list.len().div_ceil(parts);
        let without = |part: usize| {
            let (from, to) = (part * size, ((part + 1) * size).min(list.len()));
            [&list[..from.min(list.len())], &list[to..]].concat()
        };
        let in_time = |_: &usize| started.elapsed() < SHRINK_TIME_MAX;
        let shorter =
            (0..list.len().div_ceil(size)).take_while(in_time).map(without).find(|list| fails(list));
        match shorter {
            Some(shorter) => (list, parts) = (shorter, parts.max(3) - 1),
            None if size == 1 => break,
            None => parts = (parts * 2).min(list.len()),
        }
    }
    list
}
