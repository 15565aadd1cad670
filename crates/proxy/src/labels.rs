//! The labels that metrics of requests and of connections share: both ends, and the service.
//!
//! Invariant: names and order are Istio's.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use ambit_model::{NamespacedName, Spiffe, Workload};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder};

/// Written for what is not known.
pub const UNKNOWN: &str = "unknown";

/// One end of a connection or request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct End {
    /// Name of the controller.
    pub workload: Option<Arc<str>>,
    /// Canonical service, also the `app` label.
    pub canonical_service: Option<Arc<str>>,
    /// Canonical revision, also the `version` label.
    pub canonical_revision: Option<Arc<str>>,
    /// Namespace.
    pub namespace: Option<Arc<str>>,
    /// Identity, if mTLS proved it.
    pub principal: Option<Spiffe>,
    /// Cluster.
    pub cluster: Option<Arc<str>>,
}

impl End {
    /// Of a workload, as far as it is known, and the identity that it proved.
    pub fn new(workload: Option<&Workload>, principal: Option<Spiffe>) -> Self {
        let known =
            |field: fn(&Workload) -> &Arc<str>| workload.map(field).filter(|text| !text.is_empty()).cloned();
        let namespace = known(|workload| &workload.namespace);
        Self {
            workload: known(|workload| &workload.workload_name),
            canonical_service: known(|workload| &workload.canonical_name),
            canonical_revision: known(|workload| &workload.canonical_revision),
            namespace: namespace.or_else(|| principal.as_ref().map(|id| id.namespace.clone())),
            cluster: known(|workload| &workload.cluster_id),
            principal,
        }
    }

    /// Encodes its labels under the names of that side.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn encode(
        &self,
        encoder: &mut LabelSetEncoder<'_>,
        names: EndNames,
        absent: &'static str,
    ) -> Result<(), fmt::Error> {
        let [workload, service, revision, namespace, principal, app, version, cluster] = names;
        for (name, value) in [
            (workload, &self.workload),
            (service, &self.canonical_service),
            (revision, &self.canonical_revision),
            (namespace, &self.namespace),
        ] {
            (name, OrElse(value.as_ref(), absent)).encode(encoder.encode_label())?;
        }
        (principal, OrElse(self.principal.as_ref(), absent)).encode(encoder.encode_label())?;
        for (name, value) in
            [(app, &self.canonical_service), (version, &self.canonical_revision), (cluster, &self.cluster)]
        {
            (name, OrElse(value.as_ref(), absent)).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// The names of the labels of one end.
pub type EndNames = [&'static str; 8];

/// Names for the client.
pub const SOURCE: EndNames = [
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
];
/// Names for the server.
pub const DESTINATION: EndNames = [
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
];
const SERVICE: [&str; 3] =
    ["destination_service", "destination_service_namespace", "destination_service_name"];

/// Encodes hostname, namespace and name of the service that the client addressed.
///
/// # Errors
/// Those of the encoder.
pub fn encode_service(
    encoder: &mut LabelSetEncoder<'_>,
    service: Option<&NamespacedName>,
    absent: &'static str,
) -> Result<(), fmt::Error> {
    let values = match service {
        None => [None; 3],
        Some(service) => [Some(&*service.name), Some(&*service.namespace), service.name.split('.').next()],
    };
    for (name, value) in SERVICE.into_iter().zip(values) {
        (name, value.unwrap_or(absent)).encode(encoder.encode_label())?;
    }
    Ok(())
}

/// Encodes a value without allocating; the second field is written if there is none.
#[derive(Clone, Copy, Debug)]
pub struct OrElse<'a, T: ?Sized>(pub Option<&'a T>, pub &'static str);

impl<T: fmt::Display + ?Sized> EncodeLabelValue for OrElse<'_, T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        match self.0 {
            Some(value) => write!(encoder, "{value}"),
            None => encoder.write_str(self.1),
        }
    }
}
