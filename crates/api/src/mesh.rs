//! `Mesh`: what a user may ask of the mesh. Every default works, so `spec: {}` is a complete L4 mesh.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a constant")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod providers;
mod status;
mod waypoints;

pub use providers::{ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, RequestBodyInCheck};
pub use status::{
    MeshStatus, NodesStatus, TrustPhase, TrustRoot, TrustStatus, WaypointsStatus, WorkloadsStatus,
};
pub use waypoints::{FailurePolicy, Replicas, Waypoints};

/// What the mesh should be. `{}` is a complete mesh: mutual TLS for every enrolled pod, an authority of its own.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "ambit.dev",
    version = "v1alpha1",
    kind = "Mesh",
    plural = "meshes",
    singular = "mesh",
    category = "ambit",
    derive = "PartialEq",
    status = "MeshStatus",
    doc = "The service mesh of this cluster. There is one, named default; deleting it takes the mesh off every node.",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one Mesh in a cluster and its name is default"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "mTLS", type_ = "string", json_path = ".spec.mtls"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes.summary"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.workloads.enrolled"),
    printcolumn(name = "Trust", type_ = "string", json_path = ".status.trust.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Waypoints", type_ = "integer", priority = 1, json_path = ".status.waypoints.ready"),
    printcolumn(name = "Reason", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Ready')].reason")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshSpec {
    /// Whether enrolled pods still take plaintext from clients outside the mesh. A PeerAuthentication refines it.
    #[serde(default)]
    pub mtls: Mtls,
    /// Identities and who vouches for them.
    #[serde(default)]
    pub trust: Trust,
    /// Which pods may be enrolled. Pods and namespaces opt in by the label `istio.io/dataplane-mode: ambient`.
    #[serde(default)]
    pub enrollment: Enrollment,
    /// The agents that run on every node.
    #[serde(default)]
    pub data_plane: DataPlane,
    /// The L7 proxies. Namespaces and services opt in by the label `istio.io/use-waypoint: <name of a Gateway>`.
    #[serde(default)]
    pub waypoints: Waypoints,
    /// What the mesh tells about the traffic.
    #[serde(default)]
    pub observability: Observability,
    /// Whom AuthorizationPolicies of action CUSTOM may ask about requests, by `provider.name` (Istio's extensionProviders). Waypoints ask them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extension_providers: Vec<ExtensionProvider>,
}

/// Whether plaintext is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mtls {
    /// Mutual TLS between enrolled pods; plaintext from others is taken too.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// Identities and who vouches for them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Trust {
    /// First part of every identity: spiffe://<domain>/ns/<namespace>/sa/<service account>. It cannot change once certificates were issued.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"))]
    pub domain: String,
    /// Other names of the trust domain. A policy that names one of them, the domain, or cluster.local means them all;
    /// certificates are issued in the domain alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"))
    )]
    pub aliases: Vec<String>,
    /// How long the certificate of a workload lives, 10m to 90d. Proxies renew at half of it.
    #[serde(rename = "certificateTTL")]
    #[schemars(regex(pattern = r"^([0-9]+[dhms])+$"))]
    pub certificate_ttl: String,
    /// The certificate authority: at most one of selfSigned and secret; selfSigned when neither is given.
    pub ca: CertificateAuthority,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            aliases: Vec::new(),
            certificate_ttl: "24h".into(),
            ca: CertificateAuthority::default(),
        }
    }
}

/// The certificate authority: at most one of its fields; none is `selfSigned`.
// No default is stored for `selfSigned`: it would stand beside a `secret` that is applied later.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.selfSigned) && has(self.secret))").message("give at most one of selfSigned and secret"))]
pub struct CertificateAuthority {
    /// The operator makes a root of its own and keeps it in the Secret ambit-ca of namespace ambit-system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// An authority that you bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<CaSecret>,
}

/// A root that the operator makes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SelfSigned {
    /// How long the root lives, at least 30d. Read when the root is made.
    #[serde(rename = "rootTTL")]
    #[schemars(regex(pattern = r"^([0-9]+[dhms])+$"))]
    pub root_ttl: String,
}

impl Default for SelfSigned {
    fn default() -> Self {
        Self { root_ttl: "3650d".into() }
    }
}

/// An authority kept in a Secret.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaSecret {
    /// Name of a Secret in namespace ambit-system: ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem, or tls.crt, tls.key and ca.crt.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Which pods may be enrolled.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Enrollment {
    /// Namespaces that are never enrolled, whatever their labels say.
    #[schemars(length(max = 1000))]
    pub exclude_namespaces: Vec<String>,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self { exclude_namespaces: vec!["kube-system".into()] }
    }
}

/// The agents that run on every node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataPlane {
    /// The node proxy.
    pub ztunnel: Agent,
    /// The agent that enrolls pods.
    pub node_agent: Agent,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Agent {
    /// What its container asks for and may use.
    pub resources: Resources,
    /// What it logs: error, warn, info, debug or trace, or a filter such as info,ambit_xds=debug.
    #[schemars(length(min = 1, max = 1000))]
    pub log_level: String,
}

impl Default for Agent {
    fn default() -> Self {
        Self { resources: Resources::default(), log_level: "info".into() }
    }
}

/// Compute resources of a container. Left out means the mesh's own requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler keeps free for it, for example {cpu: 100m, memory: 128Mi}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<BTreeMap<String, String>>,
    /// What it may use at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, String>>,
}

/// What the mesh tells about the traffic.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// Which connections ztunnels log, and which requests waypoints do.
    pub access_log: AccessLog,
    /// Where waypoints send spans. Left out, they send none, and pass on the trace context of requests all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
}

/// Where waypoints send spans.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// A collector that takes OTLP over gRPC: http://host:port.
    #[schemars(length(max = 1000), regex(pattern = r"^http://[^/]+$"))]
    pub endpoint: String,
    /// Of the traces that begin at a waypoint, how many percent are sampled. A trace that a client began is sampled as the client says.
    #[serde(default = "sampling")]
    #[schemars(range(min = 0, max = 100))]
    pub sampling: i32,
}

/// One trace in a hundred.
fn sampling() -> i32 {
    1
}

/// Which connections are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AccessLog {
    /// No connection. (Not `Off`: YAML 1.1 reads that word as a boolean.)
    None,
    /// Those that failed or were refused.
    Errors,
    /// Every one, when it ends.
    #[default]
    All,
}

impl AccessLog {
    /// The word, as ztunnel and the waypoint read it from AMBIT_ACCESS_LOG.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "Off",
            Self::Errors => "Errors",
            Self::All => "All",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_spec_is_the_default_spec() {
        let empty: MeshSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, MeshSpec::default());
        assert_eq!(empty.trust.domain, "cluster.local");
        assert_eq!(empty.enrollment.exclude_namespaces, ["kube-system"]);
        assert!(empty.trust.ca.self_signed.is_none() && empty.trust.ca.secret.is_none());
        let waypoints = empty.waypoints;
        assert_eq!((waypoints.auto_create, waypoints.failure_policy), (true, FailurePolicy::Closed));
        assert_eq!((waypoints.replicas.min, waypoints.replicas.max), (2, 5));
        assert_eq!(empty.observability.tracing, None);
    }

    #[test]
    fn naming_a_secret_leaves_no_self_signed_root_beside_it() {
        let spec: MeshSpec =
            serde_json::from_str(r#"{"trust":{"ca":{"secret":{"name":"cacerts"}}}}"#).unwrap();
        assert_eq!(spec.trust.ca.secret, Some(CaSecret { name: "cacerts".into() }));
        assert_eq!(spec.trust.ca.self_signed, None);
    }
}
