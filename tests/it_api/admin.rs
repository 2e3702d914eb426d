//! The operator's listener.

use crate::rig::{ADMIN_TOKEN, CHAT, Setup, chat_body, read_answer, request_text, run, send, start};

#[test]
fn nothing_without_the_token() {
    run(async {
        let rig = start(Setup::default()).await;
        for path in ["/metrics", "/admin/nodes", "/nowhere"] {
            let text = request_text("GET", path, "authorization: Bearer admin-tokem\r\n", "");
            read_answer(send(rig.admin, text.as_bytes()).await).await.assert_error(401, "invalid_api_key");
        }
        let more = format!("authorization: Bearer {ADMIN_TOKEN}\r\norigin: https://evil.example\r\n");
        let text = request_text("GET", "/metrics", &more, "");
        read_answer(send(rig.admin, text.as_bytes()).await).await.assert_error(403, "origin_not_allowed");
        let text = text.replace("host: localhost", "host: evil.example");
        read_answer(send(rig.admin, text.as_bytes()).await).await.assert_error(403, "host_not_allowed");
        rig.ask("GET", "/nowhere").await.assert_error(404, "unknown_url");
        rig.ask("GET", "/admin/drain").await.assert_error(405, "method_not_allowed");
    });
}

#[test]
fn what_the_core_says_is_shown() {
    run(async {
        let rig = start(Setup::default()).await;
        let answer = rig.post(CHAT, &chat_body("echo", "hi there", "")).await;
        let job = answer.header("x-switchbox-job-id").expect("a job").to_owned();
        let nodes = rig.ask("GET", "/admin/nodes").await.json();
        assert_eq!(nodes["nodes"][0]["node"], "node_local");
        assert_eq!(rig.ask("GET", "/admin/queue").await.json()["queue"], serde_json::json!([]));
        let verdict = rig.ask("GET", "/admin/invariants").await.json();
        assert_eq!(
            (&verdict["ok"], &verdict["recount"]["jobs"]["running"]),
            (&true.into(), &0.into()),
            "{verdict}"
        );
        let trace = rig.ask("GET", &format!("/admin/jobs/{job}/trace")).await.json();
        assert_eq!((&trace["job"], &trace["state"]), (&job.into(), &"succeeded".into()), "{trace}");
        assert_eq!(trace["trace"][0]["event"], "submitted");
        assert!(!trace.to_string().contains("hi there"));
        rig.ask("GET", "/admin/jobs/job_zz/trace").await.assert_error(400, "invalid_value");
        rig.ask("GET", "/admin/jobs/job_00000001ffffffffff/trace").await.assert_error(404, "job_not_found");
        let metrics = rig.ask("GET", "/metrics").await;
        assert!(
            metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4"))
        );
    });
}
