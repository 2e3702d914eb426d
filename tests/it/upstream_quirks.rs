//! Streams as servers have been seen to write them, and what a client of the box gets of each.

use crate::harness::chat;
use crate::harness::server::{Server, Setup};
use crate::harness::upstream::{
    Act, Script, Upstream, choice, delta, finish, json, said, stream, stream_head, usage,
};
use serde_json::{Value, json as value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a server that answers so makes a client get, streamed and whole: the text, and the reason.
fn check(server: &Server, upstream: &Upstream, what: &str, script: Script, expected: (&str, &str)) {
    let answer = script.clone();
    upstream.answer(&["m"], move |_| answer.clone());
    let whole = chat::ask(server, "m", "Hi", value!({}));
    assert_eq!(whole.status, 200, "{what}: {}", whole.text());
    let choice = &whole.value()["choices"][0];
    let got = (
        choice["message"]["content"].as_str().unwrap_or("null"),
        choice["finish_reason"].as_str().unwrap_or(""),
    );
    assert_eq!(got, expected, "{what}, whole");
    let mut events = chat::Events::of(chat::open(server, "m", "Hi", value!({})));
    let (text, end) = events.rest();
    assert_eq!((text.as_str(), end), (expected.0, chat::Event::Done), "{what}, streamed");
}

fn raw(text: &str) -> Script {
    vec![stream_head(), Act::Write(text.as_bytes().to_vec())]
}

/// A stream in HTTP chunks of so many bytes, whatever is in them.
fn chunked(text: &str, size: usize) -> Script {
    let mut script = vec![Act::Write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
    )];
    for chunk in text.as_bytes().chunks(size) {
        script.push(Act::Write([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()));
    }
    script.push(Act::Write(b"0\r\n\r\n".to_vec()));
    script
}

#[test]
fn a_client_gets_the_same_whatever_way_a_server_writes_it() {
    let upstream = Upstream::start(&["m"], |_| said("unused"));
    let server = Setup::open().upstream(&upstream.url()).start();
    let check = |what: &str, script, text: &str, reason: &str| {
        check(&server, &upstream, what, script, (text, reason))
    };
    let (hello, end) = (delta("H\u{e9}llo \u{1F600}"), finish("stop"));
    let text = "H\u{e9}llo \u{1F600}";

    check("the standard", stream(&[&hello, &end, &usage(1, 2)]), text, "stop");
    // Proxies and small servers leave the space out.
    check(
        "no space behind the colon",
        raw(&format!("data:{hello}\n\ndata:{end}\n\ndata:[DONE]\n\n")),
        text,
        "stop",
    );
    // OpenRouter's comments while it waits.
    check(
        "comments",
        raw(&format!(": PROCESSING\n\n:\n\ndata: {hello}\n\ndata: {end}\n\n: bye\n\n")),
        text,
        "stop",
    );
    // Older TGI and many gateways close without the word.
    check("no [DONE]", raw(&format!("data: {hello}\n\ndata: {end}\n\n")), text, "stop");
    check("not even a last empty line", raw(&format!("data: {hello}\n\ndata: {end}")), text, "stop");
    check(
        "no reason, but the word that it is all",
        raw(&format!("data: {hello}\n\ndata: [DONE]\n\n")),
        text,
        "stop",
    );
    // OpenAI, vLLM and llama.cpp begin with the role alone; Ollama repeats it.
    let role = choice(r#""delta":{"role":"assistant","content":null},"finish_reason":null"#);
    let again = choice(r#""delta":{"role":"assistant","content":"a"},"finish_reason":null"#);
    check("the role first", stream(&[&role, &hello, &end]), text, "stop");
    check("the role always", stream(&[&again, &again, &end]), "aa", "stop");
    // vLLM may end with the last text.
    let exclaimed = format!("{text}!");
    let last = choice(r#""delta":{"content":"!"},"finish_reason":"length""#);
    check("the reason with text", stream(&[&hello, &last]), &exclaimed, "length");
    // Some state usage in every event, also with choices (litellm#14457).
    let counted = choice(
        r#""delta":{"content":"x"},"finish_reason":null}],"usage":{"prompt_tokens":1,"completion_tokens":1},"x":[{"#,
    );
    check("usage with every event", stream(&[&counted, &end]), "x", "stop");
    for size in [1, 2, 3, 7] {
        let stream = format!("data: {hello}\r\n\r\ndata: {end}\r\n\r\ndata: [DONE]\r\n\r\n");
        check("cut in the middle of characters", chunked(&stream, size), text, "stop");
    }
    // A server, or a proxy before it, that doesn't stream at all.
    let whole = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"all of it"},"finish_reason":"stop"}]}"#;
    check("an answer that comes whole", json(200, whole), "all of it", "stop");
    check(
        "nonsense behind the end",
        raw(&format!("data: {hello}\n\ndata: {end}\n\ndata: {{oops\n\n")),
        text,
        "stop",
    );
    check("an empty answer", stream(&[&role, &end]), "", "stop");
    server.assert_nothing_left();
}

#[test]
fn a_broken_stream_is_tried_again_until_something_was_seen() {
    let upstream = Upstream::start(&["m"], |_| said("unused"));
    let server = Setup::open().upstream(&upstream.url()).start();
    let whole = |script: Script| {
        upstream.answer(&["m"], move |_| script.clone());
        let answer = chat::ask(&server, "m", "Hi", value!({}));
        (answer.status, answer.error())
    };
    let text = delta("some");
    for (what, script, part) in [
        ("it breaks off", raw(&format!("data: {text}\n\n")), "broke off"),
        ("nothing comes", raw(""), "broke off"),
        ("no JSON comes", raw("data: {oops\n\n"), "isn't JSON"),
        ("an error comes", stream(&[&text, r#"{"error":{"message":"cuda died","code":500}}"#]), "cuda died"),
        ("an error is all", json(200, r#"{"error":"model runner stopped"}"#), "model runner stopped"),
        ("no HTTP comes", vec![Act::Write(b"hello\r\n".to_vec())], "connection"),
        (
            "several choices",
            stream(&[r#"{"choices":[{"index":1,"delta":{"content":"x"}}]}"#]),
            "several choices",
        ),
    ] {
        let before = upstream.asked("/v1/chat/completions").len();
        let (status, error) = whole(script);
        assert_eq!((status, &error["code"]), (502, &value!("node_error")), "{what}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(part)), "{what}: {error}");
        assert_eq!(upstream.asked("/v1/chat/completions").len() - before, 3, "{what}: three attempts");
    }
    // Who saw something isn't given another answer's beginning.
    let (begun, died) =
        (format!("data: {text}\n\n"), "data: {\"error\":{\"message\":\"cuda died\",\"code\":500}}\n\n");
    let gate = Arc::new(AtomicBool::new(false));
    let seen_first = Act::Until(Arc::clone(&gate));
    let script = vec![stream_head(), Act::Write(begun.into_bytes()), seen_first, Act::Write(died.into())];
    upstream.answer(&["m"], move |_| script.clone());
    let before = upstream.asked("/v1/chat/completions").len();
    let mut events = chat::Events::of(chat::open(&server, "m", "Hi", value!({})));
    let seen = events.first_text();
    gate.store(true, Ordering::SeqCst);
    let (_, end) = events.rest();
    let chat::Event::Data(error) = end else { panic!("{end:?}") };
    assert_eq!((seen.as_str(), &error["error"]["code"]), ("some", &value!("node_error")), "{error}");
    assert_eq!(events.next(), chat::Event::Cut, "no [DONE] behind an error");
    assert_eq!(upstream.asked("/v1/chat/completions").len() - before, 1);
    server.assert_nothing_left();
}

#[test]
fn what_is_not_text_comes_as_it_was_written() {
    let upstream = Upstream::start(&["m"], |_| said("unused"));
    let server = Setup::open().upstream(&upstream.url()).start();
    let think = choice(r#""delta":{"reasoning_content":"H\u006dm"},"finish_reason":null"#);
    let call = choice(
        r#""delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}"#,
    );
    let more = choice(r#""delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\": 1}"}}]}"#);
    let sure = choice(
        r#""delta":{"content":"Yes"},"logprobs":{"content":[{"token":"Yes","logprob":-0.10,"top_logprobs":[]}]}"#,
    );
    let script = stream(&[&think, &sure, &call, &more, &finish("tool_calls"), &usage(9, 4)]);
    upstream.answer(&["m"], move |_| script.clone());

    let whole = chat::ask(&server, "m", "Hi", value!({"logprobs": true})).value();
    let message = &whole["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&value!("Yes"), &value!("Hmm")),
        "{whole}"
    );
    let function = value!({"name": "f", "arguments": "{\"x\": 1}"});
    assert_eq!(
        message["tool_calls"],
        value!([{"id": "c1", "type": "function", "function": function}]),
        "{whole}"
    );
    assert_eq!(whole["choices"][0]["logprobs"]["content"][0]["token"], "Yes");
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        (&whole["usage"]["prompt_tokens"], &whole["usage"]["completion_tokens"]),
        (&value!(9), &value!(4))
    );

    let streamed = chat::open(&server, "m", "Hi", value!({"stream": true})).finish().text();
    for verbatim in [
        r#"{"index":0,"delta":{"reasoning_content":"H\u006dm"},"finish_reason":null}"#,
        r#""logprobs":{"content":[{"token":"Yes","logprob":-0.10,"top_logprobs":[]}]}"#,
        r#""delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\": 1}"}}]}"#,
        r#""delta":{},"logprobs":null,"finish_reason":"tool_calls""#,
    ] {
        assert!(streamed.contains(verbatim), "no {verbatim} in\n{streamed}");
    }
    let model = |event: &str| serde_json::from_str::<Value>(event).map(|event| event["model"].clone()).ok();
    let names: Vec<_> = streamed.lines().filter_map(|line| model(line.strip_prefix("data: ")?)).collect();
    assert!(names.len() >= 6 && names.iter().all(|name| *name == "m"), "the box's name for it: {names:?}");
    server.assert_nothing_left();
}

#[test]
fn plain_completions_pass_too() {
    let upstream = Upstream::start(&["m"], |asked| {
        assert_eq!(asked.path, "/v1/completions");
        let a = r#"{"choices":[{"index":0,"text":"a","logprobs":{"tokens":["a"]},"finish_reason":null}]}"#;
        let b = r#"{"choices":[{"index":0,"text":"b","logprobs":null,"finish_reason":"length"}]}"#;
        stream(&[a, b, &usage(5, 2)])
    });
    let server = Setup::open().upstream(&upstream.url()).start();
    let body = r#"{"model":"m","prompt":[1,2,3],"logprobs":1,"echo":true}"#;
    let whole = server.call("POST", "/v1/completions", body).value();
    let choice = &whole["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&value!("ab"), &value!("length")), "{whole}");
    assert_eq!(choice["logprobs"], value!({"tokens": ["a"]}), "{whole}");
    server.assert_nothing_left();
}
