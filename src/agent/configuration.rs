//! The box's configurations: fetched, checked against the box's pinned key, put in force whole, and kept on disk. The last
//! good one stays in force, whatever comes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::coordinator::event::Environment;
use crate::datadir::{AgentDir, DataDirError, Kept};
use crate::ids::ModelName;
use crate::wire::hash::plain_hash;
use crate::wire::to_agent::{Configuration, SnapshotText};
use crate::wire::to_box::{ConfigurationHeld, SnapshotRequest};
use crate::wire::verify::is_boxs_snapshot;
use crate::wire::{Hash, PublicKey};

/// The text's format that is read here.
const FORMAT: u32 = 1;

/// What of a configuration's text (`docs/configuration.md`) an agent goes by; it is more, and may grow.
#[derive(Debug, Deserialize)]
struct Text {
    format: u32,
    environment: String,
    version: u64,
    models: Vec<Model>,
    timeouts: Timeouts,
}

#[derive(Debug, Deserialize)]
struct Model {
    name: ModelName,
    /// SHA-256 of its file.
    digest: Hash,
}

#[derive(Debug, Deserialize)]
struct Timeouts {
    heartbeat_ttl_us: u64,
}

/// A configuration in force.
#[derive(Debug)]
struct InForce {
    version: u64,
    digest: Hash,
    /// Models that may be asked for, with the digests of their files. None at all: any may.
    models: BTreeMap<ModelName, Hash>,
    heartbeat_ttl: Duration,
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
        if let Some(present) = self.in_force.get(&environment)
            && version <= present.version
        {
            if digest != present.digest {
                let (environment, in_force) = (environment.word(), present.version);
                tracing::warn!(
                    environment,
                    version,
                    in_force,
                    "the box names a configuration that isn't newer than the one in force, which stays"
                );
            }
            return None;
        }
        self.wanted.insert(environment, (version, digest));
        Some(SnapshotRequest { environment, digest })
    }

    /// What was asked for and hasn't come: to be asked for again.
    pub(super) fn missing(&self) -> impl Iterator<Item = SnapshotRequest> {
        self.wanted
            .iter()
            .map(|(environment, (_, digest))| SnapshotRequest { environment: *environment, digest: *digest })
    }

    /// A new connection: the box names again what is lacking.
    pub(super) fn connected(&mut self) {
        self.wanted.clear();
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
        // Whatever it is like: it came, and would be no other if it came again.
        self.wanted.remove(&environment);
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
        if in_force.models.is_empty() {
            return Ok(());
        }
        match (in_force.models.get(model), digest) {
            (None, _) => Err(Disallowed::Model(in_force.version)),
            (Some(stated), Some(own)) if *stated != own => Err(Disallowed::Digest(in_force.version)),
            (Some(_), _) => Ok(()),
        }
    }

    /// How long the box waits for a heartbeat, if a configuration says so: mainnet's, which counts for both.
    pub(super) fn heartbeat_ttl(&self) -> Option<Duration> {
        self.in_force.get(&Environment::Mainnet).map(|in_force| in_force.heartbeat_ttl)
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
    /// What a text says; `None` if it is of another format, or isn't the one that the box says it is.
    fn of(snapshot: &SnapshotText) -> Option<Self> {
        let Text { format, environment, version, models, timeouts } =
            serde_json::from_str(&snapshot.text).ok()?;
        let said = (snapshot.environment.word(), snapshot.version);
        let is_it = format == FORMAT && (environment.as_str(), version) == said;
        is_it.then(|| Self {
            version,
            digest: plain_hash(snapshot.text.as_bytes()),
            models: models.into_iter().map(|model| (model.name, model.digest)).collect(),
            heartbeat_ttl: Duration::from_micros(timeouts.heartbeat_ttl_us),
        })
    }
}

#[cfg(test)]
mod tests;
