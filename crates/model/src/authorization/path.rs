//! Path patterns.
//!
//! Invariant: a pattern is compared with each [`Reading`] of a path, in the spelling of that
//! reading. A pattern that no path can match is rejected.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use self::readings::Reading;
use super::StringMatch;

pub(super) mod readings;
#[cfg(test)]
mod tests;

/// Matches one path segment that is not empty.
const ONE: &str = "{*}";
/// Matches the rest of the path, any number of segments.
const REST: &str = "{**}";

/// Why a text is not a valid path pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathPattern {
    /// It does not start with `/`, so no path can match.
    #[error("it must begin with / or *")]
    NotAbsolute,
    /// A `*` in the middle.
    #[error("* is allowed only at its beginning or its end, or as the segment {ONE} or {REST}")]
    Wildcard,
    /// An operator is unknown, shares its segment with other text, or follows `{**}`.
    #[error(
        "{ONE} and {REST} must be whole segments, {REST} the last of them, and other braces are not allowed"
    )]
    Operator,
    /// It contains a character that no path may contain.
    #[error(
        "it contains characters that no path contains: percent-encode spaces, ?, #, quotes, <, > and non-ASCII characters, and write % as %25"
    )]
    Unreadable,
}

/// A pattern for a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Exact, prefix or suffix match.
    Text(StringMatch),
    /// Match segment by segment.
    Template(PathTemplate),
}

/// `/users/{*}/files/{**}`: `{*}` matches one segment, `{**}` (which must come last) any number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    text: Arc<str>,
    /// Segments before `{**}`.
    head: Vec<Segment>,
    /// What the path must end with after `{**}`; `None` without a `{**}`.
    tail: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Arc<str>),
    One,
}

impl FromStr for PathPattern {
    type Err = InvalidPathPattern;

    /// Accepts `*`, `*<suffix>`, `<prefix>*`, a template, or an exact path.
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
    pub(super) fn matches(&self, path: &Reading<'_>) -> bool {
        match self {
            Self::Text(matching) => path.is(matching),
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
    fn matches(&self, path: &Reading<'_>) -> bool {
        let mut rest = path.text.strip_prefix('/');
        for segment in &self.head {
            let Some(left) = rest else { return false };
            let (own, next) = match left.split_once('/') {
                Some((own, next)) => (own, Some(next)),
                None => (left, None),
            };
            let holds = match segment {
                Segment::Literal(text) => own == path.spell(text),
                Segment::One => !own.is_empty(),
            };
            if !holds {
                return false;
            }
            rest = next;
        }
        match (&self.tail, rest) {
            (None, rest) => rest.is_none(),
            (Some(tail), Some(rest)) => rest.ends_with(&*path.spell(tail)),
            (Some(_), None) => false,
        }
    }
}

/// Normalizes the text as paths are normalized; without that it would never match.
fn canonical_literal(text: &str) -> Result<Arc<str>, InvalidPathPattern> {
    let is_held = |byte: u8| byte.is_ascii_graphic() && !b"\"<>`".contains(&byte);
    if !text.bytes().all(is_held) || readings::has_lone_percent(text) {
        return Err(InvalidPathPattern::Unreadable);
    }
    let text =
        readings::canonical(text).map_err(|readings::UnreadablePath| InvalidPathPattern::Unreadable)?;
    Ok(readings::slashed(text).into())
}

impl Reading<'_> {
    /// A literal of the pattern, in the spelling of this reading.
    fn spell<'a>(&self, literal: &'a str) -> Cow<'a, str> {
        let undone = if literal.contains('%') { readings::undo(literal, self.undone) } else { None };
        let text = undone.map_or(Cow::Borrowed(literal), Cow::Owned);
        let cut = if self.is_cut { readings::without_parameters(&text) } else { None };
        cut.map_or(text, Cow::Owned)
    }

    fn is(&self, matching: &StringMatch) -> bool {
        let path = &*self.text;
        match matching {
            StringMatch::Exact(text) => path == self.spell(text),
            StringMatch::Prefix(text) => path.starts_with(&*self.spell(text)),
            StringMatch::Suffix(text) => path.ends_with(&*self.spell(text)),
            StringMatch::Presence => !path.is_empty(),
        }
    }
}
