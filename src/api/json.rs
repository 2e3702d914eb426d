//! Writing JSON by hand where it is hot: strings and numbers straight into the answer's bytes. Never reads JSON.

use std::io::Write;

/// For each byte, whether a JSON string must escape it.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 16;

/// Whether nothing in a block must be escaped; without branches, so that the compiler makes vectors of it.
fn is_plain(block: &[u8]) -> bool {
    let special = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    !block.iter().fold(false, |found, byte| found | special(byte))
}

/// Writes `text` as a JSON string with its quotes.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Writes `text` as the inside of a JSON string.
pub(super) fn escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    let mut at = 0;
    while at < bytes.len() {
        if let Some(block) = bytes.get(at..at + BLOCK_BYTES)
            && is_plain(block)
        {
            at += BLOCK_BYTES;
            continue;
        }
        let byte = bytes[at];
        at += 1;
        if !ESCAPED[usize::from(byte)] {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at - 1]);
        plain_from = at;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
}

/// Writes a value as it displays.
pub(super) fn display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a vector doesn't fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_reads_back(text: String) {
            let mut out = Vec::new();
            super::string(&mut out, &text);
            prop_assert!(!out.iter().any(|byte| *byte < 0x20), "a raw control character would break an event's line");
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut out = Vec::new();
        super::string(&mut out, "\u{0}\u{1f}\n\r\t\"\\é\u{2028}");
        assert_eq!(out, "\"\\u0000\\u001f\\n\\r\\t\\\"\\\\é\u{2028}\"".as_bytes());
    }
}
