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
    /// The policy targets what this mesh does not run.
    pub const ANCESTOR_NOT_BOUND: &str = "AncestorNotBound";
}
