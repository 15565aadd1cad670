//! The decision of a provider, and what it may change about an allowed request and its response. Pure.
//!
//! Invariant: a provider changes header fields of the message only: neither its target nor its framing nor its connection,
//! so that later phases evaluate the request that is forwarded.

use ambit_model::StringMatch;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

/// How a value combines with existing values of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Replaces them.
    Overwrite,
    /// Replaces them if there are some, else it is dropped.
    OverwriteIfExists,
    /// Is added to them.
    Append,
    /// Is added only if there are none.
    AddIfAbsent,
}

/// One value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
    pub(super) how: How,
}

/// All changes of an allowed request and its response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Fields removed from the request, before any is set.
    pub(super) removed: Vec<HeaderName>,
    /// Fields set in the request.
    pub(super) request: Vec<Change>,
    /// Fields set in the response.
    pub(super) response: Vec<Change>,
}

/// The decision of a provider.
#[derive(Debug)]
pub(super) enum Decision {
    /// The request is allowed, with these changes.
    Admit(Changes),
    /// The request is refused with this response.
    Refuse(Response<Bytes>),
}

/// Applies changes in their order.
pub(super) fn apply(changes: &[Change], headers: &mut HeaderMap) {
    for Change { name, value, how } in changes {
        let exists = headers.contains_key(name);
        match how {
            How::Overwrite => _ = headers.insert(name, value.clone()),
            How::OverwriteIfExists if exists => _ = headers.insert(name, value.clone()),
            How::AddIfAbsent if exists => {}
            How::OverwriteIfExists => {}
            How::Append | How::AddIfAbsent => _ = headers.append(name, value.clone()),
        }
    }
}

/// The status of a refusal; 403 if the code is not a final HTTP status.
pub(super) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .unwrap_or(StatusCode::FORBIDDEN)
}

/// Whether a field belongs to the message, and not to its target, framing or connection.
pub(super) fn is_of_message(name: &HeaderName) -> bool {
    const OTHERS: [HeaderName; 11] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ];
    !OTHERS.contains(name)
}

/// Whether one of the patterns matches a name in lower case, ignoring the pattern's case.
pub(super) fn names(patterns: &[StringMatch], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern {
        StringMatch::Exact(text) => name.eq_ignore_ascii_case(text),
        StringMatch::Prefix(text) => {
            name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
        }
        StringMatch::Suffix(text) => name
            .len()
            .checked_sub(text.len())
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(text)),
        StringMatch::Presence => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &'static str, value: &'static str, how: How) -> Change {
        Change { name: HeaderName::from_static(name), value: HeaderValue::from_static(value), how }
    }

    #[test]
    fn a_value_takes_the_place_of_the_clients_or_joins_it_as_it_says() {
        for (how, with_old, without) in [
            (How::Overwrite, vec!["new"], vec!["new"]),
            (How::OverwriteIfExists, vec!["new"], vec![]),
            (How::Append, vec!["old", "older", "new"], vec!["new"]),
            (How::AddIfAbsent, vec!["old", "older"], vec!["new"]),
        ] {
            let mut headers = HeaderMap::new();
            headers.append("x-user", HeaderValue::from_static("old"));
            headers.append("x-user", HeaderValue::from_static("older"));
            apply(&[change("x-user", "new", how)], &mut headers);
            let mut empty = HeaderMap::new();
            apply(&[change("x-user", "new", how)], &mut empty);
            assert_eq!(headers.get_all("x-user").iter().collect::<Vec<_>>(), with_old, "{how:?}");
            assert_eq!(empty.get_all("x-user").iter().collect::<Vec<_>>(), without, "{how:?}");
        }
    }

    #[test]
    fn names_are_compared_as_istio_writes_them() {
        let patterns = [
            StringMatch::Exact("X-User".into()),
            StringMatch::Prefix("x-auth-".into()),
            StringMatch::Suffix("-id".into()),
        ];
        for (name, expected) in [
            ("x-user", true),
            ("x-auth-mail", true),
            ("x-auth", false),
            ("request-id", true),
            ("id", false),
            ("x-users", false),
        ] {
            assert_eq!(names(&patterns, name), expected, "{name}");
        }
        assert!(names(&[StringMatch::Presence], "anything") && !names(&[], "anything"));
    }
}
