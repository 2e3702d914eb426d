//! Tokens against llama.cpp's, and time against length.

use std::time::Duration;

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

/// Runs of one kind, far longer than the regular expressions take at once: they end, and nothing is lost. Before
/// texts were given to them in stretches, a million characters of a kind went round for ever.
#[test]
fn long_runs_come_to_an_end() {
    const DEADLINE: Duration = Duration::from_secs(300);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let model = model();
        for unit in ["a", " ", "\n", "é", "1", "<|im_", "日", " a"] {
            let text = unit.repeat((1_200 << 10) / unit.len());
            let tokens = model.tokenizer().encode(&text, SpecialTokens::Plain).unwrap();
            let spelled: Vec<u8> = tokens.iter().flat_map(|t| model.tokenizer().bytes(*t)).copied().collect();
            assert!(spelled == text.as_bytes(), "{unit:?}");
            done.send(unit).unwrap();
        }
    });
    let units: Vec<_> = std::iter::from_fn(|| ended.recv_timeout(DEADLINE).ok()).collect();
    assert_eq!(units.len(), 8, "ended: {units:?}");
}

/// Where a long text is divided is a place where every pre-tokenizer divides it too.
#[test]
fn stretches_leave_no_seams_in_prose() {
    let model = model();
    let encode = |text: &str| model.tokenizer().encode(text, SpecialTokens::Plain).unwrap();
    let sentence = "The 3 quick-brown foxes  don't jump, over 12 lazy dogs; they sleep.\n";
    let long = sentence.repeat((200 << 10) / sentence.len());
    // The same text in lines: a line's end is a seam of every pre-tokenizer.
    let by_line: Vec<u32> = long.split_inclusive('\n').flat_map(encode).collect();
    assert_eq!(encode(&long), by_line);
}
