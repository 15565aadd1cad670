//! Condition types and reasons: the words that status, Events, documentation and tests share.

/// Spec valid and applicable.
pub const ACCEPTED: &str = "Accepted";
/// The CA can issue and the root bundle is distributed.
pub const TRUST_READY: &str = "TrustReady";
/// Node agent and ztunnel are ready on every node.
pub const DATA_PLANE_READY: &str = "DataPlaneReady";
/// A rollout or a removal is under way.
pub const PROGRESSING: &str = "Progressing";
/// All of the above but [`PROGRESSING`].
pub const READY: &str = "Ready";

/// Of AuthorizationPolicy: what node proxies make of it.
pub const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// Of AuthorizationPolicy with target references: what waypoints make of it.
pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// Of Gateway and its listeners: a pod serves what the object says.
pub const PROGRAMMED: &str = "Programmed";
/// Of Gateway, its listeners and routes: everything that the object names exists.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Of Service: a waypoint takes its traffic.
pub const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// Whether everybody but the waypoint is refused by the endpoints of a Service.
pub const WAYPOINT_ENFORCED: &str = "ambit.dev/WaypointEnforced";
/// Of routes: the Service that the route is attached to has a waypoint.
pub const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";
/// Of routes: some rules cannot be carried out as written.
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
    /// The CA issues.
    pub const ISSUING: &str = "Issuing";
    /// The Secret of the CA does not exist.
    pub const CA_NOT_FOUND: &str = "CANotFound";
    /// The Secret of the CA cannot be used.
    pub const CA_INVALID: &str = "CAInvalid";
    /// The CA certificate ends soon.
    pub const CA_EXPIRING: &str = "CAExpiring";
    /// Every node is served.
    pub const NODES_READY: &str = "NodesReady";
    /// Some nodes are not served yet.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// The operator's Service has no address for the agents to dial yet.
    pub const OPERATOR_SERVICE_MISSING: &str = "OperatorServiceMissing";
    /// Nodes are being brought to the wanted state.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Every node is at the wanted state.
    pub const ROLLOUT_COMPLETE: &str = "RolloutComplete";
    /// The Mesh is being removed from the nodes.
    pub const REMOVING: &str = "Removing";
    /// Not looked at, because something before it is not right.
    pub const BLOCKED: &str = "Blocked";
    /// Everything is in order.
    pub const READY: &str = "Ready";
    /// The API server refused a write.
    pub const APPLY_FAILED: &str = "ApplyFailed";
    /// A policy holds values or fields that node proxies cannot enforce.
    pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
    /// Nothing of a DENY policy can be enforced.
    pub const INEFFECTIVE: &str = "Ineffective";
    /// A policy holds a value that cannot be parsed.
    pub const INVALID: &str = "Invalid";
    /// No target of the policy has a waypoint.
    pub const ANCESTOR_NOT_BOUND: &str = "AncestorNotBound";
    /// Some targets of the policy enforce it, and some do not.
    pub const PARTIALLY_INVALID: &str = "PartiallyInvalid";
    /// No target of the policy exists.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// A pod of the waypoint serves.
    pub const PROGRAMMED: &str = "Programmed";
    /// The waypoint's Service has no address yet.
    pub const ADDRESS_NOT_ASSIGNED: &str = "AddressNotAssigned";
    /// No pod of the waypoint is ready, or something that it needs is not there yet.
    pub const PENDING: &str = "Pending";
    /// Every reference leads somewhere.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// What the object names does not exist.
    pub const REF_NOT_FOUND: &str = "RefNotFound";
    /// The parameters of the Gateway cannot be used.
    pub const INVALID_PARAMETERS: &str = "InvalidParameters";
    /// A listener of the Gateway cannot be served.
    pub const LISTENERS_NOT_VALID: &str = "ListenersNotValid";
    /// The listener's protocol is none that a waypoint speaks.
    pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
    /// The listener's port is not the one that a waypoint listens on.
    pub const PORT_UNAVAILABLE: &str = "PortUnavailable";
    /// A waypoint cannot be given an address.
    pub const UNSUPPORTED_ADDRESS: &str = "UnsupportedAddress";
    /// An object that the waypoint needs belongs to somebody else.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The waypoint takes the traffic of the Service.
    pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
    /// The waypoint that the labels name does not exist, or no pod of it was ready.
    pub const WAYPOINT_IS_NOT_READY: &str = "WaypointIsNotReady";
    /// The waypoint's listener does not let the namespace attach.
    pub const ATTACHMENT_DENIED: &str = "AttachmentDenied";
    /// The waypoint is not for this traffic.
    pub const UNSUPPORTED_TRAFFIC_TYPE: &str = "UnsupportedTrafficType";
    /// The endpoints of the Service are not in the mesh yet.
    pub const WAITING_FOR_ENROLLMENT: &str = "WaitingForEnrollment";
    /// A waypoint has the Service, and some of its endpoints are reached without it.
    pub const ENDPOINTS_OPEN: &str = "EndpointsOpen";
    /// The API server calls the Service, and a waypoint would cut it off.
    pub const CALLED_FROM_OUTSIDE: &str = "CalledFromOutside";
    /// Nobody gets round the waypoint.
    pub const ENFORCED: &str = "Enforced";
    /// The waypoint of the parent carries out the route.
    pub const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";
    /// No label gives the parent a waypoint, so the route has no effect.
    pub const MISSING_USE_WAYPOINT_LABEL: &str = "MissingUseWaypointLabel";
    /// The owner of the parent takes no routes of this namespace.
    pub const NOT_ALLOWED_BY_LISTENERS: &str = "NotAllowedByListeners";
    /// The parent does not exist, or has no port that the route can serve.
    pub const NO_MATCHING_PARENT: &str = "NoMatchingParent";
    /// An older object has what this one asks for.
    pub const CONFLICTED: &str = "Conflicted";
    /// A reference names a kind that traffic cannot be sent to.
    pub const INVALID_KIND: &str = "InvalidKind";
    /// A reference into another namespace is not allowed there.
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    /// A reference names a Service or port that does not exist.
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
}
