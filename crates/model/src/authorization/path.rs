//! Paths, and the patterns they are compared with.
//!
//! Invariant: a path that servers read in different ways is never judged in the one way that suits the client:
//! [`Readings`] holds every way, and a path without a reading has no answer at all.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use super::StringMatch;

#[cfg(test)]
mod tests;

/// One path segment, not empty.
const ONE: &str = "{*}";
/// Any rest of the path, with as many segments as it may have.
const REST: &str = "{**}";

/// A path that no server can read with certainty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path is not absolute, or holds a broken percent-encoding, a control character, a query or a fragment"
)]
pub struct UnreadablePath;

/// Why a text is not a pattern for paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathPattern {
    /// No path is like this.
    #[error("it must begin with / or *")]
    NotAbsolute,
    /// A wildcard inside.
    #[error("* may stand at its beginning or its end only, or as the segment {ONE} or {REST}")]
    Wildcard,
    /// An operator shares its segment, comes after the last one, or is unknown.
    #[error(
        "{ONE} and {REST} must be whole segments, {REST} the last of them, and other braces are not allowed"
    )]
    Operator,
    /// Percent-encoding, or what cannot be in a path.
    #[error("it holds a broken percent-encoding, a control character, ? or #")]
    Unreadable,
}

/// What a path must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Equal, beginning or end.
    Text(StringMatch),
    /// Segment by segment.
    Template(PathTemplate),
}

/// `/users/{*}/files/{**}`: `{*}` is one segment, `{**}` (the last operator) any number of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    text: Arc<str>,
    /// Segments before the rest.
    head: Vec<Segment>,
    /// What the path ends with after `{**}`; none when there is no `{**}`.
    tail: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Arc<str>),
    One,
}

impl FromStr for PathPattern {
    type Err = InvalidPathPattern;

    /// `*`, `*<suffix>`, `<prefix>*`, a template, or an exact path.
    fn from_str(text: &str) -> Result<Self, InvalidPathPattern> {
        if text.contains(['{', '}']) {
            return text.parse().map(Self::Template);
        }
        let literal = |text: &str| {
            if text.contains('*') { Err(InvalidPathPattern::Wildcard) } else { canonical_literal(text) }
        };
        let matching = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => StringMatch::Presence,
            (Some(suffix), _) => StringMatch::Suffix(literal(suffix)?),
            (None, _) if !text.starts_with('/') => return Err(InvalidPathPattern::NotAbsolute),
            (None, Some(prefix)) => StringMatch::Prefix(literal(prefix)?),
            (None, None) => StringMatch::Exact(literal(text)?),
        };
        Ok(Self::Text(matching))
    }
}

impl PathPattern {
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Text(matching) => matching.matches(&[path]),
            Self::Template(template) => template.matches(path),
        }
    }
}

impl FromStr for PathTemplate {
    type Err = InvalidPathPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPathPattern> {
        let path = text.strip_prefix('/').ok_or(InvalidPathPattern::NotAbsolute)?;
        let (head, tail) = match path.split_once(REST) {
            None => (Some(path), None),
            Some((before, after)) => {
                let is_begun = before.is_empty() || before.ends_with('/');
                let is_ended = after.is_empty() || after.starts_with('/');
                if !is_begun || !is_ended || after.contains(['{', '}', '*']) {
                    return Err(InvalidPathPattern::Operator);
                }
                (before.strip_suffix('/'), Some(canonical_literal(after)?))
            }
        };
        let segment = |segment: &str| match segment {
            ONE => Ok(Segment::One),
            other if other.contains(['{', '}', '*']) => Err(InvalidPathPattern::Operator),
            other => canonical_literal(other).map(Segment::Literal),
        };
        let head = head.into_iter().flat_map(|head| head.split('/')).map(segment);
        Ok(Self { text: text.into(), head: head.collect::<Result<_, _>>()?, tail })
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PathTemplate {
    fn matches(&self, path: &str) -> bool {
        let mut rest = path.strip_prefix('/');
        for segment in &self.head {
            let Some(left) = rest else { return false };
            let (own, next) = match left.split_once('/') {
                Some((own, next)) => (own, Some(next)),
                None => (left, None),
            };
            let holds = match segment {
                Segment::Literal(text) => own == &**text,
                Segment::One => !own.is_empty(),
            };
            if !holds {
                return false;
            }
            rest = next;
        }
        match (&self.tail, rest) {
            (None, rest) => rest.is_none(),
            (Some(tail), Some(rest)) => rest.ends_with(&**tail),
            (Some(_), None) => false,
        }
    }
}

/// The path as RFC 3986 6.2.2 normalizes it, and `\` read as `/`: escapes that need not be are undone, the others
/// written in upper case, and dot segments removed. Slashes are not merged.
///
/// # Errors
/// When nobody can say what the path means.
pub fn normalize_path(raw: &str) -> Result<Cow<'_, str>, UnreadablePath> {
    let text = slashed(unescaped(raw)?);
    if text.starts_with('/') { Ok(without_dots(text)) } else { Err(UnreadablePath) }
}

/// The ways in which servers read one path.
pub(super) struct Readings<'a> {
    /// As [`normalize_path`] says.
    strict: Cow<'a, str>,
    /// Where that is another path: with `%2F` and `%5C` taken for slashes and slashes merged, and as it came, because
    /// it goes on as it came to a server that may resolve neither dots nor `\`.
    others: Vec<String>,
}

impl<'a> Readings<'a> {
    pub(super) fn new(raw: &'a str) -> Result<Self, UnreadablePath> {
        let literal = unescaped(raw)?;
        let text = slashed(literal.clone());
        if !text.starts_with('/') {
            return Err(UnreadablePath);
        }
        let mut others = Vec::new();
        if text.contains("//") || text.contains("%2F") || text.contains("%5C") {
            // Merged before dot segments go: what a dot segment removes then is another segment.
            others.push(without_dots(Cow::Owned(merged(&text))).into_owned());
        }
        let strict = without_dots(text);
        if literal != strict {
            others.push(literal.into_owned());
        }
        others.retain(|other| *other != strict);
        Ok(Self { strict, others })
    }

    /// What `test` says of every reading; none when they differ.
    pub(super) fn agree(&self, test: impl Fn(&str) -> bool) -> Option<bool> {
        let answer = test(&self.strict);
        self.others.iter().all(|other| test(other) == answer).then_some(answer)
    }
}

/// One spelling for escapes that are spelled in several: RFC 3986 6.2.2.1 and 6.2.2.2.
fn unescaped(raw: &str) -> Result<Cow<'_, str>, UnreadablePath> {
    if raw.bytes().any(|byte| byte.is_ascii_control() || matches!(byte, b'?' | b'#')) {
        return Err(UnreadablePath);
    }
    let mut chunks = raw.split('%');
    let first = chunks.next().unwrap_or_default();
    if first.len() == raw.len() {
        return Ok(Cow::Borrowed(raw));
    }
    let mut text = first.to_owned();
    for chunk in chunks {
        let (digits, rest) = chunk.split_at_checked(2).ok_or(UnreadablePath)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(UnreadablePath);
        }
        match u8::from_str_radix(digits, 16).map_err(|_| UnreadablePath)? {
            0 => return Err(UnreadablePath),
            // RFC 3986 2.3, unreserved.
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                text.push(char::from(byte));
            }
            _ => {
                text.push('%');
                text.push_str(&digits.to_ascii_uppercase());
            }
        }
        text.push_str(rest);
    }
    Ok(Cow::Owned(text))
}

/// WHATWG URL 4.4: browsers and many servers take `\` for a slash.
fn slashed(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\\') { Cow::Owned(text.replace('\\', "/")) } else { text }
}

fn canonical_literal(text: &str) -> Result<Arc<str>, InvalidPathPattern> {
    unescaped(text).map(|text| slashed(text).into()).map_err(|UnreadablePath| InvalidPathPattern::Unreadable)
}

/// With encoded slashes as slashes, and several slashes as one.
fn merged(text: &str) -> String {
    let decoded = text.replace("%2F", "/").replace("%5C", "/");
    let mut merged = String::with_capacity(decoded.len());
    for segment in decoded.split('/').filter(|segment| !segment.is_empty()) {
        merged.push('/');
        merged.push_str(segment);
    }
    if decoded.ends_with('/') {
        merged.push('/');
    }
    merged
}

/// RFC 3986 5.2.4.
fn without_dots(path: Cow<'_, str>) -> Cow<'_, str> {
    if !path.contains("/.") {
        return path;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_dots = matches!(segment, "." | "..");
        if segment == ".." {
            kept.pop();
        }
        if !is_dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push("");
        }
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}
