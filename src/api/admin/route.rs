//! The operator's paths.

use hyper::Method;

use super::super::route::{READ, Subclouds, WRITE};
use crate::coordinator::command::NodeCommand;

/// What is asked on the admin listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Metrics,
    Nodes,
    /// All that is known of the node of that name.
    NodeShown(&'p str),
    Namespaces,
    Subclouds(Subclouds<'p>),
    /// The configuration in force.
    Snapshot,
    ApplySnapshot,
    Templates,
    AddTemplate,
    RemoveTemplate,
    Keys,
    CreateKey,
    /// Lets the key of that id in no longer.
    RevokeKey(&'p str),
    Queue,
    Invariants,
    Storage,
    Balances,
    DeadLetters,
    /// Where the job of that id stands.
    Job(&'p str),
    /// The decisions on it.
    Trace(&'p str),
    Drain,
    /// Ends the job of that id.
    Cancel(&'p str),
    /// Makes a new job of that dead letter.
    Requeue(&'p str),
    /// Changes the standing of the node of that name.
    Node(&'p str, NodeCommand),
    /// Makes a node known before it comes.
    AdmitNode,
    /// Changes what the operator decides about the node of that name.
    SettleNode(&'p str),
    SettleNamespace,
    CreateSubcloud,
    Pause,
    Resume,
    Deposit,
    Transfer,
    Price,
    Backup,
    Invites,
    CreateInvite,
    /// Lets the invite of that name be good for nothing any more.
    RevokeInvite(&'p str),
    /// The path exists, with these methods.
    WrongMethod(&'static str),
    Unknown,
}

const BOTH: &str = "GET, HEAD, POST";

impl<'p> Route<'p> {
    /// The route of a request.
    pub(super) fn of(method: &Method, path: &'p str) -> Self {
        let segments: Vec<&str> = path.split('/').collect();
        let below = path.strip_prefix("/admin/subclouds").and_then(Subclouds::of);
        let (read, write) = match below {
            Some((asked, READ)) => (Some(Route::Subclouds(asked)), Self::write(&segments)),
            Some((asked, _)) => (None, Some(Route::Subclouds(asked))),
            None => (Self::read(&segments), Self::write(&segments)),
        };
        let is_read = method == Method::GET || method == Method::HEAD;
        match (read, write) {
            (Some(read), _) if is_read => read,
            (_, Some(write)) if method == Method::POST => write,
            (Some(_), Some(_)) => Route::WrongMethod(BOTH),
            (Some(_), None) => Route::WrongMethod(READ),
            (None, Some(_)) => Route::WrongMethod(WRITE),
            (None, None) => Route::Unknown,
        }
    }

    fn read(segments: &[&'p str]) -> Option<Self> {
        Some(match segments {
            ["", "metrics"] => Route::Metrics,
            ["", "admin", "nodes"] => Route::Nodes,
            ["", "admin", "nodes", node] => Route::NodeShown(node),
            ["", "admin", "namespaces"] => Route::Namespaces,
            ["", "admin", "keys"] => Route::Keys,
            ["", "admin", "templates"] => Route::Templates,
            ["", "admin", "snapshot"] => Route::Snapshot,
            ["", "admin", "queue"] => Route::Queue,
            ["", "admin", "invariants"] => Route::Invariants,
            ["", "admin", "storage"] => Route::Storage,
            ["", "admin", "invites"] => Route::Invites,
            ["", "admin", "balances"] => Route::Balances,
            ["", "admin", "dead-letters"] => Route::DeadLetters,
            ["", "admin", "jobs", id] => Route::Job(id),
            ["", "admin", "jobs", id, "trace"] => Route::Trace(id),
            _ => return None,
        })
    }

    fn write(segments: &[&'p str]) -> Option<Self> {
        Some(match segments {
            ["", "admin", "drain"] => Route::Drain,
            ["", "admin", "jobs", id, "cancel"] => Route::Cancel(id),
            ["", "admin", "jobs", id, "requeue"] => Route::Requeue(id),
            ["", "admin", "nodes"] => Route::AdmitNode,
            ["", "admin", "nodes", node, "settings"] => Route::SettleNode(node),
            ["", "admin", "nodes", node, verb] => Route::Node(node, node_command(verb)?),
            ["", "admin", "namespaces"] => Route::SettleNamespace,
            ["", "admin", "keys"] => Route::CreateKey,
            ["", "admin", "templates"] => Route::AddTemplate,
            ["", "admin", "snapshot"] => Route::ApplySnapshot,
            ["", "admin", "templates", "remove"] => Route::RemoveTemplate,
            ["", "admin", "keys", id, "revoke"] => Route::RevokeKey(id),
            ["", "admin", "subclouds"] => Route::CreateSubcloud,
            ["", "admin", "pause"] => Route::Pause,
            ["", "admin", "resume"] => Route::Resume,
            ["", "admin", "backup"] => Route::Backup,
            ["", "admin", "invites", "new"] => Route::CreateInvite,
            ["", "admin", "invites", name, "revoke"] => Route::RevokeInvite(name),
            ["", "admin", "deposits"] => Route::Deposit,
            ["", "admin", "transfers"] => Route::Transfer,
            ["", "admin", "prices"] => Route::Price,
            _ => return None,
        })
    }
}

fn node_command(verb: &str) -> Option<NodeCommand> {
    Some(match verb {
        "pause" => NodeCommand::Pause,
        "resume" => NodeCommand::Resume,
        "drain" => NodeCommand::Drain,
        "freeze" => NodeCommand::Freeze,
        "unfreeze" => NodeCommand::Unfreeze,
        "ban" => NodeCommand::Ban,
        "unban" => NodeCommand::Unban,
        "reinstate" => NodeCommand::Reinstate,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::subclouds::Verb;
    use super::*;

    #[test]
    fn paths_and_methods() {
        for (method, path, route) in [
            (Method::GET, "/metrics", Route::Metrics),
            (Method::GET, "/admin/nodes", Route::Nodes),
            (Method::POST, "/admin/drain", Route::Drain),
            (Method::GET, "/admin/storage", Route::Storage),
            (Method::POST, "/admin/backup", Route::Backup),
            (Method::GET, "/admin/invites", Route::Invites),
            (Method::POST, "/admin/invites/new", Route::CreateInvite),
            (Method::POST, "/admin/invites/ab12/revoke", Route::RevokeInvite("ab12")),
            (Method::GET, "/admin/drain", Route::WrongMethod("POST")),
            (Method::GET, "/admin/jobs/job_1/trace", Route::Trace("job_1")),
            (Method::GET, "/admin/jobs/job_1", Route::Job("job_1")),
            (Method::POST, "/admin/jobs/job_1", Route::WrongMethod("GET, HEAD")),
            (Method::POST, "/admin/jobs/job_1/requeue", Route::Requeue("job_1")),
            (Method::GET, "/admin/jobs//trace", Route::Trace("")),
            (Method::POST, "/admin/nodes/node_a/unfreeze", Route::Node("node_a", NodeCommand::Unfreeze)),
            (Method::POST, "/admin/nodes/node_a/melt", Route::Unknown),
            (Method::GET, "/admin/nodes/node_a", Route::NodeShown("node_a")),
            (Method::POST, "/admin/nodes", Route::AdmitNode),
            (Method::PUT, "/admin/nodes", Route::WrongMethod("GET, HEAD, POST")),
            (Method::POST, "/admin/nodes/node_a/settings", Route::SettleNode("node_a")),
            (Method::POST, "/admin/keys/-a_b/revoke", Route::RevokeKey("-a_b")),
            (Method::GET, "/admin/subclouds", Route::Subclouds(Subclouds::List)),
            (Method::POST, "/admin/subclouds", Route::CreateSubcloud),
            (Method::GET, "/admin/subclouds/lab", Route::Subclouds(Subclouds::Show("lab"))),
            (
                Method::POST,
                "/admin/subclouds/lab/drop",
                Route::Subclouds(Subclouds::Change("lab", Verb::Drop)),
            ),
            (Method::GET, "/admin/subclouds/lab/drop", Route::WrongMethod("POST")),
            (Method::POST, "/admin/subclouds/lab/melt", Route::Unknown),
            (Method::DELETE, "/admin/prices", Route::WrongMethod("POST")),
            (Method::GET, "/admin/jobs/job_1/trace/", Route::Unknown),
            (Method::GET, "/", Route::Unknown),
        ] {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
        }
    }
}
