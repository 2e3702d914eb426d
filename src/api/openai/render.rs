//! What answers of both endpoints share, written straight into bytes. What is the same in all events of a stream
//! is rendered once; an event costs two copies and the escaping of its text.

use std::sync::Arc;

use crate::api::json::{display, escaped, string};
use crate::choice;
use crate::coordinator::effect::Usage;
use crate::coordinator::event::{Endpoint, FinishReason, Tier};
use crate::ids::{JobId, ModelName};
use crate::output::ChunkKind;
use crate::request::service_tier_name;

use super::{UsageChunk, chat, completions};

/// What an answer shows of its request.
pub(super) struct Shown {
    pub(super) endpoint: Endpoint,
    pub(super) created: u64,
    pub(super) model: ModelName,
    pub(super) tier: Tier,
    pub(super) fingerprint: Arc<str>,
}

/// The texts of an endpoint's shape around what varies.
pub(super) struct Shape {
    /// Before the job's id.
    pub(super) id_prefix: &'static str,
    pub(super) whole_object: &'static str,
    /// From `choices` to before the text.
    pub(super) whole_before_text: &'static str,
    /// From behind the text to before the finish reason.
    pub(super) whole_after_text: &'static str,
    pub(super) event_object: &'static str,
    /// The choices of a stream's first event; empty if it has none of its own.
    pub(super) event_opening: &'static str,
    pub(super) event_before_text: &'static str,
    pub(super) event_after_text: &'static str,
    /// From `choices` to before the finish reason.
    pub(super) event_finish: &'static str,
}

fn shape(endpoint: Endpoint) -> &'static Shape {
    match endpoint {
        Endpoint::ChatCompletions => &chat::SHAPE,
        Endpoint::Completions => &completions::SHAPE,
    }
}

impl Shown {
    /// The texts of its endpoint's shape.
    pub(super) fn shape(&self) -> &'static Shape {
        shape(self.endpoint)
    }

    /// Everything of a whole answer that is before its text.
    pub(super) fn begin_whole(&self, job: JobId) -> Vec<u8> {
        let shape = shape(self.endpoint);
        let mut out = Vec::with_capacity(1_024);
        out.push(b'{');
        self.common(&mut out, Some(job), shape.whole_object);
        out.extend_from_slice(shape.whole_before_text.as_bytes());
        out
    }

    /// Everything from its finish reason on.
    pub(super) fn end_whole(&self, out: &mut Vec<u8>, reason: FinishReason, usage: Usage) {
        string(out, reason.word());
        out.extend_from_slice(b"}],\"usage\":");
        write_usage(out, usage);
        out.push(b'}');
    }

    /// The events of a stream.
    pub(super) fn events(&self, job: Option<JobId>, usage: UsageChunk) -> Events {
        let shape = shape(self.endpoint);
        let mut common = b"data: {".to_vec();
        self.common(&mut common, job, shape.event_object);
        let mut before_text = common.clone();
        before_text.extend_from_slice(shape.event_before_text.as_bytes());
        let no_usage = match usage {
            UsageChunk::Asked => ",\"usage\":null}\n\n",
            UsageChunk::NotAsked => "}\n\n",
        };
        let after_text = [shape.event_after_text, no_usage].concat().into_bytes();
        Events { shape, common, before_text, after_text, no_usage, usage, begun: Begun::NotYet }
    }

    /// The members that every object of an answer begins with, a comma at their end.
    fn common(&self, out: &mut Vec<u8>, job: Option<JobId>, object: &str) {
        out.extend_from_slice(b"\"id\":\"");
        out.extend_from_slice(shape(self.endpoint).id_prefix.as_bytes());
        if let Some(job) = job {
            display(out, job);
        }
        out.extend_from_slice(b"\",\"object\":");
        string(out, object);
        out.extend_from_slice(b",\"created\":");
        display(out, self.created);
        out.extend_from_slice(b",\"model\":");
        string(out, &self.model);
        out.extend_from_slice(b",\"service_tier\":");
        string(out, service_tier_name(self.tier));
        out.extend_from_slice(b",\"system_fingerprint\":");
        string(out, &self.fingerprint);
        out.push(b',');
    }
}

fn write_usage(out: &mut Vec<u8>, usage: Usage) {
    out.extend_from_slice(b"{\"prompt_tokens\":");
    display(out, usage.input_tokens);
    out.extend_from_slice(b",\"completion_tokens\":");
    display(out, usage.output_tokens);
    out.extend_from_slice(b",\"total_tokens\":");
    display(out, u64::from(usage.input_tokens) + u64::from(usage.output_tokens));
    out.extend_from_slice(b",\"prompt_tokens_details\":{\"cached_tokens\":");
    display(out, usage.cached_tokens);
    out.extend_from_slice(b"},\"completion_tokens_details\":{\"reasoning_tokens\":0}}");
}

/// Writes the events of one stream.
pub(in crate::api) struct Events {
    shape: &'static Shape,
    common: Vec<u8>,
    before_text: Vec<u8>,
    after_text: Vec<u8>,
    no_usage: &'static str,
    usage: UsageChunk,
    begun: Begun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    NotYet,
    Yes,
}

impl Events {
    /// A piece of the answer. One that says nothing is no event.
    pub(in crate::api) fn piece(&mut self, out: &mut Vec<u8>, kind: ChunkKind, text: &str) {
        match kind {
            ChunkKind::Text => self.text(out, text),
            ChunkKind::Json => self.json(out, choice::members_of(text)),
        }
    }

    /// What a choice says, as it was written.
    fn json(&mut self, out: &mut Vec<u8>, members: &str) {
        if members.is_empty() {
            return;
        }
        self.begin(out);
        out.extend_from_slice(&self.common);
        out.extend_from_slice(b"\"choices\":[{\"index\":0,");
        out.extend_from_slice(members.as_bytes());
        out.extend_from_slice(b",\"finish_reason\":null}]");
        out.extend_from_slice(self.no_usage.as_bytes());
    }

    fn text(&mut self, out: &mut Vec<u8>, text: &str) {
        if text.is_empty() {
            return;
        }
        self.begin(out);
        out.extend_from_slice(&self.before_text);
        escaped(out, text);
        out.extend_from_slice(&self.after_text);
    }

    /// The end of an answer that is whole.
    pub(in crate::api) fn finish(&mut self, out: &mut Vec<u8>, reason: FinishReason, usage: Usage) {
        self.begin(out);
        out.extend_from_slice(&self.common);
        out.extend_from_slice(self.shape.event_finish.as_bytes());
        string(out, reason.word());
        out.extend_from_slice(b"}]");
        out.extend_from_slice(self.no_usage.as_bytes());
        if self.usage == UsageChunk::Asked {
            out.extend_from_slice(&self.common);
            out.extend_from_slice(b"\"choices\":[],\"usage\":");
            write_usage(out, usage);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.begun == Begun::Yes {
            return;
        }
        self.begun = Begun::Yes;
        if !self.shape.event_opening.is_empty() {
            out.extend_from_slice(&self.common);
            out.extend_from_slice(self.shape.event_opening.as_bytes());
            out.extend_from_slice(self.no_usage.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::whole::Whole;
    use super::*;

    const JOB: JobId = JobId { epoch: 0x10, counter: 7 };
    const USAGE: Usage = Usage { input_tokens: 3, cached_tokens: 0, output_tokens: 2 };

    fn shown(endpoint: Endpoint) -> Shown {
        Shown {
            endpoint,
            created: 1_700,
            model: "m\"1".into(),
            tier: Tier::Realtime,
            fingerprint: "switchbox-1".into(),
        }
    }

    fn whole(endpoint: Endpoint) -> Value {
        whole_of(endpoint, FinishReason::Length, &[(ChunkKind::Text, "a\n\"b\"")])
    }

    fn whole_of(endpoint: Endpoint, reason: FinishReason, pieces: &[(ChunkKind, &str)]) -> Value {
        let shown = shown(endpoint);
        let mut whole = Whole::begin(&shown, JOB);
        pieces.iter().for_each(|(kind, text)| whole.add(*kind, text));
        serde_json::from_slice(&whole.end(reason, USAGE)).expect("JSON")
    }

    fn stream(endpoint: Endpoint, usage: UsageChunk) -> Vec<Value> {
        stream_of(endpoint, usage, &["a\n", "", "\"b\""].map(|text| (ChunkKind::Text, text)))
    }

    fn stream_of(endpoint: Endpoint, usage: UsageChunk, pieces: &[(ChunkKind, &str)]) -> Vec<Value> {
        let mut events = shown(endpoint).events(Some(JOB), usage);
        let mut out = Vec::new();
        pieces.iter().for_each(|(kind, text)| events.piece(&mut out, *kind, text));
        events.finish(&mut out, FinishReason::Stop, USAGE);
        let text = String::from_utf8(out).expect("UTF-8");
        let rest = text.strip_suffix("data: [DONE]\n\n").expect("exactly this end");
        let event =
            |event: &str| serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
        rest.split_terminator("\n\n").map(event).collect()
    }

    #[test]
    fn a_chat_completion_has_its_required_members() {
        let body = whole(Endpoint::ChatCompletions);
        assert_eq!(
            body,
            json!({"id": "chatcmpl-job_000000100000000007", "object": "chat.completion", "created": 1700,
                "model": "m\"1", "service_tier": "priority", "system_fingerprint": "switchbox-1",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "a\n\"b\"", "refusal": null,
                    "annotations": []}, "logprobs": null, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
                    "prompt_tokens_details": {"cached_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 0}}})
        );
    }

    #[test]
    fn a_completion_has_its_required_members() {
        let body = whole(Endpoint::Completions);
        assert_eq!(body["id"], "cmpl-job_000000100000000007");
        assert_eq!(body["object"], "text_completion");
        let choice = json!({"index": 0, "text": "a\n\"b\"", "logprobs": null, "finish_reason": "length"});
        assert_eq!(body["choices"], json!([choice]));
    }

    #[test]
    fn a_chat_stream_is_in_the_right_order() {
        let events = stream(Endpoint::ChatCompletions, UsageChunk::NotAsked);
        let deltas: Vec<_> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
        let opening = json!({"role": "assistant", "content": "", "refusal": null});
        assert_eq!(deltas, [&opening, &json!({"content": "a\n"}), &json!({"content": "\"b\""}), &json!({})]);
        let reasons: Vec<_> = events.iter().map(|event| &event["choices"][0]["finish_reason"]).collect();
        assert_eq!(reasons, [&Value::Null, &Value::Null, &Value::Null, &json!("stop")]);
        for event in &events {
            assert_eq!(event["id"], "chatcmpl-job_000000100000000007");
            assert_eq!((&event["created"], &event["model"]), (&json!(1700), &json!("m\"1")));
            assert_eq!(event["object"], "chat.completion.chunk");
            assert!(event.get("usage").is_none());
        }
    }

    #[test]
    fn what_a_server_says_beside_text_is_in_both_forms_of_an_answer() {
        let pieces = [
            (ChunkKind::Json, r#"{"delta":{"reasoning_content":"H\u006d"}}"#),
            (ChunkKind::Text, "a\n"),
            (
                ChunkKind::Json,
                r#"{"delta":{"content":"b"},"logprobs":{"content":[{"token":"b","logprob":-0.10}]}}"#,
            ),
            (
                ChunkKind::Json,
                r#"{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"arguments":"{"}}]}}"#,
            ),
            (ChunkKind::Json, " {  } "),
        ];
        let body = whole_of(Endpoint::ChatCompletions, FinishReason::ToolCalls, &pieces);
        let message = json!({"role": "assistant", "content": "a\nb", "refusal": null, "annotations": [],
            "tool_calls": [{"id": "c", "function": {"arguments": "{"}}], "reasoning_content": "Hm"});
        let choice = json!({"index": 0, "message": message, "finish_reason": "tool_calls",
            "logprobs": {"content": [{"token": "b", "logprob": -0.1}]}});
        assert_eq!(body["choices"], json!([choice]));
        let events = stream_of(Endpoint::ChatCompletions, UsageChunk::Asked, &pieces);
        let choices: Vec<_> = events[1..5].iter().map(|event| event["choices"][0].clone()).collect();
        assert_eq!(
            choices[0],
            json!({"index": 0, "delta": {"reasoning_content": "Hm"}, "finish_reason": null})
        );
        assert_eq!(choices[1]["delta"], json!({"content": "a\n"}));
        assert_eq!(choices[2]["logprobs"]["content"][0]["token"], "b");
        assert_eq!(choices[3]["delta"]["tool_calls"][0]["index"], 0);
        assert!(events.iter().take(5).all(|event| event["usage"].is_null()));
        assert_eq!(events.len(), 1 + 4 + 2, "the opening, the pieces, the end and the usage");
    }

    #[test]
    fn who_only_calls_a_tool_has_null_for_a_text() {
        let call = (ChunkKind::Json, r#"{"delta":{"tool_calls":[{"index":0,"id":"c"}]}}"#);
        let body = whole_of(Endpoint::ChatCompletions, FinishReason::ToolCalls, &[call]);
        assert_eq!(body["choices"][0]["message"]["content"], Value::Null);
        let thought = (ChunkKind::Json, r#"{"delta":{"reasoning":"Hm"}}"#);
        let body = whole_of(Endpoint::ChatCompletions, FinishReason::Length, &[thought]);
        assert_eq!(body["choices"][0]["message"]["content"], "");
    }

    #[test]
    fn plain_completions_have_probabilities_too() {
        let piece = |token: &str| {
            format!(r#"{{"text":"{token}","logprobs":{{"tokens":["{token}"]}},"stop_reason":null}}"#)
        };
        let (a, b) = (piece("a"), piece("b"));
        let pieces = [(ChunkKind::Json, &*a), (ChunkKind::Json, &*b)];
        let body = whole_of(Endpoint::Completions, FinishReason::Stop, &pieces);
        let choice = json!({"index": 0, "text": "ab", "logprobs": {"tokens": ["a", "b"]}, "finish_reason": "stop",
            "stop_reason": null});
        assert_eq!(body["choices"], json!([choice]));
        let events = stream_of(Endpoint::Completions, UsageChunk::NotAsked, &pieces);
        assert_eq!(events[0]["choices"][0]["text"], "a");
    }

    #[test]
    fn usage_is_null_until_its_own_chunk() {
        for endpoint in [Endpoint::ChatCompletions, Endpoint::Completions] {
            let mut events = stream(endpoint, UsageChunk::Asked);
            let last = events.pop().expect("a usage chunk");
            assert_eq!(last["choices"], json!([]));
            assert_eq!(last["usage"]["total_tokens"], 5);
            assert!(events.iter().all(|event| event.get("usage") == Some(&Value::Null)));
        }
    }

    #[test]
    fn a_completion_stream_is_in_the_right_order() {
        let events = stream(Endpoint::Completions, UsageChunk::NotAsked);
        let choices: Vec<_> = events.iter().map(|event| event["choices"][0].clone()).collect();
        let choice = |text: &str, reason: Value| json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason});
        assert_eq!(
            choices,
            [choice("a\n", json!(null)), choice("\"b\"", json!(null)), choice("", json!("stop"))]
        );
        assert!(events.iter().all(|event| event["object"] == "text_completion"));
    }
}
