//! The names of all objects that the operator creates.

pub(crate) use ambit_model::{HEALTH_PORT, METRICS_PORT};

/// Namespace of the mesh's own parts.
pub(crate) const NAMESPACE: &str = ambit_api::labels::SYSTEM_NAMESPACE;
/// The operator: Deployment, Service, ServiceAccount, ClusterRole and Lease.
pub(crate) const OPERATOR: &str = "ambit-operator";
/// The node agent: DaemonSet and ServiceAccount.
pub(crate) const NODE_AGENT: &str = "ambit-node-agent";
/// The node proxy: DaemonSet and ServiceAccount.
pub(crate) const ZTUNNEL: &str = "ztunnel";
/// The L7 proxy: container of each waypoint's pods.
pub(crate) const WAYPOINT: &str = "waypoint";
/// ConfigMap of the trusted roots.
pub(crate) const ROOTS: &str = "istio-ca-root-cert";
/// Key in [`ROOTS`].
pub(crate) const ROOTS_KEY: &str = "root-cert.pem";
/// Secret of the self-signed authority.
pub(crate) const CA_SECRET: &str = "ambit-ca";
/// Audience of the tokens that agents send.
pub(crate) const TOKEN_AUDIENCE: &str = "istio-ca";
/// Port of discovery, certificates and reports.
pub(crate) const DISCOVERY_PORT: u16 = 15012;
/// Port of `/healthz/ready` of the node agent, which shares the node's ports.
pub(crate) const NODE_AGENT_HEALTH_PORT: u16 = 15023;
/// Port of `/metrics` of the node agent, which shares the node's ports.
pub(crate) const NODE_AGENT_METRICS_PORT: u16 = 15022;
/// Version of all parts.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
