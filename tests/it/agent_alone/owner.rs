//! The owner's controls.

use super::*;
use crate::harness::cli::{self, Ran};
use crate::harness::server::TempDir;
use crate::harness::wait_for;
use serde_json::Value;
use switchbox::coordinator::event::Wish;
use switchbox::coordinator::standing;
use switchbox::wire::to_agent::{Earnings, Empty, Standing};

fn ask(agent: &Agent, what: &str) -> Ran {
    cli::run(["agent", what, "--data-dir", agent.data.to_str().expect("UTF-8")])
}

fn status(agent: &Agent) -> Value {
    let ran = cli::run(["agent", "status", "--json", "--data-dir", agent.data.to_str().expect("UTF-8")]);
    ran.check(0, &[]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

#[test]
fn an_owner_sees_how_the_node_is_and_why_no_work_comes() {
    let (_peer, agent, call, authenticated) = working("echo:10000");
    let say_standing = |standing, cause: &str| {
        call.say(&FromBox::Standing(Standing { standing, cause: cause.to_owned() }));
    };
    say_standing(standing::Standing::Excluded, "3 failed attempts");
    let heard = |key: &str| wait_for(key, || Some(status(&agent)).filter(|status| !status[key].is_null()));
    let shown = heard("last_exclusion");
    assert_eq!(shown["node"], authenticated.parties.node_key.node().to_string());
    assert_eq!(shown["connection"]["state"], "connected");
    assert_eq!(shown["last_exclusion"]["cause"], "3 failed attempts");
    assert_eq!(shown["idle_because"], "it is excluded for a while: 3 failed attempts");
    say_standing(standing::Standing::Ready, "");
    let balance_microcredits = -1_250_000;
    call.say(&FromBox::Earnings(Earnings { environment: Environment::Mainnet, balance_microcredits }));
    give(&call, &assign(1, "a b c"));
    assert!(matches!(call.hear(), FromAgent::Accepted(_)));
    let shown = status(&agent);
    assert_eq!(shown["running"][0]["job"], assign(1, "").job.to_string());
    assert_eq!((shown["models"][0]["running"].as_u64(), shown["idle_because"].is_null()), (Some(1), true));
    ask(&agent, "status").check(
        0,
        &[
            "(working)",
            "standing    ready",
            "excluded ",
            "3 failed attempts",
            "running     job_",
            "balance -1.250000",
        ],
    );
}

#[test]
fn an_owner_pauses_resumes_and_drains() {
    let (peer, mut agent, call, _) = working("echo:");
    let wish = |call: &Call| match call.hear() {
        FromAgent::Wish(wish) => wish.wish,
        other => panic!("{other:?}"),
    };
    ask(&agent, "pause").check(0, &["(paused)", "you paused it"]);
    assert_eq!(wish(&call), Wish::Pause);
    give(&call, &assign(1, "x"));
    let FromAgent::Declined(declined) = call.hear() else { panic!("it is paused") };
    assert!(declined.reason.contains("paused"), "{}", declined.reason);
    drop(call);
    // A box that forgot is told again.
    let (call, _) = peer.work();
    assert_eq!(wish(&call), Wish::Pause);
    ask(&agent, "resume").check(0, &["(working)"]);
    assert_eq!(wish(&call), Wish::Resume);
    let assign = assign(2, "y");
    give(&call, &assign);
    assert_eq!(follow(&call, 0).0, "y");
    ask(&agent, "drain").check(0, &["(draining)"]);
    assert_eq!(wish(&call), Wish::Drain);
    ask(&agent, "resume").check(1, &["draining"]);
    settle(&call, &assign);
    call.say(&FromBox::Drained(Empty {}));
    agent.ends(0, &[]);
    ask(&agent, "status").check(1, &["no agent answers", "--data-dir DIR"]);
}

#[test]
fn commands_that_nobody_knows_are_refused() {
    let (_peer, agent, _call, _) = working("echo:");
    let socket = agent.data.join("agent.sock");
    let tell = |bytes: &[u8]| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
        stream.write_all(bytes).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    for wrong in [&b"stop\n"[..], b"\n", b"{\"status\":1}\n"] {
        assert!(tell(wrong).contains("`status`"), "{wrong:?}");
    }
    assert!(tell(b"status\n").contains("\"report\""));
    let dir = TempDir::new();
    let nobody = cli::run(["agent", "status", "--data-dir", dir.0.to_str().expect("UTF-8")]);
    nobody.check(1, &["no agent answers"]);
    let long = "x".repeat(120);
    cli::run(["agent", "status", "--data-dir", &long]).check(1, &["Unix socket", "shorter path"]);
}
