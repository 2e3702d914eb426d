//! Greedy answers against llama.cpp's.

use switchbox::executor::{ChatMessage, Engine, EngineOptions, Finish, Forward, Numerics, Rows, Wanted};

use crate::collect::{request, wait};
use crate::{golden, model};

/// Where two candidates' logits are closer than this, rounding may decide between them.
const GAP_MAX: f32 = 0.5;

struct Row {
    prompt: Vec<u32>,
    answer: String,
    has_ended: bool,
}

fn rows() -> Vec<Row> {
    let model = model();
    let all: serde_json::Value = serde_json::from_str(&golden("smollm2-greedy.json")).unwrap();
    let rows = all["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let text = |name: &str| row[name].as_str().unwrap();
        let message = ChatMessage { role: "user", content: text("user") };
        let prompt = model.encode_chat(&[message]).unwrap();
        let spelled: Vec<u8> = prompt.iter().flat_map(|t| model.tokenizer().bytes(*t).to_vec()).collect();
        assert_eq!(String::from_utf8(spelled).unwrap(), text("prompt"));
        let answer = text("greedy_64").trim_end_matches('\n');
        let ended = answer.strip_suffix(" [end of text]");
        Row { prompt, answer: ended.unwrap_or(answer).to_owned(), has_ended: ended.is_some() }
    })
    .collect()
}

/// Follows the golden answer's own tokens; wherever another token looks better than the golden one, the gap
/// must be small. (The golden text is tokenized anew, which may join what was generated apart: there the
/// golden token is not the one that was chosen, so only the first difference counts.)
#[test]
fn greedy_goldens() {
    let model = model();
    let mut forward = Forward::new(Numerics::Auto.arithmetic(), 2).unwrap();
    let mut equal = 0;
    for row in rows() {
        let mut kv = model.kv_cache();
        let mut next = row.prompt.clone();
        let mut said: Vec<u8> = Vec::new();
        for n in 0..64 {
            let batch = &mut [Rows { tokens: &next, kv: &mut kv, wanted: Wanted::Last }];
            let logits = forward.run(&model, batch).to_vec();
            let best = switchbox_kernels::pointwise::argmax(&logits) as u32;
            let golden = row.answer.as_bytes();
            let bytes = model.tokenizer().visible_bytes(best);
            let same = match model.tokenizer().is_end(best) {
                true => row.has_ended && said == golden,
                false => golden[said.len()..].starts_with(bytes) || (bytes.starts_with(&golden[said.len()..]) && !row.has_ended),
            };
            if !same {
                let rest = String::from_utf8_lossy(&golden[said.len()..]).into_owned();
                let candidate = match rest.is_empty() {
                    true => 2,
                    false => model.tokenizer().encode(&rest, switchbox::executor::SpecialTokens::Plain).unwrap()[0],
                };
                let gap = logits[best as usize] - logits[candidate as usize];
                println!("token {n}: {best} for {candidate}, gap {gap} in {:?}", row.answer);
                assert!(gap < GAP_MAX, "token {n} of {:?}: {best} for {candidate}, gap {gap}", row.answer);
                break;
            }
            equal += 1;
            if model.tokenizer().is_end(best) || said.len() >= golden.len() {
                break;
            }
            said.extend_from_slice(bytes);
            next = vec![best];
        }
    }
    println!("{equal} tokens equal");
}

#[test]
fn the_engine_says_the_same() {
    let engine = Engine::start(model(), EngineOptions { threads: 2, ..EngineOptions::default() });
    let row = &rows()[2];
    let (request, heard) = request(1, row.prompt.clone(), 64);
    engine.submit(request);
    let (text, outcome) = wait(&heard);
    assert_eq!(outcome.reason, Finish::Stop);
    assert_eq!(text, row.answer);
    println!("{text}\n{outcome:?}");
}
