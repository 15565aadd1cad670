//! Path changes.
//!
//! Invariant: the result starts with a slash, and the query is unchanged.

use std::sync::Arc;

use ambit_model::bound::{PathChange, PathMatch};
use http::uri::PathAndQuery;

use crate::{Invalid, head::normalized};

/// Validates that the result is a path.
pub(super) fn compile(change: &PathChange) -> Result<PathChange, Invalid> {
    let (PathChange::Full(text) | PathChange::Prefix(text)) = change;
    let rooted = format!("/{}", text.strip_prefix('/').unwrap_or(text));
    let is_path = rooted.parse::<PathAndQuery>().is_ok_and(|path| path.query().is_none());
    // A fragment would be cut off silently.
    if !is_path || text.contains('#') {
        return Err(Invalid::Path(text.clone()));
    }
    Ok(change.clone())
}

/// Path and query after the change.
pub(super) fn changed(given: &PathAndQuery, change: &PathChange, matched: &PathMatch) -> String {
    let mut path = match change {
        PathChange::Full(full) => full.to_string(),
        PathChange::Prefix(replacement) => replaced(&normalized(given.path()), matched, replacement),
    };
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    if let Some(query) = given.query() {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// Implements the table of ReplacePrefixMatch (Gateway API, HTTPPathModifier): a trailing slash of
/// either prefix is ignored.
fn replaced(path: &str, matched: &PathMatch, replacement: &Arc<str>) -> String {
    let prefix = match matched {
        PathMatch::Prefix(prefix) => normalized(prefix),
        // Unreachable: such a rule is invalid, and its requests get 500 before filters run.
        PathMatch::Exact(_) | PathMatch::Regex(_) => return path.to_owned(),
    };
    let prefix = prefix.strip_suffix('/').unwrap_or(&prefix);
    match path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => format!("{}{rest}", replacement.strip_suffix('/').unwrap_or(replacement)),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(path: &str, matched: &str, replacement: &str) -> String {
        let change = PathChange::Prefix(replacement.into());
        changed(&path.parse().unwrap(), &compile(&change).unwrap(), &PathMatch::Prefix(matched.into()))
    }

    #[test]
    fn a_prefix_is_replaced_as_the_table_of_the_gateway_api_says() {
        let table = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ];
        let beyond_it = [
            ("/%66oo/a%2Fb?c=%2F", "/foo", "/xyz", "/xyz/a%2Fb?c=%2F"),
            ("/x/../foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo?a=/foo", "/foo", "/xyz", "/xyz?a=/foo"),
            ("/foo/?a", "/foo", "", "/?a"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/", "", "/xyz", "/xyz/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
            ("/foobar", "/foo", "/xyz", "/foobar"),
            ("/foo/foo", "/foo", "/xyz", "/xyz/foo"),
            ("/foo%2Fbar", "/foo", "/xyz", "/foo%2Fbar"),
        ];
        for (path, prefix, replacement, expected) in table.into_iter().chain(beyond_it) {
            assert_eq!(change(path, prefix, replacement), expected, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn a_full_replacement_keeps_the_query() {
        let full = |path: &str, to: &str| {
            changed(&path.parse().unwrap(), &PathChange::Full(to.into()), &PathMatch::default())
        };
        assert_eq!(full("/foo/bar?a=1", "/one/two"), "/one/two?a=1");
        assert_eq!(full("/foo", "/one/"), "/one/");
        assert_eq!(full("/foo", ""), "/");
        assert_eq!(full("/foo?", "one"), "/one?");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["/a b", "/a?b=c", "/a#b", "/a\r\n"] {
            assert_eq!(compile(&PathChange::Full(path.into())), Err(Invalid::Path(path.into())));
        }
    }

    proptest! {
        #[test]
        fn a_changed_path_is_a_path_with_the_clients_query(
            prefix in "(/[a-c]{1,2}){0,2}/?",
            rest in "(/[a-c%.]{0,2}){0,3}",
            query in proptest::option::of("[a-c=&/?]{0,6}"),
            replacement in "(/?[a-c]{0,2}){0,3}/?",
        ) {
            let path = format!("{}{rest}", prefix.strip_suffix('/').unwrap_or(&prefix));
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let tail = query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
            let result = change(&format!("{path}{tail}"), &prefix, &replacement);
            let parsed: PathAndQuery = result.parse().unwrap();
            prop_assert!(parsed.path().starts_with('/'));
            prop_assert_eq!(parsed.query(), query.as_deref());
            let rest = normalized(&path)
                .strip_prefix(normalized(prefix.strip_suffix('/').unwrap_or(&prefix)).as_ref())
                .map(str::to_owned);
            prop_assert!(parsed.path().ends_with(&rest.unwrap_or_default()));
        }
    }
}
