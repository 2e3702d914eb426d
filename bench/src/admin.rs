//! The operator's side of a running box: its admin API, with the token that lies in its data directory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchbox::wire::JoinString;

use crate::Result;
use crate::child::Server;
use crate::client::Connection;

/// What takes longer to come about has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The way to a box's admin API: a connection for each request, since a box closes idle ones.
pub(crate) struct Admin {
    address: SocketAddr,
    token: String,
}

impl Admin {
    /// Of that box.
    pub(crate) fn of(server: &Server) -> Result<Self> {
        let read = |name: &str| {
            let path = server.data().join(name);
            std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let address = read("admin.addr")?;
        let address = address.trim().trim_start_matches("http://").parse()?;
        let token = read("admin.token")?.trim().to_owned();
        Ok(Self { address, token })
    }

    /// Asks for JSON.
    pub(crate) async fn ask(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.exchange("GET", path, "").await?)?)
    }

    /// Commands something, with its JSON.
    pub(crate) async fn command(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(serde_json::from_slice(&self.exchange("POST", path, &body.to_string()).await?)?)
    }

    /// A new join string, for a machine of the operator's own.
    pub(crate) async fn invite(&self) -> Result<JoinString> {
        let invite = self.command("/admin/invites/new", &json!({})).await?;
        Ok(invite["join"].as_str().ok_or("an invite without a join string")?.parse()?)
    }

    /// The metrics as they are shown.
    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(String::from_utf8(self.exchange("GET", "/metrics", "").await?)?))
    }

    /// Waits until so many other machines are ready for work.
    pub(crate) async fn wait_ready(&self, count: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let nodes = self.ask("/admin/nodes").await?;
            let standings = standings(&nodes);
            let ready = standings.iter().filter(|(_, standing)| *standing == "ready").count();
            if ready >= count {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("only {ready} of {count} nodes are ready").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: &str) -> Result<Vec<u8>> {
        let (address, token, length) = (self.address, &self.token, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut said = Vec::new();
        let mut connection = Connection::open(address).await?;
        let answer = connection.stream(request.as_bytes(), |piece| said.extend_from_slice(piece)).await?;
        if answer.status != 200 {
            let said = String::from_utf8_lossy(&said);
            return Err(format!("{method} {path}: status {}: {said}", answer.status).into());
        }
        Ok(said)
    }
}

/// Other machines by name, with where they stand, of what the admin API lists.
pub(crate) fn standings(nodes: &Value) -> Vec<(&str, &str)> {
    let listed = nodes["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = listed.iter().filter_map(|node| Some((node["node"].as_str()?, node["standing"].as_str()?)));
    named.filter(|(name, _)| *name != "node_local").collect()
}

/// The box's metrics in Prometheus' text format.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The value of a sample, named as it is shown.
    pub(crate) fn value(&self, sample: &str) -> Option<u64> {
        let found = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        found.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_name() {
        let text = "# HELP a An a.\n# TYPE a counter\na 3\nb{code=\"silent\"} 1\nb{code=\"full\"} 2\nbb{code=\"x\"} 9\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!((metrics.value("a"), metrics.value("b{code=\"full\"}")), (Some(3), Some(2)));
        assert_eq!(metrics.value("c"), None);
    }

    #[test]
    fn the_boxs_own_node_is_no_other_machine() {
        let nodes = json!({"nodes": [
            {"node": "node_local", "standing": "ready"},
            {"node": "node_a", "standing": "away"},
        ]});
        assert_eq!(standings(&nodes), [("node_a", "away")]);
    }
}
