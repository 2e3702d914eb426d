//! An agent that is told to stop.

use super::*;
use crate::harness::scripted_box::Heard;
use rustix::process::Signal;
use switchbox::coordinator::event::{ErrorClass, Wish};
use switchbox::wire::statement::StatedStatus;
use switchbox::wire::to_agent::Empty;
use switchbox::wire::to_box::DeclineCause;

#[test]
fn what_was_seen_goes_on_what_was_not_goes_back_and_nothing_new_is_taken() {
    let peer = Peer::start(1);
    let mut agent = Setup::model("echo", "echo:10")
        .arg("--model")
        .arg("slow=echo:60000")
        .join(&peer.join_string())
        .start();
    let (call, authenticated) = peer.work();
    let (seen, unseen) =
        (assign(1, &"word ".repeat(50)), Assign { model: "slow".into(), ..assign(2, "a b") });
    give(&call, &unseen);
    assert!(matches!(call.hear(), FromAgent::Accepted(_)));
    give(&call, &seen);
    let (from, mut text) = some_output(&call);
    agent.signal(Signal::TERM);
    let (mut next, mut wished, mut handed_back, mut declined) = (from, false, false, false);
    let completed = loop {
        match call.hear() {
            FromAgent::Wish(wish) => {
                assert_eq!(wish.wish, Wish::Drain);
                wished = true;
                give(&call, &assign(3, "late"));
            }
            FromAgent::Stopped(stopped) => {
                switchbox::wire::verify::stopped(
                    &stopped,
                    &authenticated.parties,
                    Some(&issued(&unseen, "")),
                )
                .expect("a word that holds");
                handed_back = true;
            }
            FromAgent::Declined(refused) => {
                assert_eq!(refused.cause, DeclineCause::Stopping);
                declined = true;
            }
            FromAgent::Output(output) => {
                assert_eq!((output.reservation, output.index), (seen.reservation, next));
                next += output.chunks.len() as u32;
                output.chunks.iter().for_each(|chunk| text.push_str(&chunk.text));
            }
            FromAgent::Completed(completed) => break *completed,
            other => panic!("{other:?}"),
        }
    };
    assert!(wished && handed_back && declined);
    check(completed, &authenticated.parties, &seen, &text);
    settle(&call, &seen);
    call.say(&FromBox::Drained(Empty {}));
    assert!(matches!(call.hear(), FromAgent::Goodbye(_)));
    assert!(matches!(call.next(), Heard::Closed(Some(1000))));
    agent.ends(0, &[]);
}

#[test]
fn at_the_deadline_what_runs_ends_as_failed() {
    let peer = Peer::start(1);
    let mut agent = Setup::model("echo", "echo:50")
        .arg("--drain-deadline")
        .arg("100ms")
        .join(&peer.join_string())
        .start();
    let (call, authenticated) = peer.work();
    let long = assign(1, &"word ".repeat(1_000));
    give(&call, &long);
    let (from, mut text) = some_output(&call);
    agent.signal(Signal::TERM);
    assert!(matches!(call.hear(), FromAgent::Wish(_)));
    let (rest, completed) = follow(&call, from);
    text.push_str(&rest);
    let StatedStatus::Failed { class, .. } = &completed.statement.status else { panic!("{completed:?}") };
    assert_eq!(*class, ErrorClass::Transient);
    check(completed, &authenticated.parties, &long, &text);
    settle(&call, &long);
    call.say(&FromBox::Drained(Empty {}));
    agent.ends(0, &[]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_peer, mut agent, call, _) = working("echo:50");
    give(&call, &assign(1, &"word ".repeat(1_000)));
    some_output(&call);
    agent.signal(Signal::TERM);
    assert!(matches!(call.hear(), FromAgent::Wish(_)));
    agent.signal(Signal::INT);
    agent.ends(1, &["a second signal"]);
}

#[test]
fn without_a_box_it_leaves_at_once() {
    let (peer, mut agent, call, _) = working("echo:");
    let assign = assign(1, "one");
    give(&call, &assign);
    follow(&call, 0);
    drop(peer);
    drop(call);
    agent.signal(Signal::TERM);
    agent.ends(0, &[]);
    assert!(
        agent.data.join("results").join(format!("{}.json", assign.reservation)).exists(),
        "kept for the next start"
    );
}
