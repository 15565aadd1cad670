//! Istio's policy kinds: facts, translation, and the status each object should carry.

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

/// The condition types of policies that are ours to say, and to take back.
const OURS: &[&str] = &[ZTUNNEL_ACCEPTED, WAYPOINT_ACCEPTED];

/// What a policy's status should say about one aspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Condition type.
    pub condition: &'static str,
    /// `True` or `False`.
    pub holds: Holds,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It does.
    True,
    /// It does not.
    False,
}

impl Holds {
    /// The word of the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}

/// A policy whose status is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPatch {
    /// The kind of the policy.
    pub kind: Kind,
    /// Which object.
    pub name: NamespacedName,
    /// Version of the object that was judged.
    pub resource_version: String,
    /// Generation that was judged.
    pub generation: Option<i64>,
    /// What it should say, one for each condition type.
    pub judgements: Vec<Judgement>,
    /// What it says now without what it should no longer say: others' conditions, and ours to be replaced.
    pub current: Vec<PolicyCondition>,
}

/// What the kinds have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyFacts<T> {
    pub(crate) name: NamespacedName,
    /// Seconds since the epoch; the oldest wins.
    pub(crate) created: i64,
    /// None applies to the namespace.
    pub(crate) selector: Option<BTreeMap<String, String>>,
    /// What is known of the object alone.
    pub(crate) judgements: Vec<Judgement>,
    pub(crate) resource_version: String,
    pub(crate) generation: Option<i64>,
    pub(crate) conditions: Vec<PolicyCondition>,
    pub(crate) content: T,
}

impl<T> PolicyFacts<T> {
    /// The patch that makes the status say what it should, if it does not; `attached` is what waypoints make of it.
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
/// A RequestAuthentication: what it is attached to, if anything.
pub(crate) type RequestFacts = PolicyFacts<Option<Attachment<request_authentication::Providers>>>;

/// The labels of a selector; one without labels is no selector.
pub(crate) fn selector(selector: Option<&WorkloadSelector>) -> Option<BTreeMap<String, String>> {
    selector.map(|s| s.match_labels.clone()).filter(|labels| !labels.is_empty())
}

/// A header name (RFC 9110 5.1) in lower case.
pub(crate) fn header_name(name: &str) -> Option<Arc<str>> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token)).then(|| name.to_ascii_lowercase().into())
}

/// The root namespaces of a mesh that says nothing of them.
#[cfg(test)]
fn roots() -> std::collections::BTreeSet<Arc<str>> {
    crate::Settings::default().root_namespaces
}
