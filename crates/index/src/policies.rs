//! The two Istio policy kinds: facts, translation, and the status each object should carry.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::policy::{PolicyCondition, WorkloadSelector};
use ambit_model::{NamespacedName, Policy};

use crate::object::Kind;

pub mod authorization;
pub mod peer_authentication;

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
    /// [`Kind::AuthorizationPolicy`] or [`Kind::PeerAuthentication`].
    pub kind: Kind,
    /// Which object.
    pub name: NamespacedName,
    /// Version of the object that was judged.
    pub resource_version: String,
    /// Generation that was judged.
    pub generation: Option<i64>,
    /// What it should say.
    pub judgement: Judgement,
    /// What it says now, all conditions, others' too.
    pub current: Vec<PolicyCondition>,
}

/// What both kinds have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyFacts<T> {
    pub(crate) name: NamespacedName,
    /// Seconds since the epoch; the oldest wins.
    pub(crate) created: i64,
    /// None applies to the namespace.
    pub(crate) selector: Option<BTreeMap<String, String>>,
    pub(crate) judgement: Judgement,
    pub(crate) resource_version: String,
    pub(crate) generation: Option<i64>,
    pub(crate) conditions: Vec<PolicyCondition>,
    pub(crate) content: T,
}

impl<T> PolicyFacts<T> {
    /// The patch that makes the status say what it should, if it does not.
    pub(crate) fn status_patch(&self, kind: Kind) -> Option<StatusPatch> {
        let wanted = &self.judgement;
        let is_said = self.conditions.iter().any(|c| {
            c.kind == wanted.condition
                && c.status == wanted.holds.as_str()
                && c.reason == wanted.reason
                && c.message == wanted.message
                && c.observed_generation == self.generation
        });
        (!is_said).then(|| StatusPatch {
            kind,
            name: self.name.clone(),
            resource_version: self.resource_version.clone(),
            generation: self.generation,
            judgement: wanted.clone(),
            current: self.conditions.clone(),
        })
    }
}

/// An AuthorizationPolicy: what proxies get of it, if anything.
pub(crate) type AuthorizationFacts = PolicyFacts<Option<Arc<Policy>>>;
/// A PeerAuthentication.
pub(crate) type PeerFacts = PolicyFacts<peer_authentication::Modes>;

/// The labels of a selector; one without labels is no selector.
pub(crate) fn selector(selector: Option<&WorkloadSelector>) -> Option<BTreeMap<String, String>> {
    selector.map(|s| s.match_labels.clone()).filter(|labels| !labels.is_empty())
}
