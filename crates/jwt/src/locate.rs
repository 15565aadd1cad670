//! Finding tokens in a request.
//!
//! Invariant: one location contains at most one token. The same token in two locations counts once.
//! Different tokens in one location are rejected, because the next reader might use another one.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::bound::TokenLocation;
use ambit_route::RequestHead;
use http::{HeaderName, header};

use crate::{Edit, Refusal};

/// Where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// `authorization: Bearer`; the scheme is case-insensitive (RFC 9110 §11.1).
    Bearer,
    Header {
        name: HeaderName,
        prefix: Arc<str>,
    },
    Query(Arc<str>),
    Cookie(Arc<str>),
}

/// A token found in a request.
#[derive(Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) token: &'a str,
    /// Indexes of the providers that accept this location, ascending.
    pub(crate) providers: BTreeSet<usize>,
    /// Where it was found.
    pub(crate) found: Vec<&'a Location>,
}

impl Location {
    /// The locations of a provider, or the defaults of RequestAuthentication.
    pub(crate) fn compile(source: &[TokenLocation]) -> Vec<Self> {
        if source.is_empty() {
            return vec![Self::Bearer, Self::Query("access_token".into())];
        }
        let compile = |location: &TokenLocation| match location {
            TokenLocation::Header { name, prefix } => {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                let is_bearer =
                    name == header::AUTHORIZATION && prefix.trim_end().eq_ignore_ascii_case("bearer");
                Some(if is_bearer { Self::Bearer } else { Self::Header { name, prefix: prefix.clone() } })
            }
            TokenLocation::Query(name) => Some(Self::Query(name.clone())),
            TokenLocation::Cookie(name) => Some(Self::Cookie(name.clone())),
        };
        source.iter().filter_map(compile).collect()
    }

    /// The edit that removes the token from the request.
    pub(crate) fn removal(&self) -> Edit {
        match self {
            Self::Bearer => Edit::RemoveHeader(header::AUTHORIZATION),
            Self::Header { name, .. } => Edit::RemoveHeader(name.clone()),
            Self::Query(name) => Edit::RemoveQuery(name.clone()),
            Self::Cookie(name) => Edit::RemoveCookie(name.clone()),
        }
    }

    /// Tokens at this location; an empty value is no token.
    fn tokens<'a>(&'a self, head: &RequestHead<'a>) -> Vec<&'a str> {
        let mut tokens: Vec<_> = match self {
            Self::Bearer => head.header_values(&header::AUTHORIZATION).filter_map(after_bearer).collect(),
            Self::Header { name, prefix } => head
                .header_values(name)
                .filter_map(|value| value.strip_prefix(prefix.as_bytes()))
                .map(text)
                .collect(),
            Self::Query(name) => head.query_values(name).collect(),
            Self::Cookie(name) => head.cookies(name).collect(),
        };
        tokens.retain(|token| !token.is_empty());
        tokens
    }
}

/// The tokens of a request, given the locations of each provider, in the order of these.
pub(crate) fn present<'a>(
    providers: impl Iterator<Item = &'a [Location]>,
    head: &RequestHead<'a>,
) -> Result<Vec<Presented<'a>>, Refusal> {
    let mut presented: Vec<Presented<'a>> = Vec::new();
    for (place, locations) in providers.enumerate() {
        for location in locations {
            let tokens = location.tokens(head);
            let Some(token) = tokens.first().copied() else { continue };
            if tokens.iter().any(|other| *other != token) {
                return Err(Refusal::SeveralTokens);
            }
            match presented.iter_mut().find(|known| known.token == token) {
                Some(known) => {
                    known.providers.insert(place);
                    if !known.found.contains(&location) {
                        known.found.push(location);
                    }
                }
                None => presented.push(Presented { token, providers: [place].into(), found: vec![location] }),
            }
        }
    }
    Ok(presented)
}

fn after_bearer(value: &[u8]) -> Option<&str> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = value.split_at_checked(end)?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| text(token))
}

/// A value that is not text counts as an invalid token, not as absent.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value.trim_ascii()).unwrap_or("\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(
        locations: &[Vec<Location>],
        request: http::request::Builder,
    ) -> Result<Vec<(String, Vec<usize>)>, Refusal> {
        let parts = request.body(()).unwrap().into_parts().0;
        let locations = locations.iter().map(Vec::as_slice);
        let presented = present(locations, &RequestHead::from(&parts))?;
        let told = |one: Presented<'_>| (one.token.to_owned(), one.providers.into_iter().collect());
        Ok(presented.into_iter().map(told).collect())
    }

    fn request() -> http::request::Builder {
        http::Request::builder()
    }

    #[test]
    fn a_token_is_found_where_its_provider_looks() {
        let default = || Location::compile(&[]);
        let header =
            |name: &str, prefix: &str| TokenLocation::Header { name: name.into(), prefix: prefix.into() };
        let own = || {
            Location::compile(&[
                header("x-token", "jwt-"),
                header("authorization", "Bearer "),
                TokenLocation::Query("t".into()),
                TokenLocation::Cookie("c".into()),
            ])
        };
        let cases = [
            ("nowhere", default(), request(), None),
            ("bearer", default(), request().header("authorization", "Bearer abc"), Some("abc")),
            (
                "bearer, in any case",
                default(),
                request().header("authorization", "bEARER  abc "),
                Some("abc"),
            ),
            ("another scheme", default(), request().header("authorization", "Basic abc"), None),
            ("a scheme alone", default(), request().header("authorization", "Bearer "), None),
            ("the query", default(), request().uri("/?a=1&access_token=abc"), Some("abc")),
            ("an empty query", default(), request().uri("/?access_token="), None),
            ("elsewhere in the query", default(), request().uri("/?t=abc"), None),
            ("a header", own(), request().header("x-token", "jwt-abc"), Some("abc")),
            ("a header without its prefix", own(), request().header("x-token", "abc"), None),
            ("bearer, named", own(), request().header("authorization", "bearer abc"), Some("abc")),
            ("a query of its own", own(), request().uri("/?t=abc"), Some("abc")),
            ("a cookie", own(), request().header("cookie", "a=1; c=abc"), Some("abc")),
            ("an empty cookie", own(), request().header("cookie", "c="), None),
            ("no text", own(), request().header("authorization", &b"Bearer \xff"[..]), Some("\u{fffd}")),
        ];
        for (name, locations, request, expected) in cases {
            let expected = expected.into_iter().map(|token| (token.to_owned(), vec![0])).collect();
            assert_eq!(presented(&[locations], request), Ok(expected), "{name}");
        }
    }

    #[test]
    fn one_token_in_two_places_is_one_and_two_in_one_place_are_refused() {
        let places = [Location::compile(&[]), vec![Location::Cookie("c".into())]];
        let both = |cookie| request().header("authorization", "Bearer abc").header("cookie", cookie);
        let one = |token: &str, places: &[usize]| (token.to_owned(), places.to_vec());
        assert_eq!(presented(&places, both("c=abc")), Ok(vec![one("abc", &[0, 1])]));
        assert_eq!(presented(&places, both("c=abd")), Ok(vec![one("abc", &[0]), one("abd", &[1])]));
        assert_eq!(presented(&places, both("d=abd")), Ok(vec![one("abc", &[0])]));
        let twice = request().header("authorization", "Bearer a").header("authorization", "Bearer b");
        assert_eq!(presented(&places, twice), Err(Refusal::SeveralTokens));
        assert_eq!(presented(&places, both("c=1; c=2")), Err(Refusal::SeveralTokens));
    }
}
