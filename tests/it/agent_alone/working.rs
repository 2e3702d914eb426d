//! Assignments: taken, run, signed, stopped, declined.

use super::*;
use crate::harness::scripted_box::Heard;
use switchbox::wire::statement::StatedStatus;
use switchbox::wire::to_agent::{Empty, Stop};
use switchbox::wire::to_box::DeclineCause;

#[test]
fn an_agent_joins_serves_and_signs() {
    let peer = Peer::start(1);
    let mut agent = Setup::model("echo", "echo:").join(&peer.join_string()).start();
    let (call, authenticated, ready) = peer.admit();
    assert_eq!(authenticated.environments, [Environment::Mainnet]);
    assert!(authenticated.invite.is_some());
    let model = &ready.offer.models[0];
    assert_eq!((&*model.name, model.slots, model.digest), ("echo", 64, None));
    assert!(ready.offer.memory_bytes > 0 && ready.offer.slots == 64, "{:?}", ready.offer);
    assert_eq!((ready.holds.len(), ready.configurations.len()), (0, 0));
    call.welcome(Vec::new());
    let node = authenticated.parties.node_key.node();
    assert_eq!(agent.wait_ready().trim(), format!("switchbox agent ready: {node} at http://{}", peer.addr));
    call.heartbeat();
    for (counter, said) in [(1, "one two three"), (2, "")] {
        let assign = assign(counter, said);
        give(&call, &assign);
        let (text, completed) = follow(&call, 0);
        assert_eq!(text, said);
        assert!(matches!(completed.statement.status, StatedStatus::Succeeded { .. }));
        check(completed, &authenticated.parties, &assign, &text);
        settle(&call, &assign);
    }
    agent.signal(rustix::process::Signal::TERM);
    assert!(matches!(call.hear(), FromAgent::Wish(_)));
    call.say(&FromBox::Drained(Empty {}));
    assert!(matches!(call.hear(), FromAgent::Goodbye(_)));
    assert!(matches!(call.next(), Heard::Closed(Some(1000))));
    agent.ends(0, &[]);
}

#[test]
fn a_stop_is_answered_with_what_was_done() {
    let (_peer, _agent, call, authenticated) = working("echo:20");
    let long = assign(1, &"word ".repeat(1_000));
    give(&call, &long);
    let (chunks, _) = some_output(&call);
    call.say(&FromBox::Stop(Stop { reservation: long.reservation }));
    let stopped = stopped(&call, &authenticated.parties, &long);
    assert_eq!(stopped.statement.input_tokens, 3);
    assert!((chunks..900).contains(&stopped.statement.output_tokens), "{stopped:?}");
    // What the agent doesn't know, and what is over, it leaves alone; then it works on.
    call.say(&FromBox::Stop(Stop { reservation: long.reservation }));
    call.say(&FromBox::Stop(Stop { reservation: reservation(99) }));
    let short = assign(2, "a b");
    give(&call, &short);
    let (text, completed) = follow(&call, 0);
    // A stop that crosses the result changes nothing.
    call.say(&FromBox::Stop(Stop { reservation: short.reservation }));
    check(completed, &authenticated.parties, &short, &text);
    settle(&call, &short);
    let again = assign(3, "c");
    give(&call, &again);
    assert_eq!(follow(&call, 0).0, "c");
}

#[test]
fn what_it_cannot_run_is_declined() {
    let peer = Peer::start(1);
    let _agent = Setup::model("echo", "echo:50").arg("--slots").arg("1").join(&peer.join_string()).start();
    let (call, authenticated) = peer.work();
    let declined = |assign: &Assign| {
        give(&call, assign);
        loop {
            match call.hear() {
                FromAgent::Declined(declined) => {
                    assert_eq!(declined.reservation, assign.reservation);
                    return (declined.cause, declined.reason);
                }
                FromAgent::Accepted(_) | FromAgent::Output(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let (cause, reason) = declined(&Assign { model: "other".into(), ..assign(1, "x") });
    assert!(cause == DeclineCause::Model && reason.contains("`other`"), "{reason}");
    let (cause, _) = declined(&Assign { environment: Environment::Testnet, ..assign(2, "x") });
    assert_eq!(cause, DeclineCause::Configuration);
    let running = assign(3, &"word ".repeat(100));
    give(&call, &running);
    some_output(&call);
    assert_eq!(declined(&assign(4, "x")).0, DeclineCause::Busy);
    call.say(&FromBox::Stop(Stop { reservation: running.reservation }));
    stopped(&call, &authenticated.parties, &running);
    // A request that is wrong everywhere is no decline: it is a result.
    let wrong = Assign { body: Body(Arc::from(*b"{}")), ..assign(5, "") };
    give(&call, &wrong);
    let (_, completed) = follow(&call, 0);
    let StatedStatus::Failed { class, .. } = &completed.statement.status else { panic!("{completed:?}") };
    assert_eq!(*class, switchbox::coordinator::event::ErrorClass::Terminal);
    check(completed, &authenticated.parties, &wrong, "");
}

#[test]
fn an_assignment_that_comes_twice_runs_once() {
    let (_peer, _agent, call, _) = working("echo:5");
    let assign = assign(1, "one two three four");
    give(&call, &assign);
    give(&call, &assign);
    assert_eq!(follow(&call, 0).0, "one two three four");
    settle(&call, &assign);
    let next = super::assign(2, "x");
    give(&call, &next);
    assert_eq!(follow(&call, 0).0, "x");
}
