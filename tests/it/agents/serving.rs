//! An agent serves a box: sync, streamed, cancelled; cut off and found again.

use super::*;
use crate::harness::cli;
use crate::harness::server::TempDir;
use rustix::process::Signal;

#[test]
fn an_agent_joins_and_serves_sync_streams_and_cancels() {
    let server = box_of_agents("");
    let dir = TempDir::new();
    let mut agent = joined(&server, &dir.join("agent"), None);
    let before = paid(&server);
    let answer = chat::ask(&server, "echo", "one two three", json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.value()["choices"][0]["message"]["content"], "one two three");
    let usage = &answer.value()["usage"];
    assert_eq!(usage["completion_tokens"], 3, "{usage}");
    assert_eq!(paid(&server) - before, 6, "three tokens in, three out");
    let said = words(40);
    assert_eq!(stream(&server, "slow", &said).rest(), (said, Event::Done));
    // A client that leaves cancels; the node stops and the client pays for what was generated.
    let before = paid(&server);
    let mut events = stream(&server, "slow", &words(5_000));
    let job = job_of(&mut events);
    events.first_text();
    drop(events);
    wait_for("the cancel", || (seen(&server, &job)["state"] == "cancelled").then_some(()));
    let cost = paid(&server) - before;
    assert!((5_001..9_000).contains(&cost), "input and some of the output: {cost}");
    // With its next sign of life its owner sees what it has earned.
    let earned = || {
        let shown = node(&server, &name_of(&agent))["earnings"]["mainnet"].clone();
        shown.as_str().and_then(|text| text.replace('.', "").parse::<i64>().ok())
    };
    let shown = || {
        let data = agent.data.to_str().expect("UTF-8");
        let ran = cli::run(["agent", "status", "--json", "--data-dir", data]);
        let status: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        status["environments"][0]["balance_microcredits"].as_i64()
    };
    assert!(earned().is_some_and(|earned| earned > 0));
    wait_for("the earnings", || (shown() == earned()).then_some(()));
    agent.signal(Signal::TERM);
    agent.ends(0, &[]);
    server.assert_nothing_left();
}

#[test]
fn a_broken_connection_costs_no_token() {
    let server = box_of_agents("");
    let proxy = Proxy::before(server.addr);
    let dir = TempDir::new();
    let _agent = joined(&server, &dir.join("agent"), Some(&proxy));
    let before = paid(&server);
    let said = words(150);
    let mut events = stream(&server, "slow", &said);
    let mut text = events.first_text();
    for _ in 0..3 {
        proxy.cut();
        // Something comes after it, so the agent is back.
        text.push_str(&events.first_text());
    }
    // What the box never heard is said again.
    proxy.deafen();
    std::thread::sleep(std::time::Duration::from_millis(200));
    proxy.mend();
    let (rest, end) = events.rest();
    text.push_str(&rest);
    assert_eq!((text, end), (said, Event::Done));
    assert_eq!(paid(&server) - before, 300);
    drop(events);
    server.assert_nothing_left();
}

#[test]
fn a_box_that_restarts_finds_its_agent_again() {
    let dir = TempDir::new();
    let start = || Setup::open().model("echo", "echo:").model("slow", SLOW);
    let mut server = start().start_in(&dir.join("box"));
    paused(&server);
    let proxy = Proxy::before(server.addr);
    let agent = joined(&server, &dir.join("agent"), Some(&proxy));
    let name = name_of(&agent);
    let polled = json!({"model": "slow", "messages": [{"role": "user", "content": words(200)}]});
    let body = json!({"endpoint": "/v1/chat/completions", "body": polled});
    let answer = server.call("POST", "/v1/jobs", &body.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = answer.value()["id"].as_str().expect("an id").to_owned();
    wait_for("the job to run", || (seen(&server, &job)["state"] == "running").then_some(()));
    let listen = server.addr.to_string();
    server.signal(Signal::KILL);
    server.wait_exit();
    drop(server);
    let server = start().arg("--listen").arg(&listen).start_in(&dir.join("box"));
    wait_for("the job to succeed", || (seen(&server, &job)["state"] == "succeeded").then_some(()));
    assert_eq!(seen(&server, &job)["attempts"], 1, "the attempt went on: {}", seen(&server, &job));
    wait_until_ready(&server, &name);
    assert_eq!(chat::ask(&server, "echo", "again", json!({})).status, 200);
    server.assert_nothing_left();
}
