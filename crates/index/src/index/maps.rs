//! Entries of maps: those of one namespace, and sets that are removed once they are empty.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use ambit_model::NamespacedName;

/// The entries of one namespace, without iterating over the others.
pub(super) fn of_namespace<'a, T>(
    map: &'a BTreeMap<NamespacedName, T>,
    namespace: &Arc<str>,
) -> impl Iterator<Item = (&'a NamespacedName, &'a T)> + use<'a, T> {
    let namespace = namespace.clone();
    map.range(NamespacedName::new(namespace.clone(), "")..)
        .take_while(move |(name, _)| name.namespace == namespace)
}

pub(super) fn remove_from<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
