//! Which path means what. Decides from method and path alone; never touches a body.

use std::borrow::Cow;

use hyper::Method;

use super::subclouds::Verb;
use crate::coordinator::event::Endpoint;
use crate::wire;

/// What is asked on the inference listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// For everybody.
    Public(Public),
    /// For whoever is let in.
    Keyed(Keyed<'p>),
    /// The path exists, with these methods.
    WrongMethod(&'static str),
    /// There is nothing.
    Unknown,
}

/// What anybody may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Public {
    /// Whether the process lives.
    Health,
    /// Whether it takes work.
    Ready,
    /// An agent connects.
    ConnectNode,
}

/// What needs a key, where there are keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keyed<'p> {
    /// Run an inference.
    Infer(Endpoint),
    /// All models.
    Models,
    /// One model.
    Model(Cow<'p, str>),
    /// Take a job.
    SubmitJob,
    /// Something with the job of this id.
    Job(&'p str, JobVerb),
    /// Something with the subclouds that the caller owns.
    Subclouds(Subclouds<'p>),
}

/// What an owner of subclouds asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subclouds<'p> {
    /// Those that it owns.
    List,
    /// The one of that name.
    Show(&'p str),
    /// A change of the one of that name.
    Change(&'p str, Verb),
}

impl<'p> Subclouds<'p> {
    /// What is below a path that ends in `subclouds`, with the methods for it.
    pub(super) fn of(rest: &'p str) -> Option<(Self, &'static str)> {
        let name = |name: &'p str| Some(name).filter(|name| !name.is_empty() && !name.contains('/'));
        match rest.strip_prefix('/') {
            None if rest.is_empty() => Some((Subclouds::List, READ)),
            None => None,
            Some(rest) => match rest.split_once('/') {
                None => Some((Subclouds::Show(name(rest)?), READ)),
                Some((which, verb)) => Some((Subclouds::Change(name(which)?, Verb::of(verb)?), WRITE)),
            },
        }
    }
}

/// What is done with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobVerb {
    /// It is shown.
    Read,
    /// It is ended.
    Cancel,
    /// What proves its answer is shown.
    Receipt,
}

pub(super) const READ: &str = "GET, HEAD";
pub(super) const WRITE: &str = "POST";
/// Behind a job's path.
const RECEIPT: &str = "/receipt";
const READ_OR_DELETE: &str = "GET, HEAD, DELETE";

impl<'p> Route<'p> {
    /// The route of a request.
    pub(super) fn of(method: &Method, path: &'p str) -> Self {
        let is_read = method == Method::GET || method == Method::HEAD;
        let (route, allow) = match path {
            "/v1/chat/completions" => (Route::Keyed(Keyed::Infer(Endpoint::ChatCompletions)), WRITE),
            "/v1/completions" => (Route::Keyed(Keyed::Infer(Endpoint::Completions)), WRITE),
            "/v1/models" => (Route::Keyed(Keyed::Models), READ),
            "/v1/jobs" => (Route::Keyed(Keyed::SubmitJob), WRITE),
            "/healthz" => (Route::Public(Public::Health), READ),
            "/readyz" => (Route::Public(Public::Ready), READ),
            // Whatever isn't an upgrade is told there how to make it one.
            wire::PATH => return Route::Public(Public::ConnectNode),
            _ if path.starts_with("/v1/subclouds") => {
                let Some((subclouds, allow)) = path.strip_prefix("/v1/subclouds").and_then(Subclouds::of)
                else {
                    return Route::Unknown;
                };
                (Route::Keyed(Keyed::Subclouds(subclouds)), allow)
            }
            _ => match (named(path, "/v1/models/"), named(path, "/v1/jobs/")) {
                (Some(name), _) => (Route::Keyed(Keyed::Model(percent_decoded(name))), READ),
                (_, Some(rest)) if rest.ends_with(RECEIPT) => {
                    let id = rest.strip_suffix(RECEIPT).unwrap_or(rest);
                    (Route::Keyed(Keyed::Job(id, JobVerb::Receipt)), READ)
                }
                (_, Some(id)) => {
                    let verb = if method == Method::DELETE { JobVerb::Cancel } else { JobVerb::Read };
                    (Route::Keyed(Keyed::Job(id, verb)), READ_OR_DELETE)
                }
                (None, None) => return Route::Unknown,
            },
        };
        match allow {
            READ if is_read => route,
            READ_OR_DELETE if is_read || method == Method::DELETE => route,
            WRITE if method == Method::POST => route,
            _ => Route::WrongMethod(allow),
        }
    }
}

/// What stands behind the prefix, if something does.
fn named<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|name| !name.is_empty())
}

/// The text behind `%41`; what isn't valid stays as it is.
pub(super) fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        let model = |name: &'static str| Route::Keyed(Keyed::Model(Cow::Borrowed(name)));
        let subclouds = |asked| Route::Keyed(Keyed::Subclouds(asked));
        for (method, path, route) in [
            (Method::POST, "/v1/chat/completions", Route::Keyed(Keyed::Infer(Endpoint::ChatCompletions))),
            (Method::POST, "/v1/completions", Route::Keyed(Keyed::Infer(Endpoint::Completions))),
            (Method::GET, "/v1/chat/completions", Route::WrongMethod("POST")),
            (Method::GET, "/v1/models", Route::Keyed(Keyed::Models)),
            (Method::HEAD, "/v1/models", Route::Keyed(Keyed::Models)),
            (Method::POST, "/v1/models", Route::WrongMethod("GET, HEAD")),
            (Method::GET, "/v1/models/", Route::Unknown),
            (Method::GET, "/v1/models/org/name", model("org/name")),
            (Method::GET, "/v1/models/org%2Fname%20b", model("org/name b")),
            (Method::GET, "/v1/models/%zz%4", model("%zz%4")),
            (Method::GET, "/v1/models/%ff", model("%ff")),
            (Method::POST, "/v1/jobs", Route::Keyed(Keyed::SubmitJob)),
            (Method::GET, "/v1/jobs", Route::WrongMethod("POST")),
            (Method::GET, "/v1/jobs/job_1", Route::Keyed(Keyed::Job("job_1", JobVerb::Read))),
            (Method::DELETE, "/v1/jobs/job_1", Route::Keyed(Keyed::Job("job_1", JobVerb::Cancel))),
            (Method::POST, "/v1/jobs/job_1", Route::WrongMethod("GET, HEAD, DELETE")),
            (Method::GET, "/v1/jobs/job_1/receipt", Route::Keyed(Keyed::Job("job_1", JobVerb::Receipt))),
            (Method::DELETE, "/v1/jobs/job_1/receipt", Route::WrongMethod("GET, HEAD")),
            (Method::GET, "/v1/jobs/", Route::Unknown),
            (Method::GET, "/v1/subclouds", subclouds(Subclouds::List)),
            (Method::GET, "/v1/subclouds/lab", subclouds(Subclouds::Show("lab"))),
            (Method::POST, "/v1/subclouds/lab/add", subclouds(Subclouds::Change("lab", Verb::Add))),
            (Method::GET, "/v1/subclouds/lab/add", Route::WrongMethod("POST")),
            (Method::POST, "/v1/subclouds/lab", Route::WrongMethod("GET, HEAD")),
            (Method::POST, "/v1/subclouds/lab/add/x", Route::Unknown),
            (Method::GET, "/v1/subclouds/", Route::Unknown),
            (Method::GET, "/v1/subcloudsx", Route::Unknown),
            (Method::GET, "/healthz", Route::Public(Public::Health)),
            (Method::GET, "/readyz", Route::Public(Public::Ready)),
            (Method::DELETE, "/readyz", Route::WrongMethod("GET, HEAD")),
            (Method::GET, "/v1/nodes/connect", Route::Public(Public::ConnectNode)),
            (Method::POST, "/v1/nodes/connect", Route::Public(Public::ConnectNode)),
            (Method::GET, "/", Route::Unknown),
            (Method::POST, "/v1/chat/completions/", Route::Unknown),
            (Method::POST, "/v1/embeddings", Route::Unknown),
        ] {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
        }
    }
}
