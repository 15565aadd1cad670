//! Certificates for those who may have them: who asks, what for, and the answer.
//!
//! Invariant: a node obtains identities of pods bound to it, everybody else only its own, nobody one of another trust
//! domain, and nobody but a waypoint's own pods that of the waypoint. A refused client learns nothing but that it was refused.

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

/// Who signs, and on which terms.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// The mesh's CA.
    pub authority: Arc<Authority>,
    /// The only trust domain it signs for.
    pub trust_domain: Arc<str>,
    /// Longest life of a workload's certificate, and what a client gets that names none.
    pub certificate_ttl: Duration,
}

/// The issuer in force; none until trust is established.
pub(crate) type IssuerWatch = watch::Receiver<Option<Arc<Issuer>>>;

/// Which pods exist and where they are bound.
pub(crate) trait NodePods: Send + Sync + 'static {
    /// A pod by name.
    fn pod(&self, name: &NamespacedName) -> Option<PodIdentity>;
    /// A pod by Kubernetes uid.
    fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity>;
    /// Whether some pod of this service account is bound to the node and has not ended.
    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool;
    /// Pods of the node that are marked as redirected.
    fn redirected_on(&self, node: &str) -> Vec<PodIdentity>;
    /// The uid of the node's object: another one once the node has registered again.
    fn node_uid(&self, node: &str) -> Option<Arc<str>>;
    /// The waypoint that a pod is of, by its labels, its account and its Deployment.
    fn waypoint_of(&self, pod: &NamespacedName) -> Option<NamespacedName>;
    /// The waypoint whose identity a service account is.
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
