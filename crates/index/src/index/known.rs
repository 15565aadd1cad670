//! The pods of a namespace that each waypoint serves, kept so that one pod does not cost a pass over all of them.
//!
//! Invariant: the result for a waypoint is compiled again only when its first pod comes or its last pod leaves, or when
//! the set of pods that it must know by name changes. It recognizes all other pods by their workloads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_model::NamespacedName;

/// The pods of one namespace that one waypoint serves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pods: usize,
    /// Uids of pods that change waypoints: their workloads do not name it yet, or not any more.
    pub(super) on_their_way: BTreeSet<Arc<str>>,
}

/// The waypoints that serve one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KnownPod {
    pub(super) to: Vec<NamespacedName>,
    pub(super) on_its_way: Option<Arc<str>>,
}

/// The pods of all waypoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KnownPods {
    pods: HashMap<NamespacedName, KnownPod>,
    /// By namespace of the pods, then by waypoint.
    by_namespace: HashMap<Arc<str>, BTreeMap<NamespacedName, Known>>,
}

impl KnownPods {
    /// The pods of a namespace by waypoint.
    pub(super) fn of(&self, namespace: &Arc<str>) -> impl Iterator<Item = (&NamespacedName, &Known)> {
        self.by_namespace.get(namespace).into_iter().flatten()
    }

    /// Replaces the entry of a pod. Returns whether the result for a waypoint changes.
    pub(super) fn set(&mut self, pod: &NamespacedName, new: KnownPod) -> bool {
        let old = match new.to.is_empty() {
            true => self.pods.remove(pod),
            false => self.pods.insert(pod.clone(), new.clone()),
        };
        let old = old.unwrap_or_default();
        if old == new {
            return false;
        }
        let mut is_news = old.on_its_way.is_some() || new.on_its_way.is_some();
        let waypoints = self.by_namespace.entry(pod.namespace.clone()).or_default();
        for waypoint in &old.to {
            let Some(known) = waypoints.get_mut(waypoint) else { continue };
            known.pods -= 1;
            known.on_their_way.retain(|uid| old.on_its_way.as_ref() != Some(uid));
        }
        for waypoint in &new.to {
            let known = waypoints.entry(waypoint.clone()).or_default();
            is_news |= known.pods == 0 && !old.to.contains(waypoint);
            known.pods += 1;
            known.on_their_way.extend(new.on_its_way.clone());
        }
        let before = waypoints.len();
        waypoints.retain(|_, known| known.pods > 0);
        is_news |= before != waypoints.len();
        if waypoints.is_empty() {
            self.by_namespace.remove(&pod.namespace);
        }
        is_news
    }
}
