//! Evaluating the conditions on one request.
//!
//! Invariant: where a request is ambiguous (a path with several readings, a header with different
//! values, an invalid host), `doubt` decides; the client cannot choose the reading that suits it.

use std::{borrow::Cow, sync::Arc};

use super::{
    super::path::readings::{Reading, Readings},
    condition::holds,
};
use crate::authorization::{Attribute, AttributeMatch, Request, RequestMatch, StringMatch, Token};

/// A request with the values that are computed once per evaluation.
pub(in crate::authorization) struct Seen<'a> {
    request: &'a Request<'a>,
    host: Option<Host<'a>>,
    path: Option<Readings<'a>>,
}

/// The authority of a request.
struct Host<'a> {
    /// Name or address, without the trailing dot.
    name: &'a str,
    /// The same with the port, if one was given.
    with_port: Option<Cow<'a, str>>,
}

impl<'a> Seen<'a> {
    pub(in crate::authorization) fn new(request: &'a Request<'a>) -> Self {
        Self { request, host: Host::read(request.host), path: Readings::new(request.path).ok() }
    }
}

impl<'a> Host<'a> {
    /// `None` when it is empty or contains a character that no host may contain, so that the host
    /// is ambiguous.
    fn read(text: &'a str) -> Option<Self> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._~[]:%".contains(c);
        if !text.chars().all(is_host) {
            return None;
        }
        let (name, port) = match text.rsplit_once(':') {
            // The colon belongs to an IPv6 address.
            Some((_, after)) if after.contains(']') => (text, None),
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let is_port = port.is_none_or(|port| port.bytes().all(|digit| digit.is_ascii_digit()));
        let bare = name.strip_suffix('.').unwrap_or(name);
        let is_ipv6 = bare.starts_with('[') && bare.ends_with(']');
        if bare.is_empty() || !is_port || (bare.contains(':') && !is_ipv6) {
            return None;
        }
        let with_port = port.map(|port| match bare.len() == name.len() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(format!("{bare}:{port}")),
        });
        Some(Self { name: bare, with_port })
    }

    /// RFC 9110 4.2.3: hosts are compared without regard to case.
    fn is(&self, matching: &StringMatch) -> bool {
        let forms = [Some(self.name), self.with_port.as_deref()];
        forms.into_iter().flatten().any(|form| matching.matches_any_case(form))
    }
}

impl RequestMatch {
    pub(super) fn holds(&self, doubt: bool, is_vouched: bool, seen: &Seen<'_>) -> bool {
        let request = seen.request;
        let principal = |m: &StringMatch| request.token.is_some_and(|token| token.is(m));
        let asks_host = !(self.hosts.is_empty() && self.not_hosts.is_empty());
        let asks_path = !(self.paths.is_empty() && self.not_paths.is_empty());
        let host = || match &seen.host {
            Some(host) => holds(&self.hosts, &self.not_hosts, |m| host.is(m)),
            None => doubt,
        };
        let path = || {
            let of =
                |path: &Reading<'_>| holds(&self.paths, &self.not_paths, |pattern| pattern.matches(path));
            seen.path.as_ref().and_then(|readings| readings.agree(of)).unwrap_or(doubt)
        };

        holds(&self.methods, &self.not_methods, |m| m.matches_any_case(request.method))
            && (!asks_host || host())
            && (!asks_path || path())
            && holds(&self.principals, &self.not_principals, principal)
            && self.holds_for_remote(doubt, is_vouched, request)
            && self.attributes.iter().all(|attribute| attribute.holds(doubt, seen))
    }
}

impl AttributeMatch {
    fn holds(&self, doubt: bool, seen: &Seen<'_>) -> bool {
        let request = seen.request;
        let token = request.token;
        let one_of = |set: &[Arc<str>]| self.says(|m| set.iter().any(|value| m.matches(&[value])));
        match &self.attribute {
            Attribute::Header(name) => self.holds_for_header(doubt, request, name),
            Attribute::HeaderMembers(name) => self.says(|m| {
                let mut is_member = false;
                request.headers.each(name, &mut |line| {
                    let mut members = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                    is_member |= members.any(|member| m.matches_value(member));
                });
                is_member
            }),
            Attribute::Authority => self.holds_for_authority(doubt, seen),
            Attribute::Presenter => one_of(token.map_or(&[], |token| &token.presenters)),
            Attribute::Audiences => one_of(token.map_or(&[], |token| &token.audiences)),
            Attribute::Claim(path) => {
                one_of(token.and_then(|token| token.claims.get(path)).map_or(&[], Vec::as_slice))
            }
            Attribute::Sni => self.holds_for_server_name(request.sni),
        }
    }

    pub(in crate::authorization) fn holds_for_server_name(&self, name: Option<&str>) -> bool {
        self.says(|m| name.is_some_and(|name| m.matches_any_case(name)))
    }

    fn says(&self, test: impl Fn(&StringMatch) -> bool) -> bool {
        holds(&self.values, &self.not_values, test)
    }

    /// Compares each value, and all values joined as proxies join lines (RFC 9110 5.3). If the
    /// results differ, the condition is in doubt.
    fn holds_for_header(&self, doubt: bool, request: &Request<'_>, name: &str) -> bool {
        let (mut yes, mut lines) = (0_usize, 0_usize);
        request.headers.each(name, &mut |value| {
            lines += 1;
            yes += usize::from(self.says(|m| m.matches_value(value)));
        });
        match lines {
            0 => self.values.is_empty(),
            1 => yes == 1,
            _ => {
                let mut joined = Vec::new();
                request.headers.each(name, &mut |value| {
                    joined.extend_from_slice(value);
                    joined.push(b',');
                });
                joined.pop();
                match (self.says(|m| m.matches_value(&joined)), yes) {
                    (true, yes) if yes == lines => true,
                    (false, 0) => false,
                    _ => doubt,
                }
            }
        }
    }

    /// Compares both the literal text and the parsed host.
    fn holds_for_authority(&self, doubt: bool, seen: &Seen<'_>) -> bool {
        let Some(host) = &seen.host else { return doubt };
        let as_text = self.says(|m| m.matches_value(seen.request.host.as_bytes()));
        if as_text == self.says(|m| host.is(m)) { as_text } else { doubt }
    }
}

impl Token {
    /// Whether issuer and subject match; a token without either has no principal. The last `/` of a
    /// pattern separates the two, because an issuer is a URL; a pattern without `/` constrains one
    /// of them.
    fn is(&self, matching: &StringMatch) -> bool {
        let (issuer, subject) = (&*self.issuer, &*self.subject);
        let is_known = !issuer.is_empty() && !subject.is_empty();
        is_known
            && match matching {
                StringMatch::Presence => true,
                StringMatch::Exact(text) => text.rsplit_once('/') == Some((issuer, subject)),
                StringMatch::Prefix(text) => match text.rsplit_once('/') {
                    Some((of, begin)) => of == issuer && subject.starts_with(begin),
                    None => issuer.starts_with(&**text),
                },
                StringMatch::Suffix(text) => match text.rsplit_once('/') {
                    Some((end, of)) => issuer.ends_with(end) && of == subject,
                    None => subject.ends_with(&**text),
                },
            }
    }
}

impl StringMatch {
    /// Matches a value that is present, even if it is empty.
    fn matches_value(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Presence => true,
        }
    }

    fn matches_any_case(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let begin = |len: usize| bytes.get(..len);
        let end = |len: usize| bytes.len().checked_sub(len).and_then(|at| bytes.get(at..));
        match self {
            Self::Exact(want) => bytes.eq_ignore_ascii_case(want.as_bytes()),
            Self::Prefix(want) => begin(want.len()).is_some_and(|b| b.eq_ignore_ascii_case(want.as_bytes())),
            Self::Suffix(want) => end(want.len()).is_some_and(|b| b.eq_ignore_ascii_case(want.as_bytes())),
            Self::Presence => !bytes.is_empty(),
        }
    }
}
