//! What an operator does to a running box, through the command line and through the admin API.

use crate::harness::chat;
use crate::harness::cli::{on, said};
use crate::harness::http::Response;
use crate::harness::server::{Server, Setup};
use crate::harness::wait_for;
use serde_json::{Value, json};

fn refused(answer: &Response, status: u16, code: &str) {
    answer.assert_refused(status, code);
}

fn job_of(answer: &Response) -> String {
    answer.header("x-switchbox-job-id").expect("an answer names its job").to_owned()
}

/// The id of the job after that one, on a box that nobody else uses.
fn next_job(job: &str) -> String {
    let digits = job.strip_prefix("job_").expect("a job's id");
    let number = u128::from_str_radix(digits, 16).expect("hexadecimal");
    format!("job_{:018x}", number + 1)
}

fn state(server: &Server, job: &str) -> Value {
    server.admin("GET", &format!("/admin/jobs/{job}")).value()
}

/// Asks, and looks at the job with `see` while it waits; `go_on` lets it go on.
fn held_back(server: &Server, job: &str, see: impl FnOnce(&str), go_on: impl FnOnce()) {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(server, "echo", "held back", json!({})));
        wait_for("the job to wait", || (state(server, job)["state"] == "queued").then_some(()));
        see(job);
        go_on();
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(job_of(&answer), job);
    });
}

#[test]
fn a_pause_holds_jobs_back_until_the_resume() {
    let server = Setup::open().model("echo", "echo:").start();
    for (kind, name) in [("model", "echo"), ("namespace", "default"), ("tier", "standard")] {
        let first = job_of(&chat::ask(&server, "echo", "first", json!({})));
        let job = next_job(&first);
        let paused = said(&server, &["pause", kind, name]);
        assert_eq!(paused, "paused: 0 jobs wait behind it, and 0 of them would expire within the hour\n");
        let see = |job: &str| {
            let view = state(&server, job);
            assert_eq!((&view["runnable"], &view["position"]), (&false.into(), &1.into()), "{view}");
            let shown = said(&server, &["jobs", "show", job]);
            assert!(shown.contains("can't run for now: its model, namespace or tier is paused"), "{shown}");
            let again = said(&server, &["pause", kind, name]);
            assert!(again.starts_with("paused: 1 jobs wait behind it, and 1 of"), "{again}");
        };
        held_back(&server, &job, see, || assert_eq!(said(&server, &["resume", kind, name]), "done\n"));
        assert_eq!(state(&server, &job)["history"][0]["outcome"], "succeeded");
    }
    server.assert_nothing_left();
}

#[test]
fn a_paused_node_gets_no_work() {
    let server = Setup::open().model("echo", "echo:").start();
    let first = job_of(&chat::ask(&server, "echo", "first", json!({})));
    assert_eq!(said(&server, &["nodes", "pause", "node_local"]), "done\n");
    let see = |_: &str| {
        let list = said(&server, &["nodes", "list"]);
        assert!(list.contains("node_local  paused"), "{list}");
    };
    held_back(&server, &next_job(&first), see, || {
        said(&server, &["nodes", "resume", "node_local"]);
    });
    refused(&server.command("/admin/nodes/node_local/ban", &json!({})), 409, "node_is_the_box");
    refused(&server.command("/admin/nodes/node_nobody/freeze", &json!({})), 404, "node_not_found");
    on(&server, &["nodes", "unfreeze", "node_nobody"]).check(1, &["node_not_found", "switchbox nodes list"]);
    server.assert_nothing_left();
}

#[test]
fn a_waiting_job_can_be_cancelled_by_the_operator() {
    let server = Setup::open().model("echo", "echo:").start();
    let job = next_job(&job_of(&chat::ask(&server, "echo", "first", json!({}))));
    said(&server, &["pause", "model", "echo"]);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| chat::ask(&server, "echo", "held back", json!({})));
        wait_for("the job to wait", || (state(&server, &job)["state"] == "queued").then_some(()));
        assert_eq!(said(&server, &["jobs", "cancel", &job]), "cancelled\n");
        refused(&asked.join().expect("no panic"), 503, "job_cancelled");
    });
    refused(&server.command(&format!("/admin/jobs/{job}/cancel"), &json!({})), 404, "job_not_found");
    server.assert_nothing_left();
}

#[test]
fn a_dead_letter_is_listed_and_tried_again_once() {
    let limits = "[limits]\nattempts_max = 1\nattempt_timeout_ms = 100";
    let server = Setup::open().model("slow", "echo:50").config(limits).start();
    let failed = chat::ask(&server, "slow", &chat::long_prompt(60), json!({}));
    assert_eq!(failed.status, 502, "{}", failed.text());
    let job = job_of(&failed);
    let trace = said(&server, &["jobs", "trace", &job]);
    for words in [
        "on node_local: ",
        " us expected (wait 0, load 0, prefill ",
        "the only node that could run it and had room",
        "deadline passed",
    ] {
        assert!(trace.contains(words), "{words:?} in\n{trace}");
    }
    assert_eq!(
        said(&server, &["jobs", "dead-letters"]),
        format!("job                     requeued as\n{job}\n")
    );
    let said_so = said(&server, &["jobs", "requeue", &job]);
    let again = said_so.trim().strip_prefix("requeued as ").expect("the new job").to_owned();
    assert_ne!(again, job);
    let view = state(&server, &again);
    assert_eq!(view["origin"]["requeued"], job.as_str(), "{view}");
    refused(&server.command(&format!("/admin/jobs/{job}/requeue"), &json!({})), 409, "requeued_already");
    wait_for("the new job to fail too", || (state(&server, &again)["state"] == "failed").then_some(()));
    let letters = server.admin("GET", "/admin/dead-letters").value();
    let expected = json!([{"job": again, "requeued_as": null}, {"job": job, "requeued_as": again}]);
    assert_eq!(letters["dead_letters"], expected);
    let never = "/admin/jobs/job_00000001ffffffffff/requeue";
    refused(&server.command(never, &json!({})), 404, "job_not_found");
    server.assert_nothing_left();
}

fn balance(server: &Server, account: &str) -> Value {
    let all = server.admin("GET", "/admin/balances").value();
    let found = all["balances"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|line| (&line["account"], &line["environment"]) == (&account.into(), &"mainnet".into()));
    found.map_or(Value::Null, |line| line["balance"].clone())
}

#[test]
fn deposits_count_once_and_prices_hold_from_their_date() {
    let server = Setup::open().model("echo", "echo:").start();
    let deposit = ["credits", "deposit", "default", "12.5", "--operation", "c0ffee"];
    for _ in 0..2 {
        assert_eq!(said(&server, &deposit), "deposited, as operation c0ffee\n");
        assert_eq!(balance(&server, "namespace"), "12.500000");
    }
    assert_eq!(balance(&server, "issuance"), "-12.500000");
    let other = json!({"operation": "c0ffee", "namespace": "default", "credits": "13"});
    refused(&server.command("/admin/deposits", &other), 409, "ledger_refused");
    let later = "4000000000";
    said(&server, &["credits", "price", "--model", "echo", "1000000", "2000000"]);
    said(&server, &["credits", "price", "--model", "echo", "7", "7", "--from", later]);
    let answer = chat::ask(&server, "echo", "one two three", json!({}));
    let usage = &answer.value()["usage"];
    let tokens = |key: &str| usage[key].as_u64().expect("a count");
    let cost = tokens("prompt_tokens") + 2 * tokens("completion_tokens");
    assert_eq!(state(&server, &job_of(&answer))["charged"], format!("{cost}.000000"));
    let table = said(&server, &["credits", "balances"]);
    assert!(table.contains("mainnet      namespace  default"), "{table}");
    server.assert_nothing_left();
}

#[test]
fn commands_that_make_no_sense_are_refused_by_name() {
    let server = Setup::open().model("echo", "echo:").start();
    for (path, body, param) in [
        ("/admin/pause", json!({"model": "a", "tier": "batch"}), "body"),
        ("/admin/pause", json!({"tier": "fast"}), "tier"),
        ("/admin/resume", json!({"planet": "mars"}), "body"),
        ("/admin/deposits", json!({"operation": "1", "namespace": "a", "credits": "-1"}), "credits"),
        ("/admin/deposits", json!({"operation": "1", "namespace": "a", "credits": 1}), "body"),
        ("/admin/deposits", json!({"operation": "zz", "namespace": "a", "credits": "1"}), "operation"),
        ("/admin/prices", json!({"input": "1", "output": "1e9"}), "output"),
        ("/admin/prices", json!({"input": "1", "output": "1", "environment": "prod"}), "environment"),
        ("/admin/jobs/job_zz/requeue", json!({}), "id"),
    ] {
        let answer = server.command(path, &body);
        refused(&answer, 400, "invalid_value");
        assert_eq!(answer.error()["param"], param, "{path} {body}");
    }
    refused(
        &server.command("/admin/deposits", &json!({"operation": "1", "namespace": "a", "credits": "0"})),
        409,
        "ledger_refused",
    );
    let huge = json!({"model": "x".repeat(2 << 20)});
    refused(&server.command("/admin/pause", &huge), 413, "body_too_large");
    refused(&server.call("POST", "/admin/pause", r#"{"model":"echo"}"#), 404, "unknown_url");
    on(&server, &["pause", "planet", "mars"]).check(2, &["planet"]);
    assert_eq!(chat::ask(&server, "echo", "still here", json!({})).status, 200);
    server.assert_nothing_left();
}
