//! What a file says, what it is refused for, and that what is shown can be applied again.

use super::*;
use crate::coordinator::event::Environment;
use crate::snapshot_text::Draft;

const DIGEST: &str = "abababababababababababababababababababababababababababababababab";

fn parse(text: &str) -> Result<SnapshotFile, ConfigError> {
    SnapshotFile::parse(Path::new("nodes.toml"), text.to_owned())
}

fn draft(file: &SnapshotFile) -> Draft {
    Draft {
        environment: Environment::Mainnet,
        version: 1,
        models: file.models.clone(),
        participation: file.participation,
        penalties: file.penalties,
        timeouts: file.timeouts,
        subclouds: BTreeMap::new(),
    }
}

/// What is wrong with a file as a whole.
fn flaws(text: &str) -> String {
    let file = parse(text).expect("each value by itself makes sense");
    let identity = crate::wire::Identity::of_seed(&zeroize::Zeroizing::new([1; 32]));
    let flaws = draft(&file).signed(&identity).validate().expect_err("flawed");
    file.explain(&flaws)
}

fn model(more: &str) -> String {
    format!("[[model]]\nname = \"tiny\"\nversion = \"v1\"\ndigest = \"{DIGEST}\"\n{more}\n")
}

#[test]
fn what_is_not_said_has_its_default() {
    let file = parse("").expect("all defaults");
    assert_eq!(
        (file.participation, file.penalties, file.timeouts),
        (Participation::default(), PenaltyRules::default(), Timeouts::default())
    );
    let text = format!(
        "{}[participation]\nprobation_jobs = 200\n[penalties]\nforged = 7\ncooldown_ms = 1_500\n[timeouts]\naccept_ms = 3000",
        model("fallbacks = [\"small\"]\nruntime = \"upstream\"")
    );
    let file = parse(&text).expect("sound");
    assert_eq!((file.participation.probation_jobs, file.participation.check_rate_ppm), (200, 5_000));
    assert_eq!((file.penalties.weights.forged, file.penalties.cooldown), (7, Span::from_ms(1_500)));
    assert_eq!(file.timeouts.accept, Span::from_secs(3));
    let spec = &file.models["tiny"];
    assert_eq!((spec.runtime, spec.default_output_tokens), (RuntimeKind::Upstream, 1_024));
    assert_eq!(spec.fallbacks, [ModelName::from("small")]);
}

#[test]
fn what_is_shown_can_be_applied_again() {
    let text = format!(
        "{}[[model]]\nname = \"a \\\"b\\\" é\"\nversion = \"2\"\ndigest = \"{DIGEST}\"\nruntime = \"echo\"\nmemory_bytes = 9\n\
         [participation]\nprobation_jobs = 5\ntokens_per_second_max = 11\n[penalties]\nquality_min = 1\nsuccess_repair = 2\n\
         [timeouts]\nreconnect_ttl_ms = 123",
        model("fallbacks = [\"a \\\"b\\\" é\"]")
    );
    let first = parse(&text).expect("sound");
    let rules = (&first.participation, &first.penalties, &first.timeouts);
    let again = written("as shown\nin two lines", &first.models, rules);
    assert!(again.starts_with("# as shown\n# in two lines\n\n[[model]]\nname = \"a "), "{again}");
    assert_eq!(draft(&parse(&again).expect("as it was written")), draft(&first));
}

#[test]
fn a_value_that_makes_no_sense_is_refused_with_its_place() {
    for (text, words) in [
        ("[timeouts]\naccept = 3", &["nodes.toml:2:", "timeouts.accept", "isn't known", "accept_ms"][..]),
        ("accept_ms = 3", &["nodes.toml:1:", "timeouts.accept_ms"]),
        (
            "[participation]\nprobation_jobs = -1",
            &["nodes.toml:2:", "participation.probation_jobs", "whole number"],
        ),
        ("[participation]\ncheck_rate_ppm = 5_000_000_000", &["nodes.toml:2:", "too large", "4294967295"]),
        ("[timeouts]\nattempt_ms = 99999999999999", &["nodes.toml:2:", "too large"]),
        ("[[model]]\nversion = \"v1\"", &["nodes.toml:1:", "names no `name`"]),
        ("[[model]]\nname = \"a\"\nversion = \"v1\"", &["names no `digest`", "SHA-256"]),
        ("[[model]]\nname = \"\"", &["nodes.toml:2:", "isn't a model's name"]),
        ("[[model]]\nname = \"a\"\nversion = \"V 1\"", &["nodes.toml:3:", "isn't a model version"]),
        ("[[model]]\nname = \"a\"\nversion = \"v1\"\ndigest = \"ff\"", &["nodes.toml:4:", "64 lower-case"]),
        (&model("runtime = \"magic\""), &["nodes.toml:5:", "isn't a runtime", "upstream"]),
        (&format!("{}{}", model(""), model("")), &["nodes.toml:7:", "there twice"]),
        ("[[model]", &["nodes.toml:1:", "isn't TOML"]),
        ("[models]", &["did you mean `model`?"]),
    ] {
        let error = parse(text).expect_err(text).to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error:?}");
        }
    }
}

#[test]
fn what_is_wrong_as_a_whole_is_said_with_the_place_of_what_is_named() {
    for (text, words) in [
        (
            model("default_output_tokens = 9\noutput_tokens_max = 3"),
            "nodes.toml:5:25: models.tiny.default_output_tokens",
        ),
        (model("fallbacks = [\"nobody\"]"), "nodes.toml:5:14: models.tiny.fallbacks names `nobody`"),
        (model("output_tokens_max = 3"), "nodes.toml:2:8: models.tiny.default_output_tokens exceeds"),
        (
            "[participation]\nblind_rate_ppm = 1000001".to_owned(),
            "nodes.toml:2:18: participation.blind_rate_ppm",
        ),
        (
            "[participation]\ntokens_per_kilobyte_min = 2000".to_owned(),
            "nodes.toml:2:27: participation.plausibility: tokens_per_kilobyte_min",
        ),
        ("[penalties]\nhalf_life_ms = 0".to_owned(), "nodes.toml:2:16: penalties.half_life is 0"),
        (
            "[timeouts]\nattempt_ms = 1000".to_owned(),
            "nodes.toml:2:14: timeouts.first_output is longer than timeouts.attempt",
        ),
        (
            "[participation]\ncheck_rate_ppm = 200000".to_owned(),
            "nodes.toml:2:18: participation.probation_check_rate_ppm is below",
        ),
    ] {
        let said = flaws(&text);
        assert!(said.contains(words), "no {words:?} in {said:?}");
    }
}
