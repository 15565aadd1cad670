//! Equality-based label selectors, and indexes from labels to objects and from labels to selectors.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_model::NamespacedName;

/// Whether `labels` contain every label of `selector`. An empty selector matches everything.
pub(crate) fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Names of objects of one namespace.
type Names = BTreeSet<Arc<str>>;

/// Names of objects by namespace, label key and label value.
#[derive(Debug, Default)]
struct ByLabel(HashMap<Arc<str>, HashMap<String, HashMap<String, Names>>>);

impl ByLabel {
    fn get(&self, namespace: &str, (key, value): (&String, &String)) -> Option<&Names> {
        self.0.get(namespace)?.get(key)?.get(value)
    }

    fn insert(&mut self, name: &NamespacedName, (key, value): (&String, &String)) {
        let keys = self.0.entry(name.namespace.clone()).or_default();
        let values = keys.entry(key.clone()).or_default();
        values.entry(value.clone()).or_default().insert(name.name.clone());
    }

    fn remove(&mut self, name: &NamespacedName, (key, value): (&String, &String)) {
        let Some(keys) = self.0.get_mut(&name.namespace) else { return };
        let Some(values) = keys.get_mut(key) else { return };
        let Some(names) = values.get_mut(value) else { return };
        names.remove(&name.name);
        if names.is_empty() {
            values.remove(value);
        }
        if values.is_empty() {
            keys.remove(key);
        }
        if keys.is_empty() {
            self.0.remove(&name.namespace);
        }
    }
}

/// Objects by each of their labels: finds what a selector selects.
#[derive(Debug, Default)]
pub(crate) struct Labelled(ByLabel);

impl Labelled {
    /// Replaces the labels of an object.
    pub(crate) fn relabel(
        &mut self,
        name: &NamespacedName,
        old: Option<&BTreeMap<String, String>>,
        new: Option<&BTreeMap<String, String>>,
    ) {
        if old == new {
            return;
        }
        old.into_iter().flatten().for_each(|label| self.0.remove(name, label));
        new.into_iter().flatten().for_each(|label| self.0.insert(name, label));
    }

    /// The objects of a namespace that a selector selects; none if the selector is empty.
    pub(crate) fn selected(
        &self,
        namespace: &Arc<str>,
        selector: &BTreeMap<String, String>,
    ) -> Vec<NamespacedName> {
        let found: Option<Vec<&Names>> = selector.iter().map(|label| self.0.get(namespace, label)).collect();
        let mut found = found.unwrap_or_default();
        found.sort_unstable_by_key(|names| names.len());
        let Some((rarest, others)) = found.split_first() else { return Vec::new() };
        let selected = rarest.iter().filter(|name| others.iter().all(|names| names.contains(*name)));
        selected.map(|name| NamespacedName::new(namespace.clone(), name.clone())).collect()
    }

    /// The objects of all namespaces that a selector selects; none if the selector is empty.
    pub(crate) fn selected_anywhere(&self, selector: &BTreeMap<String, String>) -> Vec<NamespacedName> {
        self.0.0.keys().flat_map(|namespace| self.selected(namespace, selector)).collect()
    }
}

/// Objects by one label of their selector, the rarest when it was added: finds what may select given labels.
#[derive(Debug, Default)]
pub(crate) struct Selecting(ByLabel);

impl Selecting {
    /// Replaces the selector of an object; without one, or with an empty one, it selects nothing.
    pub(crate) fn reselect(
        &mut self,
        name: &NamespacedName,
        old: Option<&BTreeMap<String, String>>,
        new: Option<&BTreeMap<String, String>>,
    ) {
        if old == new {
            return;
        }
        old.into_iter().flatten().for_each(|label| self.0.remove(name, label));
        let others =
            |label: &(&String, &String)| self.0.get(&name.namespace, *label).map_or(0, BTreeSet::len);
        if let Some(label) = new.into_iter().flatten().min_by_key(others) {
            self.0.insert(name, label);
        }
    }

    /// The objects of a namespace whose selector may match; the caller must check the whole selector.
    pub(crate) fn candidates<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = NamespacedName> + 'a {
        let found = labels.iter().filter_map(|label| self.0.get(namespace, label)).flatten();
        found.map(|name| NamespacedName::new(namespace.clone(), name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Labels = BTreeMap<String, String>;

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[ab]", "[xy]", 0..3)
    }

    fn named(number: usize) -> NamespacedName {
        NamespacedName::new(["shop", "bank"][number % 2], number.to_string())
    }

    proptest! {
        #[test]
        fn what_is_found_by_labels_is_what_a_look_at_everything_finds(
            before in proptest::collection::vec(labels(), 8),
            after in proptest::collection::vec(proptest::option::of(labels()), 8),
            selector in labels(),
        ) {
            let (mut labelled, mut selecting) = (Labelled::default(), Selecting::default());
            for (number, (before, after)) in before.iter().zip(&after).enumerate() {
                labelled.relabel(&named(number), None, Some(before));
                labelled.relabel(&named(number), Some(before), after.as_ref());
                selecting.reselect(&named(number), None, Some(before));
                selecting.reselect(&named(number), Some(before), after.as_ref());
            }
            let shop: Arc<str> = "shop".into();
            let of_shop = || after.iter().enumerate().filter(|(number, _)| number % 2 == 0);
            let selected: BTreeSet<_> = labelled.selected(&shop, &selector).into_iter().collect();
            let expected = of_shop().filter(|(_, labels)| labels.as_ref().is_some_and(|l| matches(&selector, l)));
            let expected: BTreeSet<_> = expected.map(|(number, _)| named(number)).collect();
            prop_assert_eq!(selected, if selector.is_empty() { BTreeSet::new() } else { expected });
            // In the other direction `selector` is the labels of an object.
            let found: BTreeSet<_> = selecting.candidates(&shop, &selector).collect();
            let missed = of_shop().filter(|(number, own)| {
                let own = own.as_ref().filter(|own| !own.is_empty());
                own.is_some_and(|own| matches(own, &selector)) && !found.contains(&named(*number))
            });
            prop_assert_eq!(missed.count(), 0);
        }

        #[test]
        fn nothing_is_left_of_what_is_gone(labels in labels()) {
            let (mut labelled, mut selecting) = (Labelled::default(), Selecting::default());
            labelled.relabel(&named(0), None, Some(&labels));
            labelled.relabel(&named(0), Some(&labels), None);
            selecting.reselect(&named(0), None, Some(&labels));
            selecting.reselect(&named(0), Some(&labels), None);
            prop_assert!(labelled.0.0.is_empty() && selecting.0.0.is_empty());
        }
    }
}
