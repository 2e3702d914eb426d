//! `/v1/models`: what can be asked for, here or on a node that is here.

use std::sync::Arc;

use hyper::Response;

use crate::api::error::ApiError;
use crate::api::json::{display, string};
use crate::api::response::{self, Body};
use crate::ids::ModelName;
use crate::runtime::{Catalog, Entry};

/// What is shown of a model.
struct Shown {
    created_unix: u64,
    context_tokens: Option<u32>,
}

impl Shown {
    fn of(entry: &Entry) -> Self {
        Self { created_unix: entry.created_unix, context_tokens: entry.context_tokens() }
    }

    /// One that only nodes have.
    fn on_nodes(created_unix: u64) -> Self {
        Self { created_unix, context_tokens: None }
    }
}

/// All models: the box's own first, so that no stranger's is what a client finds at the top.
pub(in crate::api) fn list(catalog: &Catalog) -> Response<Body> {
    let here = catalog.entries();
    let mut models: Vec<(ModelName, Shown)> =
        here.iter().map(|entry| (Arc::clone(&entry.name), Shown::of(entry))).collect();
    let on_nodes = catalog.offered().all().into_iter().filter(|(name, _)| catalog.find(name).is_none());
    models.extend(on_nodes.map(|(name, since)| (name, Shown::on_nodes(since))));
    let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
    for (index, (name, shown)) in models.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_model(&mut out, name, shown);
    }
    out.extend_from_slice(b"]}");
    response::json(out)
}

/// One model.
pub(in crate::api) fn one(catalog: &Catalog, name: &str) -> Result<Response<Body>, ApiError> {
    let here = catalog.find(name).map(|entry| Shown::of(&entry));
    let shown = here.or_else(|| catalog.offered().since(name).map(Shown::on_nodes));
    let mut out = Vec::with_capacity(128);
    write_model(&mut out, name, &shown.ok_or_else(|| ApiError::model_not_found(name))?);
    Ok(response::json(out))
}

fn write_model(out: &mut Vec<u8>, name: &str, shown: &Shown) {
    out.extend_from_slice(b"{\"id\":");
    string(out, name);
    out.extend_from_slice(b",\"object\":\"model\",\"created\":");
    display(out, shown.created_unix);
    out.extend_from_slice(b",\"owned_by\":\"switchbox\",\"context_window\":");
    match shown.context_tokens {
        Some(tokens) => display(out, tokens),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}
