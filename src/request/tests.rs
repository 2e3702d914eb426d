//! Tables of bodies and what becomes of them.

use proptest::prelude::*;

use super::*;

mod outlines;

const CHAT: Endpoint = Endpoint::ChatCompletions;
const TEXT: Endpoint = Endpoint::Completions;

/// A chat body with more fields.
fn chat_with(more: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
}

fn chat(more: &str) -> Result<Request, RequestError> {
    parse(CHAT, chat_with(more).as_bytes())
}

fn completion(more: &str) -> Result<Request, RequestError> {
    parse(TEXT, format!(r#"{{"model":"m","prompt":"hi"{more}}}"#).as_bytes())
}

fn refused(what: &str, result: Result<Request, RequestError>, param: &str, code: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.param.as_deref(), Some(param), "{what}: {error:?}");
    assert_eq!(error.code, code, "{what}: {error:?}");
    assert!(error.message.contains(param), "{what}: {error:?}");
}

#[test]
fn the_smallest_bodies_have_defaults() {
    let request = chat("").expect("valid");
    assert_eq!(request.model, "m");
    assert_eq!(request.prompt, Prompt::Chat(vec![Message { role: Role::User, content: "hi".into() }]));
    assert_eq!((request.stream, request.include_usage), (StreamMode::Whole, false));
    assert_eq!((request.max_tokens, request.seed, request.tier), (None, None, Tier::Standard));
    assert_eq!((request.temperature, request.top_p), (1.0, 1.0));
    assert_eq!(completion("").expect("valid").prompt, Prompt::Text("hi".into()));
}

#[test]
fn accepted_parameters_arrive() {
    let request = chat(
        r#","max_tokens":16.0,"max_completion_tokens":16,"temperature":0,"top_p":0.5,"n":1,"stop":["a","b"],
           "seed":-1,"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},
           "service_tier":"fast","metadata":{"a":"b"},"user":"u","safety_identifier":"s","store":true,
           "prompt_cache_key":"k","presence_penalty":0,"frequency_penalty":0.0,"logit_bias":{},"logprobs":false,
           "tools":[],"tool_choice":"none","response_format":{"type":"text"},"modalities":["text"],
           "unknown":{"deep":[1,2,{"x":null}]}"#,
    )
    .expect("valid");
    assert_eq!(request.max_tokens, Some(16));
    assert_eq!((request.temperature, request.top_p), (0.0, 0.5));
    assert_eq!(request.stop, ["a", "b"]);
    assert_eq!(request.seed, Some(u64::MAX));
    assert_eq!((request.stream, request.include_usage), (StreamMode::Events, true));
    assert_eq!(request.tier, Tier::Realtime);
    assert_eq!(
        completion(r#","prompt_cache_key":1,"suffix":"","best_of":1,"echo":false"#).map(|_| ()),
        Ok(())
    );
    assert_eq!(chat(r#","stop":"x""#).expect("valid").stop, ["x"]);
    assert_eq!(chat(r#","stop":[]"#).expect("valid").stop, [""; 0]);
    assert_eq!(
        parse(TEXT, br#"{"model":"m","prompt":["one"]}"#).expect("valid").prompt,
        Prompt::Text("one".into())
    );
}

#[test]
fn null_is_absent_everywhere() {
    let more = [
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "n",
        "stop",
        "seed",
        "stream",
        "stream_options",
        "service_tier",
        "metadata",
        "user",
        "frequency_penalty",
        "presence_penalty",
        "response_format",
        "modalities",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "audio",
        "web_search_options",
        "best_of",
        "echo",
        "suffix",
    ]
    .map(|name| format!(r#","{name}":null"#))
    .concat();
    assert_eq!(chat(&more), chat(""));
    assert_eq!(completion(&more), completion(""));
}

#[test]
fn service_tiers_map() {
    for (name, tier, reported) in [
        ("auto", Tier::Standard, "default"),
        ("default", Tier::Standard, "default"),
        ("scale", Tier::Standard, "default"),
        ("priority", Tier::Realtime, "priority"),
        ("fast", Tier::Realtime, "priority"),
        ("flex", Tier::Batch, "flex"),
    ] {
        let request = chat(&format!(r#","service_tier":"{name}""#)).expect(name);
        assert_eq!(request.tier, tier, "{name}");
        assert_eq!(service_tier_name(tier), reported);
    }
}

#[test]
fn content_and_roles() {
    let body = br#"{"model":"m","messages":[{"role":"developer","content":"be kind"},
        {"role":"user","name":"x","content":[{"type":"text","text":"a"},{"text":"b\n","type":"text","more":1}]},
        {"role":"assistant","content":"","tool_calls":null,"refusal":null}]}"#;
    let Ok(Request { prompt: Prompt::Chat(messages), .. }) = parse(CHAT, body) else { panic!("refused") };
    let all: Vec<_> = messages.iter().map(|m| (m.role.name(), m.content.as_str())).collect();
    assert_eq!(all, [("system", "be kind"), ("user", "ab\n"), ("assistant", "")]);
}

#[test]
fn wrong_messages_are_named() {
    for (messages, param, code) in [
        ("null", "messages", "missing_required_parameter"),
        ("[]", "messages", "invalid_value"),
        ("{}", "messages", "invalid_type"),
        ("\"hi\"", "messages", "invalid_type"),
        ("[1]", "messages[0]", "invalid_type"),
        ("[{}]", "messages[0].role", "missing_required_parameter"),
        (r#"[{"role":"user"}]"#, "messages[0].content", "missing_required_parameter"),
        (r#"[{"role":"user","content":null}]"#, "messages[0].content", "missing_required_parameter"),
        (r#"[{"role":"user","content":3}]"#, "messages[0].content", "invalid_type"),
        (r#"[{"role":"user","content":[]}]"#, "messages[0].content", "invalid_value"),
        (r#"[{"role":"user","content":["x"]}]"#, "messages[0].content[0]", "invalid_type"),
        (r#"[{"role":"user","content":[{}]}]"#, "messages[0].content[0].type", "missing_required_parameter"),
        (
            r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{}}]}]"#,
            "messages[0].content[1].type",
            "unsupported_value",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text"}]}]"#,
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","text":1}]}]"#,
            "messages[0].content[0].text",
            "invalid_type",
        ),
        (r#"[{"role":"tool","content":"x"}]"#, "messages[0].role", "unsupported_value"),
        (r#"[{"role":"function","content":"x"}]"#, "messages[0].role", "unsupported_value"),
        (r#"[{"role":"robot","content":"x"}]"#, "messages[0].role", "invalid_value"),
        (r#"[{"role":7,"content":"x"}]"#, "messages[0].role", "invalid_type"),
        (
            r#"[{"role":"user","content":"x"},{"role":"assistant","content":"x","tool_calls":[{"id":"c"}]}]"#,
            "messages[1].tool_calls",
            "unsupported_parameter",
        ),
        (r#"[{"role":"user","role":"user","content":"x"}]"#, "messages[0].role", "invalid_value"),
        (r#"[{"role":"user","content":"x","content":"y"}]"#, "messages[0].content", "invalid_value"),
    ] {
        let body = format!(r#"{{"model":"m","messages":{messages}}}"#);
        refused(messages, parse(CHAT, body.as_bytes()), param, code);
    }
    refused(
        "no messages",
        parse(CHAT, br#"{"model":"m","prompt":"x"}"#),
        "messages",
        "missing_required_parameter",
    );
}

#[test]
fn wrong_parameters_are_named() {
    const TYPE: &str = "invalid_type";
    const VALUE: &str = "invalid_value";
    const NO_VALUE: &str = "unsupported_value";
    const NO_PARAMETER: &str = "unsupported_parameter";
    for (more, param, code) in [
        (r#""max_tokens":0"#, "max_tokens", VALUE),
        (r#""max_tokens":-5"#, "max_tokens", VALUE),
        (r#""max_tokens":4294967296"#, "max_tokens", VALUE),
        (r#""max_tokens":1.5"#, "max_tokens", TYPE),
        (r#""max_tokens":1e300"#, "max_tokens", TYPE),
        (r#""max_tokens":"7""#, "max_tokens", TYPE),
        (r#""max_tokens":5,"max_completion_tokens":6"#, "max_tokens", VALUE),
        (r#""max_completion_tokens":[]"#, "max_completion_tokens", TYPE),
        (r#""temperature":2.1"#, "temperature", VALUE),
        (r#""temperature":-0.1"#, "temperature", VALUE),
        (r#""temperature":"hot""#, "temperature", TYPE),
        (r#""top_p":0"#, "top_p", VALUE),
        (r#""top_p":1e-300"#, "top_p", VALUE),
        (r#""top_p":1.01"#, "top_p", VALUE),
        (r#""top_p":{}"#, "top_p", TYPE),
        (r#""n":2"#, "n", NO_VALUE),
        (r#""n":0"#, "n", VALUE),
        (r#""n":"1""#, "n", TYPE),
        (r#""stop":"""#, "stop", VALUE),
        (r#""stop":["a",""]"#, "stop", VALUE),
        (r#""stop":["a",1]"#, "stop[1]", TYPE),
        (r#""stop":["a","b","c","d","e"]"#, "stop", VALUE),
        (r#""stop":7"#, "stop", TYPE),
        (r#""seed":9223372036854775808"#, "seed", VALUE),
        (r#""seed":0.5"#, "seed", TYPE),
        (r#""stream":"yes""#, "stream", TYPE),
        (r#""stream":1"#, "stream", TYPE),
        (r#""store":"no""#, "store", TYPE),
        (r#""stream_options":{"include_usage":true}"#, "stream_options", VALUE),
        (r#""stream":true,"stream_options":true"#, "stream_options", TYPE),
        (r#""stream":true,"stream_options":{"include_usage":1}"#, "stream_options.include_usage", TYPE),
        (r#""service_tier":"best""#, "service_tier", VALUE),
        (r#""service_tier":1"#, "service_tier", TYPE),
        (r#""metadata":"x""#, "metadata", TYPE),
        (r#""metadata":{"a":1}"#, "metadata", TYPE),
        (r#""frequency_penalty":0.5"#, "frequency_penalty", NO_VALUE),
        (r#""presence_penalty":-2.5"#, "presence_penalty", VALUE),
        (r#""logit_bias":{"50256":-100}"#, "logit_bias", NO_PARAMETER),
        (r#""logprobs":true"#, "logprobs", NO_VALUE),
        (r#""top_logprobs":2"#, "top_logprobs", NO_PARAMETER),
        (r#""tools":[{"type":"function"}]"#, "tools", NO_PARAMETER),
        (r#""tool_choice":"auto""#, "tool_choice", NO_PARAMETER),
        (r#""functions":[{}]"#, "functions", NO_PARAMETER),
        (r#""function_call":{"name":"f"}"#, "function_call", NO_PARAMETER),
        (r#""response_format":{"type":"json_object"}"#, "response_format", NO_VALUE),
        (r#""response_format":{}"#, "response_format.type", TYPE),
        (r#""audio":{"voice":"x"}"#, "audio", NO_PARAMETER),
        (r#""modalities":["text","audio"]"#, "modalities", NO_VALUE),
        (r#""modalities":"text""#, "modalities", TYPE),
        (r#""web_search_options":{}"#, "web_search_options", NO_PARAMETER),
        (r#""model":"again""#, "model", VALUE),
        (r#""temperature":1,"temperature":1"#, "temperature", VALUE),
    ] {
        refused(more, chat(&format!(",{more}")), param, code);
    }
    for (more, param, code) in [
        (r#""best_of":2"#, "best_of", NO_VALUE),
        (r#""echo":true"#, "echo", NO_VALUE),
        (r#""suffix":"end""#, "suffix", NO_PARAMETER),
        (r#""logprobs":3"#, "logprobs", NO_VALUE),
    ] {
        refused(more, completion(&format!(",{more}")), param, code);
    }
}

#[test]
fn wrong_prompts_and_models_are_named() {
    for (prompt, param, code) in [
        ("[1,2,3]", "prompt", "unsupported_value"),
        ("[[1,2]]", "prompt", "unsupported_value"),
        (r#"["a","b"]"#, "prompt", "unsupported_value"),
        ("[]", "prompt", "invalid_value"),
        ("[true]", "prompt[0]", "invalid_type"),
        ("{}", "prompt", "invalid_type"),
        ("null", "prompt", "missing_required_parameter"),
    ] {
        let body = format!(r#"{{"model":"m","prompt":{prompt}}}"#);
        refused(prompt, parse(TEXT, body.as_bytes()), param, code);
    }
    for (model, code) in
        [("null", "missing_required_parameter"), ("\"\"", "invalid_value"), ("3", "invalid_type")]
    {
        let body = format!(r#"{{"model":{model},"prompt":"x"}}"#);
        refused(model, parse(TEXT, body.as_bytes()), "model", code);
    }
}

#[test]
fn metadata_is_bounded() {
    let pairs = |count: usize, key: usize, value: usize| {
        let pair = |i| format!(r#""{i:é>key$}":"{:é<value$}""#, "");
        let all: Vec<String> = (0..count).map(pair).collect();
        chat(&format!(r#","metadata":{{{}}}"#, all.join(",")))
    };
    assert!(pairs(16, 64, 512).is_ok());
    for (count, key, value) in [(17, 4, 4), (1, 65, 4), (1, 4, 513)] {
        refused("metadata", pairs(count, key, value), "metadata", "invalid_value");
    }
}

#[test]
fn what_is_not_json_says_where() {
    let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
    for (body, part) in [
        (&b""[..], "line 1 column 0"),
        (b"{\"model\":\"m\",}", "line 1 column 14"),
        (b"{\"model\":\"m\"} x", "trailing characters at line 1 column 15"),
        (b"[1]", "JSON object"),
        (b"\"x\"", "JSON object"),
        (b"{\"model\":\"\xff\"}", "offset 10"),
        (b"{\"x\":1e999}", "number out of range at line 1"),
        (b"{\"x\":NaN}", "line 1 column"),
        (b"{\"model\":\"\\ud800\"}", "line 1 column"),
        (deep.as_bytes(), "recursion limit exceeded at line 1 column"),
    ] {
        let error = parse(CHAT, body).expect_err(part);
        assert_eq!((error.code, error.param.as_deref()), ("invalid_json", None), "{error:?}");
        assert!(error.message.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn a_long_value_is_not_repeated_whole() {
    let error = chat(&format!(r#","temperature":"{}""#, "é".repeat(10_000))).expect_err("a string");
    assert!(error.message.len() < 300, "{}", error.message.len());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>) {
        let _ = parse(CHAT, &body);
        let _ = parse(TEXT, &body);
    }

    #[test]
    fn mutated_bodies_never_panic(at in 0_usize..400, len in 0_usize..6, bytes in proptest::collection::vec(any::<u8>(), 0..6)) {
        let mut body = chat_with(r#","max_tokens":16,"temperature":0.5,"stop":["a","b"],"seed":-1,"stream":true,
            "stream_options":{"include_usage":true},"metadata":{"a":"b"},"modalities":["text"],"n":1,
            "service_tier":"flex","response_format":{"type":"text"},"logit_bias":{}"#).into_bytes();
        let start = at.min(body.len());
        let end = (start + len).min(body.len());
        body.splice(start..end, bytes);
        if let Err(error) = parse(CHAT, &body) {
            prop_assert!(!error.message.is_empty());
        }
    }
}

#[test]
fn only_a_plain_false_forbids_storing() {
    for (fields, forbids) in [
        ("", false),
        (r#","store":true"#, false),
        (r#","store":null"#, false),
        (r#","metadata":{"store":"false"}"#, false),
        (r#","store":false"#, true),
        (r#","store" : false ,"x":[{"store":true}]"#, true),
    ] {
        let body = chat_with(fields);
        assert!(parse(Endpoint::ChatCompletions, body.as_bytes()).is_ok(), "{body}");
        assert_eq!(forbids_storing(body.as_bytes()), forbids, "{body}");
    }
}
