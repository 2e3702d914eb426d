//! The parsers against texts that were messages once: bent, cut, spliced and repeated, from seeds.
//!
//! Some thousands of texts in an ordinary run. `SWITCHBOX_FUZZ_RUNS=10000000 cargo test --release --lib wire::tests::fuzz`
//! looks at more, and `SWITCHBOX_FUZZ_SEED=N` at others; what fails says its seed.

use super::{examples, vectors};
use crate::dice::{Dice, number};
use crate::wire::receipt::{Proof, Receipt};
use crate::wire::{FromAgent, FromBox, JoinString, Parsed};

const RUNS: u64 = 20_000;
const BYTES_MAX: usize = 1 << 16;
/// What an error may say, beyond a few hundred bytes of its own.
const ERROR_BYTES_MAX: usize = 600;

/// What JSON is made of, and what parsers stumble over.
const PIECES: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-0",
    "1e999",
    "0.5",
    "18446744073709551616",
    "4294967296",
    "9007199254740993",
    "{\"type\":\"",
    "\"optional\":true",
    "é",
    "\u{0}",
    "\u{feff}",
    "\u{10ffff}",
    " ",
    "\n",
    "[[[[[[[[[[[[[[[[[",
    "\"type\":\"output\",",
    "res_ffffffffffffffffff",
    "00",
];

fn bend(bytes: &mut Vec<u8>, corpus: &[String], dice: &mut Dice) {
    let at = dice.roll(bytes.len() + 1);
    let end = (at + dice.roll(40)).min(bytes.len());
    match dice.roll(8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => drop(bytes.splice(at..at, PIECES[dice.roll(PIECES.len())].bytes())),
        3 => drop(bytes.splice(at..end, PIECES[dice.roll(PIECES.len())].bytes())),
        4 => {
            let again = bytes[at..end].repeat(1 + dice.roll(50));
            bytes.splice(at..at, again);
        }
        5 => {
            let other = corpus[dice.roll(corpus.len())].as_bytes();
            let from = dice.roll(other.len());
            bytes.splice(at..end, other[from..].iter().copied().take(200));
        }
        6 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
        _ if at < bytes.len() => bytes[at] = b'0' + dice.roll(75) as u8,
        _ => bytes.push(b'}'),
    }
    bytes.truncate(BYTES_MAX);
}

/// What is a message stays one when it is written and read again; what isn't is refused in few words.
fn look(text: &str, seed: u64) {
    macro_rules! check {
        ($message:ty) => {
            // What is found in front is what reading all of it finds.
            let otherwise = text.replacen('{', "{ ", 1);
            let (found, read) =
                (<$message>::parse(text, BYTES_MAX), <$message>::parse(&otherwise, BYTES_MAX + 1));
            assert_eq!(found.as_ref().ok(), read.as_ref().ok(), "seed {seed}: {text}");
            match found {
                Ok(Parsed::Known(message)) => {
                    let written = message.render().expect("it was read");
                    let again = <$message>::parse(&written, BYTES_MAX * 8);
                    assert_eq!(again, Ok(Parsed::Known(message)), "seed {seed}: {text}");
                }
                Ok(Parsed::Ignored(kind)) => assert!(kind.len() <= 64, "seed {seed}"),
                Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX, "seed {seed}: {error}"),
            }
        };
    }
    check!(FromAgent);
    check!(FromBox);
    if let Ok(join) = text.parse::<JoinString>() {
        assert_eq!(join.text().parse(), Ok(join), "seed {seed}: {text}");
    }
    if let Ok(receipt) = Receipt::parse(text) {
        let _ = receipt.check(None);
    }
}

#[test]
fn no_text_breaks_a_parser() {
    let mut corpus = [examples("agent"), examples("box")].concat();
    // As our own sides write them: with their kind in front.
    for example in examples("agent") {
        if let Ok(Parsed::Known(message)) = FromAgent::parse(&example, BYTES_MAX) {
            corpus.push(message.render().expect("it was read"));
        }
    }
    for kind in ["join_strings", "receipts"] {
        let vectors = vectors();
        let those = vectors[kind].as_array().expect("a list").iter();
        corpus.extend(those.map(|one| one["text"].as_str().map_or_else(|| one.to_string(), str::to_owned)));
    }
    let first = number("SWITCHBOX_FUZZ_SEED", 1);
    for seed in first..first + number("SWITCHBOX_FUZZ_RUNS", RUNS) {
        let mut dice = Dice(seed);
        let mut bytes = corpus[dice.roll(corpus.len())].clone().into_bytes();
        for _ in 0..=dice.roll(4) {
            bend(&mut bytes, &corpus, &mut dice);
        }
        look(&String::from_utf8_lossy(&bytes), seed);
    }
}

#[test]
fn no_bytes_break_the_reader_of_proofs() {
    let vectors = vectors();
    let signed = vectors["signed"].as_array().expect("a list");
    let proofs: Vec<Vec<u8>> = signed
        .iter()
        .map(|vector| {
            let digits = [super::text(vector, "bytes"), super::text(vector, "signature")].concat();
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
            (0..digits.len()).step_by(2).map(byte).collect()
        })
        .collect();
    let read = proofs.iter().filter(|proof| Proof::read(proof).is_some()).count();
    assert_eq!(read, 2, "the two answers among what is signed");
    for seed in 0..number("SWITCHBOX_FUZZ_RUNS", RUNS) {
        let mut dice = Dice(seed);
        let mut bytes = proofs[dice.roll(proofs.len())].clone();
        for _ in 0..=dice.roll(3) {
            bend(&mut bytes, &["\0\0\0\u{1}".to_owned()], &mut dice);
        }
        let _ = Proof::read(&bytes);
    }
}
