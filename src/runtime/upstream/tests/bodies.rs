//! What is changed of a client's body, and that nothing else is.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::body::rewritten;

fn sent(body: &str) -> String {
    String::from_utf8(rewritten(body.as_bytes(), "there").expect(body)).expect("UTF-8")
}

#[test]
fn only_the_name_and_the_stream_are_changed() {
    for (body, expected) in [
        (
            r#"{"model":"m","messages":[]}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"there","messages":[]}"#,
        ),
        (
            "{ \"messages\" : [ ] ,\n \"model\" : \"m\" , \"stream\" : false, \"x\" : 1.50e0 }",
            "{\"stream_options\":{\"include_usage\":true}, \"messages\" : [ ] ,\n \"model\" : \"there\" , \"stream\" : true, \"x\" : 1.50e0 }",
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":false,"more":1}}"#,
            r#"{"model":"there","stream":true,"stream_options":{"include_usage":true,"more":1}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{ "more":1}}"#,
            r#"{"model":"there","stream":true,"stream_options":{"include_usage":true, "more":1}}"#,
        ),
        (
            r#"{"model":"m","stream":null,"stream_options":{ }}"#,
            r#"{"model":"there","stream":true,"stream_options":{"include_usage":true }}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":null}"#,
            r#"{"model":"there","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":null}}"#,
            r#"{"model":"there","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        // The same names elsewhere are the client's own.
        (
            r#"{"metadata":{"model":"m","stream":false},"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"metadata":{"model":"m","stream":false},"model":"there","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        assert_eq!(sent(body), expected);
    }
    let name = rewritten(br#"{"model":"m"}"#, "a\"b").expect("a body");
    assert_eq!(serde_json::from_slice::<Value>(&name).expect("JSON")["model"], "a\"b");
    for none in [
        "",
        "{}",
        "[]",
        r#"["m"]"#,
        r#"{"model":"m""#,
        r#"{"model":"m","model":"n"}"#,
        r#"{"model":"m","stream":1,"stream":2}"#,
    ] {
        assert!(rewritten(none.as_bytes(), "there").is_err(), "{none}");
    }
}

proptest! {
    #[test]
    fn all_else_of_a_body_goes_there(key in "[a-z]{1,6}", value: String, depth in 0_usize..4, first: bool) {
        let mut unknown = Value::from(value);
        for _ in 0..depth {
            unknown = json!({ "stream": [unknown, null, 1.5] });
        }
        let member = format!("{}:{unknown}", Value::from(format!("x_{key}")));
        let body = match first {
            true => format!("{{{member},\"model\":\"m\"}}"),
            false => format!("{{\"model\":\"m\",\"stream\":false,{member}}}"),
        };
        let out = sent(&body);
        prop_assert!(out.contains(&member), "{}", out);
        let mut expected: Value = serde_json::from_str(&body).expect("JSON");
        expected["model"] = "there".into();
        expected["stream"] = true.into();
        expected["stream_options"] = json!({"include_usage": true});
        prop_assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), expected);
    }

    #[test]
    fn any_bytes_are_a_body_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = rewritten(&bytes, "there");
    }
}
