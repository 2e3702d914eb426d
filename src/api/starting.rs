//! What the inference listener says while the box recovers: that it lives, and how far it is.
//!
//! Takes no work and looks at no key: every path but `/healthz` is answered 503, and every connection ends with its
//! answer.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::Limits;
use super::error::ApiError;
use super::response::{self, Body};
use super::secured;
use super::server::{Accepted, Listener};
use super::status;

/// Connections that are answered at once; the rest waits in the kernel.
const CONNECTIONS_MAX: usize = 64;

/// How far a recovery is.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// So many rows have been read by now.
    pub fn advance(&self, rows: u64) {
        self.0.store(rows, Ordering::Relaxed);
    }
}

/// Answers on `listener` until `work` is done.
pub async fn serve_while<T>(
    listener: &Listener,
    limits: &Limits,
    progress: Arc<Progress>,
    work: impl Future<Output = T>,
) -> T {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut work = std::pin::pin!(work);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            done = &mut work => return done,
            next = next => next,
        };
        // What `accept` can't do now it may do later; meanwhile the work goes on.
        let Ok(accepted) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let progress = Arc::clone(&progress);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let response = answer(&request, &progress);
            async move { Ok::<_, Infallible>(response) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_read_timeout()).keep_alive(false);
        let secure_within = limits.header_read_timeout();
        tokio::spawn(async move {
            let _place = place;
            // A peer that left early has no answer to miss.
            match accepted {
                Accepted::Tcp(stream, _, None) => {
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
                Accepted::Tcp(stream, _, Some(tls)) => {
                    let secured = tokio::time::timeout(secure_within, secured::secure(stream, &tls)).await;
                    if let Ok(Some(stream)) = secured {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
                Accepted::Unix(stream) => {
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
    }
}

fn answer(request: &Request<Incoming>, progress: &Progress) -> Response<Body> {
    match request.uri().path() {
        "/healthz" => status::health(),
        _ => response::error(&ApiError::starting(progress.0.load(Ordering::Relaxed))),
    }
}
