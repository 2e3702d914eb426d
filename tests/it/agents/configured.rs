//! Configurations: a box serves them, and its agents go by them.

use super::*;
use crate::harness::cli::{self, said};
use crate::harness::server::TempDir;
use rustix::process::Signal;

/// Puts a configuration with these models in force.
fn apply(server: &Server, models: &[&str], more: &str) {
    let model = |name: &&str| {
        format!(
            "[[model]]\nname = \"{name}\"\nversion = \"v1\"\nruntime = \"echo\"\ndigest = \"{}\"\n",
            "ab".repeat(32)
        )
    };
    let text: String = models.iter().map(model).collect();
    let path = server.data.with_extension("nodes.toml");
    std::fs::write(&path, text + more).expect("written");
    said(server, &["snapshot", "apply", path.to_str().expect("UTF-8")]);
}

/// What the agent's owner sees of its configuration.
fn version(agent: &Agent) -> Option<u64> {
    let ran = cli::run(["agent", "status", "--json", "--data-dir", agent.data.to_str().expect("UTF-8")]);
    ran.check(0, &[]);
    let status: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    status["environments"][0]["configuration_version"].as_u64()
}

fn wait_for_version(agent: &Agent, expected: u64) {
    wait_for(&format!("configuration {expected}"), || (version(agent) == Some(expected)).then_some(()));
}

fn sent(server: &Server) -> u64 {
    server.metrics().total("switchbox_node_snapshots_sent_total")
}

#[test]
fn an_agent_goes_by_the_boxs_configuration_at_once_and_when_it_changes() {
    let server = box_of_agents("");
    apply(&server, &["echo", "slow"], "");
    let dir = TempDir::new();
    let data = dir.join("agent");
    let mut agent = joined(&server, &data, None);
    wait_for_version(&agent, 1);
    for model in ["echo", "slow"] {
        assert_eq!(chat::ask(&server, model, "one", json!({})).status, 200, "{model}");
    }
    // While it is connected.
    apply(&server, &["echo"], "");
    wait_for_version(&agent, 2);
    assert_eq!(chat::ask(&server, "echo", "two", json!({})).status, 200);
    let gone = chat::ask(&server, "slow", "two", json!({}));
    assert_eq!((gone.status, &gone.error()["code"]), (404, &json!("model_not_found")), "{}", gone.text());
    assert_eq!(sent(&server), 2);
    // What it has on its disk it doesn't fetch again.
    agent.kill();
    let mut agent = both().start_in(&data);
    agent.wait_ready();
    assert_eq!(version(&agent), Some(2));
    let name = name_of(&agent);
    wait_until_ready(&server, &name);
    assert_eq!((chat::ask(&server, "echo", "three", json!({})).status, sent(&server)), (200, 2));
    // One without models leaves all of them to the nodes, and shorter patience is heeded.
    apply(&server, &[], "[timeouts]\nheartbeat_ttl_ms = 1_000\n");
    wait_for_version(&agent, 3);
    assert_eq!(chat::ask(&server, "slow", "four", json!({})).status, 200);
    let missed = server.metrics().total("switchbox_heartbeats_missed_total");
    assert_eq!(stream(&server, "slow", &words(300)).rest().1, Event::Done);
    assert_eq!(server.metrics().total("switchbox_heartbeats_missed_total"), missed);
    server.assert_nothing_left();
}

#[test]
fn a_box_that_was_put_back_does_not_take_its_agents_back() {
    let dir = TempDir::new();
    let start = || Setup::open().model("echo", "echo:").model("slow", SLOW);
    let mut server = start().start_in(&dir.join("box"));
    paused(&server);
    apply(&server, &["echo", "slow"], "");
    let mut agent = joined(&server, &dir.join("agent"), None);
    let listen = server.addr.to_string();
    let restart = |server: &mut Server, name: &str| {
        server.signal(Signal::TERM);
        server.wait_exit();
        *server = start().arg("--listen").arg(&listen).start_in(&dir.join(name));
    };
    let copied = |from: &str, to: &str| {
        let copy = std::process::Command::new("cp").arg("-r").arg(dir.join(from)).arg(dir.join(to)).status();
        assert!(copy.expect("cp runs").success());
    };
    server.signal(Signal::TERM);
    server.wait_exit();
    copied("box", "older");
    server = start().arg("--listen").arg(&listen).start_in(&dir.join("box"));
    apply(&server, &["echo"], "");
    wait_for_version(&agent, 2);
    restart(&mut server, "older");
    wait_for("the agent to be offered the older one", || {
        agent.stderr().contains("isn't newer than the one in force").then_some(())
    });
    assert_eq!(version(&agent), Some(2));
    // It goes on from there: the third number is beyond what the agent has.
    apply(&server, &["slow"], "");
    apply(&server, &["slow", "echo"], "");
    wait_for_version(&agent, 3);
    agent.signal(Signal::TERM);
    agent.ends(0, &[]);
}
