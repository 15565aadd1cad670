//! Labels of the `istio_tcp_*` metrics.
//!
//! Invariant: names, order and values are Istio's; a missing value is `unknown`.

use std::sync::Arc;

use ambit_model::{NamespacedName, Spiffe, Workload};
use ambit_proxy::labels::{self, DESTINATION, SOURCE, UNKNOWN, encode_service};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

/// Value of all labels in the overflow series.
const OTHER: &str = "other";

/// Which end of the connection reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

/// The failure, as Istio abbreviates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResponseFlags {
    /// No failure.
    #[default]
    None,
    /// Denied by policy.
    Deny,
    /// The other end could not be reached.
    Connect,
    /// The TLS handshake failed.
    TlsFailure,
    /// TLS succeeded, but HTTP/2 failed.
    H2Handshake,
    /// Connecting to the tunnel port timed out.
    NetworkPolicy,
    /// The peer has an unexpected identity, or no certificate is available.
    Identity,
}

/// How the mesh protects the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Not protected by the mesh.
    Unknown,
    /// mTLS.
    MutualTls,
}

/// One end of a connection, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct End {
    /// As for requests.
    pub end: labels::End,
    /// Region.
    pub region: Option<Arc<str>>,
    /// Zone.
    pub zone: Option<Arc<str>>,
}

impl End {
    /// Of a workload, as far as it is known, and the identity that it proved.
    pub fn new(workload: Option<&Workload>, principal: Option<Spiffe>) -> Self {
        let known = |text: &Arc<str>| (!text.is_empty()).then(|| text.clone());
        Self {
            end: labels::End::new(workload, principal),
            region: workload.and_then(|workload| known(&workload.locality.region)),
            zone: workload.and_then(|workload| known(&workload.locality.zone)),
        }
    }
}

/// The label set of one series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    /// The reporting end.
    pub reporter: Reporter,
    /// The client.
    pub source: End,
    /// The server.
    pub destination: End,
    /// The requested service: namespace and hostname.
    pub service: Option<NamespacedName>,
    /// The failure.
    pub flags: ResponseFlags,
    /// Protection by the mesh.
    pub security: Security,
}

impl Labels {
    /// The series for everything beyond [`super::SERIES_MAX`] others.
    pub fn overflow(reporter: Reporter) -> Self {
        let other = labels::End { workload: Some(OTHER.into()), ..labels::End::default() };
        let end = End { end: other, ..End::default() };
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
}

impl Reporter {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl ResponseFlags {
    /// The value of the label.
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
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => UNKNOWN,
            Self::MutualTls => "mutual_tls",
        }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (source, destination) = (&self.source, &self.destination);
        ("reporter", self.reporter.as_str()).encode(encoder.encode_label())?;
        source.end.encode(encoder, SOURCE, UNKNOWN)?;
        encode_service(encoder, self.service.as_ref(), UNKNOWN)?;
        destination.end.encode(encoder, DESTINATION, UNKNOWN)?;
        for (name, value) in [
            ("request_protocol", "tcp"),
            ("response_flags", self.flags.as_str()),
            ("connection_security_policy", self.security.as_str()),
            ("source_region", or_unknown(&source.region)),
            ("source_zone", or_unknown(&source.zone)),
            ("destination_region", or_unknown(&destination.region)),
            ("destination_zone", or_unknown(&destination.zone)),
        ] {
            (name, value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

fn or_unknown(value: &Option<Arc<str>>) -> &str {
    value.as_deref().unwrap_or(UNKNOWN)
}
