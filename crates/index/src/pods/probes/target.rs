//! The request target that the kubelet derives from `httpGet.path`.
//!
//! The kubelet parses the path as a URL, sets scheme and host, formats it, parses it again, and its
//! HTTP client sends `URL.RequestURI()` (kubernetes `pkg/probe/http/request.go`, Go `net/url`).

/// Characters that Go does not escape in a path (`net/url`, `shouldEscape`).
const PLAIN: &[u8] = b"-_.~$&+,/:;=@";
/// Further characters that may appear unescaped in a path (`net/url`, `validEncoded`).
const ALLOWED: &[u8] = b"!'()*[]";

/// The request target; `None` if the kubelet sends no request.
pub(super) fn request_target(path: &str) -> Option<String> {
    match parse(path) {
        Parsed::Url(path, Some(query)) => Some(format!("{}?{query}", rooted(&written(path)))),
        Parsed::Url(path, None) => Some(rooted(&written(path))),
        Parsed::Text => Some(rooted(&escape(path.as_bytes()))),
        Parsed::Nowhere => None,
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

enum Parsed<'a> {
    /// Path and query.
    Url(&'a str, Option<&'a str>),
    /// Not a URL: escaped as a whole.
    Text,
    /// No request results, or none that is modelled.
    Nowhere,
}

fn parse(text: &str) -> Parsed<'_> {
    let (text, fragment) = text.split_once('#').map_or((text, ""), |(text, fragment)| (text, fragment));
    if text.bytes().any(|byte| byte.is_ascii_control()) || unescape(fragment).is_none() {
        return Parsed::Text;
    }
    let (text, is_absolute) = match scheme(text) {
        Scheme::None => (text, false),
        Scheme::Missing => return Parsed::Text,
        Scheme::Some(rest) => (rest, true),
    };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if is_absolute && !path.starts_with('/') {
        // An opaque URL has no host to send to.
        return Parsed::Nowhere;
    }
    if !is_absolute
        && !path.starts_with('/')
        && path.split('/').next().is_some_and(|first| first.contains(':'))
    {
        return Parsed::Text;
    }
    let Some(path) = without_host(path) else { return Parsed::Nowhere };
    if unescape(path).is_some() { Parsed::Url(path, query) } else { Parsed::Text }
}

/// The path without a leading host, which the kubelet replaces; `None` if the host may make the URL
/// invalid.
fn without_host(path: &str) -> Option<&str> {
    let Some(rest) = path.strip_prefix("//").filter(|rest| !rest.starts_with('/')) else { return Some(path) };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)).then_some(path)
}

enum Scheme<'a> {
    None,
    /// A colon with nothing before it.
    Missing,
    /// The part after the scheme.
    Some(&'a str),
}

fn scheme(text: &str) -> Scheme<'_> {
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if index > 0 => {}
            b':' if index == 0 => return Scheme::Missing,
            b':' => return Scheme::Some(&text[index + 1..]),
            _ => return Scheme::None,
        }
    }
    Scheme::None
}

/// The raw path if it is validly escaped, otherwise escaped again.
fn written(raw: &str) -> String {
    let is_valid = |byte: u8| {
        byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) || ALLOWED.contains(&byte) || byte == b'%'
    };
    if raw.bytes().all(is_valid) { raw.to_owned() } else { escape(&unescape(raw).unwrap_or_default()) }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || PLAIN.contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: the output of Go 1.26 for `http.NewRequest("GET", formatURL("http", ip,
    /// port, path).String(), nil)`.
    #[test]
    fn targets_are_those_of_the_kubelet() {
        let table = [
            ("", "/"),
            ("/", "/"),
            ("/healthz", "/healthz"),
            ("healthz", "/healthz"),
            ("/a?b=c", "/a?b=c"),
            ("/a?", "/a?"),
            ("?x", "/?x"),
            ("/a?b c", "/a?b c"),
            ("/a b", "/a%20b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb c", "/a/b%20c"),
            ("/%41", "/%41"),
            ("/%zz", "/%25zz"),
            ("/a#f", "/a"),
            ("/a#%zz", "/a%23%25zz"),
            ("/\u{e4}", "/%C3%A4"),
            ("/\u{e4}?\u{f6}", "/%C3%A4?\u{f6}"),
            ("1a:b", "/1a:b"),
            (":a", "/:a"),
            ("/a:b", "/a:b"),
            ("*", "/*"),
            ("//x/y", "/y"),
            ("///x", "///x"),
            ("/a//b", "/a//b"),
            ("./a/../b", "/./a/../b"),
            ("http://e/x?y", "/x?y"),
            ("HTTP://e", "/"),
            ("/a;b=1", "/a;b=1"),
            ("/a[1]", "/a[1]"),
            ("/a{1}", "/a%7B1%7D"),
            ("/a|b\\c", "/a%7Cb%5Cc"),
            ("/\"q\"", "/%22q%22"),
            ("/a^`<>", "/a%5E%60%3C%3E"),
            ("/!'()*", "/!'()*"),
            ("/a\u{1}b?c", "/a%01b%3Fc"),
        ];
        for (path, want) in table {
            assert_eq!(request_target(path).as_deref(), Some(want), "{path:?}");
        }
        for path in ["mailto:a", "a:b/c", "//user@x/y"] {
            assert_eq!(request_target(path), None, "{path:?}");
        }
    }

    #[test]
    fn no_target_ends_its_line() {
        for byte in 0..=u8::MAX {
            let path = format!("/a{}b", char::from(byte));
            let target = request_target(&path).unwrap();
            assert!(!target.bytes().any(|byte| byte.is_ascii_control()), "{path:?}");
        }
    }
}
