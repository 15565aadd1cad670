//! Fields that several kinds of policies have.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::policy::WorkloadSelector;

/// The labels of a selector; `None` for a selector without labels.
pub(crate) fn selector(selector: Option<&WorkloadSelector>) -> Option<BTreeMap<String, String>> {
    selector.map(|s| s.match_labels.clone()).filter(|labels| !labels.is_empty())
}

/// A header name (RFC 9110 5.1), in lower case.
pub(crate) fn header_name(name: &str) -> Option<Arc<str>> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token)).then(|| name.to_ascii_lowercase().into())
}
