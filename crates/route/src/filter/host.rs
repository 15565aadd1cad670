//! The host of a request.
//!
//! Invariant: the request target and the `host` header name the same host.

use std::sync::Arc;

use http::{HeaderValue, Uri, header, request::Parts, uri::Authority};

use crate::Invalid;

/// Parses a host with an optional port.
pub(super) fn authority(text: &Arc<str>) -> Result<Authority, Invalid> {
    text.parse::<Authority>()
        .ok()
        .filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
        .ok_or_else(|| Invalid::Host(text.clone()))
}

/// Sets the host of a request.
pub(super) fn set_authority(request: &mut Parts, host: &Authority) {
    let mut parts = request.uri.clone().into_parts();
    if parts.authority.is_some() {
        parts.authority = Some(host.clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            request.uri = uri;
        }
    }
    if let Ok(host) = HeaderValue::from_str(host.as_str()) {
        request.headers.insert(header::HOST, host);
    }
}
