//! What isn't a message, or shouldn't be one: each is refused with its close code and without panic.

use proptest::prelude::*;

use super::identity;
use crate::wire::hash::plain_hash;
use crate::wire::{
    CloseCode, FromAgent, FromBox, HANDSHAKE_BYTES_MAX, HOLDS_MAX, JoinError, JoinString, MESSAGE_BYTES_MAX,
    ParseError, Parsed,
};

fn refusal(text: &str) -> ParseError {
    FromAgent::parse(text, MESSAGE_BYTES_MAX).expect_err(text)
}

#[test]
fn what_is_no_message_is_refused_by_name() {
    let invalid = [
        "",
        " ",
        "null",
        "[]",
        "\"hello\"",
        r#"["heartbeat", {"running": 1}]"#,
        "{}",
        r#"{"type": 1}"#,
        r#"{"type": "heartbeat"}"#,
        r#"{"type": "heartbeat", "running": -1}"#,
        r#"{"type": "heartbeat", "running": 4294967296}"#,
        r#"{"type": "heartbeat", "running": 1.5}"#,
        r#"{"type": "heartbeat", "running": 1} x"#,
        r#"{"type": "heartbeat", "running": 1"#,
        r#"{"type": "heartbeat", "type": "wish", "running": 1}"#,
        r#"{"type":"heartbeat","type":"wish","running":1}"#,
        r#"{"type":"heartbeat","running":1,"\u0074ype":"heartbeat"}"#,
        r#"{"type":"heartbeat","running":1,"optional":1}"#,
        r#"{"type": "heartbeat", "running": 1, "warm": [""]}"#,
        r#"{"type": "heartbeat", "running": 1, "warm": ["a\u0000b"]}"#,
        r#"{"type": "heartbeat", "running": 1, "warm": ["a\u001b[31m"]}"#,
        r#"{"type": "heartbeat", "running": 1, "warm": ["\u202eabc"]}"#,
        r#"{"type": "accepted", "reservation": "job_000000010000000001"}"#,
        r#"{"type": "wish", "wish": "dance"}"#,
        r#"{"type": "stopped", "statement": {}, "signature": "00"}"#,
        r#"{"type": "output", "reservation": "res_000000010000000001", "index": 0, "chunks": [{"text": "a"}]}"#,
        r#"{"type": "output", "reservation": "res_000000010000000001", "index": 0, "chunks": [{"kind": "json", "text": "a", "tokens": 1}]}"#,
        r#"{"type": "output", "reservation": "res_000000010000000001", "index": 0, "chunks": [{"kind": "sound", "text": "a", "tokens": 1}]}"#,
        "{\"type\": \"heartbeat\", \"running\": 1, \"a\u{0}b\": \"\u{1}\"}",
    ];
    for text in invalid {
        assert_eq!(refusal(text).code(), CloseCode::MessageInvalid, "{text}");
    }
    let error = refusal(r#"{"type": "wish", "wish": "dance"}"#).to_string();
    assert!(error.contains("`wish`") && error.contains("pause, resume, drain"), "{error}");
}

#[test]
fn each_model_is_offered_once() {
    let offer = |names: [&str; 2]| {
        let models = names
            .map(|name| format!(r#"{{"name": "{name}", "slots": 1, "warm": true, "load_ms": 0}}"#))
            .join(",");
        let text = format!(
            r#"{{"type": "offer", "models": [{models}], "slots": 1, "kv_tokens": 1, "memory_bytes": 1}}"#
        );
        FromAgent::parse(&text, MESSAGE_BYTES_MAX)
    };
    offer(["a", "b"]).expect("two models");
    let error = offer(["a", "a"]).expect_err("one model twice");
    assert!(error.to_string().contains("`models`: names a model twice"), "{error}");
}

#[test]
fn an_unknown_kind_is_ignored_only_if_its_sender_says_so() {
    let unknown = refusal(r#"{"type": "sing", "song": [1, {"a": null}]}"#);
    assert_eq!(unknown, ParseError::Unknown("sing".to_owned()));
    assert_eq!(unknown.code(), CloseCode::MessageUnknown);
    assert!(unknown.to_string().contains("`sing`"), "{unknown}");
    let optional = r#"{"song": [1], "optional": true, "type": "sing"}"#;
    assert_eq!(FromAgent::parse(optional, 100), Ok(Parsed::Ignored("sing".to_owned())));
    assert_eq!(refusal(r#"{"type": "sing", "optional": false}"#).code(), CloseCode::MessageUnknown);
    // What is known is never ignored, nor is what isn't JSON.
    let known = r#"{"type": "heartbeat", "optional": true}"#;
    assert_eq!(refusal(known).code(), CloseCode::MessageInvalid);
    let long = refusal(&format!(r#"{{"type": "{}"}}"#, "é".repeat(5_000))).to_string();
    assert!(long.len() < 300, "{long}");
}

#[test]
fn fields_that_nobody_knows_are_skipped() {
    let text = r#"{"x": {"y": [1, 2, {"z": "w"}]}, "type": "heartbeat", "running": 2, "later": null}"#;
    let Ok(Parsed::Known(FromAgent::Heartbeat(heartbeat))) = FromAgent::parse(text, 100) else {
        panic!("a heartbeat")
    };
    assert_eq!((heartbeat.running, heartbeat.warm.len()), (2, 0));
}

#[test]
fn what_is_too_large_or_too_deep_is_refused() {
    let padded = format!(r#"{{"type": "heartbeat", "running": 1{}}}"#, " ".repeat(HANDSHAKE_BYTES_MAX));
    let refused = FromAgent::parse(&padded, HANDSHAKE_BYTES_MAX).expect_err("too long");
    assert_eq!(refused.code(), CloseCode::TooLarge);
    FromAgent::parse(&padded, MESSAGE_BYTES_MAX).expect("it isn't, later");

    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"type": "heartbeat", "running": 1, "x": {open}{close}}}"#)
    };
    FromAgent::parse(&nested(15), MESSAGE_BYTES_MAX).expect("sixteen");
    for depth in [16, 100_000, 4_000_000] {
        assert_eq!(refusal(&nested(depth)), ParseError::TooDeep);
    }
    let brackets = format!(r#"{{"type": "heartbeat", "running": 1, "x": "\"{}"}}"#, "[{".repeat(50));
    FromAgent::parse(&brackets, MESSAGE_BYTES_MAX).expect("text isn't depth");
}

#[test]
fn lists_and_texts_have_bounds() {
    let warm = |count: usize| {
        let names = vec![r#""m""#; count].join(",");
        FromAgent::parse(&format!(r#"{{"type": "heartbeat", "running": 1, "warm": [{names}]}}"#), 1 << 20)
    };
    warm(64).expect("as many as may be");
    let error = warm(65).expect_err("one more").to_string();
    assert!(error.contains("more than 64"), "{error}");
    let declined = |bytes: usize| {
        let reason = "r".repeat(bytes);
        let text = format!(
            r#"{{"type": "declined", "reservation": "res_000000010000000001", "cause": "new-word", "reason": "{reason}"}}"#
        );
        FromAgent::parse(&text, 1 << 20)
    };
    declined(512).expect("as long as may be");
    let error = declined(513).expect_err("one more").to_string();
    assert!(error.contains("512 bytes") && !error.contains("rrrr"), "{error}");
    // A list that never ends is left where it is too long, not read to its end.
    let holds = vec!["{}"; HOLDS_MAX + 2].join(",");
    let text = format!(r#"{{"type": "ready", "offer": {{}}, "holds": [{holds}]}}"#);
    assert_eq!(refusal(&text).code(), CloseCode::MessageInvalid);
}

#[test]
fn join_strings_that_were_changed_are_refused_in_words() {
    let join = JoinString {
        url: "https://box.example.org:8443".into(),
        box_key: identity(1).public(),
        tls: None,
        token: "t0ken".parse().expect("a token"),
    };
    let text = join.text();
    assert_eq!(format!("  {text}\n").parse(), Ok(join.clone()));
    assert_eq!(join.connect_url(), "wss://box.example.org:8443/v1/nodes/connect");
    let plain = JoinString { url: "http://127.0.0.1:80/x/".into(), ..join.clone() };
    assert_eq!(plain.connect_url(), "ws://127.0.0.1:80/x/v1/nodes/connect");
    assert_eq!("sk-12345678.x".parse::<JoinString>(), Err(JoinError::Otherwise));
    assert_eq!(text.replace(":1,", ":2,").parse::<JoinString>(), Err(JoinError::Newer("2".into())));
    for at in 0..text.len() {
        let cut: Result<JoinString, _> = text[..at].parse();
        let error = cut.expect_err("it is cut off").to_string();
        assert!(!error.contains("t0ken"), "{error}");
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
        let changed = String::from_utf8(changed).expect("ASCII");
        let error = changed.parse::<JoinString>().expect_err("it was changed").to_string();
        assert!(!error.contains("t0ken"), "{error}");
    }
    for url in ["http://a:99999", "http://[::1]:0", "https://a:b", "https://a:"] {
        let wrong = JoinString { url: url.into(), ..join.clone() };
        assert!(wrong.check().expect_err(url).to_string().contains("port"), "{url}");
    }
    let pinned = JoinString { tls: Some(plain_hash(b"a key")), ..join.clone() };
    assert_eq!(pinned.check(), Ok(()));
    // As somebody would write it who wants the fingerprint to hold nobody.
    let bare = JoinString { url: "http://box.example.org:8443".into(), ..pinned };
    for refused in [bare.check().expect_err("plain"), bare.text().parse::<JoinString>().expect_err("plain")] {
        assert!(refused.to_string().contains("TLS"), "{refused}");
    }
    for url in ["http://[::1]", "http://[::1]:80/x:y", "https://a/b:c"] {
        assert_eq!(JoinString { url: url.into(), ..join.clone() }.check(), Ok(()), "{url}");
    }
    for url in ["box:8443", "https://", "https://a,b", "http://a b", "ftp://x", "https://:80", "https://a\"b"]
    {
        let wrong = JoinString { url: url.into(), ..join.clone() };
        assert!(matches!(wrong.check(), Err(JoinError::Part { part: "URL", .. })), "{url}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(text in ".{0,200}") {
        let _ = FromAgent::parse(&text, 1 << 10);
        let _ = FromBox::parse(&text, 1 << 10);
        let _ = text.parse::<JoinString>();
    }

    /// As above, but past the look at the kind.
    #[test]
    fn no_fields_make_the_parsers_panic(
        kind in 0..100_usize,
        fields in prop::collection::vec(("[a-z_]{1,14}", "[-0-9\"{}:,ntrue.\\\\\\[\\]a-z_ ]{0,24}"), 0..6),
    ) {
        let fields: String = fields.iter().map(|(name, value)| format!(r#", "{name}": {value}"#)).collect();
        let of = |kinds: &[&str]| format!(r#"{{"type": "{}"{fields}}}"#, kinds[kind % kinds.len()]);
        let _ = FromAgent::parse(&of(FromAgent::KINDS), 1 << 10);
        let _ = FromBox::parse(&of(FromBox::KINDS), 1 << 10);
    }
}
