//! How the agent is, for its owner, and what the owner may change.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Session, State};
use crate::agent::control::{Ask, Reply};
use crate::agent::desk::Mode;
use crate::agent::report::{Connection, Report, Standing, World};
use crate::coordinator::event::Environment;
use crate::coordinator::standing;
use crate::wire::to_agent;

/// What was heard of the node.
#[derive(Default)]
pub(super) struct Heard {
    standing: Option<Said>,
    /// The last one that was an exclusion.
    exclusion: Option<Said>,
    earnings: BTreeMap<Environment, i64>,
    /// Why the last connection ended, or didn't come about.
    pub(super) trouble: Option<String>,
}

/// What the box said of where the node stands, and when.
#[derive(Clone)]
struct Said {
    standing: standing::Standing,
    cause: String,
    at: Instant,
}

impl Said {
    fn shown(&self) -> Standing {
        Standing {
            standing: self.standing.word().to_owned(),
            cause: self.cause.clone(),
            seconds_ago: self.at.elapsed().as_secs(),
        }
    }
}

impl Heard {
    /// The box says where the node stands.
    pub(super) fn on_standing(&mut self, said: to_agent::Standing) {
        let to_agent::Standing { standing, cause } = said;
        tracing::info!(standing = standing.word(), cause, "where this node stands");
        let said = Said { standing, cause, at: Instant::now() };
        if standing == standing::Standing::Excluded {
            self.exclusion = Some(said.clone());
        }
        self.standing = Some(said);
    }

    /// The box says what the node has earned.
    pub(super) fn on_earnings(&mut self, said: &to_agent::Earnings) {
        self.earnings.insert(said.environment, said.balance_microcredits);
    }
}

impl Session {
    /// Does what the owner asks for, and says how things are then.
    pub(super) fn on_asked(&mut self, ask: Ask) -> Reply {
        match (ask, self.desk.mode()) {
            (Ask::Status, _) => {}
            (_, Mode::Draining) if ask != Ask::Drain => {
                let reason =
                    "the agent is draining and ends when it is through: start it again to give it work";
                return Reply::Refused(reason.to_owned());
            }
            (Ask::Pause, _) => self.desk.set_mode(Mode::Paused),
            (Ask::Resume, _) => self.desk.set_mode(Mode::Working),
            (Ask::Drain, _) => self.desk.set_mode(Mode::Draining),
        }
        if ask != Ask::Status {
            tracing::info!(ask = ask.word(), "the owner asked for it");
        }
        Reply::Report(Box::new(self.report()))
    }

    fn report(&self) -> Report {
        let caller = &self.caller;
        let mode = match self.desk.mode() {
            Mode::Working => "working",
            Mode::Paused => "paused",
            Mode::Draining => "draining",
        };
        let worlds = caller.environments.iter().map(|environment| World {
            environment: environment.word().to_owned(),
            configuration_version: self.desk.configurations.version(*environment),
            balance_microcredits: self.heard.earnings.get(environment).copied(),
        });
        Report {
            node: caller.identity.public().node().to_string(),
            box_url: caller.joined.url.clone(),
            box_key: caller.joined.box_key.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connection: self.connection(),
            mode: mode.to_owned(),
            standing: self.heard.standing.as_ref().map(Said::shown),
            last_exclusion: self.heard.exclusion.as_ref().map(Said::shown),
            idle_because: self.idle_because(),
            running: self.desk.shown_running(),
            unsettled_results: self.desk.unsettled(),
            models: self.desk.shown_models(),
            environments: worlds.collect(),
            since_start: self.desk.tally,
        }
    }

    fn connection(&self) -> Connection {
        match &self.state {
            State::Open(open) => match &open.working {
                Some(working) => Connection::Connected { seconds: working.since.elapsed().as_secs() },
                None => Connection::Connecting,
            },
            State::Dialling(_) => Connection::Connecting,
            State::Waiting(until) => Connection::Waiting {
                next_try_s: until.saturating_duration_since(Instant::now()).as_secs(),
                reason: self.heard.trouble.clone().unwrap_or_else(|| "it was just started".to_owned()),
            },
        }
    }

    /// Why no job runs: the first cause there is.
    fn idle_because(&self) -> Option<String> {
        use standing::Standing as Stands;
        if self.desk.running() > 0 {
            return None;
        }
        let because = |said: &Said, what: &str| match said.cause.as_str() {
            "" => what.to_owned(),
            cause => format!("{what}: {cause}"),
        };
        let reason = match (self.is_working(), self.desk.mode(), &self.heard.standing) {
            (false, ..) => match &self.heard.trouble {
                Some(trouble) => format!("there is no connection to the box: {trouble}"),
                None => "there is no connection to the box yet".to_owned(),
            },
            (_, Mode::Paused, _) => "you paused it: `switchbox agent resume`".to_owned(),
            (_, Mode::Draining, _) => "it is draining".to_owned(),
            _ if !self.desk.offers_any() => {
                "none of its models can run just now: the servers that it names don't answer, or list none (its log says \
                 more)"
                    .to_owned()
            }
            (.., Some(said)) if said.standing != Stands::Ready => {
                let what = match said.standing {
                    Stands::Ready => "it waits for a job",
                    Stands::Untested => "a test job comes first",
                    Stands::Paused => "it is paused at the box",
                    Stands::Draining => "it is draining",
                    Stands::Away => "the box has missed its heartbeats",
                    Stands::Excluded => "it is excluded for a while",
                    Stands::Frozen => "the operator froze it: ask the operator",
                    Stands::Banned => "the operator banned it: ask the operator",
                };
                because(said, what)
            }
            _ if let Some(reason) = self.desk.disallowed() => format!("the box gives it no work: {reason}"),
            _ => "no job that it could run waits: clients ask for other models, or the operator's trust in this node \
                  isn't what their prompts need"
                .to_owned(),
        };
        Some(reason)
    }
}
