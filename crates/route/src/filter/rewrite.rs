//! Rewrites of the upstream request.
//!
//! Invariant: the request target and the `host` header have the same host.

use ambit_model::bound::{PathChange, PathMatch, Rewrite};
use http::{
    Response, StatusCode, Uri,
    request::Parts,
    uri::{Authority, PathAndQuery},
};

use super::{
    host::{authority, set_authority},
    path,
};
use crate::Invalid;

/// A compiled rewrite.
#[derive(Debug)]
pub(super) struct Rewriting {
    host: Option<Authority>,
    path: Option<PathChange>,
}

impl Rewriting {
    pub(super) fn compile(rewrite: &Rewrite) -> Result<Self, Invalid> {
        Ok(Self {
            host: rewrite.hostname.as_ref().map(authority).transpose()?,
            path: rewrite.path.as_ref().map(path::compile).transpose()?,
        })
    }

    /// Changes the request. `Some` is an error response: its path became too long.
    pub(super) fn apply(&self, request: &mut Parts, matched: &PathMatch) -> Option<Response<()>> {
        if let Some(host) = &self.host {
            set_authority(request, host);
        }
        if let (Some(change), Some(given)) = (&self.path, request.uri.path_and_query()) {
            let path = path::changed(given, change, matched);
            match PathAndQuery::try_from(path).ok().and_then(|path| with_path(&request.uri, path)) {
                Some(uri) => request.uri = uri,
                None => return Some(too_long()),
            }
        }
        None
    }
}

fn with_path(uri: &Uri, path: PathAndQuery) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

fn too_long() -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::URI_TOO_LONG;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(uri: &str, rewrite: &Rewrite, matched: &str) -> (Uri, Option<String>, Option<StatusCode>) {
        let request = http::Request::builder().uri(uri).header("host", "old:80").body(()).unwrap();
        let mut parts = request.into_parts().0;
        let answer = Rewriting::compile(rewrite)
            .unwrap()
            .apply(&mut parts, &PathMatch::Prefix(matched.into()))
            .map(|answer| answer.status());
        let host = parts.headers.get("host").map(|value| value.to_str().unwrap().to_owned());
        (parts.uri, host, answer)
    }

    #[test]
    fn host_and_path_are_rewritten_in_either_form_of_target() {
        let host = Rewrite { hostname: Some("new.example".into()), path: None };
        let full = Rewrite { hostname: None, path: Some(PathChange::Full("/one".into())) };
        let both =
            Rewrite { hostname: Some("new.example".into()), path: Some(PathChange::Prefix("/two".into())) };
        let cases = [
            ("/a/b?c", &host, "/a/b?c", "new.example"),
            ("http://old/a/b?c", &host, "http://new.example/a/b?c", "new.example"),
            ("/a/b?c", &full, "/one?c", "old:80"),
            ("/a/b?c", &both, "/two/b?c", "new.example"),
            ("http://old/a", &both, "http://new.example/two", "new.example"),
        ];
        for (uri, rewrite, expected, expected_host) in cases {
            let (uri, host, answer) = rewritten(uri, rewrite, "/a");
            assert_eq!((uri.to_string().as_str(), host.as_deref()), (expected, Some(expected_host)));
            assert_eq!(answer, None);
        }
    }

    #[test]
    fn a_path_that_becomes_too_long_is_answered_414() {
        let rewrite = Rewrite {
            hostname: None,
            path: Some(PathChange::Prefix(format!("/{}", "x".repeat(1000)).into())),
        };
        let (uri, _, answer) = rewritten(&format!("/a/{}", "y".repeat(65_000)), &rewrite, "/a");
        assert_eq!(answer, Some(StatusCode::URI_TOO_LONG));
        assert!(uri.path().starts_with("/a/"));
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        let rewrite = Rewrite { hostname: Some("a b".into()), path: None };
        assert_eq!(Rewriting::compile(&rewrite).unwrap_err(), Invalid::Host("a b".into()));
    }
}
