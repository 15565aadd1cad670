//! The different ways in which servers interpret the same path.
//!
//! Invariant: a path that servers interpret differently is never judged only by the interpretation
//! that suits the client. [`Readings`] holds the result of every order of the normalization steps
//! that servers are known to apply; a path without readings cannot be judged. Not covered: double
//! unescaping, case folding and trailing slashes.

use std::borrow::Cow;

/// A path with more readings than this cannot be judged.
const READINGS_MAX: usize = 64;

/// A path whose interpretation is uncertain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path is not absolute, has more readings than {READINGS_MAX}, or holds a control character, a query or a fragment"
)]
pub struct UnreadablePath;

/// Which percent-escapes are decoded, in addition to the unreserved ones (RFC 3986 6.2.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// No others.
    Needless,
    /// Slashes and backslashes.
    Slashes,
    /// Every ASCII character.
    All,
}

/// One interpretation of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) undone: Undone,
    /// Path parameters (`;` and what follows it in a segment) are removed.
    pub(super) is_cut: bool,
}

/// All interpretations of one path.
pub(crate) struct Readings<'a> {
    /// The result of [`normalize_path`].
    strict: Reading<'a>,
    others: Vec<Reading<'a>>,
}

/// Normalizes a path by RFC 3986 6.2.2 and reads `\` as `/`: needless escapes are decoded, other
/// escapes written in upper case, and dot segments removed. A `%` that is not an escape is kept as
/// a literal. Repeated slashes are not merged.
///
/// # Errors
/// When the meaning of the path is uncertain.
pub fn normalize_path(raw: &str) -> Result<Cow<'_, str>, UnreadablePath> {
    let text = slashed(canonical(raw)?);
    if text.starts_with('/') { Ok(without_dots(text)) } else { Err(UnreadablePath) }
}

impl<'a> Readings<'a> {
    pub(crate) fn new(raw: &'a str) -> Result<Self, UnreadablePath> {
        let whole = |text| Reading { text, undone: Undone::Needless, is_cut: false };
        let text = canonical(raw)?;
        let strict = whole(normalize_path(raw)?);
        let is_plain = !text.contains(['%', ';', '\\']) && !text.contains("//") && text == strict.text;
        if is_plain {
            // A pattern may escape characters that the path does not.
            let undone = Reading { undone: Undone::All, ..strict.clone() };
            return Ok(Self { strict, others: vec![undone] });
        }
        // The upstream receives the path unchanged, and may resolve neither dot segments nor `\`.
        let mut found = vec![whole(text)];
        let mut at = 0;
        while let Some(reading) = found.get(at).cloned() {
            for step in STEPS {
                let next = step(&reading).filter(|next| !found.contains(next));
                found.extend(next);
                if found.len() > READINGS_MAX {
                    return Err(UnreadablePath);
                }
            }
            at += 1;
        }
        found.retain(|reading| *reading != strict);
        Ok(Self { strict, others: found })
    }

    /// The result of `test` if all readings agree; `None` when they differ.
    pub(crate) fn agree(&self, test: impl Fn(&Reading<'_>) -> bool) -> Option<bool> {
        let answer = test(&self.strict);
        self.others.iter().all(|other| test(other) == answer).then_some(answer)
    }
}

/// Normalization steps that servers apply in varying order. Each returns `None` when it changes
/// nothing.
const STEPS: [for<'a> fn(&Reading<'a>) -> Option<Reading<'a>>; 6] =
    [undo_slashes, undo_all, read_backslashes, cut, merge, resolve];

fn undo_slashes<'a>(reading: &Reading<'a>) -> Option<Reading<'a>> {
    let is_left = reading.undone == Undone::Needless;
    is_left.then(|| changed(reading, undo(&reading.text, Undone::Slashes), Undone::Slashes))
}

fn undo_all<'a>(reading: &Reading<'a>) -> Option<Reading<'a>> {
    let is_left = reading.undone != Undone::All;
    is_left.then(|| changed(reading, undo(&reading.text, Undone::All), Undone::All))
}

fn changed<'a>(reading: &Reading<'a>, text: Option<String>, undone: Undone) -> Reading<'a> {
    let text = text.map_or_else(|| reading.text.clone(), Cow::Owned);
    Reading { text, undone, is_cut: reading.is_cut }
}

/// WHATWG URL 4.4: browsers and many servers treat `\` as a slash.
fn read_backslashes<'a>(reading: &Reading<'a>) -> Option<Reading<'a>> {
    reading.text.contains('\\').then(|| Reading { text: slashed(reading.text.clone()), ..reading.clone() })
}

fn cut<'a>(reading: &Reading<'a>) -> Option<Reading<'a>> {
    let text = without_parameters(&reading.text)?;
    Some(Reading { text: text.into(), is_cut: true, undone: reading.undone })
}

fn merge<'a>(reading: &Reading<'a>) -> Option<Reading<'a>> {
    if !reading.text.contains("//") {
        return None;
    }
    let mut text = String::with_capacity(reading.text.len());
    for char in reading.text.chars() {
        if char != '/' || !text.ends_with('/') {
            text.push(char);
        }
    }
    Some(Reading { text: text.into(), ..reading.clone() })
}

fn resolve<'a>(reading: &Reading<'a>) -> Option<Reading<'a>> {
    let is_absolute = reading.text.starts_with('/');
    let text = without_dots(Cow::Borrowed(&reading.text)).into_owned();
    (is_absolute && text != reading.text).then(|| Reading { text: text.into(), ..reading.clone() })
}

/// The text with these escapes decoded; `None` when it contains none of them.
pub(super) fn undo(text: &str, which: Undone) -> Option<String> {
    let is_meant = |byte: u8| match which {
        Undone::Needless => false,
        Undone::Slashes => matches!(byte, b'/' | b'\\'),
        // Non-ASCII bytes are compared in escaped form.
        Undone::All => byte.is_ascii(),
    };
    let mut undone = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        undone.push_str(before);
        match escaped(after).filter(|(byte, _)| is_meant(*byte)) {
            Some((byte, left)) => {
                undone.push(char::from(byte));
                rest = left;
            }
            None => {
                undone.push('%');
                rest = after;
            }
        }
    }
    undone.push_str(rest);
    (undone.len() < text.len()).then_some(undone)
}

/// RFC 3986 3.3: each segment without its parameters; `None` when there are none.
pub(super) fn without_parameters(text: &str) -> Option<String> {
    let name = |segment| str::split(segment, ';').next().unwrap_or_default();
    text.contains(';').then(|| text.split('/').map(name).collect::<Vec<_>>().join("/"))
}

/// Splits the text after a `%` into the escaped byte and the rest; `None` when it is not an escape.
fn escaped(after: &str) -> Option<(u8, &str)> {
    let (digits, rest) = after.split_at_checked(2)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok().map(|byte| (byte, rest))).flatten()
}

/// Whether the text contains a `%` that is not an escape.
pub(super) fn has_lone_percent(text: &str) -> bool {
    text.split('%').skip(1).any(|after| escaped(after).is_none())
}

/// A single spelling for equivalent paths (RFC 3986 6.2.2.1 and 6.2.2.2): non-ASCII bytes (RFC 3987
/// 3.1) and a `%` that is not an escape are escaped.
pub(super) fn canonical(raw: &str) -> Result<Cow<'_, str>, UnreadablePath> {
    if raw.bytes().any(|byte| byte.is_ascii_control() || matches!(byte, b'?' | b'#')) {
        return Err(UnreadablePath);
    }
    if raw.is_ascii() && !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(char) = rest.chars().next() {
        let after = rest.get(char.len_utf8()..).unwrap_or_default();
        let escape = if char == '%' { escaped(after) } else { None };
        rest = escape.map_or(after, |(_, left)| left);
        match escape {
            Some((0, _)) => return Err(UnreadablePath),
            // Unreserved characters (RFC 3986 2.3).
            Some((byte, _)) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                text.push(char::from(byte));
            }
            Some((byte, _)) => push_escaped(&mut text, byte),
            None if char == '%' => push_escaped(&mut text, b'%'),
            None if char.is_ascii() => text.push(char),
            None => char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_escaped(&mut text, byte)),
        }
    }
    Ok(Cow::Owned(text))
}

fn push_escaped(text: &mut String, byte: u8) {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default().to_ascii_uppercase();
    text.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
}

pub(super) fn slashed(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\\') { Cow::Owned(text.replace('\\', "/")) } else { text }
}

/// Removes dot segments (RFC 3986 5.2.4).
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
