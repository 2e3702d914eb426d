//! Events to chunks, reasons and usage.

use proptest::prelude::*;
use serde_json::Value;

use super::super::answer::{Said, Stated, read, read_whole};
use super::super::list::{Listed, parse};
use crate::coordinator::event::{ErrorClass, FinishReason};
use crate::output::{Chunk, ChunkKind};

fn text(text: &str) -> Said {
    Said { chunk: Some(Chunk::text(text, 1)), ..Said::default() }
}

fn json(json: &str) -> Said {
    Said { chunk: Some(Chunk::json(json, 1)), ..Said::default() }
}

fn finish(reason: FinishReason) -> Said {
    Said { finish: Some(reason), ..Said::default() }
}

fn choice(members: &str) -> String {
    format!(
        r#"{{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{{members}}}]}}"#
    )
}

#[test]
fn deltas_are_text_or_go_on_as_they_are() {
    for (what, members, expected) in [
        ("text", r#""index":0,"delta":{"content":"Hi\n"},"finish_reason":null"#, text("Hi\n")),
        ("half of a pair", r#""index":0,"delta":{"content":"\ud83d\ude00"}"#, text("\u{1F600}")),
        // OpenAI, vLLM and llama.cpp begin with the role alone.
        ("the role alone", r#""index":0,"delta":{"role":"assistant","content":""}"#, Said::default()),
        ("a null content", r#""index":0,"delta":{"role":"assistant","content":null}"#, Said::default()),
        // Ollama says the role with every delta.
        ("the role again", r#""index":0,"delta":{"role":"assistant","content":"a"}"#, text("a")),
        // vLLM lists what there isn't.
        (
            "what there isn't",
            r#""index":0,"delta":{"content":"a","reasoning_content":null,"tool_calls":[]},"logprobs":null,"stop_reason":null,"token_ids":null"#,
            text("a"),
        ),
        ("an empty end", r#""index":0,"delta":{},"finish_reason":"stop""#, finish(FinishReason::Stop)),
        ("an empty reason", r#""index":0,"delta":{},"finish_reason":"""#, Said::default()),
        (
            "the reason with the last text",
            r#""index":0,"delta":{"content":"!"},"finish_reason":"length""#,
            Said { finish: Some(FinishReason::Length), ..text("!") },
        ),
        ("tools", r#""index":0,"delta":{},"finish_reason":"tool_calls""#, finish(FinishReason::ToolCalls)),
        (
            "a filter",
            r#""index":0,"delta":{},"finish_reason":"content_filter""#,
            finish(FinishReason::ContentFilter),
        ),
        (
            "a function",
            r#""index":0,"delta":{},"finish_reason":"function_call""#,
            finish(FinishReason::FunctionCall),
        ),
        ("TGI's end", r#""index":0,"delta":{},"finish_reason":"eos_token""#, finish(FinishReason::Stop)),
        // Reasoning: vLLM and llama.cpp say reasoning_content, Ollama and newer vLLMs reasoning.
        (
            "reasoning",
            r#""index":0,"delta":{"reasoning_content":"H\u006dm"}"#,
            json(r#"{"delta":{"reasoning_content":"H\u006dm"}}"#),
        ),
        (
            "Ollama's reasoning",
            r#""index":0,"delta":{"role":"assistant","content":"","reasoning":"Hm"},"finish_reason":null"#,
            json(r#"{"delta":{"role":"assistant","content":"","reasoning":"Hm"}}"#),
        ),
        (
            "calls",
            r#""index":0,"delta":{"tool_calls":[ {"index": 0, "function":{"arguments":"{\""}}]}"#,
            json(r#"{"delta":{"tool_calls":[ {"index": 0, "function":{"arguments":"{\""}}]}}"#),
        ),
        (
            "probabilities",
            r#""index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.10}]}"#,
            json(r#"{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.10}]}}"#),
        ),
        ("a refusal", r#""index":0,"delta":{"refusal":"No."}"#, json(r#"{"delta":{"refusal":"No."}}"#)),
        ("audio", r#""index":0,"delta":{"audio":{"id":"a"}}"#, json(r#"{"delta":{"audio":{"id":"a"}}}"#)),
        ("plain completions", r#""index":0,"text":"a","logprobs":null"#, text("a")),
        ("their end", r#""index":0,"text":"","finish_reason":"stop""#, finish(FinishReason::Stop)),
        (
            "their probabilities",
            r#""index":0,"text":"a","logprobs":{"tokens":["a"]}"#,
            json(r#"{"logprobs":{"tokens":["a"]},"text":"a"}"#),
        ),
        ("lines within", "\"index\":0,\"delta\":{\"x\":[1,\n2]}", json(r#"{"delta":{"x":[1, 2]}}"#)),
    ] {
        assert_eq!(read(&choice(members)), Ok(expected), "{what}");
    }
}

#[test]
fn usage_comes_where_servers_put_it() {
    let usage = |input, cached, output| Said {
        usage: Some(Stated { input_tokens: input, cached_tokens: cached, output_tokens: output }),
        ..Said::default()
    };
    for (data, expected) in [
        // OpenAI, vLLM, llama.cpp: behind the last choice, with none.
        (
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
            usage(3, 0, 2),
        ),
        (
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8}}}"#,
            usage(9, 8, 2),
        ),
        (
            r#"{"choices":[],"usage":{"prompt_tokens":3.0,"completion_tokens":1e20,"prompt_tokens_details":null}}"#,
            usage(3, 0, u32::MAX),
        ),
        // Some with the last choice (litellm#37734), some with every one.
        (
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
            Said { finish: Some(FinishReason::Stop), ..usage(1, 0, 1) },
        ),
        (r#"{"choices":[],"usage":null}"#, Said::default()),
        (r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1}}"#, Said::default()),
        // Azure's first event is about the prompt; llama.cpp's last may have timings.
        (
            r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}],"timings":{"prompt_n":1}}"#,
            Said::default(),
        ),
        (r#"{"object":"ping"}"#, Said::default()),
    ] {
        assert_eq!(read(data), Ok(expected), "{data}");
    }
}

#[test]
fn errors_in_the_middle_are_errors() {
    for (data, class, part) in [
        // vLLM
        (
            r#"{"error":{"message":"boom","type":"InternalServerError","param":null,"code":500}}"#,
            ErrorClass::Transient,
            "boom",
        ),
        (
            r#"{"error":{"message":"too long","type":"BadRequestError","code":400}}"#,
            ErrorClass::Terminal,
            "too long",
        ),
        (
            r#"{"object":"error","message":"old vLLM","type":"BadRequestError","code":400}"#,
            ErrorClass::Terminal,
            "old vLLM",
        ),
        // llama.cpp
        (
            r#"{"error":{"code":500,"message":"slot unavailable","type":"server_error"}}"#,
            ErrorClass::Transient,
            "slot unavailable",
        ),
        // Ollama
        (
            r#"{"error":"model runner has unexpectedly stopped"}"#,
            ErrorClass::Transient,
            "unexpectedly stopped",
        ),
        (
            r#"{"error":{"message":"no such option","type":"invalid_request_error","param":null,"code":null}}"#,
            ErrorClass::Terminal,
            "no such option",
        ),
        ("no JSON", ErrorClass::Transient, "isn't JSON"),
        ("[1]", ErrorClass::Transient, "isn't JSON"),
        (r#"{"choices":[{"index":1,"delta":{"content":"x"}}]}"#, ErrorClass::Node, "several choices"),
        (
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}"#,
            ErrorClass::Transient,
            "gave the request up",
        ),
    ] {
        let fault = read(data).expect_err(data);
        assert_eq!(fault.class, class, "{data}");
        assert!(fault.message.contains(part), "{data}: {}", fault.message);
    }
}

#[test]
fn an_answer_that_comes_whole_is_one_delta() {
    let answer = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let stated = Stated { input_tokens: 1, cached_tokens: 0, output_tokens: 2 };
    let expected = Said { finish: Some(FinishReason::Stop), usage: Some(stated), ..text("Hi") };
    assert_eq!(read_whole(answer), Ok(expected));
    let calls = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a","function":{}},{"id":"b","function":{}}]}}]}"#;
    let said = read_whole(calls).expect("an answer");
    let chunk = said.chunk.expect("a chunk");
    assert_eq!(chunk.kind, ChunkKind::Json);
    let value: Value = serde_json::from_str(&chunk.text).expect("JSON");
    assert_eq!(value.pointer("/delta/tool_calls/1/index"), Some(&1.into()), "a stream's calls have an index");
    // An error with status 200, as proxies give.
    let fault = read_whole(r#"{"error":{"message":"upstream gone","code":502}}"#).expect_err("an error");
    assert!(fault.message.contains("upstream gone"), "{}", fault.message);
    for none in ["{}", r#"{"status":"ok"}"#, "{", "<html>"] {
        assert!(read_whole(none).is_err(), "{none}");
    }
}

#[test]
fn lists_of_models_say_how_long_a_context_is() {
    let listed = |name: &str, context_tokens| Listed { name: name.into(), context_tokens };
    for (list, expected) in [
        (
            r#"{"object":"list","data":[{"id":"org/M","object":"model","max_model_len":4096}]}"#,
            vec![listed("org/M", Some(4_096))],
        ),
        (
            r#"{"models":[{"name":"m"}],"data":[{"id":"m.gguf","meta":{"vocab_type":2,"n_ctx":2048,"n_ctx_train":8192}},{"id":"b","meta":null},{"id":"c","meta":{"n_ctx_train":512}}]}"#,
            vec![listed("m.gguf", Some(2_048)), listed("b", None), listed("c", Some(512))],
        ),
        (r#"{"data":[{"id":"qwen3:8b","created":1,"owned_by":"library"}]}"#, vec![listed("qwen3:8b", None)]),
        // Ollama's without a model.
        (r#"{"object":"list","data":null}"#, vec![]),
    ] {
        assert_eq!(parse(list.as_bytes()).expect(list), expected, "{list}");
    }
    assert!(parse(b"<html>").is_err());
}

proptest! {
    #[test]
    fn any_data_is_read_or_refused(text: String, name in "[a-z]{1,9}") {
        let _ = read(&text);
        let _ = read_whole(&text);
        let quoted = Value::from(text.as_str()).to_string();
        let _ = read(&choice(&format!("\"index\":0,\"delta\":{{\"{name}\":{quoted}}}")));
    }
}
