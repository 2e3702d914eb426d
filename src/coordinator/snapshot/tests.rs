//! Which snapshots are put in force, and what is said of the others.

use proptest::prelude::*;

use super::*;
use crate::coordinator::noise::PPM;

use Environment::{Mainnet, Testnet};

fn spec() -> ModelSpec {
    ModelSpec {
        version: "1.0".parse().expect("a version"),
        digest: Digest([3; 32]),
        runtime: RuntimeKind::Executor,
        memory_bytes: 1 << 30,
        default_output_tokens: 256,
        output_tokens_max: 4_096,
        fallbacks: Vec::new(),
    }
}

fn snapshot(environment: Environment, version: u64, digest: u8) -> Snapshot {
    let models = [("m", spec()), ("n", ModelSpec { fallbacks: vec!["m".into()], ..spec() })];
    Snapshot {
        environment,
        version,
        digest: Digest([digest; 32]),
        signature: [7; 64].into(),
        models: models.into_iter().map(|(name, spec)| (name.into(), spec)).collect(),
        participation: Participation::default(),
        penalties: PenaltyRules::default(),
        timeouts: Timeouts::default(),
        subclouds: BTreeMap::new(),
    }
}

#[test]
fn only_what_is_newer_is_applied_and_the_last_good_one_stays() {
    let flawed = Snapshot { signature: [].into(), ..snapshot(Mainnet, 9, 9) };
    let steps = [
        (snapshot(Mainnet, 5, 1), Ok(Applied::Replaced), (5, 1)),
        (snapshot(Mainnet, 5, 1), Ok(Applied::Same), (5, 1)),
        (snapshot(Mainnet, 5, 2), Err(Refused::Forked { version: 5 }), (5, 1)),
        (snapshot(Mainnet, 4, 1), Err(Refused::Older { in_force: 5, refused: 4 }), (5, 1)),
        (flawed.clone(), Err(Refused::Flawed(flawed.validate().expect_err("no signature"))), (5, 1)),
        (snapshot(Testnet, 1, 8), Ok(Applied::Replaced), (5, 1)),
        (snapshot(Mainnet, 6, 2), Ok(Applied::Replaced), (6, 2)),
    ];
    let mut snapshots = Snapshots::default();
    for (snapshot, expected, (version, digest)) in steps {
        assert_eq!(snapshots.apply(snapshot), expected);
        let in_force = snapshots.of(Mainnet).expect("one is in force");
        assert_eq!((in_force.version, in_force.digest), (version, Digest([digest; 32])));
    }
    assert_eq!(snapshots.of(Testnet).map(|s| s.version), Some(1));
    let rows: Vec<Snapshot> = snapshots.iter().map(|s| s.as_ref().clone()).collect();
    assert_eq!(Snapshots::recover(rows), (snapshots, Vec::new()));
}

#[test]
fn models_are_those_of_their_environment() {
    let mut snapshots = Snapshots::default();
    snapshots.apply(snapshot(Testnet, 1, 1)).expect("the first");
    assert_eq!(snapshots.model(Testnet, &"m".into()), Some(&spec()));
    assert_eq!(snapshots.model(Mainnet, &"m".into()), None);
    assert_eq!(snapshots.model(Testnet, &"x".into()), None);
}

#[test]
fn each_flaw_names_its_field_and_its_remedy() {
    type Change = fn(&mut Snapshot);
    fn model(s: &mut Snapshot) -> &mut ModelSpec {
        s.models.get_mut("m").expect("it is there")
    }
    let table: [(Change, &str, &str); 22] = [
        (|s| s.version = 0, "version is 0", "from 1"),
        (|s| s.signature = [].into(), "signature", "sign"),
        (|s| s.signature = [0; 257].into(), "signature has 257", "at most 256"),
        (|s| _ = s.models.insert("".into(), spec()), "without a name", "remove"),
        (|s| model(s).default_output_tokens = 0, "models.m.default_output_tokens is 0", "at least 1"),
        (|s| model(s).default_output_tokens = 4_097, "models.m.default_output_tokens", "lower"),
        (|s| model(s).fallbacks = vec!["m".into()], "models.m.fallbacks names `m` again", "remove"),
        (|s| model(s).fallbacks = vec!["n".into(), "n".into()], "names `n` again", "remove"),
        (|s| model(s).fallbacks = vec!["x".into()], "`x`, which isn't in models", "add or remove"),
        (|s| model(s).fallbacks = vec!["n".into(); 9], "more than 8", "remove"),
        (
            |s| s.participation.blind_rate_ppm = PPM + 1,
            "participation.blind_rate_ppm is 1000001",
            "at most 1000000",
        ),
        (|s| s.participation.probation_check_rate_ppm = 0, "probation_check_rate_ppm", "raise"),
        (
            |s| s.participation.validation_tokens_factor_max = 0,
            "validation_tokens_factor_max is 0",
            "at least 1",
        ),
        (
            |s| s.participation.plausibility.tokens_per_second_max = 0,
            "tokens_per_second_max is 0",
            "at least 1",
        ),
        (
            |s| s.participation.plausibility.tokens_per_kilobyte_min = 9_999,
            "tokens_per_kilobyte_min",
            "lower",
        ),
        (|s| s.penalties.half_life = Span(0), "penalties.half_life is 0", "at least 1"),
        (|s| s.penalties.quality_min = 1_001, "penalties.quality_min is 1001", "at most 1000"),
        (|s| s.timeouts.stop = Span(0), "timeouts.stop is 0", "raise"),
        (|s| s.timeouts.heartbeat_ttl = Span::from_ms(99), "timeouts.heartbeat_ttl is shorter", "raise"),
        (|s| s.timeouts.progress = Span::from_secs(9_999), "timeouts.progress", "lower"),
        (|s| s.timeouts.first_output = Span::from_secs(601), "timeouts.cold_first_output", "raise"),
        (
            |s| {
                s.subclouds =
                    (0..1_001).map(|i| (i.to_string().parse().expect("a name"), Digest([0; 32]))).collect()
            },
            "subclouds has 1001",
            "at most 1000",
        ),
    ];
    assert_eq!(snapshot(Mainnet, 1, 1).validate(), Ok(()));
    for (change, field, remedy) in table {
        let mut flawed = snapshot(Mainnet, 1, 1);
        change(&mut flawed);
        let refused = Snapshots::default().apply(flawed).expect_err(field).to_string();
        assert!(refused.contains(field) && refused.contains(remedy) && !refused.contains("; "), "{refused}");
    }
}

#[test]
fn models_are_bounded_and_so_are_the_words_about_them() {
    let with = |count: usize, spec: &ModelSpec| {
        let models = (0..count).map(|i| (i.to_string().into(), spec.clone())).collect();
        Snapshot { models, ..snapshot(Mainnet, 1, 1) }.validate()
    };
    assert_eq!(with(MODELS_MAX, &spec()), Ok(()));
    let flaws = with(MODELS_MAX + 1, &spec()).expect_err("one too many");
    assert!(flaws.len() == 1 && flaws[0].to_string().contains("at most 1000"), "{flaws:?}");
    let flaws = with(100, &ModelSpec { default_output_tokens: 0, ..spec() }).expect_err("all wrong");
    assert_eq!(flaws.len(), FLAWS_MAX);
}

#[test]
fn new_keys_are_checked_at_their_own_rate() {
    let rules = Participation::default();
    for (settled, checks, expected) in [
        (0, 0, 100_000),
        (99, 50, 100_000),
        (100, 5, 5_000),
        (100, 4, 100_000),
        (u64::MAX, 0, 100_000),
        (u64::MAX, u64::MAX, 5_000),
    ] {
        assert_eq!(rules.check_rate_of(settled, checks), expected, "{settled} {checks}");
    }
    let unchecked = Participation { probation_check_rate_ppm: 0, check_rate_ppm: 0, ..rules };
    assert!(!unchecked.is_on_probation(100, 0), "who isn't to be checked is through");
}

proptest! {
    #[test]
    fn in_whatever_order_they_come_the_newest_is_in_force(versions in prop::collection::vec(1..20_u64, 1..40)) {
        let mut snapshots = Snapshots::default();
        let mut newest = 0;
        for version in versions {
            let applied = snapshots.apply(snapshot(Mainnet, version, 1));
            prop_assert_eq!(applied == Ok(Applied::Replaced), version > newest);
            newest = newest.max(version);
            prop_assert_eq!(snapshots.of(Mainnet).map(|s| s.version), Some(newest));
        }
    }
}
