//! Equality-based label selectors.

use std::collections::BTreeMap;

/// Whether `labels` contain every label of `selector`. An empty selector matches everything.
pub(crate) fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
