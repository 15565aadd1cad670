//! The settings of the `Mesh` that the model depends on.

use std::{collections::BTreeSet, sync::Arc};

use ambit_api::{
    labels,
    mesh::{ExtensionProvider, FailurePolicy},
};
use ambit_model::{DEFAULT_TRUST_DOMAIN, Mode};

/// Whether there is a Mesh object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// No Mesh object: no pod is enrolled.
    #[default]
    Absent,
    /// A Mesh object.
    Present,
    /// The Mesh object is being deleted: all pods leave the mesh, and nodes remove every trace of
    /// it.
    Leaving,
}

/// Inputs of the model in addition to objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is a Mesh object.
    pub presence: Presence,
    /// Namespace of the mesh itself, which is never enrolled.
    pub system_namespace: Arc<str>,
    /// Namespaces whose policies apply to the whole mesh: its own, and `spec.policy.rootNamespace`.
    pub root_namespaces: BTreeSet<Arc<str>>,
    /// Cluster id, first part of every workload uid.
    pub cluster_id: Arc<str>,
    /// DNS domain of services.
    pub cluster_domain: Arc<str>,
    /// Current trust domain.
    pub trust_domain: Arc<str>,
    /// `spec.trust.aliases`.
    pub trust_aliases: Vec<Arc<str>>,
    /// `spec.mtls`.
    pub mtls: Mode,
    /// `spec.enrollment.excludeNamespaces`.
    pub exclude_namespaces: BTreeSet<Arc<str>>,
    /// `spec.waypoints.failurePolicy`.
    pub failure_policy: FailurePolicy,
    /// `spec.extensionProviders`.
    pub extension_providers: Vec<ExtensionProvider>,
    /// `spec.waypoints.numTrustedProxies`.
    pub trusted_proxies: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            presence: Presence::Absent,
            system_namespace: labels::SYSTEM_NAMESPACE.into(),
            root_namespaces: [labels::SYSTEM_NAMESPACE, labels::ISTIO_ROOT_NAMESPACE].map(Into::into).into(),
            cluster_id: "Kubernetes".into(),
            cluster_domain: "cluster.local".into(),
            trust_domain: DEFAULT_TRUST_DOMAIN.into(),
            trust_aliases: Vec::new(),
            mtls: Mode::Permissive,
            exclude_namespaces: BTreeSet::from(["kube-system".into()]),
            failure_policy: FailurePolicy::Closed,
            extension_providers: Vec::new(),
            trusted_proxies: None,
        }
    }
}
