//! Token counts and judgements as tables to the letter; the pool against its bounds.

use proptest::prelude::*;

use super::*;
use crate::coordinator::event::{Endpoint, FinishReason, Mode, Tier};
use crate::ids::ModelName;
use crate::time::Span;

const KNOWN: OutputDigest = OutputDigest([1; 32]);
const OTHER: OutputDigest = OutputDigest([2; 32]);

fn model(name: &str) -> ModelName {
    name.into()
}

fn template(model_name: &str, name: &str) -> Template {
    Template {
        name: name.into(),
        model: model(model_name),
        endpoint: Endpoint::ChatCompletions,
        body: b"{}".as_slice().into(),
        input_tokens: 5,
        output_tokens_max: 100,
        tier: Tier::Standard,
        mode: Mode::Sync,
        expect: Expect::Digests(vec![KNOWN]),
    }
}

/// An ordinary answer: 100 tokens of 4 bytes in a second.
fn result() -> ResultFacts {
    ResultFacts {
        output_tokens_max: 200,
        output_tokens: 100,
        output_bytes: 400,
        chunks: 100,
        digest: Some(KNOWN),
        took: Span::from_secs(1),
        finish: FinishReason::Stop,
    }
}

#[test]
fn input_is_billed_by_the_boxs_own_count_else_by_the_smaller_claim() {
    let table = [
        // (box's count, signed, bytes, messages) -> billed
        ((Some(10), 5, 100, 1), 10),
        ((Some(10), 50, 100, 1), 10),
        ((Some(0), 50, 100, 1), 0),
        ((None, 50, 100, 1), 50),
        ((None, 116, 100, 1), 116),
        ((None, 117, 100, 1), 116),
        ((None, 500, 100, 3), 148),
        ((None, 500, 100, 0), 100),
        ((None, 0, 100, 3), 0),
        ((None, u32::MAX, u64::MAX, u32::MAX), u32::MAX),
        ((None, u32::MAX, 0, u32::MAX), u32::MAX),
    ];
    for ((own, signed, bytes, messages), expected) in table {
        assert_eq!(
            billed_input(own, signed, bytes, messages),
            expected,
            "{own:?} {signed} {bytes} {messages}"
        );
    }
}

#[test]
fn output_is_billed_by_the_smaller_of_what_was_signed_and_what_was_seen() {
    let table = [
        // (signed, tokens seen, bytes seen, most) -> billed
        ((10, Some(10), 1, 100), 10),
        ((11, Some(10), 1, 100), 11),
        ((12, Some(10), 1, 100), 11),
        ((7, Some(10), 1, 100), 7),
        ((5, Some(0), 0, 100), 1),
        ((10, None, 40, 100), 10),
        ((50, None, 40, 100), 40),
        ((50, None, 0, 100), 0),
        ((150, Some(200), 800, 100), 100),
        ((u32::MAX, None, u64::MAX, u32::MAX), u32::MAX),
        ((u32::MAX, Some(u32::MAX), 0, u32::MAX), u32::MAX),
    ];
    for ((signed, tokens, bytes, max), expected) in table {
        let seen = Seen { tokens, bytes };
        assert_eq!(billed_output(signed, seen, max), expected, "{signed} {seen:?} {max}");
    }
}

#[test]
fn blind_jobs_are_judged_by_what_their_template_expects() {
    let exact = Expect::Digests(vec![OTHER, KNOWN]);
    let range = |min, max| Expect::Tokens { min, max };
    let table = [
        (exact.clone(), Some(KNOWN), Judgement::Passed),
        (exact.clone(), Some(OutputDigest([3; 32])), Judgement::Failed),
        (exact, None, Judgement::Unclear),
        (range(100, 100), None, Judgement::Passed),
        (range(101, 200), Some(KNOWN), Judgement::Failed),
        (range(0, 99), Some(KNOWN), Judgement::Failed),
    ];
    for (expect, digest, expected) in table {
        let template = Template { expect, ..template("m", "t") };
        assert_eq!(judge_blind(&template, &ResultFacts { digest, ..result() }), expected, "{template:?}");
    }
}

#[test]
fn validation_compares_bytes_where_only_one_answer_is_right_else_lengths() {
    use Judgement::*;
    use Sampling::*;
    let table = [
        (Deterministic, (Some(KNOWN), 100), (Some(KNOWN), 100), Passed),
        (Deterministic, (Some(KNOWN), 100), (Some(OTHER), 100), Failed),
        (Deterministic, (Some(KNOWN), 100), (None, 100), Unclear),
        (Random, (Some(KNOWN), 100), (Some(OTHER), 432), Passed),
        (Random, (Some(KNOWN), 100), (Some(OTHER), 433), Failed),
        (Random, (None, 0), (None, 32), Passed),
        (Random, (None, 0), (None, 33), Failed),
        (Random, (None, u32::MAX), (None, u32::MAX), Passed),
    ];
    let facts = |(digest, output_tokens)| ResultFacts { digest, output_tokens, ..result() };
    for (sampling, first, second, expected) in table {
        let (first, second) = (facts(first), facts(second));
        assert_eq!(judge_validation(sampling, &first, &second, 4), expected, "{first:?} {second:?}");
        assert_eq!(
            judge_validation(sampling, &second, &first, 4),
            expected,
            "it doesn't matter who is first"
        );
    }
}

#[test]
fn what_contradicts_itself_is_rejected_and_what_is_unlikely_is_flagged() {
    use Gravity::*;
    type Change = fn(&mut ResultFacts);
    let table: [(Change, Implausible, Gravity); 8] = [
        (|r| r.output_tokens = 201, Implausible::TooManyTokens, Rejected),
        (|r| (r.output_tokens, r.output_bytes) = (2, 0), Implausible::TokensWithoutOutput, Rejected),
        (|r| r.chunks = 0, Implausible::OutputWithoutChunks, Rejected),
        (|r| r.output_tokens = 0, Implausible::OutputWithoutTokens, Flagged),
        (|r| r.finish = FinishReason::Length, Implausible::EndedBeforeItsLimit, Flagged),
        (|r| r.output_bytes = 99, Implausible::TokensTooShort, Flagged),
        (|r| r.output_bytes = 3_334, Implausible::TokensTooLong, Flagged),
        (|r| r.took = Span(19_999), Implausible::TooFast, Flagged),
    ];
    let usual = Plausibility::default();
    assert_eq!(plausible(&result(), &usual), Ok(()));
    for ((change, objection, gravity), listed) in table.into_iter().zip(Implausible::ALL) {
        let mut facts = result();
        change(&mut facts);
        assert_eq!(plausible(&facts, &usual), Err(objection), "{facts:?}");
        assert_eq!((objection, objection.gravity()), (listed, gravity));
    }
}

#[test]
fn what_lies_just_within_is_plausible() {
    type Change = fn(&mut ResultFacts);
    let table: [Change; 8] = [
        |r| r.output_tokens = 200,
        |r| (r.output_tokens, r.output_bytes, r.chunks) = (1, 0, 0),
        |r| (r.output_tokens, r.output_bytes, r.chunks) = (0, 0, 0),
        |r| (r.finish, r.output_tokens_max) = (FinishReason::Length, 100),
        |r| r.output_bytes = 100,
        |r| r.output_bytes = 3_333,
        |r| r.took = Span(20_000),
        |r| (r.took, r.output_tokens, r.output_bytes) = (Span(0), 31, 31),
    ];
    for (i, change) in table.into_iter().enumerate() {
        let mut facts = result();
        change(&mut facts);
        assert_eq!(plausible(&facts, &Plausibility::default()), Ok(()), "{i}: {facts:?}");
    }
}

#[test]
fn of_two_objections_the_graver_one_is_named() {
    let facts = ResultFacts { took: Span(0), output_tokens: 201, ..result() };
    assert_eq!(plausible(&facts, &Plausibility::default()), Err(Implausible::TooManyTokens));
    let gravities: Vec<_> = Implausible::ALL.into_iter().map(Implausible::gravity).collect();
    assert!(gravities.is_sorted_by_key(|gravity| *gravity == Gravity::Flagged), "{gravities:?}");
}

#[test]
fn the_pool_takes_only_what_can_be_fulfilled() {
    let sized = |bytes: usize| Template { body: vec![b'x'; bytes].into(), ..template("m", "t") };
    let expecting = |expect| Template { expect, ..template("m", "t") };
    let table = [
        (template("m", "taken"), Err(Refused::NameTaken)),
        (template("other", "taken"), Ok(())),
        (template("m", ""), Err(Refused::BadName)),
        (template("m", &"x".repeat(65)), Err(Refused::BadName)),
        (sized(TEMPLATE_BODY_BYTES_MAX), Ok(())),
        (sized(TEMPLATE_BODY_BYTES_MAX + 1), Err(Refused::BodyTooLarge(TEMPLATE_BODY_BYTES_MAX + 1))),
        (expecting(Expect::Digests(vec![])), Err(Refused::BadExpectation)),
        (expecting(Expect::Digests(vec![KNOWN; 65])), Err(Refused::BadExpectation)),
        (expecting(Expect::Tokens { min: 2, max: 1 }), Err(Refused::BadExpectation)),
        (expecting(Expect::Tokens { min: 101, max: 200 }), Err(Refused::BadExpectation)),
        (expecting(Expect::Tokens { min: 100, max: 200 }), Ok(())),
    ];
    for (template, expected) in table {
        let mut pool = Templates::default();
        pool.add(super::tests::template("m", "taken")).expect("the first");
        let before = pool.clone();
        assert_eq!(pool.add(template.clone()), expected, "{}", template.name);
        if let Err(refused) = expected {
            assert_eq!(pool, before, "{refused}");
        } else {
            assert_eq!(pool.remove(&template.model, &template.name), Some(template));
            assert_eq!(pool, before);
        }
    }
}

#[test]
fn the_pool_is_bounded_in_number_and_bytes() {
    let mut pool = Templates::default();
    for i in 0..TEMPLATES_MAX {
        pool.add(template(&format!("m{}", i % 3), &format!("t{i}"))).expect("there is room");
    }
    assert_eq!(pool.add(template("m0", "more")), Err(Refused::TooMany));
    assert_eq!(pool.iter().count(), pool.len());
    assert_eq!(pool.remove_model(&model("m0")) + pool.len(), TEMPLATES_MAX);
    pool.add(template("m0", "more")).expect("there is room again");

    let mut pool = Templates::default();
    let full = TEMPLATE_POOL_BYTES_MAX / TEMPLATE_BODY_BYTES_MAX;
    let large = |i: usize| Template {
        body: vec![0; TEMPLATE_BODY_BYTES_MAX].into(),
        ..template("m", &i.to_string())
    };
    for i in 0..full {
        pool.add(large(i)).expect("there is room");
    }
    assert_eq!(pool.add(template("m", "more")), Err(Refused::PoolTooLarge));
    pool.remove(&model("m"), "7").expect("it is there");
    pool.add(template("m", "more")).expect("there is room again");
}

#[test]
fn blind_jobs_follow_real_ones_at_the_rate_and_draw_on_the_whole_pool() {
    let mut pool = Templates::default();
    for i in 0..10 {
        pool.add(template("m", &i.to_string())).expect("there is room");
    }
    let after =
        |counter, model: &ModelName, rate| pool.after(&[5; 32], JobId { epoch: 1, counter }, model, rate);
    let drawn: Vec<_> = (0..100_000).filter_map(|job| after(job, &model("m"), 20_000)).collect();
    assert!((1_800..2_200).contains(&drawn.len()), "{}", drawn.len());
    for template in pool.iter() {
        let times = drawn.iter().filter(|t| t.name == template.name).count();
        assert!((140..260).contains(&times), "{}: {times}", template.name);
    }
    assert!(
        (0..1_000)
            .all(|job| after(job, &model("m"), 0).is_none() && after(job, &model("n"), 1_000_000).is_none())
    );
}

#[test]
fn a_note_that_is_too_long_is_refused_not_cut() {
    let longest = "é".repeat(FEEDBACK_NOTE_BYTES_MAX / 2);
    assert_eq!(Note::new(&longest).map(|note| note.as_str().to_owned()), Ok(longest.clone()));
    let error = Note::new(&format!("{longest}x")).expect_err("too long");
    assert_eq!(error.to_string(), "the note has 1025 bytes: shorten it to at most 1024");
}

proptest! {
    #[test]
    fn a_claim_never_raises_a_bill_above_what_the_box_knows(
        own in any::<Option<u32>>(), signed: u32, bytes: u64, messages: u32, tokens in any::<Option<u32>>(), max: u32,
    ) {
        let input = billed_input(own, signed, bytes, messages);
        prop_assert!(own.map_or(input <= signed, |own| input == own));
        let output = billed_output(signed, Seen { tokens, bytes }, max);
        prop_assert!(output <= max && output <= signed);
        prop_assert!(tokens.map_or(u64::from(output) <= bytes, |seen| u64::from(output) <= u64::from(seen) + 1));
    }

    #[test]
    fn no_result_is_too_odd_to_judge(
        tokens: u32, max: u32, bytes: u64, chunks: u32, took: u64, usual: [u32; 3], factor: u32,
    ) {
        let odd = ResultFacts {
            output_tokens_max: max, output_tokens: tokens, output_bytes: bytes, chunks, took: Span(took), ..result()
        };
        let usual = Plausibility {
            tokens_per_kilobyte_min: usual[0], tokens_per_kilobyte_max: usual[1], tokens_per_second_max: usual[2],
        };
        let rejected = plausible(&odd, &usual).is_err_and(|objection| objection.gravity() == Gravity::Rejected);
        prop_assert_eq!(rejected, tokens > max || tokens > 1 && bytes == 0 || bytes > 0 && chunks == 0);
        let judged = judge_validation(Sampling::Random, &odd, &result(), factor);
        let (few, many) = (u64::from(tokens.min(100)), u64::from(tokens.max(100)));
        prop_assert_eq!(judged == Judgement::Passed, many <= few * u64::from(factor) + 32);
    }
}
