//! What the kinds of policies have in common.

use std::collections::BTreeMap;

use ambit_api::{
    conditions::{WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED},
    policy::PolicyCondition,
};
use ambit_model::NamespacedName;

use super::judgement::Judgement;
use crate::key::Kind;

/// Condition types of policies that this controller sets and removes.
const OURS: &[&str] = &[ZTUNNEL_ACCEPTED, WAYPOINT_ACCEPTED];

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
