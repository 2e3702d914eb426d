//! The pool of requests that blind and test jobs are made of.
//!
//! The pool knows what is asked and what must come; it never knows who asks whom, and its choices derive from noise
//! that the caller brings, so that nobody outside can foresee them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::OutputDigest;
use crate::coordinator::event::{Endpoint, Mode, Tier};
use crate::coordinator::noise::{Purpose, choose, draw, noise};
use crate::ids::{JobId, ModelName};

/// Templates of all models together.
pub const TEMPLATES_MAX: usize = 10_000;
/// Bytes of all bodies together.
pub const TEMPLATE_POOL_BYTES_MAX: usize = 64 << 20;
/// Bytes of one body.
pub const TEMPLATE_BODY_BYTES_MAX: usize = 64 << 10;
/// Answers that one template knows.
pub const TEMPLATE_DIGESTS_MAX: usize = 64;
/// Bytes of a template's name.
pub const TEMPLATE_NAME_BYTES_MAX: usize = 64;

/// A request whose answer is known, exactly or in its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// What the operator calls it; unique within its model.
    pub name: Arc<str>,
    /// Which model is asked.
    pub model: ModelName,
    /// On what.
    pub endpoint: Endpoint,
    /// The raw body, as a client would send it.
    pub body: Arc<[u8]>,
    /// Tokens of its prompt.
    pub input_tokens: u32,
    /// Most tokens that may be generated.
    pub output_tokens_max: u32,
    /// Priority, as a client would have it.
    pub tier: Tier,
    /// How a client would wait.
    pub mode: Mode,
    /// What must come.
    pub expect: Expect,
}

/// What a template's answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// One of these outputs.
    Digests(Vec<OutputDigest>),
    /// So many tokens: a statistical fingerprint, where the answer isn't exact.
    Tokens {
        /// At least.
        min: u32,
        /// At most.
        max: u32,
    },
}

/// Why a template wasn't taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The pool holds [`TEMPLATES_MAX`].
    TooMany,
    /// The pool's bodies would exceed [`TEMPLATE_POOL_BYTES_MAX`].
    PoolTooLarge,
    /// Its body exceeds [`TEMPLATE_BODY_BYTES_MAX`]; it has so many bytes.
    BodyTooLarge(usize),
    /// Its name is empty or exceeds [`TEMPLATE_NAME_BYTES_MAX`].
    BadName,
    /// The model already has one of this name.
    NameTaken,
    /// Nothing could fulfil what it expects: no digests or too many, an empty range, or more than it may generate.
    BadExpectation,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => {
                write!(f, "the pool holds {TEMPLATES_MAX} templates, the most: remove one first")
            }
            Self::PoolTooLarge => {
                write!(
                    f,
                    "the pool's bodies would exceed {TEMPLATE_POOL_BYTES_MAX} bytes: remove a template first"
                )
            }
            Self::BodyTooLarge(bytes) => {
                write!(f, "the body has {bytes} bytes: shorten it to at most {TEMPLATE_BODY_BYTES_MAX}")
            }
            Self::BadName => write!(f, "the name must have 1 to {TEMPLATE_NAME_BYTES_MAX} bytes"),
            Self::NameTaken => write!(f, "the model already has a template of this name: remove it first"),
            Self::BadExpectation => write!(
                f,
                "no answer could fulfil it: give 1 to {TEMPLATE_DIGESTS_MAX} digests, or a range of tokens within \
                 output_tokens_max"
            ),
        }
    }
}

impl Template {
    fn check(&self) -> Result<(), Refused> {
        let expectable = match &self.expect {
            Expect::Digests(known) => (1..=TEMPLATE_DIGESTS_MAX).contains(&known.len()),
            Expect::Tokens { min, max } => min <= max && *min <= self.output_tokens_max,
        };
        if !(1..=TEMPLATE_NAME_BYTES_MAX).contains(&self.name.len()) {
            Err(Refused::BadName)
        } else if self.body.len() > TEMPLATE_BODY_BYTES_MAX {
            Err(Refused::BodyTooLarge(self.body.len()))
        } else if !expectable {
            Err(Refused::BadExpectation)
        } else {
            Ok(())
        }
    }
}

/// The pool, by model and then by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates {
    by_model: BTreeMap<ModelName, Vec<Template>>,
    count: usize,
    bytes: usize,
}

impl Templates {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All, in the order of models and names.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.by_model.values().flatten()
    }

    /// The body of one, if it is still here.
    pub fn body_of(&self, model: &ModelName, name: &str) -> Option<Arc<[u8]>> {
        let own = self.by_model.get(model)?;
        own.iter().find(|template| *template.name == *name).map(|template| template.body.clone())
    }

    /// Adds one.
    pub fn add(&mut self, template: Template) -> Result<(), Refused> {
        template.check()?;
        if self.count >= TEMPLATES_MAX {
            return Err(Refused::TooMany);
        }
        if self.bytes + template.body.len() > TEMPLATE_POOL_BYTES_MAX {
            return Err(Refused::PoolTooLarge);
        }
        let place = self.place_of(&template.model, &template.name);
        let Err(place) = place else { return Err(Refused::NameTaken) };
        self.count += 1;
        self.bytes += template.body.len();
        self.by_model.entry(template.model.clone()).or_default().insert(place, template);
        Ok(())
    }

    /// Takes one out.
    pub fn remove(&mut self, model: &ModelName, name: &str) -> Option<Template> {
        let place = self.place_of(model, name).ok()?;
        let templates = self.by_model.get_mut(model)?;
        let removed = templates.remove(place);
        if templates.is_empty() {
            self.by_model.remove(model);
        }
        self.count -= 1;
        self.bytes -= removed.body.len();
        Some(removed)
    }

    /// Takes all of a model out; how many there were.
    pub fn remove_model(&mut self, model: &ModelName) -> usize {
        let removed = self.by_model.remove(model).unwrap_or_default();
        self.count -= removed.len();
        self.bytes -= removed.iter().map(|t| t.body.len()).sum::<usize>();
        removed.len()
    }

    /// Where it is, or where it would go.
    fn place_of(&self, model: &ModelName, name: &str) -> Result<usize, usize> {
        let templates = self.by_model.get(model).map_or(&[][..], Vec::as_slice);
        templates.binary_search_by(|template| template.name.as_ref().cmp(name))
    }

    /// One of a model's, each as likely as the others.
    pub fn pick(&self, model: &ModelName, noise: u64) -> Option<&Template> {
        let templates = self.by_model.get(model)?;
        choose(noise, templates.len()).map(|i| &templates[i])
    }

    /// The blind job, if any, that is submitted right after this real job of the model was accepted. A model without
    /// templates gets none.
    pub fn after(
        &self,
        secret: &[u8; 32],
        job: JobId,
        model: &ModelName,
        blind_rate_ppm: u32,
    ) -> Option<&Template> {
        let noise = |purpose| noise(secret, purpose, job.counter, u64::from(job.epoch));
        if !draw(noise(Purpose::BlindDraw), blind_rate_ppm) {
            return None;
        }
        self.pick(model, noise(Purpose::BlindTemplate))
    }
}
