//! The certificate authority service: authentication, authorization and issuing.
//!
//! Invariant: a node obtains identities only of pods bound to it, other callers only their own. No
//! certificate is issued for another trust domain, and a waypoint's identity only to its own pods.
//! A rejected client does not learn the reason.

pub(crate) mod authenticate;
pub(crate) mod authorize;
mod ledger;
mod rate;
pub(crate) mod server;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ambit_identity::Authority;
use ambit_index::{Index, PodIdentity};
use ambit_model::NamespacedName;
use tokio::sync::watch;

pub(crate) use authenticate::{Authenticator, Caller, CallerMetrics, CallerPod, KubeReviewer};
pub(crate) use server::{CaMetrics, CertificateService};

/// The signing authority and its terms.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// The mesh's CA.
    pub authority: Arc<Authority>,
    /// The only trust domain that it signs for.
    pub trust_domain: Arc<str>,
    /// Longest lifetime of a workload's certificate, and the default.
    pub certificate_ttl: Duration,
}

/// The current issuer; `None` until trust is established.
pub(crate) type IssuerWatch = watch::Receiver<Option<Arc<Issuer>>>;

/// Lookup of pods and their nodes.
pub(crate) trait NodePods: Send + Sync + 'static {
    /// A pod by name.
    fn pod(&self, name: &NamespacedName) -> Option<PodIdentity>;
    /// A pod by Kubernetes uid.
    fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity>;
    /// Whether a running pod with this service account is bound to the node.
    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool;
    /// Pods of the node that are annotated as redirected.
    fn redirected_on(&self, node: &str) -> Vec<PodIdentity>;
    /// The uid of the Node object, which changes when the node registers again.
    fn node_uid(&self, node: &str) -> Option<Arc<str>>;
    /// The waypoint that a pod belongs to, by its labels, its account and its Deployment.
    fn waypoint_of(&self, pod: &NamespacedName) -> Option<NamespacedName>;
    /// The waypoint that uses this service account.
    fn waypoint_of_account(&self, namespace: &str, service_account: &str) -> Option<NamespacedName>;
}

impl NodePods for RwLock<Index> {
    fn pod(&self, name: &NamespacedName) -> Option<PodIdentity> {
        self.read().unwrap_or_else(PoisonError::into_inner).pod(name)
    }

    fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity> {
        self.read().unwrap_or_else(PoisonError::into_inner).pod_by_uid(uid)
    }

    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let index = self.read().unwrap_or_else(PoisonError::into_inner);
        index.pods_on(node).any(|pod| {
            !pod.terminated && &*pod.name.namespace == namespace && &*pod.service_account == service_account
        })
    }

    fn redirected_on(&self, node: &str) -> Vec<PodIdentity> {
        let index = self.read().unwrap_or_else(PoisonError::into_inner);
        let redirected = |pod: &PodIdentity| index.enrollment(&pod.uid).is_some_and(|e| e.redirected);
        index.pods_on(node).filter(redirected).collect()
    }

    fn node_uid(&self, node: &str) -> Option<Arc<str>> {
        self.read().unwrap_or_else(PoisonError::into_inner).node_uid(node)
    }

    fn waypoint_of(&self, pod: &NamespacedName) -> Option<NamespacedName> {
        self.read().unwrap_or_else(PoisonError::into_inner).waypoint_of_pod(pod).cloned()
    }

    fn waypoint_of_account(&self, namespace: &str, service_account: &str) -> Option<NamespacedName> {
        let index = self.read().unwrap_or_else(PoisonError::into_inner);
        index.waypoint_of_account(namespace, service_account)
    }
}
