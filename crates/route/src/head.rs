//! The head of a request, as routing and policies read it: method, target, headers.
//!
//! Invariant: all values are returned as the client sent them, without decoding, so that two
//! readers cannot interpret one request differently. Only the path also has a normalized form,
//! shared by routes and policies.

use std::borrow::Cow;

use ambit_model::authorization::normalize_path;
use http::{HeaderMap, HeaderName, Method, Uri, header, request::Parts};

/// A request without its body.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Request target.
    pub uri: &'a Uri,
    /// Header fields.
    pub headers: &'a HeaderMap,
}

impl<'a> From<&'a Parts> for RequestHead<'a> {
    fn from(parts: &'a Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers }
    }
}

impl<'a> RequestHead<'a> {
    /// Path without query, as sent.
    pub fn path(&self) -> &'a str {
        self.uri.path()
    }

    /// Path as routes compare it, and policies in their strict reading: normalized, or unchanged if
    /// its meaning is uncertain.
    pub fn normalized_path(&self) -> Cow<'a, str> {
        normalized(self.path())
    }

    /// Host with port, as sent: from the target, otherwise from the `host` header (RFC 9112
    /// §3.2.2).
    pub fn authority(&self) -> Option<&'a str> {
        let of_header = || self.headers.get(header::HOST).and_then(|value| value.to_str().ok());
        self.uri.authority().map(|authority| authority.as_str()).or_else(of_header)
    }

    /// Host without port.
    pub fn hostname(&self) -> Option<&'a str> {
        let authority = self.authority()?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        match host.strip_prefix('[').and_then(|address| address.find(']')) {
            Some(end) => host.get(..end + 2),
            None => host.split(':').next(),
        }
        .filter(|host| !host.is_empty())
    }

    /// First value of a query parameter.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        self.query_values(name).next()
    }

    /// Every value of a query parameter.
    pub fn query_values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        pairs(self.uri.query().unwrap_or_default(), '&')
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// First value of a cookie (RFC 6265 §4.2.1); HTTP/2 may split cookies into several headers.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.cookies(name).next()
    }

    /// Every value of a cookie.
    pub fn cookies(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let headers = self
            .headers
            .get_all(header::COOKIE)
            .into_iter()
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
        headers
            .flat_map(|header| pairs(header, ';'))
            .filter(move |(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().trim_matches('"'))
    }

    /// Values of a header, one per line.
    pub fn header_values(&self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.headers.get_all(name).into_iter().map(|value| value.as_bytes())
    }
}

/// See [`RequestHead::normalized_path`].
pub(crate) fn normalized(path: &str) -> Cow<'_, str> {
    normalize_path(path).unwrap_or(Cow::Borrowed(path))
}

fn pairs(text: &str, separator: char) -> impl Iterator<Item = (&str, &str)> {
    text.split(separator).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_host_is_that_of_the_target_else_that_of_the_header_and_without_its_port() {
        let cases = [
            ("/a", "example.com:8080", Some("example.com")),
            ("/a", "[::1]:80", Some("[::1]")),
            ("/a", "[::1]", Some("[::1]")),
            ("http://other.com/a", "example.com", Some("other.com")),
            ("http://user@other.com:1/a", "example.com", Some("other.com")),
            ("/a", "", None),
        ];
        for (uri, host, expected) in cases {
            let parts = parts(uri, &[("host", host)]);
            assert_eq!(RequestHead::from(&parts).hostname(), expected, "{uri} {host}");
        }
        assert_eq!(RequestHead::from(&parts("/a", &[])).hostname(), None);
    }

    #[test]
    fn the_first_value_of_a_query_parameter_counts_as_written() {
        let parts = parts("/?a=1&b=x%20y&a=2&c&=d&e=f=g", &[]);
        let head = RequestHead::from(&parts);
        assert_eq!(head.query_value("a"), Some("1"));
        assert_eq!(head.query_value("b"), Some("x%20y"));
        assert_eq!(head.query_value("c"), Some(""));
        assert_eq!(head.query_value(""), Some("d"));
        assert_eq!(head.query_value("e"), Some("f=g"));
        assert_eq!(head.query_value("z"), None);
        assert_eq!(head.query_values("a").collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn cookies_are_found_in_every_cookie_header() {
        let parts = parts("/", &[("cookie", "a=1; b=\"2\""), ("cookie", "c=3;a=4")]);
        let head = RequestHead::from(&parts);
        assert_eq!(head.cookie("b"), Some("2"));
        assert_eq!(head.cookie("c"), Some("3"));
        assert_eq!(head.cookies("a").collect::<Vec<_>>(), ["1", "4"]);
        assert_eq!(head.cookie("d"), None);
    }
}
