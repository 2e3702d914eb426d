//! The operator's listener: metrics, views of the core, and draining. On loopback or a Unix socket of its own,
//! behind a token, and closed to web pages. A request is one question to the core, or one command; it shows what the
//! core says and decides nothing.

mod commands;
mod invites;
mod keeping;
mod keys;
mod namespaces;
mod nodes;
mod route;
mod snapshot;
mod templates;
mod views;

use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use subtle::ConstantTimeEq;

use super::ask as core;
use super::body;
use super::error::ApiError;
use super::limits::Limits;
use super::response::{self, Body};
use super::route::Subclouds;
use super::server::{self, Listener, Peer};
use super::subclouds::{self, Actor};
use super::{Context, RequestIds, auth, metrics, origin};
use crate::archive::Wanted;
use crate::backup::Backups;
use crate::budget::Budget;
use crate::coordinator::command::Command;
use crate::coordinator::effect::{Answer, Refusal};
use crate::coordinator::event::Question;
use crate::door::ClientSession;
use crate::ids::{JobId, NodeId};
use crate::secrets::AdminToken;
use crate::time::Time;
pub use invites::Whereabouts;
use route::Route;

/// Bytes of a command's body.
const COMMAND_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all commands' bodies that are being read: traffic doesn't take the operator's room.
const COMMANDS_BYTES_MAX: u64 = 4 << 20;
/// Dead letters that are listed, the newest.
const DEAD_LETTERS_SHOWN_MAX: u32 = 1_000;

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that a request on the admin listener needs.
pub struct AdminContext {
    inference: Arc<Context>,
    token: AdminToken,
    limits: Limits,
    bodies: Arc<Budget>,
    /// None where the box keeps nothing.
    backups: Option<Arc<Backups>>,
    whereabouts: Whereabouts,
    request_ids: RequestIds,
}

impl AdminContext {
    /// An operator's view of what `inference` serves, for whoever knows `token`; `backups` where the box keeps something.
    pub fn new(
        inference: Arc<Context>,
        token: AdminToken,
        limits: Limits,
        backups: Option<Backups>,
        whereabouts: Whereabouts,
    ) -> Arc<Self> {
        let limits = Limits { body_bytes_max: COMMAND_BYTES_MAX, ..limits };
        let bodies = Arc::new(Budget::new(COMMANDS_BYTES_MAX));
        let backups = backups.map(Arc::new);
        Arc::new(Self {
            inference,
            token,
            limits,
            bodies,
            backups,
            whereabouts,
            request_ids: RequestIds::new(),
        })
    }
}

/// Serves the admin API until `shutdown`, then lets running answers end.
pub async fn serve(listener: Listener, context: Arc<AdminContext>, shutdown: impl Future<Output = ()>) {
    // Counts for itself: what the operator asks isn't traffic.
    let (limits, tally) = (context.limits.clone(), Arc::default());
    let handler = move |peer, request| answer(Arc::clone(&context), peer, request);
    server::serve(listener, &limits, &tally, shutdown, handler).await;
}

async fn answer(context: Arc<AdminContext>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let begun = Instant::now();
    let request_id = context.request_ids.next();
    let mut response =
        dispatch(&context, peer, request).await.unwrap_or_else(|error| response::error(&error));
    response::finish(response.headers_mut(), &request_id, begun.elapsed().as_millis() as u64);
    response
}

async fn dispatch(
    context: &AdminContext,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    check_origin(&request, peer)?;
    check_token(context, request.headers())?;
    let (head, body) = request.into_parts();
    let told = match Route::of(&head.method, head.uri.path()) {
        Route::Metrics => return metrics_text(context).await,
        Route::Storage => return keeping::storage(context),
        Route::Invites => return invites::list(context).await,
        Route::RevokeInvite(name) => return invites::revoke(context, name).await,
        Route::WrongMethod(allow) => return Ok(response::method_not_allowed(allow)),
        Route::Unknown => return Err(ApiError::route_unknown(&head.method, head.uri.path())),
        Route::Nodes => ask(context, Question::Nodes).await?,
        Route::NodeShown(node) => ask(context, Question::Node(NodeId::named(node))).await?,
        Route::Namespaces => ask(context, Question::Namespaces(None)).await?,
        Route::Subclouds(Subclouds::List) => {
            return subclouds::list(&context.inference, &Actor::Operator).await;
        }
        Route::Subclouds(Subclouds::Show(name)) => {
            return subclouds::show(&context.inference, &Actor::Operator, name, head.uri.query()).await;
        }
        Route::Keys => return Ok(response::json(keys::list(context)?.to_string())),
        Route::RevokeKey(id) => return Ok(response::json(keys::revoke(context, id).await?.to_string())),
        Route::Snapshot => return snapshot::show(context, head.uri.query()).await,
        Route::Templates => ask(context, Question::Templates).await?,
        Route::Queue => ask(context, Question::Queue).await?,
        Route::Invariants => ask(context, Question::Invariants).await?,
        Route::Balances => ask(context, Question::Balances).await?,
        Route::DeadLetters => ask(context, Question::DeadLetters(DEAD_LETTERS_SHOWN_MAX)).await?,
        Route::Drain => ask(context, Question::Drain).await?,
        Route::Trace(id) => ask(context, Question::Trace(job_of(id)?)).await?,
        Route::Job(id) => return job(context, job_of(id)?).await,
        Route::Cancel(id) => {
            let job = job_of(id)?;
            converse(context, |session| session.cancel(job)).await?
        }
        Route::Requeue(id) => requeue(context, job_of(id)?).await?,
        Route::Node(node, command) => operate(context, Command::Node(NodeId::named(node), command)).await?,
        told => return with_body(context, told, &read(context, &head, body).await?).await,
    };
    shown(context, &told)
}

/// What brings a body.
async fn with_body(
    context: &AdminContext,
    route: Route<'_>,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    let inference = &context.inference;
    let told = match route {
        Route::Backup => return keeping::backup(context, commands::backup(body)?).await,
        Route::Pause => operate(context, Command::Pause(commands::scope(body)?)).await?,
        Route::Resume => operate(context, Command::Resume(commands::scope(body)?)).await?,
        Route::Deposit => operate(context, commands::deposit(body)?).await?,
        Route::Transfer => operate(context, commands::transfer(body)?).await?,
        Route::Price => operate(context, commands::price(body, now())?).await?,
        Route::AdmitNode => nodes::admit(context, body).await?,
        Route::SettleNode(node) => nodes::settle(context, node, body).await?,
        Route::SettleNamespace => namespaces::settle(context, body).await?,
        Route::ApplySnapshot => return snapshot::apply(context, body).await,
        Route::AddTemplate => templates::add(context, body).await?,
        Route::RemoveTemplate => templates::remove(context, body).await?,
        Route::CreateInvite => return invites::create(context, body).await,
        Route::CreateKey => return Ok(response::json(keys::create(context, body).await?.to_string())),
        Route::CreateSubcloud => return subclouds::create(inference, body).await,
        Route::Subclouds(Subclouds::Change(name, verb)) => {
            return subclouds::change(inference, &Actor::Operator, (name, verb), body).await;
        }
        _ => return Err(ApiError::internal("This path is answered by nobody: please report it.")),
    };
    shown(context, &told)
}

fn job_of(id: &str) -> Result<JobId, ApiError> {
    id.parse().map_err(|error: crate::ids::IdError| ApiError::id_malformed(error.to_string()))
}

/// A command's body.
async fn read(context: &AdminContext, head: &Parts, body: Incoming) -> Result<Vec<u8>, ApiError> {
    body::check_type(&head.headers)?;
    Ok(body::read(body, &context.limits, &context.bodies).await?.bytes)
}

/// When a command that doesn't say takes effect.
fn now() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX)))
}

/// No web page has business here: one that isn't this listener's own is refused, and so is a name that could
/// have been made to point to this machine.
fn check_origin<B>(request: &Request<B>, peer: Peer) -> Result<(), ApiError> {
    if peer != Peer::Unix && !origin::is_to_loopback(request) {
        return Err(ApiError::host_not_allowed());
    }
    let headers = request.headers();
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own = origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://") == host && host.is_some());
    if is_own { Ok(()) } else { Err(ApiError::origin_not_allowed()) }
}

fn check_token(context: &AdminContext, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(auth::bearer);
    let is_equal =
        given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(context.token.text().as_bytes())));
    if is_equal {
        return Ok(());
    }
    let message = "Incorrect admin token: send `Authorization: Bearer ...` with the text of the data directory's \
                   admin.token.";
    Err(ApiError::invalid_key(message))
}

async fn ask(context: &AdminContext, question: Question) -> Result<Answer, ApiError> {
    core::ask(&context.inference.door, question).await
}

async fn operate(context: &AdminContext, command: Command) -> Result<Answer, ApiError> {
    core::operate(&context.inference.door, None, command).await
}

async fn converse(
    context: &AdminContext,
    say: impl FnOnce(&mut ClientSession) -> Result<(), Refusal>,
) -> Result<Answer, ApiError> {
    core::converse(&context.inference.door, say).await
}

/// Where a job stands, or how it ended.
async fn job(context: &AdminContext, job: JobId) -> Result<Response<Body>, ApiError> {
    let view = match ask(context, Question::Job(job, None)).await? {
        Answer::Job(view) => views::live_job(&view),
        Answer::Trace(row) => views::ended_job(&row),
        _ => return Err(ApiError::unexpected()),
    };
    Ok(response::json(view.to_string()))
}

/// A dead letter is read from the store first: the core keeps only its id.
async fn requeue(context: &AdminContext, job: JobId) -> Result<Answer, ApiError> {
    let ask = |session: &mut ClientSession| {
        session.want(Wanted::Body);
        session.ask(Question::Trace(job))
    };
    let Answer::Trace(row) = converse(context, ask).await? else {
        return Err(ApiError::unexpected());
    };
    converse(context, |session| session.requeue(row)).await
}

async fn metrics_text(context: &AdminContext) -> Result<Response<Body>, ApiError> {
    let Answer::Counts(counts) = ask(context, Question::Counts).await? else {
        return Err(ApiError::unexpected());
    };
    let inference = &context.inference;
    let edges = metrics::Edges {
        nodes: &inference.nodes,
        door: inference.door.gauges(),
        bodies_in_flight_bytes: inference.bodies_in_flight_bytes(),
        tally: &inference.tally,
        store: inference.door.store_state(),
    };
    let text = metrics::text(&counts, &edges, &inference.catalog);
    Ok(response::whole(hyper::StatusCode::OK, METRICS_TYPE, text))
}

/// An answer as JSON.
fn shown(context: &AdminContext, answer: &Answer) -> Result<Response<Body>, ApiError> {
    let view = match answer {
        Answer::Nodes(all) => nodes::list(all),
        Answer::Node(view) => nodes::shown(view),
        Answer::Namespaces(all) => namespaces::list(all),
        Answer::Templates(all) => templates::list(all),
        Answer::Queue(queue) => views::queue(queue),
        Answer::Trace(row) => views::trace(row),
        Answer::Invariants { recount, violations } => views::invariants(recount, violations),
        Answer::Balances(balances) => views::balances(balances),
        Answer::DeadLetters(letters) => views::dead_letters(letters),
        Answer::Cancelled { job, state } => views::cancelled(*job, *state),
        Answer::Requeued { job } => serde_json::json!({"job": job.to_string()}),
        Answer::Paused { waiting, expiring } => views::paused(*waiting, *expiring),
        Answer::Done => serde_json::json!({"done": true}),
        Answer::Draining { left } => {
            context.inference.drain.raise();
            views::draining(*left)
        }
        _ => return Err(ApiError::unexpected()),
    };
    Ok(response::json(view.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_and_foreign_names_are_refused() {
        let here = Peer::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        for (peer, host, origin, refused) in [
            (here, "127.0.0.1:9", None, None),
            (here, "localhost:9", Some("http://localhost:9"), None),
            (here, "localhost:9", Some("http://localhost:10"), Some("origin_not_allowed")),
            (here, "localhost:9", Some("https://evil.example"), Some("origin_not_allowed")),
            (here, "localhost:9", Some("null"), Some("origin_not_allowed")),
            (here, "evil.example", None, Some("host_not_allowed")),
            (here, "evil.example", Some("http://evil.example"), Some("host_not_allowed")),
            (Peer::Unix, "switchbox", None, None),
            (Peer::Unix, "switchbox", Some("https://evil.example"), Some("origin_not_allowed")),
        ] {
            let request = Request::builder().uri("/metrics").header(HOST, host);
            let request = origin.into_iter().fold(request, |request, origin| request.header(ORIGIN, origin));
            let result = check_origin(&request.body(()).expect("a request"), peer);
            assert_eq!(result.err().map(|error| error.code), refused, "{host} {origin:?}");
        }
    }
}
