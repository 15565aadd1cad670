//! Changes to a request after its tokens were verified.
//!
//! Invariant: after all edits, a header reserved for token data contains data of a verified token,
//! or is absent.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Uri, header, request::Parts, uri::PathAndQuery};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Remove every value of a header.
    RemoveHeader(HeaderName),
    /// Replace a header by this value.
    SetHeader(HeaderName, HeaderValue),
    /// Remove every value of a query parameter.
    RemoveQuery(Arc<str>),
    /// Remove every value of a cookie.
    RemoveCookie(Arc<str>),
}

impl Edit {
    /// Applies the change.
    pub fn apply(&self, request: &mut Parts) {
        match self {
            Self::RemoveHeader(name) => _ = request.headers.remove(name),
            Self::SetHeader(name, value) => _ = request.headers.insert(name, value.clone()),
            Self::RemoveQuery(name) => {
                if let Some(uri) = without_query(&request.uri, name) {
                    request.uri = uri;
                }
            }
            Self::RemoveCookie(name) => {
                let left: Vec<_> = request
                    .headers
                    .get_all(header::COOKIE)
                    .iter()
                    .filter_map(|value| without_cookie(value, name))
                    .collect();
                request.headers.remove(header::COOKIE);
                for value in left {
                    request.headers.append(header::COOKIE, value);
                }
            }
        }
    }
}

fn without_query(uri: &Uri, name: &str) -> Option<Uri> {
    let left: Vec<_> = uri.query()?.split('&').filter(|pair| pair.split('=').next() != Some(name)).collect();
    let path = match left.as_slice() {
        [] => uri.path().to_owned(),
        left => format!("{}?{}", uri.path(), left.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

fn without_cookie(value: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let Ok(text) = value.to_str() else { return Some(value.clone()) };
    let left: Vec<_> = text
        .split(';')
        .map(str::trim)
        .filter(|pair| pair.split('=').next().map(str::trim) != Some(name))
        .collect();
    if left.is_empty() { None } else { HeaderValue::try_from(left.join("; ")).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(uri: &str, headers: &[(&str, &str)], edit: &Edit) -> (String, Vec<(String, String)>) {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        edit.apply(&mut parts);
        let headers = parts.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
        (parts.uri.to_string(), headers.collect())
    }

    #[test]
    fn a_token_is_cut_out_of_the_query_and_the_rest_stays_as_written() {
        let edit = Edit::RemoveQuery("token".into());
        for (uri, expected) in [
            ("/a?token=x", "/a"),
            ("/a?b=%20&token=x&c", "/a?b=%20&c"),
            ("http://host/a?token=x&token=y&b", "http://host/a?b"),
            ("/a?tokens=x", "/a?tokens=x"),
            ("/a", "/a"),
        ] {
            assert_eq!(edited(uri, &[], &edit).0, expected);
        }
    }

    #[test]
    fn a_token_is_cut_out_of_the_cookies_and_the_others_stay() {
        let edit = Edit::RemoveCookie("token".into());
        let cookie = |value: &str| vec![("cookie".to_owned(), value.to_owned())];
        assert_eq!(edited("/", &[("cookie", "a=1; token=x;b=2")], &edit).1, cookie("a=1; b=2"));
        assert_eq!(edited("/", &[("cookie", "token=x"), ("cookie", "b=2")], &edit).1, cookie("b=2"));
        assert_eq!(edited("/", &[("cookie", "token=x")], &edit).1, []);
    }

    #[test]
    fn a_header_is_replaced_or_removed_with_all_its_values() {
        let name = HeaderName::from_static("x-user");
        let given = [("x-user", "a"), ("x-user", "b")];
        let set = Edit::SetHeader(name.clone(), HeaderValue::from_static("c"));
        assert_eq!(edited("/", &given, &set).1, [("x-user".to_owned(), "c".to_owned())]);
        assert_eq!(edited("/", &given, &Edit::RemoveHeader(name)).1, []);
    }
}
