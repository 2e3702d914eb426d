//! The operator's paths.

use hyper::Method;

/// What is asked on the admin listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Metrics,
    Nodes,
    Queue,
    Invariants,
    Drain,
    /// The decisions on the job of that id.
    Trace(&'p str),
    /// The path exists, with these methods.
    WrongMethod(&'static str),
    Unknown,
}

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

impl<'p> Route<'p> {
    /// The route of a request.
    pub(super) fn of(method: &Method, path: &'p str) -> Self {
        let (route, allow) = match path {
            "/metrics" => (Route::Metrics, READ),
            "/admin/nodes" => (Route::Nodes, READ),
            "/admin/queue" => (Route::Queue, READ),
            "/admin/invariants" => (Route::Invariants, READ),
            "/admin/drain" => (Route::Drain, WRITE),
            _ => match path.strip_prefix("/admin/jobs/").and_then(|rest| rest.strip_suffix("/trace")) {
                Some(id) => (Route::Trace(id), READ),
                None => return Route::Unknown,
            },
        };
        match allow {
            READ if method == Method::GET || method == Method::HEAD => route,
            WRITE if method == Method::POST => route,
            _ => Route::WrongMethod(allow),
        }
    }
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
            (Method::GET, "/admin/drain", Route::WrongMethod("POST")),
            (Method::GET, "/admin/jobs/job_1/trace", Route::Trace("job_1")),
            (Method::GET, "/admin/jobs/job_1", Route::Unknown),
            (Method::GET, "/admin/jobs//trace", Route::Trace("")),
            (Method::GET, "/", Route::Unknown),
        ] {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
        }
    }
}
