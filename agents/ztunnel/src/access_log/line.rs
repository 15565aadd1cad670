//! What a line says. Pure.
//!
//! Invariant: as text a tab-separated head and `key=value`, as JSON one object; fields come in the order of `Record::fields`, absent ones are left out, and no value can end the line.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use ambit_model::{Spiffe, Workload};
use ambit_runtime::{lines::quote, telemetry::Format};

/// The log scope of these lines, also the target that `RUST_LOG` filters.
pub(super) const SCOPE: &str = "access";
/// Usual length of a line, in bytes.
const LINE_BYTES: usize = 640;

/// Seen from the pod whose proxy this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The pod is the client.
    Outbound,
    /// The pod is the server.
    Inbound,
}

/// One end of the connection.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Address on the wire.
    pub addr: Option<SocketAddr>,
    /// Pod.
    pub workload: Option<Arc<str>>,
    /// Namespace.
    pub namespace: Option<Arc<str>>,
    /// Identity, only when mTLS proved it.
    pub identity: Option<Spiffe>,
    /// Cluster.
    pub cluster: Option<Arc<str>>,
}

impl End {
    /// A pod at `addr`; its identity is the caller's to prove.
    pub fn of(workload: &Workload, addr: SocketAddr, identity: Option<Spiffe>) -> Self {
        Self {
            addr: Some(addr),
            workload: Some(workload.name.clone()),
            namespace: Some(workload.namespace.clone()),
            identity,
            cluster: Some(workload.cluster_id.clone()),
        }
    }
}

/// A connection that ended.
#[derive(Clone, Debug)]
pub struct Record {
    /// The client.
    pub source: End,
    /// The server.
    pub destination: End,
    /// Target inside the tunnel.
    pub hbone_addr: Option<Arc<str>>,
    /// Hostname of the service the client asked for.
    pub service: Option<Arc<str>>,
    /// What came of asking about the server's address, where nobody here had heard of it.
    pub lookup: Option<&'static str>,
    /// Whose side this is.
    pub direction: Direction,
    /// Bytes from the pod.
    pub bytes_sent: u64,
    /// Bytes to the pod.
    pub bytes_recv: u64,
    /// From accept to end.
    pub duration: Duration,
    /// Why it failed.
    pub error: Option<String>,
}

/// A value, and whether text quotes it.
enum Value<'a> {
    Addr(SocketAddr),
    Target(&'a str),
    Text(&'a str),
    Identity(&'a Spiffe),
    Number(u64),
    Millis(u128),
}

impl Record {
    /// A record of two ends and nothing else.
    pub fn between(direction: Direction, source: End, destination: End) -> Self {
        Self {
            source,
            destination,
            hbone_addr: None,
            service: None,
            lookup: None,
            direction,
            bytes_sent: 0,
            bytes_recv: 0,
            duration: Duration::ZERO,
            error: None,
        }
    }

    /// The line of a connection that ended, with its newline. `time` is RFC 3339.
    pub fn line(&self, format: Format, time: &str) -> String {
        let level = if self.error.is_none() { "info" } else { "error" };
        render(format, [time, level, "connection complete"], self.fields().into_iter())
    }

    /// The line of a connection that was refused before anything but its addresses was known.
    pub fn early(&self, format: Format, time: &str) -> String {
        let known = |name: &str| matches!(name, "src.addr" | "dst.addr" | "direction" | "error");
        let fields = self.fields().into_iter().filter(|(name, _)| known(name));
        render(format, [time, "warn", "connection failed"], fields)
    }

    fn fields(&self) -> [(&'static str, Option<Value<'_>>); 18] {
        let (source, destination) = (&self.source, &self.destination);
        let direction = match self.direction {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        };
        [
            ("src.addr", source.addr.map(Value::Addr)),
            ("src.workload", text(&source.workload)),
            ("src.namespace", text(&source.namespace)),
            ("src.identity", source.identity.as_ref().map(Value::Identity)),
            ("src.cluster", text(&source.cluster)),
            ("dst.addr", destination.addr.map(Value::Addr)),
            ("dst.hbone_addr", self.hbone_addr.as_deref().map(Value::Target)),
            ("dst.service", text(&self.service)),
            ("dst.workload", text(&destination.workload)),
            ("dst.namespace", text(&destination.namespace)),
            ("dst.identity", destination.identity.as_ref().map(Value::Identity)),
            ("dst.cluster", text(&destination.cluster)),
            ("dst.lookup", self.lookup.map(Value::Text)),
            ("direction", Some(Value::Text(direction))),
            ("bytes_sent", Some(Value::Number(self.bytes_sent))),
            ("bytes_recv", Some(Value::Number(self.bytes_recv))),
            ("duration", Some(Value::Millis(self.duration.as_millis()))),
            ("error", self.error.as_deref().map(Value::Text)),
        ]
    }
}

fn text(value: &Option<Arc<str>>) -> Option<Value<'_>> {
    value.as_deref().filter(|text| !text.is_empty()).map(Value::Text)
}

/// `head` is time, level and message. Writing to a String cannot fail, hence the ignored results.
fn render<'a>(
    format: Format,
    head: [&str; 3],
    fields: impl Iterator<Item = (&'static str, Option<Value<'a>>)>,
) -> String {
    let [time, level, message] = head;
    let mut out = String::with_capacity(LINE_BYTES);
    let _ = match format {
        Format::Text => write!(out, "{time}\t{level}\t{SCOPE}\t{message}\t"),
        Format::Json => write!(
            out,
            "{{\"level\":\"{level}\",\"time\":\"{time}\",\"scope\":\"{SCOPE}\",\"message\":\"{message}\""
        ),
    };
    let mut first = true;
    for (name, value) in fields {
        let Some(value) = value else { continue };
        let _ = match format {
            Format::Text if first => write!(out, "{name}="),
            Format::Text => write!(out, " {name}="),
            Format::Json => write!(out, ",\"{name}\":"),
        };
        first = false;
        push(&mut out, format, &value);
    }
    out.push_str(match format {
        Format::Text => "\n",
        Format::Json => "}\n",
    });
    out
}

fn push(out: &mut String, format: Format, value: &Value<'_>) {
    let _ = match (format, value) {
        (_, Value::Number(number)) => write!(out, "{number}"),
        (_, Value::Millis(millis)) => write!(out, "\"{millis}ms\""),
        // Identities consist of characters that need no escape.
        (_, Value::Identity(id)) => write!(out, "\"{id}\""),
        (Format::Text, Value::Addr(addr)) => write!(out, "{addr}"),
        (Format::Text, Value::Target(target)) => write!(out, "{}", target.escape_debug()),
        (Format::Json, Value::Addr(addr)) => write!(out, "\"{addr}\""),
        (_, Value::Text(text)) | (Format::Json, Value::Target(text)) => {
            quote(out, text);
            Ok(())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let identity = |sa: &str| format!("spiffe://cluster.local/ns/shop/sa/{sa}").parse().ok();
        Record {
            source: End {
                addr: "10.0.0.1:40000".parse().ok(),
                workload: Some("front-7d".into()),
                namespace: Some("shop".into()),
                identity: identity("front"),
                cluster: Some("Kubernetes".into()),
            },
            destination: End {
                addr: "10.0.0.2:15008".parse().ok(),
                workload: Some("cart-5c".into()),
                namespace: Some("shop".into()),
                identity: identity("cart"),
                cluster: None,
            },
            hbone_addr: Some("10.0.0.2:8080".into()),
            service: Some("cart.shop.svc.cluster.local".into()),
            lookup: None,
            direction: Direction::Outbound,
            bytes_sent: 84,
            bytes_recv: 358,
            duration: Duration::from_micros(12_700),
            error: None,
        }
    }

    #[test]
    fn a_complete_line_has_every_field_in_order() {
        assert_eq!(
            record().line(Format::Text, "T"),
            "T\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:40000 src.workload=\"front-7d\" \
             src.namespace=\"shop\" src.identity=\"spiffe://cluster.local/ns/shop/sa/front\" \
             src.cluster=\"Kubernetes\" dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080 \
             dst.service=\"cart.shop.svc.cluster.local\" dst.workload=\"cart-5c\" dst.namespace=\"shop\" \
             dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\" direction=\"outbound\" bytes_sent=84 \
             bytes_recv=358 duration=\"12ms\"\n"
        );
    }

    #[test]
    fn json_says_the_same_and_stays_one_line() {
        let hostile = Record { error: Some("a \"b\"\n\\\u{1}".to_owned()), ..record() };
        assert_eq!(
            hostile.line(Format::Json, "T"),
            "{\"level\":\"error\",\"time\":\"T\",\"scope\":\"access\",\"message\":\"connection complete\",\
             \"src.addr\":\"10.0.0.1:40000\",\"src.workload\":\"front-7d\",\"src.namespace\":\"shop\",\
             \"src.identity\":\"spiffe://cluster.local/ns/shop/sa/front\",\"src.cluster\":\"Kubernetes\",\
             \"dst.addr\":\"10.0.0.2:15008\",\"dst.hbone_addr\":\"10.0.0.2:8080\",\
             \"dst.service\":\"cart.shop.svc.cluster.local\",\"dst.workload\":\"cart-5c\",\
             \"dst.namespace\":\"shop\",\"dst.identity\":\"spiffe://cluster.local/ns/shop/sa/cart\",\
             \"direction\":\"outbound\",\"bytes_sent\":84,\"bytes_recv\":358,\"duration\":\"12ms\",\
             \"error\":\"a \\\"b\\\"\\n\\\\\\u0001\"}\n"
        );
    }

    #[test]
    fn an_early_line_names_only_addresses_direction_and_error() {
        let refused = Record { direction: Direction::Inbound, error: Some("no".into()), ..record() };
        assert_eq!(
            refused.early(Format::Text, "T"),
            "T\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:40000 dst.addr=10.0.0.2:15008 \
             direction=\"inbound\" error=\"no\"\n"
        );
    }
}
