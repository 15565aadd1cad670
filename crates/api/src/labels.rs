//! Labels, annotations and values that are part of the API.

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
/// Value of [`REDIRECTION`]: traffic is redirected.
pub const ENABLED: &str = "enabled";
/// Annotation of a pod (`"true"`): inbound traffic is not redirected.
pub const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
/// Annotation of a pod: comma-separated network devices in it whose inbound TCP is the pod's own outbound traffic.
pub const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
/// Annotation of an AuthorizationPolicy (`"true"`): evaluated and logged, not enforced.
pub const DRY_RUN: &str = "istio.io/dry-run";
/// Annotation of a Gateway: settings of its proxies as YAML; only `gatewayTopology.numTrustedProxies` is read.
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// Label of a pod: name of the application for telemetry.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// Label of a pod: version of the application for telemetry.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Recommended Kubernetes label: the application, for telemetry.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Recommended Kubernetes label: its version, for telemetry.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
/// Recommended Kubernetes label; [`FIELD_MANAGER`] on the operator's objects.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Customary label: the application, for telemetry.
pub const APP: &str = "app";
/// Customary label: its version, for telemetry.
pub const VERSION: &str = "version";
/// Label of a node: its region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Label of a node: its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a node: its subzone, as Istio names it.
pub const SUBZONE: &str = "topology.istio.io/subzone";
/// Label of every object the operator rolls out: the name of the Mesh it belongs to.
pub const MESH: &str = "ambit.dev/mesh";
/// Annotation of Services and namespaces: which endpoints are preferred, by topology.
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
/// Label of every object created for a Gateway: [`WAYPOINT_MANAGED`].
pub const GATEWAY_MANAGED: &str = "gateway.istio.io/managed";
/// Value of [`GATEWAY_MANAGED`]: [`WAYPOINT_CONTROLLER`] without characters that labels do not allow.
pub const WAYPOINT_MANAGED: &str = "ambit.dev-mesh-controller";
/// Label of every object created for a Gateway: the Gateway's name.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Label of every object created for a Gateway: the Gateway's class.
pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Label of a Gateway (`"true"`) that the operator created for a `use-waypoint` label.
pub const AUTO_CREATED: &str = "ambit.dev/auto-created";
/// Annotation of a pod, written by the operator: the waypoint (`namespace/name`) that alone reaches it.
pub const WAYPOINT_ENFORCED: &str = "ambit.dev/waypoint-enforced";
/// Annotation of a node agent's pod (`"true"`): the agent removed every trace of the mesh from its node.
pub const CLEAN: &str = "ambit.dev/clean";
/// Finalizer of a Mesh; it is removed once every node is clean.
pub const FINALIZER: &str = "ambit.dev/operator";

/// Annotation of Services that asks Prometheus to scrape their endpoints.
pub const PROMETHEUS_SCRAPE: &str = "prometheus.io/scrape";

/// Namespace of the mesh's own components; policies in it apply to the whole mesh.
pub const SYSTEM_NAMESPACE: &str = "ambit-system";
/// Istio's default root namespace; policies in it apply to the whole mesh too.
pub const ISTIO_ROOT_NAMESPACE: &str = "istio-system";
/// Field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "ambit-operator";
/// Name of the only Mesh in a cluster.
pub const MESH_NAME: &str = "default";
/// Controller name in the GatewayClasses below.
pub const WAYPOINT_CONTROLLER: &str = "ambit.dev/mesh-controller";
/// GatewayClass of waypoints.
pub const WAYPOINT_CLASS: &str = "ambit-waypoint";
/// GatewayClass that Istio's manifests name; the operator serves it too unless another controller does.
pub const ISTIO_WAYPOINT_CLASS: &str = "istio-waypoint";
/// Protocol name of a waypoint's listener.
pub const HBONE: &str = "HBONE";
