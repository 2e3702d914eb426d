//! Tokens against llama.cpp's, and time against length.

use std::time::{Duration, Instant};

use switchbox::executor::SpecialTokens;

use crate::{golden, model};

/// The text that llama.cpp tokenized: its tool reads `\n`, `\t` and the like in its input as escapes, so in
/// three of the goldens (`\to`, `\naïve`) it saw a tab or a newline. Others of its escapes do not occur.
fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

#[test]
fn tokenizer_goldens() {
    let model = model();
    let (mut wrong, mut rows) = (Vec::new(), 0);
    for line in golden("smollm2-tokenizer.jsonl").lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = &unescape(row["text"].as_str().unwrap());
        for (name, special) in [("ids", SpecialTokens::Plain), ("ids_parse_special", SpecialTokens::Parse)] {
            let Some(ids) = row[name].as_array() else { continue };
            let expected: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let found = model.tokenizer().encode(text, special).unwrap();
            rows += 1;
            if found != expected {
                wrong.push(format!("{name} of {text:?}: {found:?} for {expected:?}"));
            }
        }
    }
    assert!(rows >= 1000, "{rows} rows");
    assert!(wrong.is_empty(), "{} of {rows} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn long_texts_take_linear_time() {
    let model = model();
    for unit in ["a", " ", "\n", "\t ", "é", "1", "<", "<|im_", "日", " a"] {
        let text = unit.repeat((64 << 10) / unit.len());
        let start = Instant::now();
        let tokens = model.tokenizer().encode(&text, SpecialTokens::Parse).unwrap();
        let took = start.elapsed();
        println!("{unit:?}: {} tokens in {took:?}", tokens.len());
        assert!(took < Duration::from_secs(1), "{unit:?} x 64 KiB took {took:?}");
    }
}
