//! Who is let in with keys.

use switchbox::api::auth::{Access, Grant, KeyRecord};
use switchbox::api::{Limits, Origins};
use switchbox::coordinator::event::Environment;
use switchbox::ids::Namespace;
use switchbox::secrets::{ApiKey, Pepper};

use crate::rig::{Answer, CHAT, Rig, Setup, chat_body, read_answer, request_text, run, send, start};

fn whole(namespace: &str) -> Grant {
    Grant::whole(Namespace::named(namespace), Environment::Mainnet)
}

async fn keyed() -> (Rig, String) {
    let pepper = Pepper::random().expect("random bytes");
    let key = ApiKey::random().expect("random bytes");
    let record = KeyRecord::of_key(&key, &pepper, whole("team"));
    let access = Access::keyed(&pepper, vec![record]);
    let origins = Origins::listed(["https://chat.example"]);
    (start(Setup { access, origins, ..Setup::default() }).await, key.text().to_owned())
}

async fn ask(rig: &Rig, more: &str) -> Answer {
    let text = request_text("POST", CHAT, more, &chat_body("echo", "x", ""));
    read_answer(send(rig.inference, text.replace("host: localhost", "host: box.example").as_bytes()).await)
        .await
}

#[test]
fn a_key_lets_in_from_anywhere() {
    run(async {
        let (rig, key) = keyed().await;
        let authorization = format!("authorization: Bearer {key}\r\nopenai-organization: o\r\n");
        let answer = ask(&rig, &authorization).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let answer = ask(&rig, &format!("{authorization}origin: https://evil.example\r\n")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
        let answer = ask(&rig, &format!("{authorization}origin: https://chat.example\r\n")).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://chat.example"));
    });
}

#[test]
fn without_the_right_key_nothing_is_read() {
    run(async {
        let (rig, key) = keyed().await;
        ask(&rig, "").await.assert_error(401, "invalid_api_key");
        ask(&rig, &format!("authorization: Bearer {}x\r\n", &key[..key.len() - 1])).await;
        // The body never comes, and isn't waited for.
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n");
        let answer = read_answer(send(rig.inference, head.as_bytes()).await).await;
        answer.assert_error(401, "invalid_api_key");
        assert_eq!(rig.get("/v1/models").await.status, 401);
        assert_eq!(rig.get("/healthz").await.status, 200);
        for _ in 0..10 {
            ask(&rig, "authorization: Bearer sk-wrong\r\n").await;
        }
        let blocked = ask(&rig, "authorization: Bearer sk-wrong\r\n").await;
        blocked.assert_error(429, "too_many_failures");
        assert_eq!(blocked.header("retry-after"), Some("60"));
        assert_eq!(ask(&rig, &format!("authorization: Bearer {key}\r\n")).await.status, 200);
    });
}

/// A request with that key, and its answer.
async fn call(rig: &Rig, key: &str, method: &str, path: &str, body: &str) -> Answer {
    let authorization = format!("authorization: Bearer {key}\r\n");
    read_answer(send(rig.inference, request_text(method, path, &authorization, body).as_bytes()).await).await
}

/// A job by name that takes a while.
async fn submit(rig: &Rig, key: &str) -> String {
    let body = chat_body("slow", &"word ".repeat(900), "");
    let job = format!(r#"{{"endpoint":"{CHAT}","body":{body}}}"#);
    let accepted = call(rig, key, "POST", "/v1/jobs", &job).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    format!("/v1/jobs/{}", accepted.json()["id"].as_str().expect("an id"))
}

#[test]
fn a_namespace_sees_none_of_anothers_jobs_and_takes_none_of_its_places() {
    run(async {
        let pepper = Pepper::random().expect("random bytes");
        let keys = [(); 2].map(|()| ApiKey::random().expect("random bytes"));
        let named = keys.iter().zip(["one", "other"]);
        let records = named.map(|(key, name)| KeyRecord::of_key(key, &pepper, whole(name)));
        let access = Access::keyed(&pepper, records.collect());
        let limits = Limits { job_waiters_max: 4, ..Limits::default() };
        let rig = start(Setup { access, limits, ..Setup::default() }).await;
        let [one, other] = keys.each_ref().map(|key| key.text());
        let (job, foreign) = (submit(&rig, one).await, submit(&rig, other).await);
        call(&rig, other, "GET", &job, "").await.assert_error(404, "job_not_found");
        call(&rig, other, "DELETE", &job, "").await.assert_error(404, "job_not_found");
        let waiting = |key: &str, job: &str| {
            let authorization = format!("authorization: Bearer {key}\r\n");
            let text = request_text("GET", &format!("{job}?wait=60s"), &authorization, "");
            async move { send(rig.inference, text.as_bytes()).await }
        };
        let mut waiters = vec![waiting(one, &job).await, waiting(one, &job).await];
        rig.wait_for("switchbox_job_waiters", 2).await;
        let refused = call(&rig, one, "GET", &format!("{job}?wait=60s"), "").await;
        refused.assert_error(429, "rate_limit_exceeded");
        assert_eq!(refused.header("retry-after"), Some("1"));
        waiters.push(waiting(other, &foreign).await);
        rig.wait_for("switchbox_job_waiters", 3).await;
        for (key, job) in [(one, &job), (other, &foreign)] {
            assert_eq!(call(&rig, key, "DELETE", job, "").await.status, 200);
        }
        for waiter in waiters {
            let answer = read_answer(waiter).await;
            assert_eq!((answer.status, &answer.json()["state"]), (200, &"cancelled".into()));
        }
        // One that has ended is read from the store, and is none to a stranger there either.
        call(&rig, other, "GET", &job, "").await.assert_error(404, "job_not_found");
        assert_eq!(call(&rig, one, "GET", &job, "").await.json()["state"], "cancelled");
    });
}
