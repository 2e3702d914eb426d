//! Who is talked to, and what becomes of connections that end.

use super::*;
use crate::harness::cli;
use crate::harness::scripted_box::Heard;
use crate::harness::server::TempDir;
use crate::harness::wait_for;
use switchbox::wire::JoinString;
use switchbox::wire::to_agent::Goodbye;

#[test]
fn an_agent_that_was_never_told_of_a_box_says_what_to_do() {
    let dir = TempDir::new();
    let mut agent = Setup::model("echo", "echo:").start_in(&dir.join("agent"));
    agent.ends(2, &["--join STRING", "switchbox nodes invite"]);
    let mut agent =
        Setup::model("echo", "echo:").join("switchbox-join:1,http://x").start_in(&dir.join("agent"));
    agent.ends(2, &["join string"]);
    let mut agent = Setup::model("echo", "echo:").arg("--device").arg("cuda").start_in(&dir.join("agent"));
    agent.ends(2, &["--device cuda", "CPU"]);
}

#[test]
fn two_agents_never_share_a_directory() {
    let (peer, agent, _call, _) = working("echo:");
    let mut second = Setup::model("echo", "echo:").join(&peer.join_string()).start_in(&agent.data);
    second.ends(1, &["in use by another switchbox process", "--data-dir DIR"]);
    let key = agent.data.join("node.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).expect("a key").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_box_with_another_key_is_refused_by_name() {
    let peer = Peer::start(1);
    let other = Peer::start(2);
    let join: JoinString = peer.join_string().parse().expect("a join string");
    let join = JoinString { box_key: other.identity.public(), ..join };
    let agent = Setup::model("echo", "echo:").join(&join.text()).start();
    let call = peer.call();
    let FromAgent::Hello(hello) = call.hear() else { panic!("`hello` comes first") };
    let answer = switchbox::wire::handshake::BoxSide::answer(
        &peer.identity,
        &hello,
        switchbox::wire::keys::Hex([1; 32]),
    );
    call.say(&FromBox::Challenge(answer.expect("a known version").1));
    let FromAgent::Goodbye(Goodbye { code, reason }) = call.hear() else {
        panic!("nothing of the node is said")
    };
    assert!(code == 4100 && reason.contains("poses as it"), "{code} {reason}");
    assert!(matches!(call.next(), Heard::Closed(Some(4100))));
    // It tries again, not sooner than in a minute, and tells its owner.
    let data = agent.data.to_str().expect("UTF-8");
    let status = wait_for("the refusal in the status", || {
        let status = cli::run(["agent", "status", "--data-dir", data]);
        status.stdout.contains("poses as it").then_some(status)
    });
    status.check(0, &["connection  none, next try in"]);
}

#[test]
fn a_box_that_wont_have_the_node_ends_the_agent_with_its_words() {
    for (code, words) in [(4008, "invite"), (4009, "banned"), (4012, "two agents")] {
        let (_peer, mut agent, call, _) = working("echo:");
        let reason = format!("no: {words}");
        call.say(&FromBox::Goodbye(Goodbye { code, reason: reason.clone() }));
        call.close(code);
        agent.ends(1, &["the box won't let this node work", &reason, &code.to_string()]);
    }
}

#[test]
fn a_box_that_restarts_is_called_again() {
    let (peer, _agent, call, _) = working("echo:");
    call.close(1012);
    let (call, _) = peer.work();
    let assign = assign(1, "still here");
    give(&call, &assign);
    assert_eq!(follow(&call, 0).0, "still here");
}

#[test]
fn what_is_out_of_order_ends_the_connection_and_not_the_agent() {
    let (peer, _agent, call, _) = working("echo:");
    call.welcome(Vec::new());
    let FromAgent::Goodbye(Goodbye { code, .. }) = call.hear() else { panic!("it says why") };
    assert_eq!(code, 4002);
    assert!(matches!(call.next(), Heard::Closed(Some(4002))));
    let (call, _, ready) = peer.admit();
    assert_eq!(ready.holds, []);
    // Verdicts on what wasn't listed.
    call.welcome(verdict(&assign(1, ""), Verdict::Unknown));
    assert!(matches!(call.hear(), FromAgent::Goodbye(Goodbye { code: 4002, .. })));
    let (call, _) = peer.work();
    give(&call, &assign(1, "x"));
    assert_eq!(follow(&call, 0).0, "x");
}
