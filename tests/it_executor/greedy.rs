//! Greedy answers against llama.cpp's.

use switchbox::executor::{
    ChatMessage, Engine, EngineOptions, Finish, Forward, Numerics, Rows, SpecialTokens, Wanted,
};
use switchbox_kernels::pointwise::argmax;

use crate::collect::{request, wait};
use crate::{golden, model};

/// Where two candidates' logits are closer than this, rounding may decide between them.
const GAP_MAX: f32 = 0.5;

/// `<|im_end|>`
const END: u32 = 2;

struct Row {
    prompt: Vec<u32>,
    answer: String,
    has_ended: bool,
}

impl Row {
    /// The golden token after `said` bytes; `None` where the golden answer was cut off.
    fn candidate(&self, said: usize) -> Option<u32> {
        let tokenizer = model();
        let tokenizer = tokenizer.tokenizer();
        let rest = &self.answer.as_bytes()[said..];
        match std::str::from_utf8(rest) {
            Ok("") => self.has_ended.then_some(END),
            Ok(rest) => Some(tokenizer.encode(rest, SpecialTokens::Plain).unwrap()[0]),
            // Inside a character: its next byte.
            Err(_) => (0..tokenizer.vocab() as u32).find(|t| tokenizer.bytes(*t) == &rest[..1]),
        }
    }
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

/// Follows the golden answers. Where another token looks better than the golden one, the gap between the two
/// must be small: rounding decided; the golden one is taken, and it goes on. The golden answer is text, so its
/// next token is that of tokenizing the rest anew, which may join what was generated apart: where the gap is
/// large and the bytes still agree, that is what happened, and the better token is taken.
#[test]
fn greedy_goldens() {
    let model = model();
    let mut forward = Forward::new(Numerics::Auto.arithmetic(), 2).unwrap();
    let (mut equal, mut all, mut widest) = (0, 0, 0f32);
    for row in rows() {
        let (golden, mut said) = (row.answer.as_bytes(), 0);
        let mut kv = model.kv_cache();
        let mut next = row.prompt.clone();
        for n in 0..64 {
            let batch = &mut [Rows { tokens: &next, kv: &mut kv, wanted: Wanted::Last }];
            let logits = forward.run(&model, batch).to_vec();
            let best = argmax(&logits) as u32;
            let Some(mut candidate) = row.candidate(said) else { break };
            all += 1;
            equal += usize::from(best == candidate);
            let gap = logits[best as usize] - logits[candidate as usize];
            if gap >= GAP_MAX {
                let bytes = model.tokenizer().visible_bytes(best);
                let is_apart = !bytes.is_empty() && golden[said..].starts_with(bytes);
                assert!(is_apart, "token {n} of {:?}: {best} for {candidate}, gap {gap}", row.answer);
                candidate = best;
            } else {
                widest = widest.max(gap);
            }
            if model.tokenizer().is_end(candidate) {
                break;
            }
            said += model.tokenizer().visible_bytes(candidate).len();
            next = vec![candidate];
        }
    }
    println!("{equal} of {all} tokens equal, the widest gap of the others {widest}");
    assert!(all > 300 && equal * 100 > all * 95);
}

#[test]
fn the_engine_says_the_same() {
    let engine = Engine::start(model(), EngineOptions { threads: 2, ..EngineOptions::default() });
    let row = &rows()[5];
    let (request, heard) = request(1, row.prompt.clone(), 64);
    engine.submit(request);
    let (text, outcome) = wait(&heard);
    assert_eq!(outcome.reason, Finish::Stop);
    assert_eq!(text, row.answer);
    println!("{text}\n{outcome:?}");
}
