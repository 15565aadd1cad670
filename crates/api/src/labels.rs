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
/// Annotation of a pod: devices in it, by comma, whose inbound TCP is the pod's own outbound traffic.
pub const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
/// Annotation of an AuthorizationPolicy (`"true"`): judged and logged, not enforced.
pub const DRY_RUN: &str = "istio.io/dry-run";
/// Annotation of a Gateway: settings of its proxies, YAML; of it, `gatewayTopology.numTrustedProxies` is read.
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
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
/// Annotation of Services and namespaces: where traffic prefers to go.
pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// Label of a namespace, service or pod: name of the Gateway whose waypoint serves it, or [`NONE`].
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Label beside [`USE_WAYPOINT`]: namespace of that Gateway.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Label of a Gateway or GatewayClass: `service` (the default), `workload`, `all` or `none`.
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Value of [`WAYPOINT_FOR`]: traffic addressed to services.
pub const FOR_SERVICE: &str = "service";
/// Value of [`WAYPOINT_FOR`]: traffic addressed to pods.
pub const FOR_WORKLOAD: &str = "workload";
/// Value of [`WAYPOINT_FOR`]: both.
pub const FOR_ALL: &str = "all";
/// Label of everything made for a Gateway: [`WAYPOINT_MANAGED`].
pub const GATEWAY_MANAGED: &str = "gateway.istio.io/managed";
/// Value of [`GATEWAY_MANAGED`]: [`WAYPOINT_CONTROLLER`], as a label may spell it.
pub const WAYPOINT_MANAGED: &str = "ambit.dev-mesh-controller";
/// Label of everything made for a Gateway: its name.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Label of everything made for a Gateway: its class.
pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Label of a Gateway (`"true"`) that the operator made because a namespace asked for it.
pub const AUTO_CREATED: &str = "ambit.dev/auto-created";
/// Annotation of a node agent's pod (`"true"`): the agent removed every trace of the mesh from its node.
pub const CLEAN: &str = "ambit.dev/clean";
/// Finalizer of a Mesh.
pub const FINALIZER: &str = "ambit.dev/operator";

/// Annotation of Services that asks Prometheus to scrape their endpoints.
pub const PROMETHEUS_SCRAPE: &str = "prometheus.io/scrape";

/// The namespace of the mesh's own parts; policies in it apply to the whole mesh.
pub const SYSTEM_NAMESPACE: &str = "ambit-system";
/// The namespace whose policies apply to the whole mesh by Istio's defaults, and so here.
pub const ISTIO_ROOT_NAMESPACE: &str = "istio-system";
/// Field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "ambit-operator";
/// Name of the one Mesh.
pub const MESH_NAME: &str = "default";
/// Controller of the classes below.
pub const WAYPOINT_CONTROLLER: &str = "ambit.dev/mesh-controller";
/// Our class of waypoints.
pub const WAYPOINT_CLASS: &str = "ambit-waypoint";
/// The class that Istio's manifests name; ours too where nobody else runs it.
pub const ISTIO_WAYPOINT_CLASS: &str = "istio-waypoint";
/// Protocol of a waypoint's listener.
pub const HBONE: &str = "HBONE";
