//! Header changes.
//!
//! Invariant: headers that describe the connection or frame the message are left alone, so that no
//! route can make two peers disagree about the end of a message. A request always has exactly one
//! host.

use std::sync::Arc;

use ambit_model::bound::HeaderChange;
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts, uri::Authority};

use super::host::{authority, set_authority};
use crate::Invalid;

/// Hop-by-hop headers (RFC 9110 §7.6.1) and message framing (RFC 9112 §6).
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
];

/// Compiled header changes: set, then add, then remove.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    /// The new host; only for requests.
    host: Option<Authority>,
}

impl HeaderEdits {
    pub(super) fn compile(change: &HeaderChange) -> Result<Self, Invalid> {
        let mut edits = Self::default();
        for (name, value) in &change.set {
            let name = header_name(name)?;
            if name == header::HOST {
                edits.host = Some(authority(value)?);
            }
            edits.set.push((name.clone(), header_value(&name, value)?));
        }
        for (name, value) in &change.add {
            let name = header_name(name)?;
            edits.add.push((name.clone(), header_value(&name, value)?));
        }
        edits.remove = change.remove.iter().map(header_name).collect::<Result<_, _>>()?;
        edits.set.retain(|(name, _)| is_free(name));
        edits.add.retain(|(name, _)| is_free(name));
        edits.remove.retain(is_free);
        Ok(edits)
    }

    pub(super) fn apply_to_request(&self, request: &mut Parts) {
        self.apply(&mut request.headers);
        if let Some(host) = &self.host {
            set_authority(request, host);
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// Whether routes may change a header: it is not hop-by-hop, not part of the message framing, and
/// not the host.
pub fn is_free(name: &HeaderName) -> bool {
    *name != header::HOST && !OF_THE_CONNECTION.contains(name)
}

fn header_name(name: &Arc<str>) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| Invalid::HeaderName(name.clone()))
}

fn header_value(name: &HeaderName, value: &Arc<str>) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_str(value).map_err(|_| Invalid::HeaderValue(name.as_str().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderChange {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        HeaderChange {
            set: pairs(set),
            add: pairs(add),
            remove: remove.iter().map(|n| (*n).into()).collect(),
        }
    }

    fn changed(uri: &str, given: &[(&str, &str)], change: &HeaderChange) -> (String, Vec<(String, String)>) {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in given {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        HeaderEdits::compile(change).unwrap().apply_to_request(&mut parts);
        let headers = parts.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
        (parts.uri.to_string(), headers.collect())
    }

    #[test]
    fn set_replaces_add_joins_and_remove_takes_every_value() {
        let given = [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("c", "2")];
        let (_, mut headers) =
            changed("/", &given, &change(&[("A", "3"), ("d", "1")], &[("b", "2")], &["C", "e"]));
        headers.sort();
        let expected = [("a", "3"), ("b", "1"), ("b", "2"), ("d", "1")];
        assert_eq!(headers, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn setting_the_host_changes_the_authority_and_nothing_else_does() {
        let cases = [
            ("/a?b", change(&[("host", "new:1")], &[], &[]), "/a?b", Some("new:1")),
            ("http://old/a?b", change(&[("Host", "new")], &[], &[]), "http://new/a?b", Some("new")),
            ("/a", change(&[], &[("host", "new")], &[]), "/a", Some("old")),
            ("/a", change(&[], &[], &["host"]), "/a", Some("old")),
        ];
        for (uri, change, expected_uri, expected_host) in cases {
            let (uri, headers) = changed(uri, &[("host", "old")], &change);
            assert_eq!(uri, expected_uri, "{change:?}");
            let host = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
            assert_eq!(host, expected_host, "{change:?}");
        }
    }

    #[test]
    fn headers_of_the_connection_and_of_the_framing_are_left_alone() {
        for name in OF_THE_CONNECTION {
            let name = name.as_str();
            for change in [
                change(&[(name, "new")], &[], &[]),
                change(&[], &[(name, "new")], &[]),
                change(&[], &[], &[name]),
            ] {
                let (_, headers) = changed("/", &[(name, "old")], &change);
                assert_eq!(headers, [(name.to_owned(), "old".to_owned())], "{change:?}");
            }
        }
    }

    #[test]
    fn a_change_that_no_header_can_hold_is_named() {
        let cases = [
            (change(&[("a b", "1")], &[], &[]), Invalid::HeaderName("a b".into())),
            (change(&[], &[("a", "1\r\nb: 2")], &[]), Invalid::HeaderValue("a".into())),
            (change(&[], &[], &["é"]), Invalid::HeaderName("é".into())),
            (change(&[("host", "a/b")], &[], &[]), Invalid::Host("a/b".into())),
            (change(&[("host", "user@a")], &[], &[]), Invalid::Host("user@a".into())),
        ];
        for (change, expected) in cases {
            assert_eq!(HeaderEdits::compile(&change).unwrap_err(), expected);
        }
    }
}
