//! The headers of a CONNECT: `baggage`, `forwarded`, `traceparent`.
//!
//! They are hints for telemetry and never authenticate anything; identity comes from mTLS only.
//! Parsing never fails: it drops what is malformed, and limits the size of what it keeps.

use std::{fmt::Write as _, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Header with the labels of the source or, in a response, of the destination.
pub(crate) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// Header with the client's address and the requested service (RFC 7239).
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// Header with the trace context (W3C Trace Context).
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest baggage value that is kept, in bytes; Kubernetes limits names to 253.
const BAGGAGE_VALUE_MAX_BYTES: usize = 256;

/// Workload kinds that Istio uses in `k8s.<kind>.name`.
const KINDS: [&str; 4] = ["deployment", "cronjob", "pod", "job"];

/// Labels of one end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: Option<String>,
    /// `k8s.namespace.name`
    pub namespace: Option<String>,
    /// Kind (`deployment`, `cronjob`, `pod` or `job`) and name of the workload: `k8s.<kind>.name`.
    pub workload: Option<(String, String)>,
    /// `service.name`: the canonical service.
    pub service: Option<String>,
    /// `service.version`: the canonical revision.
    pub revision: Option<String>,
    /// `cloud.region`
    pub region: Option<String>,
    /// `cloud.availability_zone`
    pub zone: Option<String>,
}

/// The client that a proxy forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's own address; `None` if the peer omitted it.
    pub client: Option<SocketAddr>,
    /// The hostname of the requested service.
    pub host: Option<String>,
}

/// A W3C trace context of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// 16 bytes, not all zero.
    pub trace_id: u128,
    /// 8 bytes, not all zero.
    pub span_id: u64,
    /// Trace flags; 0 means not sampled.
    pub flags: u8,
}

/// The headers of a CONNECT that this mesh reads or writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectHeaders {
    /// Labels of the source workload.
    pub baggage: Option<Baggage>,
    /// Client address and requested service.
    pub forwarded: Option<Forwarded>,
    /// Trace of this connection.
    pub traceparent: Option<TraceParent>,
}

impl ConnectHeaders {
    /// Encodes the headers; a value that is not valid in HTTP is omitted.
    pub fn encode(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(3);
        let mut put = |name, text: Option<String>| {
            if let Some(value) = text.filter(|t| !t.is_empty()).and_then(|t| HeaderValue::try_from(t).ok()) {
                map.insert(name, value);
            }
        };
        put(BAGGAGE, self.baggage.as_ref().map(Baggage::encode));
        put(FORWARDED, self.forwarded.as_ref().map(Forwarded::encode));
        put(TRACEPARENT, self.traceparent.map(TraceParent::encode));
        map
    }

    /// Parses the headers; malformed ones are dropped.
    pub fn parse(map: &HeaderMap) -> Self {
        let text = |name: &HeaderName| map.get(name).and_then(|v| v.to_str().ok());
        Self {
            baggage: Baggage::from_headers(map),
            forwarded: text(&FORWARDED).map(Forwarded::parse),
            traceparent: text(&TRACEPARENT).and_then(TraceParent::parse),
        }
    }
}

impl Baggage {
    /// A comma-separated list in Istio's order, without empty members.
    pub fn encode(&self) -> String {
        let kind = self.workload.as_ref().map(|(kind, _)| format!("k8s.{kind}.name"));
        let members = [
            ("k8s.cluster.name", self.cluster.as_deref()),
            ("k8s.namespace.name", self.namespace.as_deref()),
            (kind.as_deref().unwrap_or_default(), self.workload.as_ref().map(|(_, name)| name.as_str())),
            ("service.name", self.service.as_deref()),
            ("service.version", self.revision.as_deref()),
            ("cloud.region", self.region.as_deref()),
            ("cloud.availability_zone", self.zone.as_deref()),
        ];
        let mut text = String::new();
        for (key, value) in members {
            if let Some(value) = value.filter(|v| is_value(v)) {
                let comma = if text.is_empty() { "" } else { "," };
                // Writing to a String cannot fail.
                let _ = write!(text, "{comma}{key}={value}");
            }
        }
        text
    }

    /// Parses all `baggage` headers; the last member of a key wins. `None` without such a header.
    pub fn from_headers(map: &HeaderMap) -> Option<Self> {
        let mut lines = map.get_all(BAGGAGE).iter().filter_map(|v| v.to_str().ok()).peekable();
        lines.peek()?;
        let mut baggage = Self::default();
        for (key, value) in lines.flat_map(|l| l.split(',')).filter_map(|m| m.split_once('=')) {
            // Properties after `;` (W3C Baggage 3.3.1.4) are not used.
            let value = value.split(';').next().unwrap_or_default().trim();
            if is_value(value) {
                baggage.set(key.trim(), value);
            }
        }
        Some(baggage)
    }

    fn set(&mut self, key: &str, value: &str) {
        let slot = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "service.name" => &mut self.service,
            "service.version" => &mut self.revision,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            other => {
                let kind = other.strip_prefix("k8s.").and_then(|k| k.strip_suffix(".name"));
                if let Some(kind) = kind.filter(|k| KINDS.contains(k)) {
                    self.workload = Some((kind.to_owned(), value.to_owned()));
                }
                return;
            }
        };
        *slot = Some(value.to_owned());
    }
}

/// Printable, and free of the list's separators.
fn is_value(value: &str) -> bool {
    (1..=BAGGAGE_VALUE_MAX_BYTES).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b';' | b'=' | b'"'))
}

impl Forwarded {
    /// `for="<ip:port>";host=<service>`
    pub fn encode(&self) -> String {
        let client = self.client.map(|c| format!("for=\"{c}\""));
        let host = self.host.as_ref().filter(|h| is_value(h)).map(|h| format!("host={h}"));
        [client, host].into_iter().flatten().collect::<Vec<_>>().join(";")
    }

    fn parse(text: &str) -> Self {
        let mut forwarded = Self { client: None, host: None };
        // Only the first element: later ones were added by proxies further away.
        let first = text.split(',').next().unwrap_or_default();
        for (key, value) in first.split(';').filter_map(|p| p.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "for" => forwarded.client = value.parse().ok(),
                "host" => forwarded.host = is_value(value).then(|| value.to_owned()),
                _ => {}
            }
        }
        forwarded
    }
}

impl TraceParent {
    /// `00-<32 hex>-<16 hex>-<2 hex>`
    pub fn encode(self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    /// `None` for another version, wrong lengths, upper case or a zero id (W3C Trace Context
    /// 3.2.2).
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = parts.as_slice() else { return None };
        let hex = |s: &str, len: usize| {
            s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if *version != "00" || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        let parsed = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (parsed.trace_id != 0 && parsed.span_id != 0).then_some(parsed)
    }
}

#[cfg(test)]
mod tests;
