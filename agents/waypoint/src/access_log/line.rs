//! The text of an access-log line. Pure.
//!
//! Invariant: fields are written in the order of `Record::fields`, absent ones are left out, no value can end the line, and
//! neither the query of a path nor the user information of a host is written.

use std::{fmt, fmt::Write as _, net::SocketAddr, time::Duration};

use ambit_model::{Spiffe, Verdict, Workload};
use ambit_runtime::{lines::quote, telemetry::Format};

use super::{FAILED_FROM, SCOPE};

/// Usual length of a line, in bytes.
const LINE_BYTES: usize = 768;
/// Longest path that is written, in bytes; the rest is cut off.
const PATH_BYTES_MAX: usize = 1024;

/// The client or the endpoint of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct End<'a> {
    /// Address and port.
    pub addr: Option<SocketAddr>,
    /// Its pod, if the mesh knows it.
    pub workload: Option<&'a Workload>,
    /// The identity it proved.
    pub identity: Option<&'a Spiffe>,
}

/// The fields of a request and its response.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Method, such as `GET`.
    pub method: &'a str,
    /// Path; its query is not logged.
    pub path: &'a str,
    /// `host` or `:authority`.
    pub host: Option<&'a str>,
    /// `HTTP/1.1` and so on.
    pub protocol: &'static str,
    /// Status of the response; `None` if none was sent.
    pub status: Option<u16>,
    /// `grpc-status` of the response.
    pub grpc_status: Option<u16>,
}

/// A request or stream that is over.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Fields of the request; `None` for a byte stream.
    pub request: Option<Heard<'a>>,
    /// Response flags of Envoy and Istio.
    pub flags: &'a [&'static str],
    /// Response code details of Envoy: why no endpoint responded, or not completely; else empty.
    pub code_details: &'a str,
    /// Bytes from the client.
    pub bytes_recv: u64,
    /// Bytes to the client.
    pub bytes_sent: u64,
    /// Time from its beginning to its end.
    pub duration: Duration,
    /// Number of tries; 0 if it was sent nowhere.
    pub tries: u32,
    /// Name of the rule that matched.
    pub route: Option<&'a str>,
    /// Hostname of the service that the client addressed; empty for a pod.
    pub service: &'a str,
    /// The client.
    pub source: End<'a>,
    /// The endpoint.
    pub destination: End<'a>,
    /// Id of its trace.
    pub trace_id: Option<u128>,
    /// Why it failed, as text.
    pub error: Option<&'a str>,
}

/// A value and how it is written.
enum Value<'a> {
    /// Quoted.
    Text(&'a str),
    /// Quoted; consists of characters that need no escape.
    Name(&'a dyn fmt::Display),
    /// Bare in text, quoted in JSON.
    Word(&'a dyn fmt::Display),
    Number(u64),
    Millis(u128),
    Trace(u128),
    Flags(&'a [&'static str]),
}

impl Record<'_> {
    /// Whether it counts as failed.
    pub(crate) fn failed(&self) -> bool {
        match &self.request {
            Some(heard) => heard.status.is_none_or(|status| status >= FAILED_FROM),
            None => self.error.is_some(),
        }
    }

    /// Its line, with the newline. `time` is RFC 3339.
    pub(super) fn line(&self, format: Format, time: &str) -> String {
        let level = if self.failed() { "error" } else { "info" };
        let message = if self.request.is_some() { "request complete" } else { "connection complete" };
        let mut out = String::with_capacity(LINE_BYTES);
        // Writing to a String cannot fail, here and below.
        let _ = match format {
            Format::Text => write!(out, "{time}\t{level}\t{SCOPE}\t{message}\t"),
            Format::Json => write!(
                out,
                "{{\"level\":\"{level}\",\"time\":\"{time}\",\"scope\":\"{SCOPE}\",\"message\":\"{message}\""
            ),
        };
        let mut first = true;
        self.fields(&mut |name, value| {
            let _ = match format {
                Format::Text if first => write!(out, "{name}="),
                Format::Text => write!(out, " {name}="),
                Format::Json => write!(out, ",\"{name}\":"),
            };
            first = false;
            push(&mut out, format, &value);
        });
        out.push_str(match format {
            Format::Text => "\n",
            Format::Json => "}\n",
        });
        out
    }

    fn fields(&self, put: &mut dyn FnMut(&str, Value<'_>)) {
        if let Some(heard) = &self.request {
            put("method", Value::Text(heard.method));
            put("path", Value::Text(shown_path(heard.path)));
            heard.host.iter().for_each(|host| put("host", Value::Text(shown_host(host))));
            put("protocol", Value::Text(heard.protocol));
            heard.status.iter().for_each(|status| put("status", Value::Number((*status).into())));
            heard.grpc_status.iter().for_each(|status| put("grpc_status", Value::Number((*status).into())));
        }
        put("flags", Value::Flags(self.flags));
        if !self.code_details.is_empty() {
            let requests = self.request.is_some();
            let name = if requests { "response_code_details" } else { "connection_termination_details" };
            put(name, Value::Text(self.code_details));
        }
        put("bytes_recv", Value::Number(self.bytes_recv));
        put("bytes_sent", Value::Number(self.bytes_sent));
        put("duration", Value::Millis(self.duration.as_millis()));
        if self.tries > 1 {
            put("tries", Value::Number(self.tries.into()));
        }
        self.route.iter().for_each(|route| put("route", Value::Text(route)));
        end(put, ["src.addr", "src.workload", "src.namespace", "src.identity"], &self.source);
        if !self.service.is_empty() {
            put("dst.service", Value::Text(self.service));
        }
        end(put, ["dst.addr", "dst.workload", "dst.namespace", "dst.identity"], &self.destination);
        self.trace_id.iter().for_each(|id| put("trace_id", Value::Trace(*id)));
        self.error.iter().for_each(|error| put("error", Value::Text(error)));
    }
}

fn end(
    put: &mut dyn FnMut(&str, Value<'_>),
    [addr, workload, namespace, identity]: [&str; 4],
    end: &End<'_>,
) {
    if let Some(socket) = &end.addr {
        put(addr, Value::Word(socket));
    }
    if let Some(known) = end.workload {
        put(workload, Value::Text(&known.name));
        put(namespace, Value::Text(&known.namespace));
    }
    if let Some(id) = end.identity {
        put(identity, Value::Name(id));
    }
}

/// Envoy's details of a denial, without the rule: a verdict names only the policy.
pub(crate) fn rbac_details(verdict: &Verdict) -> String {
    match verdict.policy() {
        Some(policy) => {
            format!("rbac_access_denied_matched_policy[ns[{}]-policy[{}]]", policy.namespace, policy.name)
        }
        None => "rbac_access_denied_matched_policy[none]".to_owned(),
    }
}

/// A path without its query, and at most [`PATH_BYTES_MAX`] long.
pub(crate) fn shown_path(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let end = path.floor_char_boundary(PATH_BYTES_MAX);
    path.get(..end).unwrap_or(path)
}

/// A host without user information (RFC 9110 4.2.4).
pub(crate) fn shown_host(host: &str) -> &str {
    host.rsplit('@').next().unwrap_or(host)
}

fn push(out: &mut String, format: Format, value: &Value<'_>) {
    let _ = match (format, value) {
        (_, Value::Number(number)) => write!(out, "{number}"),
        (_, Value::Millis(millis)) => write!(out, "\"{millis}ms\""),
        (_, Value::Trace(id)) => write!(out, "\"{id:032x}\""),
        (Format::Json, Value::Name(value) | Value::Word(value)) | (Format::Text, Value::Name(value)) => {
            write!(out, "\"{value}\"")
        }
        (Format::Text, Value::Word(value)) => write!(out, "{value}"),
        (_, Value::Text(text)) => {
            quote(out, text);
            Ok(())
        }
        (_, Value::Flags([])) => write!(out, "\"-\""),
        (_, Value::Flags(flags)) => write!(out, "\"{}\"", flags.join(",")),
    };
}
