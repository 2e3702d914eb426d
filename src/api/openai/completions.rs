//! The shape of plain completions, whole and as events.

use super::render::Shape;

/// Everything around what varies.
pub(super) const SHAPE: Shape = Shape {
    id_prefix: "cmpl-",
    whole_object: "text_completion",
    whole_before_text: r#""choices":[{"index":0,"text":""#,
    whole_after_text: r#"","logprobs":null,"finish_reason":"#,
    event_object: "text_completion",
    event_opening: "",
    event_before_text: r#""choices":[{"index":0,"text":""#,
    event_after_text: r#"","logprobs":null,"finish_reason":null}]"#,
    event_finish: r#""choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"#,
};
