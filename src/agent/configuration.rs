//! The box's configurations: fetched, checked against the box's pinned key, put in force whole, and kept on disk. The last
//! good one stays in force, whatever comes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::coordinator::event::Environment;
use crate::datadir::{AgentDir, DataDirError, Kept};
use crate::ids::ModelName;
use crate::wire::hash::plain_hash;
use crate::wire::to_agent::{Configuration, SnapshotText};
use crate::wire::to_box::{ConfigurationHeld, SnapshotRequest};
use crate::wire::verify::is_boxs_snapshot;
use crate::wire::{Hash, PublicKey};

/// What of a configuration an agent goes by; it is more, and may grow.
#[derive(Debug, Default, Deserialize)]
struct Contents {
    /// Models that may be asked for; a configuration that says nothing of models allows all.
    #[serde(default)]
    models: Option<BTreeMap<ModelName, Model>>,
}

#[derive(Debug, Deserialize)]
struct Model {
    /// SHA-256 of what serves under that name.
    #[serde(default)]
    digest: Option<Hash>,
}

/// A configuration in force.
#[derive(Debug)]
struct InForce {
    version: u64,
    digest: Hash,
    contents: Contents,
}

/// What a fetched configuration did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is in force now.
    InForce,
    /// It isn't, for this reason; the one before stays.
    Ignored(&'static str),
}

/// The configurations in force.
#[derive(Default)]
pub(super) struct Configurations {
    in_force: BTreeMap<Environment, InForce>,
    /// What the box named last, to be fetched.
    wanted: BTreeMap<Environment, (u64, Hash)>,
}

fn file_of(environment: Environment) -> Kept {
    match environment {
        Environment::Mainnet => Kept::Mainnet,
        Environment::Testnet => Kept::Testnet,
    }
}

impl Configurations {
    /// Those that were kept; one that isn't the box's any more is forgotten.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub(super) fn load(dir: &AgentDir, box_key: PublicKey) -> Result<Self, DataDirError> {
        let mut configurations = Self::default();
        for environment in Environment::ALL {
            let Some(bytes) = dir.load(file_of(environment))? else { continue };
            let snapshot: Option<SnapshotText> = serde_json::from_slice(&bytes).ok();
            let in_force = snapshot
                .filter(|snapshot| snapshot.environment == environment && is_boxs_snapshot(box_key, snapshot))
                .and_then(|snapshot| InForce::of(&snapshot));
            match in_force {
                Some(in_force) => drop(configurations.in_force.insert(environment, in_force)),
                None => {
                    tracing::warn!(
                        environment = environment.word(),
                        "the configuration that was kept can't be used: it is fetched anew"
                    );
                    dir.forget(file_of(environment))?;
                }
            }
        }
        Ok(configurations)
    }

    /// As `ready` lists them.
    pub(super) fn held(&self) -> Vec<ConfigurationHeld> {
        let held = |(environment, in_force): (&Environment, &InForce)| ConfigurationHeld {
            environment: *environment,
            digest: in_force.digest,
        };
        self.in_force.iter().map(held).collect()
    }

    /// The box names one: asks for it, unless it is in force or older than what is.
    pub(super) fn on_named(&mut self, named: &Configuration) -> Option<SnapshotRequest> {
        let Configuration { environment, version, digest } = *named;
        if self.in_force.get(&environment).is_some_and(|present| version <= present.version) {
            return None;
        }
        self.wanted.insert(environment, (version, digest));
        Some(SnapshotRequest { environment, digest })
    }

    /// One came: it is put in force if it is what was asked for, and the box's.
    ///
    /// # Errors
    /// When it can't be kept on disk.
    pub(super) fn on_snapshot(
        &mut self,
        snapshot: &SnapshotText,
        box_key: PublicKey,
        dir: &AgentDir,
    ) -> Result<Applied, DataDirError> {
        let environment = snapshot.environment;
        let digest = plain_hash(snapshot.text.as_bytes());
        if self.wanted.get(&environment) != Some(&(snapshot.version, digest)) {
            return Ok(Applied::Ignored("it isn't the one that was asked for"));
        }
        if !is_boxs_snapshot(box_key, snapshot) {
            return Ok(Applied::Ignored("its signature isn't the box's"));
        }
        if self.in_force.get(&environment).is_some_and(|present| snapshot.version <= present.version) {
            return Ok(Applied::Ignored("it isn't newer than the one in force"));
        }
        let Some(in_force) = InForce::of(snapshot) else {
            return Ok(Applied::Ignored("this agent can't read it: update the agent"));
        };
        // On disk first: what is in force survives.
        dir.keep(file_of(environment), &serde_json::to_vec(snapshot).unwrap_or_default())?;
        self.wanted.remove(&environment);
        self.in_force.insert(environment, in_force);
        Ok(Applied::InForce)
    }

    /// The version in force.
    pub(super) fn version(&self, environment: Environment) -> Option<u64> {
        self.in_force.get(&environment).map(|in_force| in_force.version)
    }

    /// Whether a model may be run there, as this node has it.
    ///
    /// # Errors
    /// Says why not.
    pub(super) fn allows(
        &self,
        environment: Environment,
        model: &str,
        digest: Option<Hash>,
    ) -> Result<(), Disallowed> {
        let Some(in_force) = self.in_force.get(&environment) else { return Ok(()) };
        let Some(models) = &in_force.contents.models else { return Ok(()) };
        let Some(known) = models.get(model) else { return Err(Disallowed::Model(in_force.version)) };
        match (known.digest, digest) {
            (Some(stated), Some(own)) if stated != own => Err(Disallowed::Digest(in_force.version)),
            _ => Ok(()),
        }
    }
}

/// Why a configuration of that version doesn't allow a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disallowed {
    /// It doesn't have the model.
    Model(u64),
    /// It has another under that name.
    Digest(u64),
}

impl InForce {
    fn of(snapshot: &SnapshotText) -> Option<Self> {
        let contents = serde_json::from_str(&snapshot.text).ok()?;
        let digest = plain_hash(snapshot.text.as_bytes());
        Some(Self { version: snapshot.version, digest, contents })
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::wire::Identity;
    use crate::wire::verify::sign_snapshot;

    const MAINNET: Environment = Environment::Mainnet;

    fn identity(seed: u8) -> Identity {
        Identity::of_seed(&Zeroizing::new([seed; 32]))
    }

    fn snapshot(by: &Identity, version: u64, text: &str) -> SnapshotText {
        let signature = sign_snapshot(by, MAINNET, version, text);
        SnapshotText { environment: MAINNET, version, text: text.to_owned(), signature }
    }

    fn named(snapshot: &SnapshotText) -> Configuration {
        let digest = plain_hash(snapshot.text.as_bytes());
        Configuration { environment: snapshot.environment, version: snapshot.version, digest }
    }

    #[test]
    fn only_the_boxs_newest_is_put_in_force_and_it_survives() {
        let path = std::env::temp_dir().join(format!("switchbox-configuration-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let dir = AgentDir::open(&path).expect("a directory");
        let (owner, other) = (identity(1), identity(2));
        let key = owner.public();
        let mut configurations = Configurations::load(&dir, key).expect("readable");
        let digest = "ab".repeat(32);
        let second =
            snapshot(&owner, 2, &format!(r#"{{"models":{{"m":{{"digest":"{digest}"}}}},"more":[1]}}"#));
        let forged = snapshot(&other, 2, &second.text);
        let unreadable = snapshot(&owner, 3, "not JSON");
        let older = snapshot(&owner, 1, "{}");
        let mut apply =
            |snapshot: &SnapshotText| configurations.on_snapshot(snapshot, key, &dir).expect("room");
        assert_eq!(apply(&second), Applied::Ignored("it isn't the one that was asked for"));
        assert!(configurations.on_named(&named(&second)).is_some());
        let mut apply =
            |snapshot: &SnapshotText| configurations.on_snapshot(snapshot, key, &dir).expect("room");
        assert_eq!(apply(&forged), Applied::Ignored("its signature isn't the box's"));
        assert_eq!(apply(&second), Applied::InForce);
        assert_eq!(
            (configurations.on_named(&named(&second)), configurations.on_named(&named(&older))),
            (None, None)
        );
        assert!(configurations.on_named(&named(&unreadable)).is_some());
        let applied = configurations.on_snapshot(&unreadable, key, &dir).expect("room");
        assert!(matches!(applied, Applied::Ignored(reason) if reason.contains("update the agent")));

        let kept = Configurations::load(&dir, key).expect("readable");
        assert_eq!((kept.version(MAINNET), kept.held().len()), (Some(2), 1));
        let own = |text: &str| Some(text.repeat(32).parse().expect("a digest"));
        assert_eq!(kept.allows(MAINNET, "m", own("ab")), Ok(()));
        assert_eq!(kept.allows(MAINNET, "m", None), Ok(()));
        assert_eq!(kept.allows(MAINNET, "m", own("cd")), Err(Disallowed::Digest(2)));
        assert_eq!(kept.allows(MAINNET, "n", None), Err(Disallowed::Model(2)));
        assert_eq!(kept.allows(Environment::Testnet, "n", None), Ok(()));
        // Of another box it says nothing.
        assert_eq!(Configurations::load(&dir, other.public()).expect("readable").version(MAINNET), None);
        let _ = std::fs::remove_dir_all(&path);
    }
}
