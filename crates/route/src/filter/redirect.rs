//! Redirects.
//!
//! Invariant: `Location` is absolute, so nothing in a client's path can become its host.

use std::sync::Arc;

use ambit_model::bound::{PathChange, Redirect};
use http::{HeaderName, HeaderValue, Response, StatusCode, header, uri::Authority};

use super::{arrival::Arrival, host::authority, path};
use crate::{Invalid, RequestHead};

const HTTP: &str = "http";
const HTTPS: &str = "https";
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A compiled redirect.
#[derive(Debug)]
pub(super) struct Redirection {
    scheme: Option<Arc<str>>,
    host: Option<Authority>,
    path: Option<PathChange>,
    port: Option<u16>,
    status: StatusCode,
    trusts_forwarded_proto: bool,
}

impl Redirection {
    pub(super) fn compile(redirect: &Redirect) -> Result<Self, Invalid> {
        if let Some(scheme) = redirect.scheme.as_ref().filter(|scheme| scheme_port(scheme).is_none()) {
            return Err(Invalid::Scheme(scheme.clone()));
        }
        let status = match redirect.status {
            301 => StatusCode::MOVED_PERMANENTLY,
            302 => StatusCode::FOUND,
            303 => StatusCode::SEE_OTHER,
            307 => StatusCode::TEMPORARY_REDIRECT,
            308 => StatusCode::PERMANENT_REDIRECT,
            other => return Err(Invalid::RedirectStatus(other)),
        };
        Ok(Self {
            scheme: redirect.scheme.clone(),
            host: redirect.hostname.as_ref().map(authority).transpose()?,
            path: redirect.path.as_ref().map(path::compile).transpose()?,
            port: redirect.port,
            status,
            trusts_forwarded_proto: redirect.trusts_forwarded_proto,
        })
    }

    /// The response. A request without host gets 400 if the redirect does not set one.
    pub(super) fn answer(&self, head: &RequestHead<'_>, arrival: Arrival<'_>) -> Response<()> {
        let mut answer = Response::new(());
        match self.location(head, arrival).and_then(|location| HeaderValue::try_from(location).ok()) {
            Some(location) => {
                *answer.status_mut() = self.status;
                answer.headers_mut().insert(header::LOCATION, location);
            }
            None => *answer.status_mut() = StatusCode::BAD_REQUEST,
        }
        answer
    }

    fn location(&self, head: &RequestHead<'_>, arrival: Arrival<'_>) -> Option<String> {
        let of_client = if self.trusts_forwarded_proto { scheme_of_client(head) } else { HTTP };
        let scheme = self.scheme.as_deref().unwrap_or(of_client);
        // The client's host is returned only if it is valid.
        let given = || head.hostname().filter(|host| host.parse::<Authority>().is_ok());
        let host = self.host.as_ref().map(Authority::as_str).or_else(given)?;
        let named_port = || head.authority()?.parse::<Authority>().ok()?.port_u16();
        let given_port = match &self.scheme {
            Some(_) => scheme_port(scheme),
            // The client connected to the port of the proxy that terminated its TLS.
            None if of_client == HTTPS => named_port().or(scheme_port(HTTPS)),
            None => None,
        };
        let port = self.port.or(given_port).unwrap_or(arrival.port);
        let path = match (&self.path, head.uri.path_and_query()) {
            (Some(change), Some(given)) => path::changed(given, change, arrival.matched),
            (_, given) => given.map_or("/", |given| given.as_str()).to_owned(),
        };
        let port = if scheme_port(scheme) == Some(port) { String::new() } else { format!(":{port}") };
        Some(format!("{scheme}://{host}{port}{path}"))
    }
}

/// The scheme that the client used at the first proxy, as that proxy reported it. Several lines or
/// a list are ambiguous and ignored.
fn scheme_of_client(head: &RequestHead<'_>) -> &'static str {
    let mut lines = head.headers.get_all(FORWARDED_PROTO).iter();
    match (lines.next(), lines.next()) {
        (Some(said), None) if said.as_bytes().eq_ignore_ascii_case(HTTPS.as_bytes()) => HTTPS,
        _ => HTTP,
    }
}

/// The default port of a scheme.
fn scheme_port(scheme: &str) -> Option<u16> {
    match scheme {
        HTTP => Some(80),
        HTTPS => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ambit_model::bound::PathMatch;
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Redirect = Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 302,
        trusts_forwarded_proto: false,
    };
    const BEHIND_PROXIES: Redirect = Redirect { trusts_forwarded_proto: true, ..NOTHING };

    fn answer(redirect: &Redirect, uri: &str, host: Option<&str>, port: u16) -> (u16, Option<String>) {
        let mut request = http::Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let arrival = Arrival { matched: &PathMatch::Prefix("/foo".into()), port };
        let answer = Redirection::compile(redirect).unwrap().answer(&RequestHead::from(&parts), arrival);
        let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location)
    }

    #[test]
    fn location_is_composed_as_the_gateway_api_says() {
        let scheme = |scheme: &str| Redirect { scheme: Some(scheme.into()), ..NOTHING };
        let host = || Redirect { hostname: Some("example.org".into()), ..NOTHING };
        let port = |port| Redirect { port: Some(port), ..NOTHING };
        let path = |change| Redirect { path: Some(change), ..NOTHING };
        let full = || PathChange::Full("/one".into());
        let prefix = || PathChange::Prefix("/xyz/".into());
        let cases = [
            ("the host alone, on the scheme's port", host(), 80, "http://example.org/foo/bar?a=1"),
            ("the host alone, on another port", host(), 8080, "http://example.org:8080/foo/bar?a=1"),
            ("the scheme alone has its own port", scheme("https"), 8080, "https://echo/foo/bar?a=1"),
            ("the scheme alone, the same one", scheme("http"), 8080, "http://echo/foo/bar?a=1"),
            ("a port that is the scheme's", port(80), 8080, "http://echo/foo/bar?a=1"),
            ("another port", port(8083), 80, "http://echo:8083/foo/bar?a=1"),
            ("443 is not the port of http", port(443), 80, "http://echo:443/foo/bar?a=1"),
            (
                "scheme and port, the scheme's",
                Redirect { port: Some(443), ..scheme("https") },
                80,
                "https://echo/foo/bar?a=1",
            ),
            (
                "scheme and port, another",
                Redirect { port: Some(80), ..scheme("https") },
                80,
                "https://echo:80/foo/bar?a=1",
            ),
            ("the whole path", path(full()), 80, "http://echo/one?a=1"),
            ("the prefix", path(prefix()), 80, "http://echo/xyz/bar?a=1"),
            (
                "everything",
                Redirect {
                    path: Some(prefix()),
                    port: Some(8443),
                    hostname: host().hostname,
                    ..scheme("https")
                },
                80,
                "https://example.org:8443/xyz/bar?a=1",
            ),
        ];
        for (name, redirect, port, expected) in cases {
            for (uri, host) in [("/foo/bar?a=1", "echo:1234"), ("http://echo:1234/foo/bar?a=1", "echo")] {
                let (status, location) = answer(&redirect, uri, Some(host), port);
                assert_eq!((status, location.as_deref()), (302, Some(expected)), "{name}");
            }
        }
    }

    #[test]
    fn a_client_that_speaks_https_with_a_trusted_proxy_is_led_to_https() {
        let port = |port| Redirect { port: Some(port), ..BEHIND_PROXIES };
        let plain = Redirect { scheme: Some("http".into()), ..BEHIND_PROXIES };
        let cases: [(&Redirect, &str, &[&str], &str); 10] = [
            (&BEHIND_PROXIES, "echo", &["https"], "https://echo/foo"),
            (&BEHIND_PROXIES, "echo:8443", &["HTTPS"], "https://echo:8443/foo"),
            (&BEHIND_PROXIES, "[::1]:8443", &["https"], "https://[::1]:8443/foo"),
            (&BEHIND_PROXIES, "echo", &["http"], "http://echo:8080/foo"),
            (&BEHIND_PROXIES, "echo", &["https", "http"], "http://echo:8080/foo"),
            (&BEHIND_PROXIES, "echo", &["https, http"], "http://echo:8080/foo"),
            (&port(9443), "echo", &["https"], "https://echo:9443/foo"),
            (&plain, "echo", &["https"], "http://echo/foo"),
            (&NOTHING, "echo", &["https"], "http://echo:8080/foo"),
            (&NOTHING, "echo:8443", &["https"], "http://echo:8080/foo"),
        ];
        for (redirect, host, said, expected) in cases {
            let mut request = http::Request::get("/foo").header("host", host);
            for line in said {
                request = request.header("x-forwarded-proto", *line);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            let arrival = Arrival { matched: &PathMatch::Prefix("/".into()), port: 8080 };
            let answer = Redirection::compile(redirect).unwrap().answer(&RequestHead::from(&parts), arrival);
            assert_eq!(answer.headers()["location"], expected, "{host} {said:?}");
        }
    }

    #[test]
    fn every_status_of_a_redirect_is_kept_and_no_other_taken() {
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(answer(&Redirect { status, ..NOTHING }, "/", Some("echo"), 80).0, status);
        }
        for status in [200, 300, 304, 309, 1000] {
            let error = Redirection::compile(&Redirect { status, ..NOTHING }).unwrap_err();
            assert_eq!(error, Invalid::RedirectStatus(status));
        }
    }

    #[test]
    fn a_path_that_looks_like_a_host_stays_a_path() {
        let (_, location) = answer(&NOTHING, "//evil.example/a", Some("echo"), 80);
        assert_eq!(location.as_deref(), Some("http://echo//evil.example/a"));
    }

    proptest! {
        #[test]
        fn nothing_a_client_writes_into_its_path_leads_to_another_host(
            path in "/[!-~]{0,20}",
            replace in proptest::bool::ANY,
        ) {
            let change = replace.then(|| PathChange::Prefix("".into()));
            let redirect = Redirect { path: change, ..NOTHING };
            let target: Result<http::Uri, _> = path.parse();
            prop_assume!(target.is_ok());
            let (status, location) = answer(&redirect, &path, Some("echo"), 80);
            prop_assert_eq!(status, 302);
            let location: http::Uri = location.unwrap().parse().unwrap();
            prop_assert_eq!(location.authority().map(Authority::as_str), Some("echo"));
        }
    }

    #[test]
    fn without_any_host_there_is_no_address() {
        for host in [None, Some(""), Some("a/b"), Some("a b"), Some("a?b"), Some("[::1")] {
            assert_eq!(answer(&NOTHING, "/foo", host, 80), (400, None), "{host:?}");
        }
        let named = Redirect { hostname: Some("example.org".into()), ..NOTHING };
        assert_eq!(answer(&named, "/foo", None, 80), (302, Some("http://example.org/foo".into())));
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let scheme = Redirect { scheme: Some("ftp".into()), ..NOTHING };
        assert_eq!(Redirection::compile(&scheme).unwrap_err(), Invalid::Scheme("ftp".into()));
        let host = Redirect { hostname: Some("a/b".into()), ..NOTHING };
        assert_eq!(Redirection::compile(&host).unwrap_err(), Invalid::Host("a/b".into()));
    }
}
