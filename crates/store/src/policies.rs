//! The policies a proxy knows, indexed by where they apply, and the compiled set of each workload.
//!
//! Invariant: a set keeps its identity (`Arc::ptr_eq`) from one index to the next exactly as long
//! as its policies are the same, so that a live connection is evaluated again only when its set
//! changed.

use std::{collections::HashMap, sync::Arc};

use ambit_model::{
    NamespacedName, Policy, Scope, Workload,
    authorization::{Applied, PolicySet},
};
use arc_swap::ArcSwap;
use imbl::{OrdMap, OrdSet};

/// What is known under one policy name.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    Readable(Arc<Policy>),
    /// It could not be decoded; it denies wherever it may apply.
    Unreadable(Scope),
}

impl Stored {
    fn scope(&self) -> Scope {
        match self {
            Self::Readable(policy) => policy.scope,
            Self::Unreadable(scope) => *scope,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Readable(a), Self::Readable(b)) => a == b,
            (Self::Unreadable(a), Self::Unreadable(b)) => a == b,
            (Self::Readable(_), Self::Unreadable(_)) | (Self::Unreadable(_), Self::Readable(_)) => false,
        }
    }
}

/// Namespace → policy names a workload lists → its set. The list is scanned, because the workloads
/// of one node in one namespace rarely have more than a few different ones.
type Sets = HashMap<Arc<str>, Vec<(Vec<NamespacedName>, Arc<PolicySet>)>>;

/// All policies of one snapshot.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    received: bool,
    known: OrdMap<NamespacedName, Stored>,
    global: OrdSet<NamespacedName>,
    of_namespace: OrdMap<Arc<str>, OrdSet<NamespacedName>>,
    sets: ArcSwap<Sets>,
}

impl Policies {
    /// Whether policies have been received, even if there are none.
    pub(crate) fn received(&self) -> bool {
        self.received
    }

    /// The set for connections to `workload`, built on first use.
    pub(crate) fn for_workload(&self, workload: &Workload) -> Arc<PolicySet> {
        let names = &workload.authorization_policies;
        if let Some(set) = find(&self.sets.load(), &workload.namespace, names) {
            return set;
        }
        let built = Arc::new(self.build(&workload.namespace, names));
        self.sets.rcu(|sets| {
            if find(sets, &workload.namespace, names).is_some() {
                return sets.clone();
            }
            let mut sets = Sets::clone(sets);
            sets.entry(workload.namespace.clone()).or_default().push((names.clone(), built.clone()));
            Arc::new(sets)
        });
        find(&self.sets.load(), &workload.namespace, names).unwrap_or(built)
    }

    /// The index after an update, or `None` when nothing changed.
    pub(crate) fn next(
        &self,
        changed: Vec<(NamespacedName, Stored)>,
        removed: &[NamespacedName],
    ) -> Option<Self> {
        let mut next = Self {
            received: true,
            known: self.known.clone(),
            global: self.global.clone(),
            of_namespace: self.of_namespace.clone(),
            sets: ArcSwap::default(),
        };
        let mut differs = !self.received;
        for (key, stored) in changed {
            if next.known.get(&key).is_none_or(|old| !old.is_same(&stored)) {
                next.remove(&key);
                next.insert(key, stored);
                differs = true;
            }
        }
        for key in removed {
            differs |= next.remove(key);
        }
        if !differs {
            return None;
        }
        next.sets = ArcSwap::from_pointee(next.carried_over(&self.sets.load()));
        Some(next)
    }

    fn insert(&mut self, key: NamespacedName, stored: Stored) {
        match stored.scope() {
            Scope::Global => {
                self.global.insert(key.clone());
            }
            Scope::Namespace => {
                self.of_namespace.entry(key.namespace.clone()).or_default().insert(key.clone());
            }
            Scope::WorkloadSelector => {}
        }
        self.known.insert(key, stored);
    }

    fn remove(&mut self, key: &NamespacedName) -> bool {
        self.global.remove(key);
        if let Some(keys) = self.of_namespace.get_mut(&key.namespace) {
            keys.remove(key);
            if keys.is_empty() {
                self.of_namespace.remove(&key.namespace);
            }
        }
        self.known.remove(key).is_some()
    }

    /// The sets still in use, rebuilt; unchanged sets keep their identity.
    fn carried_over(&self, old: &Sets) -> Sets {
        let mut sets = Sets::new();
        for (namespace, of_namespace) in old {
            for (names, set) in of_namespace.iter().filter(|(_, set)| Arc::strong_count(set) > 1) {
                let built = self.build(namespace, names);
                let set = if built.is_same(set) { set.clone() } else { Arc::new(built) };
                sets.entry(namespace.clone()).or_default().push((names.clone(), set));
            }
        }
        sets
    }

    fn build(&self, namespace: &Arc<str>, names: &[NamespacedName]) -> PolicySet {
        if !self.received {
            return PolicySet::not_received();
        }
        let of_namespace = self.of_namespace.get(namespace).into_iter().flatten();
        let by_scope = self.global.iter().chain(of_namespace);
        // A listed policy that already applies by its scope is evaluated only once.
        let listed = names.iter().filter(|key| {
            self.known.get(*key).is_none_or(|stored| match stored.scope() {
                Scope::WorkloadSelector => true,
                Scope::Global => false,
                Scope::Namespace => key.namespace != *namespace,
            })
        });
        PolicySet::new(by_scope.chain(listed).map(|key| match self.known.get(key) {
            Some(Stored::Readable(policy)) => Applied::Known(policy.clone()),
            Some(Stored::Unreadable(_)) => Applied::Unreadable(key.clone()),
            None => Applied::Unknown(key.clone()),
        }))
    }
}

fn find(sets: &Sets, namespace: &Arc<str>, names: &[NamespacedName]) -> Option<Arc<PolicySet>> {
    let of_namespace = sets.get(namespace)?;
    of_namespace.iter().find(|(known, _)| known.as_slice() == names).map(|(_, set)| set.clone())
}
