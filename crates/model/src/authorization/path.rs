//! Patterns that paths are compared with.
//!
//! Invariant: a pattern is compared with each [`Reading`] of a path in the spelling of that reading, and one that no
//! path can be like is refused.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use self::readings::Reading;
use super::StringMatch;

pub(super) mod readings;
#[cfg(test)]
mod tests;

/// One path segment, not empty.
const ONE: &str = "{*}";
/// Any rest of the path, with as many segments as it may have.
const REST: &str = "{**}";

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
    /// What cannot be in a path.
    #[error(
        "it holds what no path does: write spaces, ? and #, quotes, <, > and what is not ASCII percent-encoded, % as %25"
    )]
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

/// The text as every path is written; what no path holds would never match.
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
    /// A piece of a pattern, spelled as this reading is.
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
