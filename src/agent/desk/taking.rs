//! Whether an assignment is taken.

use super::{Desk, Mode};
use crate::agent::configuration::Disallowed;
use crate::agent::offer::Says;
use crate::budget::Share;
use crate::coordinator::effect::Assignment;
use crate::wire::HOLDS_MAX;
use crate::wire::to_agent::Assign;
use crate::wire::to_box::DeclineCause;

/// Bytes of output for each token that may be generated: of text, and of JSON around each.
const BYTES_PER_TOKEN_MAX: u64 = 64;
const JSON_BYTES_PER_TOKEN_MAX: u64 = 8 << 10;
/// Bytes of output of one attempt: at least, and at most.
const OUTPUT_BYTES: (u64, u64) = (64 << 10, 16 << 20);

/// Why an assignment isn't taken.
pub(super) struct Decline(pub(super) DeclineCause, pub(super) String);

impl Desk {
    /// Whether any of its models can run just now.
    pub(in crate::agent) fn offers_any(&self) -> bool {
        self.offered.models().any(|model| model.slots > 0)
    }

    /// Why the configurations in force leave the node nothing to do, if they do.
    pub(in crate::agent) fn disallowed(&self) -> Option<String> {
        let mut first = None;
        for environment in &self.environments {
            for model in self.offered.models() {
                let Err(disallowed) = self.configurations.allows(*environment, &model.name, model.digest)
                else {
                    return None;
                };
                let Decline(_, reason) = not_configured(disallowed);
                first.get_or_insert_with(|| format!("`{}` in {}: {reason}", model.name, environment.word()));
            }
        }
        first
    }

    /// Takes the memory that an assignment needs, if the node may run it.
    pub(super) fn check(&self, assign: &Assign) -> Result<Share, Decline> {
        let decline = |cause, reason: &str| Err(Decline(cause, reason.to_owned()));
        match self.mode {
            Mode::Working => {}
            Mode::Paused => return decline(DeclineCause::Other, "the node's owner paused it"),
            Mode::Draining => return decline(DeclineCause::Stopping, "the node is about to stop"),
        }
        if !self.environments.contains(&assign.environment) {
            return decline(DeclineCause::Configuration, "the node doesn't work in this environment");
        }
        let Some((model, says)) = self.offered.model(&assign.model) else {
            let reason = format!("the node doesn't have the model `{}`", assign.model);
            return Err(Decline(DeclineCause::Model, reason));
        };
        if let Err(disallowed) = self.configurations.allows(assign.environment, &assign.model, model.digest) {
            return Err(not_configured(disallowed));
        }
        let of_model = self.running.get(&assign.model).copied().unwrap_or(0);
        if of_model >= model.slots || self.running() >= self.offered.slots() {
            return decline(DeclineCause::Busy, "all slots are taken");
        }
        if self.holds.len() >= HOLDS_MAX {
            return decline(DeclineCause::Busy, "too many results wait to be settled");
        }
        if says == Says::Json && self.takes == Says::Text {
            return decline(
                DeclineCause::Other,
                "the box doesn't take the JSON that this model's server may write",
            );
        }
        let bytes = assign.body.0.len() as u64 + output_bytes_max(assign.output_tokens_max, says);
        let share = self.memory.take(bytes);
        share.ok_or_else(|| {
            Decline(DeclineCause::Busy, "the memory for requests and outputs is taken".to_owned())
        })
    }
}

fn not_configured(disallowed: Disallowed) -> Decline {
    match disallowed {
        Disallowed::Model(version) => {
            let reason = format!("configuration {version} of the environment doesn't have the model");
            Decline(DeclineCause::Configuration, reason)
        }
        Disallowed::Digest(version) => {
            let reason =
                format!("configuration {version} of the environment has another file under the model's name");
            Decline(DeclineCause::Model, reason)
        }
    }
}

pub(super) fn output_bytes_max(tokens: u32, says: Says) -> u64 {
    let of_token = match says {
        Says::Text => BYTES_PER_TOKEN_MAX,
        Says::Json => JSON_BYTES_PER_TOKEN_MAX,
    };
    (u64::from(tokens) * of_token).clamp(OUTPUT_BYTES.0, OUTPUT_BYTES.1)
}

pub(super) fn assignment_of(assign: Assign) -> Assignment {
    Assignment {
        reservation: assign.reservation,
        job: assign.job,
        environment: assign.environment,
        endpoint: assign.endpoint,
        model: assign.model,
        model_index: assign.model_index,
        body: assign.body.0,
        input_tokens: assign.input_tokens,
        output_tokens_max: assign.output_tokens_max,
    }
}
