//! Providers that speak `envoy.service.auth.v3.Authorization/Check`. Pure.
//!
//! Invariant: only an answer with status OK whose changes can all be applied allows a request.

use std::{net::SocketAddr, time::SystemTime};

use ambit_proto::{
    auth::{
        AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
        attribute_context::{HttpRequest, Peer, Request as Asked},
        check_response::HttpResponse,
    },
    envoy::config::core::v3::{
        Address, HeaderValueOption, SocketAddress, address, header_value_option::HeaderAppendAction,
        socket_address::PortSpecifier,
    },
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    request::Parts,
};
use prost::Message as _;

use super::{
    ask::{Answered, NoAnswer},
    change::{Change, Changes, Decision, How, is_of_message},
    web::Shown,
};
use crate::body::RequestBody;

const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The prefix of a message: a flag for compression, and its length (grpc/doc/PROTOCOL-HTTP2.md).
const PREFIX_BYTES: usize = 5;

/// Client and destination, as they are described to providers.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    /// Address and principal of the client.
    pub(super) source: (SocketAddr, String),
    /// The address that the client connected to, and the waypoint's principal.
    pub(super) destination: (SocketAddr, String),
}

/// The `CheckRequest`, with its prefix.
pub(super) fn message(parts: &Parts, sides: &Sides, shown: &Shown, as_bytes: bool) -> Bytes {
    let request = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(&sides.source)),
            destination: Some(peer(&sides.destination)),
            request: Some(Asked {
                time: Some(SystemTime::now().into()),
                http: Some(http(parts, shown, as_bytes)),
            }),
            context_extensions: Default::default(),
        }),
    };
    let length = request.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    // Heads and bodies have limits far below 4 GiB.
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.extend_from_slice(&request.encode_to_vec());
    framed.freeze()
}

fn peer((address, principal): &(SocketAddr, String)) -> Peer {
    let socket = SocketAddress {
        protocol: 0,
        address: address.ip().to_canonical().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
    };
    Peer {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
        principal: principal.clone(),
        ..Peer::default()
    }
}

fn http(parts: &Parts, shown: &Shown, as_bytes: bool) -> HttpRequest {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = shown.host.as_str();
    let mut headers = std::collections::HashMap::new();
    for name in parts.headers.keys() {
        let separator = if *name == header::COOKIE { "; " } else { "," };
        let values: Vec<_> =
            parts.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        headers.insert(name.as_str().to_owned(), values.join(separator));
    }
    // As in Envoy: policies of providers refer to them by these names.
    let pseudo =
        [(":method", parts.method.as_str()), (":path", path), (":authority", host), (":scheme", "http")];
    headers.extend(pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let (body, raw_body) = match as_bytes {
        true => (String::new(), shown.body.to_vec()),
        false => (String::from_utf8_lossy(&shown.body).into_owned(), Vec::new()),
    };
    HttpRequest {
        id: shown.text(parts, &REQUEST_ID),
        method: parts.method.to_string(),
        headers,
        path: path.to_owned(),
        host: host.to_owned(),
        scheme: "http".into(),
        query: String::new(),
        fragment: String::new(),
        size: length.and_then(|length| length.parse().ok()).unwrap_or(-1),
        protocol: match parts.version {
            Version::HTTP_2 => "HTTP/2".into(),
            Version::HTTP_10 => "HTTP/1.0".into(),
            _ => "HTTP/1.1".into(),
        },
        body,
        raw_body,
    }
}

/// The gRPC call; its authority is the provider's Service.
pub(super) fn request(message: &Bytes, authority: &str, timeout_ms: u128) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::own(message.clone()));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    // Kubernetes allows no Service name for which this fails; an empty target gets no answer.
    *request.uri_mut() = format!("http://{authority}{METHOD}").parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    // At most eight digits (grpc/doc/PROTOCOL-HTTP2.md).
    if let Ok(limit) = HeaderValue::from_str(&format!("{}m", timeout_ms.min(99_999_999))) {
        headers.insert(GRPC_TIMEOUT, limit);
    }
    request
}

/// The decision in an answer.
pub(super) fn read(answered: Answered) -> Result<Decision, NoAnswer> {
    let unusable = |why: &str| NoAnswer::Unusable(why.to_owned());
    if answered.head.status != StatusCode::OK {
        return Err(NoAnswer::Unusable(format!("HTTP status {}", answered.head.status)));
    }
    let (body, trailers) = answered.body?;
    // A response without messages has its status in the head.
    let status = trailers.get(GRPC_STATUS).or_else(|| answered.head.headers.get(GRPC_STATUS));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(code) => {
            return Err(NoAnswer::Unusable(format!("gRPC status {}", String::from_utf8_lossy(code))));
        }
        None => return Err(unusable("it has no gRPC status")),
    }
    let (prefix, message) =
        body.split_at_checked(PREFIX_BYTES).ok_or_else(|| unusable("it has no message"))?;
    let length = prefix.iter().skip(1).fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    if prefix.first() != Some(&0) || length != message.len() {
        return Err(unusable("it is not one message, not compressed"));
    }
    let response = CheckResponse::decode(message).map_err(|error| NoAnswer::Unusable(error.to_string()))?;
    decide(response)
}

/// OK allows and any other status refuses; a contradictory or incomplete answer counts as no answer.
fn decide(response: CheckResponse) -> Result<Decision, NoAnswer> {
    let code = response.status.as_ref().map(|status| status.code);
    match (code, response.http_response) {
        (Some(0) | None, Some(HttpResponse::OkResponse(ok))) => Ok(Decision::Admit(admission(&ok)?)),
        (Some(0), None) => Ok(Decision::Admit(Changes::default())),
        (None, None) => Err(NoAnswer::Unusable("it has no status".into())),
        (_, Some(HttpResponse::DeniedResponse(denied))) => Ok(Decision::Refuse(refusal(&denied))),
        (Some(_), _) => Ok(Decision::Refuse(refusal(&DeniedHttpResponse::default()))),
    }
}

fn admission(ok: &OkHttpResponse) -> Result<Changes, NoAnswer> {
    if !(ok.query_parameters_to_set.is_empty() && ok.query_parameters_to_remove.is_empty()) {
        return Err(NoAnswer::Unusable("it changes the query, which is not supported".into()));
    }
    let removed = ok.headers_to_remove.iter().filter_map(|name| name.parse::<HeaderName>().ok());
    Ok(Changes {
        // Fields that may not be removed are kept, as in Envoy.
        removed: removed.filter(is_of_message).collect(),
        request: changes(&ok.headers)?,
        response: changes(&ok.response_headers_to_add)?,
    })
}

fn changes(options: &[HeaderValueOption]) -> Result<Vec<Change>, NoAnswer> {
    let read = |option| {
        let change = change(option)?;
        match is_of_message(&change.name) {
            true => Ok(change),
            false => {
                Err(NoAnswer::Unusable(format!("it sets {}, which a provider may not set", change.name)))
            }
        }
    };
    options.iter().map(read).collect()
}

fn change(option: &HeaderValueOption) -> Result<Change, NoAnswer> {
    let unusable = |what: &str| NoAnswer::Unusable(format!("it sets a header {what}"));
    let header = option.header.as_ref().ok_or_else(|| unusable("without a name"))?;
    // A pseudo header is not a header name, so this counts as no answer.
    let name = header.key.parse::<HeaderName>().map_err(|_| unusable(&format!("named {:?}", header.key)))?;
    let bytes = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let value = HeaderValue::from_bytes(bytes).map_err(|_| unusable("with an invalid value"))?;
    let how = match (option.append, HeaderAppendAction::try_from(option.append_action)) {
        (Some(true), _) => How::Append,
        (Some(false), _) => How::Overwrite,
        // If unset, the value replaces others in this message.
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd | HeaderAppendAction::OverwriteIfExistsOrAdd)) => {
            How::Overwrite
        }
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => How::AddIfAbsent,
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => How::OverwriteIfExists,
        (None, Err(_)) => return Err(unusable("with an unknown append action")),
    };
    Ok(Change { name, value, how })
}

/// A refusal stays one even if parts of it cannot be read; those are left out.
fn refusal(denied: &DeniedHttpResponse) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(denied.body.clone()));
    let code = denied.status.as_ref().and_then(|status| u16::try_from(status.code).ok());
    *response.status_mut() = super::change::status(code.unwrap_or_default());
    let mut headers = HeaderMap::new();
    for change in denied.headers.iter().filter_map(|option| change(option).ok()) {
        if is_of_message(&change.name) {
            super::change::apply(&[change], &mut headers);
        }
    }
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests;
