//! The models of the real source, and the variants that loom must find something in.
//!
//! The first argument of a model bounds the preemptions in each interleaving; a test that has a bound says so
//! in its name, the others explore everything. The whole takes about a minute on two cores.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::task::Wake;

use loom::sync::Notify;

use crate::real::{output_models, queue_models};
use crate::variants::*;

/// More preemptions than any of these models has steps to be preempted at.
const ALL: usize = 1_000;

/// A parked task: a wake-up is kept until it is waited for.
pub(crate) struct Parked(pub(crate) Notify);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Runs a model through its interleavings, with at most so many preemptions in each.
pub(crate) fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = (preemptions < ALL).then_some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Passes if loom finds something, and what it finds is the expected symptom.
fn finds(symptom: &str, model: fn()) {
    let Err(panic) = catch_unwind(model) else { panic!("loom didn't find the mistake") };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("something unprintable");
    assert!(text.contains(symptom), "loom found something else: {text}");
}

#[test]
fn two_threads_push_one_and_two() {
    queue_models::pushers(ALL, &[1, 2], usize::MAX);
}

#[test]
fn two_threads_push_two_each_within_6_preemptions() {
    queue_models::pushers(6, &[2, 2], usize::MAX);
}

#[test]
fn three_threads_push_one_each_within_4_preemptions() {
    queue_models::pushers(4, &[1, 1, 1], usize::MAX);
}

#[test]
fn three_threads_push_with_repeats_within_3_preemptions() {
    queue_models::pushers(3, &[2, 1, 2], usize::MAX);
}

#[test]
fn a_small_budget_strands_nothing() {
    queue_models::pushers(ALL, &[1, 2], 1);
}

#[test]
fn a_turn_is_handed_to_a_parked_drainer_within_4_preemptions() {
    queue_models::hand_off(4, &[1, 2], 1, usize::MAX);
}

#[test]
fn a_turn_passes_between_drainers_at_its_budget_within_2_preemptions() {
    queue_models::hand_off(2, &[1, 2], 2, 1);
}

#[test]
fn only_new_work_is_refused_within_3_preemptions() {
    queue_models::room(3, 2);
}

#[test]
fn closing_counts_one_reader_exactly() {
    output_models::close_against_readers(ALL, 1);
}

#[test]
fn closing_counts_two_readers_exactly_within_4_preemptions() {
    output_models::close_against_readers(4, 2);
}

#[test]
fn closing_counts_exactly_against_a_writer_too() {
    output_models::close_against_writer_and_reader(ALL, 2);
}

#[test]
fn an_append_wakes_readers() {
    output_models::append_wakes(ALL, 1);
    output_models::append_wakes(ALL, 2);
}

#[test]
fn a_close_wakes_a_reader() {
    output_models::close_wakes(ALL);
}

#[test]
fn repeats_of_a_reconnected_writer_change_nothing() {
    output_models::repeated_writes(ALL);
}

#[test]
fn finds_a_relaxed_push() {
    finds("Causality violation", || relaxed_push::queue_models::pushers(ALL, &[1, 1], usize::MAX));
}

#[test]
fn finds_a_relaxed_release() {
    finds("Causality violation", || relaxed_release::queue_models::pushers(ALL, &[1, 1], usize::MAX));
}

#[test]
fn finds_an_owner_that_leaves_after_one_batch() {
    finds("events are lost", || one_batch::queue_models::pushers(ALL, &[1, 1], usize::MAX));
}

#[test]
fn finds_a_flag_that_is_cleared_before_one_last_look() {
    finds("events are lost", || flag_then_look::queue_models::pushers(3, &[1, 2], usize::MAX));
}

#[test]
fn finds_room_for_one_more() {
    finds("event ring full", || room_for_one_more::queue_models::room(2, 2));
}

#[test]
fn finds_delivered_in_an_atomic_of_its_own() {
    finds("delivered isn't", || two_atomics::output_models::close_against_readers(ALL, 1));
}

#[test]
fn finds_a_waker_registered_without_looking_for_a_chunk() {
    finds("deadlock", || look_then_register::output_models::append_wakes(ALL, 1));
}

#[test]
fn finds_a_waker_registered_without_looking_for_the_close() {
    finds("deadlock", || closed_looked_at_before::output_models::close_wakes(ALL));
}
