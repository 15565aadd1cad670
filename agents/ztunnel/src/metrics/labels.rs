//! The labels of the `istio_tcp_*` metrics.
//!
//! Invariant: names, order and values are Istio's; what is not known is written `unknown`.

use std::{fmt::Write as _, sync::Arc};

use ambit_model::{NamespacedName, Spiffe, Workload};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder};

/// Stands for what is not known.
const UNKNOWN: &str = "unknown";
/// Stands for every value once there are too many series.
const OTHER: &str = "other";

/// Which end of the connection counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

/// What went wrong, as Istio abbreviates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResponseFlags {
    /// Nothing.
    #[default]
    None,
    /// Policy refused it.
    Deny,
    /// The other end could not be reached.
    Connect,
    /// TLS failed.
    TlsFailure,
    /// TLS was fine, HTTP/2 was not.
    H2Handshake,
    /// The tunnel port did not answer at all.
    NetworkPolicy,
    /// The peer is not who it should be, or no certificate is to be had.
    Identity,
}

/// How the connection is protected on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Not by the mesh.
    Unknown,
    /// mTLS.
    MutualTls,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct End {
    /// Controller's name.
    pub workload: Option<Arc<str>>,
    /// Canonical service, also the `app` label.
    pub canonical_service: Option<Arc<str>>,
    /// Canonical revision, also the `version` label.
    pub canonical_revision: Option<Arc<str>>,
    /// Namespace.
    pub namespace: Option<Arc<str>>,
    /// Identity, only when mTLS proved it.
    pub principal: Option<Spiffe>,
    /// Cluster.
    pub cluster: Option<Arc<str>>,
    /// Region.
    pub region: Option<Arc<str>>,
    /// Zone.
    pub zone: Option<Arc<str>>,
}

impl End {
    /// Everything the mesh knows about a workload; the principal is the caller's to prove.
    pub fn of(workload: &Workload, principal: Option<Spiffe>) -> Self {
        Self {
            workload: known(&workload.workload_name),
            canonical_service: known(&workload.canonical_name),
            canonical_revision: known(&workload.canonical_revision),
            namespace: known(&workload.namespace),
            principal,
            cluster: known(&workload.cluster_id),
            region: known(&workload.locality.region),
            zone: known(&workload.locality.zone),
        }
    }
}

fn known(text: &Arc<str>) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.clone())
}

/// The label set of one series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Who counts.
    pub reporter: Reporter,
    /// The client.
    pub source: End,
    /// The server.
    pub destination: End,
    /// The service the client asked for: namespace and hostname.
    pub service: Option<NamespacedName>,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// Protection on the wire.
    pub security: Security,
}

impl Labels {
    /// The series that takes what does not fit into [`super::SERIES_MAX`] others.
    pub fn overflow(reporter: Reporter) -> Self {
        let end = End { workload: Some(OTHER.into()), ..End::default() };
        Self { source: end.clone(), destination: end, ..Self::unknown(reporter) }
    }

    /// A connection about which nothing is known.
    pub fn unknown(reporter: Reporter) -> Self {
        Self {
            reporter,
            source: End::default(),
            destination: End::default(),
            service: None,
            flags: ResponseFlags::None,
            security: Security::Unknown,
        }
    }

    /// Host, namespace and first part of the host of the service.
    fn service_labels(&self) -> (&str, &str, &str) {
        self.service.as_ref().map_or((UNKNOWN, UNKNOWN, UNKNOWN), |service| {
            let name = service.name.split('.').next().unwrap_or(&service.name);
            (&service.name, &service.namespace, name)
        })
    }
}

impl Reporter {
    /// As the label writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl ResponseFlags {
    /// As the label writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2Handshake => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::Identity => "IDENTITY_ERROR",
        }
    }
}

impl Security {
    /// As the label writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => UNKNOWN,
            Self::MutualTls => "mutual_tls",
        }
    }
}

fn or_unknown(value: &Option<Arc<str>>) -> &str {
    value.as_deref().unwrap_or(UNKNOWN)
}

/// Writes an identity without allocating.
struct Principal<'a>(&'a Option<Spiffe>);

impl EncodeLabelValue for Principal<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        match self.0 {
            Some(id) => write!(encoder, "{id}"),
            None => encoder.write_str(UNKNOWN),
        }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (source, destination) = (&self.source, &self.destination);
        let (service, service_namespace, service_name) = self.service_labels();
        let mut put = |name: &str, value: &str| (name, value).encode(encoder.encode_label());
        put("reporter", self.reporter.as_str())?;
        put("source_workload", or_unknown(&source.workload))?;
        put("source_canonical_service", or_unknown(&source.canonical_service))?;
        put("source_canonical_revision", or_unknown(&source.canonical_revision))?;
        put("source_workload_namespace", or_unknown(&source.namespace))?;
        ("source_principal", Principal(&source.principal)).encode(encoder.encode_label())?;
        let mut put = |name: &str, value: &str| (name, value).encode(encoder.encode_label());
        put("source_app", or_unknown(&source.canonical_service))?;
        put("source_version", or_unknown(&source.canonical_revision))?;
        put("source_cluster", or_unknown(&source.cluster))?;
        put("destination_service", service)?;
        put("destination_service_namespace", service_namespace)?;
        put("destination_service_name", service_name)?;
        put("destination_workload", or_unknown(&destination.workload))?;
        put("destination_canonical_service", or_unknown(&destination.canonical_service))?;
        put("destination_canonical_revision", or_unknown(&destination.canonical_revision))?;
        put("destination_workload_namespace", or_unknown(&destination.namespace))?;
        ("destination_principal", Principal(&destination.principal)).encode(encoder.encode_label())?;
        let mut put = |name: &str, value: &str| (name, value).encode(encoder.encode_label());
        put("destination_app", or_unknown(&destination.canonical_service))?;
        put("destination_version", or_unknown(&destination.canonical_revision))?;
        put("destination_cluster", or_unknown(&destination.cluster))?;
        put("request_protocol", "tcp")?;
        put("response_flags", self.flags.as_str())?;
        put("connection_security_policy", self.security.as_str())?;
        put("source_region", or_unknown(&source.region))?;
        put("source_zone", or_unknown(&source.zone))?;
        put("destination_region", or_unknown(&destination.region))?;
        put("destination_zone", or_unknown(&destination.zone))
    }
}
