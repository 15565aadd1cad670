//! Decides whether a caller may have a certificate for an identity.
//!
//! Invariant: pure; all inputs are arguments. What is not provably permitted is rejected.

use std::{sync::Arc, time::Duration};

use ambit_index::PodIdentity;
use ambit_model::{NamespacedName, Spiffe};

use super::{Caller, NodePods};
use crate::names;

/// Longest lifetime that a client may request; a longer one is an error and not shortened.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A certificate request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateRequest<'a> {
    /// The authenticated caller.
    pub caller: &'a Caller,
    /// Requested identity if it is not the caller's own (`ImpersonatedIdentity`).
    pub impersonated: Option<&'a str>,
    /// URI names in the certificate signing request.
    pub names: &'a [String],
    /// Lifetime in seconds; zero or less means the default.
    pub ttl_seconds: i64,
}

/// A granted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The identity to certify.
    pub identity: Spiffe,
    /// Lifetime of the certificate.
    pub ttl: Duration,
    /// The node of the calling pod.
    pub node: Arc<str>,
}

/// Why a request is rejected; for log and metrics, never for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The token is not bound to a pod, so any pod with the account could hold it.
    #[error("the token is not bound to a pod")]
    Unbound,
    /// The pod is not known (yet), or has another uid.
    #[error("the caller's pod is not known with this uid")]
    UnknownPod,
    /// The pod has another account, or its containers have terminated.
    #[error("the caller's pod does not run under the caller's service account")]
    PodMismatch,
    /// Token and cluster disagree about the node, or the pod has none.
    #[error("the caller's node is not the one its pod is bound to")]
    NodeMismatch,
    /// Only the node proxy may request certificates for others.
    #[error("this service account may only request its own identity")]
    NotANodeProxy,
    /// Not `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    #[error("the identity is malformed")]
    Malformed,
    /// The identity belongs to another mesh.
    #[error("the identity is of a foreign trust domain")]
    ForeignTrustDomain,
    /// No such pod on the caller's node.
    #[error("no running pod of this identity is bound to the caller's node")]
    NotOnNode,
    /// The account belongs to a waypoint, and the pod is not one of its pods.
    #[error("this identity is a waypoint's, and only its own pods may have it")]
    NotOfWaypoint,
    /// The signing request contains another name.
    #[error("the certificate request names another identity")]
    NameMismatch,
    /// Longer than [`TTL_MAX`].
    #[error("the requested lifetime is longer than permitted")]
    TtlTooLong,
}

impl Refusal {
    /// Label value of the metric.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unbound => "unbound_token",
            Self::UnknownPod => "unknown_pod",
            Self::PodMismatch => "pod_mismatch",
            Self::NodeMismatch => "node_mismatch",
            Self::NotANodeProxy => "not_a_node_proxy",
            Self::Malformed => "malformed_identity",
            Self::ForeignTrustDomain => "foreign_trust_domain",
            Self::NotOnNode => "not_on_node",
            Self::NotOfWaypoint => "not_of_waypoint",
            Self::NameMismatch => "name_mismatch",
            Self::TtlTooLong => "ttl_too_long",
        }
    }
}

/// Decides about a request. `trust_domain` and `certificate_ttl` are the mesh's.
///
/// # Errors
/// Why it is rejected.
pub(crate) fn authorize(
    certificate_request: &CertificateRequest<'_>,
    trust_domain: &Arc<str>,
    certificate_ttl: Duration,
    pods: &dyn NodePods,
) -> Result<Grant, Refusal> {
    let ttl = ttl(certificate_request.ttl_seconds, certificate_ttl)?;
    let pod = caller_pod(certificate_request.caller, pods)?;
    let own = own(certificate_request.caller, trust_domain)?;
    let identity = match certificate_request.impersonated {
        // A waypoint sends its own identity, as ztunnel sends those of its pods.
        Some(text) if text != own.to_string() => {
            impersonated(text, certificate_request.caller, &pod, trust_domain, pods)?
        }
        Some(_) | None => {
            let waypoint = pods.waypoint_of_account(&own.namespace, &own.service_account);
            if waypoint.is_some() && pods.waypoint_of(&pod.name) != waypoint {
                return Err(Refusal::NotOfWaypoint);
            }
            own
        }
    };
    let text = identity.to_string();
    if certificate_request.names.iter().any(|name| *name != text) {
        return Err(Refusal::NameMismatch);
    }
    Ok(Grant { identity, ttl, node: pod.node })
}

fn ttl(seconds: i64, certificate_ttl: Duration) -> Result<Duration, Refusal> {
    match u64::try_from(seconds) {
        Ok(0) | Err(_) => Ok(certificate_ttl),
        Ok(seconds) if seconds > TTL_MAX.as_secs() => Err(Refusal::TtlTooLong),
        Ok(seconds) => Ok(Duration::from_secs(seconds).min(certificate_ttl)),
    }
}

/// The current pod behind the token.
fn caller_pod(caller: &Caller, pods: &dyn NodePods) -> Result<PodIdentity, Refusal> {
    let claimed = caller.pod.as_ref().ok_or(Refusal::Unbound)?;
    let name = NamespacedName::new(caller.namespace.clone(), claimed.name.clone());
    let pod = pods.pod(&name).filter(|pod| pod.uid == claimed.uid).ok_or(Refusal::UnknownPod)?;
    if pod.service_account != caller.service_account || pod.terminated {
        return Err(Refusal::PodMismatch);
    }
    let agrees = caller.node.as_ref().is_none_or(|node| *node == pod.node);
    if pod.node.is_empty() || !agrees { Err(Refusal::NodeMismatch) } else { Ok(pod) }
}

fn impersonated(
    text: &str,
    caller: &Caller,
    pod: &PodIdentity,
    trust_domain: &Arc<str>,
    pods: &dyn NodePods,
) -> Result<Spiffe, Refusal> {
    if !caller.is_system(names::ZTUNNEL) {
        return Err(Refusal::NotANodeProxy);
    }
    let identity: Spiffe = text.parse().map_err(|_| Refusal::Malformed)?;
    if identity.trust_domain != *trust_domain {
        return Err(Refusal::ForeignTrustDomain);
    }
    // No node proxy may request a waypoint's identity, so another pod with its account does not get
    // it.
    if pods.waypoint_of_account(&identity.namespace, &identity.service_account).is_some() {
        return Err(Refusal::NotOfWaypoint);
    }
    if !pods.runs_on(&pod.node, &identity.namespace, &identity.service_account) {
        return Err(Refusal::NotOnNode);
    }
    Ok(identity)
}

/// The identity that any pod may have, unless it is a waypoint's: the one that its node's proxy
/// uses for it as well. Waypoints depend on it, and a pod gains nothing from holding its own key,
/// because policies refer to identities. Parsed from text, so that a name that is not a valid
/// identity is rejected here too.
fn own(caller: &Caller, trust_domain: &Arc<str>) -> Result<Spiffe, Refusal> {
    let text = format!("spiffe://{trust_domain}/ns/{}/sa/{}", caller.namespace, caller.service_account);
    text.parse().map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests;
