//! Istio's policy kinds: facts, translation, and the status of each object.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::{
    conditions::{WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED},
    policy::{PolicyCondition, WorkloadSelector},
};
use ambit_model::NamespacedName;

use crate::object::Kind;

mod attachment;
pub mod authorization;
pub mod peer_authentication;
pub mod request_authentication;
mod unknown;

pub use attachment::{Attachment, Reach, Target};

/// Condition types of policies that this controller sets and removes.
const OURS: &[&str] = &[ZTUNNEL_ACCEPTED, WAYPOINT_ACCEPTED];

/// The value of one status condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Condition type.
    pub condition: &'static str,
    /// Status of the condition.
    pub holds: Holds,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The condition is met.
    True,
    /// The condition is not met.
    False,
}

impl Holds {
    /// The value in the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}

/// A policy or Service whose status must be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPatch {
    /// The kind of the object.
    pub kind: Kind,
    /// Name of the object.
    pub name: NamespacedName,
    /// Resource version of the evaluated object.
    pub resource_version: String,
    /// Generation of the evaluated object.
    pub generation: Option<i64>,
    /// The new conditions, one per type.
    pub judgements: Vec<Judgement>,
    /// The conditions to keep: those of other controllers, and ours that are replaced.
    pub current: Vec<PolicyCondition>,
}

/// Facts common to all policy kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyFacts<T> {
    pub(crate) name: NamespacedName,
    /// Creation time in seconds since the epoch; the oldest policy wins.
    pub(crate) created: i64,
    /// `None` applies to the whole namespace.
    pub(crate) selector: Option<BTreeMap<String, String>>,
    /// Conditions that depend only on the object itself.
    pub(crate) judgements: Vec<Judgement>,
    pub(crate) resource_version: String,
    pub(crate) generation: Option<i64>,
    pub(crate) conditions: Vec<PolicyCondition>,
    pub(crate) content: T,
}

impl<T> PolicyFacts<T> {
    /// The patch for the status, if it must change; `attached` is the condition of an attached
    /// policy.
    pub(crate) fn status_patch(&self, kind: Kind, attached: Option<Judgement>) -> Option<StatusPatch> {
        let judgements: Vec<Judgement> = self.judgements.iter().cloned().chain(attached).collect();
        let is_wanted = |kind: &str| judgements.iter().any(|judgement| judgement.condition == kind);
        let is_kept = |c: &&PolicyCondition| is_wanted(&c.kind) || !OURS.contains(&c.kind.as_str());
        let current: Vec<PolicyCondition> = self.conditions.iter().filter(is_kept).cloned().collect();
        let is_said = |wanted: &Judgement| {
            current.iter().any(|c| {
                c.kind == wanted.condition
                    && c.status == wanted.holds.as_str()
                    && c.reason == wanted.reason
                    && c.message == wanted.message
                    && c.observed_generation == self.generation
            })
        };
        let is_right = current.len() == self.conditions.len() && judgements.iter().all(is_said);
        (!is_right).then(|| StatusPatch {
            kind,
            name: self.name.clone(),
            resource_version: self.resource_version.clone(),
            generation: self.generation,
            judgements,
            current,
        })
    }
}

/// An AuthorizationPolicy.
pub(crate) type AuthorizationFacts = PolicyFacts<authorization::Authorization>;
/// A PeerAuthentication.
pub(crate) type PeerFacts = PolicyFacts<peer_authentication::Modes>;
/// A RequestAuthentication, with its attachment if it has one.
pub(crate) type RequestFacts = PolicyFacts<Option<Attachment<request_authentication::Providers>>>;

/// The labels of a selector; `None` for a selector without labels.
pub(crate) fn selector(selector: Option<&WorkloadSelector>) -> Option<BTreeMap<String, String>> {
    selector.map(|s| s.match_labels.clone()).filter(|labels| !labels.is_empty())
}

/// A header name (RFC 9110 5.1), in lower case.
pub(crate) fn header_name(name: &str) -> Option<Arc<str>> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token)).then(|| name.to_ascii_lowercase().into())
}

/// The root namespaces of a mesh that sets none.
#[cfg(test)]
fn roots() -> std::collections::BTreeSet<Arc<str>> {
    crate::Settings::default().root_namespaces
}
