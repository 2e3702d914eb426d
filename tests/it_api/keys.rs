//! Who is let in with keys.

use switchbox::api::Origins;
use switchbox::api::auth::{Access, KeyRecord};
use switchbox::coordinator::event::Environment;
use switchbox::ids::Namespace;
use switchbox::secrets::{ApiKey, Pepper};

use crate::rig::{Answer, CHAT, Rig, Setup, chat_body, read_answer, request_text, run, send, start};

async fn keyed() -> (Rig, String) {
    let pepper = Pepper::random().expect("random bytes");
    let key = ApiKey::random().expect("random bytes");
    let record = KeyRecord::of_key(&key, &pepper, Namespace::named("team"), Environment::Mainnet);
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
