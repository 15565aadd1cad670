//! The fields of an access-log line. Pure.
//!
//! Invariant: neither the query of a path nor the user information of a host is written.

use std::{net::SocketAddr, time::Duration};

use ambit_model::{Spiffe, Verdict, Workload};
use ambit_proxy::access_log::{self, Line, Severity, Value};

use super::FAILED_FROM;

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

impl Record<'_> {
    /// Whether it counts as failed.
    pub(crate) fn failed(&self) -> bool {
        match &self.request {
            Some(heard) => heard.status.is_none_or(|status| status >= FAILED_FROM),
            None => self.error.is_some(),
        }
    }
}

impl access_log::Record for Record<'_> {
    fn severity(&self) -> Severity {
        if self.failed() { Severity::Error } else { Severity::Info }
    }

    fn message(&self) -> &'static str {
        if self.request.is_some() { "request complete" } else { "connection complete" }
    }

    fn fields(&self, line: &mut Line) {
        if let Some(heard) = &self.request {
            line.put("method", Value::Text(heard.method));
            line.put("path", Value::Text(shown_path(heard.path)));
            heard.host.iter().for_each(|host| line.put("host", Value::Text(shown_host(host))));
            line.put("protocol", Value::Text(heard.protocol));
            heard.status.iter().for_each(|status| line.put("status", Value::Number((*status).into())));
            let grpc_status = heard.grpc_status.iter();
            grpc_status.for_each(|status| line.put("grpc_status", Value::Number((*status).into())));
        }
        match self.flags {
            [] => line.put("flags", Value::Name(&"-")),
            flags => line.put("flags", Value::Name(&flags.join(","))),
        }
        let requests = self.request.is_some();
        let details = if requests { "response_code_details" } else { "connection_termination_details" };
        line.text(details, Some(self.code_details));
        line.put("bytes_recv", Value::Number(self.bytes_recv));
        line.put("bytes_sent", Value::Number(self.bytes_sent));
        line.put("duration", Value::Millis(self.duration.as_millis()));
        if self.tries > 1 {
            line.put("tries", Value::Number(self.tries.into()));
        }
        self.route.iter().for_each(|route| line.put("route", Value::Text(route)));
        end(line, ["src.addr", "src.workload", "src.namespace", "src.identity"], &self.source);
        line.text("dst.service", Some(self.service));
        end(line, ["dst.addr", "dst.workload", "dst.namespace", "dst.identity"], &self.destination);
        let trace_id = self.trace_id.iter();
        trace_id.for_each(|id| line.put("trace_id", Value::Name(&format_args!("{id:032x}"))));
        self.error.iter().for_each(|error| line.put("error", Value::Text(error)));
    }
}

fn end(line: &mut Line, [addr, workload, namespace, identity]: [&str; 4], end: &End<'_>) {
    if let Some(socket) = &end.addr {
        line.put(addr, Value::Word(socket));
    }
    if let Some(known) = end.workload {
        line.put(workload, Value::Text(&known.name));
        line.put(namespace, Value::Text(&known.namespace));
    }
    if let Some(id) = end.identity {
        line.put(identity, Value::Name(id));
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
