//! Providers that are asked with the head of the request itself (`envoyExtAuthzHttp`). Pure.
//!
//! Invariant: status 200 allows, 500 and above counts as no answer, and any other refuses. Fields that only the provider may
//! set are removed from the client's request, whether or not the provider sets them.

use ambit_model::bound::HttpCheck;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts};

use super::{
    ask::{Answered, NoAnswer},
    change::{Change, Changes, Decision, How, is_of_message, names},
};
use crate::body::RequestBody;

/// Envoy's field in which an HTTP provider lists fields to remove from an allowed request.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// What providers are sent beside the head of a request.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// The host of the request.
    pub(super) host: String,
    /// The part of the body that the provider is sent.
    pub(super) body: Bytes,
}

impl Shown {
    /// The first value of a field; empty if the field is absent.
    pub(super) fn text(&self, parts: &Parts, name: &HeaderName) -> String {
        let value = parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        value.map(std::borrow::Cow::into_owned).unwrap_or_default()
    }
}

/// The request to the provider.
pub(super) fn request(http: &HttpCheck, parts: &Parts, shown: &Shown) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::own(shown.body.clone()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = target(http, parts);
    let headers = request.headers_mut();
    for (name, value) in &parts.headers {
        let is_shown = *name == header::AUTHORIZATION || names(&http.request_headers, name.as_str());
        if is_shown && is_of_message(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &http.additional_headers {
        let pair = (name.parse::<HeaderName>(), HeaderValue::from_str(value));
        if let (Ok(name), Ok(value)) = pair {
            headers.insert(name, value);
        }
    }
    if let Ok(host) = HeaderValue::from_str(&shown.host) {
        headers.insert(header::HOST, host);
    }
    // Also set for an empty body, so that the provider does not wait for one.
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(shown.body.len()));
    request
}

/// The path of the request, behind the configured prefix.
fn target(http: &HttpCheck, parts: &Parts) -> Uri {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // The control plane refuses prefixes that make no valid path.
    format!("{}{path}", http.path_prefix).parse().unwrap_or_default()
}

/// The decision in an answer.
pub(super) fn read(http: &HttpCheck, answered: Answered, client: &HeaderMap) -> Result<Decision, NoAnswer> {
    let Answered { head, body } = answered;
    if head.status.is_server_error() {
        return Err(NoAnswer::Unusable(format!("HTTP status {}", head.status)));
    }
    if head.status == StatusCode::OK {
        return Ok(Decision::Admit(admission(http, &head.headers, client)));
    }
    // A refusal stays one even if its body was cut off.
    let mut response = Response::new(body.map(|(bytes, _)| bytes).unwrap_or_default());
    *response.status_mut() = super::change::status(head.status.as_u16());
    for (name, value) in &head.headers {
        if is_of_message(name) && is_for_client(http, name) {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(Decision::Refuse(response))
}

/// Whether a field of a refusal is sent to the client: all without a list; with one also `location` and
/// `www-authenticate`, as in Envoy.
fn is_for_client(http: &HttpCheck, name: &HeaderName) -> bool {
    http.downstream_on_deny.is_empty()
        || names(&http.downstream_on_deny, name.as_str())
        || [header::LOCATION, header::WWW_AUTHENTICATE].contains(name)
}

/// Fields that are removed from the client's request because only the provider may set them.
pub(super) fn reserved(http: &HttpCheck, client: &HeaderMap) -> Vec<HeaderName> {
    // Many servers read `x_user` as `x-user`.
    let is_spelled = |name: &str| names(&http.upstream_on_allow, &name.replace('_', "-"));
    let is_reserved = |name: &&HeaderName| {
        (names(&http.upstream_on_allow, name.as_str()) || is_spelled(name.as_str())) && is_of_message(name)
    };
    client.keys().filter(is_reserved).cloned().collect()
}

fn admission(http: &HttpCheck, answer: &HeaderMap, client: &HeaderMap) -> Changes {
    let mut removed = reserved(http, client);
    let listed = answer.get_all(TO_REMOVE).iter().filter_map(|value| value.to_str().ok());
    let listed = listed.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok());
    removed.extend(listed.filter(is_of_message));
    let taken = |patterns: &[ambit_model::StringMatch]| {
        let fields = answer.iter().filter(|(name, _)| names(patterns, name.as_str()) && is_of_message(name));
        let change = |(name, value): (&HeaderName, &HeaderValue)| Change {
            name: name.clone(),
            value: value.clone(),
            how: How::Append,
        };
        fields.map(change).collect::<Vec<_>>()
    };
    Changes { request: taken(&http.upstream_on_allow), response: taken(&http.downstream_on_allow), removed }
}

#[cfg(test)]
mod tests;
