//! JSON chunks and what they are merged to.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What chunks are merged to: the content, the message's other members, the choice's.
fn merged(chunks: &[&str]) -> (String, Value, Value) {
    let (mut merged, mut content) = (Merged::default(), Vec::new());
    chunks.iter().for_each(|chunk| merged.add(chunk, &mut content));
    let members = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = b"{\"_\":0".to_vec();
        write(&mut out);
        out.push(b'}');
        let mut value: Value = serde_json::from_slice(&out).expect("JSON");
        value.as_object_mut().expect("an object").remove("_");
        value
    };
    let content = String::from_utf8(content).expect("UTF-8");
    (content, members(&|out| merged.write_message_rest(out)), members(&|out| merged.write_choice_rest(out)))
}

#[test]
fn texts_are_joined_and_lists_appended() {
    let (content, message, choice) = merged(&[
        r#"{"delta":{"role":"assistant","content":null,"reasoning_content":"H"}}"#,
        r#"{"delta":{"content":"a\n","reasoning_content":"m\ud83d"},"logprobs":{"content":[{"token":"a","logprob":-1.50}]}}"#,
        r#"{"delta":{"content":"b","reasoning_content":"\ude00"},"logprobs":{"content":[{"token":"b"}],"refusal":null}}"#,
        r#"{"delta":{"content":"","reasoning_content":null},"logprobs":null,"stop_reason":"</end>"}"#,
    ]);
    assert_eq!(content, r"a\nb");
    assert_eq!(message, json!({"reasoning_content": "Hm\u{1F600}"}), "halves of a pair make a character");
    let tokens = json!([{"token": "a", "logprob": -1.5}, {"token": "b"}]);
    assert_eq!(choice, json!({"logprobs": {"content": tokens, "refusal": null}, "stop_reason": "</end>"}));
}

#[test]
fn tool_calls_are_merged_by_index_and_names_are_said_once() {
    let (content, message, _) = merged(&[
        r#"{"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\""}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"x\":1}"}}]}}"#,
        r#"{"delta":{"tool_calls":[{"index":1,"id":null,"function":{"name":"","arguments":"{}"}}]}}"#,
    ]);
    assert_eq!(content, "");
    let call = |id: &str, name: &str, arguments: &str| {
        json!({"id": id, "type": "function",
        "function": {"name": name, "arguments": arguments}})
    };
    assert_eq!(message["tool_calls"], json!([call("a", "f", r#"{"x":1}"#), call("b", "g", "{}")]));
}

#[test]
fn what_no_rule_fits_is_kept_as_it_came_last() {
    let (_, message, choice) = merged(&[
        r#"{"delta":{"score":1,"odd":"text","list":[]},"text":"t"}"#,
        r#"{"delta":{"score":2.50,"odd":[1],"list":[1]}}"#,
        r#"{"delta":{"score":null,"odd":{"x":1},"list":[2,3]},"filtered":{"hate":{"severity":"safe"}}}"#,
        "no JSON at all",
        r#"{"delta":"no object"}"#,
    ]);
    assert_eq!(message, json!({"score": 2.5, "odd": {"x": 1}, "list": [1, 2, 3]}));
    assert_eq!(choice, json!({"filtered": {"hate": {"severity": "safe"}}}));
}

#[test]
fn digits_stay_as_they_were_written() {
    let mut merged = Merged::default();
    merged.add(r#"{"delta":{"p":1.50e-0,"l":[0.10]}}"#, &mut Vec::new());
    let mut out = Vec::new();
    merged.write_message_rest(&mut out);
    assert_eq!(out, br#","l":[0.10],"p":1.50e-0"#);
}

#[test]
fn only_what_belongs_to_a_choice_is_taken_from_outside() {
    for (json, expected) in [
        (r#"{"delta":{"reasoning":"x"}}"#, Ok(())),
        (r#"{"text":"x","logprobs":null}"#, Ok(())),
        ("{\"delta\":{}\n}", Err("one line")),
        (r#"{"delta":{},"index":0}"#, Err("`index`")),
        (r#"{"delta":{},"finish_reason":"stop"}"#, Err("`finish_reason`")),
        (r#"{"delta":[]}"#, Err("`delta`")),
        ("{}", Err("`delta`")),
        ("[]", Err("one JSON object")),
        (r#"{"delta":{}} {}"#, Err("one JSON object")),
        (r#"{"delta":{}"#, Err("one JSON object")),
    ] {
        match (check(json), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{json}: {error}"),
            (found, _) => panic!("{json}: {found:?}"),
        }
    }
    assert_eq!(members_of(r#" { "delta":{} } "#), r#""delta":{}"#);
}

proptest! {
    #[test]
    fn whatever_is_merged_is_json(chunks in proptest::collection::vec(any_chunk(), 0..6)) {
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        let (content, _, _) = merged(&chunks);
        let quoted = format!("\"{content}\"");
        prop_assert!(serde_json::from_str::<&RawValue>(&quoted).is_ok(), "{}", content);
    }
}

/// Objects of a few names, so that they meet.
fn any_chunk() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1.0".to_owned()),
        Just("true".to_owned()),
        "[a-c\\\\\"\u{1F600}\n]{0,4}".prop_map(|text| Value::from(text).to_string()),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof!["content", "tool_calls", "index", "id", "x"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|list| format!("[{}]", list.join(","))),
            proptest::collection::vec((name, inner), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    (value.clone(), value).prop_map(|(delta, other)| format!("{{\"delta\":{delta},\"x\":{other}}}"))
}
