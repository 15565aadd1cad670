//! Origins, and patterns for them.
//!
//! Invariant: scheme, host and port are compared separately, so that no pattern can match across
//! them: `https://*.a.com` does not match `https://evil.com/.a.com`.

use std::sync::Arc;

use crate::Invalid;

/// An allowed origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `*`, any origin.
    Any,
    /// `scheme://host[:port]`.
    These(Parts<Host>),
}

/// The host of an allowed origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Exact(String),
    /// Ends with this suffix and has at least one character before it.
    Suffix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts<H> {
    scheme: String,
    host: H,
    /// `None`: the scheme has no default port.
    port: Option<u16>,
}

impl Origin {
    pub(super) fn parse(text: &Arc<str>) -> Result<Self, Invalid> {
        if &**text == "*" {
            return Ok(Self::Any);
        }
        let invalid = || Invalid::Origin(text.clone());
        let Parts { scheme, host, port } = parts(text).ok_or_else(invalid)?;
        let host = match host.strip_prefix('*') {
            Some(suffix) if suffix.contains('*') => return Err(invalid()),
            Some(suffix) => Host::Suffix(suffix.to_owned()),
            None if host.contains('*') => return Err(invalid()),
            None => Host::Exact(host),
        };
        Ok(Self::These(Parts { scheme, host, port }))
    }

    /// Whether it matches the origin of a request.
    pub(super) fn takes(&self, origin: &str) -> bool {
        let allowed = match self {
            Self::Any => return !origin.is_empty(),
            Self::These(allowed) => allowed,
        };
        parts(origin).is_some_and(|given| {
            let host = match &allowed.host {
                Host::Exact(host) => given.host == *host,
                Host::Suffix(suffix) => given.host.len() > suffix.len() && given.host.ends_with(suffix),
            };
            host && given.scheme == allowed.scheme && given.port == allowed.port
        })
    }
}

/// Splits an origin into scheme, host and port; scheme and host in lower case (RFC 6454 §4).
fn parts(text: &str) -> Option<Parts<String>> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*');
    let after_address = rest.strip_prefix('[').and_then(|address| address.find(']')).map_or(0, |end| end + 2);
    let (address, tail) = rest.split_at_checked(after_address)?;
    let (name, port) = tail.split_once(':').map_or((tail, None), |(name, port)| (name, Some(port)));
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
        None => match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        },
    };
    let host_is_whole = if address.is_empty() { !name.is_empty() } else { name.is_empty() };
    let is_whole =
        host_is_whole && !scheme.is_empty() && scheme.bytes().all(is_scheme) && name.bytes().all(is_host);
    is_whole.then(|| Parts { scheme, host: format!("{address}{name}").to_ascii_lowercase(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_origin_is_compared_part_by_part() {
        let cases = [
            ("*", "https://a.com", true),
            ("*", "null", true),
            ("*", "", false),
            ("https://a.com", "https://a.com", true),
            ("https://a.com", "HTTPS://A.com", true),
            ("https://a.com", "https://a.com:443", true),
            ("https://a.com:443", "https://a.com", true),
            ("http://a.com:80", "http://a.com", true),
            ("https://a.com", "http://a.com", false),
            ("https://a.com", "https://a.com:8443", false),
            ("https://a.com:8443", "https://a.com:8443", true),
            ("https://a.com", "https://b.a.com", false),
            ("https://a.com", "https://a.com.evil.org", false),
            ("https://a.com", "null", false),
            ("https://*.a.com", "https://b.a.com", true),
            ("https://*.a.com", "https://c.b.a.com", true),
            ("https://*.a.com", "https://a.com", false),
            ("https://*.a.com", "https://.a.com", false),
            ("https://*.a.com", "https://evila.com", false),
            ("https://*.a.com", "http://b.a.com", false),
            ("https://*.a.com", "https://b.a.com:8443", false),
            ("https://*.a.com", "https://evil.org/.a.com", false),
            ("https://*.a.com", "https://evil.org:1.a.com", false),
            ("https://*.a.com", "https://evil.org#.a.com", false),
            ("https://*.a.com", "https://user@b.a.com", false),
            ("https://*.a.com:8443", "https://b.a.com:8443", true),
            ("https://*", "https://whatever.org", true),
            ("https://*", "http://whatever.org", false),
            ("http://[::1]:80", "http://[::1]", true),
            ("http://[::1]", "http://[::2]", false),
            ("moz-extension://a", "moz-extension://a", true),
        ];
        for (pattern, origin, expected) in cases {
            let parsed = Origin::parse(&pattern.into()).unwrap();
            assert_eq!(parsed.takes(origin), expected, "{pattern} {origin}");
        }
    }

    proptest! {
        #[test]
        fn an_origin_that_a_suffix_takes_has_a_host_below_it(
            before in "[a-z.:/@#?%\\\\\\[\\]-]{0,8}",
            after in "(:[0-9]{0,5})?",
        ) {
            let pattern = Origin::parse(&"https://*.a.com".into()).unwrap();
            let origin = format!("https://{before}.a.com{after}");
            if pattern.takes(&origin) {
                let uri: http::Uri = origin.parse().unwrap();
                prop_assert!(uri.host().is_some_and(|host| host.ends_with(".a.com")), "{}", origin);
                prop_assert!(!uri.authority().unwrap().as_str().contains('@'));
                prop_assert!(uri.port_u16().is_none_or(|port| port == 443));
                prop_assert_eq!(uri.path(), "/");
            }
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "a.com",
            "https://",
            "://a.com",
            "https://a.com/",
            "https://a.com:x",
            "https://a.com:99999",
            "https://a.*.com",
            "https://**.com",
            "https://[::1",
            "https://[::1]a",
        ] {
            assert_eq!(Origin::parse(&text.into()), Err(Invalid::Origin(text.into())));
        }
    }
}
