//! `Mesh`: the desired configuration of the mesh. Every default works, so `spec: {}` is a complete L4 mesh.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a constant")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::labels;

mod providers;
mod resources;
mod status;
mod waypoints;

pub use providers::{ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, RequestBodyInCheck};
pub use resources::Resources;
pub use status::{
    MeshStatus, NodesStatus, TrustPhase, TrustRoot, TrustStatus, WaypointsStatus, WorkloadsStatus,
};
pub use waypoints::{FailurePolicy, Replicas, Waypoints};

/// Desired state of the mesh. `{}` is a complete mesh: mutual TLS for every enrolled pod, with a certificate authority of its own.
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
    /// Whether enrolled pods accept plaintext from clients outside the mesh. A PeerAuthentication can override it.
    #[serde(default)]
    pub mtls: Mtls,
    /// Trust domain, certificates and certificate authority.
    #[serde(default)]
    pub trust: Trust,
    /// Which pods may be enrolled. Pods and namespaces opt in with the label `istio.io/dataplane-mode: ambient`.
    #[serde(default)]
    pub enrollment: Enrollment,
    /// The agents that run on every node.
    #[serde(default)]
    pub data_plane: DataPlane,
    /// The L7 proxies. Namespaces and services opt in with the label `istio.io/use-waypoint: <name of a Gateway>`.
    #[serde(default)]
    pub waypoints: Waypoints,
    /// Settings for security policies.
    #[serde(default)]
    pub policy: PolicySettings,
    /// Access logs and traces.
    #[serde(default)]
    pub observability: Observability,
    /// External authorization providers that an AuthorizationPolicy with action CUSTOM names in `provider.name` (Istio's extensionProviders). Waypoints call them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extension_providers: Vec<ExtensionProvider>,
}

/// Whether plaintext is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mtls {
    /// Mutual TLS between enrolled pods; plaintext from other clients is accepted too.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// Trust domain, certificates and certificate authority.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Trust {
    /// Trust domain, the first part of every identity: spiffe://<domain>/ns/<namespace>/sa/<service account>. It cannot change once certificates have been issued.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"))]
    pub domain: String,
    /// Aliases of the trust domain. In policies, each of them, the domain and cluster.local mean the same; certificates are issued in the domain only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"))
    )]
    pub aliases: Vec<String>,
    /// Lifetime of a workload certificate, 10m to 90d. Proxies renew it after half of that time.
    #[serde(rename = "certificateTTL")]
    #[schemars(regex(pattern = crate::duration::PATTERN))]
    pub certificate_ttl: String,
    /// The certificate authority: at most one of selfSigned and secret. Defaults to selfSigned.
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

/// The certificate authority: at most one of its fields. Defaults to selfSigned.
// No default is stored for `selfSigned`: the stored value would conflict with a `secret` that is applied later.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.selfSigned) && has(self.secret))").message("give at most one of selfSigned and secret"))]
pub struct CertificateAuthority {
    /// The operator creates a root certificate and keeps it in the Secret ambit-ca in namespace ambit-system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// A certificate authority that you provide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<CaSecret>,
}

/// A root certificate that the operator creates.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SelfSigned {
    /// Lifetime of the root certificate, at least 30d. It is read only when the root is created.
    #[serde(rename = "rootTTL")]
    #[schemars(regex(pattern = crate::duration::PATTERN))]
    pub root_ttl: String,
}

impl Default for SelfSigned {
    fn default() -> Self {
        Self { root_ttl: "3650d".into() }
    }
}

/// A certificate authority in a Secret.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaSecret {
    /// Name of a Secret in namespace ambit-system. It holds either ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem, or tls.crt, tls.key and ca.crt.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Which pods may be enrolled.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Enrollment {
    /// Namespaces that are never enrolled, regardless of their labels.
    #[schemars(length(max = 1000))]
    pub exclude_namespaces: Vec<String>,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self { exclude_namespaces: vec!["kube-system".into()] }
    }
}

/// Settings for security policies.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySettings {
    /// Policies in this namespace apply to the whole mesh, in addition to those in ambit-system (Istio's rootNamespace).
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub root_namespace: String,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self { root_namespace: labels::ISTIO_ROOT_NAMESPACE.into() }
    }
}

/// The agents that run on every node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataPlane {
    /// The L4 proxy of each node.
    pub ztunnel: Agent,
    /// The agent that enrolls the pods of its node.
    pub node_agent: Agent,
}

/// Settings of an agent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Agent {
    /// Compute resources of its container.
    pub resources: Resources,
    /// Log level: error, warn, info, debug or trace, or a filter such as info,ambit_xds=debug.
    #[schemars(length(min = 1, max = 1000))]
    pub log_level: String,
}

impl Default for Agent {
    fn default() -> Self {
        Self { resources: Resources::default(), log_level: "info".into() }
    }
}

/// Access logs and traces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// Which connections ztunnels log and which requests waypoints log.
    pub access_log: AccessLog,
    /// Format of the log lines of ztunnels, waypoints and node agents.
    pub log_format: LogFormat,
    /// Where waypoints send trace spans. If unset they send none, but still propagate the trace context of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
}

/// Where waypoints send trace spans.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// A collector that accepts OTLP over gRPC, as http://host:port.
    #[schemars(length(max = 1000), regex(pattern = r"^http://[^/]+$"))]
    pub endpoint: String,
    /// Percentage of traces that are sampled, among those that begin at a waypoint. For other traces the client's sampling decision applies.
    #[serde(default = "sampling")]
    #[schemars(range(min = 0, max = 100))]
    pub sampling: i32,
}

/// One percent: enough to see latencies without burdening the collector.
fn sampling() -> i32 {
    1
}

/// Which connections or requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AccessLog {
    /// None. (Not `Off`: YAML 1.1 reads that word as a boolean.)
    None,
    /// Those that failed or were denied.
    Errors,
    /// All, when they end.
    #[default]
    All,
}

impl AccessLog {
    /// The value of AMBIT_ACCESS_LOG, which ztunnel and the waypoint read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "Off",
            Self::Errors => "Errors",
            Self::All => "All",
        }
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object a line, for collectors of logs.
    Json,
}

impl LogFormat {
    /// The word, as the agents read it from LOG_FORMAT.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
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
        assert_eq!(empty.policy.root_namespace, "istio-system");
    }

    #[test]
    fn naming_a_secret_leaves_no_self_signed_root_beside_it() {
        let spec: MeshSpec =
            serde_json::from_str(r#"{"trust":{"ca":{"secret":{"name":"cacerts"}}}}"#).unwrap();
        assert_eq!(spec.trust.ca.secret, Some(CaSecret { name: "cacerts".into() }));
        assert_eq!(spec.trust.ca.self_signed, None);
    }
}
