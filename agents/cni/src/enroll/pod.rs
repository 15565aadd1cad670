//! A pod, what is wanted of it, and the network that CNI made for it.
//!
//! Invariant: plain data; nothing here changes a pod.

use std::{net::IpAddr, sync::Arc};

use ambit_netns::NetNs;
use ambit_redirect::Probe;

use super::stage::Wanted;

/// A pod as the operator describes it.
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
    /// Addresses, empty until the pod has them.
    pub ips: Vec<IpAddr>,
    /// Whether plaintext from outside goes to the proxy.
    pub inbound: Inbound,
    /// It was wanted in the mesh before it had a network: what it did outside, it did past every policy.
    pub wanted_from_start: bool,
    /// What the kubelet may send to it unjudged.
    pub probes: Vec<Probe>,
    /// Devices whose inbound traffic is the pod's own (annotation `istio.io/reroute-virtual-interfaces`).
    pub rerouted: Vec<String>,
}

/// What becomes of plaintext from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It goes to the proxy.
    Captured,
    /// It goes to the pod (annotation `ambient.istio.io/bypass-inbound-capture`).
    Bypassed,
}

/// What is wanted of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Where it should be.
    pub wanted: Wanted,
}

/// The network that a CNI ADD just made for a pod.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its namespace.
    pub netns: Arc<NetNs>,
    /// Its addresses, which the operator does not know yet.
    pub ips: Vec<IpAddr>,
}
