//! The text is the same for ever, says what the snapshot says, and only the box can have signed it.

use zeroize::Zeroizing;

use super::*;
use crate::coordinator::standing::Trust;
use crate::coordinator::subcloud::{Allowed, Policy};
use crate::wire::verify::is_boxs_snapshot;

fn model(version: &str, fallbacks: &[&str]) -> ModelSpec {
    ModelSpec {
        version: version.parse().expect("a version"),
        digest: Digest([0xab; 32]),
        runtime: RuntimeKind::Executor,
        memory_bytes: 1 << 30,
        default_output_tokens: 256,
        output_tokens_max: 4_096,
        fallbacks: fallbacks.iter().map(|name| (*name).into()).collect(),
    }
}

fn draft() -> Draft {
    Draft {
        environment: Environment::Testnet,
        version: 7,
        models: [("b\"\u{e9}\u{1}".into(), model("v1", &[])), ("a".into(), model("v2", &["b\"\u{e9}\u{1}"]))]
            .into(),
        participation: Participation::default(),
        penalties: PenaltyRules::default(),
        timeouts: Timeouts::default(),
        subclouds: [("lab".parse().expect("a name"), Digest([1; 32]))].into(),
    }
}

/// What format 1 was when it came out. If this fails, agents and boxes of different builds disagree: make a format 2.
const GOLDEN: &str = concat!(
    r#"{"format":1,"environment":"testnet","version":7,"models":["#,
    r#"{"name":"a","version":"v2","digest":"abababababababababababababababababababababababababababababababab","#,
    r#""runtime":"executor","memory_bytes":1073741824,"default_output_tokens":256,"output_tokens_max":4096,"#,
    r#""fallbacks":["b\"é\u0001"]},"#,
    r#"{"name":"b\"é\u0001","version":"v1","digest":"abababababababababababababababababababababababababababababababab","#,
    r#""runtime":"executor","memory_bytes":1073741824,"default_output_tokens":256,"output_tokens_max":4096,"fallbacks":[]}],"#,
    r#""participation":{"probation_jobs":100,"probation_check_rate_ppm":100000,"check_rate_ppm":5000,"blind_rate_ppm":10000,"#,
    r#""validation_tokens_factor_max":4,"tokens_per_kilobyte_min":30,"tokens_per_kilobyte_max":1000,"tokens_per_second_max":5000},"#,
    r#""penalties":{"attempt_failed":60,"timed_out":80,"died":100,"failed_check":150,"failed_test":100,"forged":300,"#,
    r#""success_repair":5,"half_life_us":3600000000,"exclude_below":500,"failures_in_a_row_max":5,"cooldown_us":60000000,"#,
    r#""cooldown_max_us":86400000000,"forgive_after_us":604800000000,"quality_min":800,"quality_checks_min":10,"lies_max":2},"#,
    r#""timeouts":{"accept_us":10000000,"first_output_us":120000000,"cold_first_output_us":600000000,"progress_us":60000000,"#,
    r#""attempt_us":1800000000,"stop_us":10000000,"heartbeat_ttl_us":15000000,"reconnect_ttl_us":60000000},"#,
    r#""subclouds":[{"name":"lab","digest":"0101010101010101010101010101010101010101010101010101010101010101"}]}"#,
);

#[test]
fn the_text_is_what_it_always_was() {
    assert_eq!(draft().text(), GOLDEN);
}

#[test]
fn a_text_is_read_as_it_was_meant() {
    assert_eq!(Draft::read(GOLDEN), Some(draft()));
    // What a later minor version adds is skipped.
    let more = GOLDEN.replacen("{\"format\":1,", "{\"format\":1,\"news\":[1],", 1);
    assert_eq!(Draft::read(&more), Some(draft()));
    for (from, to) in [
        ("\"format\":1", "\"format\":2"),
        ("testnet", "prod"),
        ("\"executor\"", "\"magic\""),
        ("0101", "01"),
        ("\"version\":7,", ""),
        ("}", ""),
    ] {
        assert_eq!(Draft::read(&GOLDEN.replacen(from, to, 1)), None, "{from} -> {to}");
    }
}

#[test]
fn what_is_fetched_is_what_the_box_signed() {
    let identity = |seed| Identity::of_seed(&Zeroizing::new([seed; 32]));
    let (box_, other) = (identity(1), identity(2));
    let snapshot = draft().signed(&box_);
    assert_eq!((snapshot.digest, snapshot.validate()), (digest_of(GOLDEN), Ok(())));
    let text = fetched(&snapshot).expect("whole");
    assert_eq!((text.text.as_str(), text.version), (GOLDEN, 7));
    assert!(is_boxs_snapshot(box_.public(), &text) && !is_boxs_snapshot(other.public(), &text));
    for changed in [
        SnapshotText { version: 8, ..text.clone() },
        SnapshotText { environment: Environment::Mainnet, ..text.clone() },
        SnapshotText { text: text.text.replace("4096", "4097"), ..text.clone() },
    ] {
        assert!(!is_boxs_snapshot(box_.public(), &changed));
    }
    let mut changed = snapshot.clone();
    changed.penalties.quality_min = 1;
    assert_eq!(fetched(&changed), None, "its digest is another one");
    assert_eq!(Draft::of(&snapshot), draft());
}

#[test]
fn a_subclouds_digest_is_about_what_its_nodes_must_be() {
    let subcloud = Subcloud {
        name: "lab".parse().expect("a name"),
        environment: Environment::Mainnet,
        policy: Policy {
            models: Some(["b".into(), "a".into()].into()),
            trust_min: Trust::Approved,
            memory_min_bytes: 5,
            gpu: "h100".parse().ok(),
            ..Policy::default()
        },
        isolate: Isolation::Isolated,
        owners: Default::default(),
        allowed: Allowed::Everyone,
        nodes: Default::default(),
    };
    let expected = r#"{"name":"lab","environment":"mainnet","models":["a","b"],"regions":null,"trust_min":"approved","memory_min_bytes":5,"gpu":"h100","isolate":true}"#;
    assert_eq!(digest_of_subcloud(&subcloud), digest_of(expected));
    let owned = Subcloud { owners: [crate::ids::Namespace::named("team")].into(), ..subcloud.clone() };
    assert_eq!(digest_of_subcloud(&owned), digest_of_subcloud(&subcloud));
    let shared = Subcloud { isolate: Isolation::Shared, ..subcloud.clone() };
    assert_ne!(digest_of_subcloud(&shared), digest_of_subcloud(&subcloud));
}
