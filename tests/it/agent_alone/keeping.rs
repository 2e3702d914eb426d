//! Nothing is lost when the connection breaks, and no result when the agent dies.

use super::*;
use crate::harness::server::TempDir;
use crate::harness::wait_for;
use std::path::Path;

fn files(agent: &Agent) -> usize {
    let results = agent.data.join("results");
    let names = std::fs::read_dir(results).expect("the agent made it");
    names.filter(|entry| entry.as_ref().is_ok_and(|entry| !is_hidden(&entry.path()))).count()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

#[test]
fn a_broken_connection_resumes_with_every_chunk_once() {
    let (peer, _agent, call, authenticated) = working("echo:10");
    let words: Vec<String> = (0..300).map(|word| format!("w{word}")).collect();
    let said = words.join(" ");
    let assign = assign(1, &said);
    give(&call, &assign);
    let mut text = String::new();
    while text.len() < 40 {
        text.push_str(&some_output(&call).1);
    }
    drop(call);
    let (call, _, ready) = peer.admit();
    let hold = only(&ready.holds);
    assert_eq!((hold.reservation, hold.kv_tokens, hold.result.is_some()), (assign.reservation, 1_003, false));
    let have = text.split_inclusive(' ').count() as u32;
    assert!(hold.chunks >= have, "{} chunks after {have} were seen", hold.chunks);
    call.welcome(verdict(&assign, Verdict::Resume { from: have }));
    let (rest, completed) = follow(&call, have);
    text.push_str(&rest);
    assert_eq!(text, said);
    check(completed, &authenticated.parties, &assign, &text);
}

#[test]
fn a_result_is_told_again_until_it_is_settled() {
    let (peer, agent, call, authenticated) = working("echo:");
    let assign = assign(1, "one two");
    give(&call, &assign);
    let (text, completed) = follow(&call, 0);
    drop(call);
    // Again with its output, as if the box had restarted.
    let (call, _, ready) = peer.admit();
    assert_eq!(only(&ready.holds).result, Some(completed.clone().signed()));
    call.welcome(verdict(&assign, Verdict::Resume { from: 0 }));
    let (again, completed_again) = follow(&call, 0);
    assert_eq!((&again, &completed_again), (&text, &completed));
    check(completed_again, &authenticated.parties, &assign, &again);
    drop(call);
    // And listed only, where the box has taken it.
    let (call, _, ready) = peer.admit();
    only(&ready.holds);
    call.welcome(verdict(&assign, Verdict::Taken));
    wait_for("a result on the disk", || (files(&agent) == 1).then_some(()));
    settle(&call, &assign);
    wait_for("a settled result to go", || (files(&agent) == 0).then_some(()));
    drop(call);
    let (_, _, ready) = peer.admit();
    assert_eq!(ready.holds, []);
}

#[test]
fn what_nobody_waits_for_is_stopped_and_forgotten() {
    let (peer, _agent, call, authenticated) = working("echo:20");
    let long = assign(1, &"word ".repeat(1_000));
    give(&call, &long);
    some_output(&call);
    drop(call);
    let (call, _, ready) = peer.admit();
    only(&ready.holds);
    call.welcome(verdict(&long, Verdict::Unknown));
    stopped(&call, &authenticated.parties, &long);
    drop(call);
    let (_, _, ready) = peer.admit();
    assert_eq!(ready.holds, []);
}

#[test]
fn a_killed_agent_tells_the_results_that_it_had_and_nothing_of_what_ran() {
    let dir = TempDir::new();
    let data = dir.join("agent");
    let peer = Peer::start(1);
    let start = || Setup::model("echo", "echo:").arg("--model").arg("slow=echo:1000").start_in(&data);
    let mut agent = Setup::model("echo", "echo:")
        .arg("--model")
        .arg("slow=echo:1000")
        .join(&peer.join_string())
        .start_in(&data);
    let (call, authenticated) = peer.work();
    let (done, runs) = (assign(1, "one two"), Assign { model: "slow".into(), ..assign(2, "a b c d e f") });
    give(&call, &done);
    let (text, completed) = follow(&call, 0);
    give(&call, &runs);
    assert!(matches!(call.hear(), FromAgent::Accepted(_)));
    wait_for("a result on the disk", || (files(&agent) == 1).then_some(()));
    agent.kill();
    drop(call);

    let mut agent = start();
    let (call, again, ready) = peer.admit();
    assert_eq!(again.parties, authenticated.parties, "the same node");
    assert_eq!(again.invite, None, "a registered node needs no invite");
    assert_eq!(only(&ready.holds).result, Some(completed.signed()));
    call.welcome(verdict(&done, Verdict::Resume { from: 1 }));
    let (rest, completed) = follow(&call, 1);
    assert!(text.ends_with(&rest), "{text} {rest}");
    check(completed, &authenticated.parties, &done, &text);
    settle(&call, &done);
    wait_for("a settled result to go", || (files(&agent) == 0).then_some(()));
    agent.kill();
    drop(call);
    // Damaged, foreign or left over: none of it stops a start, and none is told.
    for (name, bytes) in [("res_000000010000000001.json", &b"{}"[..]), ("x", b""), (".half.new", b"[")] {
        std::fs::write(data.join("results").join(name), bytes).expect("room");
    }
    let _agent = start();
    let (_, _, ready) = peer.admit();
    assert_eq!(ready.holds, []);
}
