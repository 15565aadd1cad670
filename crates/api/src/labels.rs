//! Labels, annotations and values that users and other programs rely on.

/// Label of a namespace or pod: [`AMBIENT`] or [`NONE`].
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Value of [`DATAPLANE_MODE`]: in the mesh.
pub const AMBIENT: &str = "ambient";
/// Value of [`DATAPLANE_MODE`]: out of the mesh.
pub const NONE: &str = "none";
/// Annotation of a pod that a sidecar serves; such a pod is never enrolled.
pub const SIDECAR_STATUS: &str = "sidecar.istio.io/status";
/// Annotation of a pod, written by the operator: [`ENABLED`] while the pod's traffic is redirected.
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Value of [`REDIRECTION`].
pub const ENABLED: &str = "enabled";
/// Annotation of a pod (`"true"`): inbound traffic is not redirected.
pub const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
/// Annotation of an AuthorizationPolicy (`"true"`): judged and logged, not enforced.
pub const DRY_RUN: &str = "istio.io/dry-run";
/// Label of a pod: name of the application for telemetry.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// Label of a pod: version of the application for telemetry.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Recommended Kubernetes label.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Recommended Kubernetes label.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
/// Recommended Kubernetes label; ours says [`FIELD_MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Customary label.
pub const APP: &str = "app";
/// Customary label.
pub const VERSION: &str = "version";
/// Label of a node.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Label of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a node.
pub const SUBZONE: &str = "topology.istio.io/subzone";
/// Label of every object the operator rolls out: the name of the Mesh it belongs to.
pub const MESH: &str = "ambit.dev/mesh";
/// Annotation of a node agent's pod (`"true"`): the agent removed every trace of the mesh from its node.
pub const CLEAN: &str = "ambit.dev/clean";
/// Finalizer of a Mesh.
pub const FINALIZER: &str = "ambit.dev/operator";

/// The namespace of the mesh's own parts; policies in it apply to the whole mesh.
pub const SYSTEM_NAMESPACE: &str = "ambit-system";
/// Field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "ambit-operator";
/// Name of the one Mesh.
pub const MESH_NAME: &str = "default";
