//! `traceparent` (W3C Trace Context, 3.2). Pure.
//!
//! Invariant: neither id is zero.

use std::fmt;

use http::{HeaderMap, HeaderName};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Length of version 00; later versions begin with the same fields.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// `sampled`, and `random-trace-id` of level 2; undefined flags are not propagated.
const KNOWN_FLAGS: u8 = 3;

/// The position of a request in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Id of the trace.
    pub trace_id: u128,
    /// Id of the span that sent the request.
    pub span_id: u64,
    flags: u8,
}

impl Context {
    /// Begins a trace.
    pub(super) fn new(trace_id: u128, span_id: u64, sampled: bool) -> Self {
        Self { trace_id, span_id, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// The same trace, sent by another span.
    pub(super) fn below(self, span_id: u64) -> Self {
        Self { span_id, ..self }
    }

    /// The context of a request; `None` if it is absent or invalid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?.to_str().ok()?;
        // Several fields are invalid.
        if values.next().is_some() { None } else { Self::parse(value) }
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.get(LENGTH..)?;
        let mut parts = text.get(..LENGTH)?.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            part.bytes().all(lower).then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let (version, trace_id) = (number(2)?, number(32)?);
        let (span_id, flags) = (number(16)?, number(2)?);
        let known = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let context = Self {
            trace_id,
            span_id: u64::try_from(span_id).ok()?,
            flags: u8::try_from(flags).ok()? & KNOWN_FLAGS,
        };
        (known && trace_id != 0 && span_id != 0).then_some(context)
    }

    /// Whether the trace is sampled.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn takes_what_the_standard_allows_and_nothing_else() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let span = "b7ad6b7169203331";
        for (given, expected) in [
            (GOOD.to_owned(), Some(true)),
            (format!("00-{trace}-{span}-00"), Some(false)),
            (format!("00-{trace}-{span}-ff"), Some(true)),
            (format!("00-{trace}-{span}-02"), Some(false)),
            (format!("cc-{trace}-{span}-01"), Some(true)),
            (format!("cc-{trace}-{span}-01-what-is-to-come"), Some(true)),
            (format!("cc-{trace}-{span}-01.what-is-to-come"), None),
            (format!("00-{trace}-{span}-01-"), None),
            (format!("ff-{trace}-{span}-01"), None),
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (GOOD.to_uppercase(), None),
            (format!("00-+{}-{span}-01", &trace[1..]), None),
            (format!("00-{trace}{span}-01"), None),
            (format!("00-{trace}-{span}-0"), None),
            (String::new(), None),
            ("ü".repeat(40), None),
        ] {
            let found = Context::parse(&given).map(|context| context.is_sampled());
            assert_eq!(found, expected, "{given}");
        }
        assert_eq!(Context::parse(GOOD).unwrap().to_string(), GOOD);
    }

    #[test]
    fn two_contexts_are_as_good_as_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(Context::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Context::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Context::of(&headers), None);
    }
}
