//! A pod, what is wanted of it, and the network that CNI made for it.
//!
//! Invariant: plain data; nothing here changes a pod.

use std::{net::IpAddr, sync::Arc};

use ambit_netns::NetNs;
use ambit_redirect::Probe;

use super::stage::Wanted;

/// The operator's description of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Kubernetes `metadata.uid`.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Service account name.
    pub service_account: String,
    /// Addresses; empty until the pod has them.
    pub ips: Vec<IpAddr>,
    /// Whether inbound plaintext is redirected to the proxy.
    pub inbound: Inbound,
    /// It was wanted in the mesh before it had a network, so anything it does before enrollment
    /// bypasses every policy.
    pub wanted_from_start: bool,
    /// What the kubelet may send to it without authorization.
    pub probes: Vec<Probe>,
    /// Devices whose inbound traffic counts as the pod's own outbound traffic (annotation
    /// `istio.io/reroute-virtual-interfaces`).
    pub rerouted: Vec<String>,
}

/// Handling of inbound plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Redirected to the proxy.
    Captured,
    /// Goes directly to the pod (annotation `ambient.istio.io/bypass-inbound-capture`).
    Bypassed,
}

/// The wanted state of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The target of its state machine.
    pub wanted: Wanted,
}

/// The pod network that a CNI ADD has just created.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its network namespace.
    pub netns: Arc<NetNs>,
    /// Its addresses, which the operator does not know yet.
    pub ips: Vec<IpAddr>,
}
