//! One line for each connection.
//!
//! Invariant: a record of a connection that was refused early has addresses only.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ambit_model::{Spiffe, Workload};
use ambit_proxy::access_log::{self, Line, Severity, Value};

use crate::error::Error;

/// Direction from the point of view of the proxy's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The pod is the client.
    Outbound,
    /// The pod is the server.
    Inbound,
}

/// One end of the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    /// Address on the network.
    pub addr: Option<SocketAddr>,
    /// Name of the pod.
    pub workload: Option<Arc<str>>,
    /// Namespace of the pod.
    pub namespace: Option<Arc<str>>,
    /// Identity, only if proven by mTLS.
    pub identity: Option<Spiffe>,
    /// Id of the cluster.
    pub cluster: Option<Arc<str>>,
}

impl End {
    /// A pod at `addr`; the caller must have verified its identity.
    pub(crate) fn of(workload: &Workload, addr: SocketAddr, identity: Option<Spiffe>) -> Self {
        Self {
            addr: Some(addr),
            workload: Some(workload.name.clone()),
            namespace: Some(workload.namespace.clone()),
            identity,
            cluster: Some(workload.cluster_id.clone()),
        }
    }
}

/// A finished connection.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The client.
    pub source: End,
    /// The server.
    pub destination: End,
    /// Target of the tunnel.
    pub hbone_addr: Option<Arc<str>>,
    /// Hostname of the requested service.
    pub service: Option<Arc<str>>,
    /// The result of looking up the destination, if it was unknown on this node.
    pub lookup: Option<&'static str>,
    /// Direction of the connection.
    pub direction: Direction,
    /// Bytes sent by the pod.
    pub bytes_sent: u64,
    /// Bytes received by the pod.
    pub bytes_recv: u64,
    /// From accept to end.
    pub duration: Duration,
    /// Why it failed.
    pub error: Option<String>,
}

/// A connection that was refused before more than its addresses was known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused<'a> {
    /// Whose side this is.
    pub direction: Direction,
    /// The client.
    pub client: SocketAddr,
    /// The server, if it could be read.
    pub server: Option<SocketAddr>,
    /// Why.
    pub error: &'a Error,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl Record {
    /// A record with two ends and no other fields.
    pub(crate) fn between(direction: Direction, source: End, destination: End) -> Self {
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
}

impl access_log::Record for Record {
    fn severity(&self) -> Severity {
        if self.error.is_none() { Severity::Info } else { Severity::Error }
    }

    fn message(&self) -> &'static str {
        "connection complete"
    }

    fn fields(&self, line: &mut Line) {
        let (source, destination) = (&self.source, &self.destination);
        source.addr.iter().for_each(|addr| line.put("src.addr", Value::Word(addr)));
        pod(line, ["src.workload", "src.namespace", "src.identity", "src.cluster"], source);
        destination.addr.iter().for_each(|addr| line.put("dst.addr", Value::Word(addr)));
        self.hbone_addr.iter().for_each(|addr| line.put("dst.hbone_addr", Value::Bare(addr)));
        line.text("dst.service", self.service.as_deref());
        pod(line, ["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"], destination);
        line.text("dst.lookup", self.lookup);
        line.put("direction", Value::Text(self.direction.as_str()));
        line.put("bytes_sent", Value::Number(self.bytes_sent));
        line.put("bytes_recv", Value::Number(self.bytes_recv));
        line.put("duration", Value::Millis(self.duration.as_millis()));
        self.error.iter().for_each(|error| line.put("error", Value::Text(error)));
    }
}

impl access_log::Record for Refused<'_> {
    fn severity(&self) -> Severity {
        Severity::Warn
    }

    fn message(&self) -> &'static str {
        "connection failed"
    }

    fn fields(&self, line: &mut Line) {
        line.put("src.addr", Value::Word(&self.client));
        self.server.iter().for_each(|server| line.put("dst.addr", Value::Word(server)));
        line.put("direction", Value::Text(self.direction.as_str()));
        line.put("error", Value::Text(&self.error.to_string()));
    }
}

fn pod(line: &mut Line, [workload, namespace, identity, cluster]: [&str; 4], end: &End) {
    line.text(workload, end.workload.as_deref());
    line.text(namespace, end.namespace.as_deref());
    end.identity.iter().for_each(|id| line.put(identity, Value::Name(id)));
    line.text(cluster, end.cluster.as_deref());
}

#[cfg(test)]
mod tests {
    use ambit_runtime::telemetry::Format;

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
            Line::of(&record(), Format::Text, "T"),
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
            Line::of(&hostile, Format::Json, "T"),
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
        let refused = Refused {
            direction: Direction::Inbound,
            client: "10.0.0.1:40000".parse().unwrap(),
            server: "10.0.0.2:15008".parse().ok(),
            error: &Error::Pool("no".into()),
        };
        assert_eq!(
            Line::of(&refused, Format::Text, "T"),
            "T\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:40000 dst.addr=10.0.0.2:15008 \
             direction=\"inbound\" error=\"no\"\n"
        );
    }
}
