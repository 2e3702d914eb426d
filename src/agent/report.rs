//! What an agent says of itself to its owner: `switchbox agent status`. The same as JSON for programs and as lines for
//! people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// All of it. Fields may be added; what is there keeps its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The node's name at the box.
    pub node: String,
    /// Where the box is.
    pub box_url: String,
    /// The box's public key.
    pub box_key: String,
    /// The program's version.
    pub version: String,
    /// Whether there is a connection.
    pub connection: Connection,
    /// What the owner or a signal asked for: `working`, `paused` or `draining`.
    pub mode: String,
    /// Where the box says that the node stands, and why; none before it said so.
    pub standing: Option<Standing>,
    /// The last exclusion that this process heard of, and its cause.
    pub last_exclusion: Option<Standing>,
    /// In a sentence, why no job runs; none while one does.
    pub idle_because: Option<String>,
    /// Jobs that run now.
    pub running: Vec<Running>,
    /// Results that the box hasn't settled.
    pub unsettled_results: usize,
    /// What is offered.
    pub models: Vec<Model>,
    /// Environments with what is in force and earned there.
    pub environments: Vec<World>,
    /// What this process has done since it was started.
    pub since_start: Done,
}

/// Whether there is a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Connection {
    /// The box is there and listens.
    Connected {
        /// For so long.
        seconds: u64,
    },
    /// It is being called, or the handshake is under way.
    Connecting,
    /// It is called again later.
    Waiting {
        /// In so many seconds.
        next_try_s: u64,
        /// Why there is no connection.
        reason: String,
    },
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// In the protocol's word.
    pub standing: String,
    /// Why; may be empty.
    pub cause: String,
    /// So many seconds ago the box said so.
    pub seconds_ago: u64,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which.
    pub job: String,
    /// On which model.
    pub model: String,
    /// In which world.
    pub environment: String,
    /// For so long.
    pub seconds: u64,
    /// Tokens that came out so far.
    pub output_tokens: u32,
}

/// A model that is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// SHA-256 of its file, where there is one.
    pub digest: Option<String>,
    /// Jobs of it that run at once; 0 while it can't run.
    pub slots: u32,
    /// Jobs of it that run now.
    pub running: u32,
}

/// One environment that the node wants to work in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Its name.
    pub environment: String,
    /// The version of the configuration in force; none before the box sent one.
    pub configuration_version: Option<u64>,
    /// The node's balance there, in micro-credits; none before the box said so.
    pub balance_microcredits: Option<i64>,
}

/// What a process has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were stopped or handed back.
    pub stopped: u64,
    /// Assignments that were declined.
    pub declined: u64,
    /// Results that the box refused.
    pub refused: u64,
}

const MICROCREDITS: u64 = 1_000_000;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node        {} ({})", self.node, self.mode)?;
        writeln!(f, "box         {}", self.box_url)?;
        writeln!(f, "connection  {}", self.connection)?;
        if let Some(standing) = &self.standing {
            writeln!(f, "standing    {standing}")?;
        }
        if let Some(exclusion) = &self.last_exclusion {
            writeln!(f, "excluded    {} s ago: {}", exclusion.seconds_ago, exclusion.cause)?;
        }
        if let Some(reason) = &self.idle_because {
            writeln!(f, "idle        {reason}")?;
        }
        for job in &self.running {
            let Running { job, model, environment, seconds, output_tokens } = job;
            writeln!(f, "running     {job} on {model} ({environment}), {seconds} s, {output_tokens} tokens")?;
        }
        if self.unsettled_results > 0 {
            writeln!(f, "unsettled   {} results wait for the box", self.unsettled_results)?;
        }
        for Model { name, slots, running, .. } in &self.models {
            writeln!(f, "model       {name}, {running} of {slots} slots taken")?;
        }
        for world in &self.environments {
            writeln!(f, "in          {world}")?;
        }
        let Done { succeeded, failed, stopped, declined, refused } = self.since_start;
        write!(
            f,
            "since start {succeeded} succeeded, {failed} failed, {stopped} stopped, {declined} declined, {refused} refused"
        )
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Connection::Connected { seconds } => write!(f, "connected for {seconds} s"),
            Connection::Connecting => f.write_str("connecting"),
            Connection::Waiting { next_try_s, reason } => {
                write!(f, "none, next try in {next_try_s} s: {reason}")
            }
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.standing)?;
        if self.cause.is_empty() { Ok(()) } else { write!(f, ": {}", self.cause) }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.environment)?;
        match self.configuration_version {
            Some(version) => write!(f, ", configuration {version}")?,
            None => f.write_str(", no configuration")?,
        }
        let Some(balance) = self.balance_microcredits else { return Ok(()) };
        let (sign, micros) = (if balance < 0 { "-" } else { "" }, balance.unsigned_abs());
        write!(f, ", balance {sign}{}.{:06} credits", micros / MICROCREDITS, micros % MICROCREDITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_well_and_comes_back_from_json() {
        let standing = Standing {
            standing: "excluded".to_owned(),
            cause: "3 failed attempts".to_owned(),
            seconds_ago: 7,
        };
        let report = Report {
            node: "node_ab".to_owned(),
            box_url: "https://box.example".to_owned(),
            box_key: "00".to_owned(),
            version: "0.1.0".to_owned(),
            connection: Connection::Waiting { next_try_s: 3, reason: "it doesn't answer".to_owned() },
            mode: "working".to_owned(),
            standing: Some(standing.clone()),
            last_exclusion: Some(standing),
            idle_because: Some("there is no connection".to_owned()),
            running: Vec::new(),
            unsettled_results: 2,
            models: vec![Model { name: "m".to_owned(), digest: None, slots: 4, running: 0 }],
            environments: vec![World {
                environment: "testnet".to_owned(),
                configuration_version: None,
                balance_microcredits: Some(-1_500_000),
            }],
            since_start: Done { succeeded: 1, ..Done::default() },
        };
        let text = report.to_string();
        for part in [
            "node_ab (working)",
            "none, next try in 3 s: it doesn't answer",
            "excluded: 3 failed attempts",
            "2 results wait",
            "testnet, no configuration, balance -1.500000 credits",
            "1 succeeded, 0 failed",
        ] {
            assert!(text.contains(part), "{part} isn't in:\n{text}");
        }
        let json = serde_json::to_string(&report).expect("has a text form");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("comes back"), report);
    }
}
