//! `/v1/models`: what can be asked for.

use hyper::Response;

use crate::api::error::ApiError;
use crate::api::json::{display, string};
use crate::api::response::{self, Body};
use crate::runtime::{Catalog, Entry};

/// All models.
pub(in crate::api) fn list(catalog: &Catalog) -> Response<Body> {
    let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
    for (index, entry) in catalog.entries().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_model(&mut out, entry);
    }
    out.extend_from_slice(b"]}");
    response::json(out)
}

/// One model.
pub(in crate::api) fn one(catalog: &Catalog, name: &str) -> Result<Response<Body>, ApiError> {
    let entry = catalog.find(name).ok_or_else(|| ApiError::model_not_found(name))?;
    let mut out = Vec::with_capacity(128);
    write_model(&mut out, &entry);
    Ok(response::json(out))
}

fn write_model(out: &mut Vec<u8>, entry: &Entry) {
    out.extend_from_slice(b"{\"id\":");
    string(out, &entry.name);
    out.extend_from_slice(b",\"object\":\"model\",\"created\":");
    display(out, entry.created_unix);
    out.extend_from_slice(b",\"owned_by\":\"switchbox\",\"context_window\":");
    match entry.context_tokens() {
        Some(tokens) => display(out, tokens),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}
