use zeroize::Zeroizing;

use super::*;
use crate::coordinator::snapshot::{ModelSpec, RuntimeKind, Timeouts};
use crate::datadir::AgentDir;
use crate::ids::Digest;
use crate::snapshot_text::{Draft, fetched};
use crate::time::Span;
use crate::wire::Identity;
use crate::wire::verify::sign_snapshot;

const MAINNET: Environment = Environment::Mainnet;

fn identity(seed: u8) -> Identity {
    Identity::of_seed(&Zeroizing::new([seed; 32]))
}

/// A configuration as that box makes it, with a model that has a digest of one byte repeated.
fn made(by: &Identity, version: u64, models: &[(&str, u8)]) -> SnapshotText {
    let model = |(name, byte): &(&str, u8)| {
        let spec = ModelSpec {
            version: "v1".parse().expect("a version"),
            digest: Digest([*byte; 32]),
            runtime: RuntimeKind::Executor,
            memory_bytes: 0,
            default_output_tokens: 16,
            output_tokens_max: 64,
            fallbacks: Vec::new(),
        };
        ((*name).into(), spec)
    };
    let draft = Draft {
        environment: MAINNET,
        version,
        models: models.iter().map(model).collect(),
        participation: Default::default(),
        penalties: Default::default(),
        timeouts: Timeouts { heartbeat_ttl: Span::from_ms(1_500), ..Default::default() },
        subclouds: BTreeMap::new(),
    };
    fetched(&draft.signed(by)).expect("it was just signed")
}

/// Any text, signed as a configuration.
fn signed(by: &Identity, version: u64, text: &str) -> SnapshotText {
    let signature = sign_snapshot(by, MAINNET, version, text);
    SnapshotText { environment: MAINNET, version, text: text.to_owned(), signature }
}

fn named(snapshot: &SnapshotText) -> Configuration {
    let digest = plain_hash(snapshot.text.as_bytes());
    Configuration { environment: snapshot.environment, version: snapshot.version, digest }
}

struct Directory(std::path::PathBuf, AgentDir);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchbox-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let dir = AgentDir::open(&path).expect("a directory");
        Self(path, dir)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn own(byte: u8) -> Option<Hash> {
    Some(Digest([byte; 32]).into())
}

#[test]
fn only_the_boxs_newest_is_put_in_force_and_it_survives() {
    let directory = Directory::new("configuration");
    let dir = &directory.1;
    let (owner, other) = (identity(1), identity(2));
    let key = owner.public();
    let mut configurations = Configurations::load(dir, key).expect("readable");
    assert_eq!((configurations.heartbeat_ttl(), configurations.allows(MAINNET, "m", None)), (None, Ok(())));
    let second = made(&owner, 2, &[("m", 0xab)]);
    let apply = |configurations: &mut Configurations, snapshot: &SnapshotText| {
        configurations.on_snapshot(snapshot, key, dir).expect("room")
    };
    let ignored = |why| Applied::Ignored(why);
    assert_eq!(apply(&mut configurations, &second), ignored("it isn't the one that was asked for"));
    let forged = SnapshotText { signature: made(&other, 2, &[("m", 0xab)]).signature, ..second.clone() };
    for (snapshot, applied) in [
        (&forged, ignored("its signature isn't the box's")),
        (&second, Applied::InForce),
        (&signed(&owner, 3, "not JSON"), ignored("this agent can't read it: update the agent")),
        (&signed(&owner, 4, &second.text), ignored("this agent can't read it: update the agent")),
        (
            &signed(&owner, 2 + 3, &second.text.replace("\"format\":1", "\"format\":2")),
            ignored("this agent can't read it: update the agent"),
        ),
    ] {
        let asked = configurations.on_named(&named(snapshot)).expect("it is newer");
        assert_eq!(configurations.missing().collect::<Vec<_>>(), [asked]);
        assert_eq!(apply(&mut configurations, snapshot), applied, "{snapshot:?}");
        assert_eq!(configurations.missing().count(), 0, "it came");
    }
    let older = made(&owner, 1, &[]);
    for present in [&second, &older, &made(&owner, 2, &[])] {
        assert_eq!(configurations.on_named(&named(present)), None);
        assert_eq!(apply(&mut configurations, present), ignored("it isn't the one that was asked for"));
    }

    let kept = Configurations::load(dir, key).expect("readable");
    assert_eq!((kept.version(MAINNET), kept.held().len()), (Some(2), 1));
    assert_eq!(kept.heartbeat_ttl(), Some(Duration::from_millis(1_500)));
    assert_eq!(kept.allows(MAINNET, "m", own(0xab)), Ok(()));
    assert_eq!(kept.allows(MAINNET, "m", None), Ok(()));
    assert_eq!(kept.allows(MAINNET, "m", own(0xcd)), Err(Disallowed::Digest(2)));
    assert_eq!(kept.allows(MAINNET, "n", None), Err(Disallowed::Model(2)));
    assert_eq!(kept.allows(Environment::Testnet, "n", None), Ok(()));
    // Of another box it says nothing.
    assert_eq!(Configurations::load(dir, other.public()).expect("readable").version(MAINNET), None);
}

#[test]
fn one_without_models_allows_all() {
    let directory = Directory::new("configuration-of-none");
    let owner = identity(1);
    let mut configurations = Configurations::load(&directory.1, owner.public()).expect("readable");
    let plain = made(&owner, 1, &[]);
    configurations.on_named(&named(&plain)).expect("it is new");
    let applied = configurations.on_snapshot(&plain, owner.public(), &directory.1).expect("room");
    assert_eq!(applied, Applied::InForce);
    assert_eq!(configurations.allows(MAINNET, "m", own(1)), Ok(()));
    // A new connection says again what is lacking.
    configurations.on_named(&named(&made(&owner, 2, &[]))).expect("it is newer");
    configurations.connected();
    assert_eq!(configurations.missing().count(), 0);
}
