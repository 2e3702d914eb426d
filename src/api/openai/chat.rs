//! The shape of chat completions, whole and as events.

use super::render::Shape;

/// Everything around what varies.
pub(super) const SHAPE: Shape = Shape {
    id_prefix: "chatcmpl-",
    whole_object: "chat.completion",
    whole_before_text: r#""choices":[{"index":0,"message":{"role":"assistant","content":""#,
    whole_after_text: r#"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"#,
    event_object: "chat.completion.chunk",
    event_opening: concat!(
        r#""choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"#,
        r#""logprobs":null,"finish_reason":null}]"#
    ),
    event_before_text: r#""choices":[{"index":0,"delta":{"content":""#,
    event_after_text: r#""},"logprobs":null,"finish_reason":null}]"#,
    event_finish: r#""choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"#,
};
