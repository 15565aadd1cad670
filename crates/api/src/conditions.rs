//! Condition types and reasons: the API constants that status, Events, documentation and tests share.

/// The spec is valid and in force.
pub const ACCEPTED: &str = "Accepted";
/// The CA can issue and the root bundle is distributed.
pub const TRUST_READY: &str = "TrustReady";
/// Node agent and ztunnel are ready on every node.
pub const DATA_PLANE_READY: &str = "DataPlaneReady";
/// A rollout or a removal is under way.
pub const PROGRESSING: &str = "Progressing";
/// Every condition above is True, apart from [`PROGRESSING`].
pub const READY: &str = "Ready";

/// On an AuthorizationPolicy: whether ztunnels enforce it.
pub const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// On an AuthorizationPolicy with target references: whether waypoints enforce it.
pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// On a Gateway and its listeners: a ready pod serves them as specified.
pub const PROGRAMMED: &str = "Programmed";
/// On a Gateway, its listeners and on routes: every object they refer to exists.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// On a Service: a waypoint handles its traffic.
pub const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// On a Service: its endpoints refuse every client but the waypoint.
pub const WAYPOINT_ENFORCED: &str = "ambit.dev/WaypointEnforced";
/// On a route: the Service it is attached to has a waypoint.
pub const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";
/// On a route: some rules cannot be applied as written.
pub const ROUTE_PARTIALLY_INVALID: &str = "PartiallyInvalid";

/// Reasons of conditions and Events.
pub mod reason {
    /// The object is in force as written.
    pub const ACCEPTED: &str = "Accepted";
    /// A field of `spec.trust` cannot be used.
    pub const INVALID_TRUST: &str = "InvalidTrust";
    /// A field outside `spec.trust` cannot be used.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Certificates were issued in another trust domain, which stays in force.
    pub const TRUST_DOMAIN_IMMUTABLE: &str = "TrustDomainImmutable";
    /// The CA can issue certificates.
    pub const ISSUING: &str = "Issuing";
    /// The Secret of the CA does not exist.
    pub const CA_NOT_FOUND: &str = "CANotFound";
    /// The Secret of the CA cannot be used.
    pub const CA_INVALID: &str = "CAInvalid";
    /// The CA certificate expires soon.
    pub const CA_EXPIRING: &str = "CAExpiring";
    /// Node agent and ztunnel are ready on every node.
    pub const NODES_READY: &str = "NodesReady";
    /// On some nodes, node agent or ztunnel is not ready yet.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// The operator's Service has no address for the agents to dial yet.
    pub const OPERATOR_SERVICE_MISSING: &str = "OperatorServiceMissing";
    /// Nodes are being brought to the desired state.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Every node has reached the desired state.
    pub const ROLLOUT_COMPLETE: &str = "RolloutComplete";
    /// The Mesh is being removed from the nodes.
    pub const REMOVING: &str = "Removing";
    /// Not evaluated, because an earlier condition is False.
    pub const BLOCKED: &str = "Blocked";
    /// Every other condition is met.
    pub const READY: &str = "Ready";
    /// The API server refused a write.
    pub const APPLY_FAILED: &str = "ApplyFailed";
    /// A policy uses values or fields that ztunnels cannot enforce.
    pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
    /// No rule of a DENY policy can be enforced.
    pub const INEFFECTIVE: &str = "Ineffective";
    /// A policy holds a value that cannot be parsed.
    pub const INVALID: &str = "Invalid";
    /// No target of the policy has a waypoint.
    pub const ANCESTOR_NOT_BOUND: &str = "AncestorNotBound";
    /// Some targets of the policy enforce it, and some do not.
    pub const PARTIALLY_INVALID: &str = "PartiallyInvalid";
    /// No target of the policy exists.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// A pod of the waypoint is ready.
    pub const PROGRAMMED: &str = "Programmed";
    /// The waypoint's Service has no address yet.
    pub const ADDRESS_NOT_ASSIGNED: &str = "AddressNotAssigned";
    /// No pod of the waypoint is ready, or an object that it needs does not exist yet.
    pub const PENDING: &str = "Pending";
    /// Every reference resolves.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// An object that is referred to does not exist.
    pub const REF_NOT_FOUND: &str = "RefNotFound";
    /// The parameters of the Gateway cannot be used.
    pub const INVALID_PARAMETERS: &str = "InvalidParameters";
    /// A listener of the Gateway cannot be served.
    pub const LISTENERS_NOT_VALID: &str = "ListenersNotValid";
    /// Waypoints do not support the listener's protocol.
    pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
    /// The listener's port is not the one that a waypoint listens on.
    pub const PORT_UNAVAILABLE: &str = "PortUnavailable";
    /// A waypoint cannot be given a user-chosen address.
    pub const UNSUPPORTED_ADDRESS: &str = "UnsupportedAddress";
    /// An object of the name that the waypoint needs exists and is not managed by the operator.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The waypoint handles the traffic of the Service.
    pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
    /// The waypoint that the labels name does not exist, or none of its pods has been ready yet.
    pub const WAYPOINT_IS_NOT_READY: &str = "WaypointIsNotReady";
    /// The waypoint's listener does not allow routes from the namespace.
    pub const ATTACHMENT_DENIED: &str = "AttachmentDenied";
    /// The waypoint does not serve this type of traffic (see `istio.io/waypoint-for`).
    pub const UNSUPPORTED_TRAFFIC_TYPE: &str = "UnsupportedTrafficType";
    /// The endpoints of the Service are not in the mesh yet.
    pub const WAITING_FOR_ENROLLMENT: &str = "WaitingForEnrollment";
    /// A waypoint handles the Service, but some of its endpoints accept traffic that bypasses the waypoint.
    pub const ENDPOINTS_OPEN: &str = "EndpointsOpen";
    /// The API server calls the Service (a webhook or APIService), and a waypoint would block these calls.
    pub const CALLED_FROM_OUTSIDE: &str = "CalledFromOutside";
    /// No client can bypass the waypoint.
    pub const ENFORCED: &str = "Enforced";
    /// The waypoint of the parent applies the route.
    pub const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";
    /// No label gives the parent a waypoint, so the route has no effect.
    pub const MISSING_USE_WAYPOINT_LABEL: &str = "MissingUseWaypointLabel";
    /// The owner of the parent does not allow routes from this namespace.
    pub const NOT_ALLOWED_BY_LISTENERS: &str = "NotAllowedByListeners";
    /// The parent does not exist, or has no port that the route can serve.
    pub const NO_MATCHING_PARENT: &str = "NoMatchingParent";
    /// An older object already claims the same.
    pub const CONFLICTED: &str = "Conflicted";
    /// A reference names a kind that cannot be a backend.
    pub const INVALID_KIND: &str = "InvalidKind";
    /// A reference into another namespace lacks a ReferenceGrant there.
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    /// A reference names a Service or port that does not exist.
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
}
