//! What may be shown in a terminal: text of a server or a model is never trusted to be free of escape sequences.

use std::borrow::Cow;

/// Without control characters but line feed and tab; what was one is shown as `\u{fffd}`.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_unsafe) {
        Cow::Owned(text.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// On one line, for errors.
pub(super) fn one_line(text: &str) -> String {
    printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_disarmed() {
        for (text, shown) in [
            ("plain\n\ttext é", "plain\n\ttext é"),
            ("\x1b[2J", "\u{fffd}[2J"),
            ("a\u{9b}b\r", "a\u{fffd}b\u{fffd}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(one_line("a\n  b\tc"), "a b c");
    }
}
