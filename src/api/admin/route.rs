//! The operator's paths.

use hyper::Method;

use crate::coordinator::command::NodeCommand;

/// What is asked on the admin listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Metrics,
    Nodes,
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
    Pause,
    Resume,
    Deposit,
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

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

impl<'p> Route<'p> {
    /// The route of a request.
    pub(super) fn of(method: &Method, path: &'p str) -> Self {
        let segments: Vec<&str> = path.split('/').collect();
        let Some((route, allow)) = Self::read(&segments).map(|route| (route, READ)).or_else(|| {
            let route = Self::write(&segments)?;
            Some((route, WRITE))
        }) else {
            return Route::Unknown;
        };
        match allow {
            READ if method == Method::GET || method == Method::HEAD => route,
            WRITE if method == Method::POST => route,
            _ => Route::WrongMethod(allow),
        }
    }

    fn read(segments: &[&'p str]) -> Option<Self> {
        Some(match segments {
            ["", "metrics"] => Route::Metrics,
            ["", "admin", "nodes"] => Route::Nodes,
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
            ["", "admin", "nodes", node, verb] => Route::Node(node, node_command(verb)?),
            ["", "admin", "pause"] => Route::Pause,
            ["", "admin", "resume"] => Route::Resume,
            ["", "admin", "backup"] => Route::Backup,
            ["", "admin", "invites", "new"] => Route::CreateInvite,
            ["", "admin", "invites", name, "revoke"] => Route::RevokeInvite(name),
            ["", "admin", "deposits"] => Route::Deposit,
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
        "thaw" => NodeCommand::Thaw,
        "ban" => NodeCommand::Ban,
        "unban" => NodeCommand::Unban,
        "reinstate" => NodeCommand::Reinstate,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
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
            (Method::POST, "/admin/nodes/node_a/thaw", Route::Node("node_a", NodeCommand::Thaw)),
            (Method::POST, "/admin/nodes/node_a/melt", Route::Unknown),
            (Method::DELETE, "/admin/prices", Route::WrongMethod("POST")),
            (Method::GET, "/admin/jobs/job_1/trace/", Route::Unknown),
            (Method::GET, "/", Route::Unknown),
        ] {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
        }
    }
}
