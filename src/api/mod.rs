//! The HTTP surface: an OpenAI-compatible inference listener, and an admin listener of its own.
//!
//! It parses, authenticates and bounds what comes in, hands jobs to the core through the door, and renders what
//! comes back. It never decides about jobs, never sees storage or the core itself, and never logs a secret.

pub mod admin;
mod ask;
pub mod auth;
mod body;
mod connect;
mod error;
mod fields;
mod hangup;
mod head_errors;
mod idempotency;
mod jobs;
mod json;
mod limits;
mod metrics;
mod openai;
mod origin;
mod receipts;
mod rejection;
mod response;
mod route;
mod secured;
mod server;
mod sse;
mod stall;
mod starting;
mod status;
mod subclouds;
mod tally;
mod unread;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, Response};

pub use limits::Limits;
pub use origin::Origins;
pub use server::{Listener, Peer};
pub use starting::{Progress, serve_while};
pub use status::DrainFlag;

use auth::{Access, Principal};
use body::Parsers;
use error::ApiError;
use response::{Body, RequestId};
use route::{JobVerb, Keyed, Public, Route, Subclouds};
use tally::Tally;

use crate::arrivals::Arrivals;
use crate::budget::{Budget, Commons};
use crate::coordinator::event::Durability;
use crate::door::Door;
use crate::node::tally::NodesTally;
use crate::runtime::Catalog;
use crate::wire::Identity;

/// What the inference listener is made of.
pub struct Parts {
    /// The way to the core.
    pub door: Door,
    /// What can be asked for.
    pub catalog: Arc<Catalog>,
    /// Who may ask.
    pub access: Access,
    /// What receipts are countersigned with.
    pub identity: Arc<Identity>,
    /// Which web pages may.
    pub origins: Origins,
    /// The bounds.
    pub limits: Limits,
    /// What streams wait for.
    pub durability: Durability,
    /// Raised when the server drains.
    pub drain: DrainFlag,
    /// Where agents' connections go.
    pub arrivals: Arrivals,
    /// What came of those.
    pub nodes: Arc<NodesTally>,
}

/// Everything that a request on the inference listener needs.
pub struct Context {
    door: Door,
    catalog: Arc<Catalog>,
    access: Access,
    identity: Arc<Identity>,
    origins: Origins,
    limits: Limits,
    durability: Durability,
    drain: DrainFlag,
    arrivals: Arrivals,
    nodes: Arc<NodesTally>,
    bodies: Arc<Budget>,
    /// Places for requests that wait for a job's end.
    waiting: Arc<Commons>,
    parsers: Parsers,
    /// Held while something is changed that is made of what it was before.
    changing: tokio::sync::Mutex<()>,
    tally: Arc<Tally>,
    /// `system_fingerprint` of every answer.
    fingerprint: Arc<str>,
    request_ids: RequestIds,
}

impl Context {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { door, catalog, access, identity, origins, limits, durability, drain, arrivals, nodes } =
            parts;
        Arc::new(Self {
            door,
            catalog,
            access,
            identity,
            origins,
            durability,
            drain,
            arrivals,
            nodes,
            bodies: Arc::new(Budget::new(limits.bodies_in_flight_bytes_max)),
            waiting: Arc::new(Commons::new(limits.job_waiters_max)),
            parsers: Parsers::new(),
            changing: tokio::sync::Mutex::new(()),
            tally: Arc::default(),
            limits,
            fingerprint: concat!("switchbox-", env!("CARGO_PKG_VERSION")).into(),
            request_ids: RequestIds::new(),
        })
    }

    /// Bytes of request bodies that are being read or parsed.
    pub fn bodies_in_flight_bytes(&self) -> u64 {
        self.bodies.held()
    }
}

/// Serves the inference API until `shutdown`, then lets running answers end; the caller sets the deadline for
/// that by dropping the future. Draining comes before: raise the flag, and this goes on answering 503.
pub async fn serve_inference(listener: Listener, context: Arc<Context>, shutdown: impl Future<Output = ()>) {
    let (limits, tally) = (context.limits.clone(), Arc::clone(&context.tally));
    let handler = move |peer, request| answer(Arc::clone(&context), peer, request);
    server::serve(listener, &limits, &tally, shutdown, handler).await;
}

/// Names for requests that nobody can foretell from others, without asking the system for each.
struct RequestIds {
    seed: u64,
    count: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        let mut seed = [0; 8];
        // Names needn't be secret: without random bytes the time will do.
        if getrandom::fill(&mut seed).is_err() {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            seed = (now.map_or(0, |now| now.as_nanos()) as u64).to_le_bytes();
        }
        Self { seed: u64::from_le_bytes(seed), count: AtomicU64::new(0) }
    }

    /// The next name: the count, scattered by the finalizer of splitmix64, which repeats nothing.
    fn next(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut mixed = self.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId::numbered(mixed ^ (mixed >> 31))
    }
}

/// Answers one request, whatever it is.
async fn answer(context: Arc<Context>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let begun = Instant::now();
    let request_id = context.request_ids.next();
    let origin = context.origins.allowed(request.headers()).cloned();
    let client_request_id = logged_id(&request);
    let mut response =
        dispatch(&context, peer, request).await.unwrap_or_else(|error| response::error(&error));
    let took_ms = begun.elapsed().as_millis() as u64;
    context.tally.answered(response.status());
    let headers = response.headers_mut();
    response::finish(headers, &request_id, took_ms);
    if let Some(origin) = origin {
        origin::allow(headers, origin);
    }
    tracing::debug!(
        request_id = request_id.text(),
        status = response.status().as_u16(),
        took_ms,
        client_request_id = client_request_id.as_ref().and_then(|id| id.to_str().ok()),
        "answered"
    );
    response
}

/// The client's own name for its request, for the log.
fn logged_id(request: &Request<Incoming>) -> Option<HeaderValue> {
    const CHARS_MAX: usize = 128;
    let id = request.headers().get("x-client-request-id")?;
    (id.len() <= CHARS_MAX).then(|| id.clone())
}

async fn dispatch(
    context: &Arc<Context>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let route = Route::of(request.method(), request.uri().path());
    if let Route::Public(public) = route {
        return match public {
            Public::Health => Ok(status::health()),
            Public::Ready => Ok(status::ready(&context.drain, &context.door)),
            // Whoever comes proves who he is there.
            Public::ConnectNode => connect::upgrade(&context.arrivals, peer, request),
        };
    }
    if context.access.is_local() {
        let local = origin::check_local(&request, &context.origins);
        local.inspect_err(|_| context.tally.origins_refused.add())?;
    }
    if origin::is_preflight(&request) {
        return Ok(origin::preflight(request.headers(), &context.origins));
    }
    let keyed = match route {
        Route::Keyed(keyed) => keyed,
        Route::WrongMethod(allow) => return Ok(response::method_not_allowed(allow)),
        _ => return Err(ApiError::route_unknown(request.method(), request.uri().path())),
    };
    let principal = context.access.authenticate(request.headers(), peer);
    let principal = &*principal.inspect_err(|_| context.tally.keys_refused.add())?;
    match keyed {
        Keyed::Models => Ok(openai::models::list(&context.catalog)),
        Keyed::Model(name) => openai::models::one(&context.catalog, &name),
        Keyed::Infer(endpoint) => openai::infer(context, endpoint, principal, request).await,
        Keyed::SubmitJob => jobs::submit(context, principal, request).await,
        Keyed::Job(id, JobVerb::Read) => jobs::read(context, principal, id, request.uri().query()).await,
        Keyed::Job(id, JobVerb::Cancel) => jobs::cancel(context, principal, id).await,
        Keyed::Job(id, JobVerb::Receipt) => receipts::show(context, principal, id).await,
        Keyed::Subclouds(_) => owner(context, principal, request).await,
    }
}

/// What a namespace does with the subclouds that it owns.
async fn owner(
    context: &Context,
    principal: &Principal,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let actor = subclouds::Actor::of_key(principal)?;
    let (head, body) = request.into_parts();
    match Route::of(&head.method, head.uri.path()) {
        Route::Keyed(Keyed::Subclouds(Subclouds::List)) => subclouds::list(context, &actor).await,
        Route::Keyed(Keyed::Subclouds(Subclouds::Show(name))) => {
            subclouds::show(context, &actor, name, head.uri.query()).await
        }
        Route::Keyed(Keyed::Subclouds(Subclouds::Change(name, verb))) => {
            body::check_type(&head.headers)?;
            let read = body::read(body, &context.limits, &context.bodies).await?;
            subclouds::change(context, &actor, (name, verb), &read.bytes).await
        }
        _ => Err(ApiError::route_unknown(&head.method, head.uri.path())),
    }
}
