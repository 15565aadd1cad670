//! The conditions of a match other than the path.
//!
//! Invariant: the lines of a header are compared one by one, never joined, as policies do too. The
//! exception is `cookie`, which HTTP/2 may split into several lines (RFC 9113 §8.2.3).

use std::sync::Arc;

use ambit_model::bound::{HeaderMatch, HttpMatch, QueryMatch, ValueMatch};
use http::{HeaderName, Method, header};

use crate::{Invalid, RequestHead, expression};

/// Header conditions. Of several conditions for one name, only the first counts (Gateway API).
#[derive(Clone, Debug, Default)]
pub struct HeaderCriteria(Vec<(HeaderName, Value)>);

impl HeaderCriteria {
    /// Compiles the conditions; if one is invalid, all are.
    ///
    /// # Errors
    /// The first name or value that cannot be compiled.
    pub fn compile(matches: &[HeaderMatch]) -> Result<Self, Invalid> {
        let mut compiled: Vec<(HeaderName, Value)> = Vec::with_capacity(matches.len());
        for HeaderMatch { name, value } in matches {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| Invalid::HeaderName(name.clone()))?;
            if !compiled.iter().any(|(known, _)| *known == name) {
                compiled.push((name, Value::compile(value)?));
            }
        }
        Ok(Self(compiled))
    }

    /// Whether all of them match.
    pub fn hold(&self, head: &RequestHead<'_>) -> bool {
        self.0.iter().all(|(name, value)| header_holds(head, name, value))
    }
}

/// All conditions of a match except the path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Criteria {
    method: Option<Method>,
    headers: HeaderCriteria,
    query: Vec<(Arc<str>, Value)>,
}

impl Criteria {
    pub(crate) fn compile(source: &HttpMatch) -> Result<Self, Invalid> {
        let method =
            |text: &Arc<str>| Method::from_bytes(text.as_bytes()).map_err(|_| Invalid::Method(text.clone()));
        let mut query: Vec<(Arc<str>, Value)> = Vec::with_capacity(source.query.len());
        for QueryMatch { name, value } in &source.query {
            if !query.iter().any(|(known, _)| known == name) {
                query.push((name.clone(), Value::compile(value)?));
            }
        }
        Ok(Self {
            method: source.method.as_ref().map(method).transpose()?,
            headers: HeaderCriteria::compile(&source.headers)?,
            query,
        })
    }

    pub(crate) fn hold(&self, head: &RequestHead<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == head.method)
            && self.headers.hold(head)
            && self.query.iter().all(|(name, value)| {
                head.query_value(name).is_some_and(|given| value.holds(given.as_bytes()))
            })
    }
}

#[derive(Clone, Debug)]
enum Value {
    Exact(Arc<str>),
    Expression(regex::bytes::Regex),
}

impl Value {
    fn compile(source: &ValueMatch) -> Result<Self, Invalid> {
        match source {
            ValueMatch::Exact(value) => Ok(Self::Exact(value.clone())),
            ValueMatch::Regex(value) => expression::whole(value).map(Self::Expression),
        }
    }

    fn holds(&self, given: &[u8]) -> bool {
        match self {
            Self::Exact(value) => value.as_bytes() == given,
            Self::Expression(expression) => expression.is_match(given),
        }
    }
}

fn header_holds(head: &RequestHead<'_>, name: &HeaderName, value: &Value) -> bool {
    // HTTP/2 has no `host` header; the host is part of the target.
    if name == header::HOST {
        return head.authority().is_some_and(|authority| value.holds(authority.as_bytes()));
    }
    if name == header::COOKIE && head.headers.get_all(name).iter().nth(1).is_some() {
        return value.holds(&head.header_values(name).collect::<Vec<_>>().join(&b"; "[..]));
    }
    head.header_values(name).any(|given| value.holds(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: ValueMatch) -> HeaderMatch {
        HeaderMatch { name: name.into(), value }
    }

    fn exact(value: &str) -> ValueMatch {
        ValueMatch::Exact(value.into())
    }

    fn regex(value: &str) -> ValueMatch {
        ValueMatch::Regex(value.into())
    }

    fn holds(matched: &HttpMatch, request: http::request::Builder) -> bool {
        let parts = request.body(()).unwrap().into_parts().0;
        Criteria::compile(matched).unwrap().hold(&RequestHead::from(&parts))
    }

    #[test]
    fn headers_are_compared_line_by_line_whatever_the_case_of_their_name() {
        let cases = [
            (header("version", exact("two")), true),
            (header("version", exact("three")), true),
            (header("version", exact("two, three")), false),
            (header("version", regex("t.*")), true),
            (header("version", regex("two, three")), false),
            (header("version", regex("w")), false),
            (header("missing", regex(".*")), false),
            (header("host", exact("example.com")), true),
            (header("cookie", exact("a=1; b=2")), true),
            (header("cookie", regex(r"(.*;\s*)?b=2(;.*)?")), true),
            (header("cookie", exact("b=2")), false),
        ];
        for (criterion, expected) in cases {
            let request = http::Request::builder()
                .uri("http://example.com/")
                .header("Version", "two")
                .header("VERSION", "three")
                .header("cookie", "a=1")
                .header("cookie", "b=2");
            let matched = HttpMatch { headers: vec![criterion.clone()], ..HttpMatch::default() };
            assert_eq!(holds(&matched, request), expected, "{criterion:?}");
        }
    }

    #[test]
    fn of_two_entries_for_one_name_the_first_counts() {
        let matched = HttpMatch {
            headers: vec![header("a", exact("1")), header("A", exact("2"))],
            query: ["1", "2"].map(|v| QueryMatch { name: "q".into(), value: exact(v) }).to_vec(),
            ..HttpMatch::default()
        };
        assert!(holds(&matched, http::Request::builder().uri("/?q=1").header("a", "1")));
        assert!(!holds(&matched, http::Request::builder().uri("/?q=2").header("a", "2")));
    }

    #[test]
    fn method_and_query_must_hold_too() {
        let matched = HttpMatch {
            method: Some("POST".into()),
            query: vec![QueryMatch { name: "animal".into(), value: regex("wh.le") }],
            ..HttpMatch::default()
        };
        let cases = [
            ("POST", "/?animal=whale", true),
            ("GET", "/?animal=whale", false),
            ("POST", "/?animal=whales", false),
            ("POST", "/?animal=cat&animal=whale", false),
            ("POST", "/?Animal=whale", false),
            ("POST", "/", false),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(
                holds(&matched, http::Request::builder().method(method).uri(uri)),
                expected,
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn a_criterion_that_cannot_be_read_is_named() {
        let cases = [
            (header("bad name", exact("x")), "\"bad name\" is not a valid header name"),
            (header("a", regex("(")), "\"(\" is not a regular expression"),
        ];
        for (criterion, expected) in cases {
            let error = HeaderCriteria::compile(&[criterion]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let matched = HttpMatch { method: Some("G T".into()), ..HttpMatch::default() };
        assert_eq!(Criteria::compile(&matched).unwrap_err(), Invalid::Method("G T".into()));
    }
}
