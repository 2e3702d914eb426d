//! What is understood of a request that another server runs.

use proptest::prelude::*;

use super::*;
use crate::coordinator::event::Determinism;

fn outlined(endpoint: Endpoint, body: &str) -> Result<Outline, RequestError> {
    outline(endpoint, body.as_bytes())
}

fn of_chat(more: &str) -> Result<Outline, RequestError> {
    outlined(CHAT, &chat_with(more))
}

#[test]
fn what_this_box_must_know_is_read_and_all_else_passes() {
    let plain = of_chat("").expect("valid");
    let expected = Outline {
        model: "m".into(),
        stream: StreamMode::Whole,
        include_usage: false,
        max_tokens: None,
        tier: Tier::Standard,
        messages: 1,
        bytes_per_token: 256,
        determinism: Determinism::Sampled,
    };
    assert_eq!(plain, expected);
    let everything = r#","tools":[{"type":"function"}],"tool_choice":"auto","response_format":{"type":"json_schema"},
        "frequency_penalty":1.5,"logit_bias":{"5":1},"modalities":["text","audio"],"audio":{"voice":"x"},"min_p":0.1,
        "chat_template_kwargs":{"enable_thinking":false},"n":1.0,"temperature":99,"stop":["a","b","c","d","e","f"],
        "stream":null,"stream_options":null,"max_tokens":null,"service_tier":null,"seed":-1"#;
    assert_eq!(of_chat(everything), Ok(expected));
    for (temperature, expected) in [
        ("0", Determinism::Exact),
        ("-0.0", Determinism::Exact),
        ("0.0e5", Determinism::Exact),
        ("1e-9", Determinism::Sampled),
        ("null", Determinism::Sampled),
        (r#""0""#, Determinism::Sampled),
        ("[0]", Determinism::Sampled),
    ] {
        let outline = of_chat(&format!(r#","temperature":{temperature}"#)).expect("valid");
        assert_eq!(outline.determinism, expected, "{temperature}");
    }
    let messages = r#"{"model":"m","messages":[{"role":"tool","tool_call_id":"c","content":null},
        {"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]},{"role":"poet"}]}"#;
    assert_eq!(outlined(CHAT, messages).expect("valid").messages, 3);
    let streamed =
        of_chat(r#","stream":true,"stream_options":{"include_usage":true,"x":1},"service_tier":"flex""#);
    let streamed = streamed.expect("valid");
    assert_eq!(
        (streamed.stream, streamed.include_usage, streamed.tier),
        (StreamMode::Events, true, Tier::Batch)
    );
    for (more, expected) in [
        (r#","max_tokens":5"#, Some(5)),
        (r#","max_tokens":5,"max_completion_tokens":7"#, Some(7)),
        // What these mean is the server's to say.
        (r#","max_tokens":-1"#, None),
        (r#","max_tokens":"many""#, None),
        (r#","max_tokens":99999999999"#, Some(u32::MAX)),
    ] {
        assert_eq!(of_chat(more).expect(more).max_tokens, expected, "{more}");
    }
}

#[test]
fn an_answer_with_probabilities_has_more_room() {
    for (endpoint, more, expected) in [
        (CHAT, r#","logprobs":false,"top_logprobs":5"#, 256),
        (CHAT, r#","logprobs":true"#, 384),
        (CHAT, r#","logprobs":true,"top_logprobs":20"#, 256 + 21 * 128),
        (CHAT, r#","logprobs":true,"top_logprobs":4000000000"#, 256 + 33 * 128),
        (TEXT, r#","logprobs":3"#, 256 + 4 * 128),
    ] {
        let body = match endpoint {
            Endpoint::ChatCompletions => chat_with(more),
            Endpoint::Completions => format!(r#"{{"model":"m","prompt":"hi"{more}}}"#),
        };
        assert_eq!(outlined(endpoint, &body).expect(more).bytes_per_token, expected, "{more}");
    }
}

#[test]
fn what_cannot_be_carried_or_contradicts_itself_is_refused() {
    for (more, param, code) in [
        (r#","n":2"#, "n", "unsupported_value"),
        (r#","n":0"#, "n", "unsupported_value"),
        (r#","stream":"yes""#, "stream", "invalid_type"),
        (r#","stream_options":{}"#, "stream_options", "invalid_value"),
        (r#","stream":true,"stream_options":7"#, "stream_options", "invalid_type"),
        (
            r#","stream":true,"stream_options":{"include_usage":1}"#,
            "stream_options.include_usage",
            "invalid_type",
        ),
        (r#","service_tier":"gold""#, "service_tier", "invalid_value"),
    ] {
        let error = of_chat(more).expect_err(more);
        assert_eq!((error.param.as_deref(), error.code), (Some(param), code), "{more}: {error}");
    }
    for (endpoint, body, param) in [
        (CHAT, r#"{"messages":[1]}"#, Some("model")),
        (CHAT, r#"{"model":7,"messages":[1]}"#, Some("model")),
        (CHAT, r#"{"model":"m"}"#, Some("messages")),
        (CHAT, r#"{"model":"m","messages":null}"#, Some("messages")),
        (CHAT, r#"{"model":"m","messages":[]}"#, Some("messages")),
        (CHAT, r#"{"model":"m","messages":"hi"}"#, Some("messages")),
        (TEXT, r#"{"model":"m"}"#, Some("prompt")),
        (TEXT, r#"{"model":"m","prompt":["a","b"]}"#, Some("prompt")),
        (TEXT, r#"{"model":"m","prompt":[[1],[2]]}"#, Some("prompt")),
        (TEXT, r#"{"model":"m","prompt":[]}"#, Some("prompt")),
        (CHAT, r#"{"model":"m","model":"n","messages":[1]}"#, None),
        (CHAT, r#"{"model":"m","messages":[1],"stream":true,"stream":false}"#, None),
        (CHAT, r#"{"model":"m","messages":[1]} x"#, None),
        (CHAT, "[]", None),
        (CHAT, r#"["m",null,null,null,null,null,null,[1]]"#, None),
        (CHAT, "", None),
    ] {
        let error = outlined(endpoint, body).expect_err(body);
        assert_eq!(error.param.as_deref(), param, "{body}: {error}");
    }
    for prompt in [r#""a""#, r#"["a"]"#, "[1,2,3]", "[[1,2]]"] {
        let body = format!(r#"{{"model":"m","prompt":{prompt}}}"#);
        assert_eq!(outlined(TEXT, &body).expect(prompt).messages, 1, "{prompt}");
    }
    assert!(outline(CHAT, b"{\"model\":\"\xff\"}").is_err());
}

#[test]
fn the_model_is_found_before_anything_else_is_known() {
    assert_eq!(model_named(br#"{"messages":[{"model":"x"}],"model":"m"}"#).as_deref(), Some("m"));
    for none in [&b"{}"[..], b"", br#"{"model":1}"#, br#"{"model":"a","model":"b"}"#, b"\xff"] {
        assert_eq!(model_named(none), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_outlined_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), text: String) {
        let _ = (outline(CHAT, &bytes), outline(TEXT, &bytes), model_named(&bytes));
        let quoted = serde_json::Value::from(text);
        let _ = outline(CHAT, chat_with(&format!(",\"stream\":{quoted},\"n\":{quoted}")).as_bytes());
    }
}
