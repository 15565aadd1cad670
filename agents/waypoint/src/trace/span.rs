//! OTLP spans, made of access-log records. Pure.
//!
//! Invariant: what the access log leaves out (queries, header fields) is not in a span either.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ambit_proto::opentelemetry::proto::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
};

use crate::{
    access_log::{FAILED_FROM, Record, shown_host, shown_path},
    upstream::Endpoint,
};

/// A span that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenSpan {
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
}

/// One of several tries of a request.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Id of its span.
    pub span: u64,
    /// Time from the beginning of the request to that of the try.
    pub after: Duration,
    /// Time from the beginning of the try to the head of the response, or to its failure.
    pub took: Duration,
    /// The endpoint, if one was chosen.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Status of the response.
    pub status: Option<u16>,
    /// Envoy's response flag of the failure; empty if there was a response.
    pub flag: &'static str,
}

/// The span of a request that ended at `now`.
pub(super) fn of(trace_id: u128, open: &OpenSpan, record: &Record<'_>, now: SystemTime) -> Span {
    let method = record.request.map_or("CONNECT", |heard| heard.method);
    let end = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Span {
        trace_id: trace_id.to_be_bytes().to_vec(),
        span_id: open.id.to_be_bytes().to_vec(),
        parent_span_id: open.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name: format!("{method} {}", record.route.unwrap_or(record.service)).trim_end().to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(end.saturating_sub(record.duration)),
        end_time_unix_nano: nanos(end),
        attributes: attributes(record),
        // OpenTelemetry's rule for servers: 5xx, and no response at all.
        status: record.failed().then(|| Status {
            message: record.error.unwrap_or_default().to_owned(),
            code: StatusCode::Error.into(),
        }),
        ..Span::default()
    }
}

/// The span of one try: a child of the request's span, which began at `begun` (nanoseconds).
pub(super) fn of_try(
    (trace_id, request): (u128, u64),
    record: &Record<'_>,
    (nth, tried): (usize, &Tried),
    begun: u64,
) -> Span {
    let start = begun.saturating_add(nanos(tried.after));
    let mut attributes = Vec::new();
    if let Some(heard) = &record.request {
        attributes.push(text("http.request.method", heard.method));
    }
    attributes.extend(tried.status.map(|status| number("http.response.status_code", status.into())));
    if nth > 0 {
        attributes.push(number("http.request.resend_count", i64::try_from(nth).unwrap_or(i64::MAX)));
    }
    if !tried.flag.is_empty() {
        attributes.push(text("response_flags", tried.flag));
    }
    if let Some(endpoint) = &tried.endpoint {
        attributes.push(text("upstream_address", &endpoint.address.to_string()));
        attributes.push(text("ambit.upstream.pod", &endpoint.workload.name));
    }
    let failed = tried.status.is_none_or(|status| status >= FAILED_FROM);
    Span {
        trace_id: trace_id.to_be_bytes().to_vec(),
        span_id: tried.span.to_be_bytes().to_vec(),
        parent_span_id: request.to_be_bytes().to_vec(),
        name: format!("try {}", nth.saturating_add(1)),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(nanos(tried.took)),
        attributes,
        status: failed.then(|| Status { message: String::new(), code: StatusCode::Error.into() }),
        ..Span::default()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The attributes of a request, named as in OpenTelemetry's conventions, else as in Envoy and Istio.
fn attributes(record: &Record<'_>) -> Vec<KeyValue> {
    let mut all = vec![text("ambit.service", record.service)];
    if let Some(heard) = &record.request {
        all.push(text("http.request.method", heard.method));
        all.push(text("url.path", shown_path(heard.path)));
        let version = heard.protocol.strip_prefix("HTTP/").unwrap_or(heard.protocol);
        all.push(text("network.protocol.version", version.strip_suffix(".0").unwrap_or(version)));
        all.extend(heard.host.map(|host| text("server.address", shown_host(host))));
        all.extend(heard.status.map(|status| number("http.response.status_code", status.into())));
        all.extend(heard.grpc_status.map(|status| number("rpc.grpc.status_code", status.into())));
    }
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    all.push(number("http.request.body.size", size(record.bytes_recv)));
    all.push(number("http.response.body.size", size(record.bytes_sent)));
    all.extend(record.route.map(|route| text("ambit.route", route)));
    if !record.flags.is_empty() {
        all.push(text("response_flags", &record.flags.join(",")));
    }
    if !record.code_details.is_empty() {
        all.push(text("response_code_details", record.code_details));
    }
    if record.tries > 1 {
        all.push(number("http.request.resend_count", i64::from(record.tries) - 1));
    }
    all.extend(record.source.addr.map(|addr| text("client.address", &addr.ip().to_string())));
    all.extend(record.source.identity.map(|id| text("ambit.source.identity", &id.to_string())));
    all.extend(record.destination.addr.map(|addr| text("upstream_address", &addr.to_string())));
    if let Some(client) = record.source.workload {
        all.push(text("istio.downstream.workload", &client.workload_name));
    }
    if let Some(endpoint) = record.destination.workload {
        all.push(text("ambit.upstream.pod", &endpoint.name));
        all.push(text("istio.upstream.workload", &endpoint.workload_name));
    }
    all
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
