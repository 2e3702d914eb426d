//! Stop strings, characters and seeds on the real model.

use switchbox::executor::{ChatMessage, Engine, EngineOptions, Finish, IgnoreEos, Sampling};

use crate::collect::{Heard, request, wait};
use crate::model;

fn engine() -> Engine {
    Engine::start(model(), EngineOptions { threads: 2, ..EngineOptions::default() })
}

fn chat(content: &str) -> Vec<u32> {
    model().encode_chat(&[ChatMessage { role: "user", content }]).unwrap()
}

#[test]
fn stop_strings_end_the_answer_and_stay_out_of_it() {
    let engine = engine();
    let prompt = chat("List the first ten prime numbers.");
    for (stop, expected) in [
        (&["numbers are"][..], "The first ten prime "),
        (&["zzz", "2, 3"], "The first ten prime numbers are "),
        (&["ten prime", "first ten prime n"], "The first "),
    ] {
        let (mut request, heard) = request(1, prompt.clone(), 40);
        request.stop = stop.iter().map(ToString::to_string).collect();
        engine.submit(request);
        let (text, outcome) = wait(&heard);
        assert_eq!((text.as_str(), outcome.reason), (expected, Finish::Stop), "{stop:?}");
    }
}

#[test]
fn characters_of_several_tokens_come_whole() {
    let engine = engine();
    let (mut request, heard) = request(1, chat("用中文介绍一下北京。"), 14);
    request.ignore_eos = IgnoreEos::Yes;
    engine.submit(request);
    let mut pieces = Vec::new();
    let outcome = loop {
        match heard.recv().unwrap() {
            Heard::Started => {}
            Heard::Text(piece, tokens) => pieces.push((piece, tokens)),
            Heard::Finished(outcome) => break outcome,
        }
    };
    let text: String = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
    assert!(text.starts_with("中文中增加了北京"), "{text}");
    assert!(!text.contains('\u{fffd}'));
    assert!(pieces.iter().any(|(_, tokens)| *tokens > 1), "no character of several tokens: {pieces:?}");
    assert_eq!(pieces.iter().map(|(_, tokens)| tokens).sum::<u32>(), outcome.completion_tokens);
}

#[test]
fn the_seed_fixes_the_text_alone_or_beside_others() {
    let engine = engine();
    let run = |id: u64, seed: u64, content: &str| {
        let (mut request, heard) = request(id, chat(content), 16);
        request.sampling = Sampling { temperature: 0.8, top_p: 0.95, seed, ..Sampling::default() };
        request.ignore_eos = IgnoreEos::Yes;
        engine.submit(request);
        heard
    };
    let story = "Tell me a story about a lighthouse.";
    let alone = wait(&run(1, 5, story)).0;
    let others: Vec<_> = (2..5).map(|id| run(id, id, "What is a queue, and who stands in it?")).collect();
    let beside = wait(&run(9, 5, story)).0;
    let others: Vec<String> = others.iter().map(|heard| wait(heard).0).collect();
    assert_eq!(alone, beside);
    assert_ne!(others[0], others[1]);
    assert_ne!(alone, wait(&run(1, 6, story)).0);
}
