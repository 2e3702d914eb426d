//! The operator's listener: metrics, views of the core, and draining. On loopback or a Unix socket of its own,
//! behind a token, and closed to web pages. It asks the core and shows what it says; it changes nothing else.

mod route;
mod views;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use hyper::{Request, Response};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::limits::Limits;
use super::response::{self, Body};
use super::server::{self, Listener, Peer};
use super::{Context, RequestIds, auth, metrics, origin};
use crate::coordinator::effect::Answer;
use crate::coordinator::event::Question;
use crate::door::ClientMessage;
use crate::ids::JobId;
use crate::secrets::AdminToken;
use route::Route;

/// How long the core may take to answer before the operator is told that it doesn't.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that a request on the admin listener needs.
pub struct AdminContext {
    inference: Arc<Context>,
    token: AdminToken,
    limits: Limits,
    request_ids: RequestIds,
}

impl AdminContext {
    /// An operator's view of what `inference` serves, for whoever knows `token`.
    pub fn new(inference: Arc<Context>, token: AdminToken, limits: Limits) -> Arc<Self> {
        Arc::new(Self { inference, token, limits, request_ids: RequestIds::new() })
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
        dispatch(&context, peer, &request).await.unwrap_or_else(|error| response::error(&error));
    response::finish(response.headers_mut(), &request_id, begun.elapsed().as_millis() as u64);
    response
}

async fn dispatch(
    context: &AdminContext,
    peer: Peer,
    request: &Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    check_origin(request, peer)?;
    check_token(context, request.headers())?;
    let route = Route::of(request.method(), request.uri().path());
    match route {
        Route::Metrics => metrics_text(context).await,
        Route::Nodes => shown(context, Question::Nodes).await,
        Route::Queue => shown(context, Question::Queue).await,
        Route::Invariants => shown(context, Question::Invariants).await,
        Route::Drain => shown(context, Question::Drain).await,
        Route::Trace(id) => {
            let job = id.parse::<JobId>().map_err(|error| ApiError::id_malformed(error.to_string()))?;
            shown(context, Question::Trace(job)).await
        }
        Route::WrongMethod(allow) => Ok(response::method_not_allowed(allow)),
        Route::Unknown => Err(ApiError::route_unknown(request.method(), request.uri().path())),
    }
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

/// Asks the core and waits for what it says.
async fn ask(context: &AdminContext, question: Question) -> Result<Answer, ApiError> {
    let refused = |refusal| ApiError::refused(&refusal, "");
    let mut session = context.inference.door.open().map_err(refused)?;
    session.ask(question).map_err(refused)?;
    let answered = async {
        loop {
            match session.next().await {
                ClientMessage::Answer(answer) => return Ok(*answer),
                ClientMessage::Refused(refusal) => return Err(refused(refusal)),
                ClientMessage::Accepted { .. } | ClientMessage::Opened(_) | ClientMessage::Finished(_) => {}
            }
        }
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
    session.served();
    answer.unwrap_or_else(|_| Err(ApiError::internal("The core did not answer in time.")))
}

async fn metrics_text(context: &AdminContext) -> Result<Response<Body>, ApiError> {
    let Answer::Counts(counts) = ask(context, Question::Counts).await? else {
        return Err(unexpected());
    };
    let inference = &context.inference;
    let edges = metrics::Edges {
        door: inference.door.gauges(),
        bodies_in_flight_bytes: inference.bodies_in_flight_bytes(),
        tally: &inference.tally,
    };
    let text = metrics::text(&counts, &edges, &inference.catalog);
    Ok(response::whole(hyper::StatusCode::OK, METRICS_TYPE, text))
}

/// Asks, and shows the answer as JSON.
async fn shown(context: &AdminContext, question: Question) -> Result<Response<Body>, ApiError> {
    let view = match ask(context, question).await? {
        Answer::Nodes(nodes) => views::nodes(&nodes),
        Answer::Queue(queue) => views::queue(&queue),
        Answer::Trace(row) => views::trace(&row),
        Answer::Invariants { recount, violations } => views::invariants(&recount, &violations),
        Answer::Draining { live } => {
            context.inference.drain.raise();
            views::draining(live)
        }
        Answer::Refused(kind, _) => return Err(views::refused(kind)),
        _ => return Err(unexpected()),
    };
    Ok(response::json(view.to_string()))
}

fn unexpected() -> ApiError {
    ApiError::internal("The core answered another question: please report it.")
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
