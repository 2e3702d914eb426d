//! `kill -9` of an agent: at each point the client gets every token once, or an error event, and pays once, or nothing.

use super::*;
use crate::harness::server::TempDir;
use std::time::Duration;

/// Kill points of the random test, unless the environment names another number.
const POINTS_DEFAULT: u64 = 100;

fn results(data: &Path) -> usize {
    let Ok(names) = std::fs::read_dir(data.join("results")) else { return 0 };
    names.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

/// Starts an agent again on its directory.
fn again(data: &Path) -> Agent {
    let mut agent = both().start_in(data);
    agent.wait_ready();
    agent
}

/// Before it showed anything: the job runs again, and its client never knows.
#[test]
fn killed_before_the_first_token_the_job_runs_again_unseen() {
    let server = box_of_agents("");
    let dir = TempDir::new();
    let data = dir.join("agent");
    let mut agent = joined(&server, &data, None);
    let before = paid(&server);
    // Nothing of a sync answer is shown before its end.
    let said = words(100);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "slow", &said, json!({})));
        wait_for("the attempt", || (server.metrics().jobs("running") == 1).then_some(()));
        agent.kill();
        agent = again(&data);
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.value()["choices"][0]["message"]["content"], said);
    });
    assert_eq!(paid(&server) - before, 200);
    server.assert_nothing_left();
}

/// At the first token, and in the middle: what was shown stays, an error event follows, and nothing is charged.
#[test]
fn killed_after_the_first_token_the_stream_ends_in_an_error_and_costs_nothing() {
    let server = box_of_agents("");
    let dir = TempDir::new();
    let data = dir.join("agent");
    let mut agent = joined(&server, &data, None);
    let before = paid(&server);
    for texts in [1, 20] {
        let said = words(500);
        let mut events = stream(&server, "slow", &said);
        let mut text = String::new();
        for _ in 0..texts {
            text.push_str(&events.first_text());
        }
        agent.kill();
        agent = again(&data);
        let (rest, end) = events.rest();
        text.push_str(&rest);
        assert!(is_error(&end), "{end:?}");
        assert!(said.starts_with(&text) && text.len() < said.len(), "{text}");
    }
    assert_eq!(paid(&server) - before, 0);
    server.assert_nothing_left();
}

/// Its result arrived, and the acknowledgement did not: the next start tells it again, and that changes nothing.
#[test]
fn killed_before_the_acknowledgement_the_job_is_charged_once() {
    let server = box_of_agents("");
    let proxy = Proxy::before(server.addr);
    let dir = TempDir::new();
    let data = dir.join("agent");
    let mut agent = joined(&server, &data, Some(&proxy));
    let before = paid(&server);
    let said = words(30);
    let mut events = stream(&server, "slow", &said);
    let mut text = events.first_text();
    proxy.mute();
    let (rest, end) = events.rest();
    text.push_str(&rest);
    assert_eq!((text, end), (said, Event::Done));
    drop(events);
    wait_for("the result on the disk", || (results(&data) == 1).then_some(()));
    agent.kill();
    proxy.mend();
    let _agent = again(&data);
    wait_for("the result to be settled", || (results(&data) == 0).then_some(()));
    assert_eq!(paid(&server) - before, 60);
    server.assert_nothing_left();
}

/// Its result was made and never arrived: the next start brings it, with the output that was missing.
#[test]
fn killed_after_a_result_that_never_arrived_it_is_brought_by_the_next_start() {
    let server = box_of_agents("");
    let proxy = Proxy::before(server.addr);
    let dir = TempDir::new();
    let data = dir.join("agent");
    let mut agent = joined(&server, &data, Some(&proxy));
    let before = paid(&server);
    let said = words(30);
    let mut events = stream(&server, "slow", &said);
    let mut text = events.first_text();
    proxy.deafen();
    wait_for("the result on the disk", || (results(&data) == 1).then_some(()));
    agent.kill();
    proxy.mend();
    let _agent = again(&data);
    let (rest, end) = events.rest();
    text.push_str(&rest);
    assert_eq!((text, end), (said, Event::Done));
    assert_eq!(paid(&server) - before, 60);
    drop(events);
    wait_for("the result to be settled", || (results(&data) == 0).then_some(()));
    server.assert_nothing_left();
}

/// Numbers that look random, the same for each seed.
struct Chances(u64);

impl Chances {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// At whatever point. Each agent dies once: one that dies again and again is excluded, as it should be.
#[test]
fn killed_anywhere_no_token_comes_twice_and_nothing_is_charged_twice() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let points = number("SWITCHBOX_KILL_POINTS").unwrap_or(POINTS_DEFAULT);
    let seed = number("SWITCHBOX_KILL_SEED").unwrap_or(u64::from(std::process::id()));
    println!("{points} kill points, SWITCHBOX_KILL_SEED={seed}");
    let server = box_of_agents("");
    let mut chances = Chances(seed);
    let (mut whole, mut errors) = (0, 0);
    for point in 0..points {
        let dir = TempDir::new();
        let data = dir.join("agent");
        let mut agent = joined(&server, &data, None);
        let before = paid(&server);
        let said = words(30);
        let delay = Duration::from_millis(chances.below(400));
        let is_stream = chances.below(2) == 0;
        let (text, succeeded) = std::thread::scope(|scope| {
            let asked =
                scope.spawn(|| if is_stream { streamed(&server, &said) } else { asked(&server, &said) });
            std::thread::sleep(delay);
            agent.kill();
            agent = again(&data);
            asked.join().expect("no panic")
        });
        let cost = paid(&server) - before;
        let shown = format!("point {point} (seed {seed}), {delay:?}, stream: {is_stream}: {text}");
        if succeeded {
            assert_eq!((text, cost), (said, 60), "{shown}");
            whole += 1;
        } else {
            assert!(is_stream && said.starts_with(&text), "{shown}");
            assert_eq!(cost, 0, "{shown}");
            errors += 1;
        }
        wait_for("the results to be settled", || (results(&data) == 0).then_some(()));
        agent.kill();
    }
    println!("{whole} answers came whole, {errors} ended in an error event");
    server.assert_nothing_left();
}

fn streamed(server: &Server, said: &str) -> (String, bool) {
    let (text, end) = stream(server, "slow", said).rest();
    assert!(end == Event::Done || is_error(&end), "{end:?}");
    (text, end == Event::Done)
}

fn asked(server: &Server, said: &str) -> (String, bool) {
    let answer = chat::ask(server, "slow", said, json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.value()["choices"][0]["message"]["content"].as_str().expect("a text").to_owned(), true)
}
